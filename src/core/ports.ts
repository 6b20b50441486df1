/**
 * Interfaces through which proxy, handoff, sync and admin meet. They do not import each other; compose hands each of them
 * the others' faces. Those of one subject stand with its words: FlipDesk in flip.ts, LinkNotes in links.ts, Doubts in
 * doubt.ts, IdempotencyKeys in idempotency.ts, Registry, Homes and Directory in homes.ts. Here are the rest.
 */
import type { Blocker } from './flip.ts';
import type { CaughtUpProof } from './handoff.ts';
import type { Acknowledgement, WriteOutcome } from './member.ts';
import type { Ownership, StoreName, TransitionOrder, TransitionRefusal } from './ownership.ts';
import type { CopyForm, Difference, Fields, Json, StoreRecord } from './records.ts';
import type { Regression } from './regression.ts';
import type { GuardAccess, GuardRefusal } from './guard.ts';
import type { Admission, PartitionEpoch, WriteTicket } from './ticket.ts';
import type { Transition } from './view.ts';

export { StoreFailure, type StoreFailureKind } from './store-failure.ts';

declare global {
  /** Only named here: core has no ambient types, and never calls a signal itself. */
  // oxlint-disable-next-line typescript/no-empty-object-type, typescript/no-empty-interface
  interface AbortSignal {}
}

// --- ledger ------------------------------------------------------------------------------------------

export interface LedgerRecord {
  readonly ownership: Ownership;
  /** Version and id of the transition that made it; 0 and '' for an untouched partition. */
  readonly version: number;
  readonly transitionId: string;
  /** Redis clock; 0 for an untouched partition. */
  readonly changedAtMs: number;
}

export interface Order {
  readonly partition: string;
  readonly order: TransitionOrder;
  /** The record as this caller last saw it, to spare a read; refused where it stands no more. */
  readonly seen?: LedgerRecord | undefined;
  /** Who and why, for the stream. */
  readonly by: string;
  readonly reason: string;
}

/** `unknown`: the connection broke after sending. Nobody may assume either way; re-read. */
export type OrderResult =
  | { readonly result: 'done'; readonly record: LedgerRecord; readonly durable: boolean }
  | { readonly result: 'refused'; readonly refusal: TransitionRefusal; readonly record: LedgerRecord }
  | { readonly result: 'unknown'; readonly detail: string };

export interface MemberRecord {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  /** Grows with every heartbeat; compare two readings to see whether the member is alive. */
  readonly sequence: number;
  readonly appliedVersion: number;
  readonly configHash: string;
  /** Its own; whoever judges whether it is alive goes by this. */
  readonly leaseMs: number;
  readonly writeTimeoutMs: number;
  readonly settleMs: number;
  readonly inFlight: number;
  readonly inDoubt: number;
  /** It goes on without the ledger, so silence never proves that it is gone. */
  readonly unexpirable?: boolean | undefined;
}

/** A proxy process that sends everything to the default store and only records; while it is listed nothing moves. */
export interface ObserverRecord {
  readonly id: string;
  readonly host: string;
  readonly pid: number;
  /** How long what it passed on last may still take effect at the store, ms. */
  readonly settleMs: number;
  /** Redis clock. */
  readonly seenAtMs: number;
}

export interface ObserverList {
  list(): Promise<ObserverRecord[]>;
  /** With `seenAtMs` only if it was not seen since. False: it was, or it was not listed. */
  end(id: string, seenAtMs?: number): Promise<boolean>;
}

export interface MemberAcknowledgement extends Acknowledgement {
  readonly member: string;
}

