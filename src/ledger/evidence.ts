/** Gathers what is still known of the ledger, from wherever it is known, for a restore. */
import type { Redis } from 'ioredis';
import type { Ownership, StoreName } from '../core/ownership.ts';
import type { GuardAnswer } from '../core/ports.ts';
import {
  type Evidence,
  evidenceOf,
  evidenceOfGuard,
  type Restored,
  restorePartition,
  type SourceKind,
} from '../core/restore.ts';
import type { Rules } from '../core/view.ts';
import { sentenceOf } from '../log.ts';
import { readAllPartitions } from './all-partitions.ts';
import type { LedgerDocument } from './document.ts';
import type { KeptViews } from './kept-views.ts';
import type { Rescues } from './rescues.ts';

export interface EvidenceParts {
  readonly redis: Redis;
  readonly rescues: Rescues;
  /** Of the admin's own host. */
  readonly views: KeptViews;
  /** The guard of the app; undefined where there is none, or where it is not to be asked. */
  readonly guard: ((partition: string) => Promise<GuardAnswer>) | undefined;
}

export interface Source {
  readonly source: string;
  readonly kind: SourceKind;
  /** Highest version that it has seen. */
  readonly version: number;
  readonly partitions: ReadonlyMap<string, Ownership>;
  readonly rules: Rules | undefined;
}

export interface Found {
  readonly sources: readonly Source[];
  readonly guard: { readonly asked: number; readonly answered: number } | undefined;
  readonly byPartition: ReadonlyMap<string, readonly Evidence[]>;
}

const guardCallsAtOnce = 32;

/** Throws GuardSilent where the guard does not answer, NotALedgerDocument where a rescue view is spoilt. */
export async function gatherEvidence(
  parts: EvidenceParts,
  given: LedgerDocument | undefined,
  registered: Iterable<string>,
): Promise<Found> {
  const sources: Source[] = [await ledgerSource(parts.redis)];
  for (const [by, document] of await parts.rescues.all()) {
    sources.push(documentSource(document, `the member ${by}`, 'member'));
  }
  const kept = await parts.views.newest();
  if (kept !== undefined) sources.push(documentSource(kept.document, kept.file, 'kept-view'));
  if (given !== undefined) sources.push(documentSource(given, 'the export', 'export'));
  const byPartition = new Map<string, Evidence[]>();
  const add = (partition: string, evidence: Evidence): void => {
    const known = byPartition.get(partition);
    if (known === undefined) byPartition.set(partition, [evidence]);
    else known.push(evidence);
  };
  for (const { source, kind, partitions } of sources) {
    for (const [partition, ownership] of partitions) add(partition, evidenceOf(ownership, source, kind));
  }
  if (parts.guard === undefined) return { sources, guard: undefined, byPartition };
  const names = [...new Set([...byPartition.keys(), ...registered, ...(given?.known.keys() ?? [])])];
  const answered = await askGuard(parts.guard, names, add);
  return { sources, guard: { asked: names.length, answered }, byPartition };
}

export class GuardSilent extends Error {
  override readonly name = 'GuardSilent';
}

async function askGuard(
  guard: NonNullable<EvidenceParts['guard']>,
  names: readonly string[],
  add: (partition: string, evidence: Evidence) => void,
): Promise<number> {
  let answered = 0;
  const queue = [...names];
  const worker = async (): Promise<void> => {
    for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
      const evidence = evidenceOfGuard(await guard(name));
      if (evidence === undefined) continue;
      answered += 1;
      add(name, evidence);
    }
  };
  try {
    await Promise.all(Array.from({ length: guardCallsAtOnce }, worker));
  } catch (error) {
    queue.length = 0;
    throw new GuardSilent(`the guard of the app does not answer: ${sentenceOf(error)}`, { cause: error });
  }
  return answered;
}

async function ledgerSource(redis: Redis): Promise<Source> {
  const { meta, entries } = await readAllPartitions(redis, (record) => record);
  return {
    source: 'the ledger as it is',
    kind: 'ledger',
    version: entries.reduce((highest, [, { version }]) => Math.max(highest, version), meta.position.version),
    partitions: new Map(entries.map(([partition, { ownership }]) => [partition, ownership])),
    rules: meta.rules,
  };
}

function documentSource(document: LedgerDocument, source: string, kind: SourceKind): Source {
  const { head, partitions, rules } = document;
  const version = Math.max(head.position.version, head.confirmed?.version ?? 0);
  return { source, kind, version, partitions, rules };
}

/**
 * Where everything goes. `empty`: the ledger was emptied on purpose, so everybody lives at the default store
 * again, and what is found only says which epochs are used up.
 */
export function decideAll(
  found: Found,
  defaultOwner: StoreName,
  { empty, prefer }: { readonly empty: boolean; readonly prefer: SourceKind | undefined },
): ReadonlyMap<string, Restored> {
  const decided = new Map<string, Restored>();
  for (const [partition, evidence] of found.byPartition) {
    const counted = empty ? evidence.map((entry) => ({ ...entry, owner: defaultOwner })) : evidence;
    decided.set(partition, restorePartition(counted, defaultOwner, prefer));
  }
  return decided;
}
