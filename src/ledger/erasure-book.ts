/**
 * Erasures in Redis, so that another process goes on where one stopped. Only the process that holds the lease of an
 * erasure saves how far it is. The partition's name and the ids of its records stand here only until it is done.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { ErasedRecord, Erasure, ErasurePlace, ErasureRecords } from '../core/erasure.ts';
import { storeNames } from '../core/ownership.ts';
import { keyPrefix } from './connection.ts';

export interface StoredErasure {
  readonly seen: Erasure;
  /** Absent once it is done. */
  readonly partition?: string | undefined;
  /** Of the last fence; it may still stand. */
  readonly attempt?: string | undefined;
  /** Found, and about to be forgotten. */
  readonly pending: readonly ErasurePlace[];
  /** Turns in a row that deleted nothing new. */
  readonly idleTurns: number;
  /** When to look again, Redis's clock. */
  readonly againAtMs?: number | undefined;
  /** For the receipt. */
  readonly warnings: readonly string[];
}

const endedKept = 10_000;
const leaseMs = 15_000;
const recordsAtOnce = 500;
const documents = `${keyPrefix}:erasures`;
/** Partitions of which an erasure is not done → its id. */
const open = `${documents}:open`;
const keyOf = (id: string, part: 'lease' | 'records'): string => `${documents}:${id}:${part}`;

const storedSchema = z.custom<StoredErasure>(
  (value) => z.looseObject({ seen: z.looseObject({ id: z.string() }) }).safeParse(value).success,
);
const recordSchema = z.tuple([z.enum(storeNames as ['legacy', 'app']), z.string(), z.string()]);

// KEYS: 1 documents, 2 open. ARGV: 1 id, 2 document, 3 partition. Returns the id of the one that is open.
const beginScript = `
local known = redis.call('HGET', KEYS[2], ARGV[3])
if known then return known end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[1]`;

// KEYS: 1 documents. ARGV: 1 id, 2 document before, 3 document after. 0: it has changed since.
const replaceScript = `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1`;

// KEYS: 1 lease, 2 documents, 3 open, 4 records. ARGV: 1 holder, 2 lease ms, 3 id, 4 document or '', 5 partition where
// it is done, else ''. 0: somebody else holds it.
const saveScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], ARGV[3], ARGV[4]) end
if ARGV[5] ~= '' then
  redis.call('HDEL', KEYS[3], ARGV[5])
  redis.call('DEL', KEYS[4])
end
return 1`;

// KEYS: 1 lease. ARGV: 1 holder.
const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`;

/** The same name has another hash in each erasure, so receipts cannot be joined by it. */
export function hashOfPartition(id: string, partition: string): string {
  return `sha256:${createHash('sha256').update(`${id}\n${partition}`).digest('hex')}`;
}

export class ErasureBook {
  readonly #redis: Redis;
  readonly #holder = randomUUID();

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** The erasure of this partition that is not done, or this one. */
  async begin(erasure: StoredErasure & { readonly partition: string }): Promise<StoredErasure> {
    const { id } = erasure.seen;
    const values = [id, JSON.stringify(erasure), erasure.partition];
    const known = String(await this.#redis.eval(beginScript, 2, documents, open, ...values));
    return known === id ? erasure : ((await this.get(known)) ?? erasure);
  }

  async get(id: string): Promise<StoredErasure | undefined> {
    const text = await this.#redis.hget(documents, id);
    return text === null ? undefined : storedSchema.parse(JSON.parse(text));
  }

  /** Newest first. */
  async all(): Promise<readonly StoredErasure[]> {
    const began = ({ seen }: StoredErasure): number => seen.orders[0]?.atMs ?? 0;
    return (await this.#redis.hvals(documents))
      .map((text) => storedSchema.parse(JSON.parse(text)))
      .toSorted((left, right) => began(right) - began(left));
  }

  /** Running, or failed and not gone on with. */
  async unfinished(): Promise<readonly Erasure[]> {
    const ids = await this.#redis.hvals(open);
    const found = await Promise.all(ids.map((id) => this.get(id)));
    return found.flatMap((one) => (one === undefined ? [] : [one.seen]));
  }

  /** Undefined from `change` leaves it as it is; answers what it is afterwards. */
  async change(
    id: string,
    change: (found: StoredErasure) => StoredErasure | undefined,
  ): Promise<StoredErasure | undefined> {
    for (;;) {
      const before = await this.#redis.hget(documents, id);
      if (before === null) return undefined;
      const found = storedSchema.parse(JSON.parse(before));
      const after = change(found);
      if (after === undefined) return found;
      const done = await this.#redis.eval(replaceScript, 1, documents, id, before, JSON.stringify(after));
      if (done === 1) return after;
    }
  }

  /** False while another process works on it. */
  async take(id: string): Promise<boolean> {
    return (await this.#redis.set(keyOf(id, 'lease'), this.#holder, 'PX', leaseMs, 'NX')) === 'OK';
  }

  /** False where it is not ours any more: then nothing was saved. */
  async save(id: string, erasure?: StoredErasure): Promise<boolean> {
    return this.#save(id, erasure === undefined ? '' : JSON.stringify(erasure), '');
  }

  /** Name and ids are gone with it; only the receipt stays. */
  async finish(erasure: StoredErasure): Promise<boolean> {
    const { partition = '', seen } = erasure;
    const { partition: _, attempt: __, ...kept } = erasure;
    const saved = await this.#save(seen.id, JSON.stringify({ ...kept, pending: [] }), partition);
    if (saved) await this.#forgetOldest();
    return saved;
  }

  async release(id: string): Promise<void> {
    await this.#redis.eval(releaseScript, 1, keyOf(id, 'lease'), this.#holder);
  }

  /** Answers how many were new. */
  async note(id: string, records: readonly ErasedRecord[]): Promise<number> {
    let fresh = 0;
    for (const batch of inBatches(records, recordsAtOnce)) {
      const texts = batch.map(({ store, kind, id: record }) => JSON.stringify([store, kind, record]));
      fresh += await this.#redis.sadd(keyOf(id, 'records'), ...texts);
    }
    return fresh;
  }

  async records(id: string): Promise<readonly ErasedRecord[]> {
    return (await this.#redis.smembers(keyOf(id, 'records'))).map((text) => {
      const [store, kind, record] = recordSchema.parse(JSON.parse(text));
      return { store, kind, id: record };
    });
  }

  async #save(id: string, document: string, partition: string): Promise<boolean> {
    const keys = [keyOf(id, 'lease'), documents, open, keyOf(id, 'records')];
    const values = [this.#holder, leaseMs, id, document, partition];
    return (await this.#redis.eval(saveScript, keys.length, ...keys, ...values)) === 1;
  }

  async #forgetOldest(): Promise<void> {
    if ((await this.#redis.hlen(documents)) <= endedKept) return;
    const done = (await this.all()).filter(({ seen }) => seen.state === 'done');
    const old = done.slice(endedKept).map(({ seen }) => seen.id);
    if (old.length > 0) await this.#redis.hdel(documents, ...old);
  }
}

export function countRecords(records: readonly Pick<ErasedRecord, 'store' | 'kind'>[]): ErasureRecords[] {
  const counts = new Map<string, ErasureRecords>();
  for (const { store, kind } of records) {
    const key = `${store}\n${kind}`;
    counts.set(key, { store, kind, records: (counts.get(key)?.records ?? 0) + 1 });
  }
  return [...counts.values()].toSorted((a, b) => (`${a.store} ${a.kind}` < `${b.store} ${b.kind}` ? -1 : 1));
}