export interface Ledger {
  /** What `read` says of a partition that no transition touched. */
  readonly untouched: LedgerRecord;
  read(partition: string): Promise<LedgerRecord>;
  /** The same for many at once, in their order. */
  readMany(partitions: readonly string[]): Promise<readonly LedgerRecord[]>;
  /** Partitions that any transition touched. */
  touched(): Promise<ReadonlyMap<string, LedgerRecord>>;
  order(order: Order): Promise<OrderResult>;
  /** True when everything answered before is now confirmed by as many replicas as must confirm it. */
  confirmDurable(): Promise<boolean>;
  members(): Promise<MemberRecord[]>;
  /**
   * Takes a member off the list. With `seenSequence` only if it has sent no heartbeat since that one: who
   * came back to life in the meantime stays, and must be waited for. False: it stays, or was not there.
   */
  removeMember(id: string, seenSequence?: number): Promise<boolean>;
  readonly observers: ObserverList;
  /** When a member or an observer last left or was removed, Redis clock; 0 if none did. */
  lastDepartureMs(): Promise<number>;
  nowMs(): Promise<number>;
  /** An operator has looked: members forget the writes in doubt of the partition. Throws when refused. */
  resolveDoubt(partition: string, by: string, reason: string): Promise<void>;
  /** Rollback windows were closed: a Redis that loses that has lost something of the ledger. Throws when refused. */
  noteClosedWindows(by: string, reason: string): Promise<void>;
  /** What the ledger is known to have lost; undefined while it is sound. */
  regression(): Promise<Regression | undefined>;
  /** Empty when a transition, once answered, cannot be lost; else one sentence for each way it could. */
  durabilityGaps(): Promise<string[]>;
}

/** Follows the ledger's streams; every listener gets every entry once, in order. */
export interface LedgerFeed {
  onTransition(listener: (transition: Transition) => void): () => void;
  onAcknowledgement(listener: (acknowledgement: MemberAcknowledgement) => void): () => void;
  /** An operator has looked into the writes in doubt of the partition. */
  onDoubtResolved(listener: (partition: string) => void): () => void;
}

export type { Completeness, Registry } from './homes.ts';

// --- proxy -------------------------------------------------------------------------------------------

/** The member as the proxy sees it. Every call is in memory and synchronous. */
export interface WriteGate {
  ownershipOf(partition: string): Ownership;
  /** `also`: the other partitions that the write touches. */
  admit(partition: string, also?: readonly string[]): Admission;
  mayContinue(ticket: WriteTicket): boolean;
  end(ticket: WriteTicket, outcome: WriteOutcome): void;
  /** Calls back when a held write of the partition should be looked at again. Returns the way out. */
  onWake(partition: string, listener: () => void): () => void;
  /** Calls back when long-lived writers of the partition must be closed. Returns the way out. */
  onEndLongLived(partition: string, listener: () => void): () => void;
  leaseLeftMs(): number;
  /** Why no write is admitted, or why that should worry somebody: `code: sentence`. */
  trouble(): string | undefined;
  /** Traffic showed this partition; goes to the registry in the background. */
  notice(partition: string): void;
}

/** What a write touched, to ring for a copy. Never in the request's way. */
export interface Doorbell {
  ring(record: RecordKey): void;
}

/** What users' requests take of a store's rate limit. Never in the request's way. */
export interface UserCalls {
  sent(call: UserCall): void;
  /** The store answered 429, or 503 with Retry-After: the text of that field, where there is one. */
  limited(call: UserCall, retryAfter: string | undefined): void;
}

export interface UserCall {
  readonly store: StoreName;
  readonly partition?: string;
}

export interface RecordKey {
  readonly partition: string;
  readonly kind: string;
  readonly id: string;
}

// --- stores ------------------------------------------------------------------------------------------

export interface KindCapabilities {
  readonly kind: string;
  /** `list` can be narrowed to one partition. */
  readonly byPartition: boolean;
  /** `list` can be read only by partition: it has no form over all of them. */
  readonly needsPartition?: boolean;
  /** One record is asked for by its id alone: two partitions cannot have records of the same id. */
  readonly readableById?: boolean;
  readonly since: boolean;
  /** The list is read page by page; else one answer is taken for all of it. */
  readonly paged: boolean;
  readonly tombstones: boolean;
  readonly versions: 'field' | 'etag' | 'none';
  /** Why copies into this store cannot work; undefined where they can. */
  readonly notWritable?: string;
}

