/** The second look of a verification: what differed in the lists is read again, record by record, and rung for. */
import { leftStore } from './rollback-window.ts';
import { inBatches } from '../batches.ts';
import type { RecordKey, StoreReader } from '../core/ports.ts';
import type { StoreName } from '../core/ownership.ts';
import { type FieldDifference, formDifferences } from '../core/records.ts';
import { type DifferenceExample, shownValue } from '../core/verification.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { comparableCopy, matchedAlready, sidesOf, wantedCopy } from './copy-form.ts';
import { whyHalted, whyLeft } from './not-repaired.ts';
import { eachOf } from './passes.ts';
import { patientPages, readPatiently } from './patience.ts';
import type { DifferentKey } from './survey.ts';
import type { RangeOrder, RangeParts, StepReport } from './verify-range.ts';

const readAtOnce = 500;
const examplesMax = 50;
const rechecks = 2;
const recheckMsMax = 60_000;
const repairWithinMs = 30_000;

export interface Suspect extends DifferentKey {
  readonly owner: StoreName;
}

interface Found {
  readonly example: DifferenceExample;
  readonly suspect: Suspect;
  /** A list showed it, and neither store has it by `get`: only that list, read again, can tell. */
  readonly hidden: boolean;
}

/** Suspects that nobody can judge: the partition has moved, or a store would not say (`detail`). */
type Dropped = Map<string, { readonly partition: string; readonly detail?: string }>;
type Settled = Pick<
  StepReport,
  'missing' | 'extra' | 'changed' | 'rung' | 'repaired' | 'examples' | 'problems'
>;

/** What the lists showed; partitions in which nothing is confirmed are taken out of `differing`. */
interface Seen {
  readonly suspects: readonly Suspect[];
  readonly unconfirmed: number;
  readonly differing: Set<string>;
}

/** Reads again what differed, until it has outlasted the lag; then rings, and waits for the copies. */
export async function settle(
  parts: RangeParts,
  survey: Seen,
  order: RangeOrder,
  signal: AbortSignal,
): Promise<Settled> {
  let suspects = [...new Map(survey.suspects.map((suspect) => [keyOf(suspect), suspect])).values()];
  let found: readonly Found[] = [];
  const dropped: Dropped = new Map();
  const look = async (): Promise<void> => {
    found = await lookAgain(parts, suspects, order.values, dropped, signal);
    suspects = found.map(({ suspect }) => suspect);
  };
  for (let round = 0; round < rechecks && suspects.length > 0; round += 1) {
    await pause(await waitMs(parts), signal);
    await look();
  }
  found = await stillListed(parts, found, dropped, signal);
  suspects = found.map(({ suspect }) => suspect);
  const confirmed = found;
  const isConfirmed = new Set(confirmed.map(({ suspect }) => suspect.partition));
  if (survey.unconfirmed === 0) {
    for (const partition of survey.differing)
      if (!isConfirmed.has(partition)) survey.differing.delete(partition);
  }
  const hindered: { partition: string; detail: string }[] = [];
  if (order.repair && suspects.length > 0) {
    const { hindrances } = parts;
    await parts.ring(suspects.map(({ partition, kind, id }) => ({ partition, kind, id })));
    const endsMs = performance.now() + repairWithinMs;
    while (suspects.length > 0 && hindered.length === 0 && performance.now() < endsMs) {
      await pause(parts.recheckMs, signal);
      await look();
      if (hindrances !== undefined) hindered.push(...(await whyHalted(hindrances, suspects)));
    }
    if (hindrances !== undefined) hindered.push(...(await whyLeft(hindrances, suspects)));
  }
  const rest = new Set([...suspects.map(keyOf), ...dropped.keys()]);
  const counted = (kind: DifferenceExample['difference']): number =>
    found.filter(({ example }) => example.difference === kind).length;
  return {
    ...{ missing: counted('missing'), extra: counted('extra'), changed: counted('changed') },
    rung: order.repair ? confirmed.length + survey.unconfirmed : 0,
    repaired: confirmed.filter(({ suspect }) => !rest.has(keyOf(suspect))).length,
    examples: confirmed.slice(0, examplesMax).map(({ suspect, example }) => ({
      ...example,
      ...(rest.has(keyOf(suspect)) ? {} : { repaired: true }),
    })),
    problems: [...dropped.values(), ...hindered].filter(
      (one): one is { partition: string; detail: string } => one.detail !== undefined,
    ),
  };
}

async function waitMs({ lagMs, recheckMs, readers }: RangeParts): Promise<number> {
  const delayMs = Math.max(readers.legacy.feedDelayMs, readers.app.feedDelayMs);
  return Math.min(recheckMsMax, Math.max(recheckMs + delayMs, (await lagMs()) ?? 0));
}

