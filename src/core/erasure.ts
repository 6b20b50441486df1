/**
 * Erasures: all records of one partition removed from both stores, and from what onewriter keeps of them. The one
 * exception to I3: under the fence of an erasure, and by nobody else, records are deleted in the owner as in its copy.
 */
import type { Ownership, StoreName } from './ownership.ts';

export type ErasureState = 'running' | 'done' | 'failed';
export type ErasureStep = 'erasing' | 'looking-again' | 'ended';

export interface ErasureRecords {
  readonly store: StoreName;
  readonly kind: string;
  readonly records: number;
}

export interface ErasurePlace {
  /** What of onewriter's own memory, for example `dead-letters`. */
  readonly place: string;
  readonly entries: number;
}

export interface ErasureOrder {
  readonly by: string;
  readonly reason: string;
  readonly atMs: number;
}

export interface Erasure {
  readonly id: string;
  /** Never the name: `sha256:` and the hash of the id, a line feed, and the name. */
  readonly partition: string;
  readonly state: ErasureState;
  readonly step: ErasureStep;
  /** Who ordered it, and who ordered that it be gone on with. */
  readonly orders: readonly ErasureOrder[];
  /** Fences taken so far. */
  readonly turns: number;
  /** Records deleted so far; one that was put back and deleted again counts once. */
  readonly removed: readonly ErasureRecords[];
  readonly forgotten: readonly ErasurePlace[];
  /** Why it does not get on, or has failed. */
  readonly trouble?: { readonly code: string; readonly detail: string } | undefined;
  readonly endedAtMs?: number | undefined;
  readonly receipt?: ErasureReceipt | undefined;
}

/** Handed to whoever asked for the erasure. */
export interface ErasureReceipt {
  readonly erasure: string;
  readonly partition: string;
  readonly orders: readonly { readonly by: string; readonly reason: string; readonly at: string }[];
  readonly endedAt: string;
  readonly removed: readonly ErasureRecords[];
  readonly forgotten: readonly ErasurePlace[];
  /** What still names the partition, and why. */
  readonly kept: readonly { readonly place: string; readonly what: string }[];
  readonly warnings: readonly string[];
  /** Hex, of the other members as JSON with sorted names and without white space. */
  readonly sha256: string;
}

/** What both stores show of a partition. */
export interface ErasureLook {
  readonly records: readonly ErasureRecords[];
  /** Shown as deleted; what the store keeps of them is its own matter. */
  readonly tombstones: readonly ErasureRecords[];
  /** In lists, but without an id or a partition. */
  readonly unreadable: readonly ErasureRecords[];
  /** Records of kinds for which the connector has no `delete`. */
  readonly undeletable: readonly ErasureRecords[];
  /** Stores that cannot be looked at: they have no connector with records. */
  readonly unseen: readonly StoreName[];
  readonly tookMs: number;
}

export interface ErasedRecord {
  readonly store: StoreName;
  readonly kind: string;
  readonly id: string;
}

export interface EraseRequest {
  readonly partition: string;
  /** Of the fence under which this happens. */
  readonly attempt: string;
  /** Hears of records before they are deleted: afterwards nothing can list them any more. */
  readonly note: (records: readonly ErasedRecord[]) => Promise<void>;
}

/** The side of it that talks to the stores. Failures of stores are thrown as StoreFailure. */
export interface PartitionEraser {
  look(partition: string, signal: AbortSignal): Promise<ErasureLook>;
  /** Deletes until both stores show nothing. When it settles, no call of it is under way. */
  erase(request: EraseRequest, signal: AbortSignal): Promise<ErasureLook>;
}

export interface ErasureSubject {
  readonly partition: string;
  /** Everything that was deleted of it. */
  readonly records: readonly ErasedRecord[];
}

/** What some part of onewriter keeps of partitions beside the stores. */
export interface PartitionMemory {
  /** Places without entries can be left out. */
  count(subject: ErasureSubject): Promise<readonly ErasurePlace[]>;
  /** Records are about to be deleted: what would take that for somebody else's doing must not be there any more. */
  disregard?(partition: string): Promise<void>;
  /** Under the fence: all of it. */
  forget(subject: ErasureSubject): Promise<void>;
  /**
   * After the partition was reopened: what was under way and has come since, but nothing that a user can have made
   * meanwhile. Answers what it took out.
   */
  sweep(subject: ErasureSubject): Promise<readonly ErasurePlace[]>;
}

export interface ErasurePlan {
  readonly look: ErasureLook;
  readonly forgets: readonly ErasurePlace[];
}

export interface ErasureRefusal {
  readonly refused: 'no-such-partition' | 'ledger-regressed';
  readonly detail: string;
}

export interface ErasureDesk {
  /** Counts what would be removed; changes nothing. */
  plan(partition: string): Promise<ErasurePlan | ErasureRefusal>;
  /** Where one is under way it is that one; one that has failed is gone on with. */
  start(partition: string, by: string, reason: string): Promise<Erasure | ErasureRefusal>;
  get(id: string): Promise<Erasure | undefined>;
  /** Running, or failed and not gone on with. */
  unfinished(): Promise<readonly Erasure[]>;
  /** Newest first; of one partition where it is named. */
  list(partition?: string): Promise<readonly Erasure[]>;
}

const attemptPrefix = 'erase-';

/** Attempt ids of erasures can be told from those of handoffs, wherever the ledger is read. */
export function erasureAttempt(random: string): string {
  return `${attemptPrefix}${random}`;
}

/** While this holds, nothing of the partition is worth copying. */
export function isBeingErased(ownership: Ownership | undefined): boolean {
  return ownership?.phase === 'fenced' && ownership.attempt.startsWith(attemptPrefix);
}

export type EraseDecision =
  { readonly erase: 'yes'; readonly epoch: number } | { readonly erase: 'no'; readonly because: string };

/** May a record be deleted now, in whichever store? Asked at the moment of the delete, like decideCopy. */
export function decideErase(ownership: Ownership, attempt: string): EraseDecision {
  if (!isBeingErased(ownership) || ownership.phase !== 'fenced' || ownership.attempt !== attempt) {
    return { erase: 'no', because: 'the fence of this erasure is gone' };
  }
  return { erase: 'yes', epoch: ownership.epoch };
}
