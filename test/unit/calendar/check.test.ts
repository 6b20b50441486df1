/** The example's judge: a clean run has no findings, and each planted violation is found. */
import { describe, expect, test } from '@jest/globals';
import type { AcceptedWrite, Appointment } from '../../../examples/calendar/appointment.ts';
import {
  checkJournal,
  type CheckInput,
  type FindingKind,
  parseJournal,
} from '../../../examples/calendar/check.ts';
import type { Ended, JournalEntry } from '../../../examples/calendar/journal.ts';

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };
interface Run {
  journal: JournalEntry[];
  legacyDump: Mutable<Appointment>[];
  appDump: Mutable<Appointment>[];
  legacyLog: Mutable<AcceptedWrite>[];
  appLog: Mutable<AcceptedWrite>[];
  ownership: Mutable<CheckInput['ownership']>;
}

function ended(request: number, at_ms: number, rest: Partial<Ended>): Ended {
  const fixed = { step: 'ok', user: 'u1', proxy: 'p', method: 'PUT', status: 200, tookMs: 1 } as const;
  return { ...fixed, at_ms, request, ...rest };
}

function logged(at_ms: number, method: AcceptedWrite['method'], id: string, title: string): AcceptedWrite {
  return { at_ms, user: 'u1', hand: 'user', method, id, owner_id: 'u1', title };
}

function held(id: string, title: string, day: number): Appointment {
  const at = (hours: number): string => new Date(Date.UTC(2027, 0, day, hours)).toISOString();
  const empty = { location: null, notes: null, updated_at: at(0), deleted_at: null };
  return { id, owner_id: 'u1', title, starts_at: at(9), ends_at: at(10), ...empty };
}

/** u1 creates L1 and L2 on legacy, is moved at 150, moves L1 and makes A1 on the app; L2 is cancelled. */
function cleanRun(): Run {
  return {
    journal: [
      ended(1, 100, { method: 'POST', id: 'L1', title: 't1', status: 201 }),
      ended(2, 110, { method: 'POST', id: 'L2', title: 't2', status: 201 }),
      ended(3, 120, { step: 'fail', id: 'L1', title: 't3', status: 503, code: 'fenced' }),
      ended(4, 200, { id: 'L1', title: 't4' }),
      ended(5, 210, { method: 'POST', id: 'A1', title: 't5', status: 201 }),
      ended(6, 220, { method: 'DELETE', id: 'L2', status: 204 }),
    ],
    legacyDump: [held('L1', 't1', 1), held('L2', 't2', 2)],
    appDump: [held('L1', 't4', 4), held('A1', 't5', 5), { ...held('L2', 't2', 2), deleted_at: 'x' }],
    legacyLog: [logged(100, 'POST', 'L1', 't1'), logged(110, 'POST', 'L2', 't2')],
    appLog: [
      { ...logged(140, 'PUT', 'L1', 't1'), hand: 'copy' },
      logged(200, 'PUT', 'L1', 't4'),
      logged(210, 'POST', 'A1', 't5'),
      logged(220, 'DELETE', 'L2', 't2'),
    ],
    ownership: { u1: [{ owner: 'app', fromMs: 150 }] },
  };
}

function findings(plant: (run: Run) => void): FindingKind[] {
  const run = cleanRun();
  plant(run);
  return [...new Set(checkJournal(run).findings.map(({ finding }) => finding))].toSorted();
}

