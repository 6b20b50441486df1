/**
 * The proxy's side of the rate budget: what users' requests take of a store's limit, and when a store told a user that
 * it is used up. Collected and sent in batches; none of it is in the way of a request.
 */
import { type StoreName, storeNames } from '../core/ownership.ts';
import type { UserCalls } from '../core/ports.ts';
import { retryAfterOf } from '../stores/rest/answers.ts';
import type { RedisBudget } from './budget.ts';

export interface UserCallsSettings {
  /** Of stores with a rate limit. */
  readonly budgets: ReadonlyMap<StoreName, Pick<RedisBudget, 'noteUsers' | 'pause'>>;
  readonly onFailure: (error: unknown) => void;
}

const collectMs = 50;
const unknownWaitMs = 1_000;

export class BatchingUserCalls implements UserCalls {
  readonly #settings: UserCallsSettings;
  readonly #calls: Record<StoreName, number> = { legacy: 0, app: 0 };
  readonly #waitMs: Record<StoreName, number> = { legacy: 0, app: 0 };
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();

  constructor(settings: UserCallsSettings) {
    this.#settings = settings;
  }

  sent(store: StoreName): void {
    if (!this.#settings.budgets.has(store)) return;
    this.#calls[store] += 1;
    this.#timer ??= setTimeout(() => void this.#send(), collectMs);
  }

  limited(store: StoreName, retryAfter: string | undefined): void {
    if (!this.#settings.budgets.has(store)) return;
    const waitMs = retryAfterOf(retryAfter, Date.now()) ?? unknownWaitMs;
    this.#waitMs[store] = Math.max(this.#waitMs[store], waitMs, 1);
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

  async #sendAll(): Promise<void> {
    for (const store of storeNames) {
      const calls = this.#calls[store];
      const waitMs = this.#waitMs[store];
      this.#calls[store] = 0;
      this.#waitMs[store] = 0;
      const budget = this.#settings.budgets.get(store);
      try {
        if (waitMs > 0) await budget?.pause(waitMs);
        if (calls > 0) await budget?.noteUsers(calls);
      } catch (error) {
        // Where Redis does not answer, the sync makes no call either.
        this.#settings.onFailure(error);
      }
    }
  }
}
