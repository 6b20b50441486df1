/** What must be done about one record, so that the copy of its partition is as the owner has it. */
import type { StoreName } from '../core/ownership.ts';
import { StoreFailure, type StoreReader } from '../core/ports.ts';
import type { CopyForm, StoreRecord } from '../core/records.ts';
import { differingFields, isForeign, revived, wantedCopy } from './copy-form.ts';

export interface RecordName {
  readonly kind: string;
  readonly id: string;
}

/** What stands on both sides under one id, as read inside a session. */
export interface RecordPair {
  readonly id: string;
  readonly ownerRecord: StoreRecord | undefined;
  readonly copyRecord: StoreRecord | undefined;
  /** No later than the copy was read, by `performance.now`. What is not there may be there since. */
  readonly readMs: number;
}

export interface NeededFor {
  readonly partition: string;
  readonly owner: StoreReader;
  readonly copy: StoreReader;
}

export type Needed =
  | { readonly need: 'nothing' }
  | { readonly need: 'removal' }
  /** `onlyLacked`: the copy has fields that the owner's record has not, and else it is equal. */
  | { readonly need: 'put'; readonly form: CopyForm; readonly exists: boolean; readonly onlyLacked: boolean };

/** Throws StoreFailure where the copy holds the record for another partition. */
export function neededFor(
  { partition, owner, copy }: NeededFor,
  key: RecordName,
  ownerRecord: StoreRecord | undefined,
  copyRecord: StoreRecord | undefined,
): Needed {
  const wanted = wantedCopy(ownerRecord, partition, owner, copy);
  const foreign = isForeign(copyRecord, partition);
  if (wanted === undefined) {
    const gone = copyRecord === undefined || copyRecord.deleted || foreign;
    return gone ? { need: 'nothing' } : { need: 'removal' };
  }
  if (foreign) {
    throw new StoreFailure(
      'rejected',
      // Without the other one's name: nobody would find it here when that one is erased.
      `${copy.store} holds ${key.kind} ${key.id} for another partition, ${owner.store} for ${partition}; ` +
        `it was left alone: it must leave the other partition first (${copy.store} shows which)`,
    );
  }
  if (copyRecord === undefined) return { need: 'put', form: wanted, exists: false, onlyLacked: false };
  if (copyRecord.deleted) {
    const form = revived(wanted, copy.shape(key.kind));
    return { need: 'put', form, exists: true, onlyLacked: false };
  }
  const fields = differingFields(wanted, copyRecord, owner, copy);
  if (fields.length === 0) return { need: 'nothing' };
  const onlyLacked = fields.every(({ field }) => wanted.lacks?.some((one) => one.field === field));
  return { need: 'put', form: wanted, exists: true, onlyLacked };
}

/** While its partition's lock is held, a live copy stays what it is: nobody writes over it for another partition. */
export function readMsOf({ copyRecord, readMs }: RecordPair): number {
  return copyRecord?.deleted === false ? Number.POSITIVE_INFINITY : readMs;
}

/** What a store holds differently than it was written would be written to it with every pass. */
export function heldDifferently(store: StoreName, { kind, id }: RecordName): StoreFailure {
  return new StoreFailure(
    'rejected',
    `${store} holds ${kind} ${id} differently than it was written; compare both stores ("verify --values")`,
  );
}
