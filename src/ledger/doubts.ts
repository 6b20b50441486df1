/**
 * The writes in doubt of all members, for operators: what was sent, where to, and until when it may still
 * take effect. What stops a fence is each member's own count; this book says which write it was.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { Doubts, DoubtfulWrite, NewDoubt } from '../core/doubt.ts';
import { keys, redisNowMs, repliesOf } from './connection.ts';

/** Writes that the book holds; over it, those that settled first are forgotten. */
const writesKept = 10_000;

const writeSchema = z.object({
  id: z.string(),
  partition: z.string(),
  member: z.string(),
  store: z.enum(['legacy', 'app']),
  epoch: z.int(),
  method: z.string(),
  path: z.string(),
  why: z.string(),
  atMs: z.number(),
  settlesAtMs: z.number(),
  resolved: z.object({ by: z.string(), reason: z.string(), atMs: z.number() }).optional(),
});

/** One sorted set: the score is when the write settles, or when it was resolved, by Redis's clock. */
export class RedisDoubts implements Doubts {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async note(doubt: NewDoubt): Promise<void> {
    const atMs = await redisNowMs(this.#redis);
    const { settleMs, ...told } = doubt;
    const write: DoubtfulWrite = { id: randomUUID(), ...told, atMs, settlesAtMs: atMs + settleMs };
    const noted = this.#redis
      .pipeline()
      .zadd(keys.doubts, write.settlesAtMs, JSON.stringify(write))
      .zremrangebyrank(keys.doubts, 0, -writesKept - 1);
    await repliesOf(noted);
  }

  async unsettled(): Promise<DoubtfulWrite[]> {
    return (await this.#after(await redisNowMs(this.#redis))).map(({ write }) => write);
  }

  async of(partition: string): Promise<DoubtfulWrite[]> {
    return (await this.#after(0)).map(({ write }) => write).filter((write) => write.partition === partition);
  }

  async resolve(partition: string, by: string, reason: string): Promise<DoubtfulWrite[]> {
    const nowMs = await redisNowMs(this.#redis);
    const pipeline = this.#redis.multi();
    const resolved: DoubtfulWrite[] = [];
    for (const { text, write } of await this.#after(nowMs)) {
      if (write.partition !== partition) continue;
      const looked = { ...write, resolved: { by, reason, atMs: nowMs } };
      pipeline.zrem(keys.doubts, text);
      pipeline.zadd(keys.doubts, nowMs, JSON.stringify(looked));
      resolved.push(looked);
    }
    await repliesOf(pipeline);
    return resolved;
  }

  /** Answers how many there were. */
  async forgetSettled(partition: string): Promise<number> {
    const nowMs = await redisNowMs(this.#redis);
    const settled = (await this.#after(0)).filter(
      ({ write }) =>
        write.partition === partition && (write.resolved !== undefined || write.settlesAtMs <= nowMs),
    );
    if (settled.length > 0) await this.#redis.zrem(keys.doubts, ...settled.map(({ text }) => text));
    return settled.length;
  }

  async #after(fromMs: number): Promise<{ readonly text: string; readonly write: DoubtfulWrite }[]> {
    const found = await this.#redis.zrangebyscore(keys.doubts, `(${fromMs}`, '+inf');
    return found.map((text) => ({ text, write: writeSchema.parse(JSON.parse(text)) }));
  }
}
