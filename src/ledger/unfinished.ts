/**
 * Moves on what a coordinator left behind: a fence past its deadline reopens at the old owner (I7), a
 * commit is released forward once it is durable. Anyone may do this; the ledger's compare-and-set and its
 * clock decide whether it was right.
 */
import type { Ownership } from '../core/ownership.ts';
import type { Ledger } from '../core/ports.ts';

export async function moveOn(
  ledger: Ledger,
  partition: string,
  ownership: Ownership,
  by: string,
): Promise<void> {
  switch (ownership.phase) {
    case 'open':
      return;
    case 'fenced':
      await ledger.order({ partition, order: { kind: 'expire' }, by, reason: 'the fence deadline passed' });
      return;
    case 'committed': {
      if (!(await ledger.confirmDurable())) return;
      const order = { kind: 'release', attempt: ownership.attempt } as const;
      await ledger.order({ partition, order, by, reason: 'found committed, not released' });
      return;
    }
  }
}

/** How long a commit found in a snapshot, whose age is unknown, is left to its coordinator, ms. */
const graceMs = 1_000;
const againAfterMs = 500;
const dueAtOnce = 1_000;

/** The partitions that a member sees fenced or committed, and from when on it moves them on. */
export class Unfinished {
  readonly #ledger: Ledger;
  readonly #by: () => string;
  readonly #partitions = new Map<string, { readonly ownership: Ownership; readonly fromMs: number }>();

  constructor(ledger: Ledger, by: () => string) {
    this.#ledger = ledger;
    this.#by = by;
  }

  /** `atMs`: when it became so, by Redis's clock; 0 where unknown. Redis's clock has the last word either way. */
  note(partition: string, ownership: Ownership, atMs: number): void {
    if (ownership.phase === 'open') {
      this.#partitions.delete(partition);
      return;
    }
    const lengthMs = ownership.phase === 'fenced' && atMs > 0 ? ownership.deadlineMs - atMs : graceMs;
    this.#partitions.set(partition, { ownership, fromMs: performance.now() + lengthMs });
  }

  clear(): void {
    this.#partitions.clear();
  }

  /** All that are due at once: a batch that was fenced together is waited for by as many users. */
  async moveAllOn(): Promise<void> {
    const nowMs = performance.now();
    const due = [...this.#partitions].filter(([, { fromMs }]) => nowMs >= fromMs).slice(0, dueAtOnce);
    const moves = due.map(([partition, { ownership }]) => {
      this.#partitions.set(partition, { ownership, fromMs: nowMs + againAfterMs });
      return moveOn(this.#ledger, partition, ownership, this.#by());
    });
    await Promise.all(moves);
  }
}
