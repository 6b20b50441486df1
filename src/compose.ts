/** The only place where the parts are put together: one function per role of a process. */
import { RedisAuditLog } from './admin/audit.ts';
import { createAdmin } from './admin/server.ts';
import type { Config } from './config/schema.ts';
import type { NamedCohort, Plan } from './core/flip.ts';
import { storeNames, type StoreName } from './core/ownership.ts';
import type { StoreReader } from './core/ports.ts';
import { HandoffDesk } from './handoff/desk.ts';
import type { StoredFlip } from './handoff/flip.ts';
import { MemberWatch } from './handoff/members.ts';
import { Book, RedisRegistry, type StoredCohort } from './ledger/books.ts';
import { connectRedis, keys, type RedisAddress } from './ledger/connection.ts';
import { attachEmbeddedRedis, startEmbeddedRedis } from './ledger/embedded.ts';
import { feedBlockMs, parseTransition, StreamFeed } from './ledger/feed.ts';
import { RedisLedger } from './ledger/ledger.ts';
import { Membership } from './ledger/membership.ts';
import type { Log } from './log.ts';
import { flatCounters } from './proxy/counters.ts';
import { createProxy } from './proxy/proxy.ts';
import { restConnectorOf } from './stores/rest/store.ts';
import { createSync, type Sync } from './sync/create.ts';

export type Role = 'up' | 'proxy' | 'admin' | 'worker';

export interface Running {
  /** What listens where, by part. */
  readonly addresses: Readonly<Record<string, string>>;
  /** Ends in order: what takes traffic first, Redis last. */
  stop(): Promise<void>;
  /** Settles when something this process depends on has died. */
  readonly failed: Promise<Error>;
}

export interface RoleRequest {
  readonly config: Config;
  readonly configHash: string;
  readonly env: NodeJS.ProcessEnv;
  readonly log: Log;
}

/** How long a stopping proxy lets requests finish, beyond the longest write. */
const drainMarginMs = 1_000;

/** Rejects with an error whose message is a sentence for the operator; what had started is stopped again. */
export async function startRole(role: Role, request: RoleRequest): Promise<Running> {
  const stops: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const end of stops.splice(0).toReversed()) {
      await end().catch((error: unknown) => request.log('warn', 'stop.failed', { error: String(error) }));
    }
  };
  try {
    const { address, died } = await openRedis(role, request, stops);
    const base = await openBase(request, address, stops);
    const addresses: Record<string, string> = {};
    if (role === 'worker' || role === 'up') await base.sync.startWorkers();
    const proxy = role === 'proxy' || role === 'up' ? await startProxy(request, base, stops) : undefined;
    if (proxy !== undefined) addresses['proxy'] = proxy.address;
    if (role === 'admin' || role === 'up') {
      addresses['admin'] = await startAdmin(request, base, stops, proxy?.counters);
    }
    return { addresses, stop, failed: died };
  } catch (error) {
    await stop();
    throw error;
  }
}

type Stops = (() => Promise<void>)[];

async function openRedis(
  role: Role,
  { config, env }: RoleRequest,
  stops: Stops,
): Promise<{ address: RedisAddress; died: Promise<Error> }> {
  const never = new Promise<Error>(() => undefined);
  if (config.redis.url !== 'embedded') return { address: { url: config.redis.url }, died: never };
  if (role !== 'up') return { address: await attachEmbeddedRedis(config.dataDir), died: never };
  const redis = await startEmbeddedRedis(config.dataDir, env);
  stops.push(() => redis.stop());
  return { address: redis.address, died: redis.died };
}

interface Base {
  readonly redis: Awaited<ReturnType<typeof connectRedis>>;
  readonly ledger: RedisLedger;
  readonly registry: RedisRegistry;
  readonly feed: StreamFeed;
  readonly sync: Sync;
  readonly openFeed: (version: number, acknowledgements?: boolean) => Promise<StreamFeed>;
}

/** What every role needs: the ledger, its feed, the registry and the sync's desk. */
async function openBase(request: RoleRequest, address: RedisAddress, stops: Stops): Promise<Base> {
  const { config, log } = request;
  const redis = await connectRedis(address);
  stops.push(async () => redis.disconnect());
  const ledger = new RedisLedger(redis, {
    defaultOwner: config.newPartitions,
    minReplicas: config.ledger.minReplicas,
  });
  const registry = new RedisRegistry(redis);
  const openFeed = async (version: number, acknowledgements = false): Promise<StreamFeed> => {
    const blocking = await connectRedis(address, { blockingMs: feedBlockMs });
    return StreamFeed.open(blocking, { version, acknowledgements }, (error) =>
      log('warn', 'ledger.feed', { error: String(error) }),
    );
  };
  const { position } = await ledger.snapshot();
  const feed = await openFeed(position.version, true);
  stops.push(() => feed.stop());
  const sync = await createSync({ config, redis: address, ledger, feed, registry, log });
  stops.push(() => sync.stop());
  return { redis, ledger, registry, feed, sync, openFeed };
}

