/**
 * Breaks the deployment, one act after the other, chosen by a seed: processes are killed and frozen, networks
 * cut, stores fall ill, a clock jumps. Everything that it breaks it mends again.
 */
import { pause } from '../../src/pause.ts';
import type { Chance } from './chance.ts';
import type { Flips } from './flips.ts';
import type { Network } from './relay.ts';
import type { Rig } from './rig.ts';
import {
  clockCanJump,
  goneMs,
  jumpingProxy,
  type Part,
  proxyNames,
  timing,
  workerNames,
} from './rig-plan.ts';
import type { CallKind, Misbehaviour } from './store-faults.ts';
import { bothStores } from './words.ts';

export interface NemesisSettings {
  readonly rig: Rig;
  readonly chance: Chance;
  readonly say: (line: string) => void;
  readonly flips: Pick<Flips, 'flipAfter'>;
}

interface Act {
  readonly kind: string;
  /** The larger, the more often. */
  readonly weight: number;
  /** Breaks it, says what it broke, and mends it when the promise resolves. */
  readonly perform: (say: (detail: string) => void) => Promise<void>;
}

const { leaseMs, writeTimeoutMs, settleMs } = timing;
/** So long that it is taken for gone and flips go on without it, while users still reach it. */
const gone = [goneMs + 2_000, goneMs + 5_000] as const;

