/** I3 at work: the desk copies one way, under the epoch of the moment, and believes only what `get` says. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { copyLockKey } from '../../src/sync/keys.ts';
import { until } from '../support/until.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';

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

function legacyWith(...records: ReturnType<typeof appointment>[]): SyncRigOptions {
  return { legacy: { records } };
}

function idsInApp(): string[] {
  return [...rig.app.records.keys()].toSorted();
}

const fence = { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 } as const;

describe('bringing a copy up', () => {
  test('copies what is missing, corrects what differs, and removes what the owner says is gone', async () => {
    await start({
      legacy: { records: [appointment('1', 'ann'), appointment('2', 'ann', 'new title')] },
      app: {
        records: [appointment('2', 'ann', 'old title'), appointment('3', 'ann'), appointment('9', 'bob')],
      },
    });
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report).toMatchObject({ recordsCopied: 3, problems: [] });
    expect(idsInApp()).toEqual(['1', '2', '9']);
    expect(rig.app.records.get('2')).toMatchObject({ title: 'new title' });
    expect(rig.legacy.writes()).toEqual([]);
    expect(await rig.sync.desk.compare('ann', never)).toMatchObject({ differences: [], problems: [] });
  });

  test('copies nothing for a partition that the app owns', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.flip('ann');
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.recordsCopied).toBe(0);
    expect(report.problems[0]?.detail).toContain('nothing was copied');
    expect(rig.app.writes()).toEqual([]);
    expect(rig.legacy.writes()).toEqual([]);
  });

  test('an absence is believed only when get says 404 or 410', async () => {
    await start({ app: { records: [appointment('1', 'ann')] } });
    for (const status of [401, 403, 500, 200]) {
      rig.legacy.intercept = ({ path }) =>
        path === '/appointments/1' ? { status, body: '<html>no</html>' } : undefined;
      await expect(rig.sync.desk.bringUp('ann', AbortSignal.timeout(8_000))).rejects.toThrow();
      expect(idsInApp()).toEqual(['1']);
    }
    rig.legacy.intercept = ({ path }) => (path === '/appointments/1' ? { status: 410 } : undefined);
    await rig.sync.desk.bringUp('ann', never);
    expect(idsInApp()).toEqual([]);
  });

  test('a page that shifts under a delete loses no record', async () => {
    const all = ['1', '2', '3', '4', '5'].map((id) => appointment(id, 'ann'));
    await start({ legacy: { paging: 'page', records: all }, app: { records: all.slice(0, 4) } });
    let looks = 0;
    rig.legacy.intercept = ({ query }) => {
      // The first look only finds that there is something to copy.
      if (query.get('page') === '2' && (looks += 1) === 2) rig.legacy.remove('1');
      return undefined;
    };
    await rig.sync.desk.bringUp('ann', never);
    expect(looks).toBe(2);
    // The row that slid onto the page already read was missed by the pass, and nevertheless kept.
    expect(idsInApp()).toEqual(['1', '2', '3', '4', '5']);
    expect(rig.app.writes().map(({ path }) => path)).toEqual(['/appointments/5']);
    await rig.sync.desk.bringUp('ann', never);
    expect(idsInApp()).toEqual(['2', '3', '4', '5']);
    const removed = rig.app.writes().filter(({ method }) => method === 'DELETE');
    expect(removed.map(({ path }) => path)).toEqual(['/appointments/1']);
  });

  test('what the target will not take is a problem; the other records are copied', async () => {
    await start(legacyWith(appointment('1', 'ann'), appointment('2', 'ann')));
    rig.app.intercept = ({ method, path }) =>
      method === 'PUT' && path.endsWith('/1') ? { status: 422, body: { detail: 'too long' } } : undefined;
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems.map(({ detail }) => detail)[0]).toContain('too long');
    expect(idsInApp()).toEqual(['2']);
  });

  test('a record without id is a problem, and under a fence it is no proof', async () => {
    await start();
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments' ? { status: 200, body: { data: [{ owner_id: 'ann' }] } } : undefined;
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('without a usable id');
    await rig.order('ann', fence);
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toThrow('without a usable id');
  });
});

describe('at the moment of apply', () => {
  test('the epoch is checked at the moment of apply: a partition that moved while the owner was read is not written', async () => {
    await start({ ...legacyWith(appointment('1', 'ann')), sync: { pollMs: 3_600_000 } });
    let moved = false;
    rig.legacy.intercept = async ({ path }) => {
      if (!moved && path === '/appointments/1') {
        moved = true;
        await rig.flip('ann');
      }
      return undefined;
    };
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: '1' });
    await rig.sync.startWorkers();
    await until('the job has ended', async () => moved && (await rig.sync.backlog()) === 0);
    expect(rig.app.writes()).toEqual([]);
  });

  test('a pass stops at the page during which the partition moved', async () => {
    await start({
      legacy: { paging: 'cursor', records: ['1', '2', '3'].map((id) => appointment(id, 'ann')) },
    });
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
    rig.legacy.intercept = async () => {
      await rig.order('ann', { kind: 'abort', attempt: 'a' });
      // A slow page: whoever reads on for longer than this looks at the ledger in between.
      await new Promise((resolve) => setTimeout(resolve, 300));
      return undefined;
    };
    await expect(rig.sync.desk.catchUp('ann', 'a', never)).rejects.toThrow('nothing is proven');
    expect(rig.legacy.calls).toHaveLength(1);
    expect(rig.app.writes()).toEqual([]);
  });

  test('what was read counts only under a lock and an epoch that still stand at the end of the pass', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.sync.desk.bringUp('ann', never);
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
    rig.legacy.intercept = async () => {
      await rig.redis.set(copyLockKey('ann'), 'another', 'PX', 60_000);
      return undefined;
    };
    await expect(rig.sync.desk.catchUp('ann', 'a', never)).rejects.toThrow('the copy lock was lost');
  });

  test('a lock that was lost in the meantime is noticed before the write', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    rig.app.intercept = async ({ path }) => {
      if (path === '/appointments/1') await rig.redis.del(copyLockKey('ann'));
      return undefined;
    };
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('the copy lock was lost');
    expect(rig.app.writes()).toEqual([]);
  });

  test('an epoch that ended and began again at the same owner is another epoch', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    let moved = false;
    rig.app.intercept = async ({ path }) => {
      if (!moved && path === '/appointments/1') {
        moved = true;
        await rig.order('ann', fence);
        await rig.order('ann', { kind: 'abort', attempt: 'the-attempt' });
      }
      return undefined;
    };
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('moved from epoch 1 to 3');
    expect(rig.app.writes()).toEqual([]);
  });
});

describe('under a fence', () => {
  test('a fenced partition is copied only by the handoff that holds the fence', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    expect((await rig.sync.desk.bringUp('ann', never)).problems[0]?.detail).toContain('fenced');
    await expect(rig.sync.desk.catchUp('ann', 'another-attempt', never)).rejects.toThrow('nothing is proven');
    expect(rig.app.writes()).toEqual([]);
    const proof = await rig.sync.desk.catchUp('ann', 'the-attempt', never);
    expect(proof).toEqual({ recordsCompared: 1, recordsCopied: 1, passes: 2 });
    expect(idsInApp()).toEqual(['1']);
    await rig.order('ann', { kind: 'commit', attempt: 'the-attempt' });
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toThrow('nothing is proven');
  });

  test('the proof is a pass that began after the last copy and found nothing', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    let late = 0;
    rig.app.intercept = ({ method }) => {
      if (method === 'PUT' && late < 2) {
        late += 1;
        rig.legacy.set(appointment(`late-${late}`, 'ann'));
      }
      return undefined;
    };
    const proof = await rig.sync.desk.catchUp('ann', 'the-attempt', never);
    expect(proof.passes).toBe(4);
    expect(idsInApp()).toEqual(['1', 'late-1', 'late-2']);
  });

  test('a list that does not show a record which is there proves nothing', async () => {
    await start(legacyWith(appointment('1', 'ann'), appointment('2', 'ann')));
    await rig.sync.desk.bringUp('ann', never);
    await rig.order('ann', fence);
    rig.legacy.intercept = ({ path }) =>
      path === '/appointments' ? { status: 200, body: { data: [appointment('1', 'ann')] } } : undefined;
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toThrow('does not show 2');
    expect(idsInApp()).toEqual(['1', '2']);
  });

  test('another hand that holds the copy lock ends the attempt soon, and says when to try again', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    await rig.redis.set(copyLockKey('ann'), 'of a worker that died', 'PX', 60_000);
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toMatchObject({
      kind: 'unavailable',
      retryAfterMs: 1_000,
    });
    await rig.redis.del(copyLockKey('ann'));
    expect((await rig.sync.desk.catchUp('ann', 'the-attempt', never)).recordsCopied).toBe(1);
  });

  test.each(['12345678901234567890', '99999999999999.99'])(
    'a record with a number that cannot be kept exactly proves nothing: %s',
    async (amount) => {
      await start();
      await rig.order('ann', fence);
      const body = `{"data":[{"id":"1","owner_id":"ann","amount":${amount}}]}`;
      rig.legacy.intercept = ({ path }) => (path === '/appointments' ? { status: 200, body } : undefined);
      await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toThrow(
        'cannot be kept exactly',
      );
      expect(rig.app.writes()).toEqual([]);
    },
  );

  test('a rate limit ends the attempt at once', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    rig.legacy.intercept = () => ({ status: 429, headers: { 'retry-after': '1' } });
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toMatchObject({
      kind: 'rate-limited',
    });
    expect(rig.legacy.calls).toHaveLength(1);
  });

  test('a read that fails for a moment is tried again; a copy whose outcome is unknown is not', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    let failing = 2;
    rig.legacy.intercept = () => {
      failing -= 1;
      return failing >= 0 ? { status: 503 } : undefined;
    };
    rig.app.intercept = ({ method }) => (method === 'PUT' ? { status: 500 } : undefined);
    await expect(rig.sync.desk.catchUp('ann', 'the-attempt', never)).rejects.toMatchObject({
      kind: 'unavailable',
    });
    expect(rig.app.writes()).toHaveLength(1);
  });

  test('it ends when its signal does, and nothing of it runs any more', async () => {
    await start(legacyWith(appointment('1', 'ann')));
    await rig.order('ann', fence);
    rig.legacy.intercept = () => ({ status: 503 });
    const late = new AbortController();
    const caughtUp = rig.sync.desk.catchUp('ann', 'the-attempt', late.signal);
    late.abort(new Error('the fence deadline has passed'));
    await expect(caughtUp).rejects.toThrow('the fence deadline has passed');
    rig.legacy.intercept = undefined;
    expect(rig.app.writes()).toEqual([]);
    expect((await rig.sync.desk.catchUp('ann', 'the-attempt', never)).recordsCopied).toBe(1);
  });
});
