/**
 * The only place that writes a copy (I3). Whoever wants to copy opens a session on the partition: it holds
 * the partition's copy lock, and takes its direction from the ledger. Right before every write the lock is
 * proven to be held and the ledger is asked again; when anything has moved, nothing is written.
 */
import type { StoreName } from '../core/ownership.ts';
import { type CopyStamp, StoreFailure, type StoreReader, type WriteCondition } from '../core/ports.ts';
import type { CopyForm, CopyHand, StoreRecord } from '../core/records.ts';
import type { CallBudget } from '../stores/budget.ts';
import type { Brakes, HeldBack } from './brakes.ts';
import type { BackCopy, CopyBack } from './copy-back.ts';
import { differingFields, isForeign, revived, wantedCopy } from './copy-form.ts';
import type { CopyLock, HeldLock } from './copy-lock.ts';
import { backfillName } from './keys.ts';
import { traceOf } from './known-copies.ts';
import { settleLacked } from './lacked-fields.ts';
import {
  type CopyRefused,
  type Direction,
  type DirectionParts,
  mayCopy,
  type SessionResult,
} from './may-copy.ts';
import type { Snapshot } from './snapshots.ts';
import type { Writers } from './writers.ts';

export interface CopyParts extends DirectionParts {
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  /** For copies under a fence, which were paid for before it began. */
  readonly prepaidReaders: Readonly<Record<StoreName, StoreReader>>;
  /** Only where copies go back to the store that users have left. */
  readonly back?: CopyBack | undefined;
  readonly budgets: Readonly<Record<StoreName, CallBudget>>;
  readonly lock: CopyLock;
  readonly brakes: Pick<Brakes, 'mayRemove' | 'mayRemoveAll' | 'onAll'>;
  /** How long a copy whose outcome is unknown may still take effect, ms. */
  readonly settleMs: Readonly<Record<StoreName, number>>;
  /** The store puts so many different values into a field by itself that full passes cannot compare it. */
  readonly onUncompared?: (kind: string, field: string) => void;
}

/** `held-back`: the brake does not let the delete through; `by-pass`: only a pass over the partition can tell. */
export type Applied = 'written' | 'removed' | 'same' | 'held-back' | 'by-pass';

/** Thrown inside a session and turned into a refusal at its edge. */
class SessionOver extends Error {
  readonly refused: CopyRefused;
  constructor(refused: CopyRefused) {
    super(refused.because);
    this.refused = refused;
  }
}

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
    const session = new CopySession(parts, held, partition, hand, granted.result, signal);
    return { copied: 'yes', result: await work(session) };
  } catch (error) {
    if (error instanceof SessionOver) return error.refused;
    throw error;
  } finally {
    await held.release();
  }
}

/** What stands on both sides under one id, as read inside a session. */
export interface RecordPair {
  readonly id: string;
  readonly ownerRecord: StoreRecord | undefined;
  readonly copyRecord: StoreRecord | undefined;
}

