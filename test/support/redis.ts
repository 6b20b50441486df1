/**
 * A real redis-server for one test file: append-only and synchronous, on a free loopback port, in a
 * directory of its own. The test that started it stops it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface TestRedis {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Where it keeps its files. */
  readonly directory: string;
  /** Kills the server like a power cut would; its directory stays, for another to start in. */
  kill(): Promise<void>;
  /** Kills the server and removes its directory; safe to call twice. */
  stop(): Promise<void>;
}

export interface RedisStart {
  readonly startMs?: number;
  /** After the usual ones, so that they win. */
  readonly args?: readonly string[];
  /** Where a server that was killed has left its files. */
  readonly directory?: string;
  readonly port?: number;
}

/** Throws when no redis-server is on PATH, or when it does not answer within `startMs`. */
export async function startRedis(start: RedisStart = {}): Promise<TestRedis> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startOnce(start);
    } catch (error) {
      // Another process can take the free port between the probe and the start.
      if (attempt === 3) throw error;
    }
  }
}

async function startOnce({ startMs = 10_000, args = [], ...start }: RedisStart): Promise<TestRedis> {
  const port = start.port ?? (await freePort());
  const directory = start.directory ?? (await mkdtemp(join(tmpdir(), 'onewriter-redis-')));
  const child = spawn(
    'redis-server',
    // prettier-ignore
    ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', '', '--appendonly', 'yes',
      '--appendfsync', 'always', '--maxmemory-policy', 'noeviction', ...args],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const endWithParent = (): void => void child.kill('SIGKILL');
  process.once('exit', endWithParent);
  const kill = async (): Promise<void> => {
    process.removeListener('exit', endWithParent);
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await ended;
  };
  const stop = async (): Promise<void> => {
    await kill();
    await rm(directory, { recursive: true, force: true });
  };
  try {
    await readyToAccept(child, startMs);
  } catch (error) {
    await stop();
    throw error;
  }
  return { url: `redis://127.0.0.1:${port}`, port, pid: child.pid ?? 0, directory, kill, stop };
}

function readyToAccept(child: ChildProcess, startMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let output = '';
    const timer = setTimeout(
      () => reject(new Error(`redis-server was not ready after ${startMs} ms: ${output}`)),
      startMs,
    );
    const settle = (error?: Error): void => {
      clearTimeout(timer);
      if (error === undefined) resolve();
      else reject(error);
    };
    const look = (chunk: Buffer): void => {
      // Read on after the server is ready, or a full pipe would block it; but keep nothing more.
      if (output.length < 20_000) output += chunk.toString();
      if (output.includes('Ready to accept connections')) settle();
    };
    child.stdout?.on('data', look);
    child.stderr?.on('data', look);
    child.once('error', (error) => settle(new Error('redis-server could not be started', { cause: error })));
    child.once('exit', (code) => settle(new Error(`redis-server ended with ${code}: ${output}`)));
  });
}

function freePort(): Promise<number> {
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
