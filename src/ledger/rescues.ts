/**
 * Rescue views: what the processes that know better put beside a ledger that lost data, each its own view, for
 * an operator to restore from. They expire after a day.
 */
import type { Redis } from 'ioredis';
import { inBatches } from '../batches.ts';
import { keyPrefix, repliesOf } from './connection.ts';
import { documentLines, type LedgerDocument, parseDocument, partitionEntries } from './document.ts';
import type { Holding } from './holding.ts';

const expireMs = 86_400_000;
/** Entries in one command: Redis serves others between two. */
const linesAtOnce = 1_000;
const index = `${keyPrefix}:rescues`;

export class Rescues {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** Appears whole or not at all. */
  async publish(by: string, { confirmed, position, partitions, rules }: Holding): Promise<void> {
    const head = { kind: 'rescue-view', by, atMs: Date.now(), position, confirmed, rules } as const;
    const key = rescueKey(by);
    const beside = `${key}:part`;
    await this.#redis.del(beside);
    const lines = documentLines(head, partitionEntries(partitions));
    for (const batch of inBatches(lines, linesAtOnce)) await this.#redis.rpush(beside, ...batch);
    const published = this.#redis
      .multi()
      .pexpire(beside, expireMs)
      .rename(beside, key)
      .zadd(index, Date.now() + expireMs, by)
      .pexpire(index, expireMs);
    await repliesOf(published);
  }

  /** Throws where one of them cannot be read: a restore without it could take an older owner. */
  async all(): Promise<ReadonlyMap<string, LedgerDocument>> {
    const found = new Map<string, LedgerDocument>();
    for (const by of await this.#redis.zrange(index, 0, -1)) {
      const lines = await this.#lines(rescueKey(by));
      if (lines.length > 0) found.set(by, parseDocument(lines));
    }
    return found;
  }

  /** After a restore, so that the next one does not take them for news. */
  async clear(): Promise<void> {
    for (const by of await this.#redis.zrange(index, 0, -1)) await this.#redis.unlink(rescueKey(by));
    await this.#redis.unlink(index);
  }

  async #lines(key: string): Promise<string[]> {
    const lines: string[] = [];
    for (let at = 0; ; at += linesAtOnce) {
      const some = await this.#redis.lrange(key, at, at + linesAtOnce - 1);
      lines.push(...some);
      if (some.length < linesAtOnce) return lines;
    }
  }
}

function rescueKey(by: string): string {
  return `${keyPrefix}:rescue:${by}`;
}