export interface ListScope {
  /** Only this partition; else over all. */
  readonly partition?: string;
  /** Only what changed at or after this source version; ignored by kinds without `since`. */
  readonly since?: string;
  /** `next` of a page read earlier, perhaps by another process: the list goes on behind it. */
  readonly after?: string;
}

/** A record in a list that cannot be used, for example one without id or partition. */
export interface RecordProblem {
  readonly kind: string;
  readonly detail: string;
}

export interface Page {
  readonly records: readonly StoreRecord[];
  readonly problems: readonly RecordProblem[];
  /** Ids of deleted records of which the store does not say more, in an answer to `since`. */
  readonly gone?: readonly string[];
  /** Where the list goes on, as a text that only this reader understands; absent on the last page. */
  readonly next?: string;
  /** Records in the whole list, where the store says so. */
  readonly total?: number;
}

/** Reading side of a store. Failures are thrown as StoreFailure. */
export interface StoreReader {
  readonly store: StoreName;
  readonly capabilities: readonly KindCapabilities[];
  /** How late lists show a finished write, ms. */
  readonly feedDelayMs: number;
  pages(kind: string, scope: ListScope, signal: AbortSignal): AsyncIterable<Page>;
  /** Undefined when the store says that the record is not there (404 or 410). */
  get(
    kind: string,
    key: { id: string; partition: string },
    signal: AbortSignal,
  ): Promise<StoreRecord | undefined>;
  /** The record in the shape that `writer`'s store takes. */
  toCopy(record: StoreRecord, target: TargetShape): CopyForm;
  /** One cheap authenticated read, to see that address and credentials are right. */
  probe(signal: AbortSignal): Promise<void>;
  readonly shape: (kind: string) => TargetShape;
  /** Absent where nobody remembers what the records have. */
  readonly fields?: FieldKnowledge;
  close(): Promise<void>;
}

/** What is known of the fields of a store's records, and of what the other store puts into their copies. */
export interface FieldKnowledge {
  /**
   * The copy's fields without values that its store puts there by itself, where the owner's record has none: so the copy can
   * be compared by hash. `given`: names of the fields in which the owner's record has a value.
   */
  withoutOwn(kind: string, fields: Fields, given: ReadonlySet<string>): Fields;
  /** The copy keeps this value in a field that the record has not. True: from now on any value counts as its own. */
  learnOwn(kind: string, field: string, value: Json): Promise<boolean>;
}

/** Names of the fields in which a store keeps what onewriter must know about a record. */
export interface TargetShape {
  readonly id: string;
  readonly partition: string;
  readonly version?: string | undefined;
  readonly deleted?: string | undefined;
}

/** Stamp of a copy: the guard of the target checks it inside its own transaction. */
export interface CopyStamp extends PartitionEpoch {
  /** Only in a question: does the guard take requests that touch several partitions? */
  readonly also?: readonly PartitionEpoch[];
}

/** A write that the store itself refuses where the record has changed since: as of this version, or not there at all. */
export type WriteCondition = { readonly version: string } | 'absent';

