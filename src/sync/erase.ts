/**
 * Deletes a partition's records in both stores, the owner's as well: the one exception to I3. Whoever calls holds the
 * fence of an erasure; right before every delete the copy lock is proven to be held and the ledger is asked again,
 * as for a copy (apply.ts). Nothing else in onewriter can make a call that deletes in the owner.
 */
import {
  decideErase,
  type ErasedRecord,
  type ErasureLook,
  type ErasureRecords,
  type EraseRequest,
  type PartitionEraser,
} from '../core/erasure.ts';
import { otherStore, type StoreName, storeNames } from '../core/ownership.ts';
import { type Ledger, type RecordRemover, StoreFailure, type StoreReader } from '../core/ports.ts';
import { pause } from '../pause.ts';
import type { CallBudget } from '../stores/budget.ts';
import type { CopyLock, HeldLock } from './copy-lock.ts';
import { backfillName } from './keys.ts';
import { traceOf } from './known-copies.ts';
import { eachOf } from './passes.ts';
import { readPatiently } from './patience.ts';

export interface EraserParts {
  readonly ledger: Pick<Ledger, 'read'>;
  /** What the ledger has lost, asked at that moment; undefined while it is sound. */
  readonly lost: () => Promise<string | undefined>;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  /** Made only here and only for one erasure: there is nothing else that could delete in an owner. */
  readonly makeRemover: (store: StoreName) => RecordRemover;
  readonly budgets: Readonly<Record<StoreName, CallBudget>>;
  readonly lock: Pick<CopyLock, 'acquire'>;
}

/** Passes after which records that are still shown are somebody else's doing. */
const passesMax = 5;
const noneAtOnceMs = 1_000;

/** Live records of one store by `kind` and id, and what else its lists show. */
interface Listed {
  readonly live: Map<string, ErasedRecord>;
  readonly tombstones: ErasedRecord[];
  readonly unreadable: ErasedRecord[];
}

interface Hold {
  readonly held: HeldLock;
  readonly owner: StoreName;
}

type Sides = Readonly<Record<StoreName, Listed>>;

export class RecordEraser implements PartitionEraser {
  readonly #parts: EraserParts;

  constructor(parts: EraserParts) {
    this.#parts = parts;
  }

  async look(partition: string, signal: AbortSignal): Promise<ErasureLook> {
    const startedMs = performance.now();
    const sides = await this.#list(partition, new Set(), signal);
    return this.#lookOf(sides, startedMs);
  }

  async erase(request: EraseRequest, signal: AbortSignal): Promise<ErasureLook> {
    const held = await this.#parts.lock.acquire(request.partition, signal, Number.POSITIVE_INFINITY);
    if (held === undefined)
      throw new StoreFailure('unavailable', 'another hand is copying for the partition');
    try {
      return await this.#eraseAll(request, held, signal);
    } finally {
      await held.release();
    }
  }

  async #eraseAll(request: EraseRequest, held: HeldLock, signal: AbortSignal): Promise<ErasureLook> {
    const { partition, note } = request;
    const { owner } = (await this.#parts.ledger.read(partition)).ownership;
    const hold = { held, owner };
    const deleted = new Set<string>();
    for (let passes = 1; ; passes += 1) {
      const startedMs = performance.now();
      const sides = await this.#list(partition, deleted, signal);
      const live = storeNames.flatMap((store) => [...sides[store].live.values()]);
      if (live.length === 0) return this.#lookOf(sides, startedMs);
      if (passes > passesMax) {
        const [{ store, kind } = { store: '', kind: '' }] = live;
        const what = `${store} still shows ${live.length} records after ${passesMax} passes, the first of kind ${kind}`;
        throw new StoreFailure('rejected', `${what}: it does not delete them, or somebody puts them back`);
      }
      await note(live);
      for (const record of live) deleted.add(placeOf(record));
      // Legacy first: it can refuse deletes altogether, and then the app's guard has met none.
      for (const store of storeNames) {
        await this.#deleteAll(request, hold, [...sides[store].live.values()], signal);
      }
      await pause(Math.max(...this.#feedDelays()), signal);
    }
  }

  /** The others are deleted although the store refuses one of them. */
  async #deleteAll(
    request: EraseRequest,
    hold: Hold,
    records: readonly ErasedRecord[],
    signal: AbortSignal,
  ): Promise<void> {
    const [first] = records;
    if (first === undefined) return;
    const remover = this.#parts.makeRemover(first.store);
    let refused: StoreFailure | undefined;
    await eachOf(records, async (record) => {
      try {
        await this.#delete(request, hold, remover, record, signal);
      } catch (error) {
        if (!(error instanceof StoreFailure) || error.kind !== 'rejected') throw error;
        refused ??= error;
      }
    });
    if (refused !== undefined) throw refused;
  }

  async #delete(
    { partition, attempt }: EraseRequest,
    { held, owner }: Hold,
    remover: RecordRemover,
    { store, kind, id }: ErasedRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const { budgets, ledger, lost } = this.#parts;
    // A first copy that has read the record already must leave it alone.
    const trace = traceOf(backfillName(owner, kind), id);
    for (;;) {
      await budgets[store].take(signal, { partition });
      const [isHeld, now, gone] = await Promise.all([
        held.coverWrite([trace]),
        ledger.read(partition),
        lost(),
      ]);
      if (gone !== undefined) throw new StoreFailure('unavailable', `the ledger lost data: ${gone}`);
      const decided = decideErase(now.ownership, attempt);
      if (!isHeld)
        throw new StoreFailure('unavailable', 'the copy lock was lost; another hand may be copying');
      if (decided.erase === 'no') throw new StoreFailure('unavailable', decided.because);
      signal.throwIfAborted();
      try {
        return await remover.remove({ kind, id }, { partition, epoch: decided.epoch }, signal);
      } catch (error) {
        // A 429 says that nothing was done.
        if (!(error instanceof StoreFailure) || error.kind !== 'rate-limited') throw error;
        await pause(error.retryAfterMs ?? noneAtOnceMs, signal);
      }
    }
  }

