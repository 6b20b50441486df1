/** All commands, in the order in which help lists them. */
import type { Command } from './command.ts';
import { helpFor, version } from './commands/about.ts';
import { doctor } from './commands/doctor.ts';
import { explain } from './commands/explain.ts';
import { flip } from './commands/flip.ts';
import { partitionsImport } from './commands/partitions-import.ts';
import { plan } from './commands/plan.ts';
import { servers } from './commands/serve.ts';
import { status } from './commands/status.ts';
import { steering } from './commands/steer.ts';
import { syncCommands } from './commands/sync.ts';
import { verify } from './commands/verify.ts';

export const commands: readonly Command[] = [
  ...servers,
  doctor,
  plan,
  flip,
  status,
  explain,
  ...steering,
  verify,
  ...syncCommands,
  partitionsImport,
  helpFor(() => commands),
  version,
];
