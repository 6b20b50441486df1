/**
 * A proxy that only observes, as a process: the records, the listening side, and its place on the ledger's list where
 * there is a ledger. `up` and `proxy` are the same here: nothing is copied and nothing can be moved.
 */
import { createSecretKey, type KeyObject, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Config } from './config/schema.ts';
import type { RedisAddress } from './ledger/connection.ts';
import { attachEmbeddedRedis, startEmbeddedRedis } from './ledger/embedded.ts';
import { ObserverPost } from './ledger/observing.ts';
import { type Log, sentenceOf } from './log.ts';
import { pause } from './pause.ts';
import { Notes } from './proxy/observe/notes.ts';
import { createObserver } from './proxy/observe/observer.ts';

export interface ObserveRequest {
  readonly config: Config;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
}

export interface Observing {
  readonly addresses: Readonly<Record<string, string>>;
  /** What the operator must know now, a sentence each. */
  readonly warnings: readonly string[];
  /** Judges by other rules from the next request on. */
  reload(next: { readonly config: Config; readonly configHash: string }): Promise<boolean>;
  renewCertificate(): void;
  /** Settles when something has moved, so that nothing may be passed on any more. */
  readonly failed: Promise<Error>;
}

const keyBytes = 32;

/** What it opens is ended by `stops`, in reverse. */
export async function startObserving(
  { config, env, log }: ObserveRequest,
  stops: (() => Promise<void>)[],
): Promise<Observing> {
  const { redis, dataDir, ledger, stores, proxy } = config;
  const directory = join(dataDir, 'observe');
  const find = await ledgerFinder(config, env, log, stops);
  const { settleMs, writeTimeoutMs, readTimeoutMs } = stores.legacy;
  const post = await ObserverPost.take({
    ...{ find, redisUrl: redis.url, dataDir, minReplicas: ledger.minReplicas, settleMs, log },
  });
  let unsettledMs = (): number => 0;
  stops.push(async () => {
    await pause(unsettledMs());
    await post.leave();
  });
  const run = randomBytes(6).toString('hex');
  const key = await keyIn(directory, log);
  const observer = createObserver({
    ...{ config, log },
    notes: new Notes({ directory, run, key, observe: proxy.observe, log }),
  });
  unsettledMs = () => observer.settlesInMs();
  stops.push(async () => {
    await observer.drain(Math.max(writeTimeoutMs, readTimeoutMs));
    await observer.stop();
  });
  const { host, port } = await observer.listen();
  const scheme = proxy.tls === undefined ? 'http' : 'https';
  const records = `Everything goes to legacy; what enforcing would do is written to ${resolve(directory)}.`;
  return {
    addresses: { proxy: `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}` },
    warnings: [post.listed ? `${records} While this proxy runs, nothing can be moved.` : records],
    reload: async (next) => {
      observer.judgeUnder(next.config);
      log('info', 'rules.changed', { hash: next.configHash });
      return true;
    },
    renewCertificate: () => observer.renewCertificate(),
    failed: post.displaced,
  };
}

/**
 * Where the ledger is. A server that is named is one, whether it answers or not. The embedded one is one where it has
 * been run in this directory before, or is run by then; it is not begun for this.
 */
async function ledgerFinder(
  { redis, dataDir }: Config,
  env: NodeJS.ProcessEnv,
  log: Log,
  stops: (() => Promise<void>)[],
): Promise<() => Promise<RedisAddress | undefined>> {
  if (redis.url !== 'embedded') return async () => ({ url: redis.url });
  const running = (): Promise<RedisAddress | undefined> =>
    attachEmbeddedRedis(dataDir).catch(() => undefined);
  if (!existsSync(join(dataDir, 'redis')) || (await running()) !== undefined) return running;
  const embedded = await startEmbeddedRedis(dataDir, env);
  stops.push(() => embedded.stop());
  void embedded.died.then((error) => log('warn', 'redis.died', { error: sentenceOf(error) }));
  return async () => embedded.address;
}

/** Kept, so that a user has the same hash in the records of every run; without a disk, of this run only. */
async function keyIn(directory: string, log: Log): Promise<KeyObject> {
  const file = join(directory, 'key');
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeFile(file, randomBytes(keyBytes), { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    });
    const bytes = await readFile(file);
    if (bytes.byteLength === keyBytes) return createSecretKey(bytes);
    throw new Error(`${file} does not hold ${keyBytes} bytes`);
  } catch (error) {
    const detail = `${sentenceOf(error)}. Hashes of users cannot be compared with those of other runs.`;
    log('warn', 'observe.no-key', { detail });
    return createSecretKey(randomBytes(keyBytes));
  }
}