  // --- what is there ---------------------------------------------------------------------------------

  async #list(partition: string, deleted: ReadonlySet<string>, signal: AbortSignal): Promise<Sides> {
    const { readers } = this.#parts;
    const sides = { legacy: emptyListing(), app: emptyListing() };
    await eachOf(storeNames, (store) => listInto(sides[store], readers[store], partition, signal));
    await eachOf(storeNames, (store) =>
      this.#correct(sides[store], sides[otherStore(store)], { store, partition, deleted }, signal),
    );
    return sides;
  }

  /**
   * A list can hide a record that the other store shows, and show for a while one that was deleted: of both kinds
   * `get` says what is true.
   */
  async #correct(
    listed: Listed,
    other: Listed,
    {
      store,
      partition,
      deleted,
    }: { readonly store: StoreName; readonly partition: string; readonly deleted: ReadonlySet<string> },
    signal: AbortSignal,
  ): Promise<void> {
    const reader = this.#parts.readers[store];
    const kinds = new Set(reader.capabilities.map(({ kind }) => kind));
    const hidden = [...other.live.values()]
      .map((record): ErasedRecord => ({ ...record, store }))
      .filter((record) => kinds.has(record.kind) && !listed.live.has(nameOf(record)));
    const late = [...listed.live.values()].filter((record) => deleted.has(placeOf(record)));
    await eachOf([...hidden, ...late], async (record) => {
      const { kind, id } = record;
      const found = await readPatiently('background', signal, () =>
        reader.get(kind, { id, partition }, signal),
      );
      const isLive = found !== undefined && !found.deleted && found.partition === partition;
      if (isLive) listed.live.set(nameOf(record), record);
      else listed.live.delete(nameOf(record));
    });
  }

  #lookOf(sides: Sides, startedMs: number): ErasureLook {
    const { readers, makeRemover } = this.#parts;
    const of = (pick: (listed: Listed) => Iterable<ErasedRecord>): ErasureRecords[] =>
      storeNames.flatMap((store) => countedByKind(pick(sides[store])));
    const records = of(({ live }) => live.values());
    return {
      records,
      tombstones: of(({ tombstones }) => tombstones),
      unreadable: of(({ unreadable }) => unreadable),
      undeletable: records.filter(({ store, kind }) => !makeRemover(store).can(kind)),
      unseen: storeNames.filter((store) => readers[store].capabilities.length === 0),
      tookMs: performance.now() - startedMs,
    };
  }

  #feedDelays(): number[] {
    return storeNames.map((store) => this.#parts.readers[store].feedDelayMs);
  }
}

function emptyListing(): Listed {
  return { live: new Map(), tombstones: [], unreadable: [] };
}

async function listInto(
  listed: Listed,
  reader: StoreReader,
  partition: string,
  signal: AbortSignal,
): Promise<void> {
  const { store } = reader;
  for (const { kind } of reader.capabilities) {
    await readPatiently('background', signal, async () => {
      const unreadable: ErasedRecord[] = [];
      const tombstones: ErasedRecord[] = [];
      for await (const page of reader.pages(kind, { partition }, signal)) {
        for (const { id, partition: of, deleted } of page.records) {
          if (of !== partition) continue;
          const record = { store, kind, id };
          if (deleted) tombstones.push(record);
          else listed.live.set(nameOf(record), record);
        }
        unreadable.push(...page.problems.map(() => ({ store, kind, id: '' })));
      }
      listed.unreadable.push(...unreadable);
      listed.tombstones.push(...tombstones);
    });
  }
}

function countedByKind(records: Iterable<ErasedRecord>): ErasureRecords[] {
  return [...Map.groupBy(records, ({ kind }) => kind)].map(([kind, all]) => ({
    ...{ store: all[0]?.store ?? 'legacy', kind, records: all.length },
  }));
}

function nameOf({ kind, id }: ErasedRecord): string {
  return `${kind}\n${id}`;
}

function placeOf(record: ErasedRecord): string {
  return `${record.store}\n${nameOf(record)}`;
}
