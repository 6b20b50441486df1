/**
 * A full pass over all partitions of one kind: both stores are read from end to end and compared by content
 * hash. It needs no memory of earlier passes, so it is what heals every loss.
 *
 * Hashes of so many records are kept at a time; a larger store is compared in slices of its partitions, and read
 * once for each. A partition is never cut: which fields the copy must have, all its records tell together.
 */
import { createHash } from 'node:crypto';
import type { ListScope, RecordKey, RecordProblem, StoreReader } from '../core/ports.ts';
import type { Fields, StoreRecord } from '../core/records.ts';
import { comparableCopy, matchedAlready, wantedCopy } from './copy-form.ts';
import { digestOf } from './digest.ts';
import { patientPages } from './patience.ts';
import { Wanted } from './wanted.ts';

export interface Survey {
  /** Of the owner. */
  readonly records: number;
  /** Of these, without a copy. */
  readonly missing: number;
  /** Records that the copy holds, of all partitions that were read. */
  readonly copies: number;
  /** Copies missing, different, or too much. */
  readonly different: number;
  readonly problems: readonly RecordProblem[];
  /** Owner's records without a version. */
  readonly unversioned: number;
  /** Given up, because so much is missing that a first copy does it better; `total`: where the owner says so. */
  readonly farBehind?: { readonly total: number | undefined };
}

/** Whose copy is missing, different or too much. */
export interface DifferentKey extends RecordKey {
  /** The owner's list shows it in this partition. */
  readonly listed: boolean;
  /** Fields that the owner's records of the partition have, where it has any. */
  readonly names: ReadonlySet<string>;
}

export interface SurveyHooks {
  /** Reads the lists of this partition only. */
  readonly partition?: string;
  /** Leaves out the records of other partitions. */
  readonly includes?: (partition: string) => boolean;
  /** Hears of every partition that a page showed, before the next page is read. */
  readonly onPartitions: (partitions: ReadonlySet<string>) => Promise<void>;
  /** Hears of the version of each of the owner's records, once for each reading of its list. */
  readonly onVersion?: ((version: string | undefined) => void) | undefined;
  /** Records whose copy is missing, different or too much. Only `get` can tell that one is gone. False: no more of them. */
  readonly onDifferent: (keys: readonly DifferentKey[]) => Promise<boolean>;
  /** More missing copies than these end the pass; absent where there is nothing better to do about them. */
  readonly missingMax?: number | undefined;
  /** Hashes kept at a time. */
  readonly keptMax?: number;
}

interface Sides {
  readonly owner: StoreReader;
  readonly copy: StoreReader;
}

/** About 60 MB. */
const keptMaxDefault = 500_000;
const keysAtOnce = 500;
const problemsMax = 100;

export async function surveyKind(
  kind: string,
  sides: Sides,
  hooks: SurveyHooks,
  signal: AbortSignal,
): Promise<Survey> {
  let slices = 1;
  for (;;) {
    const pass = new Pass(kind, sides, hooks, signal);
    for (let slice = 0; slice < slices; slice += 1) {
      const survey = await pass.slice(slice, slices);
      if (survey === 'too-many') break;
      if (survey !== 'compared') return survey;
      if (slice === slices - 1) return pass.survey();
    }
    slices *= 2;
  }
}

/** The share `slice` of `slices` of the partitions alone; `too-many`: it can and must be cut further. */
export function surveySlice(
  kind: string,
  sides: Sides,
  hooks: SurveyHooks,
  { slice, slices }: { readonly slice: number; readonly slices: number },
  signal: AbortSignal,
): Promise<Survey | 'too-many'> {
  return new Pass(kind, sides, hooks, signal).alone(slice, slices);
}

class Pass {
  readonly #kind: string;
  readonly #sides: Sides;
  readonly #hooks: SurveyHooks;
  readonly #signal: AbortSignal;
  readonly #problems: RecordProblem[] = [];
  readonly #shapes = new Shapes();
  #records = 0;
  #missing = 0;
  #copies = 0;
  #different = 0;
  #unversioned = 0;
  #waiting: DifferentKey[] = [];
  #full = false;

