/** What one member knows of writes and copies, with the test as everybody else, in a real Redis. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import type { WriteTicket } from '../../src/core/ticket.ts';
import { connectRedis, keys, redisNowMs } from '../../src/ledger/connection.ts';
import { Backlog, wholePartition } from '../../src/sync/backlog.ts';
import { pause } from '../../src/pause.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { CopyWatch } from '../../src/sync/reads/copy-watch.ts';
import { type Answer, type Call, readsKeys, talk } from '../../src/sync/reads/script.ts';
import { queueOptions } from '../../src/sync/worker.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let redis: Redis;
let own: Redis;
let watch: CopyWatch;
const epoch = 1;

beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server.stop());
beforeEach(async () => {
  redis = await connectRedis({ url: server.url });
  await redis.flushall();
  own = await connectRedis({ url: server.url });
  await redis.hset(keys.members, 'me', '{}');
  watch = new CopyWatch({
    ...{ redis: own, targets: ['app'], member: () => 'me', log: () => undefined },
    settleMs: { legacy: 2_000, app: 0 },
  });
});
afterEach(async () => {
  await watch.stop();
  own.disconnect();
  redis.disconnect();
});

const now = () => redisNowMs(redis);
/** Every change up to `agoMs` ago is in the copies. */
async function prove(agoMs = 0): Promise<void> {
  const seenMs = (await now()) - agoMs;
  await redis.hset(syncKeys.progress, 'proof', JSON.stringify({ seenMs, wholeMs: seenMs }));
}
async function says(call: Partial<Call>): Promise<Answer> {
  const answer = await talk(redis, {
    ...{ member: 'other', notAfterMs: Number.MAX_SAFE_INTEGER, takeCensus: false, censusAnswered: 0 },
    ...{ lastEntry: 0, copies: false, interestMs: 1_000, interest: [], said: [] },
    ...call,
  });
  if (answer.late) throw new Error('late');
  return answer;
}
const census = async () => Number(await redis.hget(readsKeys.counts, 'census'));
/** The other member has answered the newest census. */
const isHeard = async (call: Partial<Call> = {}) => says({ censusAnswered: await census(), ...call });
const holds = (partition = 'ann') => watch.look(partition, epoch).holdsWrites;
async function untilHolds(partition = 'ann'): Promise<void> {
  await until('the copy holds all writes', async () => {
    await prove();
    return holds(partition);
  });
}
/** Whatever is proven anew meanwhile; long enough for several calls. */
async function neverHolds(alsoDo: () => Promise<unknown> = async () => undefined): Promise<boolean> {
  const untilMs = performance.now() + 500;
  while (performance.now() < untilMs) {
    await prove();
    await alsoDo();
    if (holds()) return false;
    await pause(10);
  }
  return true;
}
const ticket = (partition = 'ann'): WriteTicket => ({ partition, epoch, owner: 'legacy', leaseTerm: 1 });

describe('who is listed', () => {
  test('must have been heard, and have answered the census that this member took', async () => {
    await untilHolds();
    await redis.hset(keys.members, 'other', '{}');
    await until('it is missed', () => !holds());
    expect(await neverHolds()).toBe(true);
    // Its word of before is not enough: it says nothing of what is under way.
    expect(await neverHolds(() => says({ censusAnswered: 0 }))).toBe(true);
    await until('the copy holds all writes', async () => {
      await Promise.all([isHeard(), prove()]);
      return holds();
    });
  });

  test('and leaves the list with a write under way has ended it', async () => {
    await redis.hset(keys.members, 'other', '{}');
    await until('others are believed', async () => {
      await Promise.all([isHeard(), prove()]);
      return holds();
    });
    await isHeard({ said: [['ann', 'open']] });
    await until('it is known', () => !holds());
    expect(await neverHolds(() => isHeard())).toBe(true);
    await redis.hdel(keys.members, 'other');
    await untilHolds();
  });
});

describe('a call', () => {
  test('that comes too late does nothing', async () => {
    const notAfterMs = (await now()) - 1;
    const call = { member: 'other', notAfterMs, said: [['ann', 'open']] } as const;
    await expect(says(call)).rejects.toThrow('late');
    expect(await redis.hget(readsKeys.heard, 'other')).toBeNull();
    expect(await redis.hget(readsKeys.counts, 'entries')).toBeNull();
  });

  test('says whether another listed member reads the copy', async () => {
    await redis.hset(keys.members, 'other', '{}');
    await says({ interest: ['bob'] });
    const said = [
      ['ann', 'open'],
      ['bob', 'open'],
      ['eve', 'open'],
    ] as const;
    watch.look('ann', epoch);
    await until('it has said that it reads ann', () => redis.zscore(readsKeys.interest, 'me ann'));
    expect((await says({ said })).wanted).toEqual([true, false, false]);
  });

  test('that brings more than one answer holds is followed by others before anything is believed', async () => {
    await untilHolds();
    await redis.hset(keys.members, 'other', '{}');
    await until('it is missed', () => !holds());
    const said = Array.from({ length: 2_500 }, (_, at) => [`p${at}`, 0] as const);
    await isHeard({ said: [...said, ['ann', 'open']] });
    expect(await neverHolds(() => isHeard())).toBe(true);
    await isHeard({ said: [['ann', 0]] });
    await until('the copy holds all writes', async () => {
      await Promise.all([isHeard(), prove()]);
      return holds();
    });
  });
});

