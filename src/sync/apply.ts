/**
 * The only place that writes a copy (I3). Whoever wants to copy opens a session on the partition: it holds
 * the partition's copy lock, and takes its direction from the ledger. Right before every write the lock is
 * proven to be held and the ledger is asked again; when anything has moved, nothing is written.
 */
import type { StoreName } from '../core/ownership.ts';
import {
  type CopyStamp,
  type CopyWriter,
  StoreFailure,
  type StoreReader,
  type WriteCondition,
} from '../core/ports.ts';
import type { CopyForm, CopyHand, StoreRecord } from '../core/records.ts';
import type { CallBudget } from '../stores/budget.ts';
import type { Brakes, HeldBack } from './brakes.ts';
import type { BackCopy, CopyBack, KnownSnapshot } from './copy-back.ts';
import { isForeign } from './copy-form.ts';
import type { CopyLock, HeldLock } from './copy-lock.ts';
import { backfillName } from './keys.ts';
import { traceOf } from './known-copies.ts';
import { settleLacked } from './lacked-fields.ts';
import { type Direction, type DirectionParts, mayCopy, SessionOver, type SessionResult } from './may-copy.ts';
import {
  heldDifferently,
  type Needed,
  neededFor,
  readMsOf,
  type RecordName,
  type RecordPair,
} from './needed.ts';
import { isFresh, type RecordClaims } from './record-claims.ts';
import { Removals } from './removals.ts';

export interface CopyParts extends DirectionParts {
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  /** For copies under a fence, which were paid for before it began. */
  readonly prepaidReaders: Readonly<Record<StoreName, StoreReader>>;
  /** Only where copies go back to the store that users have left. */
  readonly back?: CopyBack | undefined;
  readonly budgets: Readonly<Record<StoreName, CallBudget>>;
  readonly lock: CopyLock;
  readonly claims: RecordClaims;
  readonly brakes: Pick<Brakes, 'mayRemove' | 'mayRemoveAll' | 'onAll'>;
  /** How long a copy whose outcome is unknown may still take effect, ms. */
  readonly settleMs: Readonly<Record<StoreName, number>>;
  /** The store puts so many different values into a field by itself that full passes cannot compare it. */
  readonly onUncompared?: (kind: string, field: string) => void;
}

/** `held-back`: the brake does not let the delete through; `by-pass`: only a pass over the partition can tell. */
export type Applied = 'written' | 'removed' | 'same' | 'held-back' | 'by-pass';

/** Thrown before a write: somebody else may have written the copy since it was read. */
class ReadAgain extends Error {}

/**
 * Runs `work` with a session on the partition, or says why no copy may be made. Waits for the copy lock
 * for `lockWaitMs`, or as long as the signal allows. When the promise settles, no write of the session is
 * under way.
 */
export async function withCopySession<T>(
  parts: CopyParts,
  partition: string,
  hand: CopyHand,
  signal: AbortSignal,
  work: (session: CopySession) => Promise<T>,
  lockWaitMs = Number.POSITIVE_INFINITY,
): Promise<SessionResult<T>> {
  // Who is refused anyhow need not wait for the lock; under a fence there is no time to ask twice.
  const early = hand.hand === 'handoff' ? undefined : await mayCopy(parts, partition, hand);
  if (early?.copied === 'no') return early;
  const held = await parts.lock.acquire(partition, signal, lockWaitMs);
  if (held === undefined) {
    return {
      copied: 'no',
      because: 'another hand is copying for this partition',
      when: 'later',
      lockTaken: true,
    };
  }
  try {
    const granted = await mayCopy(parts, partition, hand);
    if (granted.copied === 'no') return granted;
    const asked = { partition, hand, lockWaitMs };
    const session = new CopySession(parts, held, asked, granted.result, signal);
    return { copied: 'yes', result: await work(session) };
  } catch (error) {
    if (error instanceof SessionOver) return error.refused;
    throw error;
  } finally {
    await held.release();
  }
}

export class CopySession {
  readonly partition: string;
  readonly from: StoreName;
  readonly to: StoreName;
  readonly epoch: number;
  readonly owner: StoreReader;
  readonly copy: StoreReader;
  readonly signal: AbortSignal;
  readonly #parts: CopyParts;
  readonly #held: HeldLock;
  readonly #hand: CopyHand;
  readonly #claimWaitMs: number;
  #snapshot: Promise<KnownSnapshot | undefined> | undefined;
  readonly #removals: Removals;

  constructor(
    parts: CopyParts,
    held: HeldLock,
    {
      partition,
      hand,
      lockWaitMs,
    }: { readonly partition: string; readonly hand: CopyHand; readonly lockWaitMs: number },
    direction: Direction,
    signal: AbortSignal,
  ) {
    this.partition = partition;
    this.from = direction.from;
    this.to = direction.to;
    this.epoch = direction.epoch;
    const readers = hand.hand === 'handoff' ? parts.prepaidReaders : parts.readers;
    this.owner = readers[direction.from];
    this.copy = readers[direction.to];
    this.signal = signal;
    this.#parts = parts;
    this.#held = held;
    this.#hand = hand;
    this.#claimWaitMs = lockWaitMs;
    this.#removals = new Removals(parts, partition, direction.from, hand);
  }

