/**
 * Who may change a partition, and the only ways in which that can change.
 *
 *   open(A,e) ──fence──▶ fenced(A→B,e+1) ──commit──▶ committed(B,e+2) ──release──▶ open(B,e+3)
 *                             └──abort, or expire after the deadline──▶ open(A,e+2)
 *
 * Every arrow raises the epoch by one, so an epoch is a fencing token: who holds an older one is late.
 */

export type StoreName = 'legacy' | 'app';
export const storeNames: readonly StoreName[] = ['legacy', 'app'];

export function otherStore(store: StoreName): StoreName {
  return store === 'legacy' ? 'app' : 'legacy';
}

export interface Open {
  readonly phase: 'open';
  readonly owner: StoreName;
  readonly epoch: number;
}

/** No write is admitted anywhere. Reads stay at `owner`. `deadlineMs` is by Redis's clock. */
export interface Fenced {
  readonly phase: 'fenced';
  readonly owner: StoreName;
  readonly to: StoreName;
  readonly epoch: number;
  readonly attempt: string;
  readonly deadlineMs: number;
}

/** The point of no return is passed: `owner` is already the new one, but admits nothing yet. */
export interface Committed {
  readonly phase: 'committed';
  readonly owner: StoreName;
  readonly epoch: number;
  readonly attempt: string;
}

export type Ownership = Open | Fenced | Committed;
export type Phase = Ownership['phase'];

/** Epoch of a partition that no transition has touched; guards use 0 for "never heard of it". */
export const firstEpoch = 1;

export function untouched(owner: StoreName): Open {
  return { phase: 'open', owner, epoch: firstEpoch };
}

export type TransitionOrder =
  | { readonly kind: 'fence'; readonly to: StoreName; readonly attempt: string; readonly fenceMs: number }
  | { readonly kind: 'commit'; readonly attempt: string }
  | { readonly kind: 'release'; readonly attempt: string }
  | { readonly kind: 'abort'; readonly attempt: string }
  /** Reopens at the old owner after the deadline; anyone may order it (I7). */
  | { readonly kind: 'expire' };

export type TransitionRefusal =
  | { readonly refused: 'wrong-phase'; readonly detail: string }
  | { readonly refused: 'already-owner'; readonly detail: string }
  | { readonly refused: 'other-attempt'; readonly detail: string }
  /** The ledger lost data; nothing moves until an operator restores it. */
  | { readonly refused: 'ledger-regressed'; readonly detail: string }
  /** A proxy only observes, and is stopped by no fence. */
  | { readonly refused: 'observed'; readonly detail: string }
  | { readonly refused: 'deadline-passed'; readonly detail: string }
  | { readonly refused: 'deadline-not-passed'; readonly detail: string };

/**
 * The state after `order`, or why it is refused. `nowMs` is the ledger's clock (Redis TIME, ms).
 * The ledger stores what this returns with one compare-and-set on (phase, epoch, attempt).
 */
export function applyOrder(
  current: Ownership,
  order: TransitionOrder,
  nowMs: number,
): Ownership | TransitionRefusal {
  const epoch = current.epoch + 1;
  switch (order.kind) {
    case 'fence':
      if (current.phase !== 'open') return wrongPhase(current, order.kind, 'open');
      if (current.owner === order.to) {
        return { refused: 'already-owner', detail: `${order.to} owns the partition already` };
      }
      return {
        phase: 'fenced',
        owner: current.owner,
        to: order.to,
        epoch,
        attempt: order.attempt,
        deadlineMs: nowMs + order.fenceMs,
      };
    case 'commit':
      if (current.phase !== 'fenced') return wrongPhase(current, order.kind, 'fenced');
      if (current.attempt !== order.attempt) return otherAttempt(current.attempt, order.attempt);
      if (nowMs >= current.deadlineMs) {
        return { refused: 'deadline-passed', detail: 'the fence deadline passed before the commit' };
      }
      return { phase: 'committed', owner: current.to, epoch, attempt: current.attempt };
    case 'release':
      if (current.phase !== 'committed') return wrongPhase(current, order.kind, 'committed');
      if (current.attempt !== order.attempt) return otherAttempt(current.attempt, order.attempt);
      return { phase: 'open', owner: current.owner, epoch };
    case 'abort':
      if (current.phase !== 'fenced') return wrongPhase(current, order.kind, 'fenced');
      if (current.attempt !== order.attempt) return otherAttempt(current.attempt, order.attempt);
      return { phase: 'open', owner: current.owner, epoch };
    case 'expire':
      if (current.phase !== 'fenced') return wrongPhase(current, order.kind, 'fenced');
      if (nowMs < current.deadlineMs) {
        return { refused: 'deadline-not-passed', detail: 'the fence deadline has not passed yet' };
      }
      return { phase: 'open', owner: current.owner, epoch };
  }
}

export function isRefusal(result: Ownership | TransitionRefusal): result is TransitionRefusal {
  return 'refused' in result;
}

/** The attempt id that a compare-and-set must find; open partitions have none. */
export function attemptOf(ownership: Ownership): string {
  return ownership.phase === 'open' ? '' : ownership.attempt;
}

function wrongPhase(current: Ownership, kind: string, wanted: Phase): TransitionRefusal {
  return { refused: 'wrong-phase', detail: `${kind} needs phase ${wanted}, found ${current.phase}` };
}

function otherAttempt(found: string, wanted: string): TransitionRefusal {
  return { refused: 'other-attempt', detail: `attempt ${found} holds the fence, not ${wanted}` };
}
