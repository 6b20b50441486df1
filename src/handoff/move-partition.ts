/**
 * Moves one partition of a flip, through attempts with jitter. Level-triggered: what a partition needs is read
 * from the ledger each time, so that a flip that was cut off is simply run again.
 */
import type { PartitionReport } from '../core/flip.ts';
import type { HandoffSettings } from '../core/handoff.ts';
import type { LinkBook } from '../core/links.ts';
import { otherStore } from '../core/ownership.ts';
import { type LedgerRecord, StoreFailure } from '../core/ports.ts';
import { moveOn } from '../ledger/unfinished.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { type AttemptParts, attemptHandoff } from './attempt.ts';
import type { FlipHead } from '../ledger/flips.ts';
import { type Cut, whyCut } from './linked.ts';
import { isProvenByGuard, whyWritten } from './way-back.ts';

export interface FlipSettings extends HandoffSettings {
  readonly batch: number;
  readonly attempts: number;
  /** How long comparing a partition may take, ms; how far its copies are behind is another matter. */
  readonly maxLagMs: number;
}

export interface MoverParts extends Omit<AttemptParts, 'settings'> {
  readonly links: Pick<LinkBook, 'partnersOf'>;
  readonly settings: FlipSettings;
  readonly log: Log;
}

/** The flip, as one of its partitions sees it. */
export interface Course {
  readonly head: FlipHead;
  /** No attempt begins any more. */
  readonly halt: AbortSignal;
  /** The operator ends the flip: attempts under way are aborted, too. */
  readonly stop: AbortSignal;
  /** Resolves when a fence may begin, or the flip halts. */
  untilClear(): Promise<void>;
  /** The flip moves it, too, or has moved it. */
  goesAlong(partition: string): boolean;
  /** What this coordinator, or one before it, has reported of it. */
  reportOf(partition: string): PartitionReport;
  report(partition: string, report: PartitionReport): void;
}

/** A write in doubt, or a rate limit, that lasts longer than this is left to the operator. */
export const longestWaitMs = 120_000;
const lookAgainMs = 100;

/** Why one attempt did not move its partition, and for how long trying again is useless. */
interface HandoffTrouble {
  readonly code: string;
  readonly detail: string;
  readonly retryAfterMs?: number;
  /** Members that did not acknowledge. */
  readonly awaiting?: readonly string[];
}

type Tried = { readonly moved: Pick<PartitionReport, 'pauseMs' | 'stepsMs' | 'proof'> } | HandoffTrouble;

/** Returns when the partition has moved, was given up, or the flip has halted. */
export async function movePartition(parts: MoverParts, course: Course, partition: string): Promise<void> {
  const { settings, log, members } = parts;
  const { halt, head } = course;
  // A failure that names its own end (a write that settles, a rate limit) is waited out once each time.
  let waits = settings.attempts;
  let { attempts, lastFailure } = course.reportOf(partition);
  for (;;) {
    await course.untilClear();
    if (halt.aborted) return;
    const tried = await tryOnce(parts, course, partition);
    if ('moved' in tried) {
      course.report(partition, { outcome: 'moved', attempts: attempts + 1, lastFailure, ...tried.moved });
      return;
    }
    // What a halt broke off says nothing about the partition.
    if (halt.aborted) return;
    const { code, detail, retryAfterMs, awaiting = [] } = tried;
    lastFailure = { code, detail };
    const endsByItself = retryAfterMs !== undefined && retryAfterMs <= longestWaitMs && waits > 0;
    if (endsByItself) waits -= 1;
    // Who turns out to have fallen silent made the attempt fail, not the partition.
    const counts = !endsByItself && (awaiting.length === 0 || (await members.allAlive(awaiting, halt)));
    if (counts) attempts += 1;
    log('warn', 'handoff.aborted', {
      ...{ flip: head.id, partition, attempts, counts },
      ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(retryAfterMs) }),
      ...lastFailure,
    });
    // What users have written, and with whom, no later attempt can undo.
    const hopeless = code === 'app-was-written' || code === 'no-clean-way-back' || code === 'cuts-link';
    const givenUp = hopeless || attempts >= settings.attempts;
    course.report(partition, { outcome: givenUp ? 'stayed' : 'pending', attempts, lastFailure });
    if (givenUp) return;
    if (endsByItself) await untilSettled(parts, partition, retryAfterMs + 10, halt);
    else if (counts) await pauseOrHalt(200 * 2 ** attempts * (0.5 + Math.random()), halt);
  }
}

