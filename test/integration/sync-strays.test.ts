/** Changes in the store that a partition has left: found, told from what looks like them, and kept for the operator. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { RedisDoubts } from '../../src/ledger/doubts.ts';
import { Snapshots } from '../../src/sync/snapshots.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import type { SeenCall } from '../support/rest-store.ts';
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

const people = ['ann', 'bob', 'cy', 'dee'];
const records = people.flatMap((name) => [1, 2, 3].map((at) => appointment(`${name}-${at}`, name)));

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, {
    ...options,
    legacy: { paging: 'cursor', pageSize: 5, records, ...options.legacy },
    app: { paging: 'cursor', pageSize: 5, ...options.app },
  });
  await rig.registry.note(people.map((partition) => ({ partition })));
}

/** A handoff with its catch-up, as the coordinator runs it. */
async function handOver(partition: string): Promise<void> {
  const attempt = `attempt of ${partition}`;
  await rig.order(partition, { kind: 'fence', to: 'app', attempt, fenceMs: 10_000 });
  await rig.sync.desk.catchUp(partition, attempt, never);
  await rig.order(partition, { kind: 'commit', attempt });
  await rig.order(partition, { kind: 'release', attempt });
}

const look = () => rig.sync.strayWatch.look(never);
const found = async () =>
  (await rig.sync.strays.list()).map(({ partition, record, change, state }) => ({
    ...{ partition, record, change, state },
  }));
const alarms = (event = 'sync.stray') => rig.events.filter((logged) => logged.event === event);
const ann = (record: string, change: string) => ({ partition: 'ann', record, change, state: 'open' });

describe.each([
  ['lists over all', {}],
  ['lists that exist only by partition', { partitionInPath: true }],
])('with %s', (_, options) => {
  test('what is created, changed or deleted in the old store is told once, and never copied', async () => {
    await start({ legacy: options, app: options });
    await handOver('ann');
    await handOver('bob');
    await look();
    expect(await found()).toEqual([]);
    rig.legacy.set(appointment('ann-1', 'ann', 'changed by somebody'));
    rig.legacy.set(appointment('new', 'ann'));
    rig.legacy.remove('ann-3');
    const writes = rig.app.writes().length;
    await look();
    const all = [ann('ann-1', 'changed'), ann('new', 'created'), ann('ann-3', 'deleted')];
    expect(new Set(await found())).toEqual(new Set(all));
    expect(alarms()).toHaveLength(3);
    await look();
    expect(alarms()).toHaveLength(3);
    expect(rig.app.writes()).toHaveLength(writes);
    expect(await rig.sync.strays.open()).toEqual(new Map([['ann', 3]]));
    const [changed] = (await rig.sync.strays.list()).filter(({ record }) => record === 'ann-1');
    expect(changed).toMatchObject({ store: 'legacy', kind: 'appointment', owner: 'app', epoch: 4 });
    expect(changed?.holds).toContain('changed by somebody');
    expect(changed?.ownerHolds).toContain('appointment ann-1');
  });
});

