/**
 * The guard's rule: what the new app accepts under which epoch. The SQL in src/guard states the same rule
 * inside the app's transaction; a test runs both over the same histories.
 *
 * A row says who owned the partition at the highest epoch seen. `closed` epochs take nothing: an advance
 * or a seal at epoch e means "nothing more at e or below". `written` is what the clean way back rests on: only
 * the database that takes the writes can say that it took none.
 */
import type { StoreName } from './ownership.ts';

export type GuardAccess = 'read' | 'write' | 'copy';

export interface GuardRow {
  readonly epoch: number;
  readonly owner: StoreName;
  readonly closed: boolean;
  /** A user's write was accepted since the last seal. An open row of the app is always written. */
  readonly written: boolean;
}

/** The row of a partition that the guard never heard of: legacy has it. */
export const unknownToGuard: GuardRow = { epoch: 0, owner: 'legacy', closed: false, written: false };

export type GuardRefusal = 'stale-epoch' | 'legacy-owns' | 'app-owns' | 'closed-epoch';

export type GuardVerdict =
  | { readonly accept: true; readonly row: GuardRow }
  | { readonly accept: false; readonly code: GuardRefusal; readonly row: GuardRow };

export function guardVerdict(row: GuardRow, access: GuardAccess, epoch: number): GuardVerdict {
  if (access === 'read') return { accept: true, row };
  const refuse = (code: GuardRefusal): GuardVerdict => ({ accept: false, code, row });
  if (epoch < row.epoch) return refuse('stale-epoch');
  if (epoch === row.epoch && row.closed) return refuse('closed-epoch');
  if (access === 'write') {
    // Only a seal makes the app the owner: a write under an epoch that no seal announced is refused.
    if (row.owner !== 'app') return refuse('legacy-owns');
    return { accept: true, row: { epoch, owner: 'app', closed: false, written: true } };
  }
  if (row.owner === 'app' && epoch === row.epoch) return refuse('app-owns');
  return { accept: true, row: { ...row, epoch, owner: 'legacy', closed: false } };
}

/** At a fence: nothing more at this epoch or below. The old owner's guard hears of the fence's own, the new owner's of the one before. */
export function guardAdvance(row: GuardRow, epoch: number): GuardRow {
  return epoch >= row.epoch ? { ...row, epoch, closed: true } : row;
}

/** The new owner's guard before the commit: copies of this and older epochs are over, the app owns next. */
export function guardSeal(row: GuardRow, epoch: number): GuardRow {
  return epoch >= row.epoch ? { epoch, owner: 'app', closed: true, written: false } : row;
}

/**
 * What a guard's answer says about users' writes. `false`: the app was sealed and has accepted none since, up
 * to the moment of the answer; after an advance, for good. Undefined where it leaves that open, as a guard of
 * other make may, or where it never saw a seal: then writes may be older than the guard.
 */
export function writtenSinceSeal(answer: Pick<Partial<GuardRow>, 'owner' | 'written'>): boolean | undefined {
  return answer.owner === 'app' ? answer.written : undefined;
}
