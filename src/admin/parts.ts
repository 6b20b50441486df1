/** What the admin API needs from the rest of the program; compose hands it in. */
import type { CohortSelection } from '../core/cohort.ts';
import type { Config } from '../config/schema.ts';
import type { FlipDesk, NamedCohort } from '../core/flip.ts';
import type { CopyDesk, Ledger, Registry, StoreReader } from '../core/ports.ts';
import type { Transition } from '../core/view.ts';
import type { Log } from '../log.ts';
import type { AuditLog } from './audit.ts';

export interface DeadLetterEntry {
  readonly letter: string;
  readonly partition: string;
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
  readonly atMs: number;
}

/** Cohorts made through the API; those of the file are not in it. */
export interface CohortBook {
  put(name: string, selection: CohortSelection, by: string, reason: string): Promise<void>;
  list(): Promise<NamedCohort[]>;
}

export interface AdminParts {
  readonly config: Config;
  readonly ledger: Ledger;
  readonly registry: Registry;
  readonly flips: FlipDesk;
  readonly copies: CopyDesk;
  readonly cohorts: CohortBook;
  readonly audit: AuditLog;
  readonly log: Log;
  /** Where there are any, `GET /sync` says what they can do. */
  readonly readers?: readonly StoreReader[];
  /** Dead letters of all partitions; without it they are added up from the copy desk. */
  readonly deadLetters?: () => Promise<number>;
  /** Records that could not be copied, oldest first; `retry` rings for one again, undefined if it is not there. */
  readonly letters?: {
    list(): Promise<DeadLetterEntry[]>;
    retry(letter: string): Promise<DeadLetterEntry | undefined>;
  };
  /** The transition that made a version; without it `explain` cannot name who and why. */
  readonly transition?: (version: number) => Promise<Transition | undefined>;
  /** Further counters for /metrics, by the rest of their name: `requests_total{store="app"}`. */
  readonly counters?: () => Readonly<Record<string, number>>;
  /** Wait before a difference found by a verification is looked at again, ms. */
  readonly recheckMs?: number;
}

const deadLetterQueries = 16;

export async function countDeadLetters(parts: AdminParts): Promise<number> {
  if (parts.deadLetters !== undefined) return parts.deadLetters();
  const names = (await parts.registry.all()).map((known) => known.partition);
  let total = 0;
  for (let at = 0; at < names.length; at += deadLetterQueries) {
    const group = names.slice(at, at + deadLetterQueries);
    const counts = await Promise.all(group.map((name) => parts.copies.deadLetters(name)));
    total += counts.reduce((sum, count) => sum + count, 0);
  }
  return total;
}

export function censusParts({ ledger, registry, config }: AdminParts) {
  return { ledger, registry, defaultOwner: config.newPartitions };
}
