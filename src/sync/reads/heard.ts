/**
 * What a member has heard of writes through all members: which partitions are being written to, and when the last write
 * of each has ended. Times are Redis's clock, ms.
 */
import type { Said } from './script.ts';

/** More ended writes than these are not told apart; then the floor rises. */
const endedMax = 50_000;

export class Heard {
  readonly #openBy = new Map<string, Set<string>>();
  /** Oldest first, by when they were heard of. */
  readonly #endedMs = new Map<string, number>();
  readonly #endedKept: number;
  #floorMs = Number.POSITIVE_INFINITY;

  constructor(endedKept = endedMax) {
    this.#endedKept = endedKept;
  }

  /** Nothing is known of what ended before; what is open, everybody says again. */
  beginAnew(nowMs: number): void {
    this.#openBy.clear();
    this.#endedMs.clear();
    this.#floorMs = nowMs;
  }

  hear({ member, partition, endedMs }: Said): void {
    const open = this.#openBy.get(partition);
    if (endedMs === undefined) this.#openBy.set(partition, (open ?? new Set()).add(member));
    else {
      open?.delete(member);
      if (open?.size === 0) this.#openBy.delete(partition);
      this.ended(partition, endedMs);
    }
  }

  ended(partition: string, endedMs: number): void {
    const latest = Math.max(endedMs, this.#endedMs.get(partition) ?? 0);
    this.#endedMs.delete(partition);
    this.#endedMs.set(partition, latest);
    if (this.#endedMs.size <= this.#endedKept) return;
    for (const [oldest, ms] of this.#endedMs) {
      this.#endedMs.delete(oldest);
      this.#floorMs = Math.max(this.#floorMs, ms);
      return;
    }
  }

  /** Who has left the list had ended and settled all of its writes before. */
  keepOnly(listed: ReadonlySet<string>, nowMs: number): void {
    for (const [partition, members] of this.#openBy) {
      for (const member of members) {
        if (!listed.has(member)) this.hear({ member, partition, endedMs: nowMs });
      }
    }
  }

  /** When the last write ended; 'open' while one has not. A partition that nobody named ended before the floor. */
  lastWrite(partition: string): number | 'open' {
    if (this.#openBy.has(partition)) return 'open';
    return Math.max(this.#floorMs, this.#endedMs.get(partition) ?? 0);
  }

  /** Forgets ended writes that the copies hold: nothing that is asked later depends on them. */
  forget(isCopied: (partition: string, endedMs: number) => boolean): void {
    for (const [partition, ms] of this.#endedMs) if (isCopied(partition, ms)) this.#endedMs.delete(partition);
  }
}
