/**
 * The same world as the exploration, but large: tens of partitions that move back and forth, three processes,
 * two coordinators, every fault at a random rate, in virtual time. One seed is one run.
 *
 *   node test/model/simulate.ts [--seed N] [--flips N] [--seconds N]
 */
import { parseArgs } from 'node:util';
import { copyActions, workerActions } from './copies.ts';
import { attemptActions, startActions } from './coordinator.ts';
import { type Core, coreDirectory, loadCore } from './core.ts';
import { environmentActions, partitionActions } from './environment.ts';
import { SeededRandom } from './random.ts';
import { noFaults } from './scenarios.ts';
import { processActions, startProcess } from './shell.ts';
import { perform } from './steps.ts';
import { type Budget, type Constants, realRules, type Rules, type Violation } from './types.ts';
import { type Action, endless, nameOf, World } from './world.ts';
import { newWrite, timersAreServed, touches, writeActions } from './writes.ts';

export interface Simulation {
  readonly seed: number;
  /** Handoffs that committed. */
  readonly flips: number;
  readonly steps: number;
  readonly ticks: number;
  readonly acknowledged: number;
  /** Of them, over two partitions. */
  readonly joint: number;
  /** How often each fault came. */
  readonly faults: Readonly<Record<string, number>>;
  readonly violation?: Violation;
  /** The last events of the partition concerned. */
  readonly events: readonly string[];
}

const partitions = 24;
const processCount = 3;
const coordinatorCount = 2;
/** Attempts that one coordinator has under way at most. */
const lanes = 6;
const writeCount = 36;
const workerCount = 2;
const bitsPerPartition = 30;
/** Share of writes that touch two partitions; most of those find them in different stores. */
const jointRate = 0.3;
const eventsKept = 4_000;

const constants: Constants = {
  ...{ leaseMs: 40, marginMs: 5, drainMs: 10, fenceMs: 16, writeTimeoutMs: 12, feedDelayMs: 2, copyMs: 5 },
  settleMs: { legacy: 6, app: 0 },
  guarded: true,
};

/** Everything may happen as often as its rate says. */
const unlimited = Object.fromEntries(
  Object.keys(noFaults).map((kind) => [kind, endless]),
) as unknown as Budget;

/** Of steps that are faults, against 1 for what is usual. */
const rates: Readonly<Record<string, number>> = {
  ...{
    crash: 0.0008,
    stop: 0.001,
    suspend: 0.0008,
    leave: 0.0006,
    restart: 0.5,
    wake: 0.2,
    'lose-beat': 0.02,
  },
  ...{
    'break-off': 0.003,
    freeze: 0.01,
    'freeze-copy': 0.01,
    'stop-flip': 0.001,
    'crash-coordinator': 0.001,
  },
  ...{ failover: 0.004, 'foreign-change': 0.005, 'ghost-arrives': 0.3, 'tick-slow': 0.02, remove: 1 },
};
const lostAnswerRate = 0.005;
const faultNames = new Set([...Object.keys(rates), 'view-ahead'].filter((name) => rates[name] !== 0));

class Simulator {
  readonly world: World;
  readonly #random: SeededRandom;
  readonly #bits = new Map<number, number>();
  readonly #slipped = new Map<number, number>();
  readonly #events: { readonly partition: number; readonly text: string }[] = [];
  readonly #faults: Record<string, number> = {};
  readonly #seed: number;
  #steps = 0;
  #acknowledged = 0;
  #joint = 0;

  constructor(core: Core, rules: Rules, seed: number) {
    const coordinators = coordinatorCount * lanes;
    this.#seed = seed;
    this.#random = new SeededRandom(seed);
    const settings = { core, constants, rules, partitions, coordinators, links: false, inPlace: true };
    const split = { splitOrders: true, splitBeats: true, splitSends: true, startsAfterRemoval: false };
    this.world = World.begin({ ...settings, ...split }, unlimited);
    for (let slot = 0; slot < processCount; slot += 1) startProcess(this.world, slot);
    const idle = { partition: 0, stage: 'idle', mask: 0, session: undefined } as const;
    this.world.workers = Array.from({ length: workerCount }, () => idle);
    this.world.writes = Array.from(
      { length: writeCount },
      () => ({ ...newWrite(0, 0), phase: 'over' }) as const,
    );
  }

  report(): Simulation {
    const { violation, commits, now } = this.world;
    const last = this.#events.at(-1)?.partition ?? -1;
    const concerned = this.#events.filter(({ partition }) => partition === last || partition < 0 || last < 0);
    return {
      ...{
        seed: this.#seed,
        flips: commits,
        steps: this.#steps,
        ticks: now,
        acknowledged: this.#acknowledged,
        joint: this.#joint,
      },
      faults: this.#faults,
      ...(violation === undefined ? {} : { violation }),
      events: violation === undefined ? [] : concerned.slice(-60).map(({ text }) => text),
    };
  }

