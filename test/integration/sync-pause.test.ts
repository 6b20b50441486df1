/** Pausing the copying, and what a pause must not touch. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
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

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, options);
}

const copied = (...ids: string[]) =>
  until(`the app holds ${ids.join()}`, () => [...rig.app.records.keys()].toSorted().join() === ids.join());
const logged = (event: string) =>
  until(event, () => rig.events.some((entry) => entry.event === event)).then(() => {
    rig.events.splice(0);
  });

describe('a pause', () => {
  test('stops polls, jobs and first copies in every process, outlives them, and is lifted', async () => {
    await start({ legacy: { records: [appointment('1', 'ann')] } });
    await rig.sync.startWorkers();
    await copied('1');
    await rig.sync.halts.pause(null, 'olga', 'the app is being moved');
    await logged('sync.halted');
    rig.legacy.set(appointment('2', 'ann'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '2' });
    await until('the ring is marked', async () => (await rig.sync.backlog()) === 1);
    await rig.restartSync();
    await rig.sync.startWorkers();
    await logged('sync.halted');
    const calls = [rig.legacy.calls.length, rig.app.calls.length];
    // A poll would have come twenty times by now, and the job at once.
    const waited = (await rig.ledger.nowMs()) + 1_000;
    await until('a second', async () => (await rig.ledger.nowMs()) > waited);
    expect([rig.legacy.calls.length, rig.app.calls.length]).toEqual(calls);
    expect(await rig.sync.desk.lagMs()).toBeGreaterThan(500);
    expect(await rig.sync.halts.resume(null)).toBe(true);
    await copied('1', '2');
    expect(await rig.sync.halts.resume(null)).toBe(false);
  });

  test('of one store leaves copies to the other alone', async () => {
    await start();
    await rig.sync.halts.pause('legacy', 'olga', 'nothing goes back');
    await rig.sync.startWorkers();
    rig.legacy.set(appointment('1', 'ann'));
    await copied('1');
    expect(await rig.sync.desk.halted('app')).toEqual([]);
    expect((await rig.sync.desk.halted('legacy')).map(({ code }) => code)).toEqual(['sync-paused']);
    await rig.sync.halts.pause('app', 'olga', 'nothing goes at all');
    await logged('sync.halted');
    expect((await rig.sync.desk.halted('app')).map(({ code }) => code)).toEqual(['sync-paused']);
    rig.legacy.set(appointment('2', 'ann'));
    expect(await rig.sync.halts.resume('legacy')).toBe(true);
    expect((await rig.sync.halts.read()).pauses).toMatchObject([{ to: 'app', by: 'olga' }]);
    expect(await rig.sync.halts.resume('app')).toBe(true);
    await copied('1', '2');
  });

  test('cuts off calls that are under way, without an attempt or a dead letter', async () => {
    await start({
      legacy: { records: [appointment('1', 'ann')] },
      legacyConnector: { timeoutMs: 60_000 },
      // One poll and one attempt: whatever is lost here is lost for longer than this test waits.
      sync: { attempts: 1, pollMs: 3_600_000 },
    });
    let asked = 0;
    rig.legacy.intercept = () => {
      asked += 1;
      return new Promise(() => undefined);
    };
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await rig.sync.startWorkers();
    await until('poll and job read', () => asked >= 2);
    await rig.sync.halts.pause(null, 'olga', 'too slow');
    await logged('sync.halted');
    rig.legacy.intercept = undefined;
    await rig.sync.halts.resume(null);
    await copied('1');
    expect(await rig.sync.deadLetters.total()).toBe(0);
  });

  test('never stops a handoff that is inside its fence', async () => {
    await start({ legacy: { records: [appointment('1', 'ann')] } });
    await rig.sync.desk.bringUp('ann', never);
    rig.legacy.set(appointment('1', 'ann', 'written before the fence'));
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 });
    await rig.sync.halts.pause(null, 'olga', 'test');
    await rig.sync.startWorkers();
    await logged('sync.halted');
    const proof = await rig.sync.desk.catchUp('ann', 'the-attempt', never);
    expect(proof).toMatchObject({ recordsCopied: 1 });
    expect(rig.app.records.get('1')?.['title']).toBe('written before the fence');
  });
});

test('workers that stop in the middle of calls end in time, and what they did comes again', async () => {
  const records = Array.from({ length: 30 }, (_, at) => appointment(`r${at}`, 'ann'));
  await start({ legacy: { records } });
  let asked = 0;
  rig.app.intercept = ({ method }) => {
    if (method === 'GET') return undefined;
    asked += 1;
    return new Promise(() => undefined);
  };
  await rig.sync.startWorkers();
  await until('copies hang', () => asked > 0);
  const startedMs = performance.now();
  await rig.sync.stop();
  // A call that hangs is given up after the two seconds of the connector; five are the bound for workers.
  expect(performance.now() - startedMs).toBeLessThan(15_000);
  rig.app.intercept = undefined;
  await rig.restartSync();
  await rig.sync.startWorkers();
  await until('all are there', () => rig.app.records.size === 30);
});
