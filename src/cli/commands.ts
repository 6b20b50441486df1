/** All commands, in the order in which help lists them. */
import type { Command } from './command.ts';
import { helpFor, version } from './commands/about.ts';
import { directoryCommands } from './commands/directory.ts';
import { doctor } from './commands/doctor.ts';
import { eraseCommands } from './commands/erase.ts';
import { explain } from './commands/explain.ts';
import { flip } from './commands/flip.ts';
import { partitionsImport } from './commands/partitions-import.ts';
import { partitionsList } from './commands/partitions-list.ts';
import { partitionsResolve } from './commands/partitions-resolve.ts';
import { ledgerCommands } from './commands/ledger.ts';
import { linkCommands } from './commands/links.ts';
import { memberCommands } from './commands/members.ts';
import { observeCommands } from './commands/observe.ts';
import { plan } from './commands/plan.ts';
import { rollback } from './commands/rollback.ts';
import { servers } from './commands/serve.ts';
import { strayCommands } from './commands/strays.ts';
import { status } from './commands/status.ts';
import { steering } from './commands/steer.ts';
import { syncCommands } from './commands/sync.ts';
import { windowCommands } from './commands/window.ts';
import { verifyCommands } from './commands/verify.ts';

export const commands: readonly Command[] = [
  ...servers,
  doctor,
  ...observeCommands,
  plan,
  flip,
  rollback,
  status,
  explain,
  ...steering,
  ...verifyCommands,
  ...syncCommands,
  ...windowCommands,
  ...strayCommands,
  ...eraseCommands,
  ...memberCommands,
  ...ledgerCommands,
  partitionsList,
  partitionsImport,
  ...directoryCommands,
  partitionsResolve,
  ...linkCommands,
  helpFor(() => commands),
  version,
];
