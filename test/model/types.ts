/** The parts of the modelled world: what exists beside the machines of src/core, in its simplest form. */
import type { HandoffState } from '../../src/core/handoff.ts';
import type { Acknowledgement, Heartbeat, Member } from '../../src/core/member.ts';
import type { Ownership, StoreName, TransitionOrder } from '../../src/core/ownership.ts';
import type { WriteTicket } from '../../src/core/ticket.ts';
import type { LedgerChange, Position } from '../../src/core/view.ts';

/** Lengths in ticks of the discrete clock; the names are those of the configuration. */
export interface Constants {
  readonly leaseMs: number;
  readonly marginMs: number;
  readonly drainMs: number;
  readonly fenceMs: number;
  readonly settleMs: Readonly<Record<StoreName, number>>;
  readonly writeTimeoutMs: number;
  /** How late legacy's list shows a finished write. */
  readonly feedDelayMs: number;
  /** For how long the copy lock covers a write, and so the longest that one can take. */
  readonly copyMs: number;
  /** The app has the guard. */
  readonly guarded: boolean;
}

/** Rules that live outside src/core; each is on in the real code, and a mutant turns one off. */
export interface Rules {
  /** src/handoff/attempt.ts: an acknowledgement counts only for the attempt that it names. */
  readonly acknowledgementNamesAttempt: boolean;
  /** src/ledger/membership.ts: every registration has an id of its own. */
  readonly memberIdPerRegistration: boolean;
  /** src/ledger/lua/heartbeat.lua: positions are compared by id, not by version alone. */
  readonly positionsComparedById: boolean;
  /** src/proxy/forward.ts: the write timeout is total, and a write that it ended is reset. */
  readonly writeTimeoutIsTotal: boolean;
  /** src/handoff/attempt.ts: the members are listed after the fence is in the ledger. */
  readonly membersListedAfterFence: boolean;
  /** src/handoff/attempt.ts: no guard hears of a fence, and nothing is copied under it, before it is durable. */
  readonly fenceIsConfirmedFirst: boolean;
  /** src/sync/desk.ts: the old owner's records are read by the catch-up, so after the drain. */
  readonly positionReadAfterDrain: boolean;
  /** src/sync/copy-lock.ts: the lock outlives every copy that was sent under it. */
  readonly copyLockOutlivesCopies: boolean;
  /** src/sync/apply.ts: right before a copy is written the lock is proven and the ledger asked again. */
  readonly copyAskedAtApply: boolean;
  /** src/handoff/members.ts: gone only after lease, write timeout and settle time. */
  readonly goneAfterWritesSettled: boolean;
  /** src/guard/guard.ts: every partition of a request is checked, each under its own epoch. */
  readonly guardChecksAll: boolean;
  /** src/proxy/admit.ts: that a write joins partitions is noted before it is admitted. */
  readonly linkNotedFirst: boolean;
  /** src/handoff/attempt.ts: links are read right before the commit, behind the drain. */
  readonly linksReadBehindDrain: boolean;
  /** src/ledger/ledger.ts, heartbeat: only what the replicas confirmed counts as answered. */
  readonly heartbeatIsDurable: boolean;
}

export const realRules: Rules = {
  acknowledgementNamesAttempt: true,
  memberIdPerRegistration: true,
  positionsComparedById: true,
  writeTimeoutIsTotal: true,
  membersListedAfterFence: true,
  fenceIsConfirmedFirst: true,
  positionReadAfterDrain: true,
  copyLockOutlivesCopies: true,
  copyAskedAtApply: true,
  goneAfterWritesSettled: true,
  guardChecksAll: true,
  linkNotedFirst: true,
  linksReadBehindDrain: true,
  heartbeatIsDurable: true,
};

/** How often each thing may still happen. Faults first, then what is only bounded to keep the world finite. */
export interface Budget {
  readonly crashes: number;
  readonly restarts: number;
  readonly pauses: number;
  readonly suspensions: number;
  readonly slips: number;
  readonly departures: number;
  readonly failovers: number;
  readonly removals: number;
  readonly coordinatorCrashes: number;
  /** Orders whose outcome the coordinator does not learn, and guard calls that arrive after it gave up. */
  readonly brokenOrders: number;
  /** Exchanges that a store breaks off: the write is in doubt before its time is up. */
  readonly brokenWrites: number;
  readonly stops: number;
  /** Writes and copies towards a guarded app that a frozen process sends as late as it likes. */
  readonly frozen: number;
  readonly attempts: number;
  readonly workerCopies: number;
  /** Heartbeats sent; `endless` where they are not counted. */
  readonly beats: number;
  /** Changes of other partitions. */
  readonly foreignChanges: number;
}

export interface LedgerRecord {
  readonly ownership: Ownership;
  /** `epoch:owner` of every time that the partition was open, in this ledger's own history. */
  readonly opens: readonly string[];
}

export interface ListedMember {
  readonly id: string;
  /** When a watching coordinator can first have seen its counter where it stands. */
  readonly movedAt: number;
}

export interface LedgerState {
  readonly records: readonly LedgerRecord[];
  readonly position: Position;
  readonly changes: readonly LedgerChange[];
  readonly members: readonly ListedMember[];
  readonly departedAt: number;
  readonly regressed: boolean;
}

