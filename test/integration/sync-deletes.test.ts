/** Deletes: what is believed, what is held back until an operator agrees, and what a handoff makes of it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Brakes } from '../../src/sync/brakes.ts';
import { Receipts } from '../../src/sync/receipts.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { connectorFor } from '../support/rest-store.ts';
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

const appointments = (count: number, owner = 'ann') =>
  Array.from({ length: count }, (_, at) => appointment(`${owner}-${at}`, owner));
const copiesOf = (owner: string) =>
  [...rig.app.records.values()].filter((record) => record['owner_id'] === owner).length;
const keyOf = (id: string, partition = 'ann') => ({ partition, kind: 'appointment', id });
const alarms = () => rig.events.filter(({ event }) => event === 'sync.delete-brake').length;
const anOldBrake = { deletes: 30, limit: 20, records: 30, first: [], atMs: 1 };
const slowPolls = { sync: { pollMs: 3_600_000 } };

describe('the brake', () => {
  test('holds back more deletes of one pass than twenty, copies everything else, and says so once', async () => {
    await start({
      legacy: { records: [appointment('new', 'ann')] },
      app: { records: [...appointments(21), ...appointments(20, 'bob')] },
    });
    const held = await rig.sync.desk.bringUp('ann', never);
    expect(held.problems[0]?.detail).toContain('21 of 21 copies in app would be deleted at once');
    expect(held.recordsCopied).toBe(1);
    expect(copiesOf('ann')).toBe(22);
    await rig.sync.desk.bringUp('ann', never);
    expect(alarms()).toBe(1);
    expect(await rig.sync.brakes.list()).toMatchObject([
      { partition: 'ann', deletes: 21, limit: 20, store: 'app' },
    ]);
    expect([...(await rig.sync.desk.deleteBrakes()).keys()]).toEqual(['ann']);
    // Twenty are no reason to stop, whatever another partition does.
    expect((await rig.sync.desk.bringUp('bob', never)).problems).toEqual([]);
    expect(copiesOf('bob')).toBe(0);
  });

  test('lets a twentieth of a large partition go', async () => {
    const all = appointments(600);
    await start({ legacy: { records: all.slice(30) }, app: { records: all } });
    expect((await rig.sync.desk.bringUp('ann', never)).problems).toEqual([]);
    expect(copiesOf('ann')).toBe(570);
  });

  test('is released by an operator, for about as many deletes as were held back', async () => {
    await start({ app: { records: appointments(60) }, ...slowPolls });
    await rig.sync.startWorkers();
    await rig.sync.desk.bringUp('ann', never);
    expect(copiesOf('ann')).toBe(60);
    expect(await rig.sync.brakes.release('nobody')).toBeUndefined();
    expect(await rig.sync.brakes.release('ann')).toMatchObject({ deletes: 60 });
    await until('the copies are gone', () => copiesOf('ann') === 0);
    await until('nothing is left of it', async () => {
      await rig.sync.desk.bringUp('ann', never);
      return (await rig.redis.hlen(syncKeys.brakes)) === 0;
    });
  });

  test('holds back again what goes beyond the release', async () => {
    await start({ app: { records: appointments(30) } });
    await rig.sync.desk.bringUp('ann', never);
    for (const more of appointments(40, 'more')) rig.app.set({ ...more, owner_id: 'ann' });
    await rig.sync.brakes.release('ann');
    await rig.sync.desk.bringUp('ann', never);
    expect(copiesOf('ann')).toBe(70);
    expect(await rig.sync.brakes.list()).toMatchObject([{ partition: 'ann', deletes: 70 }]);
    expect(alarms()).toBe(2);
  });

  test('keeps a release that comes while a pass is making up its mind', async () => {
    await start();
    const records = appointments(60).map(({ id }) => keyOf(id));
    const brakes = new Brakes(rig.redis, new Receipts(rig.redis), () => undefined);
    await brakes.mayRemoveAll('ann', records, 60);
    class Slow extends Receipts {
      override async without(asked: Parameters<Receipts['without']>[0]) {
        await brakes.release('ann');
        return super.without(asked);
      }
    }
    const late = new Brakes(rig.redis, new Slow(rig.redis), () => undefined);
    expect(await late.mayRemoveAll('ann', records, 60)).toBeUndefined();
    expect(await brakes.list()).toEqual([]);
  });

  test('is lifted by itself when the owner shows its records again', async () => {
    const all = appointments(30);
    await start({ app: { records: all } });
    await rig.sync.desk.bringUp('ann', never);
    expect(await rig.sync.brakes.list()).toHaveLength(1);
    for (const record of all) rig.legacy.set(record);
    await rig.sync.desk.bringUp('ann', never);
    expect(await rig.sync.brakes.list()).toEqual([]);
    expect(copiesOf('ann')).toBe(30);
  });

  test('is looked at again by the workers, without anything to copy', async () => {
    const all = appointments(30);
    await start({ legacy: { records: all }, app: { records: all }, ...slowPolls });
    await rig.redis.hset(syncKeys.brakes, 'ann', JSON.stringify({ ...anOldBrake, partition: 'ann' }));
    await rig.sync.startWorkers();
    await until('it is lifted', async () => (await rig.sync.brakes.list()).length === 0);
  });

  test('does not count what was deleted through the proxy', async () => {
    const all = appointments(30);
    await start({ app: { records: all }, ...slowPolls });
    for (const { id } of all.slice(0, 12)) rig.sync.doorbell.ring(keyOf(id));
    await until('the receipts', async () => (await rig.redis.zcard(syncKeys.receipts)) === 12);
    expect((await rig.sync.desk.bringUp('ann', never)).problems).toEqual([]);
    expect(copiesOf('ann')).toBe(0);
  });

  test('counts records that are deleted one by one, and then leaves them to a pass', async () => {
    await start({ legacy: { since: true, softDeletes: true, records: appointments(23) } });
    await rig.sync.startWorkers();
    await until('the first copy', () => copiesOf('ann') === 23);
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    const braked = async () => (await rig.sync.brakes.list()).length === 1;
    for (let left = 22; left >= 3; left -= 1) {
      rig.legacy.remove(`ann-${left}`);
      await until('a delete is copied', () => copiesOf('ann') === left);
    }
    expect(await braked()).toBe(false);
    rig.legacy.remove('ann-2');
    await until('the brake', braked);
    rig.legacy.remove('ann-1');
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    expect(copiesOf('ann')).toBe(3);
    expect(await rig.sync.deadLetters.total()).toBe(0);
  });

  test('counts a record once that is asked for again, and not what the brake on all has refused', async () => {
    await start();
    const { redis } = rig;
    const brakes = new Brakes(redis, new Receipts(redis), () => undefined);
    const keys = (count: number, owner: string) =>
      appointments(count, owner).map(({ id }) => keyOf(id, owner));
    const records = keys(20, 'ann');
    const ask = async () => Promise.all(records.map((record) => brakes.mayRemove(record, 'app')));
    expect(await ask()).toEqual(records.map(() => 'yes'));
    expect(await ask()).toEqual(records.map(() => 'yes'));
    // The last of them, as a pass finds them again.
    expect(await brakes.mayRemoveAll('ann', records.slice(17), 30, 'app')).toBeUndefined();
    await brakes.onAll.hold(keys(200, 'carl'), 'app');
    for (const record of keys(17, 'bob')) expect(await brakes.mayRemove(record, 'app')).toBe('no');
    await brakes.onAll.release();
    const more = keys(21, 'bob').map((key) => ({ ...key, id: `more-${key.id}` }));
    expect(await brakes.mayRemoveAll('bob', more.slice(1), 30, 'app')).toBeUndefined();
    expect(await brakes.mayRemoveAll('bob', more, 30, 'app')).toMatchObject({ deletes: 21 });
  });

  test('ends the catch-up of a handoff', async () => {
    await start({ app: { records: appointments(21) } });
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 });
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toThrow('nothing is proven: 21');
    expect(copiesOf('ann')).toBe(21);
  });
});

describe('a tombstone', () => {
  test('in a list that is older than the copy removes nothing', async () => {
    await start({ legacy: { softDeletes: true, since: true, records: [appointment('1', 'ann')] } });
    await rig.sync.desk.bringUp('ann', never);
    // The list lags behind: it still shows the delete before the record was made again.
    const old = { ...appointment('1', 'ann'), deleted_at: new Date(0).toISOString() };
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments' ? { status: 200, body: { data: [old] } } : undefined;
    await rig.sync.desk.bringUp('ann', never);
    expect(rig.app.writes().filter(({ method }) => method === 'DELETE')).toEqual([]);
    expect(copiesOf('ann')).toBe(1);
  });

  test('that the store confirms removes the copy', async () => {
    await start({ legacy: { softDeletes: true, since: true, records: [appointment('1', 'ann')] } });
    await rig.sync.desk.bringUp('ann', never);
    rig.legacy.remove('1');
    await rig.sync.desk.bringUp('ann', never);
    expect(copiesOf('ann')).toBe(0);
  });
});

test('a store that lets nobody in stops everything: nothing is deleted, no record is to blame', async () => {
  await start({ legacy: { records: appointments(3) }, ...slowPolls });
  await rig.sync.startWorkers();
  await until('the first copy', () => copiesOf('ann') === 3);
  for (const status of [401, 403]) {
    rig.legacy.intercept = () => ({ status, body: {} });
    await expect(rig.sync.desk.bringUp('ann', AbortSignal.timeout(8_000))).rejects.toThrow();
  }
  rig.sync.doorbell.ring(keyOf('ann-0'));
  await until('the stop', () => rig.events.some(({ event }) => event === 'sync.denied'));
  const asked = rig.legacy.calls.length;
  rig.sync.doorbell.ring(keyOf('ann-1'));
  await until('both wait', async () => (await rig.sync.backlog()) === 2);
  expect(rig.legacy.calls.length).toBe(asked);
  expect(copiesOf('ann')).toBe(3);
  expect(await rig.sync.deadLetters.total()).toBe(0);
});

test('receipts are bounded in number and in time', async () => {
  await start();
  const receipts = new Receipts(rig.redis, { keptMs: 60_000, most: 3 });
  const keys = ['1', '2', '3', '4', '5'].map((id) => keyOf(id));
  for (const key of keys) await receipts.note([key]);
  expect(await rig.redis.zcard(syncKeys.receipts)).toBe(3);
  expect(await receipts.without(keys)).toHaveLength(2);
  await rig.redis.zadd(syncKeys.receipts, 1, 'an old one');
  await receipts.note([keyOf('5')]);
  expect(await rig.redis.zscore(syncKeys.receipts, 'an old one')).toBeNull();
});

describe('a list of deleted ids', () => {
  test.each([
    [
      'beside the changes',
      { deletes: { path: '/deleted', query: { after: '{since}' }, items: 'ids', id: '' } },
    ],
    ['as tombstones among them', { deleted: 'gone' }],
  ])('%s: copies go without a full pass, and each only when the owner confirms it', async (_, more) => {
    const gone: string[] = [];
    await start({
      legacy: {
        since: true,
        records: appointments(4).map((one) => ({ ...one, updated_at: '2024-05-01T10:00:00Z' })),
        intercept: ({ path, query }) => {
          if (path === '/deleted') return { status: 200, body: { ids: gone } };
          if (path !== '/appointments' || !query.has('updated_since') || !('deleted' in more))
            return undefined;
          return { status: 200, body: { data: gone.map((id) => ({ id, gone: true })) } };
        },
      },
      legacyConnector: connectorFor({ since: true }, more),
      sync: { fullPassMs: 3_600_000 },
    });
    await rig.sync.startWorkers();
    await until('all are copied', () => copiesOf('ann') === 4);
    const polls = (): number => rig.legacy.calls.filter(({ query }) => query.has('updated_since')).length;
    await until('the changes are followed', () => polls() > 1);
    // The first poll rings for everything: that must not be what finds the delete.
    await until('nothing is waiting', async () => (await rig.sync.backlog()) === 0);
    const followed = polls();
    await until('three more polls', () => polls() > followed + 3);
    rig.legacy.remove('ann-1');
    gone.push('ann-1', 'ann-2', 'nobody');
    await until('the copy is gone', () => !rig.app.records.has('ann-1'));
    await until('the other one was asked for', () =>
      rig.legacy.calls.some(({ path }) => path === '/appointments/ann-2'),
    );
    // Copies that were still on their way ask for those two, too.
    const asksForNobody = () => rig.app.calls.filter(({ path }) => path === '/appointments/nobody');
    await until('the feed has told of them', () => asksForNobody().length > 0);
    expect(copiesOf('ann')).toBe(3);
    const asked = asksForNobody().length;
    const before = polls();
    await until('three more polls', () => polls() > before + 3);
    // What is known to be gone is not asked for again with every poll.
    expect(asksForNobody()).toHaveLength(asked);
    expect(copiesOf('ann')).toBe(3);
  });
});
