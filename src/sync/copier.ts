/**
 * Does one job: looks at one record, or at a whole partition, and makes the copy equal. Says when the job
 * should come again; throws StoreFailure where a store failed.
 */
import { type Ledger, type RecordKey, StoreFailure } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import { type CopyParts, type CopySession, withCopySession } from './apply.ts';
import type { CopyRefused } from './may-copy.ts';
import { type Backlog, type CopyJob, wholePartition } from './backlog.ts';
import { StrayInTheWay } from './copy-back.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { SyncDesk } from './desk.ts';
import type { HiddenRecords } from './hidden-records.ts';
import type { Progress } from './progress.ts';
import type { Log } from '../log.ts';

export interface CopierParts {
  readonly copies: CopyParts & { readonly ledger: Pick<Ledger, 'read'> };
  readonly desk: SyncDesk;
  readonly backlog: Backlog;
  readonly letters: DeadLetters;
  readonly hidden: Pick<HiddenRecords, 'denied'>;
  readonly progress: Pick<Progress, 'feed'>;
  readonly log: Log;
}

export type JobOutcome =
  /** `failed`: some of its records are rung on their own, because they could not be copied. */
  { readonly done: true; readonly failed?: boolean } | { readonly done: false; readonly laterMs: number };

const done: JobOutcome = { done: true };
/** A fence lasts seconds at most, and so does another hand's copying. */
const laterMs = 300;
const lockWaitMs = 1_000;

export async function lookAt(parts: CopierParts, job: CopyJob, signal: AbortSignal): Promise<JobOutcome> {
  const { ownership } = await parts.copies.ledger.read(job.partition);
  if (job.epoch > ownership.epoch) {
    const { partition, epoch } = job;
    parts.log('error', 'sync.ledger-behind', { partition, epoch, ledgerEpoch: ownership.epoch });
    return { done: false, laterMs: 5_000 };
  }
  return job.kind === '' ? lookAtPartition(parts, job.partition, signal) : lookAtRecord(parts, job, signal);
}

async function lookAtRecord(parts: CopierParts, job: CopyJob, signal: AbortSignal): Promise<JobOutcome> {
  const { partition, kind, id } = job;
  const elsewhere: RecordKey[] = [];
  const session = await withCopySession(
    parts.copies,
    partition,
    { hand: 'sync' },
    signal,
    async (held) => {
      try {
        await copyRecord(parts, held, { partition, kind, id }, elsewhere);
      } finally {
        await parts.backlog.ringEach(await copiedTheSameWay(parts, held, elsewhere), job);
      }
    },
    lockWaitMs,
  );
  if (session.copied === 'no' && session.when === 'later') return afterRefusal(session);
  // Copied, or owed no more: its partition lives where nothing is copied from.
  await parts.letters.resolve(job);
  return done;
}

/** Without those that live in the other store: two jobs would ring for each other for ever, each for what is not its to copy. */
async function copiedTheSameWay(
  { copies }: CopierParts,
  { owner }: CopySession,
  keys: readonly RecordKey[],
): Promise<readonly RecordKey[]> {
  const found = await Promise.all(keys.map(({ partition }) => copies.ledger.read(partition)));
  return keys.filter((_, at) => found[at]?.ownership.owner === owner.store);
}

/** What must be rung for besides goes into `elsewhere`. */
async function copyRecord(
  parts: CopierParts,
  session: CopySession,
  key: RecordKey,
  elsewhere: RecordKey[],
): Promise<void> {
  const { partition, kind, id } = key;
  const { owner, copy, signal } = session;
  const isKnown = [owner, copy].every((side) => side.capabilities.some((known) => known.kind === kind));
  if (!isKnown) return;
  const readMs = performance.now();
  const [ownerRead, copyRead] = await Promise.allSettled([
    owner.get(kind, { id, partition }, signal),
    copy.get(kind, { id, partition }, signal),
  ]);
  if (ownerRead.status === 'rejected') throw ownerRead.reason;
  if (copyRead.status === 'rejected') throw copyRead.reason;
  const ownerRecord = ownerRead.value;
  const copyRecord = copyRead.value;
  if (ownerRecord === undefined) await ensureGone(parts, session, key, copyRecord);
  // A record that changed partitions leaves the copy of the old one first, each under its own ledger record.
  if (ownerRecord !== undefined && ownerRecord.partition !== partition) {
    elsewhere.push({ partition: ownerRecord.partition, kind, id });
  } else if (
    ownerRecord !== undefined &&
    copyRecord?.deleted === false &&
    copyRecord.partition !== partition
  ) {
    elsewhere.push({ partition: copyRecord.partition, kind, id });
  }
  const pair = { id, ownerRecord, copyRecord, readMs };
  const applied = await session.apply(kind, pair).catch((error: unknown) => {
    // It stands in the book of strays, and is looked at again by the next full pass.
    if (error instanceof StrayInTheWay) return 'stray';
    throw error;
  });
  if (applied === 'by-pass') elsewhere.push(wholePartition(partition));
}

/** Throws where a list of the owner keeps showing what `get` says is gone. */
async function ensureGone(
  { hidden, progress }: CopierParts,
  { owner: { store } }: CopySession,
  key: RecordKey,
  copyRecord: StoreRecord | undefined,
): Promise<void> {
  const { kind, id } = key;
  const { fullPassAtMs } = await progress.feed(store, kind);
  const isCopied = copyRecord !== undefined && !copyRecord.deleted;
  if (!(await hidden.denied(key, fullPassAtMs, !isCopied))) return;
  throw new StoreFailure(
    'rejected',
    `the list of ${store} shows ${kind} ${id}, and GET says that it is gone, so nothing was copied or removed: look whether ` +
      'the connector\'s "get", and what stands before the store, lets such an id through',
  );
}

async function lookAtPartition(
  parts: CopierParts,
  partition: string,
  signal: AbortSignal,
): Promise<JobOutcome> {
  const report = await parts.desk.bringUpFully(partition, signal, { lockWaitMs });
  if (report.refused !== undefined) return afterRefusal(report.refused);
  // The brake has said so itself, once.
  const [problem] = report.problems.slice(report.brake === undefined ? 0 : 1);
  if (problem !== undefined) {
    const count = report.problems.length;
    parts.log('warn', 'sync.unusable-records', { partition, count, first: problem.detail });
  }
  // Each gets its own attempts, and its own dead letter when they are used up.
  const failed = report.failed.map(({ kind, id }) => ({ partition, kind, id }));
  await parts.backlog.ringEach(failed, wholePartition(partition));
  return { done: true, failed: report.failed.length > 0 };
}

function afterRefusal(refused: CopyRefused): JobOutcome {
  return refused.when === 'later' ? { done: false, laterMs } : done;
}