  step(): void {
    this.#steps += 1;
    const chance = this.#random.next();
    if (chance < 0.01) return this.#passTime();
    if (chance < 0.35)
      return this.#oneOf((out) => processActions(this.world, this.#random.below(processCount), out));
    if (chance < 0.8) return this.#coordinate();
    if (chance < 0.9) return this.#write();
    if (chance < 0.96) return this.#copy();
    return this.#oneOf((out) => {
      partitionActions(this.world, this.#random.below(partitions), out);
      environmentActions(this.world, out);
      // Time passes elsewhere.
      return out.splice(0, out.length, ...out.filter(({ step }) => !step.startsWith('tick')));
    });
  }

  #passTime(): void {
    const { world } = this;
    while (!timersAreServed(world)) {
      const due: Action[] = [];
      world.writes.forEach((_, at) => writeActions(world, at, due));
      for (const action of due) if (action.step === 'timeout') this.#perform(action);
      if (world.violation !== undefined) return;
    }
    const slot = this.#random.below(processCount);
    // A clock loses at most what the margin of a lease allows for.
    const rested =
      world.now - (this.#slipped.get(slot) ?? -endless) > constants.leaseMs / (constants.marginMs - 1);
    if (this.#random.next() < 0.05 && rested && world.process(slot).up) {
      this.#slipped.set(slot, world.now);
      return this.#perform({ step: 'tick-slow', a: slot, b: -1 });
    }
    return this.#perform({ step: 'tick', a: -1, b: -1 });
  }

  #coordinate(): void {
    const { world } = this;
    const lane = this.#random.below(coordinatorCount * lanes);
    const index = world.attempts.findIndex(({ coordinator }) => coordinator === lane);
    if (index >= 0) return this.#oneOf((out) => attemptActions(world, index, out));
    const partition = this.#random.below(partitions);
    return this.#oneOf((out) => startActions(world, lane, out, partition));
  }

  #write(): void {
    const { world } = this;
    const index = this.#random.below(writeCount);
    const write = world.write(index);
    const shown = write.fate !== 'done' || world.now >= write.doneAt + constants.feedDelayMs;
    if (write.phase === 'over' && write.fate !== 'pending' && shown) return this.#renew(index);
    return this.#oneOf((out) => writeActions(world, index, out));
  }

  /** Another write in its place, now and then one over two partitions. */
  #renew(index: number): void {
    const { world } = this;
    const partition = this.#random.below(partitions);
    const joint = this.#random.next() < jointRate;
    const also = joint ? (partition + 1 + this.#random.below(partitions - 1)) % partitions : -1;
    const touched = joint ? [partition, also] : [partition];
    const used = Math.max(...touched.map((one) => this.#bits.get(one) ?? 0));
    if (used < bitsPerPartition) {
      for (const one of touched) this.#bits.set(one, used + 1);
      const upload = this.#random.next() < 0.2;
      world.writes = world.writes.with(index, newWrite(partition, 1 << used, upload, also));
      return;
    }
    for (const one of touched) this.#beginAnew(one);
  }

  /** A partition whose bits are used up, once it is quiet. */
  #beginAnew(partition: number): void {
    const { world } = this;
    const busy =
      world.writes.some(
        (write) => touches(write, partition) && (write.phase !== 'over' || write.fate === 'pending'),
      ) ||
      world.copies.some((copy) => copy.partition === partition) ||
      world.workers.some((worker) => worker.stage !== 'idle' && worker.partition === partition) ||
      world.attempts.some((attempt) => attempt.partition === partition);
    if (busy) return;
    this.#bits.set(partition, 0);
    world.setHeld('legacy', partition, 0);
    world.setHeld('app', partition, 0);
    world.setWitness(partition, { acknowledged: 0 });
  }

  #copy(): void {
    const { world } = this;
    if (world.copies.length > 0 && this.#random.next() < 0.7) {
      return this.#oneOf((out) => copyActions(world, this.#random.below(world.copies.length), out));
    }
    const partition = this.#random.below(partitions);
    return this.#oneOf((out) => workerActions(world, this.#random.below(workerCount), out, partition));
  }

  #oneOf(list: (out: Action[]) => unknown): void {
    const possible: Action[] = [];
    list(possible);
    const weight = (action: Action): number =>
      action.step === 'work' && action.b >= 100 ? lostAnswerRate : (rates[action.step] ?? 1);
    let left =
      this.#random.next() *
      Math.max(
        1,
        possible.reduce((sum, action) => sum + weight(action), 0),
      );
    for (const action of possible) {
      left -= weight(action);
      if (left < 0) return this.#perform(action);
    }
  }

  #perform(action: Action): void {
    const { world } = this;
    const partition = this.#partitionOf(action);
    const task = action.step === 'work' ? world.attempts[action.a]?.tasks[action.b % 100] : undefined;
    if (faultNames.has(action.step)) this.#faults[action.step] = (this.#faults[action.step] ?? 0) + 1;
    perform(world, action);
    if (action.step === 'crash-coordinator') this.#crashCoordinator();
    if (action.step === 'answer' && world.write(action.a).acknowledged) {
      this.#acknowledged += 1;
      if (world.write(action.a).also >= 0) this.#joint += 1;
    }
    if (action.step === 'tick') return;
    const name = `${nameOf(action)}${task === undefined ? '' : ` (${task.task}${task.task === 'order' ? ` ${task.order.kind}` : ''})`}`;
    const { phase, owner, epoch } = world.ownership(Math.max(0, partition));
    const where = partition < 0 ? '' : ` p${partition} → ${phase} ${owner} ${epoch}`;
    this.#events.push({ partition, text: `t=${world.now} ${name}${where}` });
    if (this.#events.length > eventsKept * 2) this.#events.splice(0, eventsKept);
    if (world.ghosts.length > 10) world.ghosts = world.ghosts.slice(1);
  }

  /** What else the coordinator had under way died with it. */
  #crashCoordinator(): void {
    const which = this.#random.below(coordinatorCount);
    const { world } = this;
    world.attempts = world.attempts.filter(({ coordinator }) => Math.floor(coordinator / lanes) !== which);
  }

  #partitionOf({ step, a, b }: Action): number {
    const { world } = this;
    if (step in writeStepsNamed) return world.write(a).partition;
    if (step === 'start' || step === 'worker-reads') return b;
    if (step === 'expire' || step === 'release-found') return a;
    if (step === 'worker-sends') return world.workers[a]?.partition ?? -1;
    if (step === 'land-copy') return world.copies[a]?.partition ?? -1;
    if (['work', 'hear', 'tick-attempt', 'stop-flip', 'crash-coordinator'].includes(step)) {
      return world.attempt(a).partition;
    }
    return -1;
  }
}

