/** Idempotency keys in Redis: who holds a key, for how long, and how many there may be. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { KeyedAttempt } from '../../src/core/idempotency.ts';
import type { IdempotencySettings } from '../../src/ledger/idempotency.ts';
import { openKeys, type TestKeys } from '../support/idempotency.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let opened: TestKeys;

beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => server.stop());
afterEach(() => opened.close());

async function open(settings: Partial<IdempotencySettings> = {}): Promise<TestKeys['keys']> {
  opened = await openKeys(server, settings);
  return opened.keys;
}

const attemptAt = (change: Partial<KeyedAttempt> = {}): KeyedAttempt => ({
  ...{ partition: 'p', credential: 'c', key: 'k', fingerprint: 'f', attempt: 'a1', method: 'POST' },
  ...{ owner: 'legacy', epoch: 7, doubtAfterMs: 60_000 },
  ...change,
});
const answer = (bytes = 2) => ({ status: 200, headers: ['X-A', '1'], body: Buffer.alloc(bytes, 0xff) });
const answered = (bytes?: number) => ({ ending: 'answered', answer: answer(bytes) }) as const;
const first = { owner: 'legacy', epoch: 7, atMs: expect.any(Number) };

describe('a claim', () => {
  test('of many at once has one winner', async () => {
    const keys = await open();
    const verdicts = await Promise.all(
      Array.from({ length: 100 }, async (_, at) => keys.claim(attemptAt({ attempt: `a${at}` }))),
    );
    expect(verdicts.filter(({ verdict }) => verdict === 'claimed').length).toBe(1);
    expect(verdicts.filter(({ verdict }) => verdict === 'pending').length).toBe(99);
  });

  test('finds what the first attempt left', async () => {
    const keys = await open();
    await keys.claim(attemptAt());
    expect(await keys.claim(attemptAt({ attempt: 'a2' }))).toEqual({ verdict: 'pending', first });
    expect(await keys.claim(attemptAt({ attempt: 'a2', fingerprint: 'g' }))).toEqual({ verdict: 'reused' });
    await keys.end(attemptAt(), answered());
    expect(await keys.claim(attemptAt({ attempt: 'a2', owner: 'app', epoch: 9 }))).toEqual({
      ...{ verdict: 'answered', first },
      answer: answer(),
    });
  });

  test('scopes do not run together', async () => {
    const keys = await open();
    for (const scope of [
      { partition: 'ab', credential: 'c' },
      { partition: 'a', credential: 'bc' },
      { partition: 'ab', credential: 'c', key: 'kk' },
      { partition: '}{', credential: 'c' },
    ]) {
      expect(await keys.claim(attemptAt(scope))).toEqual({ verdict: 'claimed' });
    }
  });

  test('that too few replicas confirmed is none', async () => {
    const keys = await open({ minReplicas: 1 });
    await expect(keys.claim(attemptAt())).rejects.toThrow('fewer than 1 replicas confirmed');
    // Whoever claimed ends what may have been claimed.
    await keys.end(attemptAt(), { ending: 'not-done' });
    expect(await opened.records()).toEqual([]);
  });

  test('beyond the bound of the partition is refused, until keys have expired or were given back', async () => {
    const keys = await open({ keysPerPartition: 2, keepMs: 1_000 });
    await keys.claim(attemptAt({ key: 'k1' }));
    await keys.claim(attemptAt({ key: 'k2' }));
    const over = await keys.claim(attemptAt({ key: 'k3' }));
    expect(over).toEqual({ verdict: 'too-many-keys', retryAfterMs: expect.any(Number) });
    expect(await keys.claim(attemptAt({ key: 'k1' }))).toMatchObject({ verdict: 'pending' });
    expect(await keys.claim(attemptAt({ key: 'k3', partition: 'q' }))).toEqual({ verdict: 'claimed' });
    await keys.end(attemptAt({ key: 'k1' }), { ending: 'not-done' });
    expect(await keys.claim(attemptAt({ key: 'k3' }))).toEqual({ verdict: 'claimed' });
    await until('a key has expired', async () => {
      const { verdict } = await keys.claim(attemptAt({ key: 'k4' }));
      return verdict === 'claimed';
    });
  });

  test('leaves nothing in Redis after its time, whether or not it was ended', async () => {
    const keys = await open();
    const perish = async (): Promise<void> => {
      const names = await opened.redis.keys('*idempotency*');
      expect(names.length).toBeGreaterThan(1);
      for (const name of names) expect(await opened.redis.pttl(name)).toBeGreaterThan(0);
    };
    await keys.claim(attemptAt());
    await perish();
    await keys.end(attemptAt(), answered());
    await perish();
  });
});

describe('an ending', () => {
  test('takes effect once, and only for the attempt that holds the key', async () => {
    const keys = await open();
    await keys.claim(attemptAt());
    await keys.end(attemptAt({ attempt: 'other' }), { ending: 'not-done' });
    expect(await keys.claim(attemptAt({ attempt: 'a2' }))).toMatchObject({ verdict: 'pending' });
    await keys.end(attemptAt(), { ending: 'in-doubt' });
    await keys.end(attemptAt(), { ending: 'not-done' });
    await keys.end(attemptAt(), answered());
    expect(await keys.claim(attemptAt({ attempt: 'a2' }))).toEqual({ verdict: 'in-doubt', first });
  });

  test('that does not come makes the write in doubt, and is still taken when it comes late', async () => {
    const keys = await open();
    await keys.claim(attemptAt({ doubtAfterMs: 50 }));
    await until('it is in doubt', async () => {
      const { verdict } = await keys.claim(attemptAt({ attempt: 'a2' }));
      return verdict === 'in-doubt';
    });
    await keys.end(attemptAt(), answered());
    expect(await keys.claim(attemptAt({ attempt: 'a2' }))).toMatchObject({ verdict: 'answered' });
  });

  test('beyond the bytes that a partition may keep leaves only the status', async () => {
    const keys = await open({ answerBytesPerPartition: 1_000 });
    for (const key of ['k1', 'k2']) {
      await keys.claim(attemptAt({ key }));
      await keys.end(attemptAt({ key }), answered(500));
    }
    expect(await keys.claim(attemptAt({ key: 'k1' }))).toMatchObject({ verdict: 'answered' });
    expect(await keys.claim(attemptAt({ key: 'k2' }))).toEqual({ verdict: 'not-kept', first, status: 200 });
  });
});

describe('an operator who resolves a partition', () => {
  test('frees the keys of writes in doubt, also of dead processes, and no others', async () => {
    const keys = await open();
    for (const key of ['doubt', 'dead', 'pending', 'answered']) {
      await keys.claim(attemptAt({ key, doubtAfterMs: key === 'dead' ? 0 : 60_000 }));
    }
    await keys.claim(attemptAt({ key: 'doubt', partition: 'q' }));
    await keys.end(attemptAt({ key: 'doubt', partition: 'q' }), { ending: 'in-doubt' });
    await keys.end(attemptAt({ key: 'doubt' }), { ending: 'in-doubt' });
    await keys.end(attemptAt({ key: 'answered' }), answered());
    const resolved = await keys.resolve('p');
    expect(resolved.map(({ key }) => key).toSorted((a, b) => a.localeCompare(b))).toEqual(['dead', 'doubt']);
    expect(resolved[0]).toMatchObject({
      owner: 'legacy',
      epoch: 7,
      method: 'POST',
      member: 'member-of-the-test',
    });
    const verdictOf = async (key: string, partition = 'p'): Promise<string> =>
      (await keys.claim(attemptAt({ key, partition, attempt: 'a2' }))).verdict;
    expect(await verdictOf('doubt')).toBe('claimed');
    expect(await verdictOf('dead')).toBe('claimed');
    expect(await verdictOf('pending')).toBe('pending');
    expect(await verdictOf('answered')).toBe('answered');
    expect(await verdictOf('doubt', 'q')).toBe('in-doubt');
    // The word of an attempt that was resolved comes too late: the key is another's now.
    await keys.end(attemptAt({ key: 'dead' }), answered());
    expect(await verdictOf('dead')).toBe('pending');
    expect(await keys.resolve('p')).toEqual([]);
  });
});
