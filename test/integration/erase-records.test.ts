/** The deletes of an erasure, against two real stores: under its fence alone, whatever lists and stores say. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type ErasedRecord, erasureAttempt } from '../../src/core/erasure.ts';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
import { backfillKey, backfillName, copyLockKey, syncKeys } from '../../src/sync/keys.ts';
import { KnownCopies } from '../../src/sync/known-copies.ts';
import { type StoredVerification, VerificationBook } from '../../src/sync/verification-book.ts';
import { Inbox } from '../../src/sync/webhooks/inbox.ts';
import { contentsOf } from '../support/erasure.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;
let noted: ErasedRecord[];
const never = new AbortController().signal;
const attempt = erasureAttempt('test');

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const records = [1, 2, 3].flatMap((at) => [appointment(`ann-${at}`, 'ann'), appointment(`bob-${at}`, 'bob')]);

async function start(options: SyncRigOptions = {}): Promise<void> {
  noted = [];
  rig = await startSyncRig(server, {
    ...options,
    legacy: { paging: 'cursor', pageSize: 2, records, ...options.legacy },
    app: { paging: 'cursor', pageSize: 2, records, ...options.app },
  });
}

const fence = (named = attempt) =>
  rig.order('ann', { kind: 'fence', to: 'app', attempt: named, fenceMs: 60_000 });
const erase = (signal = never) =>
  rig.sync.erasing.eraser.erase(
    {
      ...{ partition: 'ann', attempt },
      note: async (found) => {
        noted.push(...found);
      },
    },
    signal,
  );
const left = () =>
  [rig.legacy, rig.app].map((store) => [...store.records.keys()].filter((id) => id.startsWith('ann')).length);
const deletes = () =>
  [rig.legacy, rig.app].flatMap((store) => store.writes().map(({ method, path }) => `${method} ${path}`));

describe('nothing is deleted', () => {
  test.each([
    ['while the partition is open', async () => undefined],
    ['under the fence of a handoff', () => fence('a handoff')],
    ['under the fence of another erasure', () => fence(erasureAttempt('other'))],
    [
      'once the fence is gone',
      async () => {
        await fence();
        await rig.order('ann', { kind: 'abort', attempt });
      },
    ],
  ])('%s', async (_, prepare) => {
    await start();
    await prepare();
    await expect(erase()).rejects.toThrow('the fence of this erasure is gone');
    expect(deletes()).toEqual([]);
  });

  test('from the moment on at which the fence goes, in the middle of it', async () => {
    await start();
    await fence();
    rig.legacy.intercept = async ({ method }) => {
      if (method === 'DELETE') await rig.order('ann', { kind: 'abort', attempt }).catch(() => undefined);
      return undefined;
    };
    await expect(erase()).rejects.toThrow('the fence of this erasure is gone');
    // Those that were on their way together with the first.
    expect(rig.app.writes()).toEqual([]);
  });

  test('while the ledger is known to have lost data', async () => {
    await start();
    await fence();
    await rig.redis.hset('{onewriter}:meta', 'regressed', 'version 9 is missing');
    await expect(erase()).rejects.toThrow('the ledger lost data');
    expect(deletes()).toEqual([]);
  });

  test('by who has lost the copy lock', async () => {
    await start();
    await fence();
    rig.app.intercept = async ({ method }) => {
      if (method === 'GET') await rig.redis.set(copyLockKey('ann'), 'somebody else');
      return undefined;
    };
    await expect(erase()).rejects.toThrow('the copy lock was lost');
    expect(deletes()).toEqual([]);
  });
});

describe('everything is deleted', () => {
  test('on both sides, and of nobody else, with the records noted before', async () => {
    await start();
    await fence();
    const look = await erase();
    expect(look).toMatchObject({ records: [], tombstones: [], unreadable: [], undeletable: [], unseen: [] });
    expect(left()).toEqual([0, 0]);
    expect(deletes().filter((call) => !call.startsWith('DELETE /appointments/ann-'))).toEqual([]);
    expect(deletes()).toHaveLength(6);
    expect(noted).toHaveLength(6);
  });

  test('also what a list hides and the other store shows; not what lies in another partition by now', async () => {
    await start();
    await fence();
    rig.legacy.set(appointment('ann-2', 'bob'));
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments'
        ? { status: 200, body: { data: [appointment('ann-3', 'ann')], next: null } }
        : undefined;
    await erase();
    expect([...rig.legacy.records.keys()].toSorted()).toEqual(['ann-2', 'bob-1', 'bob-2', 'bob-3']);
    expect(left()).toEqual([1, 0]);
  });

  test('although a list shows for a while what is gone', async () => {
    await start();
    await fence();
    const shown = records.filter(({ owner_id: owner }) => owner === 'ann');
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments' ? { status: 200, body: { data: shown, next: null } } : undefined;
    expect((await erase()).records).toEqual([]);
    expect(deletes()).toHaveLength(6);
  });

  test('after a 429, which says that nothing was done', async () => {
    await start();
    await fence();
    let refused = 0;
    rig.legacy.intercept = ({ method }) => {
      if (method !== 'DELETE' || refused >= 2) return undefined;
      refused += 1;
      return { status: 429, headers: { 'retry-after': '0' } };
    };
    await erase();
    expect(refused).toBe(2);
    expect(left()).toEqual([0, 0]);
  });

  test('but one that the store refuses: the others go, and it is said', async () => {
    await start();
    await fence();
    rig.legacy.intercept = ({ method, path }) =>
      method === 'DELETE' && path.endsWith('ann-2') ? { status: 409, body: { detail: 'paid' } } : undefined;
    await expect(erase()).rejects.toThrow('409: paid');
    expect(left()).toEqual([1, 3]);
    // Nothing was deleted in the app, whose guard would have to be sealed then.
    expect(rig.app.writes()).toEqual([]);
  });

  test('a store that keeps what it says it has deleted is found out', async () => {
    await start();
    await fence();
    rig.app.intercept = ({ method }) => (method === 'DELETE' ? { status: 204 } : undefined);
    await expect(erase()).rejects.toThrow('app still shows 3 records after 5 passes');
  });

  test('what a store shows as deleted is told, and not deleted again and again', async () => {
    await start({ legacy: { softDeletes: true } });
    await fence();
    const look = await erase();
    expect(look.tombstones).toEqual([{ store: 'legacy', kind: 'appointment', records: 3 }]);
    expect(deletes()).toHaveLength(6);
  });

  test('but one whose id nobody can ask for: the others go, and it is told', async () => {
    await start({
      legacy: { records: [...records, appointment('x\ud800', 'ann'), appointment('y\ud800', 'bob')] },
    });
    const unreadable = [{ store: 'legacy', kind: 'appointment', records: 1 }];
    expect(await rig.sync.erasing.eraser.look('ann', never)).toMatchObject({ unreadable });
    await fence();
    expect(await erase()).toMatchObject({ records: [], unreadable });
    expect(deletes()).toHaveLength(6);
  });

  test('many at once, without a brake', async () => {
    const many = Array.from({ length: 60 }, (_, at) => appointment(`ann-${at}`, 'ann'));
    await start({ legacy: { records: many, pageSize: 100 }, app: { records: many, pageSize: 100 } });
    await rig.sync.startWorkers();
    await fence();
    await erase();
    await rig.order('ann', { kind: 'abort', attempt });
    expect(left()).toEqual([0, 0]);
    await until('a poll has reached the end', async () => (await rig.sync.desk.lagMs()) !== undefined);
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    expect(await rig.sync.brakes.list()).toEqual([]);
    expect(rig.app.writes().filter(({ method }) => method !== 'DELETE')).toEqual([]);
  });
});

describe('what is under way beside it', () => {
  test('a first copy that has read the records leaves them alone', async () => {
    await start();
    const name = backfillName('legacy', 'appointment');
    await rig.redis.hset(backfillKey, name, 'a run');
    await fence();
    await erase();
    const known = new KnownCopies(rig.redis, name);
    expect(await known.has(['ann-1', 'bob-1'].map((id) => known.trace(id)))).toEqual([true, false]);
  });

  test('no copy is made under the fence, and a poll rings for nothing that is being erased', async () => {
    await start();
    await fence();
    await rig.restartSync();
    rig.app.records.delete('ann-1');
    rig.app.records.delete('bob-1');
    const refused = await rig.sync.desk.bringUp('ann', never);
    expect(refused.problems).toMatchObject([{ detail: expect.stringContaining('the partition is fenced') }]);
    await rig.sync.startWorkers();
    await until('bob has his copy', () => rig.app.records.has('bob-1'));
    expect(rig.app.records.has('ann-1')).toBe(false);
    const owed = await rig.redis.zrange(syncKeys.owedSince, 0, -1);
    expect(owed.filter((mark) => mark.includes('ann'))).toEqual([]);
  });
});

test('a webhook about a delete of ours rings for nobody; it is only taken out', async () => {
  const webhook = {
    signatures: [{ scheme: 'github', secrets: ['a-secret-of-the-hooks'] }],
    events: [{ kind: 'appointment', id: 'id', partition: 'owner' }],
  };
  await start({ legacyConnector: { webhook } });
  await fence();
  await rig.restartSync();
  const inbox = new Inbox(rig.redis);
  const named = (partition: string) => ({ kind: 'appointment', id: `${partition}-1`, partition });
  await rig.sync.halts.pause(null, 'test', 'so that what is rung for stays');
  await rig.sync.startWorkers();
  await inbox.store({ store: 'legacy', delivery: undefined, records: [named('ann'), named('bob')] });
  await until('both are taken out', async () => (await inbox.waiting()) === 0);
  const owed = await rig.redis.zrange(syncKeys.owedSince, 0, -1);
  expect(owed).toEqual([expect.stringContaining('bob')]);
});

describe('what the sync keeps', () => {
  const brake = {
    partition: 'ann',
    deletes: 30,
    limit: 20,
    records: 30,
    first: ['appointment ann-1'],
    atMs: 1,
  };
  const subject = { partition: 'ann', records: [] };

  test('is counted without a change, and forgotten: letters, marks, brakes, reports of verifications', async () => {
    await start();
    const { redis, sync } = rig;
    const letters = new DeadLetters(redis);
    await letters.add(
      { partition: 'ann', kind: 'appointment', id: 'ann-1' },
      'no room',
      'no room for Kierkegaard',
    );
    await letters.add({ partition: 'bob', kind: 'appointment', id: 'bob-1' }, 'of bob');
    await redis.hset(syncKeys.brakes, 'ann', JSON.stringify(brake));
    const first = ['ann appointment ann-1', 'bob appointment bob-1'];
    await redis.set(
      syncKeys.brakeOnAll,
      JSON.stringify({ deletes: 9, limit: 100, lately: 100, copies: 5_000, first, atMs: 1 }),
    );
    sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-2' });
    sync.doorbell.ring({ partition: 'bob', kind: 'appointment', id: 'bob-2' });
    await until('both are rung for', async () => (await sync.backlog()) === 2);
    const book = new VerificationBook(redis);
    await book.add(shown('v-done', 'done'), []);
    await book.add(shown('v-running', 'running'), ['ann', 'bob']);

    const { memory } = sync.erasing;
    const before = await contentsOf(redis);
    const counted = (await memory.count(subject)).filter(({ entries }) => entries > 0);
    expect(new Map(counted.map(({ place, entries }) => [place, entries]))).toEqual(
      new Map([
        ...([
          ['marks', 1],
          ['jobs', 1],
          ['dead-letters', 1],
          ['brakes', 2],
          ['verifications', 2],
        ] as const),
      ]),
    );
    expect(await contentsOf(redis)).toEqual(before);

    await memory.forget(subject);
    expect((await memory.count(subject)).filter(({ entries }) => entries > 0)).toEqual([]);
    const kept = [...(await contentsOf(redis))].filter(
      ([, text]) => text.includes('Kierkegaard') || text.includes('ann-'),
    );
    expect(kept).toEqual([]);
    expect((await letters.list()).map(({ id }) => id)).toEqual(['bob-1']);
    expect(await sync.backlog()).toBe(1);
    // It holds as before.
    expect(await sync.brakes.onAll()).toMatchObject({ deletes: 9, first: ['bob appointment bob-1'] });
    const [running, done] = await Promise.all([book.get('v-running'), book.get('v-done')]);
    // It would have saved again what it holds in memory.
    expect(running?.seen).toMatchObject({
      state: 'cancelled',
      differences: { examples: [{ partition: 'bob' }] },
    });
    expect(done?.seen).toMatchObject({ state: 'done', differences: { examples: [{ partition: 'bob' }] } });
  });

  test('afterwards only what was under way is swept, and nothing that somebody makes who has come back', async () => {
    await start();
    const { redis, sync } = rig;
    const ours = { ...subject, records: [{ store: 'legacy' as const, kind: 'appointment', id: 'ann-1' }] };
    const { memory } = sync.erasing;
    await memory.forget(ours);
    const letters = new DeadLetters(redis);
    await letters.add({ partition: 'ann', kind: 'appointment', id: 'ann-new' }, 'of a new record');
    await letters.add(
      { partition: 'ann', kind: 'appointment', id: 'ann-1' },
      'of one that is made anew, or gone',
    );
    sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-new' });
    await until('it is rung for', async () => (await sync.backlog()) === 1);
    const book = new VerificationBook(redis);
    await book.add(shown('v-late', 'done'), []);
    await redis.hset(
      '{onewriter}:sync:copied-back:legacy:ann',
      JSON.stringify(['appointment', 'ann-new']),
      '=x',
    );

    expect(await memory.sweep(ours)).toEqual(expect.arrayContaining([{ place: 'jobs', entries: 0 }]));
    // Rung for again: who is gone takes the letter along.
    expect(await letters.count('ann')).toBe(2);
    const owed = await redis.zrange(syncKeys.owedSince, 0, -1);
    expect(new Set(owed.map((mark) => (JSON.parse(mark) as string[])[2]))).toEqual(
      new Set(['ann-1', 'ann-new']),
    );
    expect((await book.get('v-late'))?.seen.differences.examples).toMatchObject([{ partition: 'bob' }]);
    expect(await redis.exists('{onewriter}:sync:copied-back:legacy:ann')).toBe(1);
  });

  test('a stray watch that has read the records before does not note them afterwards', async () => {
    await start();
    await rig.flip('ann');
    let erased = false;
    rig.legacy.intercept = async ({ method, path }) => {
      if (method !== 'GET' || path !== '/appointments' || erased) return undefined;
      erased = true;
      await rig.order('ann', { kind: 'fence', to: 'legacy', attempt, fenceMs: 60_000 });
      await rig.order('ann', { kind: 'abort', attempt });
      return undefined;
    };
    await rig.sync.strayWatch.look(never);
    expect(erased).toBe(true);
    const snapshot = (await contentsOf(rig.redis)).get('{onewriter}:sync:snapshot:legacy') ?? '';
    expect(snapshot).not.toContain('ann');
  });
});

describe('with the rollback window on', () => {
  test('what was copied back goes, too; afterwards copies go back as ever, and what is not ours is a stray', async () => {
    await start({ sync: { rollbackWindow: 'on', strayPassMs: 600_000 } });
    await rig.flip('ann');
    await rig.sync.startWorkers();
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-1' });
    await until('it is in legacy', () => rig.legacy.records.get('ann-1')?.['title'] === 'changed in the app');
    await rig.order('ann', { kind: 'fence', to: 'legacy', attempt, fenceMs: 60_000 });
    await erase();
    const copied = '{onewriter}:sync:copied-back:legacy:ann';
    expect(await rig.redis.hlen(copied)).toBe(1);
    await rig.sync.erasing.memory.disregard?.('ann');
    // Else a copy back between two turns would take the erased record for a stray's doing.
    expect(await rig.redis.hlen(copied)).toBe(0);
    await rig.sync.erasing.memory.forget({ partition: 'ann', records: noted });
    await rig.order('ann', { kind: 'abort', attempt });
    expect(left()).toEqual([0, 0]);
    // Before anybody has looked again: it must not pass for what was there at the handoff.
    rig.legacy.set(appointment('ann-2', 'ann', 'late'));
    await rig.sync.strayWatch.look(never);
    expect(await rig.sync.strays.list()).toMatchObject([{ record: 'ann-2', change: 'created' }]);

    rig.app.set(appointment('ann-9', 'ann', 'a new beginning'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-9' });
    await until('it is in legacy', () => rig.legacy.records.has('ann-9'));
    await rig.sync.strayWatch.look(never);
    expect(await rig.sync.strays.list()).toHaveLength(1);
  });
});

function shown(id: string, state: 'done' | 'running'): StoredVerification {
  const example = (partition: string, value: string) => ({
    ...{
      partition,
      difference: 'changed' as const,
      kind: 'appointment',
      id: `${partition}-1`,
      fields: ['title'],
    },
    values: [{ field: 'title', owner: value, copy: '' }],
  });
  return {
    ...{ repair: false, values: true },
    seen: {
      ...{ id, state, cohort: 'all', by: 'ops', startedAtMs: 1, partitions: 2, sampledFrom: 2, compared: 2 },
      ...{ notCopied: 0, records: 6, progress: { done: 1, total: 2 }, problems: [] },
      differences: {
        ...{ missing: 0, extra: 0, changed: 2, unconfirmed: 0 },
        examples: [example('ann', 'Kierkegaard'), example('bob', 'Hegel')],
      },
    },
  };
}
