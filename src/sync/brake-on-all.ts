/**
 * The brake on deletes over all partitions: a source that denies everything must not empty the copies a few records
 * here and a few there, each partition below its own brake. It lets an hour's share go, then nothing, until an operator
 * agrees.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import { otherStore, storeNames, type StoreName } from '../core/ownership.ts';
import { type RecordKey } from '../core/ports.ts';
import { redisNowMs } from '../ledger/connection.ts';
import type { Log } from '../log.ts';
import { copiesSeenKey, syncKeys } from './keys.ts';

const stateSchema = z.object({
  /** Different copies that were to be deleted and were not, as far as they were asked for; about. */
  deletes: z.number(),
  /** So many are deleted within an hour without leave; `lately` were. */
  limit: z.number(),
  lately: z.number(),
  /** Copies in all partitions, about. */
  copies: z.number(),
  /** A few of them, as "partition kind id". Lua writes a list of none as an object. */
  first: z.union([z.array(z.string()), z.strictObject({}).transform((): string[] => [])]),
  /** In which stores these copies are, each with true; Redis may hold brakes of before that do not say it. */
  stores: z.partialRecord(z.enum(storeNames as ['legacy', 'app']), z.boolean()).default({}),
  /** Redis clock. */
  atMs: z.number(),
  /** An operator has agreed: to so many more, until then. */
  released: z.object({ left: z.number(), untilMs: z.number() }).optional(),
});

export type BrakeOnAll = z.output<typeof stateSchema>;

/** Deletes without a receipt within an hour that need no leave: so many, or this share of all copies. */
const deletesMin = 100;
const deletesShare = 0.02;
const hourMs = 3_600_000;
const firstNamed = 3;
const idsAtOnce = 1_000;
const weekMs = 604_800_000;

// KEYS: 1 brake, 2 deletes by minute, 3 which ones were refused, 4 copies counted by full passes, 5 and 6 copies seen by
// partition. ARGV: 1 least limit, 2 share, 3 ms of an hour, 4 the store of the copies or '', then the deletes. Takes all of them, or none. Returns the
// brake where it holds, and 1 where it has just taken hold; nothing where they may be made.
const takeScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hour, asked = tonumber(ARGV[3]), #ARGV - 4
local text = redis.call('GET', KEYS[1])
local brake = text and cjson.decode(text)
local released = brake and brake.released
if released and now >= released.untilMs then
  redis.call('DEL', KEYS[1], KEYS[3])
  brake, released = nil, nil
end
if released and released.left >= asked then
  released.left = released.left - asked
  redis.call('SET', KEYS[1], cjson.encode(brake))
  return {}
