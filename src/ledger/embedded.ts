/**
 * A private Redis for small installations and for trying things out: append-only file on, every write
 * synced, no TCP port (a Unix socket that only this user can open). It belongs to one `up` process; other
 * processes attach to it through a note in the data directory.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { connectRedis, type RedisAddress } from './connection.ts';

/** Longest path that a Unix socket may have on Linux and macOS, less the ending zero. */
const longestSocketPath = 100;
const startWithinMs = 15_000;

const noteSchema = z.object({ socket: z.string(), redisPid: z.int(), ownerPid: z.int() });
type Note = z.output<typeof noteSchema>;

export interface EmbeddedRedis {
  readonly address: RedisAddress;
  /** Settles when the server ends without having been asked to. */
  readonly died: Promise<Error>;
  stop(): Promise<void>;
}

export class EmbeddedRedisFailure extends Error {
  override readonly name = 'EmbeddedRedisFailure';
}

/** Starts the private server, or takes over one whose owner is dead. Throws EmbeddedRedisFailure. */
export async function startEmbeddedRedis(dataDir: string, env: NodeJS.ProcessEnv): Promise<EmbeddedRedis> {
  const directory = resolve(dataDir, 'redis');
  makeDirectory(directory);
  const note = readNote(dataDir);
  if (note !== undefined && (await answers(note))) {
    if (isAlive(note.ownerPid) && note.ownerPid !== process.pid) {
      throw new EmbeddedRedisFailure(
        `Another onewriter process (pid ${note.ownerPid}) already runs the embedded Redis in ${resolve(dataDir)}. ` +
          'Stop it, give this one another dataDir, or set redis.url in both.',
      );
    }
    writeNote(dataDir, { ...note, ownerPid: process.pid });
    return adopted(dataDir, note);
  }
  const binary = findBinary(env);
  const socket = socketPath(directory);
  const child = spawn(
    binary,
    [
      ...['--port', '0', '--unixsocket', socket, '--unixsocketperm', '700'],
      ...['--dir', directory, '--appendonly', 'yes', '--appendfsync', 'always', '--save', ''],
      ...['--maxmemory-policy', 'noeviction', '--logfile', join(directory, 'redis.log'), '--daemonize', 'no'],
    ],
    { stdio: 'ignore', detached: true },
  );
  await untilAnswering(child, socket, directory);
  writeNote(dataDir, { socket, redisPid: child.pid ?? 0, ownerPid: process.pid });
  let asked = false;
  const died = new Promise<Error>((settle) => {
    child.once('exit', (code, signal) => {
      if (!asked)
        settle(
          new EmbeddedRedisFailure(
            `the embedded Redis ended (${signal ?? code}); see ${directory}/redis.log`,
          ),
        );
    });
  });
  return {
    address: { path: socket },
    died,
    stop: async () => {
      asked = true;
      await stopProcess(child.pid ?? 0);
      rmSync(notePath(dataDir), { force: true });
      rmSync(socket, { force: true });
    },
  };
}

/** Where the embedded server of this data directory listens. Throws EmbeddedRedisFailure if none runs. */
export async function attachEmbeddedRedis(dataDir: string): Promise<RedisAddress> {
  const note = readNote(dataDir);
  if (note !== undefined && (await answers(note))) return { path: note.socket };
  throw new EmbeddedRedisFailure(
    `redis.url is "embedded", and no embedded Redis runs in ${resolve(dataDir)}. ` +
      'Start "onewriter up" with the same configuration first, or set redis.url to a server that all processes share.',
  );
}

/**
 * Makes the directory and what is missing above it, for this user only. One level at a time: mkdir's own
 * `recursive` never returns below /proc, where a missing directory stays missing.
 */
function makeDirectory(path: string): void {
  if (existsSync(path)) return;
  makeDirectory(dirname(path));
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (existsSync(path)) return;
    throw new EmbeddedRedisFailure(
      `The directory ${path} cannot be made (${sentenceOf(error)}). Nothing was started. Set dataDir to a place that this user may write to.`,
      { cause: error },
    );
  }
}

export function findBinary(env: NodeJS.ProcessEnv): string {
  for (const name of ['redis-server', 'valkey-server']) {
    for (const directory of (env['PATH'] ?? '').split(delimiter)) {
      const candidate = join(directory, name);
      if (directory !== '' && existsSync(candidate)) return candidate;
    }
  }
  throw new EmbeddedRedisFailure(
    'redis.url is "embedded", but neither redis-server nor valkey-server is on PATH. Install one ' +
      '(Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis; ' +
      'Docker: docker run -p 127.0.0.1:6379:6379 redis:7 redis-server --appendonly yes --appendfsync always, ' +
      'with redis.url redis://127.0.0.1:6379) and start again.',
  );
}

function adopted(dataDir: string, note: Note): EmbeddedRedis {
  return {
    address: { path: note.socket },
    died: new Promise(() => undefined),
    stop: async () => {
      await stopProcess(note.redisPid);
      rmSync(notePath(dataDir), { force: true });
    },
  };
}

function socketPath(directory: string): string {
  const inside = join(directory, 'redis.sock');
  if (Buffer.byteLength(inside) <= longestSocketPath) return inside;
  const short = mkdtempSync(join(tmpdir(), 'onewriter-'));
  chmodSync(short, 0o700);
  return join(short, 'redis.sock');
}

function notePath(dataDir: string): string {
  return resolve(dataDir, 'redis.json');
}

function writeNote(dataDir: string, note: Note): void {
  writeFileSync(notePath(dataDir), JSON.stringify(note), { mode: 0o600 });
}

function readNote(dataDir: string): Note | undefined {
  try {
    return noteSchema.parse(JSON.parse(readFileSync(notePath(dataDir), 'utf8')));
  } catch {
    return undefined;
  }
}

async function answers(note: Note): Promise<boolean> {
  if (!existsSync(note.socket)) return false;
  try {
    const redis = await connectRedis({ path: note.socket });
    await redis.ping();
    redis.disconnect();
    return true;
  } catch {
    return false;
  }
}

async function untilAnswering(child: ChildProcess, socket: string, directory: string): Promise<void> {
  const ended: string[] = [];
  child.once('error', (error) => ended.push(error.message));
  child.once('exit', (code, signal) => ended.push(`it ended with ${signal ?? code}`));
  const until = performance.now() + startWithinMs;
  while (performance.now() < until && ended.length === 0) {
    if (await answers({ socket, redisPid: 0, ownerPid: 0 })) return;
    await pause(25);
  }
  await stopProcess(child.pid ?? 0);
  throw new EmbeddedRedisFailure(
    `The embedded Redis did not start (${ended[0] ?? `no answer within ${startWithinMs} ms`}); its log is ${directory}/redis.log.`,
  );
}

function isAlive(pid: number): boolean {
  if (pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Asks the server to end (it syncs its file first) and waits; after five seconds it is killed. */
async function stopProcess(pid: number): Promise<void> {
  if (!isAlive(pid)) return;
  process.kill(pid, 'SIGTERM');
  const until = performance.now() + 5_000;
  while (isAlive(pid) && performance.now() < until) await pause(20);
  if (isAlive(pid)) process.kill(pid, 'SIGKILL');
}
