/** One pass over a partition: read both sides whole, compare, and (in a session) apply what differs. */
import { type RecordProblem, StoreFailure, type StoreReader } from '../core/ports.ts';
import { type CopyForm, type Difference, differencesOf, type StoreRecord } from '../core/records.ts';
import type { CopySession } from './apply.ts';
import type { HeldBack } from './brakes.ts';
import { comparableCopy, matchedAlready, wantedCopy } from './copy-form.ts';
import type { RecordPair } from './needed.ts';
import { type Patience, readPatiently } from './patience.ts';

export interface Comparison {
  /** Pages read on each side. */
  readonly pages: { readonly owner: number; readonly copy: number };
  readonly ownerRecords: ReadonlyMap<string, StoreRecord>;
  readonly copyRecords: ReadonlyMap<string, StoreRecord>;
  readonly differences: readonly Difference[];
  readonly problems: readonly RecordProblem[];
}

export interface FailedRecord {
  readonly kind: string;
  readonly id: string;
  readonly failure: StoreFailure;
}

export interface PassResult {
  readonly compared: number;
  /** Copies written or removed. */
  readonly copied: number;
  readonly problems: readonly RecordProblem[];
  readonly failed: readonly FailedRecord[];
  /** The deletes were held back. */
  readonly brake?: HeldBack;
  readonly pages: Comparison['pages'];
  readonly ownerRecords: Comparison['ownerRecords'];
  readonly tookMs: number;
}

/** How a pass reads: with what patience, and what it checks after every page. */
export interface Reading {
  readonly partition: string;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  readonly afterPage?: () => Promise<void>;
}

export async function compareSides(
  sides: { readonly owner: StoreReader; readonly copy: StoreReader },
  reading: Reading,
): Promise<Comparison> {
  const { owner, copy } = sides;
  const ownerRecords = new Map<string, StoreRecord>();
  const copyRecords = new Map<string, StoreRecord>();
  const differences: Difference[] = [];
  const problems: RecordProblem[] = [];
  const pages = { owner: 0, copy: 0 };
  if (owner.capabilities.length === 0) {
    problems.push({
      kind: '',
      detail: `${owner.store} has no connector with records; nothing can be compared`,
    });
  }
  for (const { kind } of owner.capabilities) {
    if (!copy.capabilities.some((capability) => capability.kind === kind)) {
      problems.push({ kind, detail: `${copy.store} has no records of this kind; they cannot be copied` });
      continue;
    }
    // Both are awaited to their end, so that no read is left running when one of them fails.
    const [wanted, found] = await Promise.allSettled([
      listAll(owner, kind, reading),
      listAll(copy, kind, reading),
    ]);
    if (wanted.status === 'rejected') throw wanted.reason;
    if (found.status === 'rejected') throw found.reason;
    problems.push(...wanted.value.problems, ...found.value.problems);
    pages.owner += wanted.value.pages;
    pages.copy += found.value.pages;
    differences.push(...differencesBetween(kind, wanted.value.records, found.value.records, reading, sides));
    for (const record of wanted.value.records) ownerRecords.set(recordKey(record), record);
    for (const record of found.value.records) copyRecords.set(recordKey(record), record);
  }
  return { pages, ownerRecords, copyRecords, differences, problems };
}

function differencesBetween(
  kind: string,
  wanted: readonly StoreRecord[],
  found: readonly StoreRecord[],
  reading: Reading,
  { owner, copy }: { readonly owner: StoreReader; readonly copy: StoreReader },
): Difference[] {
  const forms = wanted
    .map((record) => wantedCopy(record, reading.partition, owner, copy))
    .filter((form): form is CopyForm => form !== undefined);
  const held = found.map((record) => comparableCopy(record, owner, copy));
  return differencesOf(forms, held, matchedAlready(copy.shape(kind)));
}

