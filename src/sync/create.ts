/** Puts the sync together. The only face that the rest of the program needs. */
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type { Config } from '../config/schema.ts';
import { type Ownership, type StoreName, storeNames } from '../core/ownership.ts';
import type {
  CopyDesk,
  Doorbell,
  GuardCalls,
  Ledger,
  Registry,
  StoreReader,
  UserCalls,
} from '../core/ports.ts';
import { connectRedis, type RedisAddress } from '../ledger/connection.ts';
import { unlimited } from '../stores/budget.ts';
import type { RestClient } from '../stores/rest/client.ts';
import { RestGuardCalls } from '../stores/rest/guard-calls.ts';
import { createRestStore, type RestStore, restConnectorOf } from '../stores/rest/store.ts';
import type { BatchParts } from './apply-batch.ts';
import { type BackfillProgress, Backfills } from './backfill.ts';
import { Backlog, controlQueueName, recordQueueName, scanQueueName } from './backlog.ts';
import { RedisBudget } from './budget.ts';
import { CopyLock } from './copy-lock.ts';
import { CopyLocks } from './copy-locks.ts';
import { type DeadLetter, DeadLetters } from './dead-letters.ts';
import { SyncDesk } from './desk.ts';
import { BatchingDoorbell } from './doorbell.ts';
import type { Log } from '../log.ts';
import { FailingStores } from './failing-stores.ts';
import { HaltBook } from './halts.ts';
import { Poller } from './poll.ts';
import { Progress } from './progress.ts';
import { BatchingUserCalls } from './user-calls.ts';
import { queueOptions, SyncWorkers } from './worker.ts';
import { makeWriters } from './writers.ts';

export interface SyncSettings {
  readonly config: Config;
  readonly redis: RedisAddress;
  readonly ledger: Ledger;
  /** What the ledger has lost, as this process can tell; without it, as the ledger knows itself. */
  readonly lost?: () => Promise<string | undefined>;
  /**
   * What this process has heard of a partition that some transition touched: enough to spare useless jobs, never to
   * decide on a copy.
   */
  readonly ownershipOf: (partition: string) => Ownership | undefined;
  readonly registry: Registry;
  readonly log: Log;
}

export interface DeadLetterDesk {
  total(): Promise<number>;
  /** Oldest first. */
  list(): Promise<DeadLetter[]>;
  /** Rings for the record again; its letter stays until it was copied. Undefined when there is no such letter. */
  retry(letter: string): Promise<DeadLetter | undefined>;
  /** Takes it off the list, copied or not. */
  discard(letter: string): Promise<DeadLetter | undefined>;
}

export interface Sync {
  readonly desk: CopyDesk;
  readonly guardCalls: GuardCalls;
  readonly doorbell: Doorbell;
  /** What users' requests take of the stores' rate limits. */
  readonly userCalls: UserCalls;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly deadLetters: DeadLetterDesk;
  /** Pauses of all copying, or of copies to one store. */
  readonly halts: HaltBook;
  /** Records and partitions rung and not looked at yet. */
  backlog(): Promise<number>;
  /** First copies under way, and the last that ended of each kind. */
  backfills(): Promise<readonly BackfillProgress[]>;
  /** Begins to poll and to copy in this process. Without it, only the desk copies. */
  startWorkers(): Promise<void>;
  /** Ends within seconds; safe to call twice. */
  stop(): Promise<void>;
}

/** The copy lock outlives any call made under it by this much, ms. */
const lockMarginMs = 5_000;
const surveyEveryMs = 60_000;