export class Nemesis {
  readonly counts = new Map<string, number>();
  readonly #settings: NemesisSettings;
  readonly #acts: readonly Act[];
  readonly #under: Promise<void>[] = [];
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  constructor(settings: NemesisSettings) {
    this.#settings = settings;
    this.#acts = [
      ...this.#processActs(),
      ...this.#redisActs(),
      ...this.#networkActs(),
      ...this.#storeActs(),
      ...this.#clockActs(),
    ];
  }

  start(): void {
    this.#running = this.#run();
  }

  /** Resolves when everything that was broken has been mended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
    await Promise.all(this.#under);
  }

  async #run(): Promise<void> {
    const { chance, say } = this.#settings;
    const total = this.#acts.reduce((sum, { weight }) => sum + weight, 0);
    for (let number = 1; !this.#stopped; number += 1) {
      // Now and then everything is whole for a while, so that flips get on and there is something to break.
      await pause(number % 6 === 0 ? chance.between(4_000, 6_000) : chance.between(300, 2_000));
      if (this.#stopped) return;
      let dice = chance.next() * total;
      const act = this.#acts.find(({ weight }) => (dice -= weight) < 0);
      if (act === undefined) continue;
      this.counts.set(act.kind, (this.counts.get(act.kind) ?? 0) + 1);
      const over = act
        .perform((detail) => say(`${act.kind}: ${detail}`))
        .catch((error: unknown) => {
          say(`${act.kind} failed: ${String(error)}`);
        });
      this.#under.push(over);
      // Sometimes the next one comes before this one is over.
      if (!chance.happens(0.3)) await over;
    }
  }

  // --- processes -------------------------------------------------------------------------------------

  #processActs(): Act[] {
    const { rig, chance } = this.#settings;
    const kill = (names: readonly Part[], kind: string, weight: number): Act => ({
      kind,
      weight,
      perform: async (say) => {
        const name = chance.oneOf(names);
        const awayMs = chance.between(0, 2_000);
        say(`${name}, for ${seconds(awayMs)}`);
        await rig.kill(rig.part(name));
        await pause(awayMs);
        await rig.part(name).untilReady();
      },
    });
    const freeze = (
      names: readonly Part[],
      kind: string,
      weight: number,
      low: number,
      high: number,
    ): Act => ({
      kind,
      weight,
      perform: async (say) => {
        const name = chance.oneOf(names);
        const forMs = chance.between(low, high);
        say(`${name}, for ${seconds(forMs)}`);
        rig.freeze(rig.part(name));
        await pause(forMs);
        rig.thaw(rig.part(name));
      },
    });
    const short = [0.2 * leaseMs, 0.8 * leaseMs] as const;
    const long = [1.2 * leaseMs, 2 * leaseMs] as const;
    return [
      kill(proxyNames, 'kill a proxy', 3),
      kill(workerNames, 'kill a worker', 2),
      kill(['admin'], 'kill the admin', 4),
      freeze(proxyNames, 'freeze a proxy, shorter than its lease', 2, ...short),
      freeze(proxyNames, 'freeze a proxy, longer than its lease', 2, ...long),
      freeze(proxyNames, 'freeze a proxy until it is taken for gone', 3, ...gone),
      freeze(workerNames, 'freeze a worker', 2, short[0], 2 * leaseMs),
      freeze(['admin'], 'freeze the admin', 2, short[0], long[1]),
      {
        kind: 'end a proxy gracefully',
        weight: 1,
        perform: async (say) => {
          const name = chance.oneOf(proxyNames);
          say(name);
          await rig.part(name).end(8_000);
          await rig.part(name).untilReady();
        },
      },
    ];
  }

  // --- Redis -----------------------------------------------------------------------------------------

  #redisActs(): Act[] {
    const { rig, chance } = this.#settings;
    const kill = (kind: string, low: number, high: number): Act => ({
      kind,
      weight: 2,
      perform: async (say) => {
        const awayMs = chance.between(low, high);
        say(`for ${seconds(awayMs)}`);
        await rig.kill(rig.redis);
        await pause(awayMs);
        await rig.redis.untilReady();
      },
    });
    return [
      kill('kill Redis, shorter than a lease', 0, 0.6 * leaseMs),
      kill('kill Redis, longer than a lease', 1.2 * leaseMs, 2 * leaseMs),
      {
        kind: 'freeze Redis',
        weight: 2,
        perform: async (say) => {
          const forMs = chance.between(0.2 * leaseMs, 1.8 * leaseMs);
          say(`for ${seconds(forMs)}`);
          rig.freeze(rig.redis);
          await pause(forMs);
          rig.thaw(rig.redis);
        },
      },
    ];
  }

  // --- networks --------------------------------------------------------------------------------------

  #networkActs(): Act[] {
    const { rig, chance } = this.#settings;
    const act = (
      network: Network,
      kind: string,
      weight: number,
      names: readonly Part[],
      low = 0.2 * leaseMs,
      high = 2 * leaseMs,
    ): Act => ({
      kind,
      weight,
      perform: async (say) => {
        const name = chance.oneOf(names);
        const forMs = chance.between(low, high);
        const reset = chance.happens(0.5);
        say(`${name}, for ${seconds(forMs)}, then what was held up ${reset ? 'is dropped' : 'arrives late'}`);
        rig.relay(name).set(network);
        await pause(forMs);
        rig.relay(name).set('whole', reset);
      },
    });
    const others: readonly Part[] = ['admin', ...workerNames];
    return [
      act('cut', 'cut a proxy from Redis', 2, proxyNames),
      act('stalled', 'stall a proxy’s way to Redis', 2, proxyNames),
      act('cut', 'cut a proxy from Redis until it is taken for gone', 3, proxyNames, ...gone),
      act('stalled', 'stall a proxy’s way to Redis until it is taken for gone', 2, proxyNames, ...gone),
      act('half-open', 'lose Redis’s answers to a proxy', 2, proxyNames),
      act('half-open', 'lose Redis’s answers to the admin', 2, ['admin']),
      act('stalled', 'stall the way to Redis of the admin or a worker', 2, others),
    ];
  }

  // --- stores ----------------------------------------------------------------------------------------

  #storeActs(): Act[] {
    const { rig, chance } = this.#settings;
    const act = (
      misbehaviour: Misbehaviour,
      kind: string,
      weight: number,
      calls: readonly CallKind[],
      forMs: number,
      probability: number,
    ): Act => ({
      kind,
      weight,
      perform: async (say) => {
        const store = chance.oneOf(bothStores);
        const lastsMs = chance.between(1_500, 4_000);
        const name = `${kind} ${performance.now()}`;
        say(`${store}, ${Math.round(probability * 100)} % of its calls, for ${seconds(lastsMs)}`);
        rig.misbehave(store, { name, misbehaviour, calls, forMs, probability });
        await pause(lastsMs);
        rig.behave(store, name);
      },
    });
    const writes: readonly CallKind[] = ['write', 'copy'];
    const all: readonly CallKind[] = [
      'write',
      'copy',
      'user-read',
      'sync-list',
      'sync-read',
      'guard:verdict',
      'guard:advance',
      'guard:seal',
    ];
    return [
      act('slow', 'a store is slow', 2, all, 250, 0.8),
      act('slow', 'a store takes longer than a write may', 2, writes, writeTimeoutMs + 0.7 * settleMs, 0.2),
      act('hang', 'a store hangs', 2, all, 0, 0.1),
      act('lose-answer', 'a store loses its answers', 2, all, 0, 0.15),
      act('late', 'a store does writes after they were given up', 2, ['write'], settleMs, 0.1),
      this.#ambush(),
    ];
  }

  /** The flip comes just when writes of its partition have been given up, and before they take effect. */
  #ambush(): Act {
    const { rig, chance, flips } = this.#settings;
    return {
      kind: 'flip a partition whose writes have just been given up',
      weight: 5,
      perform: async (say) => {
        const name = `ambush ${performance.now()}`;
        await flips.flipAfter(writeTimeoutMs + chance.between(0, 0.4 * settleMs), (partition) => {
          say(partition);
          const rule = { name, misbehaviour: 'late', calls: ['write'], forMs: settleMs, partition } as const;
          rig.misbehave('legacy', { ...rule, times: 3 });
        });
        rig.behave('legacy', name);
      },
    };
  }

  // --- clocks ----------------------------------------------------------------------------------------

  #clockActs(): Act[] {
    const { rig, chance } = this.#settings;
    if (!clockCanJump) return [];
    return [
      {
        kind: 'the wall clock of a proxy jumps',
        weight: 2,
        perform: async (say) => {
          const offset = chance.oneOf([-30, -5, -1, 1, 5, 30]);
          const forMs = chance.between(1_500, 5_000);
          say(`${jumpingProxy}, by ${offset} s, and back after ${seconds(forMs)}`);
          rig.setClock(offset);
          await pause(forMs);
          rig.setClock(0);
        },
      },
    ];
  }
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
