/** Deleted records of which a feed says nothing but the id: their partition is asked of the copy, which still holds them. */
import { inBatches } from '../batches.ts';
import { type Page, type RecordKey, StoreFailure, type StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { readPatiently } from './patience.ts';

const askedAtOnce = 8;
/** Stands for the version of a record that is gone. */
const goneMark = 'gone';

/**
 * The records that the page says are gone and that were not known to be by `before`; all of them are noted in `now`.
 * What the copy does not hold needs no look. Throws StoreFailure.
 */
export async function newlyGone(
  page: Page,
  kind: string,
  copy: StoreReader,
  {
    before,
    now,
  }: { readonly before: ReadonlyMap<string, string> | undefined; readonly now: Map<string, string> },
  signal: AbortSignal,
): Promise<readonly RecordKey[]> {
  const fresh = (page.gone ?? []).filter((id) => before?.get(placeOf(id)) !== goneMark);
  for (const id of page.gone ?? []) now.set(placeOf(id), goneMark);
  const found: RecordKey[] = [];
  for (const batch of inBatches(fresh, askedAtOnce)) {
    const held = await Promise.all(batch.map((id) => heldIn(copy, kind, id, signal)));
    found.push(...held.filter((record) => record !== undefined));
  }
  return found.map(({ partition, id }) => ({ partition, kind, id }));
}

/** Beside those of records, which name their partition: no partition's name is empty. */
function placeOf(id: string): string {
  return `\n${id}`;
}

/** Undefined, too, where the copy cannot be asked by the id alone: then full passes find it. */
async function heldIn(
  copy: StoreReader,
  kind: string,
  id: string,
  signal: AbortSignal,
): Promise<StoreRecord | undefined> {
  if (copy.capabilities.some((one) => one.kind === kind && one.readableById === false)) return undefined;
  try {
    return await readPatiently('background', signal, () => copy.get(kind, { id, partition: '' }, signal));
  } catch (error) {
    if (error instanceof StoreFailure && (error.kind === 'rejected' || error.kind === 'bad-answer')) {
      return undefined;
    }
    throw error;
  }
}
