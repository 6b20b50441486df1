/** Lines on what stands behind late copies and failing requests; none while all is well. */
import type { StatusAnswer } from '../../admin/answers.ts';
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
