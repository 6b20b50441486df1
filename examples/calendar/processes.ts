/** Starts and ends the demo's processes: each by its own pid, each with its own log file. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

export interface Started {
  readonly name: string;
  readonly pid: number;
  /** First line of standard output that is JSON with `listening`, if the process prints one. */
  readonly listening: Promise<string>;
  readonly exited: Promise<number | string>;
  kill(signal: NodeJS.Signals): void;
}

export class Processes {
  readonly #directory: string;
  readonly #running = new Map<string, { started: Started; child: ChildProcess }>();

  /** Logs go to `directory`, one file per process. */
  constructor(directory: string) {
    this.#directory = directory;
    process.once('exit', () => this.#killAll());
  }

  start(name: string, command: string, parameters: readonly string[], env: NodeJS.ProcessEnv = {}): Started {
    const log = createWriteStream(join(this.#directory, `${name}.log`));
    const child = spawn(command, parameters, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    const exited = new Promise<number | string>((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? code ?? 'unknown'));
    });
    const logPath = join(this.#directory, `${name}.log`);
    const started: Started = {
      name,
      pid: child.pid ?? 0,
      listening: listeningLine(child, exited, name, logPath),
      exited,
      kill: (signal) => void child.kill(signal),
    };
    // Whoever never asks for the address must not be ended by a rejection.
    started.listening.catch(() => undefined);
    this.#running.set(name, { started, child });
    void exited.then(() => this.#running.delete(name));
    return started;
  }

  /** Ends everything, newest first: politely, and after `withinMs` by force. */
  async stop(withinMs = 8_000): Promise<void> {
    for (const { started } of [...this.#running.values()].toReversed()) {
      started.kill('SIGTERM');
      const timer = setTimeout(() => started.kill('SIGKILL'), withinMs);
      await started.exited;
      clearTimeout(timer);
    }
  }

  #killAll(): void {
    for (const { child } of this.#running.values()) child.kill('SIGKILL');
  }
}

function listeningLine(
  child: ChildProcess,
  exited: Promise<number | string>,
  name: string,
  logPath: string,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      if (text.length > 65_536) return;
      text += chunk.toString();
      const found = /"listening"\s*:\s*"([^"]+)"/.exec(text);
      if (found?.[1] !== undefined) resolve(found[1]);
    });
    void exited.then((how) =>
      reject(new Error(`${name} ended (${how}) before it was ready; see ${logPath}`)),
    );
  });
}

/** A port that is free on loopback at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      const port = typeof address === 'object' && address !== null ? address.port : 0;
      probe.close(() => resolve(port));
    });
  });
}

/** Looks every 50 ms until `condition` holds; throws with `what` after `withinMs`. */
export async function eventually<Value>(
  what: string,
  condition: () => Promise<Value | undefined | false>,
  withinMs: number,
): Promise<Value> {
  const end = performance.now() + withinMs;
  let cause: unknown;
  while (performance.now() < end) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      cause = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within ${withinMs} ms`, { cause });
}
