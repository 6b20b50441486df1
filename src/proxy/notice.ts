/** Who the registry hears of. */
import type { Homes } from '../core/homes.ts';
import type { WriteGate } from '../core/ports.ts';
import { touchedBy } from '../core/ticket.ts';
import type { Passage } from './admit.ts';
import type { MatchedRequest } from './classify.ts';
import type { Identity } from './identify.ts';

interface Parts {
  readonly gate: Pick<WriteGate, 'notice'>;
  readonly homes: Pick<Homes, 'known'>;
}

/**
 * Whoever has written must be in the registry, or the partition could be taken for a new one; but only once a store
 * took the write, or may have: users could fill the registry with names. To be called in the same step in which the
 * write ends, so that a member with nothing in flight has noticed all; one that dies with a write in flight makes the
 * registry incomplete.
 */
export function noticeWrite({ gate }: Pick<Parts, 'gate'>, { ticket }: Passage): void {
  if (ticket === undefined) return;
  for (const { partition } of touchedBy(ticket)) gate.notice(partition);
}

/**
 * A read changes nothing, so nothing rests on it; it only shows sooner who is there. Not where the store has found
 * nothing, or the request came to nobody's: users could fill the registry with the names that they ask for.
 */
export function noticeRead(
  { gate, homes }: Parts,
  { access }: Pick<MatchedRequest, 'access'>,
  { partition, also = [] }: Passage,
  identity: Identity | undefined,
  status: number,
): void {
  if (access !== 'read' || identity === undefined || partition === undefined) return;
  if (status < 200 || status >= 400) return;
  // Who is not known yet may be new, and must not be old at the first write.
  for (const name of [partition, ...also.map((other) => other.partition)]) {
    if (homes.known(name)) gate.notice(name);
  }
}
