/** What a command is, and what it gets to work with. */
import type { Readable } from 'node:stream';
import type { AdminClient } from './client.ts';
import type { Composition } from './composition.ts';
import type { Attempt, CliRefusal, ExitCode } from './exit.ts';
import type { Output } from './output.ts';

export interface Option {
  readonly type: 'string' | 'boolean';
  readonly summary: string;
  /** How the value is called in the usage. */
  readonly value?: string;
}

export interface Command {
  /** One or two words. */
  readonly name: string;
  readonly summary: string;
  /** Its positional arguments in the usage, `<…>` where they must be given. */
  readonly positionals: readonly string[];
  readonly options: Readonly<Record<string, Option>>;
  /** Changes state, so that --reason must say why. */
  readonly changes: boolean;
  run(context: Context, given: Given): Promise<ExitCode | CliRefusal>;
}

export interface Given {
  readonly positionals: readonly string[];
  readonly text: (option: string) => string | undefined;
  readonly flag: (option: string) => boolean;
}

export type Environment = NodeJS.ProcessEnv;

export interface Context {
  readonly env: Environment;
  readonly output: Output;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly configPath: string;
  /** Empty where the command changes nothing. */
  readonly reason: string;
  readonly yes: boolean;
  /** Of the whole command; undefined waits for ever. */
  readonly timeoutMs: number | undefined;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly interrupted: AbortSignal;
  /** Calls back at every SIGHUP. Returns the way out; a command that does not ask ends at one. */
  readonly onHangup: (listener: () => void) => () => void;
  /** Address and token come from the flags, the environment or the configuration file. */
  readonly admin: () => Attempt<AdminClient>;
  readonly composition: () => Promise<Composition>;
}

export const globalOptions: Readonly<Record<string, Option>> = {
  json: { type: 'boolean', summary: 'Print NDJSON; the first line is {"type":"version",…}.' },
  reason: { type: 'string', value: 'TEXT', summary: 'Why; mandatory on everything that changes state.' },
  yes: { type: 'boolean', summary: 'Do not ask for confirmation.' },
  timeout: { type: 'string', value: 'SECONDS', summary: 'Give up waiting after so long, also as 10s or 2m.' },
  'no-color': { type: 'boolean', summary: 'No colour, also on a terminal.' },
  config: {
    type: 'string',
    value: 'FILE',
    summary: 'Configuration; else ONEWRITER_CONFIG, else config/onewriter.yaml.',
  },
  admin: { type: 'string', value: 'URL', summary: 'Address of the admin API; else ONEWRITER_ADMIN.' },
  token: { type: 'string', value: 'TOKEN', summary: 'Token for the admin API; else ONEWRITER_TOKEN.' },
  help: { type: 'boolean', summary: 'Explain the command.' },
};
