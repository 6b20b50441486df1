/** What is believed of an answer to a call with many records. */
import { expect, test } from '@jest/globals';
import type { Json } from '../../../src/core/records.ts';
import { bulkBody, readBulkAnswer } from '../../../src/stores/rest/bulk.ts';

const sent = ['1', '2', '3'].map((id) => ({ kind: 'item', id, fields: { id, title: `item ${id}` } }));

function written(status: number, body?: Json, copies = sent): string {
  const outcome = readBulkAnswer({ status, headers: {}, body }, copies, 'id');
  return [...outcome.written].join(' ') + (outcome.mayStillHappen ? ' later' : '');
}

test('the body is the array of the records, or the template with the array in its place', () => {
  const items = [{ id: '1' }, { id: '2' }];
  expect(bulkBody(undefined, items)).toEqual(items);
  expect(bulkBody({ mode: 'upsert', data: { records: '{items}' } }, items)).toEqual({
    mode: 'upsert',
    data: { records: items },
  });
});

test('a success that names no record covers all of them; 202 and 207 cover none', () => {
  expect(written(200)).toBe('1 2 3');
  expect(written(201, { count: 3, took: 5 })).toBe('1 2 3');
  expect(written(200, { errors: [] })).toBe('1 2 3');
  expect(written(200, { errors: false })).toBe('1 2 3');
  expect(written(202)).toBe(' later');
  expect(written(207)).toBe('');
});

test.each<[string, number, Json, string]>([
  [
    'statuses by id',
    207,
    [
      { id: '1', status: 201 },
      { id: 2, status: 409 },
      { id: '3', status: '200' },
    ],
    '1 3',
  ],
  ['an accepted one', 200, { results: [{ id: '1', status: 202 }, { id: '2' }, { id: '3' }] }, '2 3'],
  [
    'words',
    200,
    {
      results: [
        { id: '1', status: 'created' },
        { id: '2', status: 'failed', at: 1, by: 2 },
      ],
    },
    '1',
  ],
  ['errors by id', 200, { errors: [{ id: '2', error: 'too long' }] }, '1 3'],
  ['errors by index', 207, { errors: [{ index: 0, message: 'too long' }] }, '2 3'],
  ['an error without a name', 200, { errors: [{ message: 'one of them is too long' }] }, ''],
  ['results by position', 200, { results: [200, 500, 201] }, '1 3'],
  ['flags', 200, { items: [{ ok: true }, { success: false }, { error: null }] }, '1 3'],
  ['results that leave out one', 200, { results: [{ id: '1', status: 200 }] }, '1'],
  ['no results', 200, { results: [] }, ''],
  [
    'both lists',
    200,
    { results: [{ id: '1' }, { id: '2' }, { id: '3' }], errors: [{ id: '3', code: 5 }] },
    '1 2',
  ],
])('of %s only those that succeeded are believed', (_, status, body, expected) => {
  expect(written(status, body)).toBe(expected);
});

test('records that are given back count as written, whatever their own status says', () => {
  const withStatus = sent.map((copy) => ({ ...copy, fields: { ...copy.fields, status: 'cancelled' } }));
  expect(
    written(
      200,
      withStatus.map(({ fields }) => fields),
      withStatus,
    ),
  ).toBe('1 2 3');
});
