/**
 * Records that writes through the proxy have touched lately. A delete that has such a receipt was ordered by a user
 * who was let through, and does not count at the brake. Only an aid: one that is lost makes the brake stricter.
 */
import type { Redis } from 'ioredis';
import { inBatches } from '../batches.ts';
import type { RecordKey } from '../core/ports.ts';
import { letterOf } from './dead-letters.ts';
import { syncKeys } from './keys.ts';

export interface ReceiptBounds {
  readonly keptMs: number;
  readonly most: number;
}

const usualBounds: ReceiptBounds = { keptMs: 86_400_000, most: 100_000 };

const recordsAtOnce = 500;

// KEYS: 1 receipts. ARGV: 1 ms for which they are kept, 2 most of them, then records.
const noteScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 3, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[at]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
return 0`;

export class Receipts {
  readonly #redis: Redis;
  readonly #bounds: ReceiptBounds;

  constructor(redis: Redis, bounds: ReceiptBounds = usualBounds) {
    this.#redis = redis;
    this.#bounds = bounds;
  }

  /** Never rejects. */
  async note(records: readonly RecordKey[]): Promise<void> {
    if (records.length === 0) return;
    const { keptMs, most } = this.#bounds;
    const names = records.map(letterOf);
    await this.#redis.eval(noteScript, 1, syncKeys.receipts, keptMs, most, ...names).catch(() => undefined);
  }

  /** How many of these have one. */
  async among(records: readonly RecordKey[]): Promise<number> {
    let found = 0;
    for (const batch of inBatches(records, recordsAtOnce)) {
      found += batch.length - (await this.without(batch)).length;
    }
    return found;
  }

  async forget(records: readonly RecordKey[]): Promise<void> {
    for (const batch of inBatches(records, recordsAtOnce)) {
      await this.#redis.zrem(syncKeys.receipts, ...batch.map(letterOf));
    }
  }

  /** Those without a receipt. */
  async without(records: readonly RecordKey[]): Promise<readonly RecordKey[]> {
    if (records.length === 0) return [];
    const scores = await this.#redis.zmscore(syncKeys.receipts, ...records.map(letterOf));
    return records.filter((_, at) => scores[at] === null);
  }
}
