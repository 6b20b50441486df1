import { describe, expect, test } from '@jest/globals';
import { decideCopy, differencesOf, sameValue, type StoreRecord } from '../../../src/core/records.ts';
import type { Ownership } from '../../../src/core/ownership.ts';

const held = (id: string, fields: StoreRecord['fields'], deleted = false): StoreRecord => ({
  ...{ kind: 'note', id, partition: 'u', fields, deleted },
});
const none: ReadonlySet<string> = new Set();

describe('a comparison', () => {
  test('finds what is missing, changed and extra', () => {
    const wanted = [
      { kind: 'note', id: '1', fields: { text: 'a' } },
      { kind: 'note', id: '2', fields: { text: 'b' } },
    ];
    const found = differencesOf(wanted, [held('2', { text: 'x' }), held('3', { text: 'c' })], none);
    expect(found).toEqual([
      { difference: 'missing', copy: wanted[0] },
      { difference: 'changed', copy: wanted[1], fields: [{ field: 'text', owner: 'b', copy: 'x' }] },
      { difference: 'extra', kind: 'note', id: '3' },
    ]);
  });

  test('sees a field that the owner has dropped, and none that only the app has', () => {
    const wanted = [
      { kind: 'note', id: '1', fields: { text: 'a' } },
      { kind: 'note', id: '2', fields: { text: 'b', colour: 'red' } },
    ];
    const found = differencesOf(
      wanted,
      [held('1', { text: 'a', colour: 'blue', made_at: 1 }), held('2', { text: 'b', colour: 'red' })],
      none,
    );
    expect(found).toMatchObject([{ difference: 'changed', fields: [{ field: 'colour', copy: 'blue' }] }]);
  });

  test('leaves out what was matched already, such as an id that is a number here and a text there', () => {
    const wanted = [{ kind: 'note', id: '17', fields: { id: 17, text: 'a' } }];
    expect(differencesOf(wanted, [held('17', { id: '17', text: 'a' })], new Set(['id']))).toEqual([]);
  });

  test('counts what the copy holds in a field that the record lacks, unless its store put it there', () => {
    const lacks = [{ field: 'colour', isOwn: (value: unknown) => value === 'grey' }];
    const wanted = [{ kind: 'note', id: '1', fields: { text: 'a', colour: null }, lacks }];
    const fieldsOf = (colour: string | null) => {
      const [found] = differencesOf(wanted, [held('1', { text: 'a', colour })], none);
      return found?.difference === 'changed' ? found.fields : found;
    };
    expect(fieldsOf('blue')).toEqual([{ field: 'colour', owner: null, copy: 'blue' }]);
    expect([fieldsOf('grey'), fieldsOf(null)]).toEqual([undefined, undefined]);
    expect(differencesOf(wanted, [held('1', { text: 'a', colour: 'blue' })], new Set(['colour']))).toEqual(
      [],
    );
  });

  test('takes a deleted copy for absent', () => {
    const wanted = [{ kind: 'note', id: '1', fields: {} }];
    expect(differencesOf(wanted, [held('1', {}, true)], none)).toMatchObject([{ difference: 'missing' }]);
  });

  test.each([
    ['2026-01-01T10:00:00Z', '2026-01-01T11:00:00.000+01:00', true],
    ['2026-01-01T10:00:00Z', '2026-01-01T10:00:01Z', false],
    ['2026-01-01T10:00:00.123456Z', '2026-01-01T10:00:00.123999Z', false],
    ['2026-01-01T10:00:00.120Z', '2026-01-01T10:00:00.12Z', true],
    ['10', 10, false],
    [null, undefined, true],
    [{ a: 1, b: [1, { c: null }] }, { b: [1, {}], a: 1 }, true],
    [[1, 2], [2, 1], false],
    [{ a: 1 }, [1], false],
    ['', null, false],
  ])('of %j and %j says %j', (left, right, same) => {
    expect(sameValue(left, right)).toBe(same);
    expect(sameValue(right, left)).toBe(same);
  });
});

describe('a copy', () => {
  const fenced: Ownership = {
    ...{ phase: 'fenced', owner: 'legacy', to: 'app', epoch: 2, attempt: 'a', deadlineMs: 0 },
  };
  const sync = { hand: 'sync' } as const;
  const handoff = { hand: 'handoff', attempt: 'a' } as const;

  test('goes from the owner to the other store, under the epoch of the ledger', () => {
    const open: Ownership = { phase: 'open', owner: 'legacy', epoch: 1 };
    expect(decideCopy(open, sync, ['app'])).toEqual({ copy: 'yes', from: 'legacy', to: 'app', epoch: 1 });
  });

  test('never goes to a store that has no writer', () => {
    expect(decideCopy({ phase: 'open', owner: 'app', epoch: 4 }, sync, ['app'])).toMatchObject({
      copy: 'no',
    });
  });

  test('is made in a fence only by the handoff that holds it', () => {
    expect(decideCopy(fenced, handoff, ['app'])).toMatchObject({ copy: 'yes', epoch: 2 });
    expect(decideCopy(fenced, { hand: 'handoff', attempt: 'b' }, ['app'])).toMatchObject({ copy: 'no' });
    expect(decideCopy(fenced, sync, ['app'])).toMatchObject({ copy: 'no' });
  });

  test('is made by no handoff whose fence is gone, and by nobody once committed', () => {
    expect(decideCopy({ phase: 'open', owner: 'legacy', epoch: 3 }, handoff, ['app'])).toMatchObject({
      copy: 'no',
    });
    const committed: Ownership = { phase: 'committed', owner: 'app', epoch: 3, attempt: 'a' };
    for (const hand of [sync, handoff])
      expect(decideCopy(committed, hand, ['app'])).toMatchObject({ copy: 'no' });
  });
});
