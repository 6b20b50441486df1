/** Verifications between two stores: what they find, what they repair, and how they go on in another process. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Verification, VerificationOrder } from '../../src/core/verification.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { VerificationBook } from '../../src/sync/verification-book.ts';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
import { planSteps, type RangeParts, runStep, type Step } from '../../src/sync/verify-range.ts';
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

const people = Array.from({ length: 12 }, (_, at) => `user-${at}`);
const records = Array.from({ length: 60 }, (_, at) => appointment(`r${at}`, `user-${at % 12}`));
const paged = { paging: 'cursor', pageSize: 7 } as const;

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, {
    ...options,
    legacy: { ...paged, records, ...options.legacy },
    app: { ...paged, records, ...options.app },
  });
  await rig.registry.note(people.map((partition) => ({ partition })));
}

const ended = (id: string) =>
  until(
    'the verification ends',
    async () => {
      const now = await rig.sync.verifications.get(id);
      return now === undefined || now.state === 'running' ? undefined : now;
    },
    120_000,
  );

async function verified(order: Partial<VerificationOrder> = {}): Promise<Verification> {
  const started = await rig.sync.verifications.start({
    ...{ cohort: 'all', partitions: people, by: 'olga' },
    ...order,
  });
  if (started === 'too-many') throw new Error('too many');
  return ended(started.id);
}

const listCalls = (store: 'legacy' | 'app') =>
  rig[store].calls.filter(({ path }) => path === '/appointments');

describe('what a verification finds', () => {
  test.each([
    ['by the lists over all', people],
    ['by lists of their own', people.slice(0, 4)],
  ])('what a list shows and "get" denies, and not what was deleted meanwhile, %s', async (_, partitions) => {
    await start();
    for (const id of ['r0', 'r1']) rig.app.records.delete(id);
    rig.legacy.intercept = ({ path }) => {
      const denied = path === '/appointments/r0' || path === '/appointments/r1';
      if (path === '/appointments/r1') rig.legacy.remove('r1');
      return denied ? { status: 404, body: {} } : undefined;
    };
    const found = await verified({ partitions });
    expect(found.differences).toMatchObject({ missing: 1, extra: 0, changed: 0 });
    expect(found.differences.examples).toEqual([
      { partition: 'user-0', difference: 'missing', kind: 'appointment', id: 'r0' },
    ]);
  });

  test.each([
    ['all partitions, by the lists over all', people, false],
    ['few partitions, by lists of their own', people.slice(0, 4), true],
  ])('of %s', async (_, partitions, byPartition) => {
    await start();
    rig.app.records.delete('r0');
    rig.app.set(appointment('r1', 'user-1', 'another title'));
    rig.app.set(appointment('x', 'user-2'));
    // A record that the owner has elsewhere is too much here, and missing there.
    rig.app.set(appointment('r3', 'user-2'));
    const found = await verified({ partitions });
    expect(found).toMatchObject({
      ...{ state: 'done', partitions: partitions.length, compared: partitions.length, problems: [] },
      differences: { missing: 2, extra: 2, changed: 1, unconfirmed: 0 },
    });
    expect(found.differences.examples).toEqual(
      expect.arrayContaining([
        { partition: 'user-0', difference: 'missing', kind: 'appointment', id: 'r0' },
        { partition: 'user-1', difference: 'changed', kind: 'appointment', id: 'r1', fields: ['title'] },
        { partition: 'user-2', difference: 'extra', kind: 'appointment', id: 'x' },
        { partition: 'user-2', difference: 'extra', kind: 'appointment', id: 'r3' },
        { partition: 'user-3', difference: 'missing', kind: 'appointment', id: 'r3' },
      ]),
    );
    expect(JSON.stringify(found)).not.toContain('another title');
    expect(listCalls('legacy').every(({ query }) => query.has('owner'))).toBe(byPartition);
    expect(rig.app.writes()).toEqual([]);
  });

  test('a repair ends at once while nothing is copied, and says why, and names the dead letters in its way', async () => {
    await start({ sync: { attempts: 1, pollMs: 100 } });
    rig.app.records.delete('r0');
    await rig.sync.halts.pause('app', 'olga', 'the app is moved');
    const startedMs = performance.now();
    const paused = await verified({ repair: true });
    // It waits half a minute for copies that are made.
    expect(performance.now() - startedMs).toBeLessThan(25_000);
    expect(paused).toMatchObject({ repair: { rung: 1, repaired: 0 }, differences: { missing: 1 } });
    expect(paused.problems).toEqual([
      { partition: '', detail: expect.stringContaining('olga paused copies to app') },
    ]);
    expect(paused.problems[0]?.detail).toContain('onewriter sync resume app --reason TEXT');
    expect(paused.problems[0]?.detail).toContain('copied after that');
    await rig.sync.halts.resume(null);
    const key = { partition: 'user-0', kind: 'appointment', id: 'r0' };
    await new DeadLetters(rig.redis).add(key, 'app answered with 422');
    await rig.sync.halts.pause('app', 'olga', 'the app is moved');
    const { problems } = await verified({ repair: true });
    expect(problems[1]).toEqual({
      partition: 'user-0',
      detail: expect.stringMatching(
        /^appointment r0 is a dead letter \(app answered with 422\): .*sync retry [0-9a-f]{32} --reason/,
      ),
    });
  });

  test('values only where they were asked for, and cut', async () => {
    await start();
    rig.app.set(appointment('r1', 'user-1', 'x'.repeat(1_000)));
    const { differences } = await verified({ values: true });
    const [values] = differences.examples.map((example) => example.values);
    expect(values).toEqual([
      { field: 'title', owner: '"appointment r1"', copy: expect.stringMatching(/^"x{199}…$/) },
    ]);
  });

  test('a field that only the copy still has differs, where others of the partition have it', async () => {
    await start({ legacy: { records: records.map((record) => ({ ...record, place: 'here' })) } });
    for (const record of rig.legacy.records.values()) rig.app.set(record);
    rig.legacy.set(appointment('r1', 'user-1'));
    const { differences } = await verified();
    expect(differences.examples).toEqual([expect.objectContaining({ id: 'r1', fields: ['place'] })]);
  });

  test('a copy that was only late is no difference', async () => {
    await start();
    rig.app.records.delete('r0');
    rig.app.intercept = (call) => {
      // The copy arrives once the lists have been read.
      if (call.path !== '/appointments/r0') return undefined;
      rig.app.set(appointment('r0', 'user-0'));
      return undefined;
    };
    expect(await verified()).toMatchObject({ state: 'done', differences: { missing: 0 } });
  });

  test('what differs is read again only after what the copies lag', async () => {
    await start();
    rig.app.records.delete('r0');
    const at: Record<string, number> = {};
    rig.app.intercept = ({ path }) => {
      at[path] ??= performance.now();
      return undefined;
    };
    const parts: RangeParts = {
      ...{ ledger: rig.ledger, readers: rig.sync.readers, targets: ['app'], registry: rig.registry },
      closedWindows: () => Promise.resolve(new Set<string>()),
      ...{ recheckMs: 1, lagMs: () => Promise.resolve(300), ring: () => Promise.resolve() },
    };
    const [step] = (await planSteps(parts, people)).steps;
    if (step === undefined) throw new Error('no step');
    await runStep(parts, step, { partitions: people, repair: false, values: false }, never);
    expect((at['/appointments/r0'] ?? 0) - (at['/appointments'] ?? 0)).toBeGreaterThan(290);
  });

  test('what moved is not compared; what moves meanwhile is no difference', async () => {
    await start();
    await rig.flip('user-0');
    rig.app.records.delete('r0');
    rig.app.records.delete('r1');
    let moved = false;
    rig.app.intercept = async (call) => {
      if (call.path !== '/appointments/r1' || moved) return undefined;
      moved = true;
      await rig.flip('user-1');
      return undefined;
    };
    expect(await verified()).toMatchObject({
      ...{ state: 'done', notCopied: 1, compared: 11 },
      differences: { missing: 0, extra: 0, changed: 0 },
    });
    expect(moved).toBe(true);
  });

  test('a list that fails makes it fail, and says which', async () => {
    await start();
    rig.app.intercept = (call) =>
      call.path === '/appointments' ? { status: 200, body: { data: 'none' } } : undefined;
    const found = await verified();
    expect(found).toMatchObject({ state: 'failed', compared: 0 });
    expect(found.problems[0]?.detail).toContain('appointment could not be compared');
  });

  test('the same seed draws the same sample, and its bound is named', async () => {
    await start();
    rig.app.set(appointment('r1', 'user-1', 'another title'));
    const first = await verified({ sample: 4, seed: 7 });
    const second = await verified({ sample: 4, seed: 7 });
    expect(second.differences).toEqual(first.differences);
    expect(first).toMatchObject({ partitions: 4, sampledFrom: 12, compared: 4, seed: 7 });
    const differing = first.differences.changed;
    expect(first.confidence).toMatchObject({ level: 0.95, compared: 4, differing });
    expect((await verified({ sample: 4 })).seed).toEqual(expect.any(Number));
  });
});

describe('a store that is larger than what may be kept', () => {
  test('is cut step by step, and found to differ in the same records', async () => {
    await start();
    for (const id of ['r0', 'r17', 'r42']) rig.app.records.delete(id);
    const parts: RangeParts = {
      ...{ ledger: rig.ledger, readers: rig.sync.readers, targets: ['app'], registry: rig.registry },
      closedWindows: () => Promise.resolve(new Set<string>()),
      ...{ recheckMs: 1, keptMax: 20, lagMs: () => Promise.resolve(0), ring: () => Promise.resolve() },
    };
    const found: string[] = [];
    let [compared, records_] = [0, 0];
    let steps: readonly Step[] = (await planSteps(parts, people)).steps;
    for (let [step, ...rest] = steps; step !== undefined; [step, ...rest] = steps) {
      const report = await runStep(parts, step, { partitions: people, repair: false, values: false }, never);
      found.push(...report.examples.map(({ id }) => id));
      records_ += report.records;
      compared += 1;
      steps = [...report.next, ...rest];
    }
    expect(found.toSorted()).toEqual(['r0', 'r17', 'r42']);
    expect(records_).toBe(60);
    expect(compared).toBeGreaterThan(4);
  });
});

describe('a verification in several processes', () => {
  test('goes on behind its last step after a restart, and compares nothing twice', async () => {
    const many = Array.from({ length: 400 }, (_, at) => `p${String(at).padStart(3, '0')}`);
    await start({
      legacy: { partitionInPath: true, records: many.map((name) => appointment(`a-${name}`, name)) },
      app: { partitionInPath: true, records: [] },
    });
    await rig.registry.note(many.map((partition) => ({ partition })));
    const asked = () => rig.legacy.calls.filter(({ path }) => path.startsWith('/people/'));
    const { verifications } = rig.sync;
    const started = await verifications.start({ cohort: 'all', partitions: many, by: 'olga' });
    if (started === 'too-many') throw new Error('too many');
    await until('a step is done', async () => ((await verifications.get(started.id))?.compared ?? 0) >= 100);
    await rig.restartSync();
    const at = (await rig.sync.verifications.get(started.id))?.compared ?? 0;
    expect(at).toBeLessThan(400);
    const before = asked().length;
    rig.sync.verifications.startWorking();
    const found = await ended(started.id);
    expect(found).toMatchObject({ state: 'done', compared: 400, differences: { missing: 400 } });
    expect(asked().length - before).toBe(400 - at);
  });

  test('is saved only by the one that has taken it, until it is cancelled', async () => {
    await start();
    const [one, other] = [new VerificationBook(rig.redis), new VerificationBook(rig.redis)];
    const seen = await rig.sync.verifications.start({ cohort: 'all', partitions: [], by: 'olga' });
    if (seen === 'too-many') throw new Error('too many');
    const stored = { seen: { ...seen, id: 'v-1' }, repair: false, values: false };
    await one.add(stored, people);
    expect([await one.take('v-1'), await other.take('v-1')]).toEqual([true, false]);
    const further = { ...stored, seen: { ...stored.seen, records: 7 } };
    expect([await other.save('v-1', further), (await one.get('v-1'))?.seen.records]).toEqual([false, 0]);
    expect([await one.save('v-1', further), (await one.get('v-1'))?.seen.records]).toEqual([true, 7]);
    await one.end('v-1', (now) => ({ ...now, seen: { ...now.seen, state: 'cancelled' } }));
    expect(await one.save('v-1', stored)).toBe(false);
    expect((await one.get('v-1'))?.seen).toMatchObject({ state: 'cancelled', records: 7 });
  });

  test('is not worked on by two at once, and ends when it is cancelled', async () => {
    await start();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    rig.app.intercept = async () => {
      await held;
      return undefined;
    };
    const { verifications } = rig.sync;
    const started = await verifications.start({ cohort: 'all', partitions: people, by: 'olga' });
    if (started === 'too-many') throw new Error('too many');
    await until('it is reading', () => rig.app.calls.length > 0);
    const lists = listCalls('legacy').length;
    verifications.startWorking();
    expect(await verifications.cancel(started.id)).toMatchObject({ state: 'cancelled' });
    release();
    expect(await ended(started.id)).toMatchObject({ state: 'cancelled', compared: 0 });
    expect(await verifications.cancel('none')).toBeUndefined();
    expect(listCalls('legacy').length).toBe(lists);
  });
});

test('ten planted differences among 100,000 records are found, repaired, and gone', async () => {
  const size = 100_000;
  const all = Array.from({ length: size }, (_, at) => ({
    ...appointment(`r${at}`, `user-${at % 1_000}`),
    updated_at: new Date(1_500_000_000_000 + 1_000 * at).toISOString(),
  }));
  const large = { paging: 'cursor', pageSize: 5_000 } as const;
  rig = await startSyncRig(server, {
    legacy: { ...large, since: true, records: all },
    app: { ...large, records: all },
    sync: { pollMs: 250 },
  });
  const partitions = Array.from({ length: 1_000 }, (_, at) => `user-${at}`);
  await rig.registry.note(partitions.map((partition) => ({ partition })));
  // The last full pass was just now, and the next one is an hour away: the feed alone shows none of what follows.
  const newest = all.at(-1)?.updated_at;
  const feed = { proven: newest, seen: newest, fullPassAtMs: Date.now() + 3_600_000 };
  await rig.redis.hset(syncKeys.progress, 'feed legacy appointment', JSON.stringify(feed));
  await rig.sync.startWorkers();
  const wrong = [11, 22_222, 33_333, 88_888];
  const missing = [7, 50_050, 77_777];
  for (const at of missing) rig.app.records.delete(`r${at}`);
  for (const at of wrong) rig.app.set(appointment(`r${at}`, `user-${at % 1_000}`, 'planted'));
  for (const at of [1, 2, 3]) rig.app.set(appointment(`planted-${at}`, `user-${at}`));
  const planted = new Set([
    ...[...missing, ...wrong].map((at) => `r${at}`),
    ...[1, 2, 3].map((at) => `planted-${at}`),
  ]);
  const found = await verified({ partitions });
  expect(found).toMatchObject({
    ...{ state: 'done', compared: 1_000, records: size },
    differences: { missing: 3, extra: 3, changed: 4, unconfirmed: 0 },
  });
  expect(new Set(found.differences.examples.map(({ id }) => id))).toEqual(planted);
  expect(rig.app.writes()).toEqual([]);
  const repaired = await verified({ partitions, repair: true });
  expect(repaired).toMatchObject({
    ...{ state: 'done', repair: { rung: 10, repaired: 10 } },
    differences: { missing: 0, extra: 0, changed: 0 },
  });
  expect(rig.app.writes()).toHaveLength(10);
  expect(await verified({ partitions })).toMatchObject({
    differences: { missing: 0, extra: 0, changed: 0, examples: [] },
  });
}, 180_000);
