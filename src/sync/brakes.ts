/**
 * The brake on deletes: when the owner seems to have lost many records of a partition at once, their copies are left
 * alone until an operator agrees. A platform that shows the wrong tenant, or nothing, must not empty the copies.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { storeNames, type StoreName } from '../core/ownership.ts';
import type { RecordKey } from '../core/ports.ts';
import { redisNowMs } from '../ledger/connection.ts';
import type { Log } from '../log.ts';
import { AllPartitionsBrake, type BrakeOnAll, lookAtOwner, sentenceOfBrakeOnAll } from './brake-on-all.ts';
import { letterOf } from './dead-letters.ts';
import { deletesKey, syncKeys } from './keys.ts';
import type { Receipts } from './receipts.ts';

const brakeSchema = z.object({
  partition: z.string(),
  /** Deletes without a receipt that were refused, and how many would have been made. */
  deletes: z.number(),
  limit: z.number(),
  /** Records in the copy. */
  records: z.number(),
  /** Where the copies are; Redis may hold brakes of before that do not say it. */
  store: z.enum(storeNames as ['legacy', 'app']).optional(),
  /** A few of them, as "kind id". */
  first: z.array(z.string()),
  /** Redis clock. */
  atMs: z.number(),
  /** An operator has agreed: to so many, until then. */
  released: z.object({ upTo: z.number(), untilMs: z.number() }).optional(),
});

export type DeleteBrake = z.output<typeof brakeSchema>;

/** What holds deletes back: their partition's own brake, or the one on all partitions. */
export type HeldBack = DeleteBrake | BrakeOnAll;

/** Deletes of one partition in one pass that need no leave: so many, or this share of its records. */
const deletesMin = 20;
const deletesShare = 0.05;
/** Deletes of single records within this time count like those of one pass. */
const windowMs = 60_000;
const releaseMs = 3_600_000;
const firstNamed = 3;
/** More brakes than these are not told apart: what they would hold is refused all the same. */
const brakesMax = 10_000;

// KEYS: 1 deletes of the partition lately, 2 brakes, 3 receipts. ARGV: 1 partition, 2 record, 3 most deletes, 4 ms for
// which they count. Returns receipt, yes, no, or pass: only a pass over the partition can tell.
const oneScript = `
if redis.call('ZSCORE', KEYS[3], ARGV[2]) then return 'receipt' end
local brake = redis.call('HGET', KEYS[2], ARGV[1])
if brake then return cjson.decode(brake).released and 'pass' or 'no' end
-- Who asks again for the same delete counts once.
if redis.call('SISMEMBER', KEYS[1], ARGV[2]) == 1 then return 'yes' end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 'pass' end
redis.call('SADD', KEYS[1], ARGV[2])
if redis.call('SCARD', KEYS[1]) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 'yes'`;

// KEYS: 1 brakes. ARGV: 1 partition, 2 the brake as it was read or '', 3 the brake to be, 4 most brakes. Returns 0 where
// somebody has changed it since, for example released it.
const holdScript = `
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[2] ~= '' or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[4]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1`;

export class Brakes {
  readonly #redis: Redis;
  readonly #receipts: Receipts;
  readonly #log: Log;
  /** On all partitions together. */
  readonly onAll: AllPartitionsBrake;

  constructor(redis: Redis, receipts: Receipts, log: Log) {
    this.#redis = redis;
    this.#receipts = receipts;
    this.#log = log;
    this.onAll = new AllPartitionsBrake(redis, log);
  }

