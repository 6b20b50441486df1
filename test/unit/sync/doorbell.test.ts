import { expect, test } from '@jest/globals';
import type { RecordKey } from '../../../src/core/ports.ts';
import { BatchingDoorbell } from '../../../src/sync/doorbell.ts';

function keyOf(id: string): RecordKey {
  return { partition: 'ann', kind: 'appointment', id };
}

test('is closed when every ring so far has been sent, in batches', async () => {
  const sent: (readonly RecordKey[])[] = [];
  const doorbell = new BatchingDoorbell({
    ringRecords: (records) => {
      sent.push(records);
      return Promise.resolve();
    },
    onFailure: () => undefined,
  });
  for (let at = 0; at < 700; at += 1) doorbell.ring(keyOf(String(at)));
  await doorbell.close();
  expect(sent.map((batch) => batch.length)).toEqual([500, 200]);
});

test('rings that cannot be sent are counted and never disturb the request', async () => {
  const failures: number[] = [];
  const doorbell = new BatchingDoorbell({
    ringRecords: () => Promise.reject(new Error('Redis is away')),
    onFailure: (_error, records) => failures.push(records),
    waitingMax: 3,
  });
  for (let at = 0; at < 5; at += 1) doorbell.ring(keyOf(String(at)));
  expect(doorbell.dropped).toBe(2);
  await doorbell.close();
  expect(failures).toEqual([3]);
  expect(doorbell.dropped).toBe(5);
});
