/**
 * Takes partitions' right to write away in the store that they leave, and gives it back. A partition should be frozen
 * in a store while the other one owns it. That holds whoever dies when: each freeze is noted before its first call, and
 * what the note and the ledger say together, anybody can bring about later. One hand at a time does it, which asks the
 * ledger under its lock.
 */
import type { Redis } from 'ioredis';
import type { StoreFreezes } from '../core/freeze.ts';
import type { Ownership, StoreName } from '../core/ownership.ts';
import { type Ledger, StoreFailure } from '../core/ports.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import type { FreezeCalls, FreezeWay } from '../stores/rest/freeze-calls.ts';
import { CopyLock, type HeldLock } from './copy-lock.ts';
import { FreezeBook, type Frozen } from './freeze-book.ts';

export interface FreezesParts {
  readonly redis: Redis;
  readonly ledger: Pick<Ledger, 'read' | 'readMany' | 'confirmDurable' | 'nowMs'>;
  /** Of the stores whose connector says how. */
  readonly calls: Readonly<Partial<Record<StoreName, FreezeCalls>>>;
  /** Longest that all calls of one way can take, ms. */
  readonly callsMs: number;
  /** How long a call whose outcome is unknown may still take effect, ms. */
  readonly settleMs: Readonly<Record<StoreName, number>>;
  readonly log: Log;
}

const lockWaitMs = 500;
const lookEveryMs = 500;
const lookAtAllEveryMs = 60_000;
const restMs = 1_000;
const longestRestMs = 30_000;

export class Freezes implements StoreFreezes {
  readonly #parts: FreezesParts;
  readonly #book: FreezeBook;
  readonly #lock: CopyLock;
  readonly #ending = new AbortController();
  /** When one that could not be brought about is tried again, and how long it rested. */
  readonly #rests = new Map<string, { readonly untilMs: number; readonly restMs: number }>();
  #looking: Promise<void> | undefined;

  constructor(parts: FreezesParts) {
    this.#parts = parts;
    this.#book = new FreezeBook(parts.redis);
    this.#lock = new CopyLock(parts.redis, parts.callsMs);
  }

  has(store: StoreName): boolean {
    return this.#parts.calls[store] !== undefined;
  }

  freeze(...[store, partition, attempt, signal]: Parameters<StoreFreezes['freeze']>): Promise<void> {
    return this.#inFence('freeze', { store, partition }, attempt, signal);
  }

  unfreeze(...[store, partition, attempt, signal]: Parameters<StoreFreezes['unfreeze']>): Promise<void> {
    return this.#inFence('unfreeze', { store, partition }, attempt, signal);
  }

