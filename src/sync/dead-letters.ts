/**
 * Records that could not be copied after all attempts, each with the reason: for the operator to see, and
 * for the preflight of a handoff to stop at. A record has at most one.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { RecordKey } from '../core/ports.ts';
import { syncKeys } from './keys.ts';

const letterSchema = z.object({
  partition: z.string(),
  kind: z.string(),
  id: z.string(),
  reason: z.string(),
  /** A little of what the store answered, which can hold what users wrote. */
  said: z.string().optional(),
  /** The last time. */
  atMs: z.number(),
  /** When it first became one, without being copied since; Redis may hold letters of before that say neither. */
  firstMs: z.number().optional(),
  times: z.number().default(1),
});

export interface DeadLetter extends RecordKey {
  readonly letter: string;
  readonly reason: string;
  readonly said?: string | undefined;
  /** When it last could not be copied. */
  readonly atMs: number;
  readonly firstMs?: number | undefined;
  /** How often all attempts were used up. */
  readonly times: number;
}

/** With more than these, the oldest are forgotten; the next full pass finds their records again. */
const lettersMax = 10_000;
const reasonLengthMax = 500;
const firstRestMs = 30_000;
const restMsMax = 60 * 60_000;

// KEYS: 1 letters, 2 order, 3 counts per partition. ARGV: 1 letter id, 2 its JSON, 3 ms, 4 most letters.
const addScript = `
local function drop(id)
  local old = redis.call('HGET', KEYS[1], id)
  if not old then return end
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
  local partition = cjson.decode(old).partition
  if redis.call('HINCRBY', KEYS[3], partition, -1) <= 0 then redis.call('HDEL', KEYS[3], partition) end
end
local known = redis.call('HGET', KEYS[1], ARGV[1])
drop(ARGV[1])
local letter = cjson.decode(ARGV[2])
letter.firstMs, letter.times = letter.atMs, 1
if known then
  local old = cjson.decode(known)
  letter.firstMs, letter.times = old.firstMs or old.atMs, (old.times or 1) + 1
end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(letter))
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('HINCRBY', KEYS[3], cjson.decode(ARGV[2]).partition, 1)
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) do
  drop(redis.call('ZRANGE', KEYS[2], 0, 0)[1])
end
return 0`;

// KEYS: as above. ARGV: letter ids. Returns how many there were.
const removeScript = `
local removed = 0
for _, id in ipairs(ARGV) do
  local old = redis.call('HGET', KEYS[1], id)
  if old then
    removed = removed + 1
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    local partition = cjson.decode(old).partition
    if redis.call('HINCRBY', KEYS[3], partition, -1) <= 0 then redis.call('HDEL', KEYS[3], partition) end
  end
end
return removed`;

const letterKeys = [syncKeys.deadLetters, syncKeys.deadLetterOrder, syncKeys.deadLetterCounts] as const;

export function letterOf(record: RecordKey): string {
  const text = JSON.stringify([record.partition, record.kind, record.id]);
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}

export class DeadLetters {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async add(record: RecordKey, reason: string, said?: string): Promise<void> {
    const { partition, kind, id } = record;
    const atMs = Date.now();
    // Cut well: the script would not read half a character, and there would be no letter.
    const cut = reason.slice(0, reasonLengthMax).toWellFormed();
    const letter = JSON.stringify({ partition, kind, id, reason: cut, said, atMs });
    await this.#redis.eval(addScript, 3, ...letterKeys, letterOf(record), letter, atMs, lettersMax);
  }

  /** The record was copied after all. */
  async resolve(record: RecordKey): Promise<void> {
    await this.#redis.eval(removeScript, 3, ...letterKeys, letterOf(record));
  }

  /** An operator wants to hear no more of it. Undefined where it is not there. */
  async discard(letter: string): Promise<DeadLetter | undefined> {
    const found = await this.find(letter);
    if (found === undefined) return undefined;
    const removed = await this.#redis.eval(removeScript, 3, ...letterKeys, letter);
    return removed === 1 ? found : undefined;
  }

  /** A whole pass over the partition found everything copied. */
  async clear(partition: string): Promise<void> {
    if ((await this.count(partition)) === 0) return;
    const letters = await this.list(partition);
    if (letters.length > 0) {
      await this.#redis.eval(removeScript, 3, ...letterKeys, ...letters.map(({ letter }) => letter));
    }
  }

  async count(partition: string): Promise<number> {
    return Number((await this.#redis.hget(syncKeys.deadLetterCounts, partition)) ?? 0);
  }

  total(): Promise<number> {
    return this.#redis.zcard(syncKeys.deadLetterOrder);
  }

  async find(letter: string): Promise<DeadLetter | undefined> {
    const text = await this.#redis.hget(syncKeys.deadLetters, letter);
    return text === null ? undefined : { letter, ...letterSchema.parse(JSON.parse(text)) };
  }

  /**
   * Those that full passes leave alone for now: each is tried again half a minute after it was given up, then after
   * twice as long each time, up to an hour. Sooner when the record changes, or when an operator asks.
   */
  async resting(nowMs: number = Date.now()): Promise<ReadonlySet<string>> {
    const all = await this.list();
    const isDue = ({ atMs, times }: DeadLetter): boolean =>
      nowMs >= atMs + Math.min(restMsMax, firstRestMs * 2 ** (times - 1));
    return new Set(all.filter((letter) => !isDue(letter)).map(({ letter }) => letter));
  }

  /** Oldest first; of one partition where it is named. */
  async list(partition?: string): Promise<DeadLetter[]> {
    const all = await this.#redis.hgetall(syncKeys.deadLetters);
    return Object.entries(all)
      .map(([letter, text]) => ({ letter, ...letterSchema.parse(JSON.parse(text)) }))
      .filter((found) => partition === undefined || found.partition === partition)
      .toSorted((left, right) => left.atMs - right.atMs);
  }
}
