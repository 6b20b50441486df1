/** The sync as the handoff and the operators see it: bring up, catch up under a fence, compare. */
import type { CaughtUpProof } from '../core/handoff.ts';
import type { Blocker } from '../core/flip.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import {
  type CopyDesk,
  type CopyReport,
  type PartitionComparison,
  type RecordProblem,
  StoreFailure,
  type StoreReader,
} from '../core/ports.ts';
import { type CopyHand, type Difference, differencesOf, type StoreRecord } from '../core/records.ts';
import { type CopyParts, type CopySession, withCopySession } from './apply.ts';
import { areCopied, type CopyRefused } from './may-copy.ts';
import { comparableCopy, matchedAlready, sidesOf, wantedCopy } from './copy-form.ts';
import { type Brakes, type HeldBack, sentenceOfBrake } from './brakes.ts';
import { pause } from '../pause.ts';
import { unlimited } from '../stores/budget.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { HaltBook } from './halts.ts';
import {
  type Comparison,
  compareSides,
  copyPass,
  type FailedRecord,
  type PassResult,
  recordKey,
} from './passes.ts';
import { type Patience, readPatiently } from './patience.ts';

const bringUpPassesMax = 5;
/** Before a fence, a pass that brought no more than this was the last: the catch-up looks again anyhow. */
const littleRecords = 5;
const catchUpPassesMax = 20;
const catchUpPassesPaid = 2;
/** How long a fence waits for another hand to finish a copy, and after how long the attempt is worth repeating. */
const fenceLockWaitMs = 500;
const takenLockRetryMs = 1_000;
/** Calls to each store that a catch-up may need beyond its lists: single records read, written, removed. */
const fewCalls = 4;

export interface BroughtUp extends CopyReport {
  readonly failed: readonly FailedRecord[];
  /** Of the last pass; absent where none was made. */
  readonly pages?: Comparison['pages'];
  readonly refused?: CopyRefused;
  readonly brake?: HeldBack;
}

/** Hears of every record that the old owner held when a partition's copy was proven under a fence. */
export type HandedOver = (partition: string, records: Iterable<StoreRecord>) => Promise<void>;

/** What keeps copies from being made, until somebody agrees to go on. */
interface Holding {
  readonly brakes: Pick<Brakes, 'list' | 'onAll'>;
  readonly halts: Pick<HaltBook, 'read'>;
}

export class SyncDesk implements CopyDesk {
  readonly #parts: CopyParts;
  readonly #letters: DeadLetters;
  readonly #holding: Holding;
  readonly #lagMs: () => Promise<number | undefined>;
  readonly #handedOver: HandedOver | undefined;

  constructor(
    parts: CopyParts,
    letters: DeadLetters,
    holding: Holding,
    lagMs: () => Promise<number | undefined>,
    handedOver?: HandedOver,
  ) {
    this.#parts = parts;
    this.#holding = holding;
    this.#handedOver = handedOver;
    this.#letters = letters;
    this.#lagMs = lagMs;
  }

  async bringUp(partition: string, signal: AbortSignal): Promise<CopyReport> {
    const glance = await this.#glance(partition, signal);
    if (glance !== undefined) {
      await this.#letters.clear(partition);
      // Nothing is to be deleted: a brake that there may be is lifted.
      await this.#parts.brakes.mayRemoveAll(partition, [], 0);
      await this.#prepay(partition, glance.pages, signal);
      return glance.report;
    }
    const upTo = { littleRecords };
    const {
      failed: _,
      refused: __,
      brake: ___,
      pages,
      ...report
    } = await this.bringUpFully(...([partition, signal, upTo] as const));
    if (pages !== undefined && report.problems.length === 0) await this.#prepay(partition, pages, signal);
    return report;
  }

