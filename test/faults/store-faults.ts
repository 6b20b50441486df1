/** How a store misbehaves on command: which calls, in which way, how often. */
import type { Chance } from './chance.ts';

/** Who calls, for what. `write`: a user's. `guard:seal` and the like: the guard's own calls. */
export type CallKind =
  | 'write'
  | 'copy'
  | 'user-read'
  | 'sync-list'
  | 'sync-read'
  | 'guard:verdict'
  | 'guard:advance'
  | 'guard:seal';

/**
 * `slow`: does it after a while, at most `forMs`. `hang`: neither does it nor answers. `lose-answer`: does it, then breaks the
 * connection. `late`: answers never, and does it up to `forMs` after the caller gave up. `hold`: does nothing
 * until the rule is lifted, then does it; where the caller has gone meanwhile, all the same.
 */
export type Misbehaviour = 'slow' | 'hang' | 'lose-answer' | 'late' | 'hold';

export interface FaultRule {
  readonly name: string;
  readonly calls: readonly CallKind[];
  readonly misbehaviour: Misbehaviour;
  readonly forMs?: number;
  readonly probability?: number;
  /** Only calls for this partition. */
  readonly partition?: string;
  /** Only this many calls. */
  readonly times?: number;
}

/** What a test may tell a store. */
export type StoreOrder =
  | { readonly order: 'add'; readonly rule: FaultRule }
  | { readonly order: 'lift'; readonly name: string }
  | { readonly order: 'lift-all' };

/** What a store tells the test. */
export interface StoreNews {
  readonly news: 'held';
  readonly rule: string;
}

interface Standing {
  readonly rule: FaultRule;
  left: number;
  readonly lifted: Promise<void>;
  readonly lift: () => void;
}

export interface Hit {
  readonly rule: FaultRule;
  readonly lifted: Promise<void>;
}

export class Faults {
  readonly #rules = new Map<string, Standing>();
  readonly #chance: Chance;

  constructor(chance: Chance) {
    this.#chance = chance;
  }

  obey(order: StoreOrder): void {
    switch (order.order) {
      case 'add': {
        let lift: () => void = () => undefined;
        const lifted = new Promise<void>((resolve) => (lift = resolve));
        this.#lift(order.rule.name);
        const left = order.rule.times ?? Number.POSITIVE_INFINITY;
        this.#rules.set(order.rule.name, { rule: order.rule, left, lifted, lift });
        return;
      }
      case 'lift':
        this.#lift(order.name);
        return;
      case 'lift-all':
        for (const name of [...this.#rules.keys()]) this.#lift(name);
    }
  }

  /** The first rule that this call meets. */
  meet(kind: CallKind, partition: string): Hit | undefined {
    for (const standing of this.#rules.values()) {
      const { rule, lifted } = standing;
      if (standing.left < 1 || !rule.calls.includes(kind)) continue;
      if (rule.partition !== undefined && rule.partition !== partition) continue;
      if (rule.probability !== undefined && !this.#chance.happens(rule.probability)) continue;
      standing.left -= 1;
      return { rule, lifted };
    }
    return undefined;
  }

  /** Milliseconds after the caller gave up; well within what the rule allows. */
  lateness(rule: FaultRule): number {
    return this.#chance.between(0.1, 0.7) * (rule.forMs ?? 0);
  }

  /** A while of a slow rule, ms. */
  slowness(rule: FaultRule): number {
    return this.#chance.between(0.2, 1) * (rule.forMs ?? 0);
  }

  #lift(name: string): void {
    this.#rules.get(name)?.lift();
    this.#rules.delete(name);
  }
}
