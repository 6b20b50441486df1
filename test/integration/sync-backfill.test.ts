/** The first copy: pages in, many records per call out, beside a live sync, and in pieces that anybody can go on with. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../src/core/records.ts';
import { BackfillStates } from '../../src/sync/backfill-state.ts';
import { backfillKey, copyLockKey, knownKey } from '../../src/sync/keys.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import type { GivenAnswer, SeenCall } from '../support/rest-store.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const count = 5_000;
const pageSize = 500;
const pages = count / pageSize;
const name = 'legacy appointment';
const records = Array.from({ length: count }, (_, at) => appointment(`r${at}`, `user-${at % 40}`));

async function start({ legacy, app, ...options }: SyncRigOptions = {}): Promise<void> {
  const paged = { paging: 'cursor', pageSize } as const;
  rig = await startSyncRig(server, {
    ...options,
    legacy: { ...paged, records, ...legacy },
    app: { ...paged, bulk: 250, ...app },
  });
}

const bulkCalls = () => rig.app.writes().filter(({ body }) => Array.isArray(body));
const recordsIn = ({ body }: SeenCall) => body as unknown as readonly Fields[];
const singleWrites = () => rig.app.writes().filter(({ body }) => !Array.isArray(body));
const progress = async () => (await rig.sync.backfills()).find(({ kind }) => kind === 'appointment');
const ended = () =>
  until('the first copy has ended', async () => (await progress())?.endedMs !== undefined, 60_000);
const caughtUp = () =>
  until(
    'a full pass has followed',
    async () => (await rig.sync.desk.lagMs()) !== undefined && (await rig.sync.backlog()) === 0,
    60_000,
  );

/** Calls back when the first copy asks for the list's page at that place for the first time. */
function atPage(place: number, meet: (call: SeenCall) => Promise<GivenAnswer | undefined>): void {
  let met = false;
  rig.legacy.intercept = async (call) => {
    const copying = (await rig.redis.hexists(backfillKey, name)) === 1;
    const asked = call.path === '/appointments' && Number(call.query.get('cursor') ?? 0) === place * pageSize;
    if (met || !copying || !asked) return undefined;
    met = true;
    return meet(call);
  };
}

function expectEqual(): void {
  expect(Object.fromEntries(rig.app.records)).toEqual(Object.fromEntries(rig.legacy.records));
}

describe('a first copy', () => {
  test('takes many records in one call, and leaves nothing behind in Redis but how it went', async () => {
    await start();
    await rig.sync.startWorkers();
    await ended();
    await caughtUp();
    expectEqual();
    expect(bulkCalls()).toHaveLength(count / 250);
    expect(singleWrites()).toEqual([]);
    expect(await progress()).toMatchObject({
      ...{ owner: 'legacy', phase: 'done', records: count, written: count, restarts: 0 },
    });
    expect(await rig.redis.exists(backfillKey, knownKey(name))).toBe(0);
    expect(await rig.registry.count()).toBe(40);
    expect(rig.legacy.writes()).toEqual([]);
  });

  test('is not begun for a few records, and goes without bulk where there is none', async () => {
    await start({ legacy: { records: records.slice(0, 30) } });
    await rig.sync.startWorkers();
    await caughtUp();
    expectEqual();
    expect(await progress()).toBeUndefined();
  });

  test('signs each call for one partition where the store is guarded', async () => {
    await start({ appStore: { guard: true } });
    await rig.sync.startWorkers();
    await ended();
    expect(bulkCalls().length).toBeGreaterThan(0);
    for (const call of bulkCalls()) {
      const partitions = new Set(recordsIn(call).map((record) => record['owner_id']));
      expect([...partitions]).toEqual([call.headers['onewriter-partition']]);
    }
    await caughtUp();
    expectEqual();
  });

  test('that is writing a record of one partition keeps another one, which has got it since, from being proven', async () => {
    await start();
    let letGo = (): void => undefined;
    const gone = new Promise<void>((resolve) => (letGo = resolve));
    let onTheWay: string | undefined;
    rig.app.intercept = async (call) => {
      if (onTheWay !== undefined || !Array.isArray(call.body)) return undefined;
      const first = recordsIn(call)[0]?.['id'];
      onTheWay = typeof first === 'string' ? first : undefined;
      await gone;
      return undefined;
    };
    await rig.sync.startWorkers();
    const id = await until('a call is under way', () => onTheWay);
    rig.legacy.set(appointment(id, 'late', 'given away'));
    await rig.order('late', { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 });
    const caught = rig.sync.desk.catchUp('late', 'the-attempt', new AbortController().signal);
    await expect(caught).rejects.toThrow('on its way for another partition');
    await rig.order('late', { kind: 'abort', attempt: 'the-attempt' });
    letGo();
    await ended();
    await caughtUp();
    expectEqual();
  });

  test('leaves what the target held before to the full pass: nothing is overwritten unseen', async () => {
    await start({
      app: { records: [appointment('r7', 'somebody-else', 'his own'), appointment('r8', 'user-8')] },
    });
    await rig.flip('somebody-else');
    await rig.sync.startWorkers();
    await ended();
    expect(
      bulkCalls()
        .flatMap(recordsIn)
        .filter(({ id }) => id === 'r7' || id === 'r8'),
    ).toEqual([]);
    expect(rig.app.records.get('r7')).toMatchObject({ owner_id: 'somebody-else', title: 'his own' });
  });
});