  /** Begins to bring about, in this process, what nobody else is bringing about. */
  start(): void {
    if (Object.keys(this.#parts.calls).length === 0) return;
    this.#looking ??= this.#look();
  }

  async stop(): Promise<void> {
    this.#ending.abort(new Error('the sync is stopping'));
    await this.#looking;
  }

  async #inFence(way: FreezeWay, frozen: Frozen, attempt: string, signal: AbortSignal): Promise<void> {
    if (!this.has(frozen.store)) return;
    const done = await this.#under(frozen, signal, async (lock) => {
      const { ownership } = await this.#parts.ledger.read(frozen.partition);
      if (ownership.phase !== 'fenced' || ownership.attempt !== attempt) {
        throw new StoreFailure(
          'rejected',
          `the fence of this attempt is gone; nothing was sent to ${frozen.store}`,
        );
      }
      await this.#carryOut(way, frozen, ownership.epoch, lock, signal);
    });
    if (done) return;
    throw new StoreFailure(
      'unavailable',
      `another hand is at work on ${frozen.partition} in ${frozen.store}`,
      {
        retryAfterMs: restMs,
      },
    );
  }

  async #under(
    frozen: Frozen,
    signal: AbortSignal,
    work: (lock: HeldLock) => Promise<void>,
  ): Promise<boolean> {
    const name = `freeze ${frozen.store}\n${frozen.partition}`;
    const lock = await this.#lock.acquire(name, signal, lockWaitMs);
    if (lock === undefined) return false;
    try {
      await work(lock);
      return true;
    } finally {
      await lock.release();
    }
  }

  async #carryOut(
    way: FreezeWay,
    frozen: Frozen,
    epoch: number,
    lock: HeldLock,
    signal: AbortSignal,
  ): Promise<void> {
    const { ledger, calls, settleMs } = this.#parts;
    const { store, partition } = frozen;
    const nowMs = await ledger.nowMs();
    const before = await this.#book.read(frozen);
    const unsureMs = (before?.unsureUntilMs ?? 0) - nowMs;
    // A call of before that comes late must not undo this one.
    if (way === 'freeze' && unsureMs > 0) {
      const detail = `what became of an earlier call to freeze or unfreeze ${partition} in ${store} is not known yet`;
      throw new StoreFailure('unavailable', detail, { retryAfterMs: unsureMs });
    }
    const settles = unsureMs > 0 ? (before?.unsureUntilMs ?? 0) : 0;
    const latestMs = nowMs + this.#parts.callsMs + settleMs[store];
    await this.#book.note(frozen, { thawed: false, unsureUntilMs: Math.max(settles, latestMs) });
    const sentence = `it could not be noted for good that ${partition} is to be frozen in ${store}; nothing was sent`;
    if (way === 'freeze' && !(await ledger.confirmDurable())) throw new StoreFailure('rejected', sentence);
    if (!(await lock.coverWrite([]))) throw new StoreFailure('rejected', `${sentence}: the lock was lost`);
    try {
      await calls[store]?.(way, { partition, epoch }, signal);
      await this.#book.note(frozen, { thawed: way === 'unfreeze', unsureUntilMs: settles });
    } catch (error) {
      const isUnknown = !(error instanceof StoreFailure) || error.kind === 'unavailable';
      const until = isUnknown ? (await ledger.nowMs()) + settleMs[store] : settles;
      // Frozen in part, or not given back: whoever looks next must not take it for done.
      await this.#book.note(frozen, { thawed: false, unsureUntilMs: until });
      throw error;
    }
  }

  async #look(): Promise<void> {
    const { signal } = this.#ending;
    let allAtMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      try {
        if (performance.now() > allAtMs + lookAtAllEveryMs) {
          allAtMs = performance.now();
          for await (const some of this.#book.all()) await this.#settle(some, isWronglyFrozen);
        } else await this.#settle(await this.#book.open());
      } catch (error) {
        if (!signal.aborted) this.#parts.log('warn', 'freeze.look-failed', { detail: sentenceOf(error) });
      }
      await pause(lookEveryMs, signal).catch(() => undefined);
    }
  }

  async #settle(
    all: readonly Frozen[],
    concerns: (ownership: Ownership, store: StoreName) => boolean = () => true,
  ): Promise<void> {
    const due = all.filter((one) => (this.#rests.get(keyOf(one))?.untilMs ?? 0) <= performance.now());
    if (due.length === 0) return;
    const records = await this.#parts.ledger.readMany(due.map(({ partition }) => partition));
    for (const [at, frozen] of due.entries()) {
      const ownership = records[at]?.ownership;
      if (ownership?.phase !== 'open' || !concerns(ownership, frozen.store)) continue;
      try {
        await this.#under(frozen, this.#ending.signal, (lock) => this.#bringAbout(frozen, lock));
        this.#rests.delete(keyOf(frozen));
      } catch (error) {
        if (this.#ending.signal.aborted) return;
        this.#rest(frozen, ownership, error);
      }
    }
  }

  /** Under the lock: nobody freezes or unfreezes it meanwhile, whatever the ledger says next. */
  async #bringAbout(frozen: Frozen, lock: HeldLock): Promise<void> {
    const { ledger } = this.#parts;
    const { ownership } = await ledger.read(frozen.partition);
    const note = await this.#book.read(frozen);
    if (ownership.phase !== 'open' || note === undefined || !this.has(frozen.store)) return;
    const { epoch } = ownership;
    const { signal } = this.#ending;
    const way = shouldBe(ownership, frozen.store);
    const isSettled = (await ledger.nowMs()) >= note.unsureUntilMs;
    const isDone = note.thawed === (way === 'unfreeze');
    // What may still take effect is waited for, and made up for once it cannot any more; who waits to write goes first.
    if (!isSettled && (isDone || way === 'freeze')) return;
    if (!isDone || note.unsureUntilMs > 0) await this.#carryOut(way, frozen, epoch, lock, signal);
    const now = await this.#book.read(frozen);
    if (now === undefined || now.unsureUntilMs > 0) return;
    if (way === 'unfreeze') await this.#book.forget(frozen);
    else await this.#book.settle(frozen);
  }

  #rest(frozen: Frozen, { owner }: Ownership, error: unknown): void {
    const key = keyOf(frozen);
    const last = this.#rests.get(key)?.restMs ?? restMs / 2;
    const next = Math.min(longestRestMs, 2 * last);
    this.#rests.set(key, { untilMs: performance.now() + next, restMs: next });
    const { store, partition } = frozen;
    const event = owner === store ? 'freeze.not-given-back' : 'freeze.not-frozen';
    this.#parts.log('error', event, { store, partition, againInMs: next, detail: sentenceOf(error) });
  }
}

/** A call takes its timeout at most; the lock must outlast all of them. */
const marginMs = 5_000;

export function openFreezes({
  stores,
  ...parts
}: Omit<FreezesParts, 'calls' | 'callsMs'> & {
  readonly stores: Readonly<Record<StoreName, FreezableStore>>;
}): Freezes {
  const calls: Partial<Record<StoreName, FreezeCalls>> = {};
  let callsMs = 0;
  for (const { store, freezes } of Object.values(stores)) {
    if (freezes === undefined) continue;
    calls[store] = freezes.calls;
    callsMs = Math.max(callsMs, freezes.longestMs);
  }
  return new Freezes({ ...parts, calls, callsMs: callsMs + marginMs });
}

interface FreezableStore {
  readonly store: StoreName;
  readonly freezes?: { readonly calls: FreezeCalls; readonly longestMs: number } | undefined;
}

function shouldBe({ owner }: Ownership, store: StoreName): FreezeWay {
  return owner === store ? 'unfreeze' : 'freeze';
}

/** The others are as they should be, unless they are among those that must be looked at anyhow. */
function isWronglyFrozen(ownership: Ownership, store: StoreName): boolean {
  return shouldBe(ownership, store) === 'unfreeze';
}

function keyOf({ store, partition }: Frozen): string {
  return `${store}\n${partition}`;
}