end
local isNew = 1
if brake and not released then isNew = 0 end
if not brake then
  local lately, minute = 0, math.floor(now / 60000)
  local counts = redis.call('HGETALL', KEYS[2])
  for at = 1, #counts, 2 do
    if (minute - tonumber(counts[at])) * 60000 >= hour then redis.call('HDEL', KEYS[2], counts[at])
    else lately = lately + tonumber(counts[at + 1]) end
  end
  local copies = redis.call('PFCOUNT', KEYS[5], KEYS[6])
  local counted = 0
  for _, count in ipairs(redis.call('HVALS', KEYS[4])) do counted = counted + tonumber(count) end
  copies = math.max(copies, counted)
  local limit = math.max(tonumber(ARGV[1]), math.floor(ARGV[2] * copies))
  if lately + asked <= limit then
    redis.call('HINCRBY', KEYS[2], minute, asked)
    return {}
  end
  brake = {limit = limit, lately = lately, copies = copies, first = {}, stores = {}}
  for at = 5, math.min(#ARGV, 4 + ${firstNamed}) do
    brake.first[at - 4] = table.concat(cjson.decode(ARGV[at]), ' ')
  end
end
if ARGV[4] ~= '' then
  brake.stores = brake.stores or {}
  brake.stores[ARGV[4]] = true
end
for at = 5, #ARGV do redis.call('PFADD', KEYS[3], ARGV[at]) end
brake.released = nil
brake.deletes = redis.call('PFCOUNT', KEYS[3])
if isNew == 1 then brake.atMs = now end
local made = cjson.encode(brake)
redis.call('SET', KEYS[1], made)
return {made, isNew}`;

// KEYS: 1 brake. ARGV: 1 the brake as it was read, 2 the brake to be. Returns 0 where it has changed since.
const replaceScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1`;

export class AllPartitionsBrake {
  readonly #redis: Redis;
  readonly #log: Log;

  constructor(redis: Redis, log: Log) {
    this.#redis = redis;
    this.#log = log;
  }

  /** What holds these deletes in `store` back; undefined where all of them may be made, and then they are counted. */
  async hold(deletes: readonly RecordKey[], store?: StoreName): Promise<BrakeOnAll | undefined> {
    if (deletes.length === 0) return undefined;
    const week = Math.floor((await redisNowMs(this.#redis)) / weekMs);
    const { brakeOnAll, deletesByMinute, deletesRefused, copiesCounted } = syncKeys;
    const keys = [brakeOnAll, deletesByMinute, deletesRefused, copiesCounted];
    const [made, isNew] = (await this.#redis.eval(
      ...([takeScript, 6, ...keys, copiesSeenKey(week), copiesSeenKey(week - 1)] as const),
      ...[deletesMin, deletesShare, hourMs, store ?? ''],
      ...deletes.map(({ partition, kind, id }) => JSON.stringify([partition, kind, id])),
    )) as [string, number] | [];
    if (made === undefined) return undefined;
    const brake = stateSchema.parse(JSON.parse(made));
    if (isNew === 1) {
      const { limit, lately, copies, first } = brake;
      const detail = sentenceOfBrakeOnAll(brake);
      this.#log('error', 'sync.delete-brake-all', {
        deletes: brake.deletes,
        limit,
        lately,
        copies,
        first,
        detail,
      });
    }
    return brake;
  }

  /** Undefined while nothing is held back. */
  async holding(): Promise<BrakeOnAll | undefined> {
    const brake = await this.#read();
    return brake?.released === undefined ? brake : undefined;
  }

  /** An operator agrees to as many deletes as were refused, and an hour's share more; undefined where none is. */
  async release(): Promise<BrakeOnAll | undefined> {
    const brake = await this.holding();
    if (brake === undefined) return undefined;
    const untilMs = (await redisNowMs(this.#redis)) + hourMs;
    const released = { ...brake, released: { left: brake.deletes + brake.limit, untilMs } };
    await this.#redis.del(syncKeys.deletesRefused);
    await this.#redis.set(syncKeys.brakeOnAll, JSON.stringify(released));
    return released;
  }

  /** How many of those that it names are of this partition. */
  async naming(partition: string): Promise<number> {
    const { first = [] } = (await this.#read()) ?? {};
    return first.filter((name) => name.startsWith(`${partition} `)).length;
  }

  /** The brake stays; only what it names of the partition goes. */
  async forget(partition: string): Promise<void> {
    for (;;) {
      const text = await this.#redis.get(syncKeys.brakeOnAll);
      const brake = text === null ? undefined : stateSchema.parse(JSON.parse(text));
      if (text === null || brake === undefined) return;
      const first = brake.first.filter((name) => !name.startsWith(`${partition} `));
      if (first.length === brake.first.length) return;
      const after = JSON.stringify({ ...brake, first });
      if ((await this.#redis.eval(replaceScript, 1, syncKeys.brakeOnAll, text, after)) === 1) return;
    }
  }

  /** A full pass has counted the copies of a kind. */
  async counted(name: string, copies: number): Promise<void> {
    await this.#redis.hset(syncKeys.copiesCounted, name, copies);
  }

  /**
   * A pass over a partition has seen these copies. They are counted in two HyperLogLogs (Flajolet and others, AofA 2007;
   * 12 KB each, wrong by 1 %), so that copies of kinds that are listed only by partition count, too.
   */
  async seen(copies: Iterable<string>): Promise<void> {
    let week: number | undefined;
    for (const batch of inBatches(copies, idsAtOnce)) {
      week ??= Math.floor((await redisNowMs(this.#redis)) / weekMs);
      await this.#redis.pfadd(copiesSeenKey(week), ...batch);
      await this.#redis.pexpire(copiesSeenKey(week), 2 * weekMs);
    }
  }

  async #read(): Promise<BrakeOnAll | undefined> {
    const text = await this.#redis.get(syncKeys.brakeOnAll);
    return text === null ? undefined : stateSchema.parse(JSON.parse(text));
  }
}

/** For logs, reports and plans. */
export function sentenceOfBrakeOnAll(brake: BrakeOnAll): string {
  const { deletes, lately, limit, copies, first } = brake;
  const stores = storesOf(brake);
  const where = stores.length === 0 ? '' : ` in ${stores.join(' and ')}`;
  return (
    `${lately} of about ${copies} copies were deleted within an hour, and ${deletes} more${where} are to be (first: ` +
    `${first.join(', ')}): more than ${limit}, so no copy is deleted any more. ${lookAtOwner(stores)}, ` +
    'then: onewriter sync release --all --reason TEXT'
  );
}

/** Where the copies are that were to be deleted; empty where that is not known. */
export function storesOf({ stores }: Pick<BrakeOnAll, 'stores'>): StoreName[] {
  return storeNames.filter((store) => stores[store] === true);
}

/** What to do first; the copies that wait are in `stores`, so the other store owns their records. */
export function lookAtOwner(stores: readonly StoreName[]): string {
  const [store, ...others] = new Set(stores);
  if (store === undefined || others.length > 0) return 'Look whether the owner has really deleted them';
  return `Look whether ${otherStore(store)}, the owner, has really deleted them`;
}
