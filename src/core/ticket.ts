/** What a member says to a write: admitted with a ticket, held, or refused. */
import type { StoreName } from './ownership.ts';

/** A partition as a request touches it: under which epoch. */
export interface PartitionEpoch {
  readonly partition: string;
  readonly epoch: number;
}

/** Held by one admitted write from admission to its end. */
export interface WriteTicket extends PartitionEpoch {
  readonly owner: StoreName;
  /** Number of unbroken lease terms so far; a chunk sent under a later term must be refused. */
  readonly leaseTerm: number;
  /** The other partitions that the write touches; all of them are the owner's. Absent where there are none. */
  readonly also?: readonly PartitionEpoch[];
}

export type HoldReason =
  | 'fenced'
  | 'committed'
  | 'not-yet-durable'
  /** The ledger's active rules are not this process's. */
  | 'rules-not-active'
  /** Nobody knows yet where this new partition lives: it must be claimed, or found to be an old one. */
  | 'unclaimed';

export interface PartitionOwner {
  readonly partition: string;
  readonly owner: StoreName;
}

export type Admission =
  | { readonly verdict: 'admit'; readonly ticket: WriteTicket }
  | { readonly verdict: 'hold'; readonly because: HoldReason }
  /** Partitions of the write that are open live in different stores. `owners`: of those that are open. */
  | { readonly verdict: 'split'; readonly owners: readonly PartitionOwner[] }
  | { readonly verdict: 'refuse'; readonly code: 'lease-lapsed' };

/** Every partition of the request, the one that it is named by first. */
export function touchedBy<Touched extends PartitionEpoch & Pick<WriteTicket, 'also'>>({
  partition,
  epoch,
  also,
}: Touched): readonly PartitionEpoch[] {
  return also === undefined ? [{ partition, epoch }] : [{ partition, epoch }, ...also];
}
