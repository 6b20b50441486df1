/**
 * Connections to Redis. A command is sent at most once: after a broken connection nothing is resent and
 * nothing is queued, because whoever sent a transition must re-read instead of assuming.
 */
import { readFileSync } from 'node:fs';
import { type ChainableCommander, Redis, type RedisOptions } from 'ioredis';
import { sentenceOf } from '../log.ts';
import { gatherWrites } from './gathering.ts';

/** All keys share one hash tag, so that Cluster and Sentinel deployments work. */
export const keyPrefix = '{onewriter}';

export const keys = {
  partitions: `${keyPrefix}:partitions`,
  meta: `${keyPrefix}:meta`,
  changes: `${keyPrefix}:changes`,
  directory: `${keyPrefix}:directory`,
  doubts: `${keyPrefix}:doubts`,
  members: `${keyPrefix}:members`,
  observers: `${keyPrefix}:observers`,
  acknowledgements: `${keyPrefix}:acknowledgements`,
  registry: `${keyPrefix}:registry`,
  sealing: `${keyPrefix}:sealing`,
  cohorts: `${keyPrefix}:cohorts`,
  plans: `${keyPrefix}:plans`,
  idempotency: `${keyPrefix}:idempotency`,
  links: `${keyPrefix}:links`,
  partners: `${keyPrefix}:links:partners`,
  /** Of partitions of which nothing is copied back to legacy; see sync/rollback-window.ts. */
  closedWindows: `${keyPrefix}:sync:windows-closed`,
  closedWindowsVersion: `${keyPrefix}:sync:windows-closed:version`,
} as const;

/** Where Redis is: a URL, or the socket of an embedded server. */
export type RedisAddress = { readonly url: string } | { readonly path: string };

/** Answers within this time, or the command counts as failed with unknown outcome. */
const commandTimeoutMs = 3_000;

export interface ConnectOptions {
  /** For a connection that blocks in XREAD: how long one call may take. */
  readonly blockingMs?: number;
}

/** Connects once, and fails with a sentence where nothing answers; afterwards it reconnects by itself. */
export async function connectRedis(address: RedisAddress, options: ConnectOptions = {}): Promise<Redis> {
  const settings: RedisOptions = {
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 5_000,
    commandTimeout: commandTimeoutMs + (options.blockingMs ?? 0),
    retryStrategy: (attempt) => Math.min(50 * attempt, 500),
  };
  const redis = 'path' in address ? new Redis(address.path, settings) : new Redis(address.url, settings);
  gatherWrites(redis);
  let lastError: Error | undefined;
  redis.on('error', (error: Error) => {
    lastError = error;
  });
  try {
    await redis.connect();
  } catch (error) {
    redis.disconnect();
    throw new RedisUnreachable(describe(address), lastError ?? error);
  }
  return redis;
}

export class RedisUnreachable extends Error {
  constructor(where: string, cause: unknown) {
    super(
      `Redis does not answer at ${where} (${sentenceOf(cause)}). Nothing was changed. ` +
        `Start it, correct redis.url, or set redis.url to "embedded" to use a private server.`,
      { cause },
    );
    this.name = 'RedisUnreachable';
  }
}

/** The address without its password. */
export function describe(address: RedisAddress): string {
  if ('path' in address) return address.path;
  try {
    const url = new URL(address.url);
    url.password = '';
    url.username = '';
    return url.toString();
  } catch {
    return 'the configured URL';
  }
}

/** Redis's clock, ms since 1970: the one clock that deadlines and entries of the ledger go by. */
export async function redisNowMs(redis: Redis): Promise<number> {
  const [seconds, microseconds] = await redis.time();
  return Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
}

/** What Redis says to one command of a pipeline. */
export type Result = [error: Error | null, reply?: unknown];

/** Throws what the command met, or that it was not answered; then nobody knows whether it took effect. */
export function replyOf(result: Result | undefined): unknown {
  if (result === undefined) throw new Error('Redis did not answer a command');
  const [error, reply] = result;
  if (error) throw error;
  return reply;
}

/**
 * Runs the pipeline or transaction, and throws the first error that a command of it met: Redis goes on with those
 * behind it, and `exec` alone does not throw.
 */
export async function repliesOf(pipeline: ChainableCommander): Promise<unknown[]> {
  const results = await pipeline.exec();
  if (results === null) throw new Error('Redis discarded a transaction; nothing of it took effect');
  return results.map(replyOf);
}

/** As repliesOf, for a single command. */
export async function onlyReplyOf(pipeline: ChainableCommander): Promise<unknown> {
  return replyOf((await pipeline.exec())?.[0]);
}

/**
 * Source of one Lua script; each file opens with its KEYS, ARGV and answers. A line `--! include NAME NAME` stands for
 * those files of lua/shared.
 */
export function luaSource(name: string): string {
  return readLua(name).replaceAll(/^--! include (.+)$/gm, (_, names: string) =>
    names
      .split(' ')
      .map((shared) => readLua(`shared/${shared}`))
      .join(''),
  );
}

function readLua(name: string): string {
  return readFileSync(new URL(`./lua/${name}.lua`, import.meta.url), 'utf8');
}
