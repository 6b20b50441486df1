/**
 * A partition's right to write, taken away in a store by that store's own means: so that nobody writes there around
 * the proxy once the partition has left. What was frozen is noted before, and given back by whoever finds the note.
 */
import type { StoreName } from './ownership.ts';

export interface StoreFreezes {
  /** The connector says how. */
  has(store: StoreName): boolean;
  /**
   * In the fence of `attempt`, out of `store`. Throws StoreFailure where it was not done, or nobody knows; then, too,
   * it is given back by itself once the partition is open in the store.
   */
  freeze(store: StoreName, partition: string, attempt: string, signal: AbortSignal): Promise<void>;
  /** In the same fence: gives it back before the partition is opened in `store`. Throws as `freeze` does. */
  unfreeze(store: StoreName, partition: string, attempt: string, signal: AbortSignal): Promise<void>;
}