  /**
   * Makes the copy of one record equal to the owner's. Both must have been read inside this session, and
   * an absence must have been told by `get`. Throws StoreFailure as the writer does; after `unavailable`
   * the outcome is unknown, and only reading again tells. Throws StrayInTheWay as CopyBack does.
   */
  async apply(kind: string, pair: RecordPair): Promise<Applied> {
    const { id } = pair;
    for (let read = pair; ;) {
      try {
        return await this.#applyRead({ kind, id }, read);
      } catch (error) {
        if (!(error instanceof ReadAgain)) throw error;
        read = await this.#readAgain(kind, id);
      }
    }
  }

  async #readAgain(kind: string, id: string): Promise<RecordPair> {
    const { owner, copy, partition, signal } = this;
    const readMs = performance.now();
    const [ownerRecord, copyRecord] = await Promise.all([
      owner.get(kind, { id, partition }, signal),
      copy.get(kind, { id, partition }, signal),
    ]);
    return { id, ownerRecord, copyRecord, readMs };
  }

  async #applyRead(key: RecordName, pair: RecordPair): Promise<Applied> {
    const { ownerRecord, copyRecord } = pair;
    const { back } = this.#parts;
    if (back?.store === this.to) return this.#applyBack(back, key, ownerRecord);
    const needed = neededFor(this, key, ownerRecord, copyRecord);
    return (await this.#heldBack(needed, key, ownerRecord)) ?? this.#carryOut(needed, key, readMsOf(pair));
  }

  /** As apply; what the copy holds is read once more, because a list can be late and shows no ETag. */
  async #applyBack(back: CopyBack, key: RecordName, ownerRecord: StoreRecord | undefined): Promise<Applied> {
    const { partition, epoch, owner, copy: left, signal } = this;
    const readMs = performance.now();
    const held = await left.get(key.kind, { id: key.id, partition }, signal);
    const snapshot = (): Promise<KnownSnapshot | undefined> =>
      (this.#snapshot ??= back.snapshotOf(partition));
    const copy: BackCopy = {
      ...{ key: { partition, ...key }, epoch, sides: { left, owner }, ownerRecord, snapshot },
    };
    const needed = neededFor(this, key, ownerRecord, held);
    if (needed.need === 'nothing') await back.same(copy, held);
    const heldBack = await this.#heldBack(needed, key, ownerRecord);
    if (needed.need === 'nothing' || heldBack !== undefined) return heldBack ?? 'same';
    const form = needed.need === 'put' ? needed.form : undefined;
    const onlyIf = await back.begin(copy, held, form);
    try {
      await this.#carryOut(needed, key, readMs, onlyIf);
    } catch (error) {
      if (nothingWritten(error)) await back.unchanged(copy, held);
      throw error;
    }
    const found = await back.readBack(copy, signal);
    if (found !== 'unread' && neededFor(this, key, ownerRecord, found).need !== 'nothing') {
      throw heldDifferently(this.to, key);
    }
    return needed.need === 'removal' ? 'removed' : 'written';
  }

  /** Undefined where the copy may be made, or where there is none to make. */
  async #heldBack(
    needed: Needed,
    key: RecordName,
    ownerRecord: StoreRecord | undefined,
  ): Promise<Applied | undefined> {
    if (needed.need !== 'removal') return undefined;
    const answer = await this.#removals.may(key, ownerRecord);
    if (answer === 'yes') return undefined;
    return answer === 'no' ? 'held-back' : 'by-pass';
  }

  async #carryOut(
    needed: Needed,
    key: RecordName,
    readMs: number,
    onlyIf?: WriteCondition,
  ): Promise<Applied> {
    const { signal } = this;
    if (needed.need === 'nothing') return 'same';
    if (needed.need === 'removal') {
      await this.#write([{ ...key, readMs }], (writer, stamp) => writer.remove(key, stamp, signal, onlyIf));
      return 'removed';
    }
    const { form, exists, onlyLacked } = needed;
    const put = (copy: CopyForm, isThere: boolean, read: number): Promise<void> =>
      this.#write([{ ...key, readMs: read }], (writer, stamp) =>
        writer.put(copy, stamp, isThere, signal, onlyIf),
      );
    await put(form, exists, readMs);
    if (!onlyLacked || onlyIf !== undefined) return 'written';
    const { owner, copy, partition } = this;
    const { kind, id } = key;
    await settleLacked(
      {
        owner,
        read: () => copy.get(kind, { id, partition }, signal),
        put: (cleared) => put(cleared, true, performance.now()),
        onUncompared: (field) => this.#parts.onUncompared?.(kind, field),
      },
      form,
    );
    return 'written';
  }

  /** See Removals. */
  askToRemove(
    keys: readonly RecordName[],
    held: ReadonlyMap<string, unknown>,
  ): Promise<HeldBack | undefined> {
    return this.#removals.askForAll(keys, held);
  }

  /** How many records of the kind one call takes; undefined where they are written one by one, as all copies back are. */
  bulkMax(kind: string): number | undefined {
    if (this.#parts.back?.store === this.to) return undefined;
    return this.#parts.writers.get(this.to)?.bulk(kind)?.max;
  }

  /**
   * As apply, for records of one kind that the owner has, at most `bulkMax` of them in one call. Returns the ids
   * whose copies are certainly equal now; the others are to be read again and applied one by one.
   */
  async applyMany(kind: string, pairs: readonly RecordPair[]): Promise<ReadonlySet<string>> {
    const forms: {
      readonly kind: string;
      readonly id: string;
      readonly form: CopyForm;
      readonly readMs: number;
    }[] = [];
    for (const pair of pairs) {
      const { id, ownerRecord, copyRecord } = pair;
      if (isForeign(copyRecord, this.partition)) continue;
      const needed = neededFor(this, { kind, id }, ownerRecord, copyRecord);
      // What the store makes of a field that is left out, is looked at record by record.
      if (needed.need === 'put' && !needed.onlyLacked) {
        forms.push({ kind, id, form: needed.form, readMs: readMsOf(pair) });
      }
    }
    if (forms.length === 0) return new Set();
    try {
      return await this.#write(forms, async (writer, stamp, ours, unsettled) => {
        const copies = ours.map(({ form: copy }) => ({ copy, stamp }));
        const { written, mayStillHappen } = await writer.putMany(kind, copies, this.signal);
        if (mayStillHappen) unsettled();
        return written;
      });
    } catch (error) {
      if (error instanceof ReadAgain) return new Set();
      // It may have been one record of many, or too many of them.
      if (error instanceof StoreFailure && error.kind === 'rejected') return new Set();
      throw error;
    }
  }

  /** Ends the session when the lock was lost or the partition has moved since it began. */
  ensureMayCopy(): Promise<void> {
    return this.#ensure(() => this.#held.stillHeld());
  }

  async #ensure(held: () => Promise<boolean>): Promise<void> {
    // Both asked at once: what counts is that each still held at some time after this call.
    const [isHeld, now] = await Promise.all([held(), mayCopy(this.#parts, this.partition, this.#hand)]);
    if (!isHeld) {
      const because = 'the copy lock was lost; another hand may be copying';
      throw new SessionOver({ copied: 'no', because, when: 'later' });
    }
    if (now.copied === 'no') throw new SessionOver(now);
    const { from, to, epoch } = now.result;
    if (from !== this.from || to !== this.to || epoch !== this.epoch) {
      const because = `the partition moved from epoch ${this.epoch} to ${epoch} in the meantime`;
      throw new SessionOver({ copied: 'no', because, when: 'later' });
    }
  }

  /** Sends a write of those records, all of one kind, that could be claimed; throws ReadAgain where there is none. */
  async #write<K extends RecordName & { readonly readMs: number }, T>(
    wanted: readonly K[],
    send: (
      writer: CopyWriter,
      stamp: CopyStamp,
      ours: readonly K[],
      /** Call where the write may still take effect although it was answered. */
      unsettled: () => void,
    ) => Promise<T>,
  ): Promise<T> {
    const writer = this.#parts.writers.get(this.to);
    if (writer === undefined) throw new Error(`there is no writer for ${this.to}`);
    if (this.#hand.hand === 'sync') {
      await this.#parts.budgets[this.to].take(this.signal, { partition: this.partition });
    }
    const { claims } = this.#parts;
    const keys = wanted.map((one) => ({ ...one, partition: this.partition }));
    const claimed = await claims.take(this.to, keys, this.#claimWaitMs, this.signal);
    let stillMs = 0;
    const unsettled = (): void => {
      stillMs = this.#parts.settleMs[this.to];
      this.#held.keepAfterRelease(stillMs);
    };
    try {
      const mine = new Set(claimed.ours.filter(({ readMs }) => isFresh(readMs)).map(({ id }) => id));
      const ready = wanted.filter(({ id }) => mine.has(id));
      if (ready.length === 0) {
        if (claimed.ours.length + claimed.changedHands.length > 0) throw new ReadAgain();
        const because = 'a copy of the same record is on its way for another partition';
        throw new SessionOver({ copied: 'no', because, when: 'later', lockTaken: true });
      }
      const traces = ready.map(({ kind, id }) => traceOf(backfillName(this.from, kind), id));
      await this.#ensure(() => this.#held.coverWrite(traces));
      this.signal.throwIfAborted();
      try {
        return await send(writer, { partition: this.partition, epoch: this.epoch }, ready, unsettled);
      } catch (error) {
        if (!nothingWritten(error)) unsettled();
        throw error;
      }
    } finally {
      // Not waited for: whoever wants the record meanwhile only waits a little longer.
      void claims.ended(this.to, claimed, stillMs);
    }
  }
}

function nothingWritten(error: unknown): boolean {
  if (error instanceof ReadAgain || error instanceof SessionOver) return true;
  return error instanceof StoreFailure && error.kind !== 'unavailable';
}