export type HeartbeatAnswer =
  | { readonly answer: 'ok'; readonly version: number }
  | { readonly answer: 'view-ahead' | 'not-listed' | 'ledger-regressed' };

export interface TakenSnapshot {
  readonly position: Position;
  readonly partitions: readonly (readonly [string, Ownership])[];
}

/** A proxy process: core's machine, and what its shell in src/ledger/membership.ts has under way. */
export interface Process {
  /** Its place; a restarted process takes the place of the one that died. */
  readonly slot: number;
  readonly id: string;
  readonly machine: Member;
  readonly up: boolean;
  /** `stopped`: its clocks go on; `suspended`: its monotonic clock stands still. */
  readonly pause: '' | 'stopped' | 'suspended';
  readonly monotonicLag: number;
  readonly wallLag: number;
  readonly registering: boolean;
  /** Version behind which the stream is read; -1 before the first snapshot. */
  readonly feedAt: number;
  /** Version that the last answered heartbeat covered. */
  readonly covered: number;
  readonly loading: undefined | 'asked' | TakenSnapshot;
  readonly beat: undefined | { readonly heartbeat: Heartbeat; readonly answer?: HeartbeatAnswer };
}

export interface Write {
  readonly partition: number;
  /** Another partition that it touches together with it; -1 where it touches one alone. */
  readonly also: number;
  readonly bit: number;
  /** Sent in two pieces. */
  readonly upload: boolean;
  /** Its process's side. */
  readonly phase: 'idle' | 'admitted' | 'half' | 'sent' | 'over';
  /** The store's side: it may still take effect while it is pending, and before `landBefore`. */
  readonly fate: 'none' | 'pending' | 'done' | 'rejected' | 'void';
  readonly process: number;
  readonly ticket: WriteTicket | undefined;
  /** By its process's monotonic clock. */
  readonly admittedAt: number;
  readonly sentAt: number;
  readonly doneAt: number;
  /** After its process gave it up or died; until then its process's timer is the bound. */
  readonly landBefore: number;
  /** Caught between the check and the socket: it arrives as late as it likes. */
  readonly frozen: boolean;
  readonly acknowledged: boolean;
}

export interface Copy {
  readonly partition: number;
  readonly to: StoreName;
  readonly epoch: number;
  readonly mask: number;
  readonly landBefore: number;
  /** A worker, or the attempt. */
  readonly sender: string;
  readonly frozen: boolean;
}

/** A copy session's direction, as the ledger said when it began. */
export interface Session {
  readonly from: StoreName;
  readonly to: StoreName;
  readonly epoch: number;
}

export type Task =
  | {
      readonly task: 'order';
      readonly order: TransitionOrder;
      readonly before?: Ownership;
    }
  | { readonly task: 'enter'; readonly epoch: number }
  | { readonly task: 'confirm' }
  | { readonly task: 'reread' }
  /** Who would be left behind that the partition is written together with? */
  | { readonly task: 'look' }
  | { readonly task: 'advance' | 'seal'; readonly store: StoreName; readonly epoch: number }
  | {
      readonly task: 'catch-up';
      readonly stage: 'begin' | 'read' | 'sent';
      readonly notBefore: number;
      /** What the old owner showed. */
      readonly mask: number;
      readonly session: Session | undefined;
    };

/** One attempt of a coordinator: core's machine, and what src/handoff/attempt.ts has under way. */
export interface Attempt {
  readonly coordinator: number;
  readonly id: string;
  readonly partition: number;
  readonly machine: HandoffState;
  readonly tasks: readonly Task[];
  readonly entered: boolean;
  readonly fencedEpoch: number;
  /** Taken before the fence, for the mutants that do so. */
  readonly listedBefore: readonly string[];
  readonly linkedBefore: boolean;
  readonly earlyMask: number;
}

export interface Acknowledged {
  readonly member: string;
  readonly acknowledgement: Acknowledgement;
  readonly saidAt: number;
}

/** A worker of the background sync. */
export interface Worker {
  readonly partition: number;
  readonly stage: 'idle' | 'read' | 'sent';
  readonly mask: number;
  readonly session: Session | undefined;
}

export interface Lock {
  readonly holder: string;
  readonly until: number;
}

/** A call that its caller gave up, and that may still arrive. */
export type Ghost =
  | {
      readonly ghost: 'swap';
      readonly partition: number;
      readonly order: TransitionOrder;
      readonly before: Ownership;
    }
  | { readonly ghost: 'advance' | 'seal'; readonly partition: number; readonly epoch: number };

export interface Stores {
  readonly legacy: readonly number[];
  readonly app: readonly number[];
}

/** What an observer has seen of one partition. */
export interface Witness {
  /** The highest epoch under which a write was sent to each store. */
  readonly sent: Readonly<Record<StoreName, number>>;
  /** Bits of the writes that were acknowledged to their clients. */
  readonly acknowledged: number;
}

export interface Violation {
  readonly invariant: 'I1' | 'I2' | 'I3' | 'I4' | 'I5' | 'I7' | 'stuck';
  readonly detail: string;
}
