/** A store that fails for every record: the copying halts with the reason, and goes on by itself. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { StoreFailure } from '../../src/core/ports.ts';
import { Breaker } from '../../src/sync/breaker.ts';
import { FailingStores } from '../../src/sync/failing-stores.ts';
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

const failing = async () =>
  (await rig.sync.halts.read()).failing.map(({ store, kind, phase, tries }) => ({
    ...{ store, kind, phase, tries },
  }));
const isOpen = (tries = 1) =>
  until('the breaker is open', async () =>
    (await failing()).some((one) => one.phase !== 'closed' && one.tries >= tries),
  );
const records = Array.from({ length: 60 }, (_, at) => appointment(`r${at}`, `user-${at}`));
const isWrite = ({ method }: { readonly method: string }) => method !== 'GET';

describe('a store that refuses every record', () => {
  test('halts the copies to it after some, none of them dead, and blocks handoffs by name', async () => {
    await start({ legacy: { records } });
    rig.app.intercept = (call) =>
      isWrite(call) ? { status: 422, body: { detail: 'unknown column "title"' } } : undefined;
    await rig.sync.startWorkers();
    await isOpen();
    expect(await failing()).toMatchObject([{ store: 'app', kind: 'rejected' }]);
    const [blocker] = await rig.sync.desk.halted('app');
    expect(blocker).toMatchObject({ code: 'store-failing' });
    expect(blocker?.detail).toContain('unknown column "title"');
    expect(await rig.sync.desk.halted('legacy')).toEqual([]);
    await isOpen(2);
    expect(await rig.sync.deadLetters.total()).toBe(0);
    // Each trial lets a few through, and not all sixty.
    const before = rig.app.writes().length;
    await isOpen(3);
    expect(rig.app.writes().length - before).toBeLessThan(20);
    // After a restart, too.
    await rig.restartSync();
    await rig.sync.startWorkers();
    rig.app.intercept = undefined;
    await until('all are copied', () => rig.app.records.size === records.length);
    expect(await rig.sync.deadLetters.total()).toBe(0);
    expect(await rig.sync.desk.halted('app')).toEqual([]);
  });

  test('is not one that refuses some: those become dead letters', async () => {
    await start({ legacy: { records }, sync: { attempts: 2 } });
    const poison = new Set(records.slice(0, 12).map(({ id }) => `/appointments/${id}`));
    rig.app.intercept = (call) => (isWrite(call) && poison.has(call.path) ? { status: 422 } : undefined);
    await rig.sync.startWorkers();
    await until('twelve dead letters', async () => (await rig.sync.deadLetters.total()) === poison.size);
    expect(rig.app.records.size).toBe(records.length - poison.size);
    expect(await failing()).toEqual([]);
  });
});

test('a trial of what may be written is passed by a job, never by a poll, which only reads', async () => {
  await start();
  const stores = new FailingStores(rig.redis);
  const { readers } = rig.sync;
  const log = () => undefined;
  const breaker = new Breaker({ stores, readers, log, onChange: () => Promise.resolve() });
  const now = () => rig.sync.halts.read();
  const refused = new StoreFailure('rejected', 'app answered with 422').of('app');
  for (let at = 0; at < 20; at += 1) await breaker.failed(`r${at}`, refused, await now());
  await stores.beginTrial('app');
  await breaker.succeeded(await now(), 'poll');
  expect(await failing()).toEqual([{ store: 'app', kind: 'rejected', phase: 'trial', tries: 1 }]);
  expect(await breaker.failed('r1', refused, await now())).toBe(true);
  expect(await failing()).toEqual([{ store: 'app', kind: 'rejected', phase: 'open', tries: 2 }]);
  await stores.beginTrial('app');
  await breaker.succeeded(await now(), 'job');
  expect(await failing()).toEqual([{ store: 'app', kind: 'rejected', phase: 'closed', tries: 2 }]);
});

test('each failure has a beginning and a log line of its own, also soon after a recovery; a trial is no end', async () => {
  await start();
  const stores = new FailingStores(rig.redis);
  const logged: string[] = [];
  const breaker = new Breaker({
    ...{ stores, readers: rig.sync.readers, onChange: () => Promise.resolve() },
    log: (level, event) => logged.push(`${level} ${event}`),
  });
  const now = () => rig.sync.halts.read();
  const sinceMs = async () => (await now()).failing[0]?.sinceMs ?? 0;
  const fail = async (text: string) => {
    const down = new StoreFailure('unavailable', text).of('app');
    for (let at = 0; at < 5; at += 1) await breaker.failed(`r${at}`, down, await now());
  };
  const blocker = async () => (await rig.sync.desk.halted('app'))[0]?.detail;
  await fail('app refused the connection');
  const first = await sinceMs();
  await stores.beginTrial('app');
  expect(await blocker()).toMatch(/^app failed from .+ on \(app refused the connection\); since .+ on trial/);
  await fail('app answered 503');
  expect(await sinceMs()).toBe(first);
  expect(await blocker()).toContain('(app answered 503)');
  expect(logged).toEqual(['error sync.store-failing']);
  await stores.beginTrial('app');
  await breaker.succeeded(await now(), 'job');
  await until('the clock of Redis goes on', async () => (await rig.ledger.nowMs()) > first);
  await fail('app answered 500');
  expect(await sinceMs()).toBeGreaterThan(first);
  expect(await blocker()).toContain(`nothing is copied since ${new Date(await sinceMs()).toISOString()}`);
  expect(logged).toEqual([
    ...['error sync.store-failing', 'info sync.store-recovered', 'error sync.store-failing'],
  ]);
  // It is still waited for longer than the first time.
  expect(await failing()).toEqual([{ store: 'app', kind: 'unavailable', phase: 'open', tries: 3 }]);
});

test('a store that does not let us in is asked again, and work goes on without anybody', async () => {
  await start({ legacy: { records: records.slice(0, 10) }, sync: { attempts: 1 } });
  rig.app.intercept = () => ({ status: 401 });
  await rig.sync.startWorkers();
  await isOpen(2);
  expect(await failing()).toMatchObject([{ store: 'app', kind: 'denied' }]);
  expect((await rig.sync.desk.halted('legacy')).map(({ code }) => code)).toEqual(['store-failing']);
  rig.app.intercept = undefined;
  await until('all are copied', () => rig.app.records.size === 10);
  await until('it is closed', async () => (await rig.sync.desk.halted('app')).length === 0);
  expect(await rig.sync.deadLetters.total()).toBe(0);
});

test('an outage longer than all attempts leaves no dead letter', async () => {
  await start({ legacy: { records: records.slice(0, 10) }, sync: { attempts: 1 } });
  for (const { id, owner_id: partition } of records.slice(0, 10)) {
    rig.sync.doorbell.ring({ partition, kind: 'appointment', id });
  }
  rig.legacy.intercept = () => ({ status: 503 });
  await rig.sync.startWorkers();
  await isOpen(2);
  expect(await failing()).toMatchObject([{ store: 'legacy', kind: 'unavailable' }]);
  rig.legacy.intercept = undefined;
  await until('all are copied', () => rig.app.records.size === 10);
  expect(await rig.sync.deadLetters.total()).toBe(0);
});
