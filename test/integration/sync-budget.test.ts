import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import { StoreFailure } from '../../src/core/ports.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { RedisBudget, syncRate } from '../../src/sync/budget.ts';
import { CopyLock } from '../../src/sync/copy-lock.ts';
import { budgetKey, copyLockKey } from '../../src/sync/keys.ts';
import { BatchingUserCalls } from '../../src/sync/user-calls.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor } from '../support/rest-store.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';

let server: TestRedis;
let redis: Redis;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startRedis();
  redis = await connectRedis({ url: server.url });
});
afterEach(() => redis.flushall());
afterAll(async () => {
  redis.disconnect();
  await server.stop();
});

describe('the rate budget', () => {
  test('leaves the reserved share to users in every window, bursts included', () => {
    for (const requests of [1, 2, 3, 10, 50, 1000]) {
      for (const reserveForUsers of [0, 0.25, 0.5, 0.9]) {
        const perMs = 1000;
        const { intervalMs, burst } = syncRate({ requests, perMs, reserveForUsers });
        const inOneWindow = burst - 1 + Math.ceil(perMs / intervalMs);
        expect(inOneWindow).toBeLessThanOrEqual(Math.max(1, requests * (1 - reserveForUsers)));
      }
    }
  });

  test('is shared: what one process took, another must wait for', async () => {
    const limit = { requests: 1, perMs: 3_600_000, reserveForUsers: 0 };
    await new RedisBudget(redis, 'legacy', limit).take(never);
    const late = new AbortController();
    const second = new RedisBudget(redis, 'legacy', limit).take(late.signal);
    late.abort(new Error('gave up'));
    await expect(second).rejects.toThrow('gave up');
    await new RedisBudget(redis, 'app', limit).take(never);
  });

  test('after a 429 nobody calls before the longest wait that was asked for is over', async () => {
    const limit = { requests: 100, perMs: 1_000, reserveForUsers: 0 };
    const [one, other] = [new RedisBudget(redis, 'legacy', limit), new RedisBudget(redis, 'legacy', limit)];
    await one.pause(60_000);
    await one.pause(1_000);
    const failure: unknown = await other.take(never).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(StoreFailure);
    expect((failure as StoreFailure).kind).toBe('rate-limited');
    expect((failure as StoreFailure).retryAfterMs).toBeGreaterThan(50_000);
  });
});

describe('users', () => {
  const limit = { requests: 10, perMs: 3_600_000, reserveForUsers: 0.5 };
  const taken = async (budget: RedisBudget): Promise<number> => {
    for (let calls = 0; ; calls += 1) {
      const late = new AbortController();
      const take = budget.take(late.signal).then(() => true);
      // Whoever must wait here would wait for minutes.
      const timer = setTimeout(() => late.abort(new Error('it waits')), 500);
      const went = await take.catch(() => false);
      clearTimeout(timer);
      if (!went) return calls;
    }
  };

  test('get what they use beyond their reserve out of the share of the sync, down to nothing', async () => {
    const every = { ...limit, requests: 1_000 };
    const { burst } = syncRate(every);
    expect(burst).toBe(100);
    const budget = new RedisBudget(redis, 'legacy', every);
    await budget.noteUsers(500);
    expect(await taken(budget)).toBe(burst);
    await redis.flushall();
    await budget.noteUsers(640);
    // As much again as they are beyond their reserve is left to them in advance, and a twentieth to nobody.
    expect(await taken(budget)).toBe(100);
    await redis.flushall();
    await budget.noteUsers(700);
    expect(await taken(budget)).toBe(50);
    await redis.flushall();
    await budget.noteUsers(5_000);
    expect(await taken(budget)).toBe(0);
  });

  test('who leave nothing to the sync do not keep anybody from asking whether the store answers', async () => {
    const budget = new RedisBudget(redis, 'legacy', limit);
    await budget.noteUsers(50);
    await budget.take(never, { haste: 'at-once' });
    expect(await taken(budget)).toBe(0);
    await budget.pause(60_000);
    const refused = await budget.take(never, { haste: 'at-once' }).catch((error: unknown) => error);
    expect((refused as StoreFailure).kind).toBe('rate-limited');
  });

  test('that are told to wait make the sync wait', async () => {
    const budgets = new Map([['legacy', new RedisBudget(redis, 'legacy', limit)]] as const);
    const calls = new BatchingUserCalls({ budgets, onFailure: () => undefined });
    calls.limited({ store: 'legacy' }, '60');
    calls.limited({ store: 'app' }, '60');
    calls.sent({ store: 'legacy' });
    await calls.close();
    const failure = await budgets
      .get('legacy')
      ?.take(never)
      .catch((error: unknown) => error);
    expect((failure as StoreFailure).retryAfterMs).toBeGreaterThan(50_000);
    await new RedisBudget(redis, 'app', limit).take(never);
  });
});