/** All records of one kind in the partition, each once: rows that shift between pages can come up twice. */
async function listAll(
  reader: StoreReader,
  kind: string,
  reading: Reading,
): Promise<{ records: StoreRecord[]; problems: RecordProblem[]; pages: number }> {
  const { partition, patience, signal, afterPage } = reading;
  return readPatiently(patience, signal, async () => {
    const records = new Map<string, StoreRecord>();
    const problems: RecordProblem[] = [];
    let pages = 0;
    for await (const page of reader.pages(kind, { partition }, signal)) {
      for (const record of page.records) {
        if (record.partition === partition) records.set(record.id, record);
      }
      pages += 1;
      problems.push(...page.problems);
      await afterPage?.();
    }
    return { records: [...records.values()], problems, pages };
  });
}

/**
 * Compares the session's partition and applies what differs: what is extra first, because a constraint of
 * the copy (no two at the same time, say) can refuse the new record while the old one still stands.
 */
export async function copyPass(session: CopySession, patience: Patience): Promise<PassResult> {
  const startedMs = performance.now();
  const { partition, signal } = session;
  const found = await compareSides(session, { partition, patience, signal, afterPage: sometimes(session) });
  // What was read counts only if nobody else could copy meanwhile.
  await session.ensureMayCopy();
  const extras = found.differences.filter((difference) => difference.difference === 'extra');
  const others = found.differences.filter((difference) => difference.difference !== 'extra');
  const brake = await session.askToRemove(extras, found.copyRecords);
  const failed: FailedRecord[] = [];
  let copied = 0;
  let known: Known = found;
  const settle = async (difference: Difference): Promise<void> => {
    const key = difference.difference === 'extra' ? difference : difference.copy;
    try {
      const applied = await applyDifference(session, difference, known, patience);
      if (applied === 'written' || applied === 'removed') copied += 1;
    } catch (error) {
      // One record must not stop the others; everything else ends the pass.
      if (!isOfOneRecord(error)) throw error;
      failed.push({ kind: key.kind, id: key.id, failure: error });
    }
  };
  if (brake === undefined) await eachOf(extras, settle);
  const inBulk = await copyInBulk(session, others, found, patience);
  copied += inBulk.copied;
  known = inBulk.known;
  await eachOf(inBulk.left, settle);
  return {
    compared: found.ownerRecords.size + extras.length,
    copied,
    problems: found.problems,
    failed,
    ...(brake && { brake }),
    pages: found.pages,
    ownerRecords: found.ownerRecords,
    tookMs: performance.now() - startedMs,
  };
}

type Known = Pick<Comparison, 'ownerRecords' | 'copyRecords'>;
type Listed = Exclude<Difference, { readonly difference: 'extra' }>;

/**
 * Writes many records in few calls, where the copy's store can. What is left, because a call was refused or its
 * answer did not name the record, is for single writes; what the copy held of it before counts no more.
 */
async function copyInBulk(
  session: CopySession,
  differences: readonly Listed[],
  found: Comparison,
  patience: Patience,
): Promise<{ readonly copied: number; readonly left: readonly Listed[]; readonly known: Known }> {
  const left: Listed[] = [];
  const copyRecords = new Map(found.copyRecords);
  const calls: { readonly kind: string; readonly part: readonly Listed[] }[] = [];
  for (const [kind, all] of Map.groupBy(differences, ({ copy }) => copy.kind)) {
    const max = session.bulkMax(kind) ?? 1;
    if (max < 2 || all.length < 2) left.push(...all);
    else for (let at = 0; at < all.length; at += max) calls.push({ kind, part: all.slice(at, at + max) });
  }
  let copied = 0;
  await eachOf(calls, async ({ kind, part }) => {
    const pairs = await pairsOf(session, part, found, patience);
    const written = await session.applyMany(kind, pairs);
    copied += written.size;
    for (const difference of part) {
      if (written.has(difference.copy.id)) continue;
      left.push(difference);
      copyRecords.delete(recordKey(difference.copy));
    }
  });
  return { copied, left, known: { ...found, copyRecords } };
}

