/**
 * The handoff as operators see it: plans and flips by name, kept in the ledger. Any number of admin processes can
 * have a desk on one ledger. A flip is run by one of them at a time; the others show it, and pass orders on to it.
 */
import { randomUUID } from 'node:crypto';
import { resolveCohort } from '../core/cohort.ts';
import {
  type FlipDesk,
  type FlipRequest,
  type FlipStatus,
  hasEnded,
  type NamedCohort,
  type NamedPartitionReport,
  type OrderRefusal,
  type Plan,
} from '../core/flip.ts';
import { wholeWaves } from '../core/links.ts';
import { waveSizes } from '../core/waves.ts';
import type { FlipBook, FlipHead, FlipOrderKind, FlipProgress, FlipToRun } from '../ledger/flips.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { type FlipParts, FlipRun } from './flip-run.ts';
import { defaultLeadMs, FlipLead } from './lead.ts';
import { makePlan, type PlanParts } from './plan.ts';
import { shareQuestions } from './shared-questions.ts';
import { statusOf } from './status.ts';
import { nothingCanMove } from './way-back.ts';

export interface Shelf<Entry> {
  get(name: string): Promise<Entry | undefined>;
  put(name: string, entry: Entry): Promise<void>;
}

export interface DeskParts extends Omit<PlanParts, 'settings'>, Omit<FlipParts, 'shared'> {
  readonly members: FlipParts['members'];
  readonly plans: Shelf<Plan>;
  readonly flips: FlipBook;
  /** From the file and from the API. */
  readonly listCohorts: () => Promise<NamedCohort[]>;
  readonly waves: readonly string[];
  /** How long a flip waits for a coordinator that died, ms. */
  readonly leadMs?: number;
}

/** How long a stopping coordinator waits for handoffs under way; longer than any fence by default. */
const leaveWithinMs = 5_000;
/** How often a coordinator looks for orders to its flips, and for flips that nobody runs. */
const lookEveryMs = 250;
/** How long an order is waited for: another coordinator may have to take the flip over first. */
const heedWithinMs = 2_000;
const abortWithinMs = 10_000;
const askAgainMs = 20;
/** Others may reserve a partition between the plan and the start; then it is planned again. */
const startsTried = 3;

type PlanOrder = Omit<FlipRequest, 'reason' | 'planId'>;

export class HandoffDesk implements FlipDesk {
  readonly #parts: DeskParts & FlipParts;
  readonly #leadMs: number;
  readonly #runs = new Map<string, FlipRun>();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #stopped = false;

  constructor(parts: DeskParts) {
    this.#parts = { ...parts, shared: shareQuestions(parts.ledger) };
    this.#leadMs = parts.leadMs ?? defaultLeadMs;
  }

