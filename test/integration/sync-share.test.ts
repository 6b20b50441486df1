/** The sync beside users at a platform that allows 50 requests a second and counts them itself. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { startRedis, type TestRedis } from '../support/redis.ts';
import type { SeenCall } from '../support/rest-store.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

/** Most arrivals in any second. */
function mostInASecond(arrivals: readonly number[]): number {
  let most = 0;
  let from = 0;
  for (const [at, ms] of arrivals.entries()) {
    while ((arrivals[from] ?? ms) <= ms - 1_000) from += 1;
    most = Math.max(most, at - from + 1);
  }
  return most;
}

test('users get no 429, and the sync keeps to its half and to what users leave', async () => {
  const records = Array.from({ length: 400 }, (_, at) => appointment(`r${at}`, `user-${at % 40}`));
  const rateLimit = { requests: 50, perMs: 1_000, reserveForUsers: 0.5 };
  rig = await startSyncRig(server, {
    legacy: { records, paging: 'cursor', pageSize: 5 },
    legacyConnector: { rateLimit },
  });
  const seen: Record<'sync' | 'user', number[]> = { sync: [], user: [] };
  const refused = { sync: 0, user: 0 };
  rig.legacy.intercept = ({ headers }: SeenCall) => {
    const nowMs = performance.now();
    const who = headers['x-user'] === undefined ? 'sync' : 'user';
    const lately = [...seen.sync, ...seen.user].filter((ms) => ms > nowMs - 1_000).length;
    if (lately >= 50) {
      refused[who] += 1;
      return { status: 429, headers: { 'retry-after': '1' } };
    }
    seen[who].push(nowMs);
    return undefined;
  };
  await rig.sync.startWorkers();
  const startedMs = performance.now();
  /** A user's request as the proxy sends it on. */
  const userCall = async (): Promise<void> => {
    rig.sync.userCalls.sent({ store: 'legacy' });
    const response = await fetch(`${rig.legacy.url}/appointments/r0`, { headers: { 'x-user': 'ann' } });
    await response.arrayBuffer();
    if (response.status === 429) rig.sync.userCalls.limited({ store: 'legacy' }, '1');
  };
  /** So many a second, never two within half of their distance: a late timer makes no burst. */
  const traffic = async (perSecond: number, forMs: number): Promise<number> => {
    const before = seen.sync.length;
    const untilMs = performance.now() + forMs;
    for (;;) {
      const nowMs = performance.now();
      if (nowMs > untilMs) break;
      await userCall();
      const restMs = 1_000 / perSecond - (performance.now() - nowMs);
      await new Promise((resolve) => setTimeout(resolve, Math.max(500 / perSecond, restMs)));
    }
    return seen.sync.length - before;
  };
  const beside20 = await traffic(20, 3_000);
  for (const perSecond of [25, 28, 32, 36, 40]) await traffic(perSecond, 800);
  const beside44 = await traffic(44, 3_000);
  const seconds = (performance.now() - startedMs) / 1_000;
  expect(refused.user).toBe(0);
  // What left in one second can arrive a little closer together on a busy machine.
  expect(mostInASecond(seen.sync)).toBeLessThanOrEqual(30);
  expect(seen.sync.length / seconds).toBeLessThanOrEqual(25);
  expect(beside20).toBeGreaterThan(20);
  expect(beside44).toBeLessThan(beside20);
  process.stdout.write(
    `sync: ${seen.sync.length} calls in ${seconds.toFixed(1)} s, at most ${mostInASecond(seen.sync)} in a second, ` +
      `${beside20} beside 20/s of users, ${beside44} beside 44/s; refused: ${JSON.stringify(refused)}\n`,
  );
}, 30_000);