interface StartedProxy {
  readonly address: string;
  readonly counters: () => Record<string, number>;
}

async function startProxy(request: RoleRequest, base: Base, stops: Stops): Promise<StartedProxy> {
  const { config, configHash, log } = request;
  const { leaseMs } = config.ledger;
  const writeTimeoutMs = Math.max(...storeNames.map((store) => config.stores[store].writeTimeoutMs));
  const member = await Membership.join({
    ...{ ledger: base.ledger, redis: base.redis, registry: base.registry, openFeed: base.openFeed, log },
    settings: {
      ...{ leaseMs, marginMs: leaseMs / 10, writeTimeoutMs, configHash },
      rememberMs: Math.max(
        600_000,
        2 * base.sync.readers.legacy.feedDelayMs,
        2 * base.sync.readers.app.feedDelayMs,
      ),
      settleMs: { legacy: config.stores.legacy.settleMs, app: config.stores.app.settleMs },
      defaultOwner: config.newPartitions,
    },
    flushReceipts: (partition) => base.sync.doorbell.flush(partition),
  });
  const proxy = createProxy({ config, gate: member, doorbell: base.sync.doorbell, log });
  stops.push(async () => {
    await proxy.drain(writeTimeoutMs + drainMarginMs);
    await proxy.stop();
    await member.leave(Math.max(config.stores.legacy.settleMs, config.stores.app.settleMs));
  });
  const { host, port } = await proxy.listen();
  return { address: urlOf(host, port), counters: () => flatCounters(proxy.counters()) };
}

async function startAdmin(
  request: RoleRequest,
  base: Base,
  stops: Stops,
  counters: (() => Record<string, number>) | undefined,
): Promise<string> {
  const { config, log } = request;
  const { redis, ledger, registry, sync } = base;
  const audit = new RedisAuditLog(redis);
  stops.push(async () => audit.close());
  const watch = new MemberWatch(ledger, config.ledger.leaseMs, (member) => {
    log('warn', 'member.gone', { member: member.id, pid: member.pid, host: member.host });
  });
  watch.start();
  stops.push(() => watch.stop());
  const made = new Book<StoredCohort>(redis, 'cohorts');
  const desk = handoffDesk(request, base, watch, () => listCohorts(config, made));
  stops.push(() => desk.stop());
  await desk.resumeAll();
  const admin = createAdmin({
    ...{ config, ledger, registry, audit, log, flips: desk, copies: sync.desk },
    ...(counters === undefined ? {} : { counters }),
    readers: Object.values(sync.readers),
    deadLetters: () => sync.deadLetters.total(),
    letters: sync.deadLetters,
    cohorts: {
      list: () => listCohorts(config, made),
      put: (name, selection, by, reason) => made.put(name, { name, selection, by, reason }),
    },
    transition: async (version) => {
      const [entry] = await redis.xrange(keys.transitions, `${version}-0`, `${version}-0`);
      return entry && parseTransition(entry[0], entry[1]);
    },
  });
  stops.push(() => admin.stop());
  const { host, port } = await admin.listen();
  return urlOf(host, port);
}

function handoffDesk(
  { config, log }: RoleRequest,
  { ledger, feed, registry, redis, sync }: Base,
  members: MemberWatch,
  cohorts: () => Promise<NamedCohort[]>,
): HandoffDesk {
  const guarded = { legacy: config.stores.legacy.guard, app: config.stores.app.guard };
  const readers: Partial<Record<StoreName, StoreReader>> = {};
  for (const store of storeNames) {
    if (restConnectorOf(config.stores[store].connector) !== undefined) readers[store] = sync.readers[store];
  }
  return new HandoffDesk({
    ...{ ledger, feed, registry, members, log, guarded, readers },
    copies: sync.desk,
    guards: sync.guardCalls,
    writable: ['app'],
    acceptLoss: config.ledger.acceptLoss,
    pinnedRoutes: config.routes.filter((route) => route.store !== undefined).map((route) => route.path),
    settings: { ...config.flip, guarded, feedDelayMs: sync.readers.legacy.feedDelayMs },
    plans: new Book<Plan>(redis, 'plans'),
    flips: new Book<StoredFlip>(redis, 'flips'),
    listCohorts: cohorts,
    waves: config.flip.waves,
  });
}

/** The file's cohorts, then those made through the API; a name in the file cannot be taken over. */
async function listCohorts(config: Config, made: Book<StoredCohort>): Promise<NamedCohort[]> {
  const fromFile = Object.entries(config.cohorts).map(
    ([name, selection]) => ({ name, selection, source: 'file' }) as const,
  );
  const fromApi = (await made.all())
    .filter(({ name }) => !(name in config.cohorts))
    .map(({ name, selection }) => ({ name, selection, source: 'api' }) as const);
  return [...fromFile, ...fromApi];
}

function urlOf(host: string, port: number): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
