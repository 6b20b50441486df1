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

export class FlipRun {
  readonly flip: StoredFlip;
  readonly #parts: FlipParts;
  readonly #stop = new AbortController();
  #pausedByOperator: boolean;
  #done: Promise<void> = Promise.resolve();
  #savedAtMs = 0;

  constructor(parts: FlipParts, flip: StoredFlip) {
    this.#parts = parts;
    this.flip = flip;
    this.#pausedByOperator = flip.state === 'paused' && flip.detail.startsWith('paused by');
  }

  get over(): boolean {
    return ['completed', 'aborted', 'failed'].includes(this.flip.state);
  }

  start(): void {
    this.#done = this.#run().catch(async (error: unknown) => {
      this.#parts.log('error', 'flip.broke', { flip: this.flip.id, error: String(error) });
      await this.#end(
        'failed',
        `the flip broke off: ${String(error)}; plan it again, what has moved stays moved`,
      );
    });
  }

  /** Partitions that this flip may still fence. */
  pending(): string[] {
    const { plan, moved, failed } = this.flip;
    return plan.flip.filter((partition) => !(partition in moved) && !(partition in failed));
  }

  async pause(by: string, reason: string): Promise<void> {
    this.#pausedByOperator = true;
    await this.#set('paused', `paused by ${by}: ${reason}`);
  }

  async resume(): Promise<void> {
    this.#pausedByOperator = false;
    await this.#set('running', '');
  }

  async abort(by: string, reason: string): Promise<void> {
    this.#stop.abort();
    await this.#done;
    if (!this.over) await this.#end('aborted', `aborted by ${by}: ${reason}`);
  }

  /** Stops working without ending the flip: another coordinator, or this one later, goes on. */
  async leave(): Promise<void> {
    this.#stop.abort();
    await this.#done;
    await this.#parts.save(this.flip);
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
    await this.#parts.save(this.flip);
  }

  async #movePartition(partition: string): Promise<void> {
    const { settings, log } = this.#parts;
    const stop = this.#stop.signal;
    let last = { code: 'stopped', detail: 'the flip was stopped before this partition' };
    for (let attempt = 1; attempt <= settings.attempts; attempt += 1) {
      if (attempt > 1) await pause(100 * 2 ** attempt * (0.5 + Math.random()));
      await this.#untilClear();
      if (stop.aborted) return;
      const failure = await this.#tryOnce(partition);
      if (failure === undefined) return;
      last = failure;
      log('warn', 'handoff.aborted', { flip: this.flip.id, partition, attempt, ...failure });
      if (failure.code === 'stopped-by-operator') return;
    }
    this.flip.failed[partition] = last;
  }

  /** One attempt; undefined when the partition is at the new owner. */
  async #tryOnce(partition: string): Promise<{ code: string; detail: string } | undefined> {
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
      const request = {
        partition,
        from: otherStore(plan.to),
        by: `flip ${id} (${by})`,
        reason,
        stop: this.#stop.signal,
      };
      const report = await attemptHandoff(this.#parts, request);
      if (report.outcome === 'aborted') return { code: report.code, detail: report.detail };
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
      return { code: 'preflight-failed', detail: error instanceof Error ? error.message : String(error) };
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
  async #bringUp(
    partition: string,
    copies: FlipParts['copies'],
  ): Promise<{ code: string; detail: string } | undefined> {
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
        detail: `comparing this partition took ${took} ms, over flip.maxLagMs (${maxLagMs} ms): the fence would be as long`,
      };
    }
    return undefined;
  }

  /** Waits while the operator has paused, or a member is stale: no attempt is spent on either. */
  async #untilClear(): Promise<void> {
    const stop = this.#stop.signal;
    let waited = false;
    while (!stop.aborted) {
      const { fresh, stale } = this.#parts.members.health();
      if (!this.#pausedByOperator && stale.length === 0 && fresh.length > 0) break;
      waited = true;
      if (!this.#pausedByOperator) await this.#set('paused', staleSentence(stale));
      await pause(lookAgainMs);
    }
    if (waited && !stop.aborted) await this.#set('running', '');
  }

  async #set(state: FlipStateName, detail: string): Promise<void> {
    if (this.flip.state === state && this.flip.detail === detail) return;
    this.flip.state = state;
    this.flip.detail = detail;
    await this.#parts.save(this.flip);
  }

  async #end(state: FlipStateName, detail: string): Promise<void> {
    this.flip.endedAtMs = await this.#parts.ledger.nowMs().catch(() => Date.now());
    await this.#set(state, detail);
    this.#parts.log('info', 'flip.ended', { flip: this.flip.id, state, detail });
  }

  async #saveSometimes(): Promise<void> {
    if (performance.now() - this.#savedAtMs < saveEveryMs) return;
    this.#savedAtMs = performance.now();
    await this.#parts.save(this.flip);
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

function pause(forMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, forMs));
}
