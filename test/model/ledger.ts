/**
 * The ledger as Redis keeps it, one immutable state per step: core's rule inside one compare-and-set, the
 * stream of changes, the list of members. Mirrors src/ledger/ledger.ts and the scripts in src/ledger/lua.
 */
import type { Heartbeat } from '../../src/core/member.ts';
import type { Ownership, TransitionOrder } from '../../src/core/ownership.ts';
import type { Position, Transition } from '../../src/core/view.ts';
import type { Core } from './core.ts';
import type { HeartbeatAnswer, LedgerState, Rules, TakenSnapshot } from './types.ts';

/** Changes that the stream keeps; who is further behind loads a snapshot. */
const changesKept = 60;
const opensKept = 12;

export const partitionName = (partition: number): string => `p${partition}`;

export function emptyLedger(core: Core, partitions: number): LedgerState {
  const ownership = core.untouched('legacy');
  return {
    records: Array.from({ length: partitions }, () => ({ ownership, opens: [openName(ownership)] })),
    position: { version: 0, id: '' },
    changes: [],
    members: [],
    departedAt: -1_000,
    regressed: false,
  };
}

export type SwapResult =
  | { readonly result: 'done'; readonly ledger: LedgerState }
  | { readonly result: 'refused'; readonly ledger: LedgerState };

/**
 * lua/transition.lua: stores what core's rule makes of `before`, if the record still has its phase, epoch and
 * attempt, and the deadline rule holds by the ledger's own clock.
 */
export function swap(
  core: Core,
  ledger: LedgerState,
  partition: number,
  before: Ownership,
  order: TransitionOrder,
  now: number,
  id: string,
): SwapResult {
  const record = ledger.records[partition];
  if (record === undefined || ledger.regressed) return { result: 'refused', ledger };
  const current = record.ownership;
  const same =
    current.phase === before.phase &&
    current.epoch === before.epoch &&
    core.attemptOf(current) === core.attemptOf(before);
  if (!same) return { result: 'refused', ledger };
  const after = core.applyOrder(current, order, now);
  if (core.isRefusal(after)) return { result: 'refused', ledger };
  const position = { version: ledger.position.version + 1, id };
  const change: Transition = {
    kind: 'ownership',
    ...position,
    partition: partitionName(partition),
    before: current,
    after,
    atMs: now,
    by: '',
    reason: '',
    ...previousOf(ledger),
  };
  const opens = after.phase === 'open' ? [...record.opens, openName(after)].slice(-opensKept) : record.opens;
  const records = ledger.records.with(partition, { ownership: after, opens });
  return {
    result: 'done',
    ledger: { ...ledger, records, position, changes: [...ledger.changes, change].slice(-changesKept) },
  };
}

/** A change of something else, which every member must follow all the same. */
export function foreignChange(ledger: LedgerState, now: number, id: string): LedgerState {
  const position = { version: ledger.position.version + 1, id };
  const change = {
    kind: 'doubt-resolved',
    ...position,
    ...{ partition: 'another', atMs: now, by: '', reason: '' },
    ...previousOf(ledger),
  } as const;
  return { ...ledger, position, changes: [...ledger.changes, change].slice(-changesKept) };
}

/** The id before, as far as changes carry it. */
function previousOf(ledger: LedgerState): { readonly previousId: string } {
  return { previousId: ledger.position.id };
}

export function register(ledger: LedgerState, id: string, now: number): LedgerState {
  const others = ledger.members.filter((member) => member.id !== id);
  return { ...ledger, members: [...others, { id, movedAt: now }] };
}

/** lua/depart.lua */
export function depart(ledger: LedgerState, id: string, now: number): LedgerState {
  return { ...ledger, members: ledger.members.filter((member) => member.id !== id), departedAt: now };
}

/** lua/heartbeat.lua */
export function heartbeat(
  ledger: LedgerState,
  id: string,
  beat: Heartbeat,
  rules: Rules,
  now: number,
): { readonly ledger: LedgerState; readonly answer: HeartbeatAnswer } {
  if (ledger.regressed) return { ledger, answer: { answer: 'ledger-regressed' } };
  if (holds(ledger, beat.confirmed, rules) === false) {
    return { ledger: { ...ledger, regressed: true }, answer: { answer: 'ledger-regressed' } };
  }
  if (holds(ledger, beat.applied, rules) === false) return { ledger, answer: { answer: 'view-ahead' } };
  if (!ledger.members.some((member) => member.id === id)) return { ledger, answer: { answer: 'not-listed' } };
  const members = ledger.members.map((member) => (member.id === id ? { id, movedAt: now } : member));
  return { ledger: { ...ledger, members }, answer: { answer: 'ok', version: ledger.position.version } };
}

/** Undefined where the entry is too old to be kept. */
function holds(ledger: LedgerState, position: Position, rules: Rules): boolean | undefined {
  if (position.version === 0) return true;
  if (position.version > ledger.position.version) return false;
  if (!rules.positionsComparedById) return true;
  if (position.version === ledger.position.version) return position.id === ledger.position.id;
  const entry = ledger.changes.find(({ version }) => version === position.version);
  return entry && entry.id === position.id;
}

export function takeSnapshot(core: Core, ledger: LedgerState): TakenSnapshot {
  const untouched = core.untouched('legacy').epoch;
  const partitions = ledger.records
    .map(({ ownership }, partition) => [partitionName(partition), ownership] as const)
    .filter(([, { epoch }]) => epoch !== untouched);
  return { position: ledger.position, partitions };
}

export function openName(ownership: Ownership): string {
  return `${ownership.epoch}:${ownership.owner}`;
}
