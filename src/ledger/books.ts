/** What the ledger keeps beside ownership: the registry of known partitions, cohorts, plans and flips. */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { Attributes, CohortSelection, KnownPartition } from '../core/cohort.ts';
import type { Registry } from '../core/ports.ts';
import { keys } from './connection.ts';

const attributesSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));
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

  async note(
    partitions: Iterable<{ readonly partition: string; readonly attributes?: Attributes }>,
  ): Promise<void> {
    const pipeline = this.#redis.pipeline();
    for (const { partition, attributes } of partitions) {
      if (attributes === undefined) {
        pipeline.hsetnx(keys.registry, partition, '{}');
        continue;
      }
      const known = attributesSchema.parse(
        JSON.parse((await this.#redis.hget(keys.registry, partition)) ?? '{}'),
      );
      pipeline.hset(keys.registry, partition, JSON.stringify({ ...known, ...attributes }));
    }
    if (pipeline.length === 0) return;
    const results = (await pipeline.exec()) ?? [];
    for (const [error] of results) if (error) throw error;
  }
}

/** JSON documents by name under one hash. */
export class Book<Entry> {
  readonly #redis: Redis;
  readonly #key: string;

  constructor(redis: Redis, name: 'plans' | 'flips' | 'cohorts') {
    this.#redis = redis;
    this.#key = keys[name];
  }

  async get(name: string): Promise<Entry | undefined> {
    const text = await this.#redis.hget(this.#key, name);
    return text === null ? undefined : (JSON.parse(text) as Entry);
  }

  async put(name: string, entry: Entry): Promise<void> {
    await this.#redis.hset(this.#key, name, JSON.stringify(entry));
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
