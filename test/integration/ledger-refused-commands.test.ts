/** What Redis refuses within a pipeline must reach whoever asked for it: `exec` alone does not throw. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Redis } from 'ioredis';
import type { NewDoubt } from '../../src/core/doubt.ts';
import { RedisRegistry } from '../../src/ledger/books.ts';
import { connectRedis, keyPrefix, keys, repliesOf } from '../../src/ledger/connection.ts';
import { RedisDoubts } from '../../src/ledger/doubts.ts';
import type { Holding } from '../../src/ledger/holding.ts';
import { Rescues } from '../../src/ledger/rescues.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let redis: Redis;

beforeAll(async () => {
  server = await startRedis();
  redis = await connectRedis({ url: server.url });
});
beforeEach(async () => {
  await redis.config('SET', 'maxmemory', '0');
  await redis.flushall();
});
afterAll(async () => {
  redis.disconnect();
  await server.stop();
});

const doubt: NewDoubt = {
  ...{ partition: 'ann', member: 'm', store: 'legacy', epoch: 1, settleMs: 60_000 },
  ...{ method: 'PUT', path: '/appointments/1', why: 'no answer in time' },
};
const holding: Holding = {
  confirmed: { version: 1, id: 'one' },
  position: { version: 1, id: 'one' },
  partitions: [['ann', { phase: 'open', owner: 'app', epoch: 4 }]],
  rules: undefined,
};

describe('where Redis has no memory left', () => {
  const fill = () => redis.config('SET', 'maxmemory', '1');

  test('a write in doubt that was not noted is not taken for noted', async () => {
    await fill();
    await expect(new RedisDoubts(redis).note(doubt)).rejects.toThrow('OOM');
  });

  test('a write in doubt that was not resolved is not taken for resolved, and stays as it was', async () => {
    const doubts = new RedisDoubts(redis);
    await doubts.note(doubt);
    await fill();
    await expect(doubts.resolve('ann', 'op', 'looked')).rejects.toThrow('previous errors');
    expect((await doubts.unsettled()).map(({ resolved }) => resolved)).toEqual([undefined]);
  });

  test('a partition that was not registered is not taken for known', async () => {
    await fill();
    await expect(new RedisRegistry(redis).note([{ partition: 'ann' }])).rejects.toThrow('OOM');
  });
});

test('a rescue view that could not be listed is not taken for published', async () => {
  await redis.set(`${keyPrefix}:rescues`, 'not a sorted set');
  await expect(new Rescues(redis).publish('m', holding)).rejects.toThrow('WRONGTYPE');
});

test('the first command that failed is the one that is told of', async () => {
  await redis.set(keys.doubts, 'not a sorted set');
  const pipeline = redis.pipeline().get(keys.meta).zcard(keys.doubts).hget(keys.doubts, 'field');
  await expect(repliesOf(pipeline)).rejects.toMatchObject({ command: { name: 'zcard' } });
  expect(await repliesOf(redis.pipeline().get(keys.doubts).get(keys.meta))).toEqual([
    'not a sorted set',
    null,
  ]);
});
