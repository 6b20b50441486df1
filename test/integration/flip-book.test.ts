/** What the ledger keeps of flips and plans, and for how long. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Book } from '../../src/ledger/books.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { FlipBook, type FlipHead, type FlipProgress } from '../../src/ledger/flips.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: Awaited<ReturnType<typeof connectRedis>>;
let book: FlipBook;

beforeAll(async () => {
  server = await startRedis();
  redis = await connectRedis({ url: server.url });
  book = new FlipBook(redis);
});
afterAll(async () => {
  redis.disconnect();
  await server.stop();
});
beforeEach(async () => {
  await redis.flushall();
});

const running: FlipProgress = {
  ...{ state: 'running', detail: '', gatesPassed: 0, heeded: 0, committed: 0, aborted: 0 },
};

function headOf(id: string, total: number): FlipHead {
  return {
    ...{ id, planId: 'p', cohort: 'c', to: 'app', by: 'ops', reason: 'test', createdAtMs: 1, total },
    ...{ waveSizes: [1], blocked: [] },
  };
}

async function start(id: string, partitions: readonly string[]): Promise<number> {
  const started = await book.start(headOf(id, partitions.length), partitions, running, 60_000);
  if (!started.started) throw new Error(`${started.partition} is reserved for ${started.holder}`);
  return started.term;
}

async function end(id: string, term: number, endedAtMs: number, free: readonly string[]): Promise<boolean> {
  const progress: FlipProgress = { ...running, state: 'completed', endedAtMs };
  return book.save(id, term, { progress, reports: [], free });
}

describe('the book of flips', () => {
  test('forgets why a partition could not move, when it is erased: it can be a store’s own words', async () => {
    const term = await start('one', ['u1', 'u2']);
    const why = { code: 'catch-up-failed', detail: 'no room for Kierkegaard' };
    const report = { outcome: 'stayed', attempts: 3, lastFailure: why } as const;
    const reports = [['u1', report] as const, ['u2', report] as const];
    await book.save('one', term, { progress: running, reports, free: [] });
    expect(await book.explaining('u1')).toBe(1);
    await book.forgetWords('u1');
    expect(await book.explaining('u1')).toBe(0);
    expect(await book.reports('one', ['u1', 'u2'])).toEqual([{ outcome: 'stayed', attempts: 3 }, report]);
    const { failed } = (await book.flip('one')) ?? {};
    expect(failed).toEqual(
      new Map([
        ['u1', { code: 'catch-up-failed', detail: 'erased' }],
        ['u2', why],
      ]),
    );
  });

  test('keeps the last 200 that have ended, and nothing of older ones', async () => {
    const still = await start('still running', ['x']);
    for (let at = 0; at < 203; at += 1) {
      const term = await start(`flip ${at}`, [`u${at}`]);
      const reports = [[`u${at}`, { outcome: 'moved', attempts: 1 }]] as const;
      await book.save(`flip ${at}`, term, { progress: running, reports, free: [] });
      await end(`flip ${at}`, term, 1_000 + at, [`u${at}`]);
    }
    const kept = (await book.all()).map(({ head }) => head.id);
    expect(kept).toHaveLength(201);
    expect(kept).toEqual(expect.arrayContaining(['still running', 'flip 3', 'flip 202']));
    for (const gone of ['flip 0', 'flip 1', 'flip 2']) expect(kept).not.toContain(gone);
    const traces = (await redis.keys('*')).filter((key) => /flip [012](:|$)/.test(key));
    expect(traces).toEqual([]);
    for (const hash of ['heads', 'partitions', 'progress', 'terms', 'orders']) {
      expect(await redis.hexists(`{onewriter}:flip:${hash}`, 'flip 0')).toBe(0);
    }
    expect(await book.renew('still running', still, 60_000)).toBe(true);
  });

  test('reads flips of before, which had the sizes of their waves by another name, or none', async () => {
    const { waveSizes: _, ...before } = headOf('first', 4);
    const keep = (head: object) => redis.hset('{onewriter}:flip:heads', 'first', JSON.stringify(head));
    await start('first', ['a', 'b', 'c', 'd']);
    await keep({ ...before, waves: ['1', '100%'], sizes: [2, 2] });
    expect((await book.flip('first'))?.head.waveSizes).toEqual([2, 2]);
    await keep({ ...before, waves: ['1', '100%'] });
    expect((await book.flip('first'))?.head.waveSizes).toEqual([1, 3]);
  });

  test('reserves all partitions of a flip or none', async () => {
    await start('first', ['b', 'c']);
    const second = await book.start(headOf('second', 2), ['a', 'b'], running, 60_000);
    expect(second).toEqual({ started: false, partition: 'b', holder: 'first' });
    expect(await book.reserved()).toEqual(
      new Map([
        ['b', 'first'],
        ['c', 'first'],
      ]),
    );
    expect(await book.flip('second')).toBeUndefined();
  });

  test('takes nothing from a coordinator whose term is over', async () => {
    const first = await start('flip', ['a']);
    expect(await book.take('flip', 60_000)).toBeUndefined();
    await book.leave('flip', first);
    const second = await book.take('flip', 60_000);
    expect(second).toBe(first + 1);
    expect(await end('flip', first, 1_000, ['a'])).toBe(false);
    expect(await book.renew('flip', first, 60_000)).toBe(false);
    await book.leave('flip', first);
    expect(await book.take('flip', 60_000)).toBeUndefined();
    expect((await book.flip('flip'))?.progress.state).toBe('running');
    expect((await book.reserved()).get('a')).toBe('flip');
    expect(await end('flip', second ?? 0, 1_000, ['a'])).toBe(true);
    expect((await book.reserved()).size).toBe(0);
    expect(await book.take('flip', 60_000)).toBeUndefined();
  });

  test('goes on under a lease that ran out and that nobody took', async () => {
    const term = await start('flip', ['a']);
    await redis.del('{onewriter}:flip:of:flip:lease');
    expect(await book.renew('flip', term, 60_000)).toBe(true);
    expect(await book.take('flip', 60_000)).toBeUndefined();
  });

  test('takes no order after an abort, nor to a flip that has ended', async () => {
    const term = await start('flip', ['a']);
    expect(await book.order('flip', 'pause', 'ops', 'x')).toEqual({ ordered: 'yes', number: 1 });
    expect(await book.order('flip', 'abort', 'ops', 'x')).toEqual({ ordered: 'yes', number: 2 });
    expect(await book.order('flip', 'resume', 'ops', 'x')).toEqual({ ordered: 'aborting', number: 2 });
    await end('flip', term, 1_000, ['a']);
    expect(await book.order('flip', 'abort', 'ops', 'x')).toEqual({ ordered: 'ended' });
    expect(await book.order('none', 'abort', 'ops', 'x')).toEqual({ ordered: 'no-such-flip' });
  });
});

describe('the book of plans', () => {
  test('keeps as many as it is told, and drops those that were put longest ago', async () => {
    const plans = new Book<{ number: number }>(redis, 'plans', 3);
    for (let number = 1; number <= 5; number += 1) await plans.put(`plan ${number}`, { number });
    expect(new Set((await plans.all()).map(({ number }) => number))).toEqual(new Set([3, 4, 5]));
    expect(await plans.get('plan 1')).toBeUndefined();
  });
});
