/** A source that denies everything, a few records in each partition: the brake on all partitions together. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { AllPartitionsBrake, sentenceOfBrakeOnAll } from '../../src/sync/brake-on-all.ts';
import { syncKeys } from '../../src/sync/keys.ts';
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

const start = async (options: SyncRigOptions = {}): Promise<void> => {
  rig = await startSyncRig(server, options);
};
const everybodys = (count: number, each = 10) =>
  Array.from({ length: count }, (_, at) => appointment(`r${at}`, `user-${Math.floor(at / each)}`));
const alarms = () => rig.events.filter(({ event }) => event === 'sync.delete-brake-all').length;
const inUse = (names: readonly string[]) =>
  names.map((id) => ({ partition: 'ann', kind: 'appointment', id }));
const someKeys = (count: number, from = 0) => inUse(Array.from({ length: count }, (_, at) => `${from + at}`));

describe('a source that says of every record that it is gone', () => {
  const records = everybodys(400);
  const all = { legacy: { records }, app: { records } };
  /** Passes that began from now on have ended, and what they found was looked at. */
  const passes = async (): Promise<void> => {
    const full = () =>
      rig.legacy.calls.filter(({ path, query }) => path === '/appointments' && !query.has('owner')).length;
    const before = { full: full(), calls: rig.legacy.calls.length };
    await until('more passes', () => full() > before.full + 3);
    // Again and again: what is held back stays different.
    await until('more looks', () => rig.legacy.calls.length > before.calls + 100);
  };

  test('costs an hour of deletes and no more, whatever each partition may lose; the rest is copied', async () => {
    await start(all);
    await rig.sync.startWorkers();
    await until('the copies are counted', async () => (await rig.redis.hlen(syncKeys.copiesCounted)) === 1);
    const made = appointment('new', 'user-0');
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments'
        ? { status: 200, body: { data: [made] } }
        : path.endsWith('/new')
          ? { status: 200, body: made }
          : { status: 404, body: {} };
    const brake = await until('the brake', () => rig.sync.brakes.onAll());
    expect(brake).toMatchObject({ limit: 100, lately: 100, stores: { app: true } });
    await passes();
    await passes();
    expect(rig.app.records.size).toBe(301);
    expect(alarms()).toBe(1);
    expect(await rig.sync.desk.halted('app')).toMatchObject([{ code: 'delete-brake' }]);
    // No partition has lost so many that its own brake would have taken hold.
    expect(await rig.sync.brakes.list()).toEqual([]);

    rig.legacy.intercept = undefined;
    rig.legacy.set(made);
    await until('everything is there again', () => rig.app.records.size === 401);
    expect(await rig.sync.brakes.onAll()).toBeDefined();
  });

  test('is held back record by record, too', async () => {
    // So few of each partition are rung for one by one.
    const few = everybodys(240, 2);
    await start({ legacy: { records: [] }, app: { records: few } });
    await rig.sync.startWorkers();
    await until('the brake', () => rig.sync.brakes.onAll());
    await passes();
    expect(rig.app.records.size).toBe(140);
    expect(alarms()).toBe(1);
  });

  test.each([
    ['lives where they do', false],
    ['lives in the app', true],
  ])('or of every record that it is of somebody who %s', async (_, inApp) => {
    // So few of each partition are rung for one by one, and no pass asks for all of them.
    const few = everybodys(240, 2);
    await start({ legacy: { records: few }, app: { records: few }, sync: { attempts: 2 } });
    if (inApp) await rig.flip('wrong');
    const shown = (record: object | undefined) => record && { ...record, owner_id: 'wrong' };
    rig.legacy.intercept = ({ path, query }) => {
      const id = path.split('/')[2];
      if (id !== undefined) return { status: 200, body: shown(rig.legacy.records.get(id)) };
      const mine = query.has('owner') && query.get('owner') !== 'wrong';
      return { status: 200, body: { data: mine ? [] : [...rig.legacy.records.values()].map(shown) } };
    };
    await rig.sync.startWorkers();
    if (inApp) {
      await until('somebody is told', async () => (await rig.sync.deadLetters.total()) > 100, 30_000);
    } else await until('the brake', () => rig.sync.brakes.onAll());
    await passes();
    const removed = rig.app.writes().filter(({ method }) => method === 'DELETE');
    expect(removed).toHaveLength(inApp ? 0 : 100);
    expect(alarms()).toBe(inApp ? 0 : 1);
  });

  test('and means it: an operator agrees, for as many as are known to be held back and as many again', async () => {
    await start(all);
    await rig.sync.startWorkers();
    for (const { id } of records) rig.legacy.remove(id);
    await until('the brake', () => rig.sync.brakes.onAll());
    await passes();
    // About: they are counted in a HyperLogLog.
    const deletes = (await rig.sync.brakes.onAll())?.deletes ?? 0;
    expect(Math.abs(deletes - 300)).toBeLessThan(15);
    expect(await rig.sync.brakes.releaseAll()).toBeDefined();
    await until('all are gone', () => rig.app.records.size === 0);
    expect(await rig.sync.desk.halted('app')).toEqual([]);
    expect(await rig.sync.brakes.releaseAll()).toBeUndefined();
  });

  test('proves nothing to a handoff', async () => {
    await start(all);
    for (let user = 1; user < 12; user += 1) {
      for (const { id } of records.slice(user * 10, user * 10 + 10)) rig.legacy.remove(id);
      await rig.sync.desk.bringUp(`user-${user}`, never);
    }
    const held = await rig.sync.desk.bringUp('user-11', never);
    expect(held.problems[0]?.detail).toContain('onewriter sync release --all');
    await rig.order('user-11', { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 });
    const caughtUp = rig.sync.desk.catchUp('user-11', 'the-attempt', never);
    await expect(caughtUp).rejects.toThrow('no copy is deleted any more');
  });
});

