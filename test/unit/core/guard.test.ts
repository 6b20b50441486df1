import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  type GuardAccess,
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
  writtenSinceSeal,
} from '../../../src/core/guard.ts';

type Call = readonly [GuardAccess | 'advance' | 'seal', number];

function rowAfter(row: GuardRow, [call, epoch]: Call): GuardRow {
  if (call === 'advance') return guardAdvance(row, epoch);
  return call === 'seal' ? guardSeal(row, epoch) : guardVerdict(row, call, epoch).row;
}

/** Every row of the history, and what each write or copy was told. */
function history(...calls: Call[]): string[] {
  let row = unknownToGuard;
  return calls.map((call) => {
    const [access, epoch] = call;
    const verdict = access === 'advance' || access === 'seal' ? undefined : guardVerdict(row, access, epoch);
    row = rowAfter(row, call);
    const told = verdict === undefined ? '' : verdict.accept ? 'accepted: ' : `${verdict.code}: `;
    return `${told}${row.epoch} ${row.owner}${row.closed ? ' closed' : ''}${row.written ? ' written' : ''}`;
  });
}

test('an advance to the epoch before the fence ends the copies that were sent before it, and no others', () => {
  expect(history(['copy', 1], ['advance', 1], ['copy', 1], ['copy', 2], ['advance', 1], ['copy', 2])).toEqual(
    [
      'accepted: 1 legacy',
      '1 legacy closed',
      'closed-epoch: 1 legacy closed',
      'accepted: 2 legacy',
      '2 legacy',
      'accepted: 2 legacy',
    ],
  );
});

describe('the mark of the guard', () => {
  test('is set by the first user’s write that is accepted after a seal, and by nothing else', () => {
    expect(history(['copy', 1], ['seal', 2], ['read', 4], ['copy', 2], ['write', 2])).toEqual([
      'accepted: 1 legacy',
      '2 app closed',
      'accepted: 2 app closed',
      'closed-epoch: 2 app closed',
      'closed-epoch: 2 app closed',
    ]);
    expect(history(['seal', 2], ['write', 4], ['write', 4], ['advance', 5]).slice(1)).toEqual([
      'accepted: 4 app written',
      'accepted: 4 app written',
      '5 app closed written',
    ]);
  });

  test('is not set by a user’s write that legacy owned and the guard refused', () => {
    expect(history(['copy', 1], ['write', 1])[1]).toBe('legacy-owns: 1 legacy');
  });

  test('stays over an advance, an abort and copies, and only a seal clears it', () => {
    expect(
      history(
        ['seal', 2],
        ['write', 4],
        ['advance', 5],
        ['write', 6],
        ['advance', 7],
        ['copy', 9],
        ['seal', 10],
      ),
    ).toEqual([
      '2 app closed',
      'accepted: 4 app written',
      '5 app closed written',
      'accepted: 6 app written',
      '7 app closed written',
      'accepted: 9 legacy written',
      '10 app closed',
    ]);
  });

  test('in every history, it is the same as a user’s write accepted since the last seal that was taken', () => {
    const call = fc.constantFrom('read', 'write', 'write', 'copy', 'advance', 'seal') as fc.Arbitrary<
      Call[0]
    >;
    const calls = fc.array(fc.tuple(call, fc.nat({ max: 8 })), { maxLength: 16 });
    fc.assert(
      fc.property(calls, (calls) => {
        let row = unknownToGuard;
        let written = false;
        for (const [call, epoch] of calls) {
          if (call === 'seal' && epoch >= row.epoch) written = false;
          if (call === 'write' && guardVerdict(row, call, epoch).accept) written = true;
          row = rowAfter(row, [call, epoch]);
          expect(row.written).toBe(written);
          // The SQL takes only a share lock on an open row, so there must be nothing left to mark on it.
          if (row.owner === 'app' && !row.closed) expect(row.written).toBe(true);
        }
      }),
      { numRuns: 2_000, seed: 3 },
    );
  });
});

describe('what an answer of the guard proves', () => {
  test('is nothing where the guard does not count, or never saw the app become the owner', () => {
    expect(writtenSinceSeal({ owner: 'app', written: false })).toBe(false);
    expect(writtenSinceSeal({ owner: 'app', written: true })).toBe(true);
    expect(writtenSinceSeal({ owner: 'app' })).toBeUndefined();
    expect(writtenSinceSeal({ written: false })).toBeUndefined();
    expect(writtenSinceSeal(unknownToGuard)).toBeUndefined();
  });
});

describe('a clean way back, in the rows of the guard', () => {
  // Forward: fence 2, seal 2, commit 3, open at the app 4. Back: fence 5, advance 5, commit 6, legacy 7.
  const back: Call[] = [['copy', 1], ['seal', 2], ['advance', 5]]; // prettier-ignore

  test('after it, copies under the new epoch are accepted, and say that legacy owns again', () => {
    expect(history(...back, ['copy', 5], ['copy', 7], ['copy', 7]).slice(2)).toEqual([
      '5 app closed',
      'closed-epoch: 5 app closed',
      'accepted: 7 legacy',
      'accepted: 7 legacy',
    ]);
  });

  test('a write of the app’s old epoch that wakes up late is refused, before and after the first copy', () => {
    expect(history(...back, ['write', 4]).at(-1)).toBe('stale-epoch: 5 app closed');
    expect(history(...back, ['write', 5]).at(-1)).toBe('closed-epoch: 5 app closed');
    expect(history(...back, ['copy', 7], ['write', 4]).at(-1)).toBe('stale-epoch: 7 legacy');
    expect(history(...back, ['copy', 7], ['write', 7]).at(-1)).toBe('legacy-owns: 7 legacy');
  });

  test('an advance or a seal of an earlier attempt that comes late changes nothing', () => {
    expect(history(...back, ['seal', 2], ['advance', 4], ['copy', 7], ['seal', 2]).slice(3)).toEqual([
      '5 app closed',
      '5 app closed',
      'accepted: 7 legacy',
      '7 legacy',
    ]);
  });

  test('an aborted one leaves the app where it was: its next write is accepted and marked', () => {
    expect(history(...back, ['write', 6], ['advance', 7]).slice(3)).toEqual([
      'accepted: 6 app written',
      '7 app closed written',
    ]);
  });

  test('forward again, the seal lets the app’s users in under their new epoch', () => {
    expect(history(...back, ['copy', 7], ['copy', 8], ['seal', 8], ['write', 10]).slice(4)).toEqual([
      'accepted: 8 legacy',
      '8 app closed',
      'accepted: 10 app written',
    ]);
  });
});