  /** May the copy of this one record be removed from `store`? `pass`: only a pass over its partition can tell. */
  async mayRemove(record: RecordKey, store?: StoreName): Promise<'yes' | 'no' | 'pass'> {
    const { partition } = record;
    const keys = [deletesKey(partition), syncKeys.brakes, syncKeys.receipts];
    const answer = await this.#redis.eval(
      ...([oneScript, 3, ...keys] as const),
      ...[partition, letterOf(record), deletesMin, windowMs],
    );
    const said = z.enum(['receipt', 'yes', 'no', 'pass']).parse(answer);
    if (said === 'receipt') return 'yes';
    if (said !== 'yes') return said;
    if ((await this.onAll.hold([record], store)) === undefined) return 'yes';
    // What was refused is no delete that there was: after the release it is asked for again.
    await this.#redis.srem(deletesKey(partition), letterOf(record));
    return 'no';
  }

  /** May all these copies of one partition, which holds `records` of them in `store`, be removed? Else what holds them back. */
  async mayRemoveAll(
    partition: string,
    deletes: readonly RecordKey[],
    records: number,
    store?: StoreName,
  ): Promise<HeldBack | undefined> {
    const text = await this.#textOf(partition);
    const known = text === null ? undefined : brakeSchema.parse(JSON.parse(text));
    if (deletes.length === 0 && known === undefined) return undefined;
    const counted = await this.#receipts.without(deletes);
    const asked = new Set(deletes.map(letterOf));
    const recent = (await this.#redis.smembers(deletesKey(partition))).filter(
      (one) => !asked.has(one),
    ).length;
    const limit = Math.max(deletesMin, Math.floor(deletesShare * records));
    if (counted.length === 0 || counted.length + recent <= limit) {
      if (known !== undefined) await this.#lift(known);
      return this.onAll.hold(counted, store);
    }
    const nowMs = await redisNowMs(this.#redis);
    const { released } = known ?? {};
    const isReleased = released !== undefined && nowMs < released.untilMs;
    if (isReleased && counted.length <= released.upTo) return undefined;
    const brake: DeleteBrake = {
      ...{ partition, limit, records, store },
      deletes: counted.length + recent,
      first: counted.slice(0, firstNamed).map(({ kind, id }) => `${kind} ${id}`),
      atMs: known?.released === undefined ? (known?.atMs ?? nowMs) : nowMs,
    };
    const made = [partition, text ?? '', JSON.stringify(brake), brakesMax];
    const isHeld = await this.#redis.eval(holdScript, 1, syncKeys.brakes, ...made);
    if (isHeld === 0) return this.mayRemoveAll(partition, deletes, records, store);
    if (known === undefined || known.released !== undefined) this.#alarm(brake);
    return brake;
  }

  /** An operator agrees to as many deletes as were refused, and a pass more; undefined where nothing is held back. */
  async release(partition: string): Promise<DeleteBrake | undefined> {
    const brake = await this.of(partition);
    if (brake === undefined) return undefined;
    const untilMs = (await redisNowMs(this.#redis)) + releaseMs;
    const released = { ...brake, released: { upTo: brake.deletes + brake.limit, untilMs } };
    await this.#redis.hset(syncKeys.brakes, partition, JSON.stringify(released));
    return released;
  }

  async of(partition: string): Promise<DeleteBrake | undefined> {
    const text = await this.#textOf(partition);
    return text === null ? undefined : brakeSchema.parse(JSON.parse(text));
  }

  #textOf(partition: string): Promise<string | null> {
    return this.#redis.hget(syncKeys.brakes, partition);
  }

  /** Those that hold something back, oldest first. */
  async list(): Promise<DeleteBrake[]> {
    const all = Object.values(await this.#redis.hgetall(syncKeys.brakes));
    return all
      .map((text) => brakeSchema.parse(JSON.parse(text)))
      .filter(({ released }) => released === undefined)
      .toSorted((left, right) => left.atMs - right.atMs);
  }

  async forget(partition: string): Promise<void> {
    await this.#redis.hdel(syncKeys.brakes, partition);
    await this.#redis.del(deletesKey(partition));
    await this.onAll.forget(partition);
  }

  async #lift({ partition }: DeleteBrake): Promise<void> {
    await this.#redis.hdel(syncKeys.brakes, partition);
    this.#log('info', 'sync.delete-brake-gone', { partition });
  }

  #alarm(brake: DeleteBrake): void {
    const { partition, deletes, limit, records, store, first } = brake;
    const detail = sentenceOfBrake(brake);
    this.#log('error', 'sync.delete-brake', { partition, deletes, limit, records, store, first, detail });
  }
}

/** For logs, reports and plans; names the partition only where the reader knows it anyhow. */
export function sentenceOfBrake(held: HeldBack): string {
  if (!('partition' in held)) return sentenceOfBrakeOnAll(held);
  const { deletes, records, limit, first, store } = held;
  const copies = store === undefined ? 'copies' : `copies in ${store}`;
  return (
    `${deletes} of ${records} ${copies} would be deleted at once (first: ${first.join(', ')}), more than ${limit}; ` +
    `they were left alone. ${lookAtOwner(store === undefined ? [] : [store])}, then: onewriter sync release PARTITION --reason TEXT`
  );
}
