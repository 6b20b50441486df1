/**
 * What the old owner held of a partition when it was handed over: a hash for each record, taken under the fence from
 * the pass that proved the copy; and what copies back have made of it since. Whatever differs from both was changed by
 * somebody else.
 */
import { randomUUID } from 'node:crypto';
import { promisify } from 'node:util';
import { deflateRaw, inflateRaw } from 'node:zlib';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { StoreName } from '../core/ownership.ts';
import type { RecordKey, StoreReader } from '../core/ports.ts';
import type { CopyForm, StoreRecord } from '../core/records.ts';
import { keyPrefix, repliesOf } from '../ledger/connection.ts';
import { comparableCopy, matchedAlready, wantedCopy } from './copy-form.ts';
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

/** By record, what a copy back has left there. */
function copiedKeyOf(store: StoreName, partition: string): string {
  return `${keyPrefix}:sync:copied-back:${store}:${partition}`;
}

export interface CopiedBack {
  /** Undefined where the record is gone. */
  readonly digest: string | undefined;
  /** False while a copy is on its way, and after one whose outcome nobody knows. */
  readonly certain: boolean;
  /** What that copy writes; it may have arrived. Absent where that is not known. */
  readonly sent?: SentBack;
}

/** Of what was sent: the digest of these fields alone, because a store adds some of its own. Undefined: a removal. */
export interface SentBack {
  readonly digest: string | undefined;
  readonly names: readonly string[];
}

const memoryKey = `${keyPrefix}:sync:snapshot-memory`;
// KEYS: memoryKey. ARGV: its name, if it has none.
const memoryScript = `
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])`;
// KEYS: snapshots, memoryKey. ARGV: partition, snapshot, the name of the memory.
const saveFirstScript = `
if redis.call('GET', KEYS[2]) == ARGV[3] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1`;

async function packed(snapshot: Snapshot): Promise<Buffer> {
  const kinds = [...snapshot].map(([kind, records]) => [kind, [...records]] as const);
  return pack(JSON.stringify(Object.fromEntries(kinds)));
}

const certainMark = '=';
const uncertainMark = '?';

const sentSchema = z.tuple([z.string(), z.string(), z.array(z.string())]);

function parseCopied(text: string): CopiedBack {
  if (text.startsWith(certainMark)) return { digest: text.slice(1) || undefined, certain: true };
  // As it was written before it was noted what was sent.
  if (!text.startsWith('[', 1)) return { digest: text.slice(1) || undefined, certain: false };
  const [digest, sent, names] = sentSchema.parse(JSON.parse(text.slice(1)));
  return { digest: digest || undefined, certain: false, sent: { digest: sent || undefined, names } };
}

/** The store that partitions have left, and that of their owner now. */
export interface Sides {
  readonly left: StoreReader;
  readonly owner: StoreReader;
}

/** What the store that was left holds; undefined where the record counts as absent from the partition. */
export function snapshotDigest(
  record: StoreRecord | undefined,
  partition: string,
  { left, owner }: Sides,
): string | undefined {
  const form = wantedCopy(record, partition, left, owner);
  if (form === undefined) return undefined;
  const matched = matchedAlready(owner.shape(form.kind));
  const names = Object.keys(form.fields).filter((name) => !matched.has(name));
  return digestOf(form.fields, names).slice(0, digestLength);
}

/** What a copy back writes, in the shape of the store that it goes to; undefined: a removal. */
export function sentBack(form: CopyForm | undefined, store: StoreReader): SentBack {
  if (form === undefined) return { digest: undefined, names: [] };
  const matched = matchedAlready(store.shape(form.kind));
  const lacks = (form.lacks ?? []).map(({ field }) => field);
  const names = [...Object.keys(form.fields), ...lacks].filter((name) => !matched.has(name));
  return { digest: digestOf(form.fields, names).slice(0, digestLength), names };
}

/** Does the store hold what a copy back has written? */
export function isAsSent(
  sent: SentBack,
  record: StoreRecord | undefined,
  partition: string,
  { left, owner }: Sides,
): boolean {
  const isThere = record !== undefined && !record.deleted && record.partition === partition;
  if (!isThere || sent.digest === undefined) return !isThere && sent.digest === undefined;
  const { fields } = comparableCopy(record, owner, left);
  return digestOf(fields, sent.names).slice(0, digestLength) === sent.digest;
}

