/**
 * Verifications in Redis, so that another process goes on where one stopped. Only the process that holds the lease
 * of a verification saves what it found.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { Verification } from '../core/verification.ts';
import { keyPrefix, repliesOf } from '../ledger/connection.ts';
import type { Step } from './verify-range.ts';

export interface StoredVerification {
  readonly seen: Verification;
  /** Undefined until the first process has planned it. */
  readonly steps?: readonly Step[] | undefined;
  /** Some kinds are read over all partitions, so none is done before the end. */
  readonly whole?: boolean | undefined;
  readonly failed?: boolean | undefined;
  readonly repair: boolean;
  readonly values: boolean;
}

const kept = 100;
const namesAtOnce = 500;
const leaseMs = 15_000;
const storedSchema = z.custom<StoredVerification>(
  (value) => z.looseObject({ seen: z.looseObject({ id: z.string() }) }).safeParse(value).success,
);

const documents = `${keyPrefix}:verifications`;
const keyOf = (id: string, part: 'lease' | 'names' | 'differing'): string => `${documents}:${id}:${part}`;

// KEYS: 1 lease, 2 documents. ARGV: 1 holder, 2 lease ms, 3 id, 4 document. 0: somebody else holds it, or it was cancelled.
// KEYS: 1 lease, 2 set. ARGV: 1 holder, then names. One that was cancelled meanwhile leaves nothing behind.
const differScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SADD', KEYS[2], unpack(ARGV, 2)) end
return 0`;

const saveScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], ARGV[3], ARGV[4]) end
return 1`;

// KEYS: 1 lease. ARGV: 1 holder.
const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`;

// KEYS: 1 lease, 2 documents. ARGV: 1 id, 2 document before, 3 document after. 0: it has changed since.
const endScript = `
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1`;

export class VerificationBook {
  readonly #redis: Redis;
  readonly #holder = randomUUID();

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async add(verification: StoredVerification, names: readonly string[]): Promise<void> {
    const { id } = verification.seen;
    for (const batch of inBatches(names, namesAtOnce)) {
      await this.#redis.rpush(keyOf(id, 'names'), JSON.stringify(batch));
    }
    await this.#redis.hset(documents, id, JSON.stringify(verification));
    await this.#forgetOldest();
  }

  async get(id: string): Promise<StoredVerification | undefined> {
    const text = await this.#redis.hget(documents, id);
    return text === null ? undefined : storedSchema.parse(JSON.parse(text));
  }

  /** Newest first. */
  async all(): Promise<readonly StoredVerification[]> {
    return (await this.#redis.hvals(documents))
      .map((text) => storedSchema.parse(JSON.parse(text)))
      .toSorted((left, right) => right.seen.startedAtMs - left.seen.startedAtMs);
  }

  async names(id: string): Promise<readonly string[]> {
    const batches = await this.#redis.lrange(keyOf(id, 'names'), 0, -1);
    return batches.flatMap((text) => z.array(z.string()).parse(JSON.parse(text)));
  }

  /** False while another process works on it. */
  async take(id: string): Promise<boolean> {
    return (await this.#redis.set(keyOf(id, 'lease'), this.#holder, 'PX', leaseMs, 'NX')) === 'OK';
  }

  /** False where it is not ours any more: then nothing was saved. Without a document only the lease is renewed. */
  async save(id: string, verification?: StoredVerification): Promise<boolean> {
    const document = verification === undefined ? '' : JSON.stringify(verification);
    const keys = [keyOf(id, 'lease'), documents];
    return (await this.#redis.eval(saveScript, 2, ...keys, this.#holder, leaseMs, id, document)) === 1;
  }

  async release(id: string): Promise<void> {
    await this.#redis.eval(releaseScript, 1, keyOf(id, 'lease'), this.#holder);
  }

  /** Takes it from whoever works on it; `change` gives what it is then, or undefined to leave it. */
  async end(
    id: string,
    change: (found: StoredVerification) => StoredVerification | undefined,
  ): Promise<StoredVerification | undefined> {
    for (;;) {
      const before = await this.#redis.hget(documents, id);
      if (before === null) return undefined;
      const found = storedSchema.parse(JSON.parse(before));
      const after = change(found);
      if (after === undefined) return found;
      const keys = [keyOf(id, 'lease'), documents];
      const done = await this.#redis.eval(endScript, 2, ...keys, id, before, JSON.stringify(after));
      if (done === 1) {
        await this.forgetWork(id);
        return after;
      }
    }
  }

  /** Partitions that differ, each once; returns how many there are. */
  async differing(id: string, partitions: Iterable<string>): Promise<number> {
    const key = keyOf(id, 'differing');
    for (const batch of inBatches(partitions, namesAtOnce)) {
      await this.#redis.eval(differScript, 2, keyOf(id, 'lease'), key, this.#holder, ...batch);
    }
    return this.#redis.scard(key);
  }

  /** How many reports show the partition. */
  async showing(partition: string): Promise<number> {
    return (await this.all()).filter(({ seen }) => showsPartition(seen, partition)).length;
  }

  /** Takes out of all reports what they show of the partition; one that still runs is cancelled: it would save it again. */
  async forget(partition: string, isOurs: (record: string) => boolean = () => true): Promise<void> {
    for (const {
      seen: { id },
    } of await this.all()) {
      await this.#redis.srem(keyOf(id, 'differing'), partition);
      await this.end(id, ({ seen, ...rest }) => {
        const isOther = (one: { readonly partition: string; readonly id?: string }): boolean =>
          one.partition !== partition || (one.id !== undefined && !isOurs(one.id));
        if ([...seen.differences.examples, ...seen.problems].every(isOther)) return undefined;
        const { differences, problems } = seen;
        const without: Verification = {
          ...seen,
          ...(seen.state === 'running' ? { state: 'cancelled', endedAtMs: Date.now() } : {}),
          differences: { ...differences, examples: differences.examples.filter(isOther) },
          problems: problems.filter(isOther),
        };
        return { ...rest, seen: without };
      });
    }
  }

  /** Of one that has ended: only its report stays. */
  async forgetWork(id: string): Promise<void> {
    await this.#redis.del(keyOf(id, 'names'), keyOf(id, 'differing'), keyOf(id, 'lease'));
  }

  async #forgetOldest(): Promise<void> {
    const ended = (await this.all()).filter(({ seen }) => seen.state !== 'running');
    const pipeline = this.#redis.pipeline();
    for (const { seen } of ended.slice(kept)) pipeline.hdel(documents, seen.id);
    await repliesOf(pipeline);
  }
}

function showsPartition({ differences, problems }: Verification, partition: string): boolean {
  return [...differences.examples, ...problems].some((one) => one.partition === partition);
}