describe('what is no stray', () => {
  test('changes of whoever owns the partition, on both sides', async () => {
    await start();
    await handOver('ann');
    rig.legacy.set(appointment('bob-1', 'bob', 'by bob himself'));
    rig.app.set(appointment('ann-1', 'ann', 'by ann in the app'));
    rig.app.remove('ann-2');
    await look();
    expect(await found()).toEqual([]);
  });

  test('fields that no copy takes, and those that only look different', async () => {
    const at = '2026-01-01T10:00:00Z';
    const dated = records.map((record) => ({ ...record, at, updated_at: at }));
    await start({ legacy: { paging: 'none', since: true, records: dated } });
    await handOver('ann');
    rig.legacy.set({
      ...appointment('ann-1', 'ann'),
      ...{ at: '2026-01-01T11:00:00+01:00', updated_at: '2026-02-01T10:00:00Z', note: null },
    });
    await look();
    expect(await found()).toEqual([]);
  });

  test('what is as the owner has it, whoever made it so', async () => {
    await start();
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'by ann in the app'));
    rig.app.remove('ann-2');
    rig.app.set(appointment('ann-9', 'ann', 'new'));
    rig.legacy.set(appointment('ann-1', 'ann', 'by ann in the app'));
    rig.legacy.remove('ann-2');
    rig.legacy.set(appointment('ann-9', 'ann', 'new'));
    await look();
    expect(await found()).toEqual([]);
    rig.legacy.set(appointment('ann-9', 'ann', 'by somebody'));
    await look();
    expect(await found()).toEqual([ann('ann-9', 'created')]);
  });

  test('a row that a list left out, or showed as it was, where the record itself is right', async () => {
    await start({ legacy: { paging: 'none' } });
    await handOver('ann');
    rig.legacy.intercept = (call) => {
      if (call.path !== '/appointments') return undefined;
      const old = [appointment('ann-1', 'ann', 'long ago'), appointment('ann-2', 'ann')];
      return { status: 200, body: { data: [...old, appointment('ann-2', 'ann')] } };
    };
    await look();
    expect(await found()).toEqual([]);
  });

  test('what comes while the partition is on its way back', async () => {
    await start();
    await handOver('ann');
    let moved = false;
    rig.legacy.set(appointment('ann-1', 'ann', 'changed'));
    rig.legacy.intercept = async (call) => {
      if (call.path !== '/appointments/ann-1' || moved) return undefined;
      moved = true;
      await rig.order('ann', { kind: 'fence', to: 'legacy', attempt: 'back', fenceMs: 10_000 });
      await rig.order('ann', { kind: 'commit', attempt: 'back' });
      await rig.order('ann', { kind: 'release', attempt: 'back' });
      return undefined;
    };
    await look();
    expect(moved).toBe(true);
    expect(await found()).toEqual([]);
    // Back again: what was written in between is part of what is handed over.
    await handOver('ann');
    await look();
    expect(await found()).toEqual([]);
  });

  test('an attempt that was given up leaves the partition as it was', async () => {
    await start();
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
    await rig.sync.desk.catchUp('ann', 'a', never);
    await rig.order('ann', { kind: 'abort', attempt: 'a' });
    rig.legacy.set(appointment('ann-1', 'ann', 'by ann herself'));
    await look();
    await handOver('ann');
    await look();
    expect(await found()).toEqual([]);
  });
});

test('in a store that copies still go to, nothing is a stray: the next copy goes over it', async () => {
  await start();
  await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
  await rig.order('ann', { kind: 'abort', attempt: 'a' });
  await look();
  rig.app.set(appointment('ann-1', 'ann', 'changed'));
  await look();
  await look();
  expect(await found()).toEqual([]);
});

test('a write in doubt that takes effect late is named so', async () => {
  await start();
  const doubts = new RedisDoubts(rig.redis);
  const doubt = { partition: 'ann', store: 'legacy', epoch: 1, member: 'm', why: 'timed out' } as const;
  await doubts.note({ ...doubt, method: 'PUT', path: '/appointments/ann-2', settleMs: 60_000 });
  await handOver('ann');
  rig.legacy.set(appointment('ann-2', 'ann', 'late'));
  rig.legacy.set(appointment('ann-3', 'ann', 'by somebody'));
  await look();
  const strays = await rig.sync.strays.list();
  const late = Object.fromEntries(strays.map(({ record, lateWrite }) => [record, lateWrite?.path]));
  expect(late).toEqual({ 'ann-2': '/appointments/ann-2', 'ann-3': undefined });
  expect(new Set(alarms().map(({ fields }) => fields['what']))).toEqual(new Set(['late-write', 'stray']));
});