const writeStepsNamed = { admit: 1, send: 1, land: 1, answer: 1, timeout: 1, 'break-off': 1, freeze: 1 };

export interface Extent {
  readonly flips?: number | undefined;
  readonly seconds?: number | undefined;
}

/** Runs until so many handoffs have committed, or so much time has passed, or an invariant is broken. */
export function simulate(core: Core, seed: number, extent: Extent, rules: Partial<Rules> = {}): Simulation {
  const simulator = new Simulator(core, { ...realRules, ...rules }, seed);
  const untilMs = performance.now() + (extent.seconds ?? Number.POSITIVE_INFINITY) * 1_000;
  const { world } = simulator;
  for (let step = 0; world.violation === undefined; step += 1) {
    if (world.commits >= (extent.flips ?? Number.POSITIVE_INFINITY)) break;
    if (step % 1_000 === 0 && performance.now() >= untilMs) break;
    simulator.step();
  }
  return simulator.report();
}

export function sentenceOf(found: Simulation): string {
  const { seed, flips, steps, ticks, acknowledged, joint, violation, events } = found;
  const faults = Object.entries(found.faults).map(([name, times]) => `${name} ${times}`);
  const head = `seed ${seed}: ${flips} flips, ${acknowledged} acknowledged writes (${joint} over two partitions), ${steps} steps, ${ticks} ticks`;
  if (violation === undefined) return `${head}; ${faults.join(', ')}: no violation`;
  const { invariant, detail } = violation;
  return [
    `${head}: VIOLATION of ${invariant}: ${detail}`,
    ...events.map((event) => `  ${event}`),
    `  again: scripts/simulate --seed ${seed} --flips ${flips + 1}`,
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      flips: { type: 'string' },
      seconds: { type: 'string' },
      core: { type: 'string', default: coreDirectory },
      off: { type: 'string', multiple: true },
    },
  });
  const core = await loadCore(values.core);
  const rules = Object.fromEntries((values.off ?? []).map((rule) => [rule, false]));
  const seconds = values.seconds === undefined ? 30 : Number(values.seconds);
  const untilMs = performance.now() + seconds * 1_000;
  const perSeed = values.flips === undefined ? 2_000 : Number(values.flips);
  // Without a seed the first one is the time of day, and it is printed.
  let seed = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
  do {
    const left = Math.max(1, (untilMs - performance.now()) / 1_000);
    const found = simulate(
      core,
      seed,
      { flips: perSeed, ...(values.flips === undefined ? { seconds: left } : {}) },
      rules,
    );
    process.stdout.write(`${sentenceOf(found)}\n`);
    if (found.violation !== undefined) {
      process.exitCode = 1;
      return;
    }
    seed += 1;
    if (values.seed !== undefined && values.seconds !== undefined) {
      process.stdout.write(
        `One seed is one run, of ${perSeed} flips (--flips N), however many --seconds are given.\n`,
      );
    }
  } while (values.seed === undefined && performance.now() < untilMs);
}

if (import.meta.main) await main();