describe('a clean run', () => {
  test('has no findings, and its numbers are told', () => {
    expect(checkJournal(cleanRun())).toEqual({
      acknowledgedWrites: 5,
      unknownWrites: 0,
      findings: [],
      count: { lost: 0, doubled: 0, 'wrong-store': 0, overlap: 0, 'refused-but-done': 0 },
      failedByCode: { fenced: 1 },
      brokenConnections: 0,
    });
  });

  test('stays clean whether a write in doubt took effect or not', () => {
    const unknown: Ended = {
      ...ended(7, 230, { step: 'unknown', id: 'A1', title: 't7', code: 'connection-broken' }),
    };
    const { status: _, ...withoutStatus } = unknown;
    expect(findings((run) => run.journal.push(withoutStatus))).toEqual([]);
    const effective = (run: Run): void => {
      run.journal.push(withoutStatus);
      run.appLog.push(logged(230, 'PUT', 'A1', 't7'));
      run.appDump[1] = held('A1', 't7', 7);
    };
    expect(findings(effective)).toEqual([]);
    const run = cleanRun();
    effective(run);
    expect(checkJournal(run)).toMatchObject({
      unknownWrites: 1,
      brokenConnections: 1,
      failedByCode: { fenced: 1 },
    });
  });

  test('stays clean with a write that started and never ended, as when the traffic was killed', () => {
    const { status: _, tookMs: __, ...rest } = ended(7, 230, { id: 'A1', title: 't7' });
    expect(
      findings((run) => {
        run.journal.push({ ...rest, step: 'invoke' });
        run.appDump[1] = held('A1', 't7', 7);
        run.appLog.push(logged(230, 'PUT', 'A1', 't7'));
      }),
    ).toEqual([]);
  });

  test('stays clean when the user is moved to the app and back', () => {
    expect(
      findings((run) => {
        run.ownership['u1'] = [
          { owner: 'app', fromMs: 150 },
          { owner: 'legacy', fromMs: 300 },
        ];
        run.legacyDump = run.appDump;
        run.legacyLog.push(logged(310, 'PUT', 'L1', 't8'));
        run.journal.push(ended(8, 310, { id: 'L1', title: 't8' }));
        run.legacyDump[0] = held('L1', 't8', 8);
      }),
    ).toEqual([]);
  });
});

describe('found is', () => {
  const planted: [string, FindingKind[], (run: Run) => void][] = [
    ['an acknowledged create that no store logged', ['lost'], (run) => void run.appLog.splice(2, 1)],
    ['an acknowledged create that the owner does not hold', ['lost'], (run) => void run.appDump.splice(1, 1)],
    ['an acknowledged change that the owner forgot', ['lost'], (run) => void (run.appDump[0] = held('L1', 't1', 1))],
    ['a change at the old owner that was not copied', ['lost'], (run) => {
      run.journal.push(ended(7, 130, { method: 'POST', id: 'L3', title: 't6' }));
      run.legacyLog.push(logged(130, 'POST', 'L3', 't6'));
      run.legacyDump.push(held('L3', 't6', 6));
    }],
    ['an acknowledged cancel that the owner undid', ['lost'], (run) => void (run.appDump[2] = held('L2', 't2', 2))],
    ['a request that took effect twice in one store', ['doubled'], (run) => void run.appLog.push(logged(201, 'PUT', 'L1', 't4'))],
    ['a request that took effect in both stores', ['doubled', 'wrong-store'], (run) => void run.legacyLog.push(logged(201, 'PUT', 'L1', 't4'))],
    ['a create that the owner holds under two ids', ['doubled'], (run) => void run.appDump.push(held('A2', 't5', 6))],
    ['an appointment that the owner holds twice', ['doubled', 'overlap'], (run) => void run.appDump.push(held('A1', 't5', 5))],
    ['a write that legacy took after the move', ['wrong-store'], (run) => void run.legacyLog.push(logged(205, 'PUT', 'L1', 'unseen'))],
    ['a write that the app took before the move', ['wrong-store'], (run) => void run.appLog.push(logged(105, 'POST', 'A7', 'unseen'))],
    ['a user’s write in the app who was never moved', ['wrong-store', 'lost'], (run) => void (run.ownership = {})],
    ['a double booking in the owner’s store', ['overlap'], (run) => void run.appDump.push(held('A9', 'unseen', 4))],
    ['a write that was refused and yet took effect', ['refused-but-done'], (run) => void run.legacyLog.push(logged(120, 'PUT', 'L1', 't3'))],
  ]; // prettier-ignore

  test.each(planted)('%s', (_, expected, plant) => {
    expect(findings(plant)).toEqual(expected.toSorted());
  });

  test('nothing in the copy: what the store without the writes holds is not judged', () => {
    expect(findings((run) => run.legacyDump.push(held('L8', 'old', 1)))).toEqual([]);
  });
});

test('a journal whose last line was cut off is read up to there', () => {
  const entry = ended(1, 100, { id: 'L1', title: 't' });
  expect(parseJournal(`${JSON.stringify(entry)}\n{"step":"ok","at`)).toEqual([entry]);
});