describe('a write of this member', () => {
  test('in doubt counts as under way until it has settled', async () => {
    await untilHolds();
    const write = ticket();
    watch.begin(write);
    watch.end(write, 'in-doubt');
    const endedMs = await now();
    await untilHolds();
    expect((await now()) - endedMs).toBeGreaterThan(2_000);
  });

  test('may be answered when Redis holds it, and 150 ms later where somebody else reads the copy', async () => {
    await redis.hset(keys.members, 'other', '{}');
    await until('it talks', () => redis.hget(readsKeys.heard, 'me'));
    const alone = ticket('bob');
    watch.begin(alone);
    const toldMs = performance.now();
    await watch.mayAnswer(alone);
    expect(watch.mayAnswer(alone)).toBeUndefined();
    expect(performance.now() - toldMs).toBeLessThan(1_000);
    await says({ interest: ['ann'], interestMs: 60_000 });
    const read = ticket();
    watch.begin(read);
    const beganMs = performance.now();
    await watch.mayAnswer(read);
    expect(performance.now() - beganMs).toBeGreaterThanOrEqual(150);
  });

  test('is answered without Redis, once everybody must have noticed that this member is silent', async () => {
    await until('it talks', () => redis.hget(readsKeys.heard, 'me'));
    own.disconnect();
    const write = ticket();
    watch.begin(write);
    const beganMs = performance.now();
    await watch.mayAnswer(write);
    expect(performance.now() - beganMs).toBeGreaterThan(1_000);
    expect(performance.now() - beganMs).toBeLessThan(5_000);
  });
});

describe('how far copies are', () => {
  const since = (partition: string, ms: number) =>
    redis.zadd(syncKeys.owedSince, ms, JSON.stringify([partition, 'appointment', String(Math.random())]));
  const lag = (partition: string) => watch.look(partition, epoch).lagMs;

  test('is told by partition: what one is owed makes the copy of another no older', async () => {
    await prove();
    await since('ann', (await now()) - 60_000);
    await until('it is known', () => (lag('ann') ?? 0) >= 60_000);
    expect(lag('bob')).toBeLessThan(30_000);
    expect(watch.lagOfAllMs()).toBeGreaterThanOrEqual(60_000);
  });

  test('of those beyond the marks that are named is that of the last one', async () => {
    await prove();
    const nowMs = await now();
    for (let at = 0; at < 500; at += 1) await since(`p${at}`, nowMs - 60_000 + at);
    await until('it is known', () => (lag('bob') ?? 0) > 59_000);
    expect(watch.look('p1', epoch).lagMs).toBeGreaterThanOrEqual(lag('bob') ?? 0);
  });

  test('is not known where deletes are held back, and for nobody where too much is stuck', async () => {
    await prove();
    await until('it is known', () => lag('ann') !== undefined);
    await redis.hset(syncKeys.brakes, 'ann', '{}');
    await until('ann is stuck', () => lag('ann') === undefined);
    expect(lag('bob')).toBeDefined();
    expect(watch.lagOfAllMs()).toBeUndefined();
    await redis.hset(
      syncKeys.deadLetterCounts,
      Object.fromEntries(Array.from({ length: 1_000 }, (_, at) => [at, 1])),
    );
    await until('nobody knows', () => lag('bob') === undefined);
  });

  test('counts what was rung for again during a look from the beginning of that look', async () => {
    const queue = new Queue('record', { connection: redis, ...queueOptions });
    try {
      const backlog = new Backlog(redis, queue, { attempts: 1, epochOf: () => 1, listDelayMs: 500 });
      const record = { partition: 'ann', kind: 'appointment', id: '1' };
      for (const [key, earlierMs] of [
        [record, 0],
        [wholePartition('bob'), 500],
      ] as const) {
        const startedMs = (await now()) - 2_000;
        await backlog.ringEach([key]);
        await backlog.settle(key, startedMs);
        const [, owedMs] = await redis.zrange(syncKeys.owedSince, 0, 0, 'WITHSCORES');
        expect(Number(owedMs)).toBe(startedMs - earlierMs);
        // What is left of it is owed as long.
        await backlog.ringEach([{ ...key, id: '2' }], key);
        expect(await backlog.oldestMs()).toBe(startedMs - earlierMs);
        await redis.del(syncKeys.owedSince, syncKeys.dirty);
      }
    } finally {
      await queue.close();
    }
  });
});
