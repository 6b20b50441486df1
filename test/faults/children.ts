/**
 * Child processes of a run: each ended by its own pid, each with a log file of its own. One that ends without
 * having been told to is started again, like under a supervisor, and counted.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { pause } from '../../src/pause.ts';

export interface Command {
  readonly name: string;
  readonly program: string;
  readonly parameters: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** It is up when its output matches; without this, as soon as it runs. */
  readonly ready?: RegExp;
  /** Hears what it sends over the IPC channel, which it has only then. */
  readonly onMessage?: (message: unknown) => void;
}

const againAfterMs = 300;
const readyWithinMs = 20_000;
const endWithinMs = 6_000;

let reaper: ChildProcess | undefined;

/** A run that is killed cannot end its children, so somebody else knows them. */
function tellReaper(pid: number | undefined, runs: boolean): void {
  if (pid === undefined) return;
  if (reaper === undefined) {
    // Out of reach of what ends this process and its group.
    reaper = fork(join(import.meta.dirname, 'reaper.ts'), { detached: true, stdio: 'ignore', execArgv: [] });
    reaper.on('error', () => undefined);
    reaper.unref();
    reaper.channel?.unref();
  }
  if (reaper.connected) reaper.send({ pid, runs });
}

export class Child {
  readonly name: string;
  /** Ended, though nobody ended it: how it did. */
  readonly crashes: string[] = [];
  readonly #command: Command;
  readonly #log: WriteStream;
  #process: ChildProcess | undefined;
  #ended: Promise<string> = Promise.resolve('');
  #ready: Promise<void> = Promise.resolve();
  #wanted = false;
  /** Somebody here is ending it, so its end is no crash. */
  #ending = false;
  #again: NodeJS.Timeout | undefined;

  constructor(command: Command, directory: string) {
    this.name = command.name;
    this.#command = command;
    this.#log = createWriteStream(join(directory, `${command.name}.log`), { flags: 'a' });
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  get running(): boolean {
    return this.#process !== undefined;
  }

  /** Rejects when it ends before it is ready; it is started again all the same. */
  async start(): Promise<void> {
    this.#wanted = true;
    this.#spawn();
    await this.#ready;
  }

  /** Waits through restarts. */
  async untilReady(withinMs = readyWithinMs): Promise<void> {
    const endMs = performance.now() + withinMs;
    for (;;) {
      try {
        await this.start();
        return;
      } catch (error) {
        if (performance.now() > endMs) throw new Error(`${this.name} did not start`, { cause: error });
        await pause(100);
      }
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#process?.kill(signal);
  }

  send(message: object): void {
    this.#process?.send(message);
  }

  /** SIGKILL; it stays down until it is started again. */
  async kill(): Promise<void> {
    this.#leave();
    this.#process?.kill('SIGKILL');
    await this.#ended;
    this.#ending = false;
  }

  /** SIGTERM, and SIGKILL if it does not end. */
  async end(withinMs = endWithinMs): Promise<void> {
    this.#leave();
    this.#process?.kill('SIGCONT');
    this.#process?.kill('SIGTERM');
    const timer = setTimeout(() => this.#process?.kill('SIGKILL'), withinMs);
    await this.#ended;
    clearTimeout(timer);
    this.#ending = false;
  }

  /** At once, for the end of this process. */
  killNow(): void {
    this.#leave();
    this.#process?.kill('SIGKILL');
  }

  closeLog(): void {
    this.#log.end();
  }

  #leave(): void {
    this.#wanted = false;
    this.#ending = true;
    clearTimeout(this.#again);
  }

  #spawn(): void {
    clearTimeout(this.#again);
    if (this.#process !== undefined) return;
    const { program, parameters, env, ready, onMessage } = this.#command;
    const child = spawn(program, parameters, {
      env: { PATH: process.env['PATH'] ?? '', ...env },
      stdio: ['ignore', 'pipe', 'pipe', ...(onMessage === undefined ? [] : ['ipc' as const])],
    });
    this.#process = child;
    tellReaper(child.pid, true);
    if (onMessage !== undefined) child.on('message', onMessage);
    this.#log.write(`--- pid ${child.pid} at ${new Date().toISOString()}\n`);
    let text = '';
    let isReady: () => void = () => undefined;
    const becameReady = new Promise<void>((resolve) => (isReady = resolve));
    const hear = (chunk: Buffer): void => {
      this.#log.write(chunk);
      if (ready === undefined || text === 'ready') return;
      text += chunk.toString();
      if (!ready.test(text)) return;
      text = 'ready';
      isReady();
    };
    if (ready === undefined) isReady();
    child.stdout?.on('data', hear);
    child.stderr?.on('data', hear);
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    }).then((how) => this.#over(child, String(how)));
    this.#ready = Promise.race([
      becameReady,
      this.#ended.then((how) => Promise.reject(new Error(`${this.name} ended (${how}); see its log`))),
    ]);
    this.#ready.catch(() => undefined);
  }

  #over(child: ChildProcess, how: string): string {
    if (this.#process === child) this.#process = undefined;
    tellReaper(child.pid, false);
    this.#log.write(`--- ended: ${how} at ${new Date().toISOString()}\n`);
    if (!this.#ending) this.crashes.push(how);
    if (this.#wanted) this.#again = setTimeout(() => this.#spawn(), againAfterMs);
    return how;
  }
}

const taken = new Set<number>();

/**
 * A port that is free now and stays ours: below the range that the kernel gives to outgoing connections, so
 * that a server can be killed and started again on it.
 */
export async function stablePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 11_000);
    if (taken.has(port)) continue;
    const free = await new Promise<boolean>((resolve) => {
      const probe = createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (!free) continue;
    taken.add(port);
    return port;
  }
}