/** Writing side of a store: made only for stores that copies may go to. */
export interface CopyWriter {
  readonly store: StoreName;
  /** `onlyIf` is said to stores that understand it, and means nothing to others. */
  put(
    copy: CopyForm,
    stamp: CopyStamp,
    exists: boolean,
    signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void>;
  remove(
    key: { kind: string; id: string },
    stamp: CopyStamp,
    signal: AbortSignal,
    onlyIf?: WriteCondition,
  ): Promise<void>;
  /** Undefined where records of this kind can be written only one by one. */
  bulk(kind: string): BulkLimits | undefined;
  /** Creates or replaces records of one kind in one call, within the limits that `bulk` names. */
  putMany(kind: string, copies: readonly StampedCopy[], signal: AbortSignal): Promise<BulkOutcome>;
}

/** The deleting side alone, for erasures: of any store, whether copies may go to it or not. */
export interface RecordRemover extends Pick<CopyWriter, 'remove'> {
  /** The connector says how records of this kind are deleted. */
  can(kind: string): boolean;
}

export interface BulkLimits {
  /** Records in one call. */
  readonly max: number;
  /** A call can hold records of one partition only: it is signed for it, or its path names it. */
  readonly onePartition: boolean;
}

export interface StampedCopy {
  readonly copy: CopyForm;
  readonly stamp: CopyStamp;
}

/** What one call with many records is known to have done. */
export interface BulkOutcome {
  /** Ids of the records that were certainly written; whoever wants to know of the others reads them again. */
  readonly written: ReadonlySet<string>;
  /** What was not written now may be written later. */
  readonly mayStillHappen: boolean;
}

export interface GuardAnswer {
  /** Highest that it has seen, where it says so. */
  readonly epoch?: number;
  readonly owner?: StoreName;
  readonly closed?: boolean;
  /** See GuardRow; guards of other make may not count. */
  readonly written?: boolean;
  readonly accept?: boolean;
  readonly code?: GuardRefusal;
}

/** Signed calls to the guard of a store. Failures are thrown as StoreFailure. */
export interface GuardCalls {
  verdict(store: StoreName, stamp: CopyStamp, access: GuardAccess, signal: AbortSignal): Promise<GuardAnswer>;
  /** Undefined where the order was taken, and the answer says nothing. */
  advance(store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<GuardAnswer | undefined>;
  seal(store: StoreName, stamp: CopyStamp, signal: AbortSignal): Promise<void>;
}

// --- sync --------------------------------------------------------------------------------------------

export interface PartitionComparison {
  readonly partition: string;
  /** Why there is nothing to compare: the owner's records are not copied to the other store any more. */
  readonly notCopied?: string;
  readonly ownerRecords: number;
  readonly copyRecords: number;
  readonly differences: readonly Difference[];
  readonly problems: readonly RecordProblem[];
}

export interface CopyReport {
  readonly recordsCompared: number;
  readonly recordsCopied: number;
  readonly passes: number;
  /** How long the last pass over both sides took: about what the catch-up under the fence will take. */
  readonly lastPassMs: number;
  readonly problems: readonly RecordProblem[];
}

/** The sync as the handoff and the operators see it. Failures of stores are thrown as StoreFailure. */
export interface CopyDesk {
  /** Before the fence: compares both sides fully and copies what differs, until a pass brings little. */
  bringUp(partition: string, signal: AbortSignal): Promise<CopyReport>;
  /**
   * Inside the fence of `attempt`: copies until one whole pass, begun after the last copy ended, finds
   * no difference. Nothing of it runs any more when the promise settles.
   */
  catchUp(partition: string, attempt: string, signal: AbortSignal): Promise<CaughtUpProof>;
  /** Compares without changing anything. */
  compare(partition: string, signal: AbortSignal): Promise<PartitionComparison>;
  /** max(age of the oldest unapplied change, time since the last poll that reached the end), ms; undefined before the first. */
  lagMs(): Promise<number | undefined>;
  /** Dead letters of this partition. */
  deadLetters(partition: string): Promise<number>;
  /** Partitions of which nothing is copied back to the store that they have left, because an operator said so. */
  closedWindows(): Promise<ReadonlySet<string>>;
  /** Partitions whose deletes are held back until an operator agrees, each with a sentence. */
  deleteBrakes(): Promise<ReadonlyMap<string, string>>;
  /** Why nothing is copied to this store now; no handoff to it may begin meanwhile. */
  halted(to: StoreName): Promise<readonly Blocker[]>;
}