async function pairsOf(
  { copy, partition, signal }: CopySession,
  differences: readonly Listed[],
  found: Known,
  patience: Patience,
): Promise<readonly RecordPair[]> {
  const pairs: RecordPair[] = [];
  await eachOf(differences, async ({ copy: { kind, id } }) => {
    const key = recordKey({ kind, id });
    const get = () => readPatiently(patience, signal, () => copy.get(kind, { id, partition }, signal));
    try {
      const readMs = performance.now();
      // The list of this partition does not show what the copy holds of it for another one.
      const copyRecord = liveOf(found.copyRecords.get(key)) ?? (await get());
      pairs.push({ id, ownerRecord: found.ownerRecords.get(key), copyRecord, readMs });
    } catch (error) {
      if (!isOfOneRecord(error)) throw error;
    }
  });
  return pairs;
}

/** The target will not take it, or a store that answered well shows it in a way that nobody can copy. */
function isOfOneRecord(error: unknown): error is StoreFailure {
  if (!(error instanceof StoreFailure)) return false;
  return error.kind === 'rejected' || (error.kind === 'bad-answer' && error.store === undefined);
}

const ensureEveryMs = 250;

/** A long list is given up soon after it has become useless. */
function sometimes(session: CopySession): () => Promise<void> {
  let ensuredMs = performance.now();
  return async () => {
    if (performance.now() - ensuredMs < ensureEveryMs) return;
    ensuredMs = performance.now();
    await session.ensureMayCopy();
  };
}

async function applyDifference(
  session: CopySession,
  difference: Difference,
  found: Known,
  patience: Patience,
) {
  const { partition, signal } = session;
  const { kind, id } = difference.difference === 'extra' ? difference : difference.copy;
  const key = recordKey({ kind, id });
  const get = (reader: StoreReader) =>
    readPatiently(patience, signal, () => reader.get(kind, { id, partition }, signal));
  // What a list does not show is not proven absent: a row can have shifted past the reader. Only `get` tells.
  // Nor is a tombstone in a list the last word: the record may have been made again since, and be copied already.
  const shown = found.ownerRecords.get(key);
  const isOld = shown?.deleted === true && patience !== 'fence';
  const ownerRecord = shown === undefined || isOld ? await get(session.owner) : shown;
  const listed = difference.difference !== 'extra';
  if (patience === 'fence' && !listed && isLive(ownerRecord, partition)) {
    // Nobody writes under a fence, so no row has shifted: the list itself is not complete.
    throw new StoreFailure(
      'bad-answer',
      `the list of ${kind} in ${session.from} does not show ${id}, which is there: look at its paging and feedDelayMs`,
    );
  }
  const readMs = performance.now();
  const copyRecord = liveOf(found.copyRecords.get(key)) ?? (await get(session.copy));
  return session.apply(kind, { id, ownerRecord, copyRecord, readMs });
}

/** Another partition's record may have taken the place of a tombstone since the list was read. */
function liveOf(copyRecord: StoreRecord | undefined): StoreRecord | undefined {
  return copyRecord?.deleted === true ? undefined : copyRecord;
}

function isLive(record: StoreRecord | undefined, partition: string): boolean {
  return record !== undefined && !record.deleted && record.partition === partition;
}

const parallelWrites = 6;

/** A few at a time; after the first failure nothing new starts, and it is thrown when the rest have ended. */
export async function eachOf<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
  atOnce = parallelWrites,
): Promise<void> {
  const left = items.values();
  let stopped = false;
  const worker = async (): Promise<void> => {
    for (const item of left) {
      if (stopped) return;
      try {
        await work(item);
      } catch (error) {
        stopped = true;
        throw error;
      }
    }
  };
  const ends = await Promise.allSettled(Array.from({ length: atOnce }, worker));
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

export function recordKey(record: { readonly kind: string; readonly id: string }): string {
  return `${record.kind}\n${record.id}`;
}
