/** Reads on routes with `reads: copy`, by who answered them. */

/** Why the owner answered; `not-copied`: nothing is copied to the other store. */
export type OwnerReason = 'not-copied' | 'moving' | 'unknown' | 'late' | 'written' | 'failing';

export interface ReadCounters {
  byCopy: number;
  readonly byOwner: Record<OwnerReason, number>;
}

export function newReadCounters(): ReadCounters {
  const byOwner = { 'not-copied': 0, moving: 0, unknown: 0, late: 0, written: 0, failing: 0 };
  return { byCopy: 0, byOwner };
}
