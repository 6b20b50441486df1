/** Records that cannot be copied as they are: their own matter alone, and told. Everybody else's copies go on. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../src/core/records.ts';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
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
