/**
 * What the old owner held of a partition when it was handed over: a hash for each record, taken under the fence from
 * the pass that proved the copy. Nothing is copied there afterwards, so whatever differs from it later was changed by
 * somebody else.
 */
import { promisify } from 'node:util';
import { deflateRaw, inflateRaw } from 'node:zlib';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { StoreName } from '../core/ownership.ts';
import type { StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { keyPrefix, repliesOf } from '../ledger/connection.ts';
import { matchedAlready, wantedCopy } from './apply.ts';
import { digestOf } from './digest.ts';

/** By kind, then by id. */
export type Snapshot = Map<string, Map<string, string>>;

const pack = promisify(deflateRaw);
const unpack = promisify(inflateRaw);
const packedSchema = z.record(z.string(), z.array(z.tuple([z.string(), z.string()])));
/** 66 bits: enough that a change is not missed by chance. */
const digestLength = 11;
const partitionsAtOnce = 200;

function keyOf(store: StoreName): string {
  return `${keyPrefix}:sync:snapshot:${store}`;
}

/** Undefined where the record counts as absent from the partition. */
export function snapshotDigest(
  record: StoreRecord | undefined,
  partition: string,
  { from, to }: { readonly from: StoreReader; readonly to: StoreReader },
): string | undefined {
  const form = wantedCopy(record, partition, from, to);
  if (form === undefined) return undefined;
  const matched = matchedAlready(to.shape(form.kind));
  const names = Object.keys(form.fields).filter((name) => !matched.has(name));
  return digestOf(form.fields, names).slice(0, digestLength);
}

export function snapshotOf(
  records: Iterable<StoreRecord>,
  partition: string,
  sides: { readonly from: StoreReader; readonly to: StoreReader },
): Snapshot {
  const snapshot: Snapshot = new Map();
  for (const record of records) {
    const digest = snapshotDigest(record, partition, sides);
    if (digest !== undefined) ofKind(snapshot, record.kind).set(record.id, digest);
  }
  return snapshot;
}

export function ofKind(snapshot: Snapshot, kind: string): Map<string, string> {
  const known = snapshot.get(kind) ?? new Map<string, string>();
  snapshot.set(kind, known);
  return known;
}

export class Snapshots {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async save(store: StoreName, partition: string, snapshot: Snapshot): Promise<void> {
    const kinds = [...snapshot].map(([kind, records]) => [kind, [...records]] as const);
    const packed = await pack(JSON.stringify(Object.fromEntries(kinds)));
    await this.#redis.hset(keyOf(store), partition, packed);
  }

  /** Of those that have one. */
  async load(store: StoreName, partitions: readonly string[]): Promise<Map<string, Snapshot>> {
    const found = new Map<string, Snapshot>();
    for (const batch of inBatches(partitions, partitionsAtOnce)) {
      const all = await this.#redis.hmgetBuffer(keyOf(store), ...batch);
      for (const [at, packed] of all.entries()) {
        if (packed === null) continue;
        const kinds = packedSchema.parse(JSON.parse((await unpack(packed)).toString()));
        found.set(
          batch[at] ?? '',
          new Map(Object.entries(kinds).map(([kind, entries]) => [kind, new Map(entries)])),
        );
      }
    }
    return found;
  }

  async remove(store: StoreName, partition: string): Promise<void> {
    await this.#redis.hdel(keyOf(store), partition);
  }

  /** Bytes of each as it is kept, in order; 0 where there is none. */
  async sizes(store: StoreName, partitions: readonly string[]): Promise<readonly number[]> {
    const sizes: number[] = [];
    for (const batch of inBatches(partitions, partitionsAtOnce)) {
      const pipeline = this.#redis.pipeline();
      for (const partition of batch) pipeline.hstrlen(keyOf(store), partition);
      sizes.push(...(await repliesOf(pipeline)).map(Number));
    }
    return sizes;
  }

  /** From now on the record is as it should be with this content, or absent. */
  async accept(
    store: StoreName,
    { partition, kind, id }: { readonly partition: string; readonly kind: string; readonly id: string },
    digest: string | undefined,
  ): Promise<void> {
    const snapshot = (await this.load(store, [partition])).get(partition);
    if (snapshot === undefined) return;
    if (digest === undefined) ofKind(snapshot, kind).delete(id);
    else ofKind(snapshot, kind).set(id, digest);
    await this.save(store, partition, snapshot);
  }
}
