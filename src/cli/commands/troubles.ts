/** Lines on what stands behind late copies and failing requests; none while all is well. */
import type { PausesAnswer, StatusAnswer, SyncAnswer } from '../../admin/answers.ts';
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
  const since = isoOf(pollFailure.sinceMs);
  return [...rows, ['polls', `fail since ${since}, the last because ${plain(pollFailure.detail)}`]];
}

/** Why nothing is copied: an operator's pause, or a store that fails. */
export function haltRows({ pauses, failing }: Pick<StatusAnswer, 'pauses' | 'failing'>): string[][] {
  return [...pauseRows(pauses), ...failing.map(failingRow)];
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

/** A store that fails, and one that answers again and has not proven it yet. */
export function failingRow(failing: SyncAnswer['failing'][number]): string[] {
  const { store, phase, detail, sinceMs, changedMs, nextTryMs } = failing;
  if (phase === 'trial') {
    const what = `since ${isoOf(changedMs)}, until a first copy has succeeded; it failed from ${isoOf(sinceMs)} on: ${detail}`;
    return [`on trial: ${store}`, plain(what)];
  }
  const again = nextTryMs === null ? '' : `, tried again at ${isoOf(nextTryMs)}`;
  return [`FAILING: ${store}`, plain(`since ${isoOf(sinceMs)}${again}: ${detail}`)];
}

/** Before everything else: what stands below is what a ledger says that has lost data. */
export function lossLines({ detail, atMs, by }: NonNullable<StatusAnswer['regression']>): string[] {
  const says = by === '' ? '' : ` ${plain(by)} says so.`;
  return [
    `LEDGER LOST DATA: ${plain(detail)}.${says}`,
    `Writes are refused, and nothing is copied, moved or erased until it is restored; noticed at ${isoOf(atMs)}. Next:`,
    '  onewriter ledger restore --from member --plan --reason TEXT',
  ];
}

export function copiesLine({ regression, lagMs }: Pick<SyncAnswer, 'regression' | 'lagMs'>): string {
  if (regression !== null) return 'STOPPED: nothing is copied until the ledger is restored';
  return lagMs === null ? 'no complete poll yet' : `${Math.round(lagMs)} ms behind`;
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
