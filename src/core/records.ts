/**
 * Records as the sync sees them, and the decision what a copy needs. Level-triggered: both sides are read,
 * the difference is computed here, and applying it twice is harmless.
 */
import { otherStore, type Ownership, type StoreName } from './ownership.ts';

export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };
export type Fields = { readonly [name: string]: Json };

/** The field's own value: a record without "constructor" has none, whatever its prototype says. */
export function valueOf(fields: Fields, name: string): Json | undefined {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

const idLengthMax = 512;

/**
 * Can a record have this id? It becomes part of paths, of Redis keys and of JSON that other programs read: half a character
 * (a lone surrogate, which JSON can write) cannot be put into any of them.
 */
export function isUsableId(id: string): boolean {
  return id !== '' && id.length <= idLengthMax && id !== '.' && id !== '..' && id.isWellFormed();
}

/** One record as a store holds it, after reading; `fields` is the body as the store gave it. */
export interface StoreRecord {
  readonly kind: string;
  readonly id: string;
  readonly partition: string;
  readonly fields: Fields;
  /** The store's own version (field or ETag); undefined where it has none. */
  readonly version?: string | undefined;
  readonly deleted: boolean;
  /** Partitions whose users can write it, too, where the store says so. */
  readonly writers?: readonly string[] | undefined;
}

/** A record in the target's shape. */
export interface CopyForm {
  readonly kind: string;
  readonly id: string;
  readonly fields: Fields;
  /** Fields that other records of the owner have, and this one has not: the copy must not have them either. */
  readonly lacks?: readonly LackedField[];
}

export interface LackedField {
  readonly field: string;
  /** The copy's store puts this value there by itself. */
  readonly isOwn: (value: Json) => boolean;
}

export type Difference =
  | { readonly difference: 'missing'; readonly copy: CopyForm }
  | { readonly difference: 'changed'; readonly copy: CopyForm; readonly fields: readonly FieldDifference[] }
  /** In the copy only. A delete must be confirmed at the owner before it is applied. */
  | { readonly difference: 'extra'; readonly kind: string; readonly id: string };

export interface FieldDifference {
  readonly field: string;
  readonly owner: Json | undefined;
  readonly copy: Json | undefined;
}

/**
 * What must change in the copy so that it equals the owner's records. Fields that the owner's records
 * never have belong to the target alone and are left out; a null and an absent field are the same.
 */
export function differencesOf(
  wanted: readonly CopyForm[],
  found: readonly StoreRecord[],
  ignored: ReadonlySet<string>,
): Difference[] {
  const copies = new Map(found.filter((record) => !record.deleted).map((record) => [keyOf(record), record]));
  const known = new Set(
    wanted.flatMap((copy) => Object.keys(copy.fields)).filter((name) => !ignored.has(name)),
  );
  const differences: Difference[] = [];
  for (const copy of wanted) {
    const key = keyOf(copy);
    const held = copies.get(key);
    copies.delete(key);
    if (held === undefined) {
      differences.push({ difference: 'missing', copy });
      continue;
    }
    const fields = formDifferences(copy, held.fields, known, ignored);
    if (fields.length > 0) differences.push({ difference: 'changed', copy, fields });
  }
  for (const record of copies.values()) {
    differences.push({ difference: 'extra', kind: record.kind, id: record.id });
  }
  return differences;
}

/** As fieldDifferences, of `names` and of what the form lacks. */
export function formDifferences(
  { fields, lacks = [] }: CopyForm,
  held: Fields,
  names: ReadonlySet<string>,
  ignored: ReadonlySet<string>,
): FieldDifference[] {
  const lacked = new Set(lacks.map(({ field }) => field));
  const kept = lacks.filter(({ field, isOwn }) => {
    const value = valueOf(held, field) ?? null;
    return value !== null && !ignored.has(field) && !isOwn(value);
  });
  const compared = [...names].filter((name) => !lacked.has(name));
  return fieldDifferences(fields, held, [...compared, ...kept.map(({ field }) => field)]);
}

export function fieldDifferences(owner: Fields, copy: Fields, names: Iterable<string>): FieldDifference[] {
  const differences: FieldDifference[] = [];
  for (const field of names) {
    const [wanted, held] = [valueOf(owner, field), valueOf(copy, field)];
    if (!sameValue(wanted, held)) differences.push({ field, owner: wanted, copy: held });
  }
  return differences;
}

function keyOf(record: { readonly kind: string; readonly id: string }): string {
  return `${record.kind}\n${record.id}`;
}

const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)$/;

/** One text for all notations of an instant, finer than milliseconds too; undefined for other texts. */
export function instantOf(text: string): string | undefined {
  if (!timestamp.test(text)) return undefined;
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? '';
  const seconds = Date.parse(fraction === '' ? text : text.replace(`.${fraction}`, ''));
  return Number.isNaN(seconds) ? undefined : `${seconds}.${fraction.replace(/0+$/, '')}`;
}

/** Equal in meaning: key order, null and absent, and notations of one instant make no difference. */
export function sameValue(left: Json | undefined, right: Json | undefined): boolean {
  if (left === right) return true;
  if (left === undefined || left === null) return right === undefined || right === null;
  if (right === undefined || right === null) return false;
  if (typeof left === 'string' && typeof right === 'string') {
    const instant = instantOf(left);
    return instant !== undefined && instant === instantOf(right);
  }
  if (typeof left !== 'object' || typeof right !== 'object') return false;
  if (Array.isArray(left) || Array.isArray(right)) {
    if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
    return left.every((item: Json, at) => sameValue(item, right[at]));
  }
  const a = left as Fields;
  const b = right as Fields;
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].every((name) => sameValue(valueOf(a, name), valueOf(b, name)));
}

/** Who asks to copy: the background sync, or the handoff that holds the fence of this attempt. */
export type CopyHand = { readonly hand: 'sync' } | { readonly hand: 'handoff'; readonly attempt: string };

export type CopyDecision =
  | { readonly copy: 'yes'; readonly from: StoreName; readonly to: StoreName; readonly epoch: number }
  | { readonly copy: 'no'; readonly because: string };

/**
 * I3: may a copy be applied now, and in which direction? Asked at the moment of apply, with the ledger's
 * record as it is then. The direction is never part of a job.
 */
export function decideCopy(
  ownership: Ownership,
  hand: CopyHand,
  writable: readonly StoreName[],
): CopyDecision {
  if (ownership.phase === 'committed')
    return { copy: 'no', because: 'the partition is committed, not released' };
  if (ownership.phase === 'fenced' && (hand.hand !== 'handoff' || hand.attempt !== ownership.attempt)) {
    return { copy: 'no', because: 'the partition is fenced; only the handoff that holds the fence copies' };
  }
  if (ownership.phase === 'open' && hand.hand === 'handoff') {
    return { copy: 'no', because: 'the fence of this attempt is gone' };
  }
  const from = ownership.owner;
  const to = otherStore(from);
  if (!writable.includes(to)) return { copy: 'no', because: `copies to ${to} are switched off` };
  return { copy: 'yes', from, to, epoch: ownership.epoch };
}