describe('beside the live sync', () => {
  test('a page that was read before a newer copy was made does not bring the old record back', async () => {
    await start();
    atPage(3, async () => {
      const all = [...rig.legacy.records.values()];
      const stale = all.slice(3 * pageSize, 4 * pageSize);
      rig.legacy.set(appointment('r1600', 'user-0', 'new'));
      rig.legacy.remove('r1640');
      rig.app.set(appointment('r1640', 'user-0'));
      for (const id of ['r1600', 'r1640']) {
        rig.sync.doorbell.ring({ partition: 'user-0', kind: 'appointment', id });
      }
      await until('the live sync has copied both', () => {
        return rig.app.records.get('r1600')?.['title'] === 'new' && !rig.app.records.has('r1640');
      });
      return { status: 200, body: { data: stale, next: String(4 * pageSize) } };
    });
    await rig.sync.startWorkers();
    await ended();
    const old = bulkCalls()
      .flatMap(recordsIn)
      .filter(({ id }) => id === 'r1600' || id === 'r1640');
    expect(old).toEqual([]);
    expect(rig.app.records.get('r1600')).toMatchObject({ title: 'new' });
    rig.legacy.intercept = undefined;
    await caughtUp();
    expectEqual();
  });

  test('a partition that moves on the way gets nothing from then on', async () => {
    await start();
    let callsBefore = 0;
    atPage(4, async () => {
      await rig.flip('user-5');
      callsBefore = rig.app.calls.length;
      return undefined;
    });
    await rig.sync.startWorkers();
    await ended();
    const after = rig.app.calls.slice(callsBefore).filter(({ body }) => Array.isArray(body));
    expect(after.length).toBeGreaterThan(0);
    // One call may have been on its way when the partition moved.
    const late = after.slice(4).flatMap(recordsIn);
    expect(late.filter((record) => record['owner_id'] === 'user-5')).toEqual([]);
    expect(late.length).toBeGreaterThan(0);
  });

  test('a partition that moves between two calls under the same locks gets no call more', async () => {
    await start({ appStore: { guard: true } });
    let flipped: Promise<void> | undefined;
    rig.app.intercept = async ({ body }) => {
      if (!Array.isArray(body)) return undefined;
      flipped ??= rig.flip('user-30');
      await flipped;
      return undefined;
    };
    await rig.sync.startWorkers();
    await ended();
    expect(bulkCalls().filter(({ headers }) => headers['onewriter-partition'] === 'user-30')).toEqual([]);
    expect(bulkCalls().length).toBeGreaterThan(39);
  });

  test('a partition that another hand copies is rung for, and the others do not wait for long', async () => {
    await start();
    await rig.redis.set(copyLockKey('user-9'), 'another', 'PX', 120_000);
    await rig.sync.startWorkers();
    await ended();
    const ids = bulkCalls().flatMap(recordsIn);
    expect(ids.filter((record) => record['owner_id'] === 'user-9')).toEqual([]);
    expect(rig.app.records.size).toBe(count - count / 40);
    expect(await rig.sync.backlog()).toBeGreaterThan(0);
    await rig.redis.del(copyLockKey('user-9'));
    await caughtUp();
    expectEqual();
  }, 120_000);

  test('changes beside the proxy are followed while it runs, where versions are instants', async () => {
    const dated = records.map((record) => ({ ...record, updated_at: '2020-01-01T00:00:00.000Z' }));
    await start({ legacy: { since: true, records: dated } });
    atPage(6, async () => {
      rig.legacy.set(appointment('r10', 'user-10', 'new'));
      await until('the feed brought it', () => rig.app.records.get('r10')?.['title'] === 'new', 30_000);
      return undefined;
    });
    await rig.sync.startWorkers();
    await ended();
    expect(rig.app.records.get('r10')?.['title']).toBe('new');
  });
});

