/** The handoff as operators see it: plans and flips by name, kept in the ledger. */
import { randomUUID } from 'node:crypto';
import { resolveCohort } from '../core/cohort.ts';
import type { FlipDesk, FlipRequest, FlipStatus, NamedCohort, OrderRefusal, Plan } from '../core/flip.ts';
import type { StoreName } from '../core/ownership.ts';
import { FlipRun, statusOf, type FlipParts, type StoredFlip } from './flip.ts';
import { makePlan, type PlanParts } from './plan.ts';

export interface Shelf<Entry> {
  get(name: string): Promise<Entry | undefined>;
  put(name: string, entry: Entry): Promise<void>;
  all(): Promise<Entry[]>;
}

export interface DeskParts extends PlanParts, Omit<FlipParts, 'save' | 'members'> {
  readonly plans: Shelf<Plan>;
  readonly flips: Shelf<StoredFlip>;
  /** From the file and from the API. */
  readonly listCohorts: () => Promise<NamedCohort[]>;
  readonly waves: readonly string[];
}

/** How long a stopping coordinator waits for handoffs under way; longer than any fence by default. */
const leaveWithinMs = 5_000;

export class HandoffDesk implements FlipDesk {
  readonly #parts: DeskParts;
  readonly #runs = new Map<string, FlipRun>();
  /** Starts are taken one at a time, so that two orders cannot reserve the same partition. */
  #starting: Promise<unknown> = Promise.resolve();

  constructor(parts: DeskParts) {
    this.#parts = parts;
  }

  /** Goes on with the flips that a coordinator left unfinished. */
  async resumeAll(): Promise<void> {
    for (const flip of await this.#parts.flips.all()) {
      if (flip.state === 'running' || flip.state === 'paused') this.#launch(flip);
    }
  }

  async stop(): Promise<void> {
    await Promise.all(
      [...this.#runs.values()].filter((run) => !run.over).map((run) => run.leave(leaveWithinMs)),
    );
  }

  cohorts(): Promise<NamedCohort[]> {
    return this.#parts.listCohorts();
  }

  async partitionsOf(name: string): Promise<string[] | undefined> {
    const cohort = await this.#cohort(name);
    return cohort && resolveCohort(cohort.selection, await this.#parts.registry.all());
  }

  async plan(request: {
    cohort: string;
    to: StoreName;
    by: string;
    waves?: readonly string[] | undefined;
  }): Promise<Plan | OrderRefusal> {
    const cohort = await this.#cohort(request.cohort);
    if (cohort === undefined) return this.#noSuchCohort(request.cohort);
    await this.#parts.members.look();
    const plan = await makePlan(this.#parts, {
      cohort,
      to: request.to,
      by: request.by,
      waves: request.waves ?? this.#parts.waves,
      reserved: this.#reserved(),
    });
    await this.#parts.plans.put(plan.id, plan);
    return plan;
  }

  start(request: FlipRequest): Promise<FlipStatus | OrderRefusal> {
    const started = this.#starting.then(() => this.#start(request));
    this.#starting = started.catch(() => undefined);
    return started;
  }

  async flips(): Promise<FlipStatus[]> {
    const stored = await this.#parts.flips.all();
    return stored
      .map((flip) => statusOf(this.#runs.get(flip.id)?.flip ?? flip))
      .toSorted((a, b) => a.createdAtMs - b.createdAtMs);
  }

  async flip(id: string): Promise<FlipStatus | undefined> {
    const flip = this.#runs.get(id)?.flip ?? (await this.#parts.flips.get(id));
    return flip && statusOf(flip);
  }

  async pause(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, (run) => run.pause(by, reason));
  }

  async resume(id: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, (run) => run.resume());
  }

  async abort(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#steer(id, (run) => run.abort(by, reason));
  }

  async #start(request: FlipRequest): Promise<FlipStatus | OrderRefusal> {
    const planned =
      request.planId === undefined
        ? await this.plan(request)
        : await this.#checkedPlan(request.planId, request);
    if ('refused' in planned) return planned;
    if (planned.blockers.length > 0 || (planned.flip.length === 0 && planned.blocked.length > 0)) {
      return {
        refused: 'nothing-can-move',
        detail:
          'A check failed, so nothing was fenced and nothing was changed. Mend what is listed and order the flip again.',
        blockers: planned.blockers,
        blocked: planned.blocked,
      };
    }
    const flip: StoredFlip = {
      id: randomUUID(),
      plan: planned,
      waves: request.waves ?? this.#parts.waves,
      by: request.by,
      reason: request.reason,
      state: 'running',
      detail: '',
      moved: {},
      failed: {},
    };
    await this.#parts.flips.put(flip.id, flip);
    this.#launch(flip);
    return statusOf(flip);
  }

  /** A plan may be used while every partition in it is where it was, and the cohort selects the same. */
  async #checkedPlan(id: string, request: FlipRequest): Promise<Plan | OrderRefusal> {
    const old = await this.#parts.plans.get(id);
    if (old === undefined)
      return { refused: 'no-such-plan', detail: `There is no plan ${id}. Make a new one.` };
    const now = await this.plan(request);
    if ('refused' in now) return now;
    const moved = old.flip.filter((partition) => now.epochs[partition] !== old.epochs[partition]);
    const same =
      old.cohort === request.cohort && old.to === request.to && old.membershipHash === now.membershipHash;
    if (moved.length === 0 && same) return { ...now, flip: old.flip, epochs: old.epochs, id: old.id };
    return {
      refused: 'stale-plan',
      detail: `The ledger or the cohort has changed since plan ${id} was made (${moved.length} partitions moved on). Nothing was changed. Plan again.`,
    };
  }

  async #steer(id: string, order: (run: FlipRun) => Promise<void>): Promise<FlipStatus | OrderRefusal> {
    const run = this.#runs.get(id);
    if (run !== undefined && !run.over) {
      await order(run);
      return statusOf(run.flip);
    }
    const known = run?.flip ?? (await this.#parts.flips.get(id));
    if (known === undefined) return { refused: 'no-such-flip', detail: `There is no flip ${id}.` };
    return {
      refused: 'wrong-state',
      detail: `Flip ${id} is ${known.state}; there is nothing left to steer.`,
    };
  }

  #launch(flip: StoredFlip): void {
    const run = new FlipRun(
      { ...this.#parts, save: (state) => this.#parts.flips.put(state.id, state) },
      flip,
    );
    this.#runs.set(flip.id, run);
    run.start();
  }

  #reserved(): Map<string, string> {
    const reserved = new Map<string, string>();
    for (const run of this.#runs.values()) {
      if (run.over) continue;
      for (const partition of run.pending()) reserved.set(partition, run.flip.id);
    }
    return reserved;
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
