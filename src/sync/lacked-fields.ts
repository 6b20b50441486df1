/**
 * A field that the owner's record has no more must vanish from the copy. Where the copy's store keeps it although the
 * record was put without it, it is asked for by an explicit null; what stays even then, the store puts there by itself,
 * and it makes no difference any more.
 */
import { StoreFailure, type StoreReader } from '../core/ports.ts';
import { type CopyForm, type Fields, type Json, type StoreRecord, valueOf } from '../core/records.ts';

export interface LackedParts {
  readonly owner: StoreReader;
  /** The copy's record as it is now, without what is compared in another way. */
  readonly read: () => Promise<StoreRecord | undefined>;
  readonly put: (form: CopyForm) => Promise<void>;
  readonly onUncompared: (field: string) => void;
}

/** After `form` was put because the copy had nothing but these fields too much. Throws StoreFailure as a put does. */
export async function settleLacked(parts: LackedParts, form: CopyForm): Promise<void> {
  const kept = leftOver(form, await parts.read());
  if (kept.length === 0) return;
  const nothing = Object.fromEntries(kept.map(([field]) => [field, null]));
  try {
    await parts.put({ ...form, fields: { ...form.fields, ...nothing } });
  } catch (error) {
    // A store that takes no null has a value of its own for it.
    if (!(error instanceof StoreFailure) || error.kind !== 'rejected') throw error;
  }
  for (const [field, value] of leftOver(form, await parts.read())) {
    if (await parts.owner.fields?.learnOwn(form.kind, field, value)) parts.onUncompared(field);
  }
}

/** What the copy holds in fields that the owner's record has not. */
function leftOver({ lacks = [] }: CopyForm, held: StoreRecord | undefined): [field: string, value: Json][] {
  const fields: Fields = held?.deleted === false ? held.fields : {};
  return lacks.flatMap(({ field, isOwn }): [string, Json][] => {
    const value = valueOf(fields, field) ?? null;
    return value === null || isOwn(value) ? [] : [[field, value]];
  });
}
