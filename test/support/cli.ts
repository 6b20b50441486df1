/** Runs the command line as a process of its own, as a shell would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { resolve } from 'node:path';

const entry = resolve('src/cli/main.ts');

export interface CliResult {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as NDJSON; empty where it is not. */
  readonly events: readonly Record<string, unknown>[];
}

export interface CliProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<CliResult>;
  stdout(): string;
}

export interface CliOptions {
  readonly env?: Record<string, string>;
  readonly input?: string;
  readonly cwd?: string;
  /** A line of shell that starts the command, which it finds as `"$@"`, by `exec`. */
  readonly shell?: string;
}

/** Nothing of the test's own environment reaches it but PATH and what `env` says. */
export function startCli(argv: readonly string[], options: CliOptions = {}): CliProcess {
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', entry, ...argv];
  const [program = '', ...parameters] =
    options.shell === undefined ? command : ['sh', '-c', options.shell, 'sh', ...command];
  const child = spawn(program, parameters, {
    cwd: options.cwd ?? process.cwd(),
    env: { PATH: process.env['PATH'] ?? '', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const ended = new Promise<CliResult>((settle) => {
    child.once('close', (exit) => settle({ exit, stdout, stderr, events: eventsOf(stdout) }));
  });
  return { child, ended, stdout: () => stdout };
}

export function runCli(argv: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return startCli(argv, options).ended;
}

function eventsOf(text: string): Record<string, unknown>[] {
  if (!text.startsWith('{"type":"version"')) return [];
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