export function snapshotOf(records: Iterable<StoreRecord>, partition: string, sides: Sides): Snapshot {
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

  /** What was copied back before belongs to an earlier stay. */
  async save(store: StoreName, partition: string, snapshot: Snapshot): Promise<void> {
    await this.#redis.hset(keyOf(store), partition, await packed(snapshot));
    await this.#redis.del(copiedKeyOf(store, partition));
  }

  /**
   * A name for what Redis remembers now. Where it is another one later, copies back that were known then may be
   * forgotten, and nothing that was read in between can be judged.
   */
  async memory(): Promise<string> {
    return z.string().parse(await this.#redis.eval(memoryScript, 1, memoryKey, randomUUID()));
  }

  /**
   * Of partitions that have none; what was copied back meanwhile stays known. Saves nothing where `memory`, from before
   * the store was read, is lost.
   */
  async saveFirst(store: StoreName, snapshots: ReadonlyMap<string, Snapshot>, memory: string): Promise<void> {
    for (const [partition, snapshot] of snapshots) {
      const keys = [keyOf(store), memoryKey];
      await this.#redis.eval(saveFirstScript, 2, ...keys, partition, await packed(snapshot), memory);
    }
  }

  /** Of those that have one. */
  async load(store: StoreName, partitions: readonly string[]): Promise<Map<string, Snapshot>> {
    const found = new Map<string, Snapshot>();
    for (const batch of inBatches(partitions, partitionsAtOnce)) {
      const all = await this.#redis.hmgetBuffer(keyOf(store), ...batch);
      for (const [at, packed] of all.entries()) {
        if (packed === null) continue;
        const kinds = packedSchema.parse(JSON.parse((await unpack(packed)).toString()));
        const snapshot = new Map(Object.entries(kinds).map(([kind, entries]) => [kind, new Map(entries)]));
        found.set(batch[at] ?? '', snapshot);
      }
    }
    await this.#addCopied(store, found);
    return found;
  }

  async remove(store: StoreName, partition: string): Promise<void> {
    await Promise.all([
      this.#redis.hdel(keyOf(store), partition),
      this.#redis.del(copiedKeyOf(store, partition)),
    ]);
  }

  async #addCopied(store: StoreName, found: ReadonlyMap<string, Snapshot>): Promise<void> {
    for (const batch of inBatches([...found.keys()], partitionsAtOnce)) {
      const pipeline = this.#redis.pipeline();
      for (const partition of batch) pipeline.hgetall(copiedKeyOf(store, partition));
      const all = (await repliesOf(pipeline)) as Record<string, string>[];
      for (const [at, copied] of all.entries()) {
        const snapshot = found.get(batch[at] ?? '') ?? new Map();
        for (const [field, text] of Object.entries(copied)) {
          const [kind = '', id = ''] = JSON.parse(field) as string[];
          const { digest } = parseCopied(text);
          if (digest === undefined) ofKind(snapshot, kind).delete(id);
          else ofKind(snapshot, kind).set(id, digest);
        }
      }
    }
  }

  /** Undefined where no copy went back. */
  async copied(store: StoreName, key: RecordKey): Promise<CopiedBack | undefined> {
    const text = await this.#redis.hget(copiedKeyOf(store, key.partition), fieldOf(key));
    return text === null ? undefined : parseCopied(text);
  }

  /** A copy is about to be written over this content. */
  uncertain(store: StoreName, key: RecordKey, digest: string | undefined, sent: SentBack): Promise<unknown> {
    const text = JSON.stringify([digest ?? '', sent.digest ?? '', sent.names]);
    return this.#put(store, key, `${uncertainMark}${text}`);
  }

  /** From now on the record is as it should be with this content, or absent. */
  async note(store: StoreName, key: RecordKey, digest: string | undefined): Promise<void> {
    await this.#put(store, key, `${certainMark}${digest ?? ''}`);
  }

  #put(store: StoreName, key: RecordKey, text: string): Promise<unknown> {
    return this.#redis.hset(copiedKeyOf(store, key.partition), fieldOf(key), text);
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
}

function fieldOf({ kind, id }: RecordKey): string {
  return JSON.stringify([kind, id]);
}