async function tryOnce(parts: MoverParts, course: Course, partition: string): Promise<Tried> {
  const { head, stop } = course;
  try {
    const before = await untilOpen(parts, course, partition);
    const { ownership } = before;
    if (ownership.phase !== 'open') {
      return {
        code: ownership.phase,
        detail: `an earlier handoff left it ${ownership.phase}; it reopens by itself`,
      };
    }
    if (ownership.owner === head.to) return { moved: {} };
    const obstacle = await prepare(parts, course, partition, ownership.epoch);
    if (obstacle !== undefined) return obstacle;
    // The copying took its time: nobody may have fallen silent, and nobody have paused, meanwhile.
    await course.untilClear();
    if (course.halt.aborted) return { code: 'stopped-by-operator', detail: 'the flip was stopped' };
    const cut = (): Promise<Cut | undefined> =>
      whyCut(parts, partition, head.to, (partner) => course.goesAlong(partner));
    // A link can have been noted since the plan.
    const parted = await cut();
    if (parted !== undefined) return parted;
    const by = `flip ${head.id} (${head.by})`;
    const from = otherStore(head.to);
    const request = { partition, from, by, reason: head.reason, stop, whyCut: cut };
    const report = await attemptHandoff(parts, request);
    if (report.outcome === 'aborted') return report;
    const { pauseMs, stepsMs, proof } = report;
    parts.log('info', 'handoff.moved', {
      ...{ flip: head.id, partition, to: head.to, pauseMs },
      ...proof,
      stepsMs,
    });
    return { moved: { pauseMs, stepsMs, proof } };
  } catch (error) {
    const waitMs = error instanceof StoreFailure ? error.retryAfterMs : undefined;
    const retryAfter = waitMs === undefined ? {} : { retryAfterMs: waitMs };
    return { code: 'preflight-failed', detail: sentenceOf(error), ...retryAfter };
  }
}

/** A coordinator that died may have left a fence or a commit behind: it is moved on, and waited for. */
async function untilOpen(parts: MoverParts, course: Course, partition: string): Promise<LedgerRecord> {
  const { ledger, settings } = parts;
  const untilMs = performance.now() + settings.fenceMs + 2_000;
  for (;;) {
    const record = await ledger.read(partition);
    const over = performance.now() > untilMs || course.halt.aborted;
    if (record.ownership.phase === 'open' || over) return record;
    await moveOn(ledger, partition, record.ownership, `flip ${course.head.id}`);
    await pauseOrHalt(lookAgainMs, course.halt);
  }
}

/** Before the fence: what will be proven inside it must be within reach. */
function prepare(
  parts: MoverParts,
  course: Course,
  partition: string,
  epoch: number,
): Promise<HandoffTrouble | undefined> {
  const from = otherStore(course.head.to);
  if (!isProvenByGuard(parts.settings, from)) return bringUp(parts, course, partition);
  return whyWritten(parts.guards, from, { partition, epoch });
}

/** The copy must be complete, and comparing it must fit into a fence. */
async function bringUp(
  { copies, settings }: MoverParts,
  course: Course,
  partition: string,
): Promise<HandoffTrouble | undefined> {
  const { maxLagMs } = settings;
  const [halt] = await copies.halted(course.head.to);
  if (halt !== undefined) return halt;
  const report = await copies.bringUp(partition, course.halt);
  const problem = report.problems[0];
  const brake = problem && (await copies.deleteBrakes()).get(partition);
  if (brake !== undefined) return { code: 'delete-brake', detail: brake };
  if (problem !== undefined) {
    return {
      code: 'unusable-records',
      detail: `${report.problems.length} records cannot be copied; first: ${problem.detail}`,
    };
  }
  if (report.lastPassMs > maxLagMs) {
    const took = Math.round(report.lastPassMs);
    return {
      code: 'slow-comparison',
      detail: `comparing this partition took ${took} ms, over flip.maxLagMs (${maxLagMs} ms): the fence would be as long. Let its lists answer faster or in larger pages, or raise flip.maxLagMs and flip.fenceMs`,
    };
  }
  return undefined;
}

/** What was in doubt settles by its time, or when an operator says that somebody has looked into it. */
async function untilSettled(
  { feed }: MoverParts,
  partition: string,
  waitMs: number,
  halt: AbortSignal,
): Promise<void> {
  const resolved = new AbortController();
  const stop = feed.onDoubtResolved((of) => {
    if (of === partition) resolved.abort();
  });
  await pauseOrHalt(waitMs, AbortSignal.any([halt, resolved.signal]));
  stop();
}

/** Ends early, without an error, when the flip halts. */
export async function pauseOrHalt(waitMs: number, halt: AbortSignal): Promise<void> {
  await pause(waitMs, halt).catch(() => undefined);
}
