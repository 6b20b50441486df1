/**
 * One flip: the plan's partitions in waves, a bounded number at a time, each through attempts with
 * jitter. Level-triggered: what a partition needs is read from the ledger each time, so that a flip that
 * was cut off is simply run again.
 */
import type { BlockedPartition, FlipStateName, FlipStatus, Plan, Quantiles } from '../core/flip.ts';
import type { HandoffSettings } from '../core/handoff.ts';
import { otherStore, type Ownership } from '../core/ownership.ts';
import { waveSizes } from '../core/waves.ts';
import { attemptHandoff, type AttemptParts } from './attempt.ts';
import { StoreFailure } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { moveOn } from '../ledger/unfinished.ts';
import type { MemberWatch } from './members.ts';

export interface FlipSettings extends HandoffSettings {
  readonly batch: number;
  readonly attempts: number;
  readonly maxLagMs: number;
}

/** What is kept of a flip in the ledger; enough to go on after a crash. */
export interface StoredFlip {
  readonly id: string;
  readonly plan: Plan;
  readonly waves: readonly string[];
  readonly by: string;
  readonly reason: string;
  state: FlipStateName;
  detail: string;
  /** The operator who paused it; a flip that paused itself goes on by itself. */
  pausedBy?: string;
  endedAtMs?: number;
  /** Partitions that have moved → write pause, ms. */
  moved: Record<string, number>;
  failed: Record<string, { code: string; detail: string }>;
}

export interface FlipParts extends Omit<AttemptParts, 'settings'> {
  readonly members: MemberWatch;
  readonly settings: FlipSettings;
  readonly save: (flip: StoredFlip) => Promise<void>;
  readonly log: (level: 'info' | 'warn' | 'error', event: string, fields?: Record<string, unknown>) => void;
}

const lookAgainMs = 100;
const saveEveryMs = 250;
const savesTried = 60;
const saveAgainMs = 500;
/** A write in doubt, or a rate limit, that lasts longer than this is left to the operator. */
const longestWaitMs = 120_000;

/** Why one attempt did not move its partition, and for how long trying again is useless. */
interface HandoffTrouble {
  readonly code: string;
  readonly detail: string;
  readonly retryAfterMs?: number;
}

export class FlipRun {
  readonly flip: StoredFlip;
  readonly #parts: FlipParts;
  readonly #stop = new AbortController();
  #done: Promise<void> = Promise.resolve();
  #savedAtMs = 0;

  constructor(parts: FlipParts, flip: StoredFlip) {
    this.#parts = parts;
    this.flip = flip;
  }

  get over(): boolean {
    return ['completed', 'aborted', 'failed'].includes(this.flip.state);
  }

