/**
 * Watches the store that partitions leave for changes in those that it does not own any more. Full looks compare with
 * the snapshot of the handoff and what was copied back since; a feed, where there is one, shows most of it sooner. It
 * only reads.
 */
import { randomInt, randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { Doubts } from '../core/doubt.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { Ledger, RecordProblem, Registry, StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { lateWriteOf, type NewStray, type Stray } from '../core/stray.ts';
import { keyPrefix } from '../ledger/connection.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { Look, NotAllRead } from './blame.ts';
import { holdsTheSame } from './copy-form.ts';
import { eachOf } from './passes.ts';
import { readPatiently } from './patience.ts';
import type { FoundStray } from './copy-back.ts';
import { type CopiedBack, type Sides, type Snapshot, snapshotDigest, type Snapshots } from './snapshots.ts';
import type { StrayBook } from './stray-book.ts';
import { overlapMs } from './feeds.ts';
import { kindsOf, KindComparison, readsWhole, type Suspect, type Watched } from './stray-comparison.ts';
import { lessOverlap, newest } from './versions.ts';

export interface StrayWatchParts {
  readonly redis: Redis;
  readonly ledger: Pick<Ledger, 'touched' | 'readMany' | 'nowMs'>;
  readonly registry: Pick<Registry, 'count'>;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly watched: readonly StoreName[];
  readonly doubts: Pick<Doubts, 'of'>;
  readonly snapshots: Snapshots;
  readonly book: StrayBook;
  readonly log: Log;
  readonly onFound?: ((stray: Stray) => void) | undefined;
  /** Between two full looks, ms. */
  readonly passMs: number;
  /** Between two looks at a feed, ms. */
  readonly followMs: number;
}

const leaseKey = `${keyPrefix}:sync:stray-watch`;
const progressKey = `${keyPrefix}:sync:stray-watch:progress`;
const leaseMs = 20_000;
/** Of snapshots as they are kept, so about 300,000 records at a time. */
const batchBytesMax = 8_000_000;
const suspectsMax = 1_000;
const heldLengthMax = 2_000;

export class StrayWatch {
  readonly #parts: StrayWatchParts;
  readonly #stopping = new AbortController();
  readonly #holder = randomUUID();
  #loop: Promise<void> | undefined;
  #unusable = '';

  constructor(parts: StrayWatchParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#loop ??= this.#watch();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the sync is stopping'));
    await this.#loop;
  }

  /**
   * Everything that has changed where it should not; stores that nothing has left cost nothing. Throws NotAllRead at
   * its end.
   */
  async look(signal: AbortSignal): Promise<void> {
    const look = new Look(this.#parts.readers, signal);
    const touched = await this.#parts.ledger.touched();
    for (const store of this.#parts.watched) {
      const watched: Watched[] = [];
      for (const [partition, { ownership }] of touched) {
        if (ownership.phase !== 'open' || ownership.owner === store) continue;
        watched.push({ partition, epoch: ownership.epoch });
      }
      for await (const batch of this.#batches(store, watched)) {
        await this.#lookAt(store, batch, look, signal);
      }
    }
    look.end();
  }

  /** What feeds show since the last time. Whoever was never looked at in full is left to the next full look. Throws NotAllRead. */
  async follow(signal: AbortSignal): Promise<void> {
    const { redis, readers, ledger } = this.#parts;
    const nowMs = await ledger.nowMs();
    const look = new Look(readers, signal);
    for (const store of this.#parts.watched) {
      const sides = this.#sides(store);
      for (const { kind, since } of kindsOf(sides)) {
        const at = since ? await redis.hget(progressKey, `${store} ${kind}`) : null;
        if (at === null) continue;
        const scope = { since: lessOverlap(at, overlapMs + readers[store].feedDelayMs, nowMs) };
        let seen: string | undefined = at;
        const isRead = await look.at(`the feed of ${kind}`, async () => {
          for await (const page of sides.left.pages(kind, scope, signal)) {
            for (const { version } of page.records) seen = newest(seen, version, nowMs);
            const memory = await this.#parts.snapshots.memory();
            const suspects = await this.#suspectsIn(store, page.records);
            await this.#judgeAll(store, { suspects, memory }, look, signal);
          }
        });
        // Those that could not be judged come up again in the next full look.
        if (isRead && seen !== undefined) await redis.hset(progressKey, `${store} ${kind}`, seen);
      }
    }
    look.end();
  }

  async #watch(): Promise<void> {
    const { log, passMs, followMs, redis } = this.#parts;
    const { signal } = this.#stopping;
    let lookedMs = Number.NEGATIVE_INFINITY;
    let failed = '';
    while (!signal.aborted) {
      const isDue = performance.now() - lookedMs >= passMs;
      try {
        if (await this.#mayWatch()) {
          await this.#holding(() => (isDue ? this.look(signal) : this.follow(signal)));
          if (isDue) {
            lookedMs = performance.now();
            failed = '';
          }
        }
      } catch (error) {
        if (isDue && error instanceof NotAllRead) lookedMs = performance.now();
        const detail = sentenceOf(error);
        if (!signal.aborted && detail !== failed) log('warn', 'sync.strays-not-looked', { detail });
        failed = detail;
      }
      await pause(Math.min(followMs, passMs), signal).catch(() => undefined);
    }
    if ((await redis.get(leaseKey).catch(() => null)) === this.#holder) {
      await redis.del(leaseKey).catch(() => undefined);
    }
  }

  /** A long look keeps its lease: without it every other process would begin one, too. */
  async #holding(work: () => Promise<void>): Promise<void> {
    const renewing = setInterval(() => void this.#mayWatch().catch(() => undefined), leaseMs / 4);
    try {
      await work();
    } finally {
      clearInterval(renewing);
    }
  }

  /** One process is enough; two at once would only read twice. */
  async #mayWatch(): Promise<boolean> {
    const { redis } = this.#parts;
    const taken = await redis.set(leaseKey, this.#holder, 'PX', leaseMs, 'NX');
    if (taken === 'OK') return true;
    if ((await redis.get(leaseKey)) !== this.#holder) return false;
    await redis.pexpire(leaseKey, leaseMs);
    return true;
  }

  #sides(store: StoreName): Sides {
    const { readers } = this.#parts;
    return { left: readers[store], owner: readers[otherStore(store)] };
  }

  async *#batches(store: StoreName, watched: readonly Watched[]): AsyncGenerator<readonly Watched[]> {
    const sizes = await this.#parts.snapshots.sizes(
      store,
      watched.map(({ partition }) => partition),
    );
    let batch: Watched[] = [];
    let bytes = 0;
    for (const [at, one] of watched.entries()) {
      batch.push(one);
      bytes += sizes[at] ?? 0;
      if (bytes < batchBytesMax) continue;
      yield batch;
      batch = [];
      bytes = 0;
    }
    if (batch.length > 0) yield batch;
  }

  async #lookAt(store: StoreName, batch: readonly Watched[], look: Look, signal: AbortSignal): Promise<void> {
    const { snapshots, registry, redis, log, ledger } = this.#parts;
    const sides = this.#sides(store);
    const memory = await snapshots.memory();
    const nowMs = await ledger.nowMs();
    const known = await snapshots.load(
      store,
      batch.map(({ partition }) => partition),
    );
    const most = 2 * batch.length >= (await registry.count());
    const fresh = new Map<string, Snapshot>();
    for (const { partition } of batch) if (!known.has(partition)) fresh.set(partition, new Map());
    const suspects: Suspect[] = [];
    const unread = new Set<string>();
    for (const capability of kindsOf(sides)) {
      const comparison = new KindComparison(capability.kind, sides, { batch, known, fresh, nowMs });
      const newestVersion = await comparison.read(readsWhole(capability, most), look, signal);
      suspects.push(...comparison.suspects());
      for (const partition of comparison.unread) unread.add(partition);
      this.#tellUnusable(store, capability.kind, comparison.problems);
      const progress = `${store} ${capability.kind}`;
      if (capability.since && newestVersion !== undefined)
        await redis.hsetnx(progressKey, progress, newestVersion);
    }
    for (const partition of [...unread, ...(await this.#movedSince(batch))]) fresh.delete(partition);
    await snapshots.saveFirst(store, fresh, memory);
    // Whoever was claimed for the app has none, and so has everybody once Redis has lost its memory.
    if (fresh.size > 0) log('info', 'sync.strays-from-now', { store, partitions: fresh.size });
    await this.#judgeAll(store, { suspects, memory }, look, signal);
  }

  /** Once for each that comes first. */
  #tellUnusable(store: StoreName, kind: string, problems: readonly RecordProblem[]): void {
    const [first] = problems;
    if (first === undefined || this.#unusable === first.detail) return;
    this.#unusable = first.detail;
    const count = problems.length;
    this.#parts.log('warn', 'sync.unusable-records', { store, kind, count, first: first.detail });
  }

  /** What was read of them may be what somebody has moved or erased meanwhile. */
  async #movedSince(batch: readonly Watched[]): Promise<readonly string[]> {
    const names = batch.map(({ partition }) => partition);
    const now = await this.#parts.ledger.readMany(names);
    return names.filter((_, at) => now[at]?.ownership.epoch !== batch[at]?.epoch);
  }

  async #suspectsIn(store: StoreName, records: readonly StoreRecord[]): Promise<readonly Suspect[]> {
    const { ledger, snapshots } = this.#parts;
    const partitions = [...new Set(records.map(({ partition }) => partition))];
    const found = await ledger.readMany(partitions);
    const epochs = new Map<string, number>();
    for (const [at, { ownership }] of found.entries()) {
      if (ownership.phase === 'open' && ownership.owner !== store)
        epochs.set(partitions[at] ?? '', ownership.epoch);
    }
    const known = await snapshots.load(store, [...epochs.keys()]);
    const sides = this.#sides(store);
    return records.flatMap((record): Suspect[] => {
      const { partition, kind, id } = record;
      const [epoch, snapshot] = [epochs.get(partition), known.get(partition)];
      if (epoch === undefined || snapshot === undefined) return [];
      const expected = snapshot.get(kind)?.get(id);
      return snapshotDigest(record, partition, sides) === expected
        ? []
        : [{ partition, kind, id, epoch, expected }];
    });
  }

  async #judgeAll(
    store: StoreName,
    { suspects, memory }: { readonly suspects: readonly Suspect[]; readonly memory: string },
    look: Look,
    signal: AbortSignal,
  ): Promise<void> {
    if (suspects.length > suspectsMax) {
      const detail = 'so many records changed that only some are told now, the others with the next looks';
      this.#parts.log('error', 'sync.strays-many', { store, records: suspects.length, detail });
    }
    // From anywhere in the list: those told already come up again until somebody resolves them.
    const first = suspects.length > suspectsMax ? randomInt(suspects.length) : 0;
    const chosen = [...suspects.slice(first), ...suspects.slice(0, first)].slice(0, suspectsMax);
    await eachOf(chosen, async (suspect) => {
      const { partition, kind, id } = suspect;
      await look.at(`${kind} ${id} of ${partition}`, () => this.#judge(store, suspect, memory, signal));
    });
  }

  /** Reads the record itself: what a list shows can be late, or shifted. */
  async #judge(store: StoreName, suspect: Suspect, memory: string, signal: AbortSignal): Promise<void> {
    const { partition, kind, id, epoch } = suspect;
    const { ledger, snapshots } = this.#parts;
    const sides = this.#sides(store);
    const get = (reader: StoreReader) =>
      readPatiently('background', signal, () => reader.get(kind, { id, partition }, signal));
    const before = await this.#expected(store, suspect);
    const record = await get(sides.left);
    const digest = snapshotDigest(record, partition, sides);
    if (!before.certain || digest === before.digest) return;
    const ownerRecord = await get(sides.owner).catch(() => 'unread' as const);
    // Whoever made it so, nobody has lost anything: Redis forgot our copy back, or somebody has repaired the record.
    if (ownerRecord !== 'unread' && holdsTheSame(ownerRecord, record, partition, sides.owner, sides.left))
      return;
    // Last, so that what was read was read under this owner, and while no copy back was on its way.
    const [[now], after] = await Promise.all([ledger.readMany([partition]), this.#expected(store, suspect)]);
    if (now?.ownership.epoch !== epoch || now.ownership.owner === store) return;
    if (!after.certain || after.digest !== before.digest) return;
    // A Redis that has lost its memory since does not know what was copied back meanwhile.
    if ((await snapshots.memory()) !== memory) return;
    const key = { partition, kind, id };
    const known = { epoch, expected: before.digest, digest, record };
    await this.tell({
      store,
      key,
      ...known,
      ownerRecord: ownerRecord === 'unread' ? undefined : ownerRecord,
    });
  }

  async #expected(store: StoreName, suspect: Suspect): Promise<CopiedBack> {
    const copied = await this.#parts.snapshots.copied(store, suspect);
    return copied ?? { digest: suspect.expected, certain: true };
  }

  /** Puts the stray into the book, and tells of it once. */
  async tell({ store, key, epoch, expected, digest, record, ownerRecord }: FoundStray): Promise<void> {
    const { ledger, doubts } = this.#parts;
    const { partition, kind, id } = key;
    const change = expected === undefined ? 'created' : digest === undefined ? 'deleted' : 'changed';
    const late = lateWriteOf({ store, record: id, change }, await doubts.of(partition));
    await this.#record({
      ...{ store, partition, kind, change, digest, epoch, record: id },
      foundAtMs: await ledger.nowMs(),
      owner: otherStore(store),
      holds: digest === undefined ? undefined : heldOf(record),
      ownerHolds: heldOf(ownerRecord),
      lateWrite: late && { id: late.id, method: late.method, path: late.path, atMs: late.atMs },
    });
  }

  async #record(found: NewStray): Promise<void> {
    const { as, stray } = await this.#parts.book.add(found);
    if (as === 'known') return;
    const { id, store, partition, kind, record, change, owner, lateWrite } = stray;
    const event = { new: 'sync.stray', reopened: 'sync.stray-not-repaired', full: 'sync.stray-unrecorded' }[
      as
    ];
    const what = lateWrite === undefined ? 'stray' : 'late-write';
    this.#parts.log('error', event, { id, what, store, partition, kind, record, change, owner });
    this.#parts.onFound?.(stray);
  }
}

function heldOf(record: StoreRecord | undefined): string | undefined {
  if (record === undefined) return undefined;
  const text = JSON.stringify(record.fields);
  return text.length <= heldLengthMax ? text : `${text.slice(0, heldLengthMax)}…`;
}
