/** Which partitions are frozen in a store, or may be: noted before the first call, so that nobody stays frozen unseen. */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { keyPrefix } from '../ledger/connection.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';

const bookKey = `${keyPrefix}:freezes`;
/** Those of which somebody must look whether they are as they should be. */
const openKey = `${keyPrefix}:freezes:open`;
/** Parts store and partition; no name holds a control character. */
const between = '\n';
const scanCount = 500;

const noteSchema = z.object({ thawed: z.boolean(), unsureUntilMs: z.number() });

export interface FreezeNote {
  /** The right was given back since. */
  readonly thawed: boolean;
  /** Until then a call whose outcome nobody knows may take effect, Redis clock; 0: there is none. */
  readonly unsureUntilMs: number;
}

export interface Frozen {
  readonly store: StoreName;
  readonly partition: string;
}

export class FreezeBook {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async read(frozen: Frozen): Promise<FreezeNote | undefined> {
    const text = await this.#redis.hget(bookKey, nameOf(frozen));
    return text === null ? undefined : noteSchema.parse(JSON.parse(text));
  }

  /** Somebody looks at it again, too. */
  async note(frozen: Frozen, note: FreezeNote): Promise<void> {
    const name = nameOf(frozen);
    const pipeline = this.#redis.multi().sadd(openKey, name).hset(bookKey, name, JSON.stringify(note));
    for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
  }

  /** It is as it should be, until the partition moves again. */
  async settle(frozen: Frozen): Promise<void> {
    await this.#redis.srem(openKey, nameOf(frozen));
  }

  async forget(frozen: Frozen): Promise<number> {
    const name = nameOf(frozen);
    await this.#redis.srem(openKey, name);
    return this.#redis.hdel(bookKey, name);
  }

  async open(): Promise<readonly Frozen[]> {
    return (await this.#redis.smembers(openKey)).map(frozenIn);
  }

  /** All of them, a few hundred at a time. */
  async *all(): AsyncGenerator<readonly Frozen[]> {
    let cursor = '0';
    do {
      const [next, flat] = await this.#redis.hscan(bookKey, cursor, 'COUNT', scanCount);
      cursor = next;
      yield flat.filter((_, at) => at % 2 === 0).map(frozenIn);
    } while (cursor !== '0');
  }

  async ofPartition(partition: string): Promise<readonly Frozen[]> {
    const asked = storeNames.map((store) => ({ store, partition }));
    const there = await Promise.all(asked.map((one) => this.#redis.hexists(bookKey, nameOf(one))));
    return asked.filter((_, at) => there[at] === 1);
  }
}

function nameOf({ store, partition }: Frozen): string {
  return `${store}${between}${partition}`;
}

function frozenIn(name: string): Frozen {
  const [store, partition = ''] = name.split(between);
  return { store: store === 'app' ? 'app' : 'legacy', partition };
}