describe('what an operator resolves', () => {
  const onlyOne = async () => {
    const [stray] = await rig.sync.strays.list('open');
    if (stray === undefined) throw new Error('no stray');
    return stray.id;
  };

  test('is not told again where it may stay, and a further change is', async () => {
    await start();
    await handOver('ann');
    rig.legacy.set(appointment('ann-1', 'ann', 'first'));
    await look();
    await rig.sync.strays.resolve(await onlyOne(), 'ignored', 'olga', 'a test');
    expect(await rig.sync.strays.open()).toEqual(new Map());
    await look();
    expect(alarms()).toHaveLength(1);
    rig.legacy.set(appointment('ann-1', 'ann', 'second'));
    await look();
    expect(alarms()).toHaveLength(2);
    // What it was at the handoff is a change, too, by now, where the owner has gone on.
    rig.app.set(appointment('ann-1', 'ann', 'in the app'));
    rig.legacy.set(appointment('ann-1', 'ann'));
    await look();
    expect(alarms()).toHaveLength(3);
  });

  test('is opened again where it was said to be repaired and is not', async () => {
    await start();
    await handOver('ann');
    rig.legacy.set(appointment('ann-1', 'ann', 'first'));
    await look();
    await rig.sync.strays.resolve(await onlyOne(), 'repaired', 'olga', 'put back');
    await look();
    expect(alarms('sync.stray-not-repaired')).toHaveLength(1);
    rig.legacy.set(appointment('ann-1', 'ann'));
    const repaired = await rig.sync.strays.resolve(await onlyOne(), 'repaired', 'olga', 'now it is');
    expect(repaired).toMatchObject({ state: 'resolved', resolved: { how: 'repaired', by: 'olga' } });
    await look();
    expect(await rig.sync.strays.open()).toEqual(new Map());
    expect(await rig.sync.strays.resolve('s-none', 'ignored', 'olga', 'x')).toBeUndefined();
  });
});

test('a first look during which Redis loses its memory is what nothing is compared with', async () => {
  await start();
  await handOver('ann');
  const snapshots = new Snapshots(rig.redis);
  const memory = await snapshots.memory();
  await rig.redis.del(...(await rig.redis.keys('*:sync:*')));
  await snapshots.saveFirst('legacy', new Map([['ann', new Map()]]), memory);
  expect(await snapshots.load('legacy', ['ann'])).toEqual(new Map());
  await snapshots.saveFirst('legacy', new Map([['ann', new Map()]]), await snapshots.memory());
  expect(await snapshots.load('legacy', ['ann'])).toEqual(new Map([['ann', new Map()]]));
});

test('what Redis forgets in the middle of a look is not held against a copy back that it knew of', async () => {
  let meanwhile: (() => Promise<unknown>) | undefined;
  const intercept = async ({ method, path }: SeenCall): Promise<undefined> => {
    if (method !== 'GET' || path.split('/').length > 2) return;
    const act = meanwhile;
    meanwhile = undefined;
    await act?.();
  };
  await start({ legacy: { intercept } });
  await handOver('ann');
  await look();
  // The app deletes a record, the deletion is copied back, and the app makes another one by the same name.
  meanwhile = async () => {
    rig.legacy.remove('ann-1');
    rig.app.set(appointment('ann-1', 'ann', 'new'));
    await rig.redis.del(...(await rig.redis.keys('*:sync:*')));
  };
  await look();
  expect(meanwhile).toBeUndefined();
  expect(await found()).toEqual([]);
});

test('a feed shows a change without another full look', async () => {
  await start({ legacy: { paging: 'none', since: true, records: [] } });
  for (const record of records) rig.legacy.set(record);
  await handOver('ann');
  await look();
  rig.legacy.set(appointment('ann-1', 'ann', 'changed'));
  const before = rig.legacy.calls.length;
  await rig.sync.strayWatch.follow(never);
  expect(await found()).toEqual([ann('ann-1', 'changed')]);
  const lists = rig.legacy.calls.slice(before).filter(({ path }) => path === '/appointments');
  expect(lists.every(({ query }) => query.has('updated_since'))).toBe(true);
});

