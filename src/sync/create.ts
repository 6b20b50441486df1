/** Puts the sync together. The only face that the rest of the program needs. */
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type { Config } from '../config/schema.ts';
import type { StoreFreezes } from '../core/freeze.ts';
import { type Ownership, type StoreName, storeNames } from '../core/ownership.ts';
import type { PartitionEraser, PartitionMemory } from '../core/erasure.ts';
import type { Stray, StrayDesk } from '../core/stray.ts';
import {
  type CopyDesk,
  type Doorbell,
  type GuardCalls,
  type Ledger,
  type Registry,
  type StoreReader,
  type UserCalls,
} from '../core/ports.ts';
import { RedisDoubts } from '../ledger/doubts.ts';
import { connectRedis, type RedisAddress } from '../ledger/connection.ts';
import { unlimited } from '../stores/budget.ts';
import { guardCallsOf, openStore } from '../stores/open.ts';
import { restConnectorOf } from '../stores/rest/store.ts';
import type { BatchParts } from './apply-batch.ts';
import { type BackfillProgress, Backfills } from './backfill.ts';
import { Backlog, controlQueueName, recordQueueName, scanQueueName } from './backlog.ts';
import { Brakes } from './brakes.ts';
import { RedisBudget } from './budget.ts';
import { ConflictReader, Conflicts, type NoteLinks } from './conflicts.ts';
import { ChangeListeners } from './change-listeners.ts';
import { CopyBack } from './copy-back.ts';
import { CopyLock } from './copy-lock.ts';
import { CopyLocks } from './copy-locks.ts';
import { DeadLetters } from './dead-letters.ts';
import { SyncDesk } from './desk.ts';
import { BatchingDoorbell } from './doorbell.ts';
import { RecordEraser } from './erase.ts';
import { FailingStores } from './failing-stores.ts';
import { SyncMemory } from './forget.ts';
import { openFreezes } from './freezes.ts';
import { takeSnapshots } from './hand-over.ts';
import { HaltBook } from './halts.ts';
import { HiddenRecords } from './hidden-records.ts';
import { CompletingReader, KnownFields } from './known-fields.ts';
import type { Log } from '../log.ts';
import { type BrakeDesk, brakeDesk, type DeadLetterDesk, deadLetterDesk } from './operator-desks.ts';
import { Poller } from './poll.ts';
import { type PollFailure, Progress } from './progress.ts';
import { Receipts } from './receipts.ts';
import { RecordClaims } from './record-claims.ts';
import { leftStore, RollbackWindow } from './rollback-window.ts';
import { Snapshots } from './snapshots.ts';
import { StrayBook } from './stray-book.ts';
import { StrayWatch } from './stray-watch.ts';
import { BatchingUserCalls } from './user-calls.ts';
import { VerificationBook } from './verification-book.ts';
import { Verifications } from './verifications.ts';
import { planSteps, type RangeParts, runStep } from './verify-range.ts';
import { queueOptions, SyncWorkers } from './worker.ts';
import { openWebhooks, type WebhookState } from './webhooks/open.ts';
import { hasWindow, makeWriters } from './writers.ts';

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
  /** Who can write a record besides its partition, where a connector says so. */
  readonly noteLinks?: NoteLinks;
  /** Hears of every stray once it is in the book. */
  readonly onStray?: (stray: Stray) => void;
}

export interface Sync {
  readonly desk: CopyDesk;
  readonly guardCalls: GuardCalls;
  readonly freezes: StoreFreezes;
  readonly doorbell: Doorbell;
  /** What users' requests take of the stores' rate limits. */
  readonly userCalls: UserCalls;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly deadLetters: DeadLetterDesk;
  readonly brakes: BrakeDesk;
  readonly verifications: Verifications;
  readonly strays: StrayDesk;
  readonly strayWatch: Pick<StrayWatch, 'look' | 'follow'>;
  /** Deletes a partition's records in both stores, and what the sync keeps of them. */
  readonly erasing: { readonly eraser: PartitionEraser; readonly memory: PartitionMemory };
  /** Undefined where nothing is ever copied back. */
  readonly window: RollbackWindow | undefined;
  /** Pauses of all copying, or of copies to one store. */
  readonly halts: HaltBook;
  /** Records and partitions rung and not looked at yet. */
  backlog(): Promise<number>;
  /** First copies under way, and the last that ended of each kind. */
  backfills(): Promise<readonly BackfillProgress[]>;
  /** Undefined while polls reach their end. */
  pollFailure(): Promise<PollFailure | undefined>;
  /** What webhooks have brought. */
  webhooks(): Promise<WebhookState>;
  /**
   * Begins to poll and to copy in this process, and to take webhooks where they are configured; returns what listens
   * where. Without it, only the desk copies. Throws where the address for webhooks cannot be had.
   */
  startWorkers(): Promise<{ readonly webhooks?: string }>;
  /** Ends within seconds; safe to call twice. */
  stop(): Promise<void>;
}

