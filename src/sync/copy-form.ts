/** What a copy should hold, and whether it does: both sides in one form, without what either keeps for itself. */
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { StoreReader, TargetShape } from '../core/ports.ts';
import { type CopyForm, differencesOf, type FieldDifference, type StoreRecord } from '../core/records.ts';
import { comparable } from '../stores/rest/shape.ts';

/** A tombstone is in nobody's way: a record that moved leaves one in its old partition, where a store keeps them. */
export function isForeign(held: StoreRecord | undefined, partition: string): boolean {
  return held !== undefined && !held.deleted && held.partition !== partition;
}

/** What the copy of this partition should hold for the record: nothing, where it is gone or lives elsewhere. */
export function wantedCopy(
  record: StoreRecord | undefined,
  partition: string,
  owner: StoreReader,
  copy: StoreReader,
): CopyForm | undefined {
  if (record === undefined || record.deleted || record.partition !== partition) return undefined;
  return owner.toCopy(record, copy.shape(record.kind));
}

/** The copy's record without what either side keeps for itself. */
export function comparableCopy(record: StoreRecord, owner: StoreReader, copy: StoreReader): StoreRecord {
  const fields = comparable(record.fields, owner.shape(record.kind), copy.shape(record.kind));
  return { ...record, fields };
}

/** Empty where a live copy holds what it should. */
export function differingFields(
  wanted: CopyForm,
  held: StoreRecord,
  owner: StoreReader,
  copy: StoreReader,
): readonly FieldDifference[] {
  const ignored = matchedAlready(copy.shape(held.kind));
  const [found] = differencesOf([wanted], [comparableCopy(held, owner, copy)], ignored);
  return found?.difference === 'changed' ? found.fields : [];
}

/** Whether the copy is as it should be, also by not being there. */
export function holdsTheSame(
  record: StoreRecord | undefined,
  held: StoreRecord | undefined,
  partition: string,
  owner: StoreReader,
  copy: StoreReader,
): boolean {
  const wanted = wantedCopy(record, partition, owner, copy);
  if (held === undefined || held.deleted || held.partition !== partition) return wanted === undefined;
  return wanted !== undefined && differingFields(wanted, held, owner, copy).length === 0;
}

/**
 * Id and partition have been matched as names before records are compared; one side may hold the number 17
 * and the other the text "17". Versions and tombstones are stripped from both sides.
 */
export function matchedAlready(target: TargetShape): ReadonlySet<string> {
  return new Set([target.id, target.partition]);
}

export function revived(wanted: CopyForm, shape: TargetShape): CopyForm {
  if (shape.deleted === undefined || shape.deleted.includes('.')) return wanted;
  return { ...wanted, fields: { ...wanted.fields, [shape.deleted]: null } };
}

/** The store that a partition's copies are compared with, whoever owns it. */
export function sidesOf(
  owner: StoreName,
  readers: Readonly<Record<StoreName, StoreReader>>,
): { readonly owner: StoreReader; readonly copy: StoreReader } {
  return { owner: readers[owner], copy: readers[otherStore(owner)] };
}
