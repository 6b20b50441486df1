/**
 * Tells a store that fails from a record that does. When job after job fails alike, whatever record it is for, the
 * store is to blame: copying halts with the reason, nothing becomes a dead letter, and the store is tried again.
 */
import type { StoreName } from '../core/ownership.ts';
import { StoreFailure, type StoreReader } from '../core/ports.ts';
import { type Log, sentenceOf } from '../log.ts';
import { type FailingKind, type FailingStores, isFailingKind } from './failing-stores.ts';
import type { Halts } from './halts.ts';

export interface BreakerParts {
  readonly stores: FailingStores;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly log: Log;
  /** Something has changed that everybody here should know at once. */
  readonly onChange: () => Promise<void>;
}

/**
 * So many different records must fail alike, with at least four failures for each success. A store that refuses single
 * records is nothing special, so of those it takes more.
 */
const recordsAlike: Readonly<Record<FailingKind, number>> = {
  denied: 1,
  unavailable: 5,
  'bad-answer': 10,
  rejected: 20,
};
const failuresPerSuccess = 4;

export class Breaker {
  readonly #parts: BreakerParts;
  /** Records that failed, by store and kind of failure. */
  readonly #streaks = new Map<string, Set<string>>();

  constructor(parts: BreakerParts) {
    this.#parts = parts;
  }

  /** A job failed. True: the store is to blame, so it is no attempt of the record's. */
  async failed(record: string, failure: StoreFailure, halts: Halts): Promise<boolean> {
    const { store, kind } = failure;
    if (store === undefined || !isFailingKind(kind)) return false;
    if (halts.isSuspect(store, kind)) {
      await this.#open(store, kind, failure.message);
      return true;
    }
    const name = `${store} ${kind}`;
    const streak = this.#streaks.get(name) ?? new Set();
    this.#streaks.set(name, streak.add(record));
    if (streak.size < recordsAlike[kind]) return false;
    await this.#open(store, kind, failure.message);
    return true;
  }

  /** Reading many records failed, or the last try for one did. True: the store does not answer its cheapest read either. */
  async doubt({ store, kind, message }: StoreFailure, signal: AbortSignal): Promise<boolean> {
    if (store === undefined || !isFailingKind(kind) || kind === 'rejected') return false;
    if (kind !== 'denied' && (await this.#probe(store, signal)) === undefined) return false;
    await this.#open(store, kind, message);
    return true;
  }

  /** Work that asked both stores has succeeded; only a job can have written. */
  async succeeded(halts: Halts, by: 'poll' | 'job'): Promise<void> {
    if (by === 'job') {
      for (const streak of this.#streaks.values()) {
        for (const record of [...streak].slice(0, failuresPerSuccess)) streak.delete(record);
      }
    }
    for (const { store, kind } of halts.failing.filter(({ phase }) => phase === 'trial')) {
      // Reading proves nothing about a store that refuses what is written.
      if (by === 'poll' && kind === 'rejected') continue;
      if (!(await this.#parts.stores.recovered(store))) continue;
      this.#parts.log('info', 'sync.store-recovered', { store });
      await this.#parts.onChange();
    }
  }

  /** Tries what is due; one process of all does. */
  async tryAgain(halts: Halts, signal: AbortSignal): Promise<void> {
    const { stores, onChange } = this.#parts;
    for (const { store, kind } of halts.failing.filter(({ phase }) => phase === 'open')) {
      if (!(await stores.claim(store))) continue;
      const failure = kind === 'rejected' ? undefined : await this.#probe(store, signal);
      if (signal.aborted) return;
      if (failure === undefined) await stores.beginTrial(store);
      else await stores.stillFailing(store, kind, sentenceOf(failure));
      await onChange();
    }
  }

  async #open(store: StoreName, kind: FailingKind, detail: string): Promise<void> {
    const moved = await this.#parts.stores.failed(store, kind, detail);
    this.#streaks.clear();
    if (moved?.changed !== true) return;
    const { sinceMs, nextTryMs, changedMs } = moved.now;
    // Each failure is told once, and so is its end; a trial that fails belongs to the failure that it was to end.
    if (sinceMs === changedMs) {
      const event = kind === 'denied' ? 'sync.denied' : 'sync.store-failing';
      const pausedMs = nextTryMs - changedMs;
      this.#parts.log('error', event, { store, failure: kind, detail, pausedMs });
    }
    await this.#parts.onChange();
  }

  async #probe(store: StoreName, signal: AbortSignal): Promise<unknown> {
    try {
      await this.#parts.readers[store].probe(signal);
      return undefined;
    } catch (error) {
      // It lives where it says that it is asked too often.
      return error instanceof StoreFailure && error.kind === 'rate-limited' ? undefined : error;
    }
  }
}
