/**
 * The batch form of apply.ts, for a first copy, which goes to the app alone: records of many partitions under one session. The same holds for
 * each of them (I3): its copy lock is proven to be held and the ledger is asked right before every call, and whose
 * partition has moved is left out of the call.
 */
import { otherStore, type StoreName } from '../core/ownership.ts';
import {
  type BulkLimits,
  type CopyWriter,
  type LedgerRecord,
  StoreFailure,
  type StampedCopy,
} from '../core/ports.ts';
import { type CopyForm, decideCopy } from '../core/records.ts';
import type { CopyParts } from './apply.ts';
import type { CopyLocks, HeldLocks, LockAsk } from './copy-locks.ts';
import { isFresh } from './record-claims.ts';

export interface BatchParts extends CopyParts {
  readonly locks: CopyLocks;
}

/** One record to be written, in the shape of the target. */
export interface BatchEntry {
  readonly partition: string;
  readonly form: CopyForm;
}

/** For each partition that was asked for: may it be copied under this session? */
export type Grant = 'yes' | 'later' | 'never';

export interface BatchAsk extends LockAsk {
  readonly owner: StoreName;
}

/**
 * Runs `work` with the copy locks of the partitions that are free and that `owner` owns. When the promise
 * settles, no write of the session is under way.
 */
export async function withCopySessions<T>(
  parts: BatchParts,
  partitions: readonly string[],
  ask: BatchAsk,
  signal: AbortSignal,
  work: (session: BatchSession) => Promise<T>,
): Promise<T> {
  const held = await parts.locks.acquire(partitions, ask, signal);
  try {
    return await work(await BatchSession.open(parts, held, partitions, ask, signal));
  } finally {
    await held.release();
  }
}

interface Asked {
  readonly grant: Grant;
  readonly epoch: number;
}

export class BatchSession {
  readonly to: StoreName;
  readonly signal: AbortSignal;
  readonly #parts: BatchParts;
  readonly #held: HeldLocks;
  readonly #owner: StoreName;
  readonly #writer: CopyWriter | undefined;
  readonly #grants = new Map<string, Asked>();
  readonly #openedMs = performance.now();

  private constructor(parts: BatchParts, held: HeldLocks, owner: StoreName, signal: AbortSignal) {
    this.to = otherStore(owner);
    this.signal = signal;
    this.#parts = parts;
    this.#held = held;
    this.#owner = owner;
    this.#writer = parts.back?.store === this.to ? undefined : parts.writers.get(this.to);
  }

  static async open(
    parts: BatchParts,
    held: HeldLocks,
    partitions: readonly string[],
    { owner }: BatchAsk,
    signal: AbortSignal,
  ): Promise<BatchSession> {
    const session = new BatchSession(parts, held, owner, signal);
    for (const [partition, asked] of await session.#ask(partitions)) {
      const taken = asked.grant === 'yes' && !held.partitions.has(partition);
      session.#grants.set(partition, taken ? { ...asked, grant: 'later' } : asked);
    }
    return session;
  }

  grant(partition: string): Grant {
    return this.#grants.get(partition)?.grant ?? 'later';
  }

  bulk(kind: string): BulkLimits | undefined {
    return this.#writer?.bulk(kind);
  }

