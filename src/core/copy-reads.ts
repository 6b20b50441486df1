/**
 * Reads that a copy may answer: how the proxy asks, and what it says of its writes so that no member reads a copy that
 * lacks them. The sync implements it; every call is in memory and synchronous.
 */
import type { WriteOutcome } from './member.ts';
import type { StoreName } from './ownership.ts';
import type { WriteTicket } from './ticket.ts';

export interface CopyReads {
  /** Stores that copies are kept in; what another one holds of a partition that it does not own only grows older. */
  readonly targets: readonly StoreName[];
  /** A write was admitted; nothing of it has been sent yet. */
  begin(ticket: WriteTicket): void;
  end(ticket: WriteTicket, outcome: WriteOutcome): void;
  /**
   * Resolves, within two seconds whatever happens, when every member knows of the write, or knows that it does not know.
   * Before that its client must not hear that it succeeded. Undefined: that is so already.
   */
  mayAnswer(ticket: WriteTicket): Promise<void> | undefined;
  /** Of a partition that is open, under the epoch that the caller knows. */
  look(partition: string, epoch: number): CopyState;
  /** The lag of everything that is copied, ms. Undefined: nobody can tell. */
  lagOfAllMs(): number | undefined;
}

export interface CopyState {
  /** Every change that is older than this is in the copy, ms. Undefined: nobody can tell. */
  readonly lagMs: number | undefined;
  /** So is every write that any member has answered. */
  readonly holdsWrites: boolean;
}

/** What a route says about its reads. */
export interface ReadRule {
  readonly from: 'copy' | 'app';
  /** Infinity where there is no bound. */
  readonly maxStalenessMs: number;
  /** What is shown is that of the partitions that the route itself names, and not perhaps of any. */
  readonly namesPartitions: boolean;
}
