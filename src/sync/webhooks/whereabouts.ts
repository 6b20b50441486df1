/**
 * Which partition a record was last seen in, for webhooks that name only its id. Learned from lists and receipts, and
 * bounded: small hashes, which Redis keeps as one piece of memory each, about 40 bytes a record. What is not in here,
 * or is wrong, is asked of the stores.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { inBatches } from '../../batches.ts';
import type { StoreName } from '../../core/ownership.ts';
import type { RecordKey } from '../../core/ports.ts';
import { repliesOf } from '../../ledger/connection.ts';
import { whereKey } from '../keys.ts';
import type { NamedRecord } from './events.ts';

export interface WhereaboutsBounds {
  /** Hashes of each store, and records in one: not more than Redis keeps compact (hash-max-listpack-entries, 128). */
  readonly buckets: number;
  readonly perBucket: number;
}

const usualBounds: WhereaboutsBounds = { buckets: 8_192, perBucket: 128 };
/** What this process told last, by place: so that a list that is read every minute is not written every minute. */
const toldPlaces = 2 ** 18;
const batchRecords = 250;

// KEYS: for each record its hash. ARGV: 1 most records of a hash, then field and partition of each.
const learnScript = `
for at, key in ipairs(KEYS) do
  if redis.call('HSET', key, ARGV[2 * at], ARGV[2 * at + 1]) == 1 then
    if redis.call('HLEN', key) > tonumber(ARGV[1]) then redis.call('HDEL', key, redis.call('HRANDFIELD', key)) end
  end
end
return 0`;

interface Place {
  readonly key: string;
  readonly field: string;
  readonly hash: Buffer;
}

export class Whereabouts {
  readonly #redis: Redis;
  readonly #store: StoreName;
  readonly #bounds: WhereaboutsBounds;
  readonly #told = new Float64Array(toldPlaces);

  constructor(redis: Redis, store: StoreName, bounds: WhereaboutsBounds = usualBounds) {
    this.#redis = redis;
    this.#store = store;
    this.#bounds = bounds;
  }

  /** Rejects where Redis does not answer; what was not learned will be at the next list. */
  async learn(records: Iterable<RecordKey>): Promise<void> {
    for (const batch of inBatches(records, batchRecords)) {
      const fresh = batch.flatMap(({ kind, id, partition }) => {
        const place = this.#placeOf(kind, id);
        return this.#isTold(place, partition) ? [] : [{ place, partition }];
      });
      if (fresh.length === 0) continue;
      const keys = fresh.map(({ place }) => place.key);
      const values = fresh.flatMap(({ place, partition }) => [place.field, partition]);
      await this.#redis.eval(learnScript, keys.length, ...keys, this.#bounds.perBucket, ...values);
      for (const { place, partition } of fresh) this.#told[placeIn(place)] = markOf(place, partition);
    }
  }

  /** For each record its partition, where it is known. */
  async find(records: readonly NamedRecord[]): Promise<readonly (string | undefined)[]> {
    if (records.length === 0) return [];
    const pipeline = this.#redis.pipeline();
    for (const { kind, id } of records) {
      const { key, field } = this.#placeOf(kind, id);
      pipeline.hget(key, field);
    }
    const found = await repliesOf(pipeline);
    return found.map((partition) => (typeof partition === 'string' ? partition : undefined));
  }

  /** How many of these are known to be in the partition; with `remove` none afterwards. */
  async knownIn(partition: string, records: readonly NamedRecord[], remove: boolean): Promise<number> {
    let known = 0;
    for (const batch of inBatches(records, batchRecords)) {
      const found = await this.find(batch);
      const ours = batch.filter((_, at) => found[at] === partition);
      known += ours.length;
      if (!remove) continue;
      for (const { kind, id } of ours) {
        const place = this.#placeOf(kind, id);
        await this.#redis.hdel(place.key, place.field);
        this.#told[placeIn(place)] = 0;
      }
    }
    return known;
  }

  #placeOf(kind: string, id: string): Place {
    const hash = createHash('sha256').update(`${kind}\n${id}`).digest();
    const bucket = hash.readUInt32LE(0) % this.#bounds.buckets;
    // Two records with one field would only have the wrong partition looked at first.
    return { key: whereKey(this.#store, bucket), field: hash.toString('base64url', 4, 12), hash };
  }

  #isTold(place: Place, partition: string): boolean {
    return this.#told[placeIn(place)] === markOf(place, partition);
  }
}

function placeIn({ hash }: Place): number {
  return hash.readUInt32LE(12) % toldPlaces;
}

function markOf({ field }: Place, partition: string): number {
  return createHash('sha256').update(`${field}\n${partition}`).digest().readUIntLE(0, 6) + 1;
}
