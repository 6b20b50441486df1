/** Lines on what stands behind late copies and failing requests; none while all is well. */
import type { PausesAnswer, StatusAnswer } from '../../admin/answers.ts';
import { plain } from '../output.ts';

export function troubleRows({
  unreachable,
  pollFailure,
}: Pick<StatusAnswer, 'unreachable' | 'pollFailure'>): string[][] {
  const rows = unreachable.map(({ store, detail }) => [
    store,
    `UNREACHABLE: ${plain(detail)}. Start it, or correct stores.${store}.url; doctor looks closer`,
  ]);
  if (pollFailure === null) return rows;
  const since = new Date(pollFailure.sinceMs).toISOString();
  return [...rows, ['polls', `fail since ${since}, the last because ${plain(pollFailure.detail)}`]];
}

/** Why nothing is copied: an operator's pause, or a store that fails. */
export function haltRows({ pauses, failing }: Pick<StatusAnswer, 'pauses' | 'failing'>): string[][] {
  return [
    ...pauseRows(pauses),
    ...failing.map(({ store, detail, sinceMs, nextTryMs }) => [
      `FAILING: ${store}`,
      plain(`since ${isoOf(sinceMs)}, tried again at ${isoOf(nextTryMs)}: ${detail}`),
    ]),
  ];
}

export function pauseRows(pauses: PausesAnswer['pauses']): string[][] {
  return pauses.map(({ to, by, reason, sinceMs }) => [
    to === null ? 'PAUSED' : `PAUSED to ${to}`,
    plain(
      `by ${by} since ${isoOf(sinceMs)}: ${reason}. Go on: onewriter sync resume${to === null ? '' : ` ${to}`} --reason TEXT`,
    ),
  ]);
}

export function strayRows(open: number): string[][] {
  if (open === 0) return [];
  const what = 'changed in the store that does not own it, and not moved until that is settled';
  return [['strays', `${open} open: ${what}: onewriter strays list --state open`]];
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
