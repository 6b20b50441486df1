/** Idempotency keys in a real Redis, with a place to interfere between the proxy and them. */
import type { Redis } from 'ioredis';
import type { IdempotencyKeys, KeyedAttempt, KeyEnding, KeyVerdict } from '../../src/core/idempotency.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { type IdempotencySettings, RedisIdempotencyKeys } from '../../src/ledger/idempotency.ts';
import type { TestRedis } from './redis.ts';

/** What a test puts in the way of a call; the real call is `go`. */
export interface Interference {
  claim?: (go: () => Promise<KeyVerdict>) => Promise<KeyVerdict>;
  end?: (go: () => Promise<void>) => Promise<void>;
}

export interface TestKeys {
  readonly keys: IdempotencyKeys;
  readonly interference: Interference;
  readonly redis: Redis;
  /** Endings that took effect or not, in order. */
  readonly endings: KeyEnding['ending'][];
  /** Names of all records there are. */
  records(): Promise<string[]>;
  close(): void;
}

/** On an empty Redis. */
export async function openKeys(
  server: TestRedis,
  settings: Partial<IdempotencySettings> = {},
): Promise<TestKeys> {
  const redis = await connectRedis({ url: server.url });
  await redis.flushall();
  const real = new RedisIdempotencyKeys(redis, {
    keepMs: 600_000,
    keysPerPartition: 1_000,
    answerBytesPerPartition: 1_000_000,
    minReplicas: 0,
    member: () => 'member-of-the-test',
    ...settings,
  });
  const interference: Interference = {};
  const endings: KeyEnding['ending'][] = [];
  return {
    interference,
    redis,
    endings,
    keys: {
      claim: async (attempt: KeyedAttempt) => {
        const go = async (): Promise<KeyVerdict> => real.claim(attempt);
        return interference.claim === undefined ? go() : interference.claim(go);
      },
      end: async (attempt, ending) => {
        const go = async (): Promise<void> => {
          await real.end(attempt, ending);
          endings.push(ending.ending);
        };
        return interference.end === undefined ? go() : interference.end(go);
      },
      resolve: async (partition) => real.resolve(partition),
    },
    records: async () => redis.keys('*idempotency:record*'),
    close: () => redis.disconnect(),
  };
}

/** A promise that the test settles. */
export function gate(): { readonly opened: Promise<void>; open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}
