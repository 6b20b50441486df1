/** A full pass over stores that are larger than what may be kept in memory. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { RecordKey } from '../../src/core/ports.ts';
import { surveyKind } from '../../src/sync/survey.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';

let server: TestRedis;
let rig: SyncRig;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const records = Array.from({ length: 60 }, (_, at) => appointment(`r${at}`, `user-${at % 12}`));

async function surveyed(keptMax: number) {
  const keys: RecordKey[] = [];
  const { readers } = rig.sync;
  const survey = await surveyKind(
    'appointment',
    { owner: readers.legacy, copy: readers.app },
    {
      onPartitions: () => Promise.resolve(),
      onDifferent: (found) => {
        keys.push(...found);
        return Promise.resolve(true);
      },
      keptMax,
    },
    never,
  );
  return { survey, ids: new Set(keys.map(({ partition, id }) => `${partition} ${id}`)) };
}

test('in slices it finds what it finds in one go', async () => {
  const paged = { paging: 'cursor', pageSize: 7 } as const;
  const held = records.filter(({ id }) => id !== 'r5');
  rig = await startSyncRig(server, {
    legacy: { ...paged, records },
    app: {
      ...paged,
      records: [
        ...held,
        appointment('r17', 'user-5', 'old'),
        appointment('r18', 'user-7'),
        appointment('x', 'user-9'),
      ],
    },
  });
  const whole = await surveyed(1_000);
  expect(whole.ids).toEqual(new Set(['user-5 r5', 'user-5 r17', 'user-6 r18', 'user-7 r18', 'user-9 x']));
  const callsBefore = rig.legacy.calls.length;
  const sliced = await surveyed(20);
  expect(sliced.ids).toEqual(whole.ids);
  expect(sliced.survey).toMatchObject({ records: 60, missing: whole.survey.missing });
  // It was read more than once, so it was cut.
  expect(rig.legacy.calls.length - callsBefore).toBeGreaterThan(2 * Math.ceil(60 / 7));
});

test('a partition that is larger than what may be kept is not cut', async () => {
  rig = await startSyncRig(server, {
    legacy: { records: records.map((record) => ({ ...record, owner_id: 'ann' })) },
  });
  const { survey } = await surveyed(5);
  expect(survey).toMatchObject({ records: 60, missing: 60, different: 60 });
});
