/** Queues, polls and workers against real stores and a real Redis. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { connectorFor, type TestRestStore } from '../support/rest-store.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, options);
}

function idsInApp(): string[] {
  return [...rig.app.records.keys()].toSorted();
}

function copied(...ids: string[]): Promise<true> {
  return until(`the app holds ${ids.join(', ')}`, () => idsInApp().join() === ids.toSorted().join());
}

const idle = () => until('nothing waits', async () => (await rig.sync.backlog()) === 0);
const slowPolls = { sync: { pollMs: 3_600_000 } };

describe('the first copy', () => {
  test('takes everything over, fills the registry, and ends with little lag', async () => {
    const records = Array.from({ length: 40 }, (_, at) => appointment(`r${at}`, `user-${at % 5}`));
    await start({ legacy: { paging: 'cursor', pageSize: 7, records } });
    expect(await rig.sync.desk.lagMs()).toBeUndefined();
    await rig.sync.startWorkers();
    await copied(...records.map(({ id }) => id));
    expect((await rig.registry.all()).map(({ partition }) => partition).toSorted()).toEqual(
      [0, 1, 2, 3, 4].map((at) => `user-${at}`),
    );
    await until('the lag is small', async () => {
      const lagMs = await rig.sync.desk.lagMs();
      return lagMs !== undefined && lagMs < 1_000;
    });
    expect(rig.legacy.writes()).toEqual([]);
  });

  test('survives a restart and a Redis that lost the queue', async () => {
    await start({ legacy: { records: [appointment('1', 'ann')] } });
    await rig.sync.startWorkers();
    await copied('1');
    await rig.sync.stop();
    rig.legacy.set(appointment('2', 'ann'));
    await rig.redis.flushall();
    await rig.restartSync();
    await rig.sync.startWorkers();
    await copied('1', '2');
    await rig.redis.flushall();
    rig.legacy.set(appointment('3', 'bob'));
    await copied('1', '2', '3');
  });

  test('tells a registry that was lost again what it had noted', async () => {
    await start({ legacy: { records: [appointment('1', 'ann'), appointment('2', 'bob')] } });
    await rig.sync.startWorkers();
    await copied('1', '2');
    expect(await rig.registry.count()).toBe(2);
    await rig.redis.flushall();
    await until('both are known again', async () => (await rig.registry.count()) === 2);
  });

  test('goes round the partitions where a list exists only by partition', async () => {
    await start({
      legacy: { partitionInPath: true, records: [appointment('1', 'ann'), appointment('2', 'bob')] },
    });
    await rig.registry.note([{ partition: 'ann' }, { partition: 'bob' }]);
    await rig.sync.startWorkers();
    await copied('1', '2');
    rig.legacy.remove('1');
    await copied('2');
    await until('a round has ended', async () => (await rig.sync.desk.lagMs()) !== undefined);
  });
});

test('a kind that cannot be read keeps no list by partition waiting', async () => {
  const byPartition = connectorFor({ partitionInPath: true });
  const plain = connectorFor();
  const list = { path: '/notes', query: { owner: '{partition}' }, items: 'data' };
  const notes = { ...plain.records['appointment'], list };
  const withNotes = (connector: typeof plain) => ({
    connector: { ...connector, records: { note: notes, ...connector.records } },
  });
  await start({
    legacy: { partitionInPath: true, records: [appointment('1', 'ann'), appointment('2', 'bob')] },
    legacyConnector: withNotes(byPartition).connector,
    appStore: withNotes(plain),
  });
  // Nobody has notes; the list of everybody's is too much for this platform.
  const answerNotes: TestRestStore['intercept'] = ({ path, query }) => {
    if (path !== '/notes') return undefined;
    return query.has('owner') ? { status: 200, body: { data: [] } } : { status: 422 };
  };
  rig.legacy.intercept = answerNotes;
  rig.app.intercept = answerNotes;
  await rig.registry.note([{ partition: 'ann' }, { partition: 'bob' }]);
  await rig.sync.startWorkers();
  await copied('1', '2');
  await until('it is told', () => rig.events.some(({ event }) => event === 'sync.poll-failed'));
  const failure = await until('why is kept', () => rig.sync.pollFailure());
  expect(failure).toMatchObject({ detail: expect.stringContaining('422') as unknown });
  expect(await rig.sync.desk.lagMs()).toBeUndefined();
  // Whom the list of notes alone would have shown was not looked at, so no round counts as whole.
  const sweptTo = async () => JSON.parse((await rig.redis.hget(syncKeys.progress, 'sweep legacy')) ?? '{}');
  expect(await sweptTo()).toEqual({ after: '' });
  rig.legacy.intercept = ({ path }) => (path === '/notes' ? { status: 200, body: { data: [] } } : undefined);
  rig.app.intercept = rig.legacy.intercept;
  await until('a whole round', async () => (await rig.sync.desk.lagMs()) !== undefined);
  await until('it is over', async () => (await rig.sync.pollFailure()) === undefined);
  expect(await sweptTo()).toHaveProperty('reachedMs');
});

describe('a poll', () => {
  test('without a feed finds changes and deletes by comparing', async () => {
    await start({ legacy: { records: [appointment('1', 'ann'), appointment('2', 'ann')] } });
    await rig.sync.startWorkers();
    await copied('1', '2');
    rig.legacy.set(appointment('1', 'ann', 'changed'));
    rig.legacy.remove('2');
    await copied('1');
    await until('the change arrives', () => rig.app.records.get('1')?.['title'] === 'changed');
  });

  test('of a feed asks only for what is new, and equal timestamps lose no record', async () => {
    const at = (seconds: number) => new Date(1_700_000_000_000 + seconds * 1_000).toISOString();
    const dated = (id: string, updatedAt: string) => ({ ...appointment(id, 'ann'), updated_at: updatedAt });
    await start({ legacy: { since: true, paging: 'cursor', records: [dated('1', at(0))] } });
    await rig.sync.startWorkers();
    await copied('1');
    const feedCalls = () => rig.legacy.calls.filter(({ query }) => query.has('updated_since'));
    await until('the feed is followed', () => feedCalls().length > 2);
    rig.legacy.set(dated('2', at(60)));
    await copied('1', '2');
    const before = feedCalls().length;
    await until('the feed has moved on', () => feedCalls().length > before + 2);
    rig.legacy.set(dated('3', at(60)));
    await copied('1', '2', '3');
    rig.legacy.set(dated('4', at(59)));
    await copied('1', '2', '3', '4');
    await idle();
    const reads = rig.legacy.calls.filter(({ path }) => path.startsWith('/appointments/')).length;
    const polls = feedCalls().length;
    await until('more polls', () => feedCalls().length > polls + 3);
    expect(rig.legacy.calls.filter(({ path }) => path.startsWith('/appointments/'))).toHaveLength(reads);
  });

  test('of a feed with tombstones copies a delete', async () => {
    const options = { since: true, softDeletes: true } as const;
    await start({ legacy: options });
    rig.legacy.set(appointment('1', 'ann'));
    rig.legacy.set(appointment('2', 'ann'));
    await rig.sync.startWorkers();
    await copied('1', '2');
    await until('the feed is followed', () =>
      rig.legacy.calls.some(({ query }) => query.has('updated_since')),
    );
    rig.legacy.remove('1');
    await copied('2');
  });

  test('that the store does not let in pauses, says so once, and makes no dead letters', async () => {
    await start({ legacy: { records: [appointment('1', 'ann')] } });
    rig.legacy.intercept = () => ({ status: 403, body: {} });
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await rig.sync.startWorkers();
    await until('it was logged', () => rig.events.some(({ event }) => event === 'sync.denied'));
    const calls = rig.legacy.calls.length;
    expect(calls).toBeLessThan(4);
    expect(await rig.sync.deadLetters.total()).toBe(0);
    expect(rig.events.filter(({ event }) => event === 'sync.denied')).toHaveLength(1);
  });
});

describe('a ring', () => {
  test('has the record copied', async () => {
    await start(slowPolls);
    await rig.sync.startWorkers();
    await until('the first poll has ended', async () => (await rig.sync.desk.lagMs()) !== undefined);
    rig.legacy.set(appointment('1', 'ann'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await copied('1');
    rig.legacy.remove('1');
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await copied();
    await idle();
  });

  test('a job for a partition that the app owns copies nothing', async () => {
    await start(slowPolls);
    await rig.flip('ann');
    rig.legacy.set(appointment('1', 'ann'));
    rig.app.set(appointment('2', 'ann'));
    for (const id of ['1', '2']) rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id });
    await until('both are in the queue', async () => (await rig.sync.backlog()) === 2);
    await rig.sync.startWorkers();
    await idle();
    expect([...rig.app.writes(), ...rig.legacy.writes()]).toEqual([]);
  });

  test('for a fenced partition waits until the fence is gone', async () => {
    await start(slowPolls);
    rig.legacy.set(appointment('1', 'ann'));
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 20_000 });
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    rig.sync.doorbell.ring({ partition: 'bob', kind: 'appointment', id: '2' });
    await rig.sync.startWorkers();
    await until('the others are done', async () => (await rig.sync.backlog()) === 1);
    expect(rig.app.writes()).toEqual([]);
    await rig.order('ann', { kind: 'abort', attempt: 'a' });
    await copied('1');
  });

  test('for a record that changed partitions moves its copy, one partition at a time', async () => {
    await start({ ...slowPolls, app: { records: [appointment('1', 'ann')] } });
    rig.legacy.set(appointment('1', 'bob'));
    rig.sync.doorbell.ring({ partition: 'bob', kind: 'appointment', id: '1' });
    await rig.sync.startWorkers();
    await until('the copy has moved', () => rig.app.records.get('1')?.['owner_id'] === 'bob');
    await idle();
    expect(rig.app.writes().map(({ method, headers }) => [method, headers['onewriter-partition']])).toEqual([
      ['DELETE', undefined],
      ['PUT', undefined],
    ]);
  });

  test('for a record that changed partitions is not kept by the tombstone it left there, whoever owns that', async () => {
    const app = { softDeletes: true, records: [appointment('1', 'ann'), appointment('2', 'ann')] };
    await start({ ...slowPolls, app });
    for (const id of ['1', '2']) rig.legacy.set(appointment(id, 'bob'));
    await rig.sync.desk.bringUp('ann', new AbortController().signal);
    await rig.sync.desk.bringUp('bob', new AbortController().signal);
    expect(rig.app.records.get('1')).toMatchObject(appointment('1', 'bob'));
    rig.app.set({ ...appointment('2', 'ann'), deleted_at: new Date().toISOString() });
    await rig.flip('ann');
    rig.sync.doorbell.ring({ partition: 'bob', kind: 'appointment', id: '2' });
    await rig.sync.startWorkers();
    await until('the copy has moved', () => rig.app.records.get('2')?.['owner_id'] === 'bob');
    await idle();
    expect(await rig.sync.deadLetters.total()).toBe(0);
  });

  test('that keeps failing becomes a dead letter with the reason; a retry rings again', async () => {
    await start({ sync: { pollMs: 3_600_000, attempts: 2 } });
    rig.legacy.set(appointment('1', 'ann'));
    rig.legacy.set(appointment('2', 'ann'));
    rig.app.intercept = ({ method, path }) =>
      method === 'PUT' && path.endsWith('/1') ? { status: 422, body: { detail: 'too long' } } : undefined;
    await rig.sync.startWorkers();
    await until('a dead letter', async () => (await rig.sync.desk.deadLetters('ann')) === 1);
    await copied('2');
    await idle();
    const [letter] = await rig.sync.deadLetters.list();
    expect(letter).toMatchObject({ partition: 'ann', kind: 'appointment', id: '1' });
    expect(letter?.reason).toContain('too long');
    rig.app.intercept = undefined;
    await rig.sync.deadLetters.retry(letter?.letter ?? '');
    await copied('1', '2');
    await until('the letter is gone', async () => (await rig.sync.desk.deadLetters('ann')) === 0);
    expect(await rig.sync.deadLetters.retry('no-such-letter')).toBeUndefined();
  });

  test('that is tried again stands in the way of a plan until it is copied', async () => {
    await start({ sync: { pollMs: 3_600_000, attempts: 1 } });
    rig.legacy.set(appointment('1', 'ann'));
    let refusing = true;
    let letGo: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (letGo = resolve));
    rig.app.intercept = async ({ method }) => {
      if (method !== 'PUT') return undefined;
      if (refusing) return { status: 422, body: { detail: 'too long' } };
      await gate;
      return undefined;
    };
    await rig.sync.startWorkers();
    await until('a dead letter', async () => (await rig.sync.desk.deadLetters('ann')) === 1);
    await idle();
    const [letter] = await rig.sync.deadLetters.list();
    refusing = false;
    await rig.sync.deadLetters.retry(letter?.letter ?? '');
    const puts = rig.app.writes().length;
    await until('it is being copied', () => rig.app.writes().length > puts);
    expect(await rig.sync.desk.deadLetters('ann')).toBe(1);
    letGo();
    await copied('1');
    await until('the letter is gone', async () => (await rig.sync.desk.deadLetters('ann')) === 0);
  });

  test('of a partition that moved where nothing is copied from is gone once it is tried again', async () => {
    await start({ sync: { pollMs: 3_600_000, attempts: 1 } });
    rig.legacy.set(appointment('1', 'ann'));
    rig.app.intercept = ({ method }) => (method === 'PUT' ? { status: 422 } : undefined);
    await rig.sync.startWorkers();
    await until('a dead letter', async () => (await rig.sync.desk.deadLetters('ann')) === 1);
    await idle();
    await rig.flip('ann');
    const [letter] = await rig.sync.deadLetters.list();
    await rig.sync.deadLetters.retry(letter?.letter ?? '');
    await until('the letter is gone', async () => (await rig.sync.desk.deadLetters('ann')) === 0);
    expect(idsInApp()).toEqual([]);
  });

  test('in an outage of a store waits for its end and makes no dead letter', async () => {
    await start({ sync: { pollMs: 3_600_000, attempts: 1 } });
    rig.legacy.set(appointment('1', 'ann'));
    rig.app.intercept = () => ({ status: 503 });
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await rig.sync.startWorkers();
    await until('the outage was noticed', () =>
      rig.events.some(({ event }) => event === 'sync.store-failing'),
    );
    rig.app.intercept = undefined;
    await copied('1');
    expect(await rig.sync.deadLetters.total()).toBe(0);
  });
});

describe('what a feed can hide', () => {
  const dated = (id: string, updatedAt: string | number | null, title?: string) => ({
    ...appointment(id, 'ann', title),
    updated_at: updatedAt,
  });
  const feedCalls = () => rig.legacy.calls.filter(({ query }) => query.has('updated_since'));
  const morePolls = async () => {
    const before = feedCalls().length;
    await until('more polls', () => feedCalls().length > before + 3);
  };
  const feedAlone = { sync: { fullPassMs: 3_600_000 } };
  const shows = (id: string, title: string) =>
    until(`${id} is "${title}"`, () => rig.app.records.get(id)?.['title'] === title);

  test('a record dated in the far future does not hide what changes after it', async () => {
    await start({ legacy: { since: true, records: [dated('1', '2999-01-01T00:00:00.000Z')] } });
    await rig.sync.startWorkers();
    await copied('1');
    await morePolls();
    rig.legacy.set(dated('2', new Date(Date.now() + 70_000).toISOString()));
    await copied('1', '2');
  });

  test.each([
    ['as it should be', 0],
    ['ahead of ours', 5_000],
    ['an hour behind', -3_600_000],
  ])(
    'one record in the far future does not keep the others’ changes for the full pass: a clock %s',
    async (_, offMs) => {
      const now = () => new Date(Date.now() + offMs).toISOString();
      const longAgo = new Date(Date.now() - 86_400_000).toISOString();
      const records = [dated('1', longAgo), dated('2', longAgo), dated('9', '2999-01-01T00:00:00.000Z')];
      await start({ ...feedAlone, legacy: { since: true, records } });
      await rig.sync.startWorkers();
      await copied('1', '2', '9');
      for (const [id, title] of [
        ['1', 'first'],
        ['2', 'second'],
        ['1', 'third'],
      ] as const) {
        await morePolls();
        rig.legacy.set(dated(id, now(), title));
        await shows(id, title);
      }
    },
  );

  test('a change of a record in the future is not owed from the future on', async () => {
    await start({ legacy: { since: true, records: [dated('1', new Date().toISOString())] } });
    await rig.sync.startWorkers();
    await copied('1');
    await morePolls();
    rig.app.intercept = ({ method }) => (method === 'PUT' ? { status: 503, body: {} } : undefined);
    rig.legacy.set(dated('1', new Date(Date.now() + 3_600_000).toISOString(), 'changed'));
    await until('it is owed', async () => (await rig.redis.zcard(syncKeys.owedSince)) === 1);
    const [, since] = await rig.redis.zrange(syncKeys.owedSince, 0, 0, 'WITHSCORES');
    expect(Number(since)).toBeLessThanOrEqual(Date.now());
    rig.app.intercept = undefined;
    await shows('1', 'changed');
  });

  test('a second change in the same second is found, too, and what does not change is not told again', async () => {
    const second = `${new Date().toISOString().slice(0, 19)}Z`;
    await start({ ...feedAlone, legacy: { since: true, records: [dated('1', second), dated('2', second)] } });
    await rig.sync.startWorkers();
    await copied('1', '2');
    for (const title of ['first', 'second']) {
      await morePolls();
      rig.legacy.set(dated('1', second, title));
      await shows('1', title);
    }
    await idle();
    const reads = () => rig.legacy.calls.filter(({ path }) => path.startsWith('/appointments/')).length;
    const before = reads();
    await morePolls();
    expect(reads()).toBe(before);
  });

  test('a store whose clock is behind ours loses nothing', async () => {
    const hourAgo = (seconds: number) => new Date(Date.now() - 3_600_000 + seconds * 1_000).toISOString();
    await start({ legacy: { since: true, records: [dated('1', hourAgo(0))] } });
    await rig.sync.startWorkers();
    await copied('1');
    await morePolls();
    rig.app.intercept = ({ method }) => (method === 'PUT' ? { status: 503, body: {} } : undefined);
    rig.legacy.set(dated('2', hourAgo(1)));
    await until('it is owed', async () => (await rig.redis.zcard(syncKeys.owedSince)) === 1);
    // An hour's difference is not taken for an hour's lag.
    expect(await rig.sync.desk.lagMs()).toBeLessThan(1_800_000);
    rig.app.intercept = undefined;
    await copied('1', '2');
  });

  test.each([
    ['dates', (ms: number) => new Date(ms).toISOString()],
    ['dates without a zone', (ms: number) => new Date(ms).toISOString().slice(0, 23)],
    ['milliseconds', (ms: number) => ms],
    ['seconds', (ms: number) => ms / 1_000],
  ])(
    'a change that the list shows late is found as long as feedDelayMs allows for, by %s',
    async (_, notation) => {
      const startMs = Math.floor(Date.now() / 1_000) * 1_000 - 600_000;
      const at = (ms: number) => notation(startMs + ms);
      await start({
        ...feedAlone,
        legacy: { since: true, records: [dated('1', at(0))] },
        legacyConnector: { feedDelayMs: 30_000 },
      });
      await rig.sync.startWorkers();
      await copied('1');
      await morePolls();
      rig.legacy.set(dated('2', at(60_000)));
      await copied('1', '2');
      await morePolls();
      // Written before the other one, but shown only now.
      rig.legacy.set(dated('3', at(31_000)));
      await copied('1', '2', '3');
      // And until then nobody can say that it is not there.
      expect(await rig.sync.desk.lagMs()).toBeGreaterThanOrEqual(30_000);
    },
  );

  test.each(['4711', '9007199254740993', 'opaque'])(
    'changes with versions that are no times are followed, but only full passes prove them: %s',
    async (version) => {
      await start({
        ...feedAlone,
        legacy: { since: true, softDeletes: true, records: [dated('1', version)] },
        app: { softDeletes: true },
      });
      await rig.sync.startWorkers();
      await copied('1');
      await morePolls();
      rig.legacy.set(dated('1', version, 'changed'));
      await shows('1', 'changed');
      await morePolls();
      const read = async (field: string): Promise<Record<string, number>> =>
        JSON.parse((await rig.redis.hget(syncKeys.progress, field)) ?? '{}') as Record<string, number>;
      const { fullPassAtMs } = await read('feed legacy appointment');
      expect(await read('proof')).toEqual({ seenMs: fullPassAtMs, wholeMs: fullPassAtMs });
      expect(Number(await rig.redis.hget(syncKeys.progress, 'reached'))).toBe(fullPassAtMs);
    },
  );

  test('records that have no date before their first change: the lag says that the feed does not show them', async () => {
    await start({
      legacy: { since: true, records: [dated('1', new Date().toISOString()), dated('2', null)] },
    });
    await rig.sync.startWorkers();
    await copied('1', '2');
    const fullPass = async () =>
      (
        JSON.parse((await rig.redis.hget(syncKeys.progress, 'feed legacy appointment')) ?? '{}') as {
          fullPassAtMs?: number;
        }
      ).fullPassAtMs;
    await morePolls();
    const passedMs = await fullPass();
    await morePolls();
    expect(await fullPass()).toBe(passedMs);
    const reached = Number(await rig.redis.hget(syncKeys.progress, 'reached'));
    expect(reached).toBe(passedMs);
  });

  test('records without a date that a list shows at every poll are rung only when they change', async () => {
    await start({ legacy: { since: true, records: [dated('1', new Date().toISOString())] } });
    await rig.sync.startWorkers();
    await copied('1');
    const shown = [dated('1', new Date().toISOString()), dated('2', null)];
    for (const record of shown) rig.legacy.set(record);
    // A platform that shows them whatever the bound is.
    rig.legacy.intercept = ({ path, query }) =>
      path === '/appointments' && query.has('updated_since')
        ? { status: 200, body: { data: shown } }
        : undefined;
    await copied('1', '2');
    await morePolls();
    await idle();
    const reads = () => rig.legacy.calls.filter(({ path }) => path === '/appointments/2').length;
    const before = reads();
    await morePolls();
    expect(reads()).toBe(before);
    shown[1] = dated('2', null, 'changed');
    rig.legacy.set(dated('2', null, 'changed'));
    await until('the change arrives', () => rig.app.records.get('2')?.['title'] === 'changed');
  });
});

test('the lag is that of the oldest change that was not looked at, however often it is rung for', async () => {
  await start({ ...slowPolls, legacy: { records: [appointment('1', 'ann')] } });
  await rig.sync.startWorkers();
  await copied('1');
  await idle();
  await until('a poll has ended', async () => (await rig.sync.desk.lagMs()) !== undefined);
  rig.legacy.intercept = () => ({ status: 503, body: {} });
  const key = { partition: 'ann', kind: 'appointment', id: '1' };
  const since = async () => Number((await rig.redis.zrange(syncKeys.owedSince, 0, 0, 'WITHSCORES'))[1]);
  const mark = async () => Number((await rig.redis.zrange(syncKeys.dirty, 0, 0, 'WITHSCORES'))[1] ?? 0);
  rig.sync.doorbell.ring(key);
  const first = await until('it is rung', async () => (await mark()) || undefined);
  expect(await since()).toBe(first);
  await until('it is rung again', async () => {
    rig.sync.doorbell.ring(key);
    return (await mark()) > first;
  });
  expect(await since()).toBe(first);
  rig.legacy.intercept = undefined;
  await idle();
  expect(await rig.redis.zcard(syncKeys.owedSince)).toBe(0);
});
