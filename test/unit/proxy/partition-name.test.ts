/** A partition has one spelling: what stores could read as the name of another one is refused. */
import { expect, test } from '@jest/globals';
import type { IncomingMessage } from 'node:http';
import { createClassifier } from '../../../src/proxy/classify.ts';
import { isGoodName } from '../../../src/proxy/field.ts';
import { nameTestOf } from '../../../src/proxy/partition-name.ts';
import { configOf } from '../../support/proxy.ts';

test.each([
  ...[' 1', '1 ', '1\u00a0', '\u00851', '1\u3000', '\ufeff1', '1\u2028', '1\t'],
  ...['u\u200b1', 'u1\u00ad', 'u\u200d1', '\u2060u1', 'a\u0308'],
])('%j is no name of anybody', (name) => {
  expect(isGoodName(name)).toBe(false);
});

test.each(['ann lee', '\u00e4', 'ann@example.com', '\u65e5\u672c', '\u{1f600}', 'a b', '007', '+1'])(
  '%j is a name',
  (name) => {
    expect(isGoodName(name)).toBe(true);
  },
);

const numbers = ['01', '007', '00', '+1', '-1', '1.0', '1.', '\uff11', '\u0661', '1\uff11', '+01', '\uff0b1'];
test('a whole number has one spelling, unless a pattern says what names look like', () => {
  const byDefault = nameTestOf({});
  for (const name of numbers) expect([name, byDefault(name)]).toEqual([name, false]);
  for (const name of ['0', '1', '10', '1abc', 'u01', '2024-01', '1.5', 'A', '0x1', '0a', '\u00e9']) {
    expect([name, byDefault(name)]).toEqual([name, true]);
  }
  const personnel = nameTestOf({ partitionNames: { pattern: '[0-9]{3}', letterCase: 'exact' } });
  expect(['007', '123', '7', '0071', '007\n', 'a007'].filter(personnel)).toEqual(['007', '123']);
  const either = nameTestOf({ partitionNames: { pattern: 'a|b', letterCase: 'exact' } });
  expect(['a', 'b', 'ax', 'xb'].filter(either)).toEqual(['a', 'b']);
});

test('where letter case does not count for the stores, names have small letters', () => {
  const lower = nameTestOf({ partitionNames: { letterCase: 'lower' } });
  expect(['ann', 'Ann', '\u00c4', '\u00e4', '1', '01', '\u65e5'].filter(lower)).toEqual([
    'ann',
    '\u00e4',
    '1',
    '\u65e5',
  ]);
});

interface Sent {
  readonly url?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly user?: string;
  readonly claims?: Record<string, unknown>;
  readonly directory?: string;
}

/** Where a write is sent that names `name` in one of the places. */
function placeOf(changes: Record<string, unknown>, sent: Sent): unknown {
  const { url = '/x', headers = {}, body, user = 'u1', claims = {}, directory } = sent;
  const all = { host: 'h', 'content-type': 'application/json', ...headers };
  const request = {
    ...{ method: 'POST', url, httpVersion: '1.1', socket: {} },
    headers: body === undefined ? all : { ...all, 'content-length': String(body.length) },
    rawHeaders: Object.entries(all).flat(),
  } as unknown as IncomingMessage;
  const classifier = createClassifier(configOf(changes), { cached: () => directory ?? null });
  let match = classifier.match(request, false);
  if (match.match === 'needs-body') match = match.with(Buffer.from(body ?? ''));
  if (match.match !== 'request') throw new Error(match.match);
  const place = classifier.place(request, match.request, { user, credential: 'header', claims });
  return place.place === 'refused' ? place.failure : place.place === 'partition' && place.partition;
}

const places: [place: string, changes: Record<string, unknown>, sent: (name: string) => Sent][] = [
  ['user', { partition: [{ by: 'user' }] }, (user) => ({ user })],
  ['claim', { partition: [{ claim: 'org' }] }, (org) => ({ claims: { org } })],
  ['header', { partition: [{ header: 'x-org' }] }, (org) => ({ headers: { 'x-org': org } })],
  ['query', { partition: [{ query: 'org' }] }, (org) => ({ url: `/x?org=${encodeURIComponent(org)}` })],
  ['body', { partition: [{ body: 'org' }] }, (org) => ({ body: JSON.stringify({ org }) })],
  ['directory', { partition: [{ directory: true }] }, (directory) => ({ directory })],
  ['path', { partition: [{ path: '/o/:partition' }] }, (org) => ({ url: `/o/${encodeURIComponent(org)}` })],
  [
    'list',
    { routes: [{ path: '/x', partitions: 'query.ids[*]' }] },
    (id) => ({ url: `/x?ids=${encodeURIComponent(id)}` }),
  ],
];
test.each(places)('a name in the %s is judged so', (_, changes, sent) => {
  const refused = {
    code: 'no-partition',
    detail: expect.stringContaining('partitionNames in the configuration'),
  };
  for (const name of ['01', '+1', '1 ']) expect(placeOf(changes, sent(name))).toEqual(refused);
  expect(placeOf(changes, sent('1'))).toBe('1');
  const letters = { ...changes, partitionNames: { pattern: '[a-z]+' } };
  expect(placeOf(letters, sent('ann'))).toBe('ann');
  for (const name of ['Ann', '1', 'ann1']) expect(placeOf(letters, sent(name))).toEqual(refused);
  expect(placeOf({ ...changes, partitionNames: { letterCase: 'lower' } }, sent('Ann'))).toEqual(refused);
});
