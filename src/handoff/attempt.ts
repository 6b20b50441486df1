/**
 * One attempt to move one partition: drives core's handoff machine, executes its orders against ledger,
 * members, guards and sync, and feeds back what happened.
 */
import { randomUUID } from 'node:crypto';
import { writtenSinceSeal } from '../core/guard.ts';
import {
  commitWithinMs,
  isOver,
  startHandoff,
  stepHandoff,
  type HandoffEvent,
  type HandoffFailure,
  type HandoffOrder,
  type HandoffState,
  type HandoffStep,
} from '../core/handoff.ts';
import { type Ledger, type LedgerRecord, type MemberAcknowledgement, StoreFailure } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import type { AttemptParts, AttemptReport, AttemptRequest } from './attempt-terms.ts';
import { FenceFreeze } from './frozen.ts';
import { watchAwaited } from './members.ts';
import { type SharedQuestions, shareQuestions } from './shared-questions.ts';

export type { AttemptParts, AttemptReport, AttemptRequest } from './attempt-terms.ts';

/** Pause before an unknown transition is looked at again, ms. */
const rereadPauseMs = 50;

export async function attemptHandoff(parts: AttemptParts, request: AttemptRequest): Promise<AttemptReport> {
  return new Attempt(parts, request).run();
}

class Attempt {
  readonly #parts: AttemptParts;
  readonly #shared: SharedQuestions;
  readonly #request: AttemptRequest;
  readonly #attempt = randomUUID();
  readonly #freeze: FenceFreeze;
  readonly #events: HandoffEvent[] = [];
  readonly #early: MemberAcknowledgement[] = [];
  /** Ends the work inside the fence when the attempt turns to abort. */
  readonly #work = new AbortController();
  readonly #stepsMs: Partial<Record<HandoffStep, number>> = {};
  #stepSinceMs = performance.now();
  #notify: () => void = () => undefined;
  #state: HandoffState;
  #orders: readonly HandoffOrder[];
  /** The machine has been told of the fence, so acknowledgements may follow. */
  #entered = false;
  #fenced: LedgerRecord | undefined;
  #committed: LedgerRecord | undefined;
  #reopened: LedgerRecord | undefined;

  constructor(parts: AttemptParts, request: AttemptRequest) {
    this.#parts = parts;
    this.#shared = parts.shared ?? shareQuestions(parts.ledger);
    this.#request = request;
    this.#freeze = new FenceFreeze(parts.freezes, request.partition, request.from, this.#attempt);
    const start = startHandoff(request.from, performance.now());
    this.#state = start.state;
    this.#orders = start.orders;
  }