  /** From now on takes up every flip that no living coordinator runs. */
  async coordinate(): Promise<void> {
    this.#timer = setInterval(() => void this.#look(), lookEveryMs);
    await this.#look();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#looking;
    await Promise.all([...this.#runs.values()].map((run) => run.leave(leaveWithinMs)));
  }

  cohorts(): Promise<NamedCohort[]> {
    return this.#parts.listCohorts();
  }

  async partitionsOf(name: string): Promise<string[] | undefined> {
    const cohort = await this.#cohort(name);
    return cohort && resolveCohort(cohort.selection, await this.#parts.registry.all());
  }

  async plan(request: PlanOrder): Promise<Plan | OrderRefusal> {
    const plan = await this.#draw(request);
    if (!('refused' in plan)) await this.#parts.plans.put(plan.id, plan);
    return plan;
  }

  async start(request: FlipRequest): Promise<FlipStatus | OrderRefusal> {
    for (let tries = 1; ; tries += 1) {
      const planned =
        request.planId === undefined
          ? await this.plan(request)
          : await this.#checkedPlan(request.planId, request);
      if ('refused' in planned) return planned;
      if (planned.blockers.length > 0 || (planned.flip.length === 0 && planned.blocked.length > 0)) {
        return nothingCanMove(planned);
      }
      const started = await this.#startPlanned(request, planned);
      if (!('taken' in started)) return started;
      if (tries === startsTried) {
        return {
          refused: 'nothing-can-move',
          detail: `Flip ${started.holder} was ordered at the same time and is moving ${started.taken}. Nothing was changed. Order the flip again.`,
        };
      }
    }
  }

  async flips(): Promise<FlipStatus[]> {
    const kept = await this.#parts.flips.all();
    return kept
      .map((flip) => this.#runHere(flip.head.id)?.status() ?? statusOf(flip))
      .toSorted((a, b) => a.createdAtMs - b.createdAtMs);
  }

  async flip(id: string): Promise<FlipStatus | undefined> {
    const here = this.#runHere(id);
    if (here !== undefined) return here.status();
    const kept = await this.#parts.flips.flip(id);
    return kept && statusOf(kept);
  }

  async flipPartitions(id: string): Promise<readonly string[] | undefined> {
    const kept = await this.#parts.flips.flip(id);
    return kept && (await this.#parts.flips.partitions(id)).toSorted();
  }

  async flipReports(id: string, partitions: readonly string[]): Promise<NamedPartitionReport[]> {
    const reports = await this.#parts.flips.reports(id, partitions);
    return partitions.map((partition, at) => ({
      partition,
      ...(reports[at] ?? { outcome: 'pending', attempts: 0 }),
    }));
  }

  pause(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, 'pause', by, reason);
  }

  resume(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, 'resume', by, reason);
  }

  abort(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, 'abort', by, reason);
  }

  // --- starting --------------------------------------------------------------------------------------

  /** A plan that nobody can name yet. */
  async #draw(request: PlanOrder): Promise<Plan | OrderRefusal> {
    const cohort = await this.#cohort(request.cohort);
    if (cohort === undefined) return this.#noSuchCohort(request.cohort);
    await this.#parts.members.look();
    return makePlan(this.#parts, {
      ...{ cohort, to: request.to, by: request.by },
      waves: request.waves ?? this.#parts.waves,
      reserved: await this.#parts.flips.reserved(),
    });
  }