test('where each account has a limit of its own, a busy one gets no 429 from the sync, and holds up nobody else', async () => {
  const owners = ['ann', ...Array.from({ length: 20 }, (_, at) => `user-${at}`)];
  const records = owners.flatMap((owner) =>
    Array.from({ length: 5 }, (_, at) => appointment(`${owner}-${at}`, owner)),
  );
  const perPartition = { requests: 20, perMs: 2_000 };
  const rateLimit = { requests: 2_000, perMs: 1_000, reserveForUsers: 0.5, perPartition };
  rig = await startSyncRig(server, {
    ...{ legacy: { records }, legacyConnector: { rateLimit } },
    sync: { pollMs: 3_600_000, attempts: 1 },
  });
  const seen = new Map<string, { readonly who: string; readonly ms: number }[]>();
  const refused = { sync: 0, user: 0 };
  rig.legacy.intercept = ({ headers, path, query }: SeenCall) => {
    const owner = /\/(.+)-\d$/.exec(path)?.[1] ?? query.get('owner');
    if (owner === undefined || owner === null) return undefined;
    const ms = performance.now();
    const who = headers['x-user'] === undefined ? 'sync' : 'user';
    const calls = (seen.get(owner) ?? []).filter((call) => call.ms > ms - perPartition.perMs);
    seen.set(owner, calls);
    if (calls.length >= perPartition.requests) {
      refused[who] += 1;
      return { status: 429, headers: { 'retry-after': '1' } };
    }
    calls.push({ who, ms });
    return undefined;
  };
  await rig.sync.startWorkers();
  await until('the first copy', () => rig.app.records.size === records.length, 20_000);
  const over = new AbortController();
  /** Ann makes all the calls that are reserved for her, one every 200 ms. */
  const busy = (async () => {
    while (!over.signal.aborted) {
      rig.sync.userCalls.sent({ store: 'legacy', partition: 'ann' });
      const response = await fetch(`${rig.legacy.url}/appointments/ann-0`, { headers: { 'x-user': 'ann' } });
      await response.arrayBuffer();
      await new Promise((resolve) => setTimeout(resolve, perPartition.perMs / 10));
    }
  })();
  const changed = owners.flatMap((owner) => [0, 1, 2, 3].map((at) => ({ owner, id: `${owner}-${at}` })));
  for (let round = 0; round < 5; round += 1) {
    for (const { owner, id } of changed) {
      rig.legacy.set(appointment(id, owner, `round ${round}`));
      rig.sync.doorbell.ring({ partition: owner, kind: 'appointment', id });
    }
    await until(
      'all others are copied',
      () =>
        changed.every(
          ({ owner, id }) => owner === 'ann' || rig.app.records.get(id)?.['title'] === `round ${round}`,
        ),
      20_000,
    );
  }
  await until('ann is copied, too', () => rig.app.records.get('ann-3')?.['title'] === 'round 4', 20_000);
  over.abort();
  await busy;
  expect(refused).toEqual({ sync: 0, user: 0 });
  expect(await rig.sync.deadLetters.total()).toBe(0);
  // What is counted for an account is forgotten some time after its last call.
  const cells = await rig.redis.keys('*:budget:legacy:*');
  expect(cells.length).toBe(owners.length);
  for (const cell of cells) expect(await rig.redis.pttl(cell)).toBeLessThanOrEqual(60_000);
}, 90_000);

test('a storm of 429 ends in slow progress, and leaves no dead letter', async () => {
  const records = Array.from({ length: 6 }, (_, at) => appointment(`r${at}`, `user-${at}`));
  const rateLimit = { requests: 200, perMs: 1_000, reserveForUsers: 0.5 };
  rig = await startSyncRig(server, {
    legacy: { records },
    legacyConnector: { rateLimit },
    sync: { attempts: 1 },
  });
  let calls = 0;
  // Two of three calls are refused, for no time at all.
  rig.legacy.intercept = () => {
    calls += 1;
    return calls % 3 === 0 ? undefined : { status: 429, headers: { 'retry-after': '0' } };
  };
  await rig.sync.startWorkers();
  await until('all are copied', () => rig.app.records.size === records.length, 60_000);
  expect(await rig.sync.deadLetters.total()).toBe(0);
  expect(await rig.sync.desk.halted('app')).toEqual([]);
}, 90_000);
