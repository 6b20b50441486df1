/**
 * What every process does about a ledger that may lose data: it asks before it does anything else, follows the
 * ledger from then on, and carries what it knows into a file and, if need be, beside the ledger.
 */
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Redis } from 'ioredis';
import type { StoreName } from '../core/ownership.ts';
import type { Log } from '../log.ts';
import type { StreamFeed } from './feed.ts';
import { ViewKeeper } from './keeper.ts';
import { type KeptView, KeptViews } from './kept-views.ts';
import type { RedisLedger } from './ledger.ts';
import { checkOnStart } from './regression.ts';
import { Rescues } from './rescues.ts';
import { Witness } from './witness.ts';

export interface LookoutParts {
  readonly redis: Redis;
  readonly ledger: RedisLedger;
  readonly defaultOwner: StoreName;
  /** `redis.url` of the configuration. */
  readonly redisUrl: string;
  readonly dataDir: string;
  readonly role: string;
  /** A member follows the ledger for itself, and says what happens to it. */
  readonly isMember: boolean;
  readonly leaseMs: number;
  readonly openFeed: (version: number) => Promise<StreamFeed>;
  readonly log: Log;
}

export interface Lookout {
  readonly feed: StreamFeed;
  /** What this host knew of the ledger before this process started. */
  readonly kept: KeptView | undefined;
  readonly views: KeptViews;
  readonly rescues: Rescues;
  readonly witness: Witness;
  readonly keeper: ViewKeeper;
  /** What the operator must know now, a sentence each. */
  readonly warnings: readonly string[];
  stop(): Promise<void>;
}

/** Throws where Redis does not answer, or where the file of this ledger cannot be used. */
export async function openLookout(parts: LookoutParts): Promise<Lookout> {
  const { redis, ledger, defaultOwner, role, isMember, leaseMs, log } = parts;
  const views = new KeptViews(parts.dataDir, nameOfLedger(parts), `${role} ${process.pid} on ${hostname()}`);
  const kept = await views.newest();
  const warning = await checkOnStart(redis, ledger, views, kept);
  const position = await ledger.position();
  const feed = await parts.openFeed(position.version);
  const witness = await Witness.open({
    ...{ ledger, feed, defaultOwner, everyMs: leaseMs / 3, before: kept?.confirmed },
    log: isMember ? () => undefined : log,
  }).catch(async (error: unknown) => {
    // Its connection would keep a process alive that could not start.
    await feed.stop();
    throw error;
  });
  const rescues = new Rescues(redis);
  const keeper = new ViewKeeper({ holder: witness, views, rescues, kept, log });
  if (!isMember) keeper.start();
  return {
    ...{ feed, kept, views, rescues, witness, keeper },
    warnings: warning === undefined ? [] : [warning],
    stop: async () => {
      await keeper.stop();
      await witness.stop();
      await feed.stop();
    },
  };
}

/** Without a password. */
export function nameOfLedger({ redisUrl, dataDir }: Pick<LookoutParts, 'redisUrl' | 'dataDir'>): string {
  if (redisUrl === 'embedded') return `embedded ${resolve(dataDir, 'redis')}`;
  const { hostname: host, port, pathname } = new URL(redisUrl);
  return `${host}:${port || '6379'}/${pathname.slice(1) || '0'}`;
}
