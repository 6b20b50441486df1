/** Fields that the owner has no more, in stores that replace, that merge, and that have something of their own to say. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { StoreFailure } from '../../src/core/ports.ts';
import type { Fields } from '../../src/core/records.ts';
import { knownFieldsKey } from '../../src/sync/keys.ts';
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

const start = async (options: SyncRigOptions = {}): Promise<void> => {
  rig = await startSyncRig(server, options);
};
const noted = (id: string, note: string | undefined, owner = 'ann') => ({
  ...appointment(id, owner),
  ...(note === undefined ? {} : { note }),
});
const inApp = (id: string) => rig.app.records.get(id)?.['note'];
const slowPolls = { sync: { pollMs: 3_600_000 } };
const bringUp = () => rig.sync.desk.bringUp('ann', never);

/** The app answers a PUT with what `taken` makes of it. */
function putAs(taken: (given: Fields, held: Fields | undefined) => Fields): void {
  rig.app.intercept = ({ method, path, body = {} }: SeenCall) => {
    if (method !== 'PUT') return undefined;
    const record = taken(body, rig.app.records.get(path.split('/')[2] ?? ''));
    rig.app.records.set(path.split('/')[2] ?? '', record);
    return { status: 200, body: record };
  };
}

async function proves(partition: string): Promise<boolean> {
  const attempt = `attempt of ${partition}`;
  await rig.order(partition, { kind: 'fence', to: 'app', attempt, fenceMs: 20_000 });
  const proof = await rig.sync.desk.catchUp(partition, attempt, never).catch((error: unknown) => error);
  await rig.order(partition, { kind: 'abort', attempt });
  return !(proof instanceof StoreFailure);
}

/** Full passes that find nothing to look at any more, and nothing to write. */
async function settled(): Promise<void> {
  const lists = () => rig.legacy.calls.filter(({ path }) => path === '/appointments').length;
  const looks = () => rig.legacy.calls.filter(({ path }) => path.startsWith('/appointments/')).length;
  await until('no looks', async () => {
    const before = { writes: rig.app.writes().length, lists: lists(), looks: looks() };
    await until('passes', () => lists() > before.lists + 4);
    if ((await rig.sync.backlog()) > 0) return false;
    return rig.app.writes().length === before.writes && looks() === before.looks;
  });
}

describe('a field that the owner has no more', () => {
  test('vanishes from the copy: by a ring, by a full pass, and under a fence', async () => {
    const records = ['1', '2', '3', '4'].map((id) => noted(id, 'a note'));
    await start({ legacy: { records }, ...slowPolls });
    await bringUp();
    expect(inApp('1')).toBe('a note');
    await rig.sync.startWorkers();
    await until('a first poll', async () => (await rig.sync.desk.lagMs()) !== undefined);
    rig.legacy.set(noted('1', undefined));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await until('the ring', () => inApp('1') === undefined);
    rig.legacy.set(noted('2', undefined));
    const compared = await rig.sync.desk.compare('ann', never);
    expect(compared.differences).toMatchObject([{ difference: 'changed', fields: [{ field: 'note' }] }]);
    await bringUp();
    expect(inApp('2')).toBeUndefined();
    // The last one that has the field takes it along.
    for (const id of ['3', '4']) rig.legacy.set(noted(id, undefined));
    expect(await proves('ann')).toBe(true);
    expect([inApp('3'), inApp('4')]).toEqual([undefined, undefined]);
  });

  test('is found by the passes of another process, and by what it has learned from Redis alone', async () => {
    await start({ legacy: { records: [noted('1', 'a note'), noted('2', 'another', 'bob')] } });
    await rig.sync.startWorkers();
    await until('the copies', () => rig.app.records.size === 2);
    await until('it is known', async () =>
      Object.keys(await rig.redis.hgetall(knownFieldsKey('legacy'))).includes('["appointment","note"]'),
    );
    await rig.restartSync();
    rig.legacy.set(noted('1', undefined));
    rig.legacy.set(noted('2', undefined, 'bob'));
    await rig.sync.startWorkers();
    await until('both are gone', () => inApp('1') === undefined && inApp('2') === undefined);
  });

  test('vanishes from a store that merges what it is given, too', async () => {
    await start({ legacy: { records: [noted('1', 'a note'), noted('2', 'stays')] } });
    putAs((given, held) => ({ ...held, ...given }));
    await rig.sync.startWorkers();
    await until('the copies', () => inApp('1') === 'a note' && inApp('2') === 'stays');
    rig.legacy.set(noted('1', undefined));
    await until('it is cleared', () => inApp('1') === null);
    await settled();
    expect(await proves('ann')).toBe(true);
  });
});

test('names that every object inherits are fields like others: nothing ends a catch-up, and nothing is overlooked', async () => {
  const odd = JSON.parse('{"constructor":null,"toString":"text","meta":{"__proto__":{}}}') as Fields;
  await start({ legacy: { records: [{ ...appointment('1', 'ann'), ...odd }] }, ...slowPolls });
  putAs((given) => Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null)));
  await bringUp();
  expect(await proves('ann')).toBe(true);
  expect(rig.app.writes()).toHaveLength(1);
  rig.app.set({ ...appointment('1', 'ann'), toString: 'text', meta: {} });
  expect((await rig.sync.desk.compare('ann', never)).differences).toMatchObject([
    { difference: 'changed', fields: [{ field: 'meta' }] },
  ]);
});

