/** What the sync keeps in Redis. All of it can be lost: it is rebuilt from the ledger and the stores. */
import { keyPrefix } from '../ledger/connection.ts';
import type { StoreName } from '../core/ownership.ts';

export const syncKeys = {
  /** Records rung and not yet looked at, by time of the ring. */
  dirty: `${keyPrefix}:sync:dirty`,
  /** Where the polls are, and when one last reached the end. */
  progress: `${keyPrefix}:sync:progress`,
  deadLetters: `${keyPrefix}:sync:dead-letters`,
  deadLetterOrder: `${keyPrefix}:sync:dead-letters:order`,
  deadLetterCounts: `${keyPrefix}:sync:dead-letters:counts`,
} as const;

export function budgetKey(store: StoreName): string {
  return `${keyPrefix}:budget:${store}`;
}

export function copyLockKey(partition: string): string {
  return `${keyPrefix}:copying:${partition}`;
}