  async run(): Promise<AttemptReport> {
    const { settings, feed } = this.#parts;
    const { stop } = this.#request;
    const forgetAcknowledgements = feed.onAcknowledgement((acknowledgement) => this.#hear(acknowledgement));
    const onStop = (): void => this.#tell({ event: 'stop', detail: 'the operator stopped the flip' });
    stop.addEventListener('abort', onStop, { once: true });
    const running: Promise<void>[] = [];
    const ticks: NodeJS.Timeout[] = [];
    let unwatch = (): void => undefined;
    try {
      for (;;) {
        for (const order of this.#orders) running.push(this.#carryOut(order));
        if (isOver(this.#state)) break;
        const event = await this.#nextEvent();
        const move = stepHandoff(this.#state, event, performance.now(), settings);
        if (event.event === 'fenced') {
          ticks.push(this.#tickAfter(settings.drainMs), this.#tickAfter(commitWithinMs(settings)));
          unwatch = this.#watchAwaited();
        }
        if (move.state.step === 'aborting') this.#work.abort();
        if (move.state.step !== 'draining') unwatch();
        this.#clockStep(move.state.step);
        this.#state = move.state;
        this.#orders = move.orders;
      }
      await Promise.all(running);
      return this.#report();
    } finally {
      forgetAcknowledgements();
      stop.removeEventListener('abort', onStop);
      unwatch();
      for (const tick of ticks) clearTimeout(tick);
    }
  }

  #watchAwaited(): () => void {
    const gone = (member: string): void => this.#tell({ event: 'member-gone', member });
    return watchAwaited(this.#parts.members, () => this.#state.awaiting, gone);
  }

  #clockStep(next: HandoffStep): void {
    if (next === this.#state.step) return;
    const nowMs = performance.now();
    this.#stepsMs[this.#state.step] = Math.round((nowMs - this.#stepSinceMs) * 10) / 10;
    this.#stepSinceMs = nowMs;
  }

  #report(): AttemptReport {
    const fencedAtMs = this.#fenced?.changedAtMs;
    const reopenedAtMs = this.#reopened?.changedAtMs;
    const pauseMs = fencedAtMs !== undefined && reopenedAtMs !== undefined ? reopenedAtMs - fencedAtMs : 0;
    const { step, proof, failure } = this.#state;
    if (step === 'done' && proof !== undefined)
      return { outcome: 'moved', pauseMs, proof, stepsMs: this.#stepsMs };
    const why = failure ?? { code: 'commit-refused', detail: 'somebody else reopened the partition' };
    const { awaiting } = this.#state;
    return { outcome: 'aborted', pauseMs, ...why, ...(why.code === 'drain-timeout' ? { awaiting } : {}) };
  }

  // --- orders --------------------------------------------------------------------------------------

  async #carryOut(order: HandoffOrder): Promise<void> {
    const { guards, copies } = this.#parts;
    const { partition } = this.#request;
    switch (order.order) {
      case 'fence':
        return this.#fence();
      case 'advance-guard':
        if (!(await this.#isFrozen())) return undefined;
        return this.#try('guard-advance-failed', async () => {
          const { store, epoch } = order;
          const answer = await guards.advance(store, { partition, epoch }, this.#work.signal);
          // Said of this very advance, so that nothing under an older epoch can follow it.
          const written = answer?.epoch === epoch ? writtenSinceSeal(answer) : undefined;
          return { event: 'guard-advanced', written };
        });
      case 'catch-up':
        if (!(await this.#isFrozen())) return undefined;
        return this.#try('catch-up-failed', async () => {
          await pauseUntil(order.notBeforeMs, this.#work.signal);
          const proof = await copies.catchUp(partition, this.#attempt, this.#work.signal);
          return { event: 'caught-up', proof };
        });
      case 'seal-guard':
        return this.#try('guard-seal-failed', async () => {
          await guards.seal(order.store, { partition, epoch: order.epoch }, this.#work.signal);
          return { event: 'guard-sealed' };
        });
      case 'commit':
        return this.#commit();
      case 'release':
        return this.#release();
      case 'abort':
        return this.#abort();
      case 'reread':
        return this.#reread();
    }
  }

  async #isFrozen(): Promise<boolean> {
    try {
      await this.#freeze.freeze(this.#work.signal);
      return true;
    } catch (error) {
      this.#fail('freeze-failed', error);
      return false;
    }
  }

  async #fence(): Promise<void> {
    const { settings } = this.#parts;
    const fence = {
      kind: 'fence',
      to: this.#state.to,
      attempt: this.#attempt,
      fenceMs: settings.fenceMs,
    } as const;
    const result = await this.#order(fence);
    if (result?.result === 'done') return this.#enter(result.record, result.durable);
    if (result?.result === 'refused') {
      this.#tell({ event: 'failed', failure: 'fence-refused', detail: result.refusal.detail });
    }
  }

  async #enter(record: LedgerRecord, durable: boolean): Promise<void> {
    this.#fenced = record;
    const { epoch } = record.ownership;
    try {
      // A guard must not be told of an epoch that a failover can still take back: it would refuse its own users.
      if (!durable && !(await this.#parts.ledger.confirmDurable())) {
        throw new Error('the fence is not confirmed by as many replicas as must have it');
      }
      // Read after the fence: whoever registers later loads a snapshot that shows it.
      const { members, lastDepartureAgeMs } = await this.#shared.roll.answer();
      this.#tell({ event: 'fenced', epoch, members, lastDepartureAgeMs });
      this.#entered = true;
      for (const acknowledgement of this.#early.splice(0)) this.#hear(acknowledgement);
    } catch (error) {
      // Nobody can be waited for, so nothing can be proven: enter the fence, and give it up.
      this.#tell({ event: 'fenced', epoch, members: ['unknown'], lastDepartureAgeMs: 0 });
      this.#tell({ event: 'failed', failure: 'fence-not-durable', detail: sentenceOf(error) });
    }
  }

  /** By now every member has drained, so the link of every write that was ever forwarded is noted. */
  async #commit(): Promise<void> {
    const cut = await this.#request.whyCut?.();
    if (cut !== undefined) {
      this.#tell({ event: 'failed', failure: cut.code, detail: cut.detail });
      return;
    }
    try {
      const { fencedAtMs, to } = this.#state;
      const leftMs = fencedAtMs + commitWithinMs(this.#parts.settings) - performance.now();
      await this.#freeze.thaw(to, leftMs);
    } catch (error) {
      this.#fail('unfreeze-failed', error);
      return;
    }
    const result = await this.#order({ kind: 'commit', attempt: this.#attempt }, this.#fenced);
    if (result?.result === 'done') {
      this.#committed = result.record;
      this.#tell({ event: 'committed' });
    }
    if (result?.result === 'refused') {
      this.#tell({ event: 'failed', failure: 'commit-refused', detail: result.refusal.detail });
    }
  }

  /** Only once the commit is durable; members move on whatever this process leaves behind. */
  async #release(): Promise<void> {
    try {
      while (!(await this.#shared.durable.answer())) await pause(rereadPauseMs);
    } catch {
      this.#tell({ event: 'transition-unknown' });
      return;
    }
    const result = await this.#order({ kind: 'release', attempt: this.#attempt }, this.#committed);
    if (result?.result === 'done') {
      this.#reopened = result.record;
      this.#tell({ event: 'released' });
    }
    if (result?.result === 'refused') this.#judge(result.record);
  }

  async #abort(): Promise<void> {
    await this.#freeze.giveBack();
    const result = await this.#order({ kind: 'abort', attempt: this.#attempt });
    if (result?.result === 'done') {
      this.#reopened = result.record;
      this.#tell({ event: 'aborted' });
    }
    if (result?.result === 'refused') this.#judge(result.record);
  }

  /** Nothing is assumed after a broken connection: the ledger's record says how far this attempt is. */
  async #reread(): Promise<void> {
    await pause(rereadPauseMs);
    try {
      this.#judge(await this.#parts.ledger.read(this.#request.partition));
    } catch {
      this.#tell({ event: 'transition-unknown' });
    }
  }

  /** A ledger that refuses what should be possible (it lost data) is not asked without rest. */
  async #soon(order: () => Promise<void>): Promise<void> {
    await pause(rereadPauseMs);
    await order();
  }

  #judge(record: LedgerRecord): void {
    const { ownership } = record;
    const { step, to } = this.#state;
    const mine = ownership.phase !== 'open' && ownership.attempt === this.#attempt;
    if (mine && ownership.phase === 'committed') {
      if (step === 'releasing') void this.#soon(() => this.#release());
      else this.#tell({ event: 'committed' });
      return;
    }
    if (mine) {
      if (step === 'fencing') void this.#enter(record, false);
      else if (step === 'aborting') void this.#soon(() => this.#abort());
      else
        this.#tell({ event: 'failed', failure: 'commit-refused', detail: 'the commit did not take place' });
      return;
    }
    if (step === 'fencing') {
      this.#tell({ event: 'failed', failure: 'fence-refused', detail: 'the fence is not in the ledger' });
      return;
    }
    this.#reopened = record;
    // Open again: at the new owner only if somebody released our commit, else at the old one.
    const passed = this.#fenced !== undefined && ownership.epoch >= this.#fenced.ownership.epoch + 2;
    if (ownership.owner === to && passed) {
      if (step !== 'releasing') this.#tell({ event: 'committed' });
      this.#tell({ event: 'released' });
    } else this.#tell({ event: 'aborted' });
  }

  async #order(
    order: Parameters<Ledger['order']>[0]['order'],
    seen?: LedgerRecord,
  ): Promise<Awaited<ReturnType<Ledger['order']>> | undefined> {
    const { partition, by, reason } = this.#request;
    try {
      const result = await this.#parts.ledger.order({ partition, order, seen, by, reason });
      if (result.result === 'unknown') this.#tell({ event: 'transition-unknown' });
      return result;
    } catch {
      this.#tell({ event: 'transition-unknown' });
      return undefined;
    }
  }

  async #try(failure: HandoffFailure, work: () => Promise<HandoffEvent>): Promise<void> {
    try {
      this.#tell(await work());
    } catch (error) {
      this.#fail(failure, error);
    }
  }

  #fail(failure: HandoffFailure, error: unknown): void {
    const waitMs = error instanceof StoreFailure ? error.retryAfterMs : undefined;
    const retryAfter = waitMs === undefined ? {} : { retryAfterMs: waitMs };
    this.#tell({ event: 'failed', failure, detail: sentenceOf(error), ...retryAfter });
  }

  // --- events --------------------------------------------------------------------------------------

  #hear(acknowledgement: MemberAcknowledgement): void {
    if (acknowledgement.attempt !== this.#attempt || acknowledgement.partition !== this.#request.partition)
      return;
    if (!this.#entered) {
      this.#early.push(acknowledgement);
      return;
    }
    const { member, answer, lastWriteAgeMs, settlesInMs } = acknowledgement;
    this.#tell({ event: 'acknowledged', member, answer, lastWriteAgeMs, settlesInMs });
  }

  #tell(event: HandoffEvent): void {
    this.#events.push(event);
    this.#notify();
  }

  async #nextEvent(): Promise<HandoffEvent> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) return event;
      await new Promise<void>((resolve) => (this.#notify = resolve));
    }
  }

  #tickAfter(afterMs: number): NodeJS.Timeout {
    return setTimeout(() => this.#tell({ event: 'tick' }), afterMs + 1);
  }
}

async function pauseUntil(untilMs: number, signal: AbortSignal): Promise<void> {
  const leftMs = untilMs - performance.now();
  if (leftMs > 0) await pause(leftMs, signal);
}