describe('what the brake counts', () => {
  const brakeOf = () => new AllPartitionsBrake(rig.redis, () => undefined);

  test('is a share of all copies, those counted by full passes or seen partition by partition', async () => {
    await start();
    const brake = brakeOf();
    await brake.counted('app appointment', 10_000);
    expect(await brake.hold(someKeys(200))).toBeUndefined();
    expect(await brake.hold(someKeys(1, 200))).toMatchObject({ limit: 200, lately: 200, deletes: 1 });
    await rig.redis.flushall();
    await brake.seen(Array.from({ length: 20_000 }, (_, at) => `appointment\n${at}`));
    const { limit = 0 } = (await brake.hold(someKeys(1_000))) ?? {};
    expect(Math.abs(limit - 400)).toBeLessThan(20);
  });

  test('is no older than an hour', async () => {
    await start();
    const brake = brakeOf();
    expect(await brake.hold(someKeys(100))).toBeUndefined();
    const [minute = '0'] = await rig.redis.hkeys(syncKeys.deletesByMinute);
    await rig.redis.hdel(syncKeys.deletesByMinute, minute);
    await rig.redis.hset(syncKeys.deletesByMinute, Number(minute) - 58, 100);
    expect(await brake.hold(someKeys(1))).toBeDefined();
    await rig.redis.del(syncKeys.brakeOnAll);
    await rig.redis.del(syncKeys.deletesByMinute);
    await rig.redis.hset(syncKeys.deletesByMinute, Number(minute) - 60, 100);
    expect(await brake.hold(someKeys(100))).toBeUndefined();
  });

  test('is not what users deleted through the proxy, nor what an operator has agreed to in a partition', async () => {
    await start({ app: { records: everybodys(240, 40) }, sync: { pollMs: 3_600_000 } });
    const mine = everybodys(240, 40);
    for (const { id } of mine.slice(0, 120)) {
      const partition = `user-${Math.floor(Number(id.slice(1)) / 40)}`;
      rig.sync.doorbell.ring({ partition, kind: 'appointment', id });
    }
    await until('the receipts', async () => (await rig.redis.zcard(syncKeys.receipts)) === 120);
    for (const user of [0, 1, 2]) await rig.sync.desk.bringUp(`user-${user}`, never);
    expect(rig.app.records.size).toBe(120);
    for (const user of [3, 4, 5]) {
      await rig.sync.desk.bringUp(`user-${user}`, never);
      await rig.sync.brakes.release(`user-${user}`);
      await rig.sync.desk.bringUp(`user-${user}`, never);
    }
    expect(rig.app.records.size).toBe(0);
    expect(await rig.redis.hlen(syncKeys.deletesByMinute)).toBe(0);
  });

  test('is told with the stores where the copies are, also of brakes that name nobody any more', async () => {
    await start();
    const brake = brakeOf();
    const held = await brake.hold(someKeys(101), 'legacy');
    expect(sentenceOfBrakeOnAll(held!)).toMatch(/\d+ more in legacy are to be/);
    expect(sentenceOfBrakeOnAll(held!)).toContain('Look whether app, the owner, has really deleted them');
    await brake.forget('ann');
    const both = await brake.hold(someKeys(1), 'app');
    expect(both).toMatchObject({ first: [], stores: { legacy: true, app: true } });
    expect(sentenceOfBrakeOnAll(both!)).toContain('more in legacy and app are to be');
  });

  test('takes hold again where more is to be deleted than was agreed to, and ends with the hour', async () => {
    await start();
    const brake = brakeOf();
    await brake.hold(someKeys(100));
    await brake.hold(someKeys(50, 100));
    const released = await brake.release();
    const left = released?.released?.left ?? 0;
    expect(left).toBe((released?.deletes ?? 0) + 100);
    expect(await brake.hold(someKeys(left, 1_000))).toBeUndefined();
    expect(await brake.hold(someKeys(1, 5_000))).toMatchObject({ deletes: 1 });
    await brake.release();
    const text = (await rig.redis.get(syncKeys.brakeOnAll)) ?? '';
    await rig.redis.set(syncKeys.brakeOnAll, text.replace(/"untilMs":\d+/, '"untilMs":1'));
    // The deletes of the hour before stand again: none more without leave.
    expect(await brake.hold(someKeys(1, 5_000))).toMatchObject({ lately: 100 });
  });
});