  constructor(kind: string, sides: Sides, hooks: SurveyHooks, signal: AbortSignal) {
    this.#kind = kind;
    this.#sides = sides;
    this.#hooks = hooks;
    this.#signal = signal;
  }

  survey(): Survey {
    return {
      ...{ records: this.#records, missing: this.#missing, different: this.#different },
      copies: this.#copies,
      problems: this.#problems,
      unversioned: this.#unversioned,
    };
  }

  async alone(slice: number, slices: number): Promise<Survey | 'too-many'> {
    const survey = await this.slice(slice, slices);
    return survey === 'compared' ? this.survey() : survey;
  }

  /** `too-many`: the slice holds more records than may be kept, and can be cut further. */
  async slice(slice: number, slices: number): Promise<'compared' | 'too-many' | Survey> {
    const { keptMax = keptMaxDefault, missingMax, onPartitions, onVersion } = this.#hooks;
    const inSlice = slicing(slice, slices);
    const { includes, partition: only } = this.#hooks;
    const isOurs = (partition: string): boolean => inSlice(partition) && (includes?.(partition) ?? true);
    const wanted = new Wanted();
    const names = new NamesByPartition();
    let peeked = false;
    for await (const page of patientPages(this.#sides.owner, this.#kind, scopeOf(only), this.#signal)) {
      for (const record of page.records) {
        onVersion?.(record.version);
        if (isOurs(record.partition)) {
          this.#expect(record, wanted, names);
          if (record.version === undefined) this.#unversioned += 1;
        }
      }
      if (slice === 0) this.#note(page.problems);
      await onPartitions(new Set(page.records.map(({ partition }) => partition)));
      // One pass through the owner's list is enough to find out that the copy has hardly begun.
      if (missingMax !== undefined && !peeked && wanted.size > 2 * missingMax) {
        peeked = true;
        if (!(await this.#copyHolds(missingMax))) {
          return { ...this.survey(), records: wanted.size, farBehind: { total: page.total } };
        }
      }
      if (wanted.size > keptMax && names.partitions > 1) return 'too-many';
    }
    this.#records += wanted.size;
    return this.#compare(wanted, names, isOurs, slice === 0);
  }

  #expect(record: StoreRecord, wanted: Wanted, names: NamesByPartition): void {
    const { owner, copy } = this.#sides;
    const form = wantedCopy(record, record.partition, owner, copy);
    if (form === undefined) return;
    const matched = matchedAlready(copy.shape(this.#kind));
    const lacked = (form.lacks ?? []).map(({ field }) => field);
    const known = [...Object.keys(form.fields), ...lacked].filter((name) => !matched.has(name));
    const partition = names.add(record.partition, known);
    const given = this.#shapes.of(form.fields);
    const other = wanted.set(record.id, partition, { digest: digestOf(form.fields, known), given });
    if (other !== undefined && this.#isReadById) this.#noteDouble(record.id, [other, partition]);
  }

  async #compare(
    wanted: Wanted,
    names: NamesByPartition,
    isOurs: (partition: string) => boolean,
    first: boolean,
  ): Promise<'compared' | Survey> {
    const scope = scopeOf(this.#hooks.partition);
    for await (const page of patientPages(this.#sides.copy, this.#kind, scope, this.#signal)) {
      for (const held of page.records) if (isOurs(held.partition)) this.#compareOne(held, wanted, names);
      if (first) this.#note(page.problems);
      await this.#tell(keysAtOnce);
    }
    this.#missing += wanted.size;
    const { missingMax } = this.#hooks;
    if (missingMax !== undefined && this.#missing > missingMax) {
      await this.#tell(1);
      return { ...this.survey(), farBehind: { total: first ? this.#records : undefined } };
    }
    for (const { id, partition } of wanted) {
      this.#add({ partition, kind: this.#kind, id }, names, true);
      await this.#tell(keysAtOnce);
    }
    await this.#tell(1);
    return 'compared';
  }

  #compareOne(held: StoreRecord, wanted: Wanted, names: NamesByPartition): void {
    if (held.deleted) return;
    this.#copies += 1;
    const { owner, copy } = this.#sides;
    const { kind, id, partition } = held;
    const expected = wanted.take(id, partition);
    if (expected === undefined) {
      this.#add({ partition, kind, id }, names, false);
      return;
    }
    const { fields: all } = comparableCopy(held, owner, copy);
    const fields = owner.fields?.withoutOwn(kind, all, expected.given) ?? all;
    if (digestOf(fields, names.of(partition)) !== expected.digest)
      this.#add({ partition, kind, id }, names, true);
  }

  #add(key: RecordKey, names: NamesByPartition, listed: boolean): void {
    this.#different += 1;
    if (!this.#full) this.#waiting.push({ ...key, listed, names: names.of(key.partition) });
  }

  async #tell(atLeast: number): Promise<void> {
    if (this.#waiting.length < atLeast) return;
    const keys = this.#waiting;
    this.#waiting = [];
    this.#full = !(await this.#hooks.onDifferent(keys));
  }

  #note(problems: readonly RecordProblem[]): void {
    this.#problems.push(...problems.slice(0, problemsMax - this.#problems.length));
  }

  get #isReadById(): boolean {
    const { capabilities } = this.#sides.owner;
    return capabilities.some(({ kind, readableById }) => kind === this.#kind && readableById === true);
  }

  #noteDouble(id: string, [one, other]: readonly [string, string]): void {
    const { store } = this.#sides.owner;
    const detail =
      `the list of ${store} shows record ${id} in ${one} and in ${other}, but "get" names no partition: if it has not just ` +
      'moved, nobody can tell the two apart; give get, put and delete a path with {partition}';
    this.#note([{ kind: this.#kind, detail }]);
  }

  /** Does the copy hold at least so many records of the kind? */
  async #copyHolds(atLeast: number): Promise<boolean> {
    let held = 0;
    for await (const page of patientPages(this.#sides.copy, this.#kind, {}, this.#signal)) {
      held += page.records.length;
      if (held >= atLeast) return true;
    }
    return false;
  }
}

function scopeOf(partition: string | undefined): ListScope {
  return partition === undefined ? {} : { partition };
}

function slicing(slice: number, slices: number): (partition: string) => boolean {
  if (slices === 1) return () => true;
  return (partition) => createHash('sha256').update(partition).digest().readUInt32LE(0) % slices === slice;
}

/**
 * Field names that the owner's records of a partition have; other fields of the copy are its own. Most
 * partitions have the same names, so each set is kept once.
 */
class NamesByPartition {
  readonly #sets = new Map<string, ReadonlySet<string>>();
  readonly #byPartition = new Map<
    string,
    { readonly partition: string; readonly names: ReadonlySet<string> }
  >();

  get partitions(): number {
    return this.#byPartition.size;
  }

  /** Returns the partition's name as it is kept here: one text for all its records. */
  add(partition: string, names: readonly string[]): string {
    const known = this.#byPartition.get(partition);
    if (known !== undefined && names.every((name) => known.names.has(name))) return known.partition;
    const all = [...new Set([...(known?.names ?? []), ...names])].toSorted();
    const key = createHash('sha256').update(JSON.stringify(all)).digest('base64');
    const shared = this.#sets.get(key) ?? new Set(all);
    this.#sets.set(key, shared);
    const kept = known?.partition ?? partition;
    this.#byPartition.set(kept, { partition: kept, names: shared });
    return kept;
  }

  of(partition: string): ReadonlySet<string> {
    return this.#byPartition.get(partition)?.names ?? new Set();
  }
}

/** Which fields records have a value in. Most records have the same ones, so each set is kept once. */
class Shapes {
  readonly #sets = new Map<string, ReadonlySet<string>>();

  of(fields: Fields): ReadonlySet<string> {
    const names = Object.keys(fields).filter((name) => fields[name] !== null);
    const key = JSON.stringify(names);
    const shared = this.#sets.get(key) ?? new Set(names);
    this.#sets.set(key, shared);
    return shared;
  }
}
