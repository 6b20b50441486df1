/**
 * The share of a platform's rate limit that the sync may use. Stores ask before every HTTP call; who keeps
 * the count (src/sync/budget.ts does, in Redis, for all processes together) is not their concern.
 */
export interface CallBudget {
  /**
   * Resolves when one call may be made. Throws StoreFailure `rate-limited` at once while the platform has
   * asked everybody to wait or a partition has used up what it may call, and the signal's reason when it ends first. `at-once` is for the rare single call that
   * somebody waits for, such as whether the store answers at all: it is counted, but not against the sync's share.
   */
  take(signal: AbortSignal, call?: BudgetedCall): Promise<void>;
  /**
   * Waits for `calls` calls at once, ahead of their time. A fence must not wait for a rate (gh-ost #314), so
   * what will be read under it is paid for before it begins. All of them concern this partition.
   */
  prepay(calls: number, signal: AbortSignal, partition: string): Promise<void>;
  /**
   * The platform said 429: nobody calls it for this long, ms. A shorter wait never replaces a longer one. Where the
   * platform counts each partition by itself, it said so to the one that is named, and the others go on.
   */
  pause(retryAfterMs: number, partition?: string): Promise<void>;
}

export interface BudgetedCall {
  readonly haste?: 'at-once' | undefined;
  /** The one that the call concerns: platforms can limit the calls of each account. */
  readonly partition?: string | undefined;
}

/** For stores without a configured rate limit: nothing to count, and a 429 concerns only its own call. */
export const unlimited: CallBudget = {
  take: () => Promise.resolve(),
  prepay: () => Promise.resolve(),
  pause: () => Promise.resolve(),
};