describe('what the copy has by itself', () => {
  test('in fields that the owner never has, is left alone', async () => {
    await start({ legacy: { records: [noted('1', undefined)] } });
    putAs((given) => ({ ...given, made_at: Date.now() }));
    await rig.sync.startWorkers();
    await until('the copy', () => rig.app.records.size === 1);
    await settled();
    expect(rig.app.writes()).toHaveLength(1);
  });

  test.each([
    ['takes null for nothing', (note: unknown) => note ?? 'none'],
    ['keeps a text for it', (note: unknown) => (note === null || note === undefined ? '-' : note)],
  ])('where the owner has nothing, is learned and counts as nothing: a store that %s', async (_, given) => {
    await start({ legacy: { records: [noted('1', 'a note'), noted('2', undefined)] } });
    putAs((fields) => ({ ...fields, note: given(fields['note']) as string }));
    await rig.sync.startWorkers();
    await until('the copies', () => rig.app.records.size === 2);
    const own = given(undefined);
    rig.legacy.set(noted('1', undefined));
    await until('its own value', () => inApp('1') === own);
    await settled();
    expect(await proves('ann')).toBe(true);
    expect((await rig.sync.desk.compare('ann', never)).differences).toEqual([]);
    // Another value than its own is none that it put there.
    rig.app.set(noted('2', 'somebody else'));
    await until('it is mended', () => inApp('2') === own);
    await settled();
  });

  test('and then as an owner’s value of the same name, is not taken for what the owner has', async () => {
    const colored = (id: string, color?: string) => ({
      ...appointment(id, 'ann'),
      ...(color === undefined ? {} : { color }),
    });
    await start({
      ...{ legacy: { records: [colored('1', 'green'), colored('2'), colored('3'), colored('4', 'red')] } },
      sync: { pollMs: 50, fullPassMs: 100 },
    });
    putAs((given) => {
      const own = given['id'] === '2' ? 'blue' : given['id'] === '3' ? 'red' : undefined;
      return own === undefined ? given : { ...given, color: given['color'] ?? own };
    });
    await rig.sync.startWorkers();
    const learned = () => rig.redis.hget(knownFieldsKey('legacy'), '["appointment","color"]');
    await until('the copies', () => rig.app.records.size === 4);
    for (const id of ['2', '3']) rig.legacy.set({ ...colored(id), title: 'changed' });
    await until('both are learned', async () => {
      const values = await learned();
      return values?.includes('"blue"') === true && values.includes('"red"');
    });
    await settled();
    await rig.sync.stop();
    rig.legacy.set(colored('4', 'blue'));
    await rig.registry.note([{ partition: 'ann' }]);
    await rig.restartSync();
    const order = { cohort: 'all', partitions: ['ann'], by: 'test' };
    const started = await rig.sync.verifications.start(order);
    if (started === 'too-many') throw new Error('too many');
    const report = await until('it is compared', async () => {
      const now = await rig.sync.verifications.get(started.id);
      return now !== undefined && now.state !== 'running' && now;
    });
    expect(report.differences.examples).toMatchObject([{ id: '4', fields: ['color'] }]);
    await rig.sync.startWorkers();
    await until('the copy', () => rig.app.records.get('4')?.['color'] === 'blue');
    await settled();
  });

  test('is learned where the store takes no null', async () => {
    await start({ legacy: { records: [noted('1', 'a note'), noted('2', undefined)] } });
    rig.app.intercept = ({ method, path, body }) => {
      if (method !== 'PUT') return undefined;
      if (body?.['note'] === null) return { status: 422, body: { detail: 'note must be a text' } };
      rig.app.records.set(path.split('/')[2] ?? '', { note: 'none', ...body });
      return { status: 200, body: {} };
    };
    await rig.sync.startWorkers();
    await until('the copies', () => rig.app.records.size === 2);
    await settled();
    expect(await rig.sync.deadLetters.total()).toBe(0);
    expect(await proves('ann')).toBe(true);
  });

  test('and is another one each time: the field is compared no more, and that is said once', async () => {
    const records = Array.from({ length: 15 }, (_, at) => noted(`${at}`, at === 0 ? 'a note' : undefined));
    await start({ legacy: { records } });
    let puts = 0;
    putAs((given) => ({ ...given, note: given['note'] ?? `put ${(puts += 1)}` }));
    await rig.sync.startWorkers();
    await until('the copies', () => rig.app.records.size === 15);
    await settled();
    const said = rig.events.filter(({ event }) => event === 'sync.field-not-compared');
    expect(said).toMatchObject([{ fields: { kind: 'appointment', field: 'note' } }]);
    expect(await proves('ann')).toBe(true);
  });
});