describe('in pieces', () => {
  const listCalls = () =>
    rig.legacy.calls.filter(({ path, method }) => path === '/appointments' && method === 'GET');

  test('goes on behind the last page that was settled, and writes none of it again', async () => {
    await start();
    let stopped: Promise<void> | undefined;
    atPage(6, async () => {
      stopped = rig.restartSync();
      await stopped;
      return { status: 500 };
    });
    await rig.sync.startWorkers();
    await until('it was stopped on the way', () => stopped !== undefined, 30_000);
    await stopped;
    const before = await progress();
    expect(before?.phase).toBe('copying');
    expect(before?.records).toBeGreaterThan(0);
    const callsBefore = listCalls().length;
    await rig.sync.startWorkers();
    await ended();
    const cursors = listCalls()
      .slice(callsBefore)
      .map(({ query }) => Number(query.get('cursor') ?? 0));
    expect(cursors).not.toContain((before?.records ?? 0) - pageSize);
    const ids = bulkCalls()
      .flatMap(recordsIn)
      .map(({ id }) => id);
    expect(ids).toHaveLength(new Set(ids).size);
    await caughtUp();
    expectEqual();
    expect((await progress())?.records).toBe(count);
  });

  test('a list that cannot be continued begins anew, without writing again what was written', async () => {
    await start();
    atPage(6, async () => ({ status: 400, body: { detail: 'the cursor has expired' } }));
    await rig.sync.startWorkers();
    await ended();
    expect(await progress()).toMatchObject({ phase: 'done', restarts: 1, records: count });
    const ids = bulkCalls()
      .flatMap(recordsIn)
      .map(({ id }) => id);
    expect(ids).toHaveLength(count);
    expect(new Set(ids).size).toBe(count);
  });

  test('who was taken over while he read writes nothing of what he has read', async () => {
    await start();
    let callsBefore = 0;
    atPage(pages - 1, async () => {
      await new BackfillStates(rig.redis).take(name);
      await until('what is under way has ended', () => {
        const now = bulkCalls().length;
        const same = now === callsBefore && now > 0;
        callsBefore = now;
        return same;
      });
      rig.legacy.intercept = ({ path }) => (path === '/appointments' ? { status: 503 } : undefined);
      return { status: 200, body: { data: records.slice(-pageSize), next: null } };
    });
    await rig.sync.startWorkers();
    await until(
      'he has noticed',
      () => rig.events.some(({ event }) => event === 'sync.backfill-taken-over'),
      30_000,
    );
    expect(bulkCalls()).toHaveLength(callsBefore);
    rig.legacy.intercept = undefined;
    await ended();
    await caughtUp();
    expectEqual();
  });
});