  start(): void {
    this.#done = this.#run().catch(async (error: unknown) => {
      // Its other workers must not go on moving partitions of a flip that is reported as over.
      this.#stop.abort();
      this.#parts.log('error', 'flip.broke', { flip: this.flip.id, error: sentenceOf(error) });
      await this.#end(
        'failed',
        `the flip broke off (${sentenceOf(error)}); order it again, what has moved stays moved`,
      );
    });
  }

  /** Partitions that this flip may still fence. */
  pending(): string[] {
    const { plan, moved, failed } = this.flip;
    return plan.flip.filter((partition) => !(partition in moved) && !(partition in failed));
  }

  async pause(by: string, reason: string): Promise<void> {
    this.flip.pausedBy = by;
    await this.#set('paused', `paused by ${by}: ${reason}`);
  }

  async resume(): Promise<void> {
    delete this.flip.pausedBy;
    await this.#set('running', '');
  }

  async abort(by: string, reason: string): Promise<void> {
    this.#stop.abort();
    await this.#done;
    if (!this.over) await this.#end('aborted', `aborted by ${by}: ${reason}`);
  }

  /**
   * Stops working without ending the flip: another coordinator, or this one later, goes on. Waits at most
   * `withinMs` for handoffs under way; members finish what is left.
   */
  async leave(withinMs: number): Promise<void> {
    this.#stop.abort();
    await Promise.race([this.#done, pause(withinMs)]);
    await this.#save();
  }

  async #run(): Promise<void> {
    const pending = this.pending();
    const sizes = waveSizes(this.flip.plan.flip.length, this.flip.waves);
    let from = 0;
    for (const size of sizes) {
      const wave = this.flip.plan.flip.slice(from, from + size).filter((name) => pending.includes(name));
      from += size;
      await this.#runWave(wave);
      if (this.#stop.signal.aborted) return;
    }
    const failures = Object.keys(this.flip.failed).length;
    if (failures === 0) await this.#end('completed', '');
    else await this.#end('failed', `${failures} partitions stayed where they were; the report names them`);
  }

  async #runWave(wave: readonly string[]): Promise<void> {
    const queue = [...wave];
    const worker = async (): Promise<void> => {
      for (let partition = queue.shift(); partition !== undefined; partition = queue.shift()) {
        if (this.#stop.signal.aborted) return;
        await this.#movePartition(partition);
        await this.#saveSometimes();
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#parts.settings.batch, wave.length) }, worker));
    await this.#save();
  }

  async #movePartition(partition: string): Promise<void> {
    const { settings, log } = this.#parts;
    const stop = this.#stop.signal;
    let last: HandoffTrouble = { code: 'stopped', detail: 'the flip was stopped before this partition' };
    // A failure that names its own end (a write that settles, a rate limit) is waited out once each time.
    let waits = settings.attempts;
    for (let attempt = 1; attempt <= settings.attempts; attempt += 1) {
      await this.#untilClear();
      if (stop.aborted) return;
      const failure = await this.#tryOnce(partition);
      if (failure === undefined) return;
      last = failure;
      const { retryAfterMs, ...why } = failure;
      log('warn', 'handoff.aborted', { flip: this.flip.id, partition, attempt, retryAfterMs, ...why });
      if (failure.code === 'stopped-by-operator') return;
      if (retryAfterMs !== undefined && retryAfterMs <= longestWaitMs && waits > 0) {
        waits -= 1;
        attempt -= 1;
        await pauseOrStop(retryAfterMs + 10, stop);
      } else if (attempt < settings.attempts) {
        await pauseOrStop(200 * 2 ** attempt * (0.5 + Math.random()), stop);
      }
    }
    this.flip.failed[partition] = { code: last.code, detail: last.detail };
  }

  /** One attempt; undefined when the partition is at the new owner. */
  async #tryOnce(partition: string): Promise<HandoffTrouble | undefined> {
    const { copies, log } = this.#parts;
    const { plan, by, reason, id } = this.flip;
    try {
      const ownership = await this.#untilOpen(partition);
      if (ownership.phase !== 'open') {
        return {
          code: ownership.phase,
          detail: `an earlier handoff left it ${ownership.phase}; it reopens by itself`,
        };
      }
      if (ownership.owner === plan.to) {
        this.flip.moved[partition] ??= 0;
        return undefined;
      }
      const lagging = await this.#bringUp(partition, copies);
      if (lagging !== undefined) return lagging;
      // The copying took its time: nobody may have fallen silent, and nobody have paused, meanwhile.
      await this.#untilClear();
      if (this.#stop.signal.aborted) return { code: 'stopped-by-operator', detail: 'the flip was stopped' };
      const request = {
        partition,
        from: otherStore(plan.to),
        by: `flip ${id} (${by})`,
        reason,
        stop: this.#stop.signal,
      };
      const report = await attemptHandoff(this.#parts, request);
      if (report.outcome === 'aborted') return report;
      this.flip.moved[partition] = report.pauseMs;
      log('info', 'handoff.moved', {
        flip: id,
        partition,
        to: plan.to,
        pauseMs: report.pauseMs,
        ...report.proof,
        stepsMs: report.stepsMs,
      });
      return undefined;
    } catch (error) {
      const waitMs = error instanceof StoreFailure ? error.retryAfterMs : undefined;
      const retryAfter = waitMs === undefined ? {} : { retryAfterMs: waitMs };
      return { code: 'preflight-failed', detail: sentenceOf(error), ...retryAfter };
    }
  }

  /** A coordinator that died may have left a fence or a commit behind: it is moved on, and waited for. */
  async #untilOpen(partition: string): Promise<Ownership> {
    const { ledger, settings } = this.#parts;
    const untilMs = performance.now() + settings.fenceMs + 2_000;
    for (;;) {
      const { ownership } = await ledger.read(partition);
      const over = performance.now() > untilMs || this.#stop.signal.aborted;
      if (ownership.phase === 'open' || over) return ownership;
      await moveOn(ledger, partition, ownership, `flip ${this.flip.id}`);
      await pause(lookAgainMs);
    }
  }

  /** Before the fence: the copy must be complete, and comparing it must fit the lag gate. */
  async #bringUp(partition: string, copies: FlipParts['copies']): Promise<HandoffTrouble | undefined> {
    const { maxLagMs } = this.#parts.settings;
    const report = await copies.bringUp(partition, this.#stop.signal);
    const problem = report.problems[0];
    if (problem !== undefined) {
      return {
        code: 'unusable-records',
        detail: `${report.problems.length} records cannot be copied; first: ${problem.detail}`,
      };
    }
    if (report.lastPassMs > maxLagMs) {
      const took = Math.round(report.lastPassMs);
      return {
        code: 'lag-over-gate',
        detail: `comparing this partition took ${took} ms, over flip.maxLagMs (${maxLagMs} ms): the fence would be as long. Let its lists answer faster or in larger pages, or raise flip.maxLagMs and flip.fenceMs`,
      };
    }
    return undefined;
  }

  /** Waits while the operator has paused, a member is stale, or the ledger is away: no attempt is spent. */
  async #untilClear(): Promise<void> {
    const stop = this.#stop.signal;
    let waited = false;
    while (!stop.aborted) {
      const obstacle = await this.#obstacle();
      const pausedByOperator = this.flip.pausedBy !== undefined;
      const unproven = this.#parts.members.health().unproven.length > 0;
      if (obstacle === undefined && !pausedByOperator && !unproven) break;
      if (obstacle !== undefined || pausedByOperator) waited = true;
      if (obstacle !== undefined && !pausedByOperator) await this.#set('paused', obstacle);
      await pauseOrStop(lookAgainMs, stop);
    }
    if (waited && !stop.aborted) await this.#set('running', '');
  }

  async #obstacle(): Promise<string | undefined> {
    const { fresh, unproven, stale } = this.#parts.members.health();
    if (stale.length > 0 || fresh.length + unproven.length === 0) return staleSentence(stale);
    try {
      await this.#parts.ledger.nowMs();
      return undefined;
    } catch (error) {
      return `ledger-unreachable: ${sentenceOf(error)}; goes on by itself when Redis answers`;
    }
  }

  async #set(state: FlipStateName, detail: string): Promise<void> {
    if (this.flip.state === state && this.flip.detail === detail) return;
    this.flip.state = state;
    this.flip.detail = detail;
    await this.#save();
  }

  async #end(state: FlipStateName, detail: string): Promise<void> {
    this.flip.endedAtMs = await this.#parts.ledger.nowMs().catch(() => Date.now());
    this.flip.state = state;
    this.flip.detail = detail;
    this.#parts.log('info', 'flip.ended', { flip: this.flip.id, state, detail });
    // The report must not be lost because Redis is away for a moment; what moved is in the ledger anyway.
    for (let tries = 1; tries <= savesTried && !(await this.#save()); tries += 1) await pause(saveAgainMs);
  }

  /** False when the ledger was away: the next save carries what this one could not. */
  async #save(): Promise<boolean> {
    try {
      await this.#parts.save(this.flip);
      return true;
    } catch (error) {
      this.#parts.log('warn', 'flip.not-saved', { flip: this.flip.id, error: sentenceOf(error) });
      return false;
    }
  }

  async #saveSometimes(): Promise<void> {
    if (performance.now() - this.#savedAtMs < saveEveryMs) return;
    this.#savedAtMs = performance.now();
    await this.#save();
  }
}

