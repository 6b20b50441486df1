/** The ledger as a document to keep elsewhere: what a restore can start from when no member is left. */
import { hostname } from 'node:os';
import type { Redis } from 'ioredis';
import type { KnownPartition } from '../core/cohort.ts';
import { Book, type StoredCohort } from './books.ts';
import { keys } from './connection.ts';
import { documentLines, type LedgerEntry, partitionEntries } from './document.ts';
import type { RedisLedger } from './ledger.ts';
import type { RedisLinks } from './links.ts';

export interface ExportParts {
  readonly redis: Redis;
  readonly ledger: RedisLedger;
  readonly registry: { all(): Promise<KnownPartition[]> };
  readonly links: Pick<RedisLinks, 'all'>;
}

/** Partitions, position and rules are of one moment; what stands beside them is of one not before it. */
export async function exportLedger({
  redis,
  ledger,
  registry,
  links,
}: ExportParts): Promise<Iterable<string>> {
  const { position, partitions, rules } = await ledger.snapshot();
  const [known, directory, cohorts, linked, atMs] = await Promise.all([
    registry.all(),
    redis.hgetall(keys.directory),
    new Book<StoredCohort>(redis, 'cohorts').all(),
    links.all(),
    ledger.nowMs(),
  ]);
  function* entries(): Generator<LedgerEntry> {
    yield* partitionEntries(partitions);
    for (const { partition, attributes } of known) yield { is: 'known', partition, attributes };
    for (const [user, partition] of Object.entries(directory)) yield { is: 'directory', user, partition };
    for (const cohort of cohorts) yield { is: 'cohort', ...cohort };
    for (const link of linked) yield { is: 'link', ...link };
  }
  return documentLines({ kind: 'export', by: hostname(), atMs, position, rules }, entries());
}