/** Rejects when Redis does not answer. */
export async function createSync(settings: SyncSettings): Promise<Sync> {
  const { config, ledger, log, ownershipOf } = settings;
  const redis = await connectRedis(settings.redis);
  redis.on('error', () => undefined); // it reconnects; whoever needs it meanwhile gets the error
  const budgets = eachStore((store) => budgetOf(redis, store, config));
  const stores = eachStore((store) => createRestStore(store, config, budgets[store]));
  const readers = eachStore((store) => stores[store].reader);
  const queues = makeQueues(redis, log);
  const attempts = config.sync.attempts;
  const epochOf = (partition: string): number => ownershipOf(partition)?.epoch ?? 0;
  const backlog = new Backlog(redis, queues.record, { attempts, epochOf });
  const letters = new DeadLetters(redis);
  const progress = new Progress(redis);
  const halts = new HaltBook(redis);
  const lockMs = Math.max(stores.legacy.timeoutMs, stores.app.timeoutMs) + lockMarginMs;
  const copies: BatchParts = {
    ledger,
    lost: settings.lost ?? (async () => (await ledger.regression())?.detail),
    readers,
    prepaidReaders: eachStore((store) => stores[store].prepaidReader),
    writers: makeWriters(stores, config.sync.rollbackWindow),
    budgets: eachStore((store) => stores[store].budget),
    lock: new CopyLock(redis, lockMs),
    locks: new CopyLocks(redis, lockMs),
    settleMs: eachStore((store) => config.stores[store].settleMs),
  };
  const desk = new SyncDesk(copies, letters, halts, () => lagMs(ledger, backlog, progress));
  const doorbell = new BatchingDoorbell({
    ringRecords: (records) => backlog.ring(records),
    onFailure: (error, records) => log('warn', 'sync.doorbell-failed', { records, detail: String(error) }),
  });
  const userCalls = new BatchingUserCalls({
    budgets: limitedStores(budgets),
    onFailure: (error) => log('warn', 'sync.user-calls-not-counted', { detail: String(error) }),
  });
  const targets = [...copies.writers.keys()];
  const backfills = new Backfills({
    ...{ redis, copies, ledger, backlog, log },
    note: (partitions) => poller.notePartitions(partitions),
  });
  const poller: Poller = new Poller({
    ...{ ledger, readers, targets, backlog, backfills, letters, progress, log, surveyEveryMs },
    registry: settings.registry,
    ownershipOf,
  });
  let workers: SyncWorkers | undefined;
  let blocking: Redis | undefined;
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    await doorbell.close();
    await userCalls.close();
    await workers?.stop();
    // Without Redis they fail to close; what is open behind them must be closed all the same.
    await Promise.allSettled(Object.values(queues).map((queue) => queue.close()));
    await Promise.all(Object.values(readers).map((reader) => reader.close()));
    blocking?.disconnect();
    redis.disconnect();
  };
  return {
    desk,
    guardCalls: new RestGuardCalls(guardedClients(stores, config)),
    doorbell,
    userCalls,
    readers,
    deadLetters: deadLetterDesk(letters, backlog),
    halts,
    backlog: () => backlog.count(),
    backfills: () => backfills.progress(),
    startWorkers: async () => {
      if (workers !== undefined) return;
      blocking = connectForWorkers(settings.redis, log);
      workers = new SyncWorkers({
        ...{ poller, backfills, backlog, letters, halts, targets, ledger, log, attempts },
        connection: blocking,
        ...{ control: queues.control, scan: queues.scan },
        copier: { copies, desk, backlog, letters, log },
        ...{ readers, failing: new FailingStores(redis) },
        pollMs: config.sync.pollMs,
      });
      await workers.start();
    },
    stop: () => {
      stopped ??= stop();
      return stopped;
    },
  };
}

function eachStore<T>(make: (store: StoreName) => T): Readonly<Record<StoreName, T>> {
  const [legacy, app] = storeNames.map((store) => make(store)) as [T, T];
  return { legacy, app };
}

function budgetOf(redis: Redis, store: StoreName, config: Config) {
  const limit = restConnectorOf(config.stores[store].connector)?.rateLimit;
  return limit === undefined ? unlimited : new RedisBudget(redis, store, limit);
}

function limitedStores(
  budgets: Readonly<Record<StoreName, ReturnType<typeof budgetOf>>>,
): ReadonlyMap<StoreName, RedisBudget> {
  const limited = new Map<StoreName, RedisBudget>();
  for (const store of storeNames) {
    const budget = budgets[store];
    if (budget instanceof RedisBudget) limited.set(store, budget);
  }
  return limited;
}

function guardedClients(
  stores: Readonly<Record<StoreName, RestStore>>,
  config: Config,
): ReadonlyMap<StoreName, RestClient> {
  const guarded = storeNames.filter((store) => config.stores[store].guard);
  return new Map(guarded.map((store) => [store, stores[store].client]));
}

function makeQueues(redis: Redis, log: Log): Readonly<Record<'record' | 'control' | 'scan', Queue>> {
  const make = (name: string): Queue => {
    const queue = new Queue(name, { connection: redis, ...queueOptions });
    queue.on('error', (error) => log('warn', 'sync.queue-error', { queue: name, detail: error.message }));
    return queue;
  };
  return { record: make(recordQueueName), control: make(controlQueueName), scan: make(scanQueueName) };
}

/** Workers block on Redis and wait for it without end, as BullMQ asks of their connections. */
function connectForWorkers(address: RedisAddress, log: Log): Redis {
  const options = { maxRetriesPerRequest: null };
  const redis = 'path' in address ? new Redis(address.path, options) : new Redis(address.url, options);
  redis.on('error', (error) => log('warn', 'sync.redis-error', { detail: error.message }));
  return redis;
}

async function lagMs(ledger: Ledger, backlog: Backlog, progress: Progress): Promise<number | undefined> {
  const [nowMs, oldestMs, reachedMs] = await Promise.all([
    ledger.nowMs(),
    backlog.oldestMs(),
    progress.reachedMs(),
  ]);
  if (reachedMs === undefined) return undefined;
  return Math.max(0, nowMs - Math.min(reachedMs, oldestMs ?? nowMs));
}

function deadLetterDesk(letters: DeadLetters, backlog: Backlog): DeadLetterDesk {
  return {
    total: () => letters.total(),
    list: () => letters.list(),
    discard: (letter) => letters.discard(letter),
    retry: async (name) => {
      const found = await letters.find(name);
      if (found === undefined) return undefined;
      const { partition, kind, id } = found;
      await backlog.ringEach([{ partition, kind, id }]);
      return found;
    },
  };
}