test('without a snapshot the first look is what later ones are compared with', async () => {
  await start();
  await rig.flip('ann');
  await look();
  expect(await found()).toEqual([]);
  rig.legacy.set(appointment('ann-1', 'ann', 'changed'));
  await look();
  expect(await found()).toEqual([ann('ann-1', 'changed')]);
});

describe('what cannot be read hides nothing else', () => {
  const unread = () =>
    look().then(
      () => '',
      (error: Error) => error.message,
    );

  test.each([400, 500])('a record that is answered %d', async (status) => {
    await start();
    await handOver('ann');
    await look();
    rig.legacy.intercept = ({ path }) => (path === '/appointments/0-bad' ? { status, body: {} } : undefined);
    rig.legacy.set(appointment('0-bad', 'ann'));
    rig.legacy.set(appointment('x\ud800', 'ann'));
    const strays = Array.from({ length: 20 }, (_, at) => `s${at}`);
    for (const id of strays) rig.legacy.set(appointment(id, 'ann'));
    rig.legacy.set(appointment('ann-1', 'ann', 'changed by somebody'));
    expect(await unread()).toMatch(/^1 could not be read.* appointment 0-bad of ann: /);
    expect(new Set((await found()).map(({ record }) => record))).toEqual(new Set(['ann-1', ...strays]));
    expect(alarms('sync.unusable-records')[0]?.fields['first']).toContain('without a usable id');
    rig.legacy.intercept = undefined;
    await look();
    expect(await found()).toContainEqual(ann('0-bad', 'created'));
    expect(alarms('sync.unusable-records')).toHaveLength(1);
  });

  test('the list of one partition: what it does not show is neither gone nor what later looks go by', async () => {
    await start({ legacy: { partitionInPath: true }, app: { partitionInPath: true } });
    await handOver('ann');
    await handOver('bob');
    await rig.flip('cy');
    const bad = ['/people/ann/appointments', '/people/cy/appointments'];
    rig.legacy.intercept = ({ path, query }) =>
      bad.includes(path) && query.has('cursor') ? { status: 500, body: {} } : undefined;
    rig.legacy.set(appointment('new', 'bob'));
    for (const at of [4, 5, 6, 7]) {
      rig.legacy.set(appointment(`ann-${at}`, 'ann'));
      rig.legacy.set(appointment(`cy-${at}`, 'cy'));
    }
    rig.legacy.remove('ann-1');
    expect(await unread()).toMatch(/^2 could not be read.* the list of appointment ann: /);
    const bob = { partition: 'bob', record: 'new', change: 'created', state: 'open' };
    expect(await found()).toContainEqual(bob);
    expect((await found()).filter(({ change }) => change === 'deleted')).toEqual([]);
    rig.legacy.intercept = undefined;
    await look();
    expect((await found()).filter(({ partition }) => partition === 'cy')).toEqual([]);
    expect(await found()).toContainEqual(ann('ann-1', 'deleted'));
  });

  test('the workers say it once', async () => {
    await start({ sync: { pollMs: 50, strayPassMs: 100 } });
    await handOver('ann');
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments/bad' ? { status: 400, body: {} } : undefined;
    await rig.sync.startWorkers();
    await until('a first look', () => rig.legacy.calls.some(({ method }) => method === 'GET'));
    rig.legacy.set(appointment('bad', 'ann'));
    const looks = () => rig.legacy.calls.filter(({ path }) => path === '/appointments/bad').length;
    await until('several looks', () => looks() > 3);
    expect(alarms('sync.strays-not-looked')).toHaveLength(1);
  });
});

test('workers look by themselves, and a store that nobody has left is not asked', async () => {
  await start({ sync: { strayPassMs: 50, pollMs: 1_000 } });
  await look();
  expect(rig.legacy.calls).toEqual([]);
  await handOver('ann');
  rig.legacy.set(appointment('ann-1', 'ann', 'changed'));
  await rig.sync.startWorkers();
  await until('the stray', async () => (await found()).length === 1);
});