  async #startPlanned(
    request: FlipRequest,
    planned: Plan,
  ): Promise<FlipStatus | { readonly taken: string; readonly holder: string }> {
    const head: FlipHead = {
      id: randomUUID(),
      planId: planned.id,
      ...{ cohort: planned.cohort, to: planned.to, createdAtMs: planned.createdAtMs },
      ...{ by: request.by, reason: request.reason },
      waveSizes: [...planned.waveSizes],
      total: planned.flip.length,
      blocked: [...planned.blocked],
    };
    const progress: FlipProgress = {
      ...{ state: 'running', detail: '' },
      ...{ gatesPassed: 0, heeded: 0, committed: 0, aborted: 0 },
    };
    const { flips } = this.#parts;
    const sentAtMs = performance.now();
    const started = await flips.start(head, planned.flip, progress, this.#leadMs);
    if (!started.started) return { taken: started.partition, holder: started.holder };
    const nothing = { order: undefined, failed: new Map(), reports: new Map() };
    const run = this.#launch(
      { head, progress, partitions: planned.flip, ...nothing },
      started.term,
      sentAtMs,
    );
    return run.status();
  }

  /** A plan may be used while every partition in it is where it was, and the cohort selects the same. */
  async #checkedPlan(id: string, request: FlipRequest): Promise<Plan | OrderRefusal> {
    const old = await this.#parts.plans.get(id);
    if (old === undefined)
      return { refused: 'no-such-plan', detail: `There is no plan ${id}. Make a new one.` };
    const now = await this.#draw(request);
    if ('refused' in now) return now;
    const moved = old.flip.filter((partition) => now.epochs[partition] !== old.epochs[partition]);
    const same =
      old.cohort === request.cohort && old.to === request.to && old.membershipHash === now.membershipHash;
    if (moved.length > 0 || !same) {
      return {
        refused: 'stale-plan',
        detail: `The ledger or the cohort has changed since plan ${id} was made (${moved.length} partitions moved on). Nothing was changed. Plan again.`,
      };
    }
    const sizes = await this.#sizesNow(old, request.waves);
    if (sizes.join() !== old.waveSizes.join()) {
      return {
        refused: 'stale-plan',
        detail: `Plan ${id} shows waves of ${old.waveSizes.join(', ')} partitions; as ordered, and as partitions are linked now, they would be ${sizes.join(', ')}. Nothing was changed. Plan again.`,
      };
    }
    return { ...now, flip: old.flip, epochs: old.epochs, id: old.id, waveSizes: old.waveSizes };
  }

  /** Sizes that the waves of a plan would have now; its own, where others are not ordered and no link parts them. */
  async #sizesNow(old: Plan, waves: readonly string[] | undefined): Promise<number[]> {
    const { flip } = old;
    const partners = await this.#parts.links.partnersOf(flip);
    const sizes = waves === undefined ? old.waveSizes : waveSizes(flip.length, waves);
    return wholeWaves(sizes, flip, (partition) => partners.get(partition) ?? []);
  }

  // --- coordinating ----------------------------------------------------------------------------------

  #launch(flip: FlipToRun, term: number, sentAtMs: number): FlipRun {
    const { head } = flip;
    const run = new FlipRun(
      this.#parts,
      flip,
      new FlipLead(this.#parts.flips, head.id, term, this.#leadMs, sentAtMs),
    );
    this.#runs.set(head.id, run);
    run.start();
    return run;
  }

  #look(): Promise<void> {
    this.#looking ??= this.#lookOnce()
      // Redis is away: what is under way waits for it, too.
      .catch((error: unknown) => this.#parts.log('warn', 'flips.not-seen', { error: sentenceOf(error) }))
      .finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    const { flips } = this.#parts;
    for (const [id, run] of this.#runs) if (run.over || !run.current) this.#runs.delete(id);
    const mine = [...this.#runs.values()];
    const orders = await flips.orders(mine.map((run) => run.id));
    for (const [at, run] of mine.entries()) {
      const order = orders[at];
      if (order !== undefined) run.heed(order);
    }
    for (const id of await flips.active()) {
      if (!this.#runs.has(id) && !this.#stopped) await this.#take(id);
    }
  }

  async #take(id: string): Promise<void> {
    const { flips, log } = this.#parts;
    const sentAtMs = performance.now();
    const term = await flips.take(id, this.#leadMs);
    if (term === undefined) return;
    const flip = await flips.toRun(id);
    if (flip === undefined || hasEnded(flip.progress.state)) return;
    log('info', 'flip.taken-over', { flip: id, term });
    this.#launch(flip, term, sentAtMs);
  }

  #runHere(id: string): FlipRun | undefined {
    const run = this.#runs.get(id);
    return run?.current === true ? run : undefined;
  }

  /** Every order goes through the ledger, also to a flip of this process: one way, whoever runs it. */
  async #steer(
    id: string,
    kind: FlipOrderKind,
    by: string,
    reason: string,
  ): Promise<FlipStatus | OrderRefusal> {
    const { flips } = this.#parts;
    const given = await flips.order(id, kind, by, reason);
    switch (given.ordered) {
      case 'no-such-flip':
        return { refused: 'no-such-flip', detail: `There is no flip ${id}.` };
      case 'ended':
        return this.#nothingToSteer(id, (await this.flip(id))?.state ?? 'over');
      case 'aborting':
        if (kind !== 'abort') return this.#nothingToSteer(id, 'being aborted');
        break;
      case 'yes':
        this.#runHere(id)?.heed({ number: given.number, kind, by, reason });
        break;
    }
    const untilMs = performance.now() + (kind === 'abort' ? abortWithinMs : this.#leadMs + heedWithinMs);
    for (;;) {
      const kept = await flips.flip(id);
      if (kept === undefined) return { refused: 'no-such-flip', detail: `There is no flip ${id}.` };
      const heeded = kept.progress.heeded >= given.number;
      const done = hasEnded(kept.progress.state) || (heeded && kind !== 'abort');
      if (done || performance.now() > untilMs) return statusOf(kept);
      await pause(askAgainMs);
    }
  }

  #nothingToSteer(id: string, state: string): OrderRefusal {
    return { refused: 'wrong-state', detail: `Flip ${id} is ${state}; there is nothing left to steer.` };
  }

  async #cohort(name: string): Promise<NamedCohort | undefined> {
    return (await this.cohorts()).find((cohort) => cohort.name === name);
  }

  async #noSuchCohort(name: string): Promise<OrderRefusal> {
    const names = (await this.cohorts()).map((cohort) => cohort.name).join(', ') || 'none';
    return {
      refused: 'no-such-cohort',
      detail: `There is no cohort ${name}. Known cohorts: ${names}. Nothing was changed.`,
    };
  }
}