/** The copy lock outlives any call made under it by this much, ms. */
const lockMarginMs = 5_000;
/** Whoever changes something where it should not be is looked for this much more rarely than what must be copied. */
const followsPerPoll = 10;

/** Rejects when Redis does not answer. */
export async function createSync(settings: SyncSettings): Promise<Sync> {
  const { config, ledger, log, ownershipOf } = settings;
  const redis = await connectRedis(settings.redis);
  redis.on('error', () => undefined); // it reconnects; whoever needs it meanwhile gets the error
  const budgets = eachStore((store) => budgetOf(redis, store, config));
  const stores = eachStore((store) => openStore(store, config, budgets[store]));
  const { noteLinks } = settings;
  const conflicts = noteLinks && new Conflicts(noteLinks, log);
  const noting = (reader: StoreReader): StoreReader =>
    conflicts === undefined ? reader : new ConflictReader(reader, conflicts);
  const bareReaders = eachStore((store) => noting(stores[store].reader));
  const queues = makeQueues(redis, log);
  const attempts = config.sync.attempts;
  const epochOf = (partition: string): number => ownershipOf(partition)?.epoch ?? 0;
  const listDelayMs = Math.max(bareReaders.legacy.feedDelayMs, bareReaders.app.feedDelayMs);
  const backlog = new Backlog(redis, queues.record, { attempts, epochOf, listDelayMs });
  const webhooks = openWebhooks({ config, redis, backlog, readers: bareReaders, ownershipOf, log });
  const known = eachStore((store) => new KnownFields(redis, store));
  const readers = eachStore(
    (store) => new CompletingReader(webhooks.learning(bareReaders[store]), known[store]),
  );
  const letters = new DeadLetters(redis);
  const progress = new Progress(redis);
  const hidden = new HiddenRecords(redis);
  const receipts = new Receipts(redis);
  const brakes = new Brakes(redis, receipts, log);
  const halts = new HaltBook(redis);
  const lockMs = Math.max(stores.legacy.timeoutMs, stores.app.timeoutMs) + lockMarginMs;
  const snapshots = new Snapshots(redis);
  const window = hasWindow(config.sync.rollbackWindow)
    ? new RollbackWindow({ redis, ledger, ownershipOf })
    : undefined;
  const copies: BatchParts = {
    ledger,
    lost: settings.lost ?? (async () => (await ledger.regression())?.detail),
    readers,
    prepaidReaders: eachStore(
      (store) => new CompletingReader(noting(stores[store].prepaidReader), known[store]),
    ),
    writers: makeWriters(stores, config.sync.rollbackWindow),
    window,
    back: window && new CopyBack(leftStore, { snapshots, tellStray: (found) => strayWatch.tell(found) }),
    budgets: eachStore((store) => stores[store].budget),
    brakes,
    lock: new CopyLock(redis, lockMs),
    locks: new CopyLocks(redis, lockMs),
    claims: new RecordClaims(redis, lockMs),
    settleMs: eachStore((store) => config.stores[store].settleMs),
    onUncompared: (kind, field) => log('warn', 'sync.field-not-compared', { kind, field }),
  };
  const handedOver = takeSnapshots(snapshots, ledger, readers, window);
  const lag = (): Promise<number | undefined> => lagMs(ledger, [backlog, webhooks], progress);
  const desk = new SyncDesk(copies, letters, { brakes, halts }, lag, handedOver);
  const doorbell = new BatchingDoorbell({
    ringRecords: async (records) => {
      // Before the ring: a worker that removes a copy asks whether there is a receipt.
      await Promise.all([receipts.note(records), webhooks.learn(records)]);
      await backlog.ringWritten(records);
    },
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
    ...{ ledger, readers, targets, backlog, backfills, letters, hidden, brakes, progress, log, window },
    surveyEveryMs: config.sync.fullPassMs,
    registry: settings.registry,
    ownershipOf,
  });
  const strays = new StrayBook(redis, snapshots);
  const strayWatch: StrayWatch = new StrayWatch({
    ...{ redis, ledger, readers, snapshots, log, registry: settings.registry, book: strays },
    watched: [leftStore],
    ...{ doubts: new RedisDoubts(redis), onFound: settings.onStray },
    ...{ passMs: config.sync.strayPassMs, followMs: followsPerPoll * config.sync.pollMs },
  });
  const ranges: RangeParts = {
    ...{ ledger, readers, targets, registry: settings.registry, lagMs: () => desk.lagMs() },
    ring: (records) => backlog.ring(records),
    closedWindows: () => desk.closedWindows(),
    recheckMs: 2 * config.sync.pollMs,
    hindrances: { halts, letters },
  };
  const verifications = new Verifications({
    book: new VerificationBook(redis),
    plan: (partitions) => planSteps(ranges, partitions),
    run: (step, order, signal) => runStep(ranges, step, order, signal),
    log,
  });
  const freezes = openFreezes({ redis, ledger, log, stores, settleMs: copies.settleMs });
  let workers: SyncWorkers | undefined;
  let listeners: ChangeListeners | undefined;
  let blocking: Redis | undefined;
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    await Promise.all([verifications.stop(), strayWatch.stop(), freezes.stop()]);
    await Promise.all([doorbell.close(), listeners?.stop()]);
    await webhooks.stop();
    await userCalls.close();
    await workers?.stop();
    // Without Redis they fail to close; what is open behind them must be closed all the same.
    await Promise.allSettled(Object.values(queues).map((queue) => queue.close()));
    await Promise.allSettled(Object.values(readers).map((reader) => reader.close()));
    blocking?.disconnect();
    redis.disconnect();
  };
  return {
    desk,
    guardCalls: guardCallsOf(stores, config),
    freezes,
    doorbell,
    userCalls,
    readers,
    ...{ verifications, strays, strayWatch },
    window,
    deadLetters: deadLetterDesk(letters, backlog),
    brakes: brakeDesk(brakes, backlog),
    halts,
    erasing: {
      // Not those that learn: what they read is about to be forgotten.
      eraser: new RecordEraser({
        ...{ ledger, lost: copies.lost, readers: bareReaders, budgets: copies.budgets, lock: copies.lock },
        makeRemover: (store) => stores[store].makeRemover(),
      }),
      memory: new SyncMemory({
        ...{ redis, ledger, backlog, letters, brakes, receipts, snapshots, strays, watched: [leftStore] },
      }),
    },
    backlog: () => backlog.count(),
    backfills: () => backfills.progress(),
    pollFailure: () => progress.pollFailure(),
    webhooks: () => webhooks.state(),
    startWorkers: async () => {
      if (workers !== undefined) return {};
      blocking = connectForWorkers(settings.redis, log);
      workers = new SyncWorkers({
        ...{ poller, progress, backfills, backlog, letters, halts, targets, ledger, log, attempts },
        connection: blocking,
        ...{ control: queues.control, scan: queues.scan },
        copier: { copies, desk, backlog, letters, hidden, progress, log },
        ...{ readers, failing: new FailingStores(redis) },
        pollMs: config.sync.pollMs,
      });
      await workers.start();
      strayWatch.start();
      freezes.start();
      const { askForPoll } = workers;
      listeners = new ChangeListeners({
        ...{ stores: Object.values(stores), ownershipOf, log, poll: askForPoll },
        ring: (records) => backlog.ring(records),
      });
      listeners.start();
      webhooks.start(config.sync.pollMs);
      const url = await webhooks.listen();
      return url === undefined ? {} : { webhooks: url };
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

/** Where something waits that has not been copied. */
interface Owed {
  oldestMs(): Promise<number | undefined>;
}

async function lagMs(ledger: Ledger, owed: readonly Owed[], progress: Progress): Promise<number | undefined> {
  const [nowMs, reachedMs, ...oldest] = await Promise.all([
    ledger.nowMs(),
    progress.reachedMs(),
    ...owed.map((one) => one.oldestMs()),
  ]);
  if (reachedMs === undefined || oldest.includes(0)) return undefined;
  return Math.max(0, nowMs - Math.min(reachedMs, ...oldest.map((ms) => ms ?? nowMs)));
}