  /**
   * Looks whether there is anything to copy at all, without the lock and the questions that only a copy needs.
   * Undefined where there is, or where something is wrong. It proves nothing, and need not: the catch-up does.
   */
  async #glance(
    partition: string,
    signal: AbortSignal,
  ): Promise<{ readonly report: CopyReport; readonly pages: Comparison['pages'] } | undefined> {
    const { ledger, readers } = this.#parts;
    const { ownership } = await ledger.read(partition);
    if (ownership.phase !== 'open') return undefined;
    if (!(await areCopied(this.#parts, partition, ownership.owner))) return undefined;
    const startedMs = performance.now();
    const sides = sidesOf(ownership.owner, readers);
    const found = await compareSides(sides, { partition, patience: 'background', signal });
    if (found.differences.length + found.problems.length > 0) return undefined;
    const report: CopyReport = {
      ...{ recordsCompared: found.ownerRecords.size, recordsCopied: 0, passes: 1, problems: [] },
      lastPassMs: performance.now() - startedMs,
    };
    return { report, pages: found.pages };
  }

  /** As bringUp, and says which records the target would not take. */
  async bringUpFully(
    partition: string,
    signal: AbortSignal,
    { littleRecords = 0, lockWaitMs }: { littleRecords?: number; lockWaitMs?: number } = {},
  ): Promise<BroughtUp> {
    let recordsCopied = 0;
    for (let passes = 1; ; passes += 1) {
      const session = await this.#pass(partition, { hand: 'sync' }, 'background', signal, lockWaitMs);
      if (session.copied === 'no') {
        const problems = [{ kind: '', detail: `nothing was copied: ${session.because}` }];
        const nothing = { recordsCompared: 0, lastPassMs: 0, failed: [] };
        return { ...nothing, recordsCopied, passes, problems, refused: session };
      }
      const { compared, copied, problems, failed, brake, pages, tookMs } = session.result;
      recordsCopied += copied;
      if (copied <= littleRecords || passes === bringUpPassesMax) {
        if (failed.length === 0) await this.#letters.clear(partition);
        const held = brake === undefined ? [] : [problemOfBrake(brake)];
        const all = [...held, ...problems, ...failed.map(problemOf)];
        return {
          recordsCompared: compared,
          recordsCopied,
          passes,
          lastPassMs: tookMs,
          problems: all,
          failed,
          ...(brake && { brake }),
          pages,
        };
      }
    }
  }

  /**
   * Throws StoreFailure when the proof cannot be had: a store failed, a record cannot be copied, a copy
   * ended in doubt, or the fence of `attempt` is gone. Throws the signal's reason when that ends first.
   */
  async catchUp(partition: string, attempt: string, signal: AbortSignal): Promise<CaughtUpProof> {
    let recordsCopied = 0;
    for (let passes = 1; passes <= catchUpPassesMax; passes += 1) {
      const hand = { hand: 'handoff', attempt } as const;
      await this.#untilCopyShows(partition, signal);
      const session = await this.#pass(partition, hand, 'fence', signal, fenceLockWaitMs);
      if (session.copied === 'no' && session.lockTaken === true) {
        // The user waits: better outside the fence for the end of a holder that may be dead.
        throw new StoreFailure('unavailable', `nothing is proven: ${session.because}`, {
          retryAfterMs: takenLockRetryMs,
        });
      }
      if (session.copied === 'no')
        throw new StoreFailure('rejected', `nothing is proven: ${session.because}`);
      const { compared, copied, problems, failed, brake } = session.result;
      // A commit now would make owner what holds records that the old owner may not have any more.
      if (brake !== undefined) {
        throw new StoreFailure('rejected', `nothing is proven: ${sentenceOfBrake(brake)}`);
      }
      recordsCopied += copied;
      const [problem] = problems;
      if (problem !== undefined) {
        throw new StoreFailure('bad-answer', `nothing is proven: ${sentenceOf(problem)}`);
      }
      if (copied === 0) {
        const [first] = failed;
        if (first !== undefined) throw first.failure;
        await this.#handedOver?.(partition, session.result.ownerRecords.values());
        return { recordsCompared: compared, recordsCopied, passes };
      }
    }
    throw new StoreFailure(
      'rejected',
      `${catchUpPassesMax} passes each found something to copy; somebody writes to ${partition} around the fence`,
    );
  }

  async compare(partition: string, signal: AbortSignal): Promise<PartitionComparison> {
    const { ownership } = await this.#parts.ledger.read(partition);
    const target = otherStore(ownership.owner);
    if (!(await areCopied(this.#parts, partition, ownership.owner))) {
      // What the old owner still holds is as old as the handoff, on purpose.
      const notCopied = `${ownership.owner} owns the partition, and nothing is copied to ${target}`;
      return { partition, notCopied, ownerRecords: 0, copyRecords: 0, differences: [], problems: [] };
    }
    const sides = sidesOf(ownership.owner, this.#parts.readers);
    const patience: Patience = 'background';
    const found = await compareSides(sides, { partition, patience, signal });
    const differences: Difference[] = [];
    for (const difference of found.differences) {
      differences.push(...(await confirmed(difference, found, sides, partition, signal)));
    }
    return {
      partition,
      ownerRecords: found.ownerRecords.size,
      copyRecords: found.copyRecords.size,
      differences,
      problems: found.problems,
    };
  }

  /** The copy's own lists can be late, too: a comparison must not go by what they showed before the last copy. */
  async #untilCopyShows(partition: string, signal: AbortSignal): Promise<void> {
    const { ledger, readers } = this.#parts;
    if (readers.legacy.feedDelayMs + readers.app.feedDelayMs === 0) return;
    const { ownership } = await ledger.read(partition);
    const { feedDelayMs } = readers[otherStore(ownership.owner)];
    if (feedDelayMs > 0) await pause(feedDelayMs, signal);
  }

  /** Two passes, one that copies and one that finds nothing more, and a few records that are written meanwhile. */
  async #prepay(partition: string, pages: Comparison['pages'], signal: AbortSignal): Promise<void> {
    const { budgets, ledger } = this.#parts;
    if (budgets.legacy === unlimited && budgets.app === unlimited) return;
    const { owner } = (await ledger.read(partition)).ownership;
    await budgets[owner].prepay(catchUpPassesPaid * pages.owner + fewCalls, signal, partition);
    await budgets[otherStore(owner)].prepay(catchUpPassesPaid * pages.copy + fewCalls, signal, partition);
  }

  lagMs(): Promise<number | undefined> {
    return this.#lagMs();
  }

  async halted(to: StoreName): Promise<readonly Blocker[]> {
    const { halts, brakes } = this.#holding;
    const [halted, brake] = await Promise.all([halts.read(), brakes.onAll.holding()]);
    const held = brake === undefined ? [] : [{ code: 'delete-brake', detail: sentenceOfBrake(brake) }];
    return [...halted.to(to), ...held];
  }

  async closedWindows(): Promise<ReadonlySet<string>> {
    return (await this.#parts.window?.closed()) ?? new Set();
  }

  deadLetters(partition: string): Promise<number> {
    return this.#letters.count(partition);
  }

  async deleteBrakes(): Promise<ReadonlyMap<string, string>> {
    const all = await this.#holding.brakes.list();
    return new Map(all.map((brake) => [brake.partition, sentenceOfBrake(brake)]));
  }

  #pass(partition: string, hand: CopyHand, patience: Patience, signal: AbortSignal, lockWaitMs?: number) {
    const work = (session: CopySession): Promise<PassResult> => copyPass(session, patience);
    return withCopySession(this.#parts, partition, hand, signal, work, lockWaitMs);
  }
}

/**
 * A record that the owner's list did not show is extra only if the owner says that it is gone, or has it in
 * another partition. Else its row had shifted between pages, and it is compared like the others.
 */
async function confirmed(
  difference: Difference,
  found: Comparison,
  sides: { readonly owner: StoreReader; readonly copy: StoreReader },
  partition: string,
  signal: AbortSignal,
): Promise<Difference[]> {
  if (difference.difference !== 'extra') return [difference];
  const { kind, id } = difference;
  const { owner, copy } = sides;
  const record = await readPatiently('background', signal, () => owner.get(kind, { id, partition }, signal));
  const wanted = wantedCopy(record, partition, owner, copy);
  const held = found.copyRecords.get(recordKey(difference));
  if (wanted === undefined || held === undefined) return [difference];
  return differencesOf([wanted], [comparableCopy(held, owner, copy)], matchedAlready(copy.shape(held.kind)));
}

function problemOfBrake(brake: HeldBack): RecordProblem {
  return { kind: '', detail: sentenceOfBrake(brake) };
}

function problemOf(failed: FailedRecord): RecordProblem {
  return { kind: failed.kind, detail: `${recordKey(failed).replace('\n', ' ')}: ${failed.failure.message}` };
}

function sentenceOf(problem: RecordProblem): string {
  return problem.kind === '' ? problem.detail : `${problem.kind}: ${problem.detail}`;
}
