/** What the admin API needs from the rest of the program; compose hands it in. */
import { inBatches } from '../batches.ts';
import type { CohortSelection } from '../core/cohort.ts';
import type { Config } from '../config/schema.ts';
import type { FlipDesk, NamedCohort } from '../core/flip.ts';
import type { ErasureDesk } from '../core/erasure.ts';
import type { DirectoryDesk } from '../core/homes.ts';
import type { Doubts } from '../core/doubt.ts';
import type { LinkBook } from '../core/links.ts';
import type { IdempotencyKeys } from '../core/idempotency.ts';
import type { CopyDesk, Ledger, Registry, StoreReader } from '../core/ports.ts';
import type { StoreName } from '../core/ownership.ts';
import type { StrayDesk } from '../core/stray.ts';
import type { VerificationDesk } from '../core/verification.ts';
import type { Transition } from '../core/view.ts';
import type { RestoreOrder, RestoreRefusal, RestoreReport } from '../ledger/restore.ts';
import type { Log } from '../log.ts';
import type { StoreTrouble } from '../stores/reach.ts';
import type { BackfillProgress } from '../sync/backfill.ts';
import type { HaltBook } from '../sync/halts.ts';
import type { RollbackWindow } from '../sync/rollback-window.ts';
import type { PollFailure } from '../sync/progress.ts';
import type { WebhookState } from '../sync/webhooks/open.ts';
import type { AuditLog } from './audit.ts';

export interface DeadLetterEntry {
  readonly letter: string;
  readonly partition: string;
  readonly kind: string;
  readonly id: string;
  readonly reason: string;
  readonly said?: string | undefined;
  readonly atMs: number;
  readonly firstMs?: number | undefined;
  readonly times: number;
}

export interface BrakeEntry {
  readonly partition: string;
  readonly deletes: number;
  readonly limit: number;
  readonly records: number;
  /** Where the copies are; unknown of brakes of before it was noted. */
  readonly store?: StoreName | undefined;
  readonly first: readonly string[];
  readonly atMs: number;
}

/** The brake on all partitions together. */
export interface BrakeOnAllEntry {
  readonly deletes: number;
  readonly lately: number;
  readonly limit: number;
  readonly copies: number;
  readonly stores: Readonly<Partial<Record<StoreName, boolean>>>;
  readonly first: readonly string[];
  readonly atMs: number;
}

/** Cohorts made through the API; those of the file are not in it. */
export interface CohortBook {
  put(name: string, selection: CohortSelection, by: string, reason: string): Promise<void>;
  list(): Promise<NamedCohort[]>;
}

export interface AdminParts {
  readonly config: Config;
  /** What of the configuration can change while the process runs. */
  readonly rules?: () => Pick<Config, 'partition' | 'partitionNames' | 'newPartitions'>;
  readonly ledger: Ledger;
  readonly registry: Registry;
  readonly flips: FlipDesk;
  /** Left out: no user has an entry. */
  readonly directory?: DirectoryDesk;
  readonly copies: CopyDesk;
  readonly verifications: VerificationDesk;
  /** Left out: nobody looks for strays. */
  readonly strays?: StrayDesk;
  /** Left out: nothing can be erased here. */
  readonly erasures?: ErasureDesk;
  readonly cohorts: CohortBook;
  readonly audit: AuditLog;
  readonly log: Log;
  /** Where there are any, `GET /sync` says what they can do. */
  readonly readers?: readonly StoreReader[];
  /** Dead letters of all partitions; without it they are added up from the copy desk. */
  readonly deadLetters?: () => Promise<number>;
  /** First copies under way, and the last that ended of each kind. */
  readonly backfills?: () => Promise<readonly BackfillProgress[]>;
  /** Why polls do not reach their end, and since when; undefined while they do. */
  readonly pollFailure?: () => Promise<PollFailure | undefined>;
  /** Stores that this process cannot reach now. */
  readonly unreachable?: () => Promise<readonly StoreTrouble[]>;
  /** Deletes that are held back, oldest first; `release` agrees to them, undefined where there are none. */
  readonly brakes?: {
    list(): Promise<readonly BrakeEntry[]>;
    release(partition: string): Promise<BrakeEntry | undefined>;
    onAll(): Promise<BrakeOnAllEntry | undefined>;
    releaseAll(): Promise<BrakeOnAllEntry | undefined>;
  };
  /** What webhooks have brought. */
  readonly webhooks?: () => Promise<WebhookState>;
  /** Pauses of the copying. */
  readonly halts?: Pick<HaltBook, 'read' | 'pause' | 'resume'>;
  /** Left out: nothing is ever copied back to legacy. */
  readonly window?: Pick<RollbackWindow, 'close' | 'open' | 'closed' | 'closedByRestore'> | undefined;
  /** Records that could not be copied, oldest first; `retry` rings for one again, undefined if it is not there. */
  readonly letters?: {
    list(): Promise<DeadLetterEntry[]>;
    retry(letter: string): Promise<DeadLetterEntry | undefined>;
    discard(letter: string): Promise<DeadLetterEntry | undefined>;
  };
  /** The transition that made a version; without it `explain` cannot name who and why. */
  readonly transition?: (version: number) => Promise<Transition | undefined>;
  /** Partitions that are written together. */
  readonly links?: LinkBook;
  /** The book of writes in doubt. */
  readonly doubts?: Doubts;
  readonly idempotency?: Pick<IdempotencyKeys, 'resolve'>;
  /** Says how long a member has been silent, as this process saw it. */
  readonly watch?: { look(): Promise<void>; silentMs(id: string): number | undefined };
  /** Left out: the ledger can be neither exported nor restored here. */
  readonly recovery?: {
    exportLedger(): Promise<Iterable<string>>;
    restore(order: RestoreOrder): Promise<RestoreReport | RestoreRefusal>;
  };
  /** Further counters for /metrics, by the rest of their name: `requests_total{store="app"}`. */
  readonly counters?: () => Readonly<Record<string, number>>;
}

const deadLetterQueries = 16;

export async function countDeadLetters(parts: AdminParts): Promise<number> {
  if (parts.deadLetters !== undefined) return parts.deadLetters();
  const names = (await parts.registry.all()).map((known) => known.partition);
  let total = 0;
  for (const group of inBatches(names, deadLetterQueries)) {
    const counts = await Promise.all(group.map((name) => parts.copies.deadLetters(name)));
    total += counts.reduce((sum, count) => sum + count, 0);
  }
  return total;
}

export function censusParts({ ledger, registry }: AdminParts) {
  return { ledger, registry, defaultOwner: 'legacy' } as const;
}
