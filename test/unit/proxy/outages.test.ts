import { expect, test } from '@jest/globals';
import { Outages } from '../../../src/proxy/outages.ts';
import { ClientBrokeOff } from '../../../src/proxy/upload.ts';

function watched(quietMs: number, againMs = 60_000) {
  const lines: unknown[][] = [];
  const log = (_level: string, event: string, fields: Readonly<Record<string, unknown>> = {}): void =>
    void lines.push([event, fields['store'], fields['count']]);
  return { lines, outages: new Outages({ log, quietMs, againMs }) };
}

test('a store that fails is told of once, and once when it answers again', () => {
  const { lines, outages } = watched(0);
  outages.answered('app');
  for (let time = 0; time < 3; time += 1) outages.failed('app', 'refused', new Error('ECONNREFUSED'));
  outages.answered('legacy');
  expect(lines).toEqual([['upstream.failing', 'app', 1]]);
  outages.answered('app');
  outages.answered('app');
  expect(lines.slice(1)).toEqual([['upstream.recovered', 'app', 3]]);
});

test('one answer among failures does not end it, and one that lasts is told of again', () => {
  const { lines, outages } = watched(3_600_000, 0);
  outages.failed('app', 'timeout', undefined);
  outages.answered('app');
  outages.failed('app', 'timeout', undefined);
  expect(lines).toEqual([
    ['upstream.failing', 'app', 1],
    ['upstream.failing', 'app', 2],
  ]);
});

test.each([
  ['pool-full', new Error('full')],
  ['cancelled', new Error('gone')],
  ['hook', new Error('no')],
  ['broken', new ClientBrokeOff()],
])('what is not the fault of the store (%s) is not told of it', (stage, cause) => {
  const { lines, outages } = watched(0);
  outages.failed('app', stage, cause);
  expect(lines).toEqual([]);
});