  /**
   * Writes entries of one kind in one call, as many as `bulk` allows; without `bulk`, one entry. Returns the ids that
   * were certainly written. Throws StoreFailure where the target failed as a whole, and TakenOver; what the target
   * refused is only not among the ids.
   */
  async put(kind: string, entries: readonly BatchEntry[]): Promise<ReadonlySet<string>> {
    const writer = this.#writer;
    if (writer === undefined) throw new Error(`there is no writer for ${this.to}`);
    const { budgets, claims } = this.#parts;
    await budgets[this.to].take(this.signal);
    const keys = entries.map(({ partition, form: { id } }) => ({ partition, kind, id }));
    const claimed = await claims.take(this.to, keys, 0, this.signal);
    const hold = { stillMs: 0 };
    try {
      // Which records the target holds was asked in this session; what changed hands since then is looked at singly.
      if (!isFresh(this.#openedMs)) return new Set();
      const ours = new Set(claimed.ours.map(({ id }) => id));
      return await this.#putClaimed(
        writer,
        kind,
        entries.filter(({ form }) => ours.has(form.id)),
        hold,
      );
    } finally {
      void claims.ended(this.to, claimed, hold.stillMs);
    }
  }

  async #putClaimed(
    writer: CopyWriter,
    kind: string,
    entries: readonly BatchEntry[],
    hold: { stillMs: number },
  ): Promise<ReadonlySet<string>> {
    const copies = await this.#stillMayCopy(entries);
    this.signal.throwIfAborted();
    if (copies.length === 0) return new Set();
    const partitions = [...new Set(copies.map(({ stamp }) => stamp.partition))];
    const keepLocks = (): void => {
      hold.stillMs = this.#parts.settleMs[this.to];
      this.#held.keepAfterRelease(partitions, hold.stillMs);
    };
    try {
      const { written, mayStillHappen } = await send(writer, kind, copies, this.signal);
      if (mayStillHappen) keepLocks();
      return written;
    } catch (error) {
      if (!(error instanceof StoreFailure) || error.kind === 'unavailable') keepLocks();
      if (error instanceof StoreFailure && (error.kind === 'rejected' || error.kind === 'refused-by-guard')) {
        return new Set();
      }
      throw error;
    }
  }

  /** Both asked at once, as a single session does: each held at some time after this call. */
  async #stillMayCopy(entries: readonly BatchEntry[]): Promise<readonly StampedCopy[]> {
    const partitions = [...new Set(entries.map(({ partition }) => partition))];
    const [covered, now] = await Promise.all([this.#held.coverWrite(partitions), this.#ask(partitions)]);
    return entries.flatMap(({ partition, form }): StampedCopy[] => {
      const before = this.#grants.get(partition);
      const asked = now.get(partition);
      const same = before?.grant === 'yes' && asked?.grant === 'yes' && asked.epoch === before.epoch;
      if (!same || !covered.has(partition)) return [];
      return [{ copy: form, stamp: { partition, epoch: asked.epoch } }];
    });
  }

  async #ask(partitions: readonly string[]): Promise<ReadonlyMap<string, Asked>> {
    // The second question stands behind the first, so that no loss can come between them unseen.
    const [records, lost] = await Promise.all([this.#parts.ledger.readMany(partitions), this.#parts.lost()]);
    return new Map(
      partitions.map((partition, at) => [partition, this.#judge(records[at], lost !== undefined)]),
    );
  }

  #judge(record: LedgerRecord | undefined, isLost: boolean): Asked {
    if (record === undefined || isLost) return { grant: 'later', epoch: 0 };
    const { ownership } = record;
    const writable = [...this.#parts.writers.keys()].filter((store) => store !== this.#parts.back?.store);
    const decision = decideCopy(ownership, { hand: 'sync' }, writable);
    const { epoch } = ownership;
    if (decision.copy === 'yes') return { grant: decision.from === this.#owner ? 'yes' : 'never', epoch };
    return { grant: ownership.phase === 'open' ? 'never' : 'later', epoch };
  }
}

async function send(
  writer: CopyWriter,
  kind: string,
  copies: readonly StampedCopy[],
  signal: AbortSignal,
): Promise<{ readonly written: ReadonlySet<string>; readonly mayStillHappen: boolean }> {
  const [only] = copies;
  if (only !== undefined && writer.bulk(kind) === undefined) {
    await writer.put(only.copy, only.stamp, false, signal);
    return { written: new Set([only.copy.id]), mayStillHappen: false };
  }
  return writer.putMany(kind, copies, signal);
}
