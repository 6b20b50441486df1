/** A flip: an operator's order for a cohort, what was planned for it, and how far it is. */
import type { CohortSelection } from './cohort.ts';
import type { CaughtUpProof } from './handoff.ts';
import type { StoreName } from './ownership.ts';

/** Why one partition cannot move now, or why nothing can. The sentence says what to do. */
export interface Blocker {
  readonly code: string;
  readonly detail: string;
}

export interface BlockedPartition extends Blocker {
  readonly partition: string;
}

/** Whether what is planned can be taken back afterwards. */
export interface WayBack {
  /**
   * `first-write`: of each partition, until its user first writes in the store that it went to; `window-closed`: until
   * an operator closes its rollback window.
   */
  readonly until: 'always' | 'window-closed' | 'first-write' | 'never';
  readonly detail: string;
}

export interface Plan {
  readonly id: string;
  readonly cohort: string;
  readonly to: StoreName;
  readonly by: string;
  readonly createdAtMs: number;
  /**
   * Sorted, but for partitions that are written together, which stand side by side. Every partition of the cohort is
   * in exactly one of flip, unchanged and blocked.
   */
  readonly flip: readonly string[];
  readonly unchanged: readonly string[];
  readonly blocked: readonly BlockedPartition[];
  /** Nothing can move while one of these stands. */
  readonly blockers: readonly Blocker[];
  /** Epoch of each partition to flip, as planned; `apply` refuses the plan when one has moved on. */
  readonly epochs: Readonly<Record<string, number>>;
  /** SHA-256 over the sorted names. */
  readonly membershipHash: string;
  readonly selection: CohortSelection;
  /** Partitions in each wave. As ordered, like "10%", waves are called `waves` everywhere. */
  readonly waveSizes: readonly number[];
  /** Routes outside the promise: pinned, or without a partition. */
  readonly pinnedRoutes: readonly string[];
  readonly wayBack: WayBack;
}

export const flipStates = [
  'planned',
  'awaiting-approval',
  'scheduled',
  'running',
  'paused',
  'completed',
  'aborted',
  'failed',
] as const;
export type FlipStateName = (typeof flipStates)[number];

/** Nothing of the flip will move any more, whatever anybody orders. */
export function hasEnded(state: FlipStateName): boolean {
  return state === 'completed' || state === 'aborted' || state === 'failed';
}

export interface Quantiles {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export interface FlipStatus {
  readonly id: string;
  readonly cohort: string;
  readonly to: StoreName;
  readonly state: FlipStateName;
  /** Why it is paused, aborted or failed; and what to do next. */
  readonly detail: string;
  readonly by: string;
  readonly reason: string;
  readonly createdAtMs: number;
  readonly endedAtMs?: number;
  readonly total: number;
  readonly committed: number;
  readonly aborted: number;
  readonly pending: number;
  readonly blocked: readonly BlockedPartition[];
  /** From a partition's fence to its release, by Redis's clock; absent while nothing has moved. */
  readonly pauseMs?: Quantiles;
}

export const partitionOutcomes = ['pending', 'moved', 'stayed'] as const;

/** What one partition of a flip went through; bounded, however often it was tried. */
export interface PartitionReport {
  readonly outcome: (typeof partitionOutcomes)[number];
  /** Attempts that count; one that a stale member or a write in doubt made fail does not. */
  readonly attempts: number;
  /** From the fence to the release of the attempt that moved it; absent where nobody saw it end. */
  readonly pauseMs?: number | undefined;
  /** How long each step of that attempt took. */
  readonly stepsMs?: Readonly<Record<string, number>> | undefined;
  readonly proof?: CaughtUpProof | undefined;
  readonly lastFailure?: Blocker | undefined;
}

export interface NamedPartitionReport extends PartitionReport {
  readonly partition: string;
}

export interface FlipRequest {
  readonly cohort: string;
  readonly to: StoreName;
  readonly reason: string;
  readonly by: string;
  readonly planId?: string | undefined;
  readonly waves?: readonly string[] | undefined;
}

/** A refusal of an operator's order: a value, with a stable code and a sentence that says what to do. */
export interface OrderRefusal {
  readonly refused:
    | 'no-such-cohort'
    | 'no-such-flip'
    | 'no-such-plan'
    | 'stale-plan'
    | 'nothing-can-move'
    | 'no-clean-way-back'
    | 'wrong-state';
  readonly detail: string;
  readonly blockers?: readonly Blocker[];
  readonly blocked?: readonly BlockedPartition[];
}

export interface NamedCohort {
  readonly name: string;
  readonly selection: CohortSelection;
  /** Cohorts from the configuration file are read-only at run time. */
  readonly source: 'file' | 'api';
}

/** The handoff as operators see it. */
export interface FlipDesk {
  cohorts(): Promise<NamedCohort[]>;
  /** The cohort's partitions as of now; undefined when there is no such cohort. */
  partitionsOf(cohort: string): Promise<string[] | undefined>;
  plan(request: {
    cohort: string;
    to: StoreName;
    by: string;
    waves?: readonly string[] | undefined;
  }): Promise<Plan | OrderRefusal>;
  /** Starts the flip and returns at once; a flip with nothing to move is `completed`. */
  start(request: FlipRequest): Promise<FlipStatus | OrderRefusal>;
  flips(): Promise<FlipStatus[]>;
  flip(id: string): Promise<FlipStatus | undefined>;
  /** The names of the flip's partitions, sorted; undefined when there is no such flip. */
  flipPartitions(id: string): Promise<readonly string[] | undefined>;
  flipReports(id: string, partitions: readonly string[]): Promise<NamedPartitionReport[]>;
  pause(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal>;
  resume(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal>;
  /** Partitions in the middle of a handoff are reopened at their old owner; what has committed stays. */
  abort(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal>;
}
