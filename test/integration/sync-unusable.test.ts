/** Records that cannot be copied as they are: their own matter alone, and told. Everybody else's copies go on. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../src/core/records.ts';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
import { connectorFor, type TestRestStore } from '../support/rest-store.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const nested = '['.repeat(3_500) + ']'.repeat(3_500);
const unusable = [
  [
    'nested too deep',
    { ...appointment('bad', 'mallory'), meta: JSON.parse(nested) as Fields },
    'inside each other',
  ],
  ['whose id has half a character', appointment('x\ud800', 'mallory'), 'without a usable id'],
] as const;

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, options);
}
const titles = () => [...rig.app.records.values()].map(({ title }) => title as string).toSorted();
const told = (event: string) => rig.events.filter((logged) => logged.event === event);

describe.each(unusable)('a record %s', (_, bad, detail) => {
  test('keeps nobody else from being copied or handed over, and is told', async () => {
    await start({ legacy: { records: [appointment('1', 'ann')] } });
    rig.legacy.set(bad);
    await rig.sync.startWorkers();
    await until('the first copy', () => rig.app.records.size === 1);
    rig.legacy.set(appointment('1', 'ann', 'changed'));
    rig.legacy.set({ ...appointment('2', 'mallory'), number: 1234567890123456 });
    await until('what came later', () => titles().join() === 'appointment 2,changed');
    await until('a lag', async () => (await rig.sync.desk.lagMs()) !== undefined);
    expect(told('sync.unusable-records')[0]?.fields['first']).toContain(detail);
    expect(told('sync.poll-failed')).toEqual([]);
    expect((await rig.sync.desk.bringUp('ann', never)).problems).toEqual([]);
    const { problems } = await rig.sync.desk.bringUp('mallory', never);
    expect(problems.map((problem) => problem.detail)).toEqual([expect.stringContaining(detail)]);
    expect(await rig.sync.deadLetters.total()).toBe(0);
  });
});

test('what a store says when it refuses a record is kept, wherever it is cut', async () => {
  await start({ legacy: { records: [appointment('1', 'ann')] }, sync: { attempts: 1 } });
  const detail = `${'x'.repeat(199)}${'\u{1f600}'.repeat(200)}`;
  rig.app.intercept = ({ method }) =>
    method === 'PUT' ? { status: 422, body: `{"detail":"${detail}"}` } : undefined;
  await rig.sync.startWorkers();
  await until('a letter', async () => (await rig.sync.deadLetters.total()) === 1);
  await new DeadLetters(rig.redis).add(
    { partition: 'bob', kind: 'appointment', id: '2' },
    `x${'\u{1f600}'.repeat(400)}`,
  );
  expect(await rig.sync.deadLetters.total()).toBe(2);
});

test('a fault of ours that one record brings to light makes a letter of it, and keeps no other waiting', async () => {
  await start({
    legacy: { records: [appointment('1', 'ann'), appointment('2', 'bob')] },
    sync: { attempts: 2 },
  });
  const { legacy } = rig.sync.readers;
  const get = legacy.get.bind(legacy);
  legacy.get = async (kind, key, signal) => {
    if (key.id === '1') throw new TypeError('a step was forgotten');
    return get(kind, key, signal);
  };
  await rig.sync.startWorkers();
  await until('a letter', async () => (await rig.sync.deadLetters.total()) === 1);
  expect((await rig.sync.deadLetters.list())[0]).toMatchObject({ id: '1', reason: 'a step was forgotten' });
  await until('nothing is owed', async () => (await rig.sync.backlog()) === 0);
  expect(titles()).toEqual(['appointment 2']);
});

test('a record that was copied before it became so keeps its copy, and the others of its partition are copied', async () => {
  const records = [appointment('1', 'ann'), appointment('2', 'ann')];
  await start({ legacy: { records }, sync: { pollMs: 3_600_000 } });
  await rig.sync.desk.bringUp('ann', never);
  rig.legacy.set({ ...appointment('1', 'ann', 'deep'), meta: JSON.parse(nested) as Fields });
  rig.legacy.set(appointment('2', 'ann', 'changed'));
  const { problems } = await rig.sync.desk.bringUp('ann', never);
  expect(problems.map((problem) => problem.detail)).toEqual([
    expect.stringMatching(/^record 1 holds more than/),
    expect.stringMatching(/^appointment 1: legacy .* record 1 holds more than/),
  ]);
  expect(titles()).toEqual(['appointment 1', 'changed']);
});

describe('the same id in two partitions', () => {
  const one = { path: '/people/{partition}/appointments/{id}' };
  const perPartition = (() => {
    const { appointment: kind } = connectorFor().records;
    return { records: { appointment: { ...kind, get: one, put: one, delete: one } } };
  })();

  /** One list over all, and records whose ids count within each partition. */
  function countsWithin(store: TestRestStore, isListOnly = false): void {
    const add = (fields: Fields): void => {
      store.records.set(`${fields['owner_id'] as string}/${fields['id'] as string}`, fields);
    };
    store.intercept = ({ method, path, query, body }) => {
      const [, kind, partition, , id] = path.split('/');
      const owner = query.get('owner');
      if (kind === 'appointments' && method === 'GET' && (partition === undefined || !isListOnly)) {
        const data = [...store.records.values()].filter(
          (record) => owner === null || record['owner_id'] === owner,
        );
        return { status: 200, body: { data } };
      }
      const key = isListOnly ? `bob/${partition}` : `${partition}/${id}`;
      if (method === 'PUT' && body !== undefined) add(body);
      const found = store.records.get(key);
      return found === undefined ? { status: 404 } : { status: 200, body: found };
    };
    for (const record of [
      appointment('1', 'ann', 'of ann'),
      appointment('2', 'ann'),
      appointment('1', 'bob', 'of bob'),
    ]) {
      if (store === rig.legacy) add(record);
    }
  }
  async function verified() {
    await rig.registry.note(['ann', 'bob'].map((partition) => ({ partition })));
    const { verifications } = rig.sync;
    const begun = await verifications.start({ cohort: 'all', partitions: ['ann', 'bob'], by: 'test' });
    const id = begun === 'too-many' ? '' : begun.id;
    return until(
      'the end of the verification',
      async () => {
        const now = await verifications.get(id);
        return now?.state === 'running' ? undefined : now;
      },
      30_000,
    );
  }
  const often = { pollMs: 100, fullPassMs: 100, attempts: 1 };

  test('is two records where both stores tell them apart', async () => {
    const appStore = { connector: { ...connectorFor(), ...perPartition } };
    await start({ legacyConnector: perPartition, appStore, sync: often });
    countsWithin(rig.legacy);
    countsWithin(rig.app);
    await rig.sync.startWorkers();
    await until('all copies', () => titles().join() === 'appointment 2,of ann,of bob');
    rig.app.records.set('ann/1', appointment('1', 'ann', 'old'));
    await until('it is corrected', () => titles().join() === 'appointment 2,of ann,of bob');
    expect(await verified()).toMatchObject({
      records: 3,
      differences: { missing: 0, extra: 0, changed: 0 },
      problems: [],
    });
    expect(told('sync.unusable-records')).toEqual([]);
  });

  test('where the copy has one record of each id, the second is a dead letter and never written over the first', async () => {
    await start({ legacyConnector: perPartition, sync: often });
    countsWithin(rig.legacy);
    await rig.sync.desk.bringUp('ann', never);
    await rig.sync.startWorkers();
    await until('a letter', async () => (await rig.sync.deadLetters.total()) === 1);
    const [letter] = await rig.sync.deadLetters.list();
    expect(letter).toMatchObject({ partition: 'bob', id: '1' });
    expect(letter?.reason).toContain('holds appointment 1 for another partition');
    expect(titles()).toEqual(['appointment 2', 'of ann']);
    expect(await verified()).toMatchObject({ records: 3, differences: { missing: 1 } });
    expect(rig.app.writes().filter(({ body }) => body?.['owner_id'] === 'bob')).toEqual([]);
  });

  test('is told where the owner shows both and is asked by the id alone', async () => {
    await start({ sync: often });
    countsWithin(rig.legacy, true);
    await rig.sync.startWorkers();
    await until('it is told', () => told('sync.unusable-records').length > 0);
    expect(told('sync.unusable-records')[0]?.fields['first']).toContain('shows record 1 in ann and in bob');
    const { problems } = await verified();
    expect(problems.map((problem) => problem.detail)[0]).toContain('"get" names no partition');
  });
});
