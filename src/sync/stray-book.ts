/** The book of strays in Redis. Bounded: of many, those resolved first are forgotten; open ones never. */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { storeNames } from '../core/ownership.ts';
import {
  type NewStray,
  type Stray,
  type StrayDesk,
  type StrayResolution,
  strayResolutions,
} from '../core/stray.ts';
import { keyPrefix, redisNowMs, repliesOf } from '../ledger/connection.ts';
import type { Snapshots } from './snapshots.ts';

const straysMax = 10_000;
const book = `${keyPrefix}:strays`;
/** Ids of resolved ones by when they were. */
const order = `${book}:resolved`;
/** How many are open in each partition. */
const counts = `${book}:open`;

// KEYS: 1 book, 2 resolved, 3 open counts. ARGV: 1 id, 2 what stands there ('' for none), 3 what comes, 4 partition,
// 5 change of the open count, 6 ms where it is resolved now (else ''), 7 most strays.
// 0: something else stands there. -1: the book is full of open ones.
const putScript = `
local now = redis.call('HGET', KEYS[1], ARGV[1])
if (now or '') ~= ARGV[2] then return 0 end
if not now and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[7]) then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest then return -1 end
  redis.call('ZREM', KEYS[2], oldest)
  redis.call('HDEL', KEYS[1], oldest)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if redis.call('HINCRBY', KEYS[3], ARGV[4], ARGV[5]) <= 0 then redis.call('HDEL', KEYS[3], ARGV[4]) end
if ARGV[6] == '' then redis.call('ZREM', KEYS[2], ARGV[1]) else redis.call('ZADD', KEYS[2], ARGV[6], ARGV[1]) end
return 1`;

const store = z.enum(storeNames as ['legacy', 'app']);
export const straySchema = z.object({
  id: z.string(),
  store,
  partition: z.string(),
  kind: z.string(),
  record: z.string(),
  change: z.enum(['created', 'changed', 'deleted']),
  digest: z.string().optional(),
  holds: z.string().optional(),
  ownerHolds: z.string().optional(),
  owner: store,
  epoch: z.number(),
  lateWrite: z.object({ id: z.string(), method: z.string(), path: z.string(), atMs: z.number() }).optional(),
  foundAtMs: z.number(),
  state: z.enum(['open', 'resolved']),
  resolved: z
    .object({ how: z.enum(strayResolutions), by: z.string(), reason: z.string(), atMs: z.number() })
    .optional(),
});

export class StrayBook implements StrayDesk {
  readonly #redis: Redis;
  readonly #snapshots: Snapshots;

  constructor(redis: Redis, snapshots: Snapshots) {
    this.#redis = redis;
    this.#snapshots = snapshots;
  }

  /** `reopened`: it was said to be repaired, and was read again as it was. `full`: nothing was recorded. */
  async add(
    found: NewStray,
  ): Promise<{ readonly as: 'new' | 'known' | 'reopened' | 'full'; readonly stray: Stray }> {
    const id = idOf(found);
    const stray: Stray = { ...found, id, state: 'open' };
    for (;;) {
      const before = await this.#redis.hget(book, id);
      const known = before === null ? undefined : straySchema.parse(JSON.parse(before));
      const again =
        known?.resolved?.how === 'repaired' &&
        known.resolved.atMs < found.foundAtMs &&
        known.state === 'resolved';
      if (known !== undefined && !again) return { as: 'known', stray: known };
      const done = await this.#put(stray, before ?? '', 1, '');
      if (done === -1) return { as: 'full', stray };
      if (done === 1) return { as: again ? 'reopened' : 'new', stray };
    }
  }

  async list(state?: Stray['state']): Promise<readonly Stray[]> {
    return (await this.#redis.hvals(book))
      .map((text): Stray => straySchema.parse(JSON.parse(text)))
      .filter((stray) => state === undefined || stray.state === state)
      .toSorted((left, right) => left.foundAtMs - right.foundAtMs || (left.id < right.id ? -1 : 1));
  }

  async get(id: string): Promise<Stray | undefined> {
    const text = await this.#redis.hget(book, id);
    return text === null ? undefined : straySchema.parse(JSON.parse(text));
  }

  async resolve(id: string, how: StrayResolution, by: string, reason: string): Promise<Stray | undefined> {
    for (;;) {
      const text = await this.#redis.hget(book, id);
      if (text === null) return undefined;
      const stray: Stray = straySchema.parse(JSON.parse(text));
      if (stray.state === 'resolved') return stray;
      const atMs = await redisNowMs(this.#redis);
      const after: Stray = { ...stray, state: 'resolved', resolved: { how, by, reason, atMs } };
      if ((await this.#put(after, text, -1, atMs)) !== 1) continue;
      const { store: where, partition, kind, record, digest } = stray;
      // What was repaired must be as it was; else it is as it is now, and may stay so.
      if (how !== 'repaired') await this.#snapshots.note(where, { partition, kind, id: record }, digest);
      return after;
    }
  }

  /** Takes out all of the partition, open or not. */
  async forget(partition: string): Promise<void> {
    const ids = (await this.list()).filter((stray) => stray.partition === partition).map(({ id }) => id);
    const transaction = this.#redis.multi().hdel(counts, partition);
    if (ids.length > 0) transaction.hdel(book, ...ids).zrem(order, ...ids);
    await repliesOf(transaction);
  }

  async open(): Promise<ReadonlyMap<string, number>> {
    const found = await this.#redis.hgetall(counts);
    return new Map(Object.entries(found).map(([partition, count]) => [partition, Number(count)]));
  }

  async #put(stray: Stray, before: string, change: number, atMs: number | ''): Promise<number> {
    const values = [stray.id, before, JSON.stringify(stray), stray.partition, change, atMs, straysMax];
    return Number(await this.#redis.eval(putScript, 3, book, order, counts, ...values));
  }
}

/** The same change found twice is one stray. */
function idOf({ store: where, partition, kind, record, digest, epoch }: NewStray): string {
  const text = JSON.stringify([where, partition, kind, record, digest ?? null, epoch]);
  return `s-${createHash('sha256').update(text).digest('hex').slice(0, 20)}`;
}
