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
