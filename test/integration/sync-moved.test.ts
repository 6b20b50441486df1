/** Records that change partitions at their owner while copies of them are on their way. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
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

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, options);
}

const everybodys = [appointment('a0', 'ann'), appointment('b0', 'bob')];
const titleInApp = (id: string): unknown => rig.app.records.get(id)?.['title'];
const fence = { kind: 'fence', to: 'app', fenceMs: 20_000 } as const;

/** The app takes the first such call when it is let go, and not before. */
function holdFirst(isIt: (call: SeenCall) => boolean): { sent: Promise<void>; letGo: () => void } {
  let letGo = (): void => undefined;
  const gone = new Promise<void>((resolve) => (letGo = resolve));
  let isSent = (): void => undefined;
  const sent = new Promise<void>((resolve) => (isSent = resolve));
  let first = true;
  rig.app.intercept = async (call) => {
    if (!first || !isIt(call)) return undefined;
    first = false;
    isSent();
    await gone;
    return undefined;
  };
  return { sent, letGo };
}

describe('a copy that is on its way under the old partition', () => {
  const isAnnsPut = ({ method, path, body }: SeenCall): boolean =>
    method === 'PUT' && path === '/appointments/r1' && body?.['owner_id'] === 'ann';

  test('keeps the new partition from being proven, until it has landed', async () => {
    await start({ legacy: { records: everybodys } });
    await rig.sync.startWorkers();
    await until('all is copied', () => rig.app.records.size === 2);
    const slow = holdFirst(isAnnsPut);
    rig.legacy.set(appointment('r1', 'ann', 'made by ann'));
    await slow.sent;
    rig.legacy.set(appointment('r1', 'bob', 'given to bob'));
    await rig.order('bob', { ...fence, attempt: 'first' });
    await expect(rig.sync.desk.catchUp('bob', 'first', never)).rejects.toThrow(
      'on its way for another partition',
    );
    await rig.order('bob', { kind: 'abort', attempt: 'first' });
    expect(rig.app.records.has('r1')).toBe(false);
    slow.letGo();
    await until('bob has it', () => rig.app.records.get('r1')?.['owner_id'] === 'bob');
    await rig.order('bob', { ...fence, attempt: 'second' });
    await rig.sync.desk.catchUp('bob', 'second', never);
    await rig.order('bob', { kind: 'commit', attempt: 'second' });
    await rig.order('bob', { kind: 'release', attempt: 'second' });
    rig.app.set(appointment('r1', 'bob', 'written in the app'));
    await passes();
    expect(titleInApp('r1')).toBe('written in the app');
  });

  test('counts as on its way for as long as it may still take effect, where nobody knows what became of it', async () => {
    await start({
      legacy: { records: [...everybodys, appointment('r1', 'ann')] },
      app: { records: everybodys },
      appStore: { settleMs: 4_000 },
    });
    rig.app.intercept = (call) => (isAnnsPut(call) ? { status: 504 } : undefined);
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('504');
    rig.app.intercept = undefined;
    const sinceMs = performance.now();
    rig.legacy.set(appointment('r1', 'bob', 'given to bob'));
    await rig.order('bob', { ...fence, attempt: 'first' });
    await expect(rig.sync.desk.catchUp('bob', 'first', never)).rejects.toThrow('another partition');
    await rig.order('bob', { kind: 'abort', attempt: 'first' });
    // Outside a fence there is time to wait.
    await rig.sync.desk.bringUp('bob', never);
    expect(performance.now() - sinceMs).toBeGreaterThan(3_500);
    expect(titleInApp('r1')).toBe('given to bob');
  });

  test('is not sent where it was read before the new partition had it copied', async () => {
    await start({ legacy: { records: [...everybodys, appointment('r1', 'ann', 'made by ann')] } });
    let handedOver = false;
    rig.app.intercept = async ({ method, path }) => {
      if (handedOver || method !== 'GET' || path !== '/appointments/r1') return undefined;
      handedOver = true;
      rig.legacy.set(appointment('r1', 'bob', 'given to bob'));
      await rig.order('bob', { ...fence, attempt: 'the-attempt' });
      await rig.sync.desk.catchUp('bob', 'the-attempt', never);
      await rig.order('bob', { kind: 'commit', attempt: 'the-attempt' });
      await rig.order('bob', { kind: 'release', attempt: 'the-attempt' });
      rig.app.set(appointment('r1', 'bob', 'written in the app'));
      // What was true when it was asked.
      return { status: 404, body: {} };
    };
    await rig.sync.desk.bringUp('ann', never);
    expect(handedOver).toBe(true);
    expect(titleInApp('r1')).toBe('written in the app');
  });
});

describe('a record that comes to a partition which lives in the other store', () => {
  test('keeps its copy, and is told of: there is nobody who would copy it anew', async () => {
    await start({
      legacy: { records: [...everybodys, appointment('r1', 'ann', 'made by ann')] },
      sync: { attempts: 2, fullPassMs: 300 },
    });
    await rig.sync.startWorkers();
    await until('all is copied', () => rig.app.records.size === 3);
    await rig.flip('bob');
    rig.legacy.set(appointment('r1', 'bob', 'given to bob around the proxy'));
    await until('it is a dead letter', async () => (await rig.sync.deadLetters.total()) === 1);
    const [letter] = await rig.sync.deadLetters.list();
    expect(letter).toMatchObject({ partition: 'ann', id: 'r1' });
    expect(letter?.reason).toContain('which app owns; the copy for ann was left alone');
    await passes();
    expect(titleInApp('r1')).toBe('made by ann');
    expect((await rig.sync.desk.bringUp('ann', never)).problems[0]?.detail).toContain('was left alone');
    rig.legacy.set(appointment('r1', 'ann', 'given back'));
    await rig.sync.deadLetters.retry(letter?.letter ?? '');
    await until('it is copied again', () => titleInApp('r1') === 'given back');
  });
});

/** Full passes that began from now on have ended, and what they found was looked at. */
async function passes(): Promise<void> {
  const lists = (): number =>
    rig.legacy.calls.filter(({ path, query }) => path === '/appointments' && !query.has('owner')).length;
  const before = lists();
  await until('more passes', () => lists() > before + 3);
  await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
}
