/**
 * The proxy's side of the rate budget: what users' requests take of a store's limit, and when a store told a user that
 * it is used up. Collected and sent in batches; none of it is in the way of a request.
 */
import type { StoreName } from '../core/ownership.ts';
import type { UserCall, UserCalls } from '../core/ports.ts';
import { retryAfterOf } from '../stores/rest/answers.ts';
import type { RedisBudget } from './budget.ts';

export interface UserCallsSettings {
  /** Of stores with a rate limit. */
  readonly budgets: ReadonlyMap<StoreName, Pick<RedisBudget, 'isPerPartition' | 'noteUsers' | 'pause'>>;
  readonly onFailure: (error: unknown) => void;
}

/** What one store, or one partition of it, has had since the last sending. */
interface Had {
  calls: number;
  waitMs: number;
}

/** Of one store: all its calls under undefined, and each partition's where the store counts them. */
type Collected = Map<string | undefined, Had>;

const collectMs = 50;
const unknownWaitMs = 1_000;

export class BatchingUserCalls implements UserCalls {
  readonly #settings: UserCallsSettings;
  #collected = new Map<StoreName, Collected>();
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();

  constructor(settings: UserCallsSettings) {
    this.#settings = settings;
  }

  sent({ store, partition }: UserCall): void {
    const budget = this.#settings.budgets.get(store);
    if (budget === undefined) return;
    this.#hadBy(store, undefined).calls += 1;
    if (budget.isPerPartition && partition !== undefined) this.#hadBy(store, partition).calls += 1;
    this.#timer ??= setTimeout(() => void this.#send(), collectMs);
  }

  limited({ store, partition }: UserCall, retryAfter: string | undefined): void {
    const budget = this.#settings.budgets.get(store);
    if (budget === undefined) return;
    const waitMs = retryAfterOf(retryAfter, Date.now()) ?? unknownWaitMs;
    const had = this.#hadBy(store, budget.isPerPartition ? partition : undefined);
    had.waitMs = Math.max(had.waitMs, waitMs, 1);
    this.#timer ??= setTimeout(() => void this.#send(), collectMs);
  }

  /** Resolves when everything so far was told. Never rejects. */
  close(): Promise<void> {
    return this.#send();
  }

  #send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sending = this.#sending.then(() => this.#sendAll());
    return this.#sending;
  }

  #hadBy(store: StoreName, partition: string | undefined): Had {
    const collected = this.#collected.get(store) ?? new Map<string | undefined, Had>();
    this.#collected.set(store, collected);
    const had = collected.get(partition) ?? { calls: 0, waitMs: 0 };
    collected.set(partition, had);
    return had;
  }

  async #sendAll(): Promise<void> {
    const collected = this.#collected;
    this.#collected = new Map();
    try {
      for (const [store, all] of collected) {
        const budget = this.#settings.budgets.get(store);
        if (budget === undefined) continue;
        const told = [...all].map(async ([partition, { calls, waitMs }]) => {
          if (waitMs > 0) await budget.pause(waitMs, partition);
          if (calls > 0) await budget.noteUsers(calls, partition);
        });
        await Promise.all(told);
      }
    } catch (error) {
      // Where Redis does not answer, the sync makes no call either.
      this.#settings.onFailure(error);
    }
  }
}
