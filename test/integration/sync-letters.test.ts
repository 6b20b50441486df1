/** Dead letters: what they say, and what an operator can do about them. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

test('a letter says when first and last and how often, and can be retried and discarded', async () => {
  const records = [appointment('1', 'ann'), appointment('2', 'bob')];
  rig = await startSyncRig(server, { legacy: { records }, sync: { pollMs: 3_600_000, attempts: 1 } });
  rig.app.intercept = ({ method }) => (method === 'GET' ? undefined : { status: 422 });
  await rig.sync.startWorkers();
  const { deadLetters } = rig.sync;
  await until('two letters', async () => (await deadLetters.total()) === 2);
  const [first] = (await deadLetters.list()).filter(({ partition }) => partition === 'ann');
  const letter = first?.letter ?? '';
  expect(first).toMatchObject({ id: '1', times: 1, firstMs: first?.atMs });
  expect(await deadLetters.retry(letter)).toMatchObject({ id: '1' });
  const again = await until('it failed again', async () =>
    (await deadLetters.list()).find((one) => one.letter === letter && one.times === 2),
  );
  expect(again.firstMs).toBe(first?.firstMs);
  expect(again.atMs).toBeGreaterThan(first?.atMs ?? 0);

  expect(await deadLetters.discard(letter)).toMatchObject({ id: '1', times: 2 });
  expect(await deadLetters.discard(letter)).toBeUndefined();
  expect(await rig.sync.desk.deadLetters('ann')).toBe(0);
  expect(await rig.sync.desk.deadLetters('bob')).toBe(1);
  expect(rig.app.records.size).toBe(0);

  // Copied after all: then it is a new story, should it fail once more.
  rig.app.intercept = undefined;
  const [other] = await deadLetters.list();
  await deadLetters.retry(other?.letter ?? '');
  await until('it is copied', () => rig.app.records.has('2'));
  await until('the letter is gone', async () => (await deadLetters.total()) === 0);
});

test('a letter keeps a little of what the store said, and the log does not', async () => {
  const record = appointment('1', 'ann');
  rig = await startSyncRig(server, { legacy: { records: [record] }, sync: { attempts: 1 } });
  const error = `text must not\ncontain \u001b[31mswear words ${'🎈'.repeat(400)}`;
  rig.app.intercept = ({ method }) => (method === 'GET' ? undefined : { status: 422, body: { error } });
  await rig.sync.startWorkers();
  const [letter] = await until('a letter', async () => {
    const all = await rig.sync.deadLetters.list();
    return all.length > 0 ? all : undefined;
  });
  expect(letter?.reason).toBe('app answered PUT /appointments/1 with 422');
  expect(letter?.said).toMatch(/^\{"error":"text must not.{2}contain .*swear words 🎈+.?…$/u);
  expect(letter?.said?.length).toBeLessThan(310);
  expect(JSON.stringify(rig.events)).toContain('sync.dead-letter');
  expect(JSON.stringify(rig.events)).not.toContain('swear');
});

test('full passes try a letter again once it has rested, twice as long each time', async () => {
  const settings = { pollMs: 100, fullPassMs: 100, attempts: 1 };
  rig = await startSyncRig(server, { legacy: { records: [appointment('1', 'ann')] }, sync: settings });
  rig.app.intercept = ({ method }) => (method === 'GET' ? undefined : { status: 422 });
  await rig.sync.startWorkers();
  const letters = new DeadLetters(rig.redis);
  const [first] = await until('a letter', async () => {
    const all = await letters.list();
    return all.length > 0 ? all : undefined;
  });
  const { letter = '', atMs = 0 } = first ?? {};
  /** As if it had been given up longer ago. */
  const age = async (byMs: number): Promise<number> => {
    const text = (await rig.redis.hget(syncKeys.deadLetters, letter)) ?? '{}';
    const old = { ...(JSON.parse(text) as object), atMs: Date.now() - byMs };
    await rig.redis.hset(syncKeys.deadLetters, letter, JSON.stringify(old));
    return old.atMs;
  };
  expect(await letters.resting(atMs + 29_999)).toEqual(new Set([letter]));
  expect(await letters.resting(atMs + 30_000)).toEqual(new Set());
  await age(30_000);
  await until('a full pass tries it again', async () => (await letters.list())[0]?.times === 2);
  const secondMs = await age(0);
  expect(await letters.resting(secondMs + 59_999)).toEqual(new Set([letter]));
  expect(await letters.resting(secondMs + 60_000)).toEqual(new Set());
  rig.app.intercept = undefined;
  await age(60_000);
  await until('it is copied', () => rig.app.records.has('1'));
  await until('the letter is gone', async () => (await letters.total()) === 0);
});

test('what a list keeps showing and "get" denies becomes a letter, and keeps its copy; what is really gone does not', async () => {
  const records = [appointment('1', 'ann'), appointment('hidden', 'ann'), appointment('late', 'ann')];
  const settings = { pollMs: 100, fullPassMs: 300, attempts: 2 };
  rig = await startSyncRig(server, { legacy: { records }, sync: settings });
  let lists = 0;
  rig.legacy.intercept = ({ path, query }) => {
    if (path === '/appointments' && !query.has('owner') && (lists += 1) > 1) rig.legacy.remove('late');
    const denied = path === '/appointments/hidden' || path === '/appointments/late';
    return denied ? { status: 404, body: {} } : undefined;
  };
  await rig.sync.startWorkers();
  const { deadLetters } = rig.sync;
  await until('a letter', async () => (await deadLetters.total()) === 1, 20_000);
  const [letter] = await deadLetters.list();
  expect(letter).toMatchObject({ partition: 'ann', id: 'hidden' });
  expect(letter?.reason).toContain('shows appointment hidden, and GET says that it is gone');
  // Its list alone is enough for a pass over the partition, and what that has copied is not taken away again.
  await rig.sync.desk.bringUp('ann', new AbortController().signal);
  expect(rig.app.records.has('hidden')).toBe(true);
  rig.legacy.set(appointment('hidden', 'ann', 'changed'));
  await until('it is a letter again', async () => (await deadLetters.total()) === 1, 20_000);
  expect(rig.app.writes().map(({ method, path }) => `${method} ${path}`)).not.toContain(
    'DELETE /appointments/hidden',
  );

  rig.legacy.remove('hidden');
  const now = lists;
  await until('passes that do not show it', () => lists > now + 3);
  await deadLetters.retry((await deadLetters.list())[0]?.letter ?? '');
  await until('the letter is gone', async () => (await deadLetters.total()) === 0);
});

test('a letter names no other partition, whose erasing would leave the name there', async () => {
  rig = await startSyncRig(server, {
    app: { records: [appointment('1', 'ann.smith')] },
    sync: { pollMs: 100, attempts: 1 },
  });
  await rig.flip('ann.smith');
  rig.legacy.set(appointment('1', 'bob'));
  await rig.sync.startWorkers();
  const [letter] = await until('a letter', async () => {
    const all = await rig.sync.deadLetters.list();
    return all.length > 0 && all;
  });
  expect(letter).toMatchObject({ partition: 'bob', id: '1' });
  expect(letter?.reason).toContain('another partition');
  const told = [await rig.redis.hgetall(syncKeys.deadLetters), rig.events];
  expect(JSON.stringify(told)).not.toContain('ann.smith');
});
