/**
 * A full pass over all partitions of one kind: both stores are read from end to end and compared by content
 * hash. It needs no memory of earlier passes, so it is also the first copy, and what heals every loss.
 */
import { createHash } from 'node:crypto';
import type { RecordKey, RecordProblem, StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { comparableCopy, matchedAlready, wantedCopy } from './apply.ts';
import { digestOf } from './digest.ts';
import { newest } from './versions.ts';

export interface Survey {
  /** Records whose copy is missing, different or too much. Only `get` can tell that one is gone. */
  readonly different: readonly RecordKey[];
  readonly records: number;
  readonly problems: readonly RecordProblem[];
  /** Newest source version seen. */
  readonly newestVersion: string | undefined;
}

interface Entry {
  readonly partition: string;
  readonly digest: string;
}

/** `onPartitions` hears of every partition that a page showed, before the next page is read. */
export async function surveyKind(
  kind: string,
  sides: { readonly owner: StoreReader; readonly copy: StoreReader },
  onPartitions: (partitions: ReadonlySet<string>) => Promise<void>,
  signal: AbortSignal,
): Promise<Survey> {
  const { owner, copy } = sides;
  const wanted = new Map<string, Entry>();
  const names = new NamesByPartition();
  const matched = matchedAlready(copy.shape(kind));
  const problems: RecordProblem[] = [];
  let newestVersion: string | undefined;
  for await (const page of owner.pages(kind, {}, signal)) {
    for (const record of page.records) {
      newestVersion = newest(newestVersion, record.version);
      const form = wantedCopy(record, record.partition, owner, copy);
      if (form === undefined) continue;
      const known = Object.keys(form.fields).filter((name) => !matched.has(name));
      names.add(record.partition, known);
      wanted.set(record.id, { partition: record.partition, digest: digestOf(form.fields, known) });
    }
    problems.push(...page.problems);
    await onPartitions(new Set(page.records.map(({ partition }) => partition)));
  }
  const records = wanted.size;
  const different: RecordKey[] = [];
  for await (const page of copy.pages(kind, {}, signal)) {
    for (const held of page.records) compareOne(held, sides, wanted, names, different);
    problems.push(...page.problems);
  }
  for (const [id, { partition }] of wanted) different.push({ partition, kind, id });
  return { different, records, problems, newestVersion };
}

function compareOne(
  held: StoreRecord,
  { owner, copy }: { readonly owner: StoreReader; readonly copy: StoreReader },
  wanted: Map<string, Entry>,
  names: NamesByPartition,
  different: RecordKey[],
): void {
  if (held.deleted) return;
  const { kind, id, partition } = held;
  const entry = wanted.get(id);
  if (entry === undefined || entry.partition !== partition) {
    different.push({ partition, kind, id });
    return;
  }
  wanted.delete(id);
  const { fields } = comparableCopy(held, owner, copy);
  if (digestOf(fields, names.of(partition)) !== entry.digest) different.push({ partition, kind, id });
}

/**
 * Field names that the owner's records of a partition have; other fields of the copy are its own. Most
 * partitions have the same names, so each set is kept once.
 */
class NamesByPartition {
  readonly #sets = new Map<string, ReadonlySet<string>>();
  readonly #byPartition = new Map<string, ReadonlySet<string>>();

  add(partition: string, names: readonly string[]): void {
    const known = this.#byPartition.get(partition);
    if (known !== undefined && names.every((name) => known.has(name))) return;
    const all = [...new Set([...(known ?? []), ...names])].toSorted();
    const key = createHash('sha256').update(JSON.stringify(all)).digest('base64');
    const shared = this.#sets.get(key) ?? new Set(all);
    this.#sets.set(key, shared);
    this.#byPartition.set(partition, shared);
  }

  of(partition: string): ReadonlySet<string> {
    return this.#byPartition.get(partition) ?? new Set();
  }
}
