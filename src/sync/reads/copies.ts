/** How far the copies are, as it was last told. Times are Redis's clock, ms. */
import { firstEpoch } from '../../core/ownership.ts';
import type { CopiesNow } from './script.ts';

/** After a partition has moved, the workers hear of it within this time. */
const hearMs = 5_000;
const movedMax = 10_000;

export class Copies {
  #now: CopiesNow | undefined;
  /** Partitions that have ever moved: since when they are known to be where they are. */
  readonly #moved = new Map<string, { readonly epoch: number; readonly sinceMs: number }>();

  learn(now: CopiesNow): void {
    this.#now = now;
  }

  /**
   * Up to when every change of the partition is in its copy. Undefined: nobody can tell. One that has moved must have been
   * compared as a whole since: before, its changes may have been overlooked as somebody else's.
   */
  heldThroughMs(partition: string, epoch: number, nowMs: number): number | undefined {
    const throughMs = this.sureThroughMs(partition);
    if (throughMs === undefined || epoch === firstEpoch) return throughMs;
    const { wholeMs = 0 } = this.#now ?? {};
    return wholeMs > this.#hereSinceMs(partition, epoch, nowMs) + hearMs ? throughMs : undefined;
  }

  /** The same, wherever the partition is. */
  sureThroughMs(partition: string): number | undefined {
    const { seenMs, stuck, owedSinceMs, othersSinceMs = Number.POSITIVE_INFINITY } = this.#now ?? {};
    if (seenMs === undefined || stuck === undefined || stuck === 'many' || stuck.has(partition))
      return undefined;
    return Math.min(seenMs, owedSinceMs?.get(partition) ?? othersSinceMs);
  }

  /** Of all that is copied. */
  allHeldThroughMs(): number | undefined {
    const { seenMs, stuck, owedSinceMs } = this.#now ?? {};
    if (seenMs === undefined || stuck === undefined || stuck === 'many' || stuck.size > 0) return undefined;
    // Oldest first.
    const [oldestMs = seenMs] = owedSinceMs?.values() ?? [];
    return Math.min(seenMs, oldestMs);
  }

  #hereSinceMs(partition: string, epoch: number, nowMs: number): number {
    const known = this.#moved.get(partition);
    if (known?.epoch === epoch) return known.sinceMs;
    if (this.#moved.size >= movedMax) this.#moved.clear();
    this.#moved.set(partition, { epoch, sinceMs: nowMs });
    return nowMs;
  }
}
