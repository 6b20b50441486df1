/** How far a flip is, as operators see it, and the numbers that are worked out for it. */
import { type BlockedPartition, type FlipStatus, hasEnded, type Quantiles } from '../core/flip.ts';
import type { FlipProgress, KeptFlip } from '../ledger/flips.ts';

export function statusOf({ head, progress, failed, order }: KeptFlip): FlipStatus {
  const { committed, aborted, pauseMs, endedAtMs } = progress;
  const failures: BlockedPartition[] = [...failed].map(([partition, why]) => ({ partition, ...why }));
  return {
    id: head.id,
    cohort: head.cohort,
    to: head.to,
    state: progress.state,
    detail: detailOf(progress, order),
    by: head.by,
    reason: head.reason,
    createdAtMs: head.createdAtMs,
    ...(endedAtMs === undefined ? {} : { endedAtMs }),
    total: head.total,
    committed,
    aborted,
    pending: head.total - committed - aborted,
    blocked: [...head.blocked, ...failures],
    ...(pauseMs === undefined ? {} : { pauseMs }),
  };
}

function detailOf(progress: FlipProgress, order: KeptFlip['order']): string {
  if (order === undefined || order.number <= progress.heeded || hasEnded(progress.state))
    return progress.detail;
  return `${order.kind} ordered by ${order.by}: the coordinator has not taken it up yet`;
}

/** Write pauses in whole milliseconds, counted: their quantiles cost little however many there are. */
export class PauseCounts {
  readonly #counts = new Map<number, number>();
  #total = 0;

  add(pauseMs: number): void {
    const wholeMs = Math.round(pauseMs);
    this.#counts.set(wholeMs, (this.#counts.get(wholeMs) ?? 0) + 1);
    this.#total += 1;
  }

  quantiles(): Quantiles | undefined {
    if (this.#total === 0) return undefined;
    const sorted = [...this.#counts].toSorted(([a], [b]) => a - b);
    const at = (share: number): number => {
      let left = Math.ceil(share * this.#total);
      for (const [pauseMs, times] of sorted) {
        left -= times;
        if (left <= 0) return pauseMs;
      }
      return 0;
    };
    return { p50: at(0.5), p99: at(0.99), max: at(1) };
  }
}
