/** Real fences in the ledger, as a handoff sets them, and seen by every member before anything goes on. */
import { randomUUID } from 'node:crypto';
import { connectRedis, keys, type RedisAddress } from '../src/ledger/connection.ts';
import { RedisLedger } from '../src/ledger/ledger.ts';
import type { TransitionOrder } from '../src/core/ownership.ts';
import { pause } from '../src/pause.ts';

export interface Fences {
  /** Opens the partitions again at their owner. */
  abort(): Promise<void>;
}

const fenceMs = 100_000;
const seenWithinMs = 10_000;

/** Of partitions of legacy, which one proxy serves. */
export async function fence(address: RedisAddress, partitions: readonly string[]): Promise<Fences> {
  const redis = await connectRedis(address);
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas: 0 });
  const attempt = randomUUID();
  const order = async (partition: string, order: TransitionOrder): Promise<void> => {
    const { result } = await ledger.order({ partition, order, by: 'bench', reason: 'bench' });
    if (result !== 'done') throw new Error(`${order.kind} of ${partition} was ${result}`);
  };
  await Promise.all(partitions.map((name) => order(name, { kind: 'fence', to: 'app', attempt, fenceMs })));
  const untilMs = performance.now() + seenWithinMs;
  for (;;) {
    const entries = await redis.xrange(keys.acknowledgements, '-', '+');
    const own = entries.filter(([, fields]) => fields.some((field) => field.includes(attempt)));
    if (own.length >= partitions.length) break;
    if (performance.now() > untilMs) throw new Error('the proxy did not acknowledge the fences in time');
    await pause(10);
  }
  return {
    abort: async () => {
      await Promise.all(partitions.map((name) => order(name, { kind: 'abort', attempt })));
      redis.disconnect();
    },
  };
}
