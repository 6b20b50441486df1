/**
 * Partitions that a cohort selects since it was moved: a percentage or an attribute goes on selecting as the
 * registry grows. They are listed and left where they are, because moving users is an operator's decision.
 */
import type { FlipStatus } from '../core/flip.ts';
import type { Census } from './census.ts';

const named = 20;

/** Undefined where nothing of the cohort was moved yet, or it is being moved now. */
export function newcomersOf(
  cohort: string,
  partitions: readonly string[],
  census: Census,
  flips: readonly FlipStatus[],
) {
  const ofCohort = flips
    .filter((flip) => flip.cohort === cohort)
    .toSorted((a, b) => b.createdAtMs - a.createdAtMs);
  const underWay = ofCohort.some(({ state }) => state === 'running' || state === 'paused');
  const last = ofCohort.find(({ state }) => state === 'completed');
  if (last === undefined || underWay) return undefined;
  const elsewhere = partitions.filter((partition) => census.of(partition).owner !== last.to);
  return {
    flip: last.id,
    to: last.to,
    count: elsewhere.length,
    partitions: elsewhere.slice(0, named),
    ...(elsewhere.length === 0 ? {} : { command: `onewriter plan --cohort ${cohort} --to ${last.to}` }),
  };
}
