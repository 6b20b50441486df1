/**
 * Which fields the records of an owner have, so that a field which one of them has no more can be told from one that
 * belongs to the copy alone; and which values the copy's store puts there by itself where the owner has none. Learned
 * from everything that is read and written, and shared through Redis; what is lost there is learned again.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { StoreName } from '../core/ownership.ts';
import type {
  FieldKnowledge,
  KindCapabilities,
  ListScope,
  Page,
  StoreReader,
  TargetShape,
} from '../core/ports.ts';
import {
  type CopyForm,
  type Fields,
  type Json,
  sameValue,
  type StoreRecord,
  valueOf,
} from '../core/records.ts';
import { knownFieldsKey } from './keys.ts';

/** Fields of one kind that are remembered, and own values of one field: with more, any value is taken for its own. */
const fieldsMax = 500;
const valuesMax = 10;
const freshMs = 1_000;

/** What the other store puts into a field by itself. */
class OwnValues {
  readonly values: Json[] = [];

  has(value: Json): boolean {
    return this.isAny || this.values.some((own) => sameValue(own, value));
  }

  get isAny(): boolean {
    return this.values.length > valuesMax;
  }
}

const nameSchema = z.tuple([z.string(), z.string()]);
const valuesSchema = z.array(z.json());

export class KnownFields implements FieldKnowledge {
  readonly #redis: Redis;
  readonly #owner: StoreName;
  readonly #kinds = new Map<string, Map<string, OwnValues>>();
  #unsaved: [kind: string, field: string][] = [];
  #readAtMs = Number.NEGATIVE_INFINITY;

  constructor(redis: Redis, owner: StoreName) {
    this.#redis = redis;
    this.#owner = owner;
  }

  /** Takes over what other processes have learned; never rejects. */
  async refresh(): Promise<void> {
    const nowMs = performance.now();
    if (nowMs < this.#readAtMs + freshMs && this.#unsaved.length === 0) return;
    this.#readAtMs = nowMs;
    const fresh = this.#unsaved;
    this.#unsaved = [];
    try {
      const key = knownFieldsKey(this.#owner);
      for (const name of fresh) await this.#redis.hsetnx(key, JSON.stringify(name), '[]');
      for (const [name, text] of Object.entries(await this.#redis.hgetall(key))) {
        const [kind, field] = nameSchema.parse(JSON.parse(name));
        const own = this.#own(kind, field);
        for (const value of valuesSchema.parse(JSON.parse(text)))
          if (own?.has(value) === false) own.values.push(value);
      }
    } catch {
      // Whatever else needs Redis says so.
      this.#unsaved.push(...fresh);
    }
  }

  /** The form, with what it lacks. */
  complete(form: CopyForm, target: TargetShape): CopyForm {
    const { kind, fields } = form;
    for (const [field, value] of Object.entries(fields)) {
      const isMatched = field === target.id || field === target.partition;
      if (value === null || isMatched || this.#kinds.get(kind)?.has(field) === true) continue;
      if (this.#own(kind, field) !== undefined) this.#unsaved.push([kind, field]);
    }
    const lacks = [...(this.#kinds.get(kind) ?? [])]
      .filter(([field]) => (valueOf(fields, field) ?? null) === null)
      .map(([field, own]) => ({ field, isOwn: (value: Json) => own.has(value) }));
    return lacks.length === 0 ? form : { ...form, lacks };
  }

  withoutOwn(kind: string, fields: Fields, given: ReadonlySet<string>): Fields {
    const known = this.#kinds.get(kind);
    const kept = Object.entries(fields).filter(
      ([field, value]) => given.has(field) || known?.get(field)?.has(value) !== true,
    );
    return Object.fromEntries(kept);
  }

  async learnOwn(kind: string, field: string, value: Json): Promise<boolean> {
    const own = this.#own(kind, field);
    if (own === undefined || own.has(value)) return false;
    own.values.push(value);
    const isTheLast = own.values.length === valuesMax + 1;
    await this.#redis.hset(
      knownFieldsKey(this.#owner),
      JSON.stringify([kind, field]),
      JSON.stringify(own.values),
    );
    return isTheLast;
  }

  /** Undefined where too many are known already. */
  #own(kind: string, field: string): OwnValues | undefined {
    const ofKind = this.#kinds.get(kind) ?? new Map<string, OwnValues>();
    this.#kinds.set(kind, ofKind);
    const known = ofKind.get(field);
    if (known !== undefined || ofKind.size >= fieldsMax) return known;
    const own = new OwnValues();
    ofKind.set(field, own);
    return own;
  }
}

/** Reads as the other one does, and says of every copy what it lacks. */
export class CompletingReader implements StoreReader {
  readonly store: StoreName;
  readonly capabilities: readonly KindCapabilities[];
  readonly feedDelayMs: number;
  readonly shape: StoreReader['shape'];
  readonly fields: KnownFields;
  readonly #reader: StoreReader;

  constructor(reader: StoreReader, fields: KnownFields) {
    this.store = reader.store;
    this.capabilities = reader.capabilities;
    this.feedDelayMs = reader.feedDelayMs;
    this.shape = reader.shape;
    this.fields = fields;
    this.#reader = reader;
  }

  async *pages(kind: string, scope: ListScope, signal: AbortSignal): AsyncGenerator<Page> {
    for await (const page of this.#reader.pages(kind, scope, signal)) {
      await this.fields.refresh();
      yield page;
    }
  }

  async get(...[kind, key, signal]: Parameters<StoreReader['get']>): Promise<StoreRecord | undefined> {
    await this.fields.refresh();
    return this.#reader.get(kind, key, signal);
  }

  toCopy(record: StoreRecord, target: TargetShape): CopyForm {
    return this.fields.complete(this.#reader.toCopy(record, target), target);
  }

  probe(signal: AbortSignal): Promise<void> {
    return this.#reader.probe(signal);
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}
