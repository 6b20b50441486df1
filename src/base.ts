/** What every role of a process stands on: Redis, the ledger with its feed and its books, and the sync's desk. */
import { RedisAuditLog } from './admin/audit.ts';
import { auditStray } from './admin/strays.ts';
import type { Config } from './config/schema.ts';
import { RedisRegistry } from './ledger/books.ts';
import { connectRedis, type RedisAddress } from './ledger/connection.ts';
import { RedisDirectory } from './ledger/directory.ts';
import { RedisDoubts } from './ledger/doubts.ts';
import { attachEmbeddedRedis, startEmbeddedRedis } from './ledger/embedded.ts';
import { feedBlockMs, StreamFeed } from './ledger/feed.ts';
import { RedisLedger } from './ledger/ledger.ts';
import { RedisLinks } from './ledger/links.ts';
import { type Lookout, openLookout } from './ledger/lookout.ts';
import { Rounds } from './ledger/rounds.ts';
import type { Log } from './log.ts';
import { createSync, type Sync } from './sync/create.ts';

export type Role = 'up' | 'proxy' | 'admin' | 'worker';

export interface RoleRequest {
  readonly config: Config;
  readonly configHash: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
  /** The Redis of the process that started this one as one proxy of several. */
  readonly redis?: RedisAddress;
  /** From when this process ends. */
  readonly ending?: AbortSignal;
}

/** What ends what was started; called from the end. */
export type Stops = (() => Promise<void>)[];

export function takesTraffic(role: Role): boolean {
  return role === 'proxy' || role === 'up';
}

/** Is this the process that starts the proxies, instead of being one? */
export function several({ config, redis }: RoleRequest): boolean {
  return config.proxy.processes > 1 && redis === undefined;
}

export async function openRedis(
  role: Role,
  { config, env, redis: given }: RoleRequest,
  stops: Stops,
): Promise<{ address: RedisAddress; died: Promise<Error> }> {
  const never = new Promise<Error>(() => undefined);
  if (given !== undefined) return { address: given, died: never };
  if (config.redis.url !== 'embedded') return { address: { url: config.redis.url }, died: never };
  if (role !== 'up') return { address: await attachEmbeddedRedis(config.dataDir), died: never };
  const redis = await startEmbeddedRedis(config.dataDir, env);
  stops.push(() => redis.stop());
  return { address: redis.address, died: redis.died };
}

export interface Base {
  readonly address: RedisAddress;
  readonly redis: Awaited<ReturnType<typeof connectRedis>>;
  readonly ledger: RedisLedger;
  readonly registry: RedisRegistry;
  readonly directory: RedisDirectory;
  readonly links: RedisLinks;
  readonly doubts: RedisDoubts;
  readonly feed: StreamFeed;
  readonly sync: Sync;
  readonly lookout: Lookout;
  readonly openFeed: (version: number, acknowledgements?: boolean) => Promise<StreamFeed>;
}

/** What every role needs: the ledger, its feed, the registry and the sync's desk. */
export async function openBase(
  role: Role,
  request: RoleRequest,
  address: RedisAddress,
  stops: Stops,
): Promise<Base> {
  const { config, log } = request;
  const redis = await connectRedis(address);
  stops.push(async () => redis.disconnect());
  const { minReplicas, leaseMs } = config.ledger;
  const writing = minReplicas === 0 ? redis : await connectRedis(address);
  stops.push(async () => writing.disconnect());
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas }, writing);
  const registry = new RedisRegistry(redis);
  const openFeed = async (version: number, acknowledgements = false): Promise<StreamFeed> => {
    const blocking = await connectRedis(address, { blockingMs: feedBlockMs });
    const opened = StreamFeed.open(blocking, { version, acknowledgements }, (error) =>
      log('warn', 'ledger.feed', { error: String(error) }),
    );
    opened.catch(() => blocking.disconnect());
    return opened;
  };
  const lookout = await openLookout({
    ...{ redis, ledger, defaultOwner: 'legacy', role, leaseMs, log },
    ...{ redisUrl: config.redis.url, dataDir: config.dataDir },
    isMember: takesTraffic(role) && !several(request),
    // Only who runs flips waits for acknowledgements.
    openFeed: (version) => openFeed(version, role === 'admin' || role === 'up'),
  });
  stops.push(() => lookout.stop());
  const { feed } = lookout;
  // Every copy asks; those that ask at about the same time share one answer, which is younger than each question.
  const lost = new Rounds(() => lookout.witness.lost());
  const links = new RedisLinks(redis, ledger.writes);
  const sync = await createSync({
    ...{ config, redis: address, ledger, registry, log },
    ownershipOf: (partition) => lookout.witness.ownershipOf(partition),
    lost: () => lost.answer(),
    noteLinks: (pairs, where) => links.note(pairs, where),
    onStray: (stray) => void auditStray(new RedisAuditLog(redis), stray, log),
  });
  stops.push(() => sync.stop());
  const doubts = new RedisDoubts(redis);
  const directory = new RedisDirectory(redis, ledger.writes);
  return { address, redis, ledger, registry, directory, links, doubts, feed, sync, lookout, openFeed };
}