/** What still differs. A partition that has moved since is no difference: it is compared the other way now. */
async function lookAgain(
  parts: RangeParts,
  suspects: readonly Suspect[],
  values: boolean,
  dropped: Dropped,
  signal: AbortSignal,
): Promise<readonly Found[]> {
  const found: Found[] = [];
  const look = async (suspect: Suspect): Promise<void> => {
    const { partition, kind, id } = suspect;
    try {
      const example = await differenceOf(parts, suspect, values, signal);
      if (example === 'hidden') {
        found.push({ example: { partition, kind, id, difference: 'missing' }, suspect, hidden: true });
      } else if (example !== undefined) found.push({ example, suspect, hidden: false });
    } catch (error) {
      signal.throwIfAborted();
      const detail = `${kind} ${id} could not be read: ${sentenceOf(error)}`;
      dropped.set(keyOf(suspect), { partition, detail });
    }
  };
  await eachOf(suspects, look);
  const names = [...new Set(found.map(({ suspect }) => suspect.partition))];
  const owners = new Map((await ownersOf(parts, names)).map((owner, at) => [names[at], owner]));
  const isStill = ({ suspect }: Found): boolean => owners.get(suspect.partition) === suspect.owner;
  for (const one of found) {
    const { suspect } = one;
    if (!isStill(one)) dropped.set(keyOf(suspect), { partition: suspect.partition });
  }
  return found.filter(isStill);
}

/** Without those that `get` denied and no list shows any more: they were deleted meanwhile. */
async function stillListed(
  { readers }: RangeParts,
  found: readonly Found[],
  dropped: Dropped,
  signal: AbortSignal,
): Promise<readonly Found[]> {
  const shown = new Set<string>();
  const hidden = found.filter((one) => one.hidden).map(({ suspect }) => suspect);
  const lists = Map.groupBy(hidden, ({ owner, kind, partition }) => JSON.stringify([owner, kind, partition]));
  await eachOf([...lists.values()], async (ofList) => {
    const [{ owner, kind, partition } = { owner: leftStore, kind: '', partition: '' }] = ofList;
    try {
      for await (const page of patientPages(readers[owner], kind, { partition }, signal)) {
        for (const record of page.records) if (!record.deleted) shown.add(keyOf(record));
      }
    } catch (error) {
      signal.throwIfAborted();
      const detail = `the list of ${kind} could not be read again: ${sentenceOf(error)}`;
      for (const suspect of ofList) dropped.set(keyOf(suspect), { partition, detail });
    }
  });
  return found.filter((one) => !one.hidden || shown.has(keyOf(one.suspect)));
}

async function differenceOf(
  parts: RangeParts,
  suspect: Suspect,
  withValues: boolean,
  signal: AbortSignal,
): Promise<DifferenceExample | 'hidden' | undefined> {
  const { partition, kind, id } = suspect;
  const { owner, copy } = sidesOf(suspect.owner, parts.readers);
  const get = (reader: StoreReader) =>
    readPatiently('background', signal, () => reader.get(kind, { id, partition }, signal));
  const ownerRecord = await get(owner);
  const wanted = wantedCopy(ownerRecord, partition, owner, copy);
  const copyRecord = await get(copy);
  const held = copyRecord?.deleted === true || copyRecord?.partition !== partition ? undefined : copyRecord;
  const place = { partition, kind, id };
  if (wanted === undefined) {
    if (held !== undefined) return { ...place, difference: 'extra' };
    return ownerRecord === undefined && suspect.listed ? 'hidden' : undefined;
  }
  if (held === undefined) return { ...place, difference: 'missing' };
  const matched = matchedAlready(copy.shape(kind));
  const all = [...suspect.names, ...Object.keys(wanted.fields)];
  const { fields } = comparableCopy(held, owner, copy);
  const names = new Set(all.filter((name) => !matched.has(name)));
  const found = formDifferences(wanted, fields, names, matched);
  if (found.length === 0) return undefined;
  const values = withValues ? { values: found.map(shown) } : {};
  return { ...place, difference: 'changed', fields: found.map(({ field }) => field), ...values };
}

function shown({ field, owner, copy }: FieldDifference) {
  return { field, owner: shownValue(owner), copy: shownValue(copy) };
}

function keyOf({ partition, kind, id }: RecordKey): string {
  return `${partition}\n${kind}\n${id}`;
}

/** `nobody`: the partition's owner is not copied from any more. */
export async function ownersOf(
  { ledger, closedWindows }: Pick<RangeParts, 'ledger' | 'closedWindows'>,
  partitions: readonly string[],
): Promise<readonly (StoreName | 'nobody')[]> {
  const owners: (StoreName | 'nobody')[] = [];
  const closed = await closedWindows();
  for (const batch of inBatches(partitions, readAtOnce)) {
    for (const [at, { ownership }] of (await ledger.readMany(batch)).entries()) {
      const { owner } = ownership;
      owners.push(owner !== leftStore && closed.has(batch[at] ?? '') ? 'nobody' : owner);
    }
  }
  return owners;
}