type Needed =
  | { readonly need: 'nothing' }
  | { readonly need: 'removal' }
  /** `onlyLacked`: the copy has fields that the owner's record has not, and else it is equal. */
  | { readonly need: 'put'; readonly form: CopyForm; readonly exists: boolean; readonly onlyLacked: boolean };

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
  #snapshot: Promise<Snapshot | undefined> | undefined;
  /** Deletes that the brake has let through together. */
  #removable: ReadonlySet<string> = new Set();

  constructor(
    parts: CopyParts,
    held: HeldLock,
    partition: string,
    hand: CopyHand,
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
  }

  /**
   * Makes the copy of one record equal to the owner's. Both must have been read inside this session, and
   * an absence must have been told by `get`. Throws StoreFailure as the writer does; after `unavailable`
   * the outcome is unknown, and only reading again tells. Throws StrayInTheWay as CopyBack does.
   */
  async apply(
    key: { readonly kind: string; readonly id: string },
    ownerRecord: StoreRecord | undefined,
    copyRecord: StoreRecord | undefined,
  ): Promise<Applied> {
    const { back } = this.#parts;
    if (back?.store === this.to) return this.#applyBack(back, key, ownerRecord);
    const needed = this.#neededFor(key, ownerRecord, copyRecord);
    return (await this.#heldBack(needed, key, ownerRecord)) ?? this.#carryOut(needed, key);
  }

  /** As apply; what the copy holds is read once more, because a list can be late and shows no ETag. */
  async #applyBack(
    back: CopyBack,
    key: { readonly kind: string; readonly id: string },
    ownerRecord: StoreRecord | undefined,
  ): Promise<Applied> {
    const { partition, epoch, owner: to, copy: from, signal } = this;
    const held = await from.get(key.kind, { id: key.id, partition }, signal);
    const sides = { from, to };
    const snapshot = (): Promise<Snapshot | undefined> => (this.#snapshot ??= back.snapshotOf(partition));
    const copy: BackCopy = {
      ...{ key: { partition, ...key }, epoch, sides, ownerRecord, snapshot },
    };
    const needed = this.#neededFor(key, ownerRecord, held);
    if (needed.need === 'nothing') await back.same(copy, held);
    const heldBack = await this.#heldBack(needed, key, ownerRecord);
    if (needed.need === 'nothing' || heldBack !== undefined) return heldBack ?? 'same';
    const onlyIf = await back.begin(copy, held);
    try {
      await this.#carryOut(needed, key, onlyIf);
    } catch (error) {
      if (nothingWritten(error)) await back.unchanged(copy, held);
      throw error;
    }
    const found = await back.readBack(copy, signal);
    if (found !== 'unread') this.#mustBeCopied(key, ownerRecord, found);
    return needed.need === 'removal' ? 'removed' : 'written';
  }

  /** What a store holds differently than it was written would be written to it with every pass. */
  #mustBeCopied(
    key: { readonly kind: string; readonly id: string },
    ownerRecord: StoreRecord | undefined,
    found: StoreRecord | undefined,
  ): void {
    if (this.#neededFor(key, ownerRecord, found).need === 'nothing') return;
    const { kind, id } = key;
    throw new StoreFailure(
      'rejected',
      `${this.to} holds ${kind} ${id} differently than it was written; compare both stores ("verify --values")`,
    );
  }

  /** Undefined where the copy may be made, or where there is none to make. */
  async #heldBack(
    needed: Needed,
    key: { readonly kind: string; readonly id: string },
    ownerRecord: StoreRecord | undefined,
  ): Promise<Applied | undefined> {
    if (needed.need !== 'removal') return undefined;
    const isGone = ownerRecord === undefined || ownerRecord.deleted;
    const answer = isGone ? await this.#mayRemove(key) : 'yes';
    if (answer === 'yes') return undefined;
    return answer === 'no' ? 'held-back' : 'by-pass';
  }

  async #carryOut(
    needed: Needed,
    key: { readonly kind: string; readonly id: string },
    onlyIf?: WriteCondition,
  ): Promise<Applied> {
    const { signal } = this;
    if (needed.need === 'nothing') return 'same';
    if (needed.need === 'removal') {
      await this.#write([key], (writer, stamp) => writer.remove(key, stamp, signal, onlyIf));
      return 'removed';
    }
    const { form, exists, onlyLacked } = needed;
    const put = (copy: CopyForm, isThere: boolean): Promise<void> =>
      this.#write([key], (writer, stamp) => writer.put(copy, stamp, isThere, signal, onlyIf));
    await put(form, exists);
    if (!onlyLacked || onlyIf !== undefined) return 'written';
    const { owner, copy, partition } = this;
    const { kind, id } = key;
    await settleLacked(
      {
        owner,
        read: () => copy.get(kind, { id, partition }, signal),
        put: (cleared) => put(cleared, true),
        onUncompared: (field) => this.#parts.onUncompared?.(kind, field),
      },
      form,
    );
    return 'written';
  }

  /**
   * Asks once for all deletes of a pass, before any of them is applied; `held` names what the copy holds. Returns
   * what holds them back: then none of them may be applied.
   */
  async askToRemove(
    keys: readonly { readonly kind: string; readonly id: string }[],
    held: ReadonlyMap<string, unknown>,
  ): Promise<HeldBack | undefined> {
    const { partition } = this;
    const deletes = keys.map(({ kind, id }) => ({ partition, kind, id }));
    const { brakes } = this.#parts;
    const [brake] = await Promise.all([
      brakes.mayRemoveAll(partition, deletes, held.size),
      // For this, too, a fence has no time.
      this.#hand.hand === 'sync' ? brakes.onAll.seen(held.keys()) : undefined,
    ]);
    if (brake === undefined) this.#removable = new Set(keys.map(({ kind, id }) => `${kind}\n${id}`));
    return brake;
  }

  async #mayRemove({ kind, id }: { readonly kind: string; readonly id: string }) {
    if (this.#removable.has(`${kind}\n${id}`)) return 'yes';
    return this.#parts.brakes.mayRemove({ partition: this.partition, kind, id });
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
    const forms: CopyForm[] = [];
    for (const { id, ownerRecord, copyRecord } of pairs) {
      if (isForeign(copyRecord, this.partition)) continue;
      const needed = this.#neededFor({ kind, id }, ownerRecord, copyRecord);
      // What the store makes of a field that is left out, is looked at record by record.
      if (needed.need === 'put' && !needed.onlyLacked) forms.push(needed.form);
    }
    if (forms.length === 0) return new Set();
    try {
      return await this.#write(forms, async (writer, stamp) => {
        const copies = forms.map((copy) => ({ copy, stamp }));
        const { written, mayStillHappen } = await writer.putMany(kind, copies, this.signal);
        if (mayStillHappen) this.#held.keepAfterRelease(this.#parts.settleMs[this.to]);
        return written;
      });
    } catch (error) {
      // It may have been one record of many, or too many of them.
      if (error instanceof StoreFailure && error.kind === 'rejected') return new Set();
      throw error;
    }
  }

  #neededFor(
    key: { readonly kind: string; readonly id: string },
    ownerRecord: StoreRecord | undefined,
    copyRecord: StoreRecord | undefined,
  ): Needed {
    const wanted = wantedCopy(ownerRecord, this.partition, this.owner, this.copy);
    const foreign = isForeign(copyRecord, this.partition);
    if (wanted === undefined) {
      const gone = copyRecord === undefined || copyRecord.deleted || foreign;
      return gone ? { need: 'nothing' } : { need: 'removal' };
    }
    if (foreign) {
      throw new StoreFailure(
        'rejected',
        // Without the other one's name: nobody would find it here when that one is erased.
        `${this.to} holds ${key.kind} ${key.id} for another partition, ${this.from} for ${this.partition}; ` +
          `it was left alone: it must leave the other partition first (${this.to} shows which)`,
      );
    }
    if (copyRecord === undefined) return { need: 'put', form: wanted, exists: false, onlyLacked: false };
    if (copyRecord.deleted) {
      const form = revived(wanted, this.copy.shape(key.kind));
      return { need: 'put', form, exists: true, onlyLacked: false };
    }
    const fields = differingFields(wanted, copyRecord, this.owner, this.copy);
    if (fields.length === 0) return { need: 'nothing' };
    const onlyLacked = fields.every(({ field }) => wanted.lacks?.some((one) => one.field === field));
    return { need: 'put', form: wanted, exists: true, onlyLacked };
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

  async #write<T>(
    written: readonly { readonly kind: string; readonly id: string }[],
    send: (writer: NonNullable<ReturnType<Writers['get']>>, stamp: CopyStamp) => Promise<T>,
  ): Promise<T> {
    const writer = this.#parts.writers.get(this.to);
    if (writer === undefined) throw new Error(`there is no writer for ${this.to}`);
    if (this.#hand.hand === 'sync') await this.#parts.budgets[this.to].take(this.signal);
    const traces = written.map(({ kind, id }) => traceOf(backfillName(this.from, kind), id));
    await this.#ensure(() => this.#held.coverWrite(traces));
    this.signal.throwIfAborted();
    try {
      return await send(writer, { partition: this.partition, epoch: this.epoch });
    } catch (error) {
      if (!nothingWritten(error)) this.#held.keepAfterRelease(this.#parts.settleMs[this.to]);
      throw error;
    }
  }
}

function nothingWritten(error: unknown): boolean {
  return error instanceof StoreFailure && error.kind !== 'unavailable';
}