test('a 429 halves the rate once for all answers that were under way, and it rises again', async () => {
  const limit = { requests: 1_000, perMs: 1_000, reserveForUsers: 0 };
  const budget = new RedisBudget(redis, 'legacy', limit);
  await Promise.all([budget.pause(1), budget.pause(1), budget.pause(1)]);
  const factor = async () => Number(await redis.hget(budgetKey('legacy'), 'factor'));
  expect(await factor()).toBe(0.5);
  // As after so long: 429s that are further apart than a second halve again, less what it has risen since.
  const back = async (ms: number): Promise<void> => {
    for (const field of ['slowed', 'factorAt']) await redis.hincrby(budgetKey('legacy'), field, -ms);
  };
  await back(1_500);
  await budget.pause(1);
  expect(await factor()).toBe((0.5 + 1 / 16) / 2);
  for (let storm = 0; storm < 20; storm += 1) {
    await back(1_000);
    await budget.pause(0);
  }
  expect(await factor()).toBeGreaterThan(0);
  await back(20_000);
  await budget.pause(0);
  expect(await factor()).toBe(0.5);
});

describe('what a handoff reads under its fence', () => {
  /** So many calls at once that nothing waits, at a rate at which a slow test adds no call. */
  const rateLimit = { requests: 1_000, perMs: 86_400_000, reserveForUsers: 0 };
  const { intervalMs } = syncRate(rateLimit);
  let rig: SyncRig;
  afterEach(() => rig.stop());

  test('is paid for before: two passes, and a few records that are written meanwhile', async () => {
    const records = ['1', '2', '3', '4', '5'].map((id) => appointment(id, 'ann'));
    const side = { paging: 'cursor', records } as const;
    rig = await startSyncRig(server, {
      ...{ legacy: side, app: side, legacyConnector: { rateLimit } },
      appStore: { connector: { ...connectorFor(side), rateLimit } },
    });
    const startedMs = await rig.ledger.nowMs();
    const calls = async (store: 'legacy' | 'app'): Promise<number> => {
      const next = Number(await redis.hget(budgetKey(store), 'next'));
      return Math.floor((next - startedMs) / intervalMs);
    };
    await rig.sync.desk.bringUp('ann', never);
    const pages = { legacy: rig.legacy.calls.length, app: rig.app.calls.length };
    expect(pages).toEqual({ legacy: 3, app: 3 });
    const paid = { legacy: (await calls('legacy')) - 3, app: (await calls('app')) - 3 };
    expect(paid).toEqual({ legacy: 2 * 3 + 4, app: 2 * 3 + 4 });

    rig.legacy.set(appointment('2', 'ann', 'new title'));
    rig.legacy.remove('3');
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'the-attempt', fenceMs: 20_000 });
    const proof = await rig.sync.desk.catchUp('ann', 'the-attempt', never);
    expect(proof).toMatchObject({ recordsCopied: 2, passes: 2 });
    expect(rig.legacy.calls.length - pages.legacy).toBeLessThanOrEqual(paid.legacy);
    expect(rig.app.calls.length - pages.app).toBeLessThanOrEqual(paid.app);
    expect([await calls('legacy'), await calls('app')]).toEqual([13, 13]);
  });
});

describe('the copy lock', () => {
  test('has one holder at a time, and whoever lost it learns so before the next write', async () => {
    const lock = new CopyLock(redis, 60_000);
    const first = await lock.acquire('ann', never, 0);
    expect(await lock.acquire('ann', never, 0)).toBeUndefined();
    expect(await first?.stillHeld()).toBe(true);
    await redis.del(copyLockKey('ann'));
    const second = await lock.acquire('ann', never, 0);
    expect(await first?.stillHeld()).toBe(false);
    await first?.release();
    expect(await second?.stillHeld()).toBe(true);
    await second?.release();
    const third = await lock.acquire('ann', never, 0);
    expect(third).toBeDefined();
    await third?.release();
  });

  test('is short while its holder reads, so that one who dies costs a handoff seconds, and covers a write', async () => {
    const lock = new CopyLock(redis, 60_000);
    const held = await lock.acquire('ann', never, 0);
    expect(await redis.pttl(copyLockKey('ann'))).toBeLessThanOrEqual(3_000);
    expect(await held?.coverWrite([])).toBe(true);
    expect(await redis.pttl(copyLockKey('ann'))).toBeGreaterThan(50_000);
    // Looking at a page afterwards does not take back what covers the write.
    expect(await held?.stillHeld()).toBe(true);
    expect(await redis.pttl(copyLockKey('ann'))).toBeGreaterThan(50_000);
    await held?.release();
    expect(await redis.exists(copyLockKey('ann'))).toBe(0);
  });

  test('stays after a write whose outcome is unknown until that write has settled', async () => {
    const lock = new CopyLock(redis, 60_000);
    const held = await lock.acquire('ann', never, 0);
    held?.keepAfterRelease(30_000);
    await held?.release();
    const left = await redis.pttl(copyLockKey('ann'));
    expect(left).toBeGreaterThan(20_000);
    expect(left).toBeLessThanOrEqual(30_000);
  });
});
