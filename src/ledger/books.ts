/** What the ledger keeps beside ownership: the registry of known partitions, cohorts and plans. */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { Attributes, CohortSelection, KnownPartition } from '../core/cohort.ts';
import type { Completeness, Registry } from '../core/ports.ts';
import { keys, luaSource, redisNowMs, repliesOf } from './connection.ts';
import { attributesSchema } from './records.ts';

const completeSchema = z.object({ by: z.string(), atMs: z.number() });
const gapSchema = z.object({ member: z.string(), atMs: z.number() });
const scanCount = 1_000;

export class RedisRegistry implements Registry {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async all(): Promise<KnownPartition[]> {
    const known = new Map<string, Attributes>();
    let cursor = '0';
    do {
      const [next, flat] = await this.#redis.hscan(keys.registry, cursor, 'COUNT', scanCount);
      cursor = next;
      for (let at = 0; at + 1 < flat.length; at += 2) {
        known.set(flat[at] ?? '', attributesSchema.parse(JSON.parse(flat[at + 1] ?? '{}')));
      }
    } while (cursor !== '0');
    return [...known].map(([partition, attributes]) => ({ partition, attributes }));
  }

  count(): Promise<number> {
    return this.#redis.hlen(keys.registry);
  }

  async knows(partition: string): Promise<boolean> {
    return (await this.#redis.hexists(keys.registry, partition)) === 1;
  }

  async note(
    partitions: Iterable<{ readonly partition: string; readonly attributes?: Attributes }>,
  ): Promise<void> {
    const all = [...partitions];
    const described = all.filter(({ attributes }) => attributes !== undefined);
    const before = await this.#attributesOf(described.map(({ partition }) => partition));
    const pipeline = this.#redis.pipeline();
    for (const { partition, attributes } of all) {
      if (attributes === undefined) pipeline.hsetnx(keys.registry, partition, '{}');
      else {
        // Of two entries for one partition in one call, the later one adds to the earlier.
        const now = { ...before.get(partition), ...attributes };
        before.set(partition, now);
        pipeline.hset(keys.registry, partition, JSON.stringify(now));
      }
    }
    if (pipeline.length === 0) return;
    await repliesOf(pipeline);
  }

  async attributesOf(partition: string): Promise<Attributes> {
    return (await this.#attributesOf([partition])).get(partition) ?? {};
  }

  /** The name stays: who is not named could be taken for new. */
  async forgetAttributes(partition: string): Promise<void> {
    if (await this.knows(partition)) await this.#redis.hset(keys.registry, partition, '{}');
  }

  async #attributesOf(partitions: readonly string[]): Promise<Map<string, Attributes>> {
    const found = new Map<string, Attributes>();
    for (const group of inBatches(partitions, scanCount)) {
      const texts = await this.#redis.hmget(keys.registry, ...group);
      for (const [index, partition] of group.entries()) {
        found.set(partition, attributesSchema.parse(JSON.parse(texts[index] ?? '{}')));
      }
    }
    return found;
  }

  async completeness(): Promise<Completeness> {
    const [complete, gap] = await this.#redis.hmget(keys.meta, 'registryComplete', 'registryGap');
    if (typeof complete === 'string')
      return { complete: true, ...completeSchema.parse(JSON.parse(complete)) };
    if (typeof gap !== 'string') return { complete: false };
    return { complete: false, lost: gapSchema.parse(JSON.parse(gap)) };
  }

  async declareComplete(by: string): Promise<void> {
    const declared = JSON.stringify({ by, atMs: await redisNowMs(this.#redis) });
    await this.#redis.hset(keys.meta, 'registryComplete', declared);
    await this.#redis.hdel(keys.meta, 'registryGap');
  }
}

/** JSON documents by name under one hash. With `kept`, only as many; those put longest ago are dropped. */
export class Book<Entry> {
  readonly #redis: Redis;
  readonly #key: string;
  readonly #kept: number;

  constructor(redis: Redis, name: 'plans' | 'cohorts', kept = Number.POSITIVE_INFINITY) {
    this.#redis = redis;
    this.#key = keys[name];
    this.#kept = kept;
  }

  async get(name: string): Promise<Entry | undefined> {
    const text = await this.#redis.hget(this.#key, name);
    return text === null ? undefined : (JSON.parse(text) as Entry);
  }

  async put(name: string, entry: Entry): Promise<void> {
    const text = JSON.stringify(entry);
    if (this.#kept === Number.POSITIVE_INFINITY) await this.#redis.hset(this.#key, name, text);
    else
      await this.#redis.eval(
        luaSource('book-put'),
        2,
        this.#key,
        `${this.#key}:order`,
        name,
        text,
        this.#kept,
      );
  }

  async all(): Promise<Entry[]> {
    return (await this.#redis.hvals(this.#key)).map((text) => JSON.parse(text) as Entry);
  }
}

export interface StoredCohort {
  readonly name: string;
  readonly selection: CohortSelection;
  readonly by: string;
  readonly reason: string;
}
