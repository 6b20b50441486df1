/** A full pass over stores that are larger than what may be kept in memory. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { RecordKey } from '../../src/core/ports.ts';
import { surveyKind } from '../../src/sync/survey.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import type { TestRestStore } from '../support/rest-store.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

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

test('a platform that begins to show less on a page hides nothing from passes', async () => {
  let cap = 20;
  rig = await startSyncRig(server, {
    legacy: { paging: 'page', pageSize: 20, records },
    sync: { pollMs: 50, fullPassMs: 100 },
  });
  rig.legacy.intercept = ({ method, path, query }) => {
    if (method !== 'GET' || path !== '/appointments') return undefined;
    const owner = query.get('owner');
    const all = [...rig.legacy.records.values()].filter(
      (record) => owner === null || record['owner_id'] === owner,
    );
    const at = (Number(query.get('page')) - 1) * cap;
    return { status: 200, body: { data: all.slice(at, at + cap) } };
  };
  await rig.sync.startWorkers();
  await until('the copies', () => rig.app.records.size === 60);
  cap = 10;
  rig.legacy.set(appointment('new', 'user-1'));
  rig.legacy.set(appointment('r50', 'user-2', 'changed'));
  await until('the new one', () => rig.app.records.has('new'));
  await until('the change', () => rig.app.records.get('r50')?.['title'] === 'changed');
});

describe('a store that asks to wait in the middle of a long list', () => {
  const paged = { paging: 'cursor', pageSize: 2 } as const;
  /** Refuses every third call for a page, as often as `times` in a row. */
  const refusing = (times: number) => {
    let calls = 0;
    const asked: string[] = [];
    const intercept: TestRestStore['intercept'] = ({ path, query }) => {
      if (path !== '/appointments') return undefined;
      calls += 1;
      if (calls % (2 + times) >= 2) return { status: 429, headers: { 'retry-after': '0' } };
      asked.push(query.get('cursor') ?? 'first');
      return undefined;
    };
    return { asked, intercept };
  };

  test('is read on from there, and not again from the beginning', async () => {
    rig = await startSyncRig(server, {
      legacy: { ...paged, records },
      app: { ...paged, records: records.slice(1) },
    });
    const [legacy, app] = [refusing(1), refusing(2)];
    rig.legacy.intercept = legacy.intercept;
    rig.app.intercept = app.intercept;
    const { survey, ids } = await surveyed(1_000);
    expect(survey).toMatchObject({ records: 60, missing: 1, different: 1 });
    expect(ids).toEqual(new Set(['user-0 r0']));
    for (const { asked } of [legacy, app]) {
      expect(asked).toHaveLength(30);
      expect(asked.filter((cursor) => cursor === 'first')).toHaveLength(1);
    }
  });

  test('ends the pass where it says nothing else any more, or wants to be left alone for long', async () => {
    rig = await startSyncRig(server, { legacy: { ...paged, records } });
    let pages = 0;
    let retryAfter = '0';
    rig.legacy.intercept = ({ path }) => {
      pages += path === '/appointments' ? 1 : 0;
      return pages > 3 ? { status: 429, headers: { 'retry-after': retryAfter } } : undefined;
    };
    await expect(surveyed(1_000)).rejects.toMatchObject({ kind: 'rate-limited' });
    expect(pages).toBe(3 + 31);
    [pages, retryAfter] = [0, '3600'];
    await expect(surveyed(1_000)).rejects.toMatchObject({ kind: 'rate-limited' });
    expect(pages).toBe(4);
  });
});