export function statusOf(flip: StoredFlip): FlipStatus {
  const { plan } = flip;
  const committed = Object.keys(flip.moved).length;
  const failures: BlockedPartition[] = Object.entries(flip.failed).map(([partition, why]) => ({
    partition,
    ...why,
  }));
  const pauses = quantiles(Object.values(flip.moved));
  return {
    id: flip.id,
    cohort: plan.cohort,
    to: plan.to,
    state: flip.state,
    detail: flip.detail,
    by: flip.by,
    reason: flip.reason,
    createdAtMs: plan.createdAtMs,
    ...(flip.endedAtMs === undefined ? {} : { endedAtMs: flip.endedAtMs }),
    total: plan.flip.length,
    committed,
    aborted: failures.length,
    pending: plan.flip.length - committed - failures.length,
    blocked: [...plan.blocked, ...failures],
    ...(pauses === undefined ? {} : { pauseMs: pauses }),
  };
}

function quantiles(values: readonly number[]): Quantiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

function staleSentence(stale: readonly { id: string; host: string; pid: number }[]): string {
  if (stale.length === 0) return 'no-members: no proxy is registered; start one';
  const names = stale.map((member) => `${member.id} (pid ${member.pid} on ${member.host})`).join(', ');
  return `stale-member: no heartbeat from ${names}; goes on by itself when it answers or is proven gone`;
}

/** Ends early, without an error, when the flip is stopped. */
async function pauseOrStop(waitMs: number, stop: AbortSignal): Promise<void> {
  await pause(waitMs, stop).catch(() => undefined);
}
