/** The worlds that are explored: each has one kind of trouble, and is small enough to be explored to its end. */
import type { StoreName } from '../../src/core/ownership.ts';
import type { Core } from './core.ts';
import { perform } from './steps.ts';
import { startProcess } from './shell.ts';
import { type Budget, type Constants, realRules, type Rules } from './types.ts';
import { endless, World, type WorldSettings } from './world.ts';
import { newWrite } from './writes.ts';

export interface Scenario {
  readonly name: string;
  /** One sentence for people. */
  readonly about: string;
  /** Processes that hold a lease at the beginning. */
  readonly processes: number;
  /** Processes that have just been started. */
  readonly joiners?: number;
  readonly coordinators: number;
  readonly owner?: StoreName;
  /**
   * One entry for each write, of the first partition: true for one that is sent in two pieces, `joint` for one that
   * touches the second partition, too.
   */
  readonly writes: readonly (boolean | 'joint')[];
  readonly workers?: number;
  readonly constants?: Partial<Constants>;
  readonly budget: Partial<Budget>;
  readonly settings?: Partial<
    Pick<
      WorldSettings,
      'splitOrders' | 'splitBeats' | 'splitSends' | 'startsAfterRemoval' | 'partitions' | 'links'
    >
  >;
  /** Fewer states than this would mean that the model has lost something. */
  readonly statesAtLeast: number;
}

export const noFaults: Budget = {
  ...{ crashes: 0, restarts: 0, pauses: 0, suspensions: 0, slips: 0, departures: 0, failovers: 0 },
  ...{ removals: 0, coordinatorCrashes: 0, brokenOrders: 0, brokenWrites: 0, stops: 0, frozen: 0 },
  ...{ attempts: 0, workerCopies: 0, foreignChanges: 0, beats: endless },
};

/** Long leases, where a scenario is about something else. */
const calm: Constants = {
  ...{ leaseMs: endless, marginMs: 1, drainMs: 1, fenceMs: 2, writeTimeoutMs: 1, feedDelayMs: 0, copyMs: 2 },
  settleMs: { legacy: 1, app: 0 },
  guarded: true,
};

/** Leases that lapse while we look. */
const hurried: Partial<Constants> = { leaseMs: 4, marginMs: 2, drainMs: endless, fenceMs: endless };

export const scenarios: readonly Scenario[] = [
  {
    name: 'fence',
    about: 'two members write while a coordinator moves the partition, in every order',
    statesAtLeast: 200_000,
    processes: 2,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 1 },
    constants: { feedDelayMs: 1, writeTimeoutMs: endless },
  },
  {
    name: 'fence-alone',
    about: 'one member writes twice while a coordinator moves the partition',
    statesAtLeast: 6_000,
    processes: 1,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 1 },
    constants: { feedDelayMs: 1, writeTimeoutMs: endless },
  },
  {
    name: 'again',
    about: 'an attempt is stopped at any step, and another one follows',
    statesAtLeast: 1_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 2, stops: 1 },
    constants: { writeTimeoutMs: endless, drainMs: endless, fenceMs: endless },
  },
  {
    name: 'in-doubt',
    about: 'a write that ends in doubt, early or at its time-out, and another, around two attempts',
    statesAtLeast: 25_000,
    processes: 1,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 1, brokenWrites: 1 },
  },
  {
    name: 'coordinators',
    about: 'two coordinators at once, either of which may stop at any step or go on late',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 2,
    writes: [false],
    budget: { attempts: 2 },
    constants: { writeTimeoutMs: endless },
    settings: { splitOrders: true },
  },
  {
    name: 'lost-answers',
    about:
      'the answer to an order is lost, and the order executed, now, later or never; then another attempt',
    statesAtLeast: 60_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 2, brokenOrders: 1 },
    constants: { writeTimeoutMs: endless },
  },
  {
    name: 'joiner',
    about: 'a member joins around the fence',
    statesAtLeast: 20_000,
    processes: 0,
    joiners: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 1 },
    constants: { writeTimeoutMs: endless },
    settings: { splitBeats: true, splitOrders: true },
  },
  {
    name: 'leaver',
    about: 'a member leaves around the fence, another stays',
    statesAtLeast: 20_000,
    processes: 2,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 1, departures: 1 },
    constants: { writeTimeoutMs: endless, feedDelayMs: 1, drainMs: endless, fenceMs: endless },
  },
  {
    name: 'failover',
    about: 'Redis falls back to a replica that had not heard everything',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 2, failovers: 1 },
  },
  {
    name: 'failover-app',
    about: 'the same for a partition that the app owns, whose guard remembers what the ledger lost',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    owner: 'app',
    writes: [false],
    budget: { attempts: 2, failovers: 1 },
  },
  {
    name: 'failover-calm',
    about: 'the same with all the time that the attempts want',
    processes: 1,
    coordinators: 1,
    owner: 'app',
    writes: [false],
    statesAtLeast: 6_000,
    budget: { attempts: 2, failovers: 1 },
    constants: { writeTimeoutMs: endless, drainMs: endless, fenceMs: endless },
  },
  {
    name: 'lost-branch',
    about: 'a member follows changes that a failover lost, while others take their versions',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 2, stops: 1, failovers: 1, foreignChanges: 3 },
    constants: { drainMs: endless, fenceMs: endless },
  },
  {
    name: 'gone-slow-clock',
    about: 'a member whose clock is slow loses touch, is removed as gone, and its last write is under way',
    statesAtLeast: 30_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 1, slips: 3, removals: 1, beats: 1 },
    constants: { ...hurried, leaseMs: 5, marginMs: 3, settleMs: { legacy: 3, app: 0 } },
    settings: { splitBeats: true, splitSends: true, startsAfterRemoval: true },
  },
  {
    name: 'gone-suspended',
    about: 'a machine is suspended, its monotonic clock with it; its process is removed as gone and goes on',
    statesAtLeast: 70_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 1, suspensions: 1, removals: 1, beats: 1 },
    constants: hurried,
    settings: { splitBeats: true, splitSends: true, startsAfterRemoval: true },
  },
  {
    name: 'gone-upload',
    about: 'a process pauses in the middle of an upload, is removed as gone, comes back, and goes on with it',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    writes: [true],
    budget: { attempts: 1, pauses: 1, removals: 1, beats: 2 },
    constants: { leaseMs: 3, marginMs: 1, drainMs: endless, fenceMs: endless },
    settings: { splitSends: true, startsAfterRemoval: true },
  },
  {
    name: 'crash',
    about: 'a process dies with a write under way, and is started again',
    statesAtLeast: 90_000,
    processes: 1,
    coordinators: 1,
    writes: [false, false],
    budget: { attempts: 1, crashes: 1, restarts: 1 },
  },
  {
    name: 'gone-crash',
    about: 'a process dies with a write under way, is started again, and the dead one is removed as gone',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    writes: [false],
    budget: { attempts: 1, crashes: 1, restarts: 1, removals: 1, beats: 3 },
    constants: {
      leaseMs: 3,
      marginMs: 1,
      settleMs: { legacy: 2, app: 0 },
      drainMs: endless,
      fenceMs: endless,
    },
    settings: { startsAfterRemoval: true },
  },
  {
    name: 'gone-in-the-fence',
    about: 'a member is removed as gone while an attempt waits for it, and the attempt is told',
    processes: 1,
    coordinators: 1,
    writes: [false],
    statesAtLeast: 5_000,
    budget: { attempts: 1, pauses: 1, removals: 1, beats: 0 },
    constants: {
      ...{ leaseMs: 3, marginMs: 1, drainMs: endless, fenceMs: endless, feedDelayMs: 6 },
    },
    settings: { splitSends: true },
  },
  {
    name: 'frozen-write',
    about: 'a process is frozen between its check and the socket, and its write reaches the guarded app late',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    owner: 'app',
    writes: [false],
    budget: { attempts: 1, pauses: 1, removals: 1, frozen: 1, beats: 3 },
    constants: { leaseMs: 3, marginMs: 1, drainMs: endless, fenceMs: endless },
    settings: { startsAfterRemoval: true },
  },
  {
    name: 'worker',
    about: 'a worker of the background sync reads early and writes late, under the copy lock',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    workers: 1,
    writes: [false, false],
    budget: { attempts: 1, workerCopies: 1 },
  },
  {
    name: 'worker-unguarded',
    about: 'the same towards a store without a guard',
    statesAtLeast: 90_000,
    processes: 1,
    coordinators: 1,
    workers: 1,
    owner: 'app',
    writes: [false, false],
    budget: { attempts: 1, workerCopies: 1 },
  },
  {
    name: 'frozen-copy',
    about: 'a worker is frozen between its check and the socket, and its copy reaches the guarded app late',
    statesAtLeast: 30_000,
    processes: 1,
    coordinators: 1,
    workers: 2,
    writes: [false, false],
    budget: { attempts: 1, workerCopies: 2, frozen: 1 },
    constants: { writeTimeoutMs: endless, drainMs: endless, fenceMs: endless },
  },
  {
    name: 'joint',
    about:
      'a write over two partitions, and one over the first alone, while each of the two moves, in any order',
    statesAtLeast: 300_000,
    processes: 1,
    coordinators: 2,
    writes: ['joint', false],
    budget: { attempts: 2 },
    constants: { writeTimeoutMs: endless, drainMs: endless, fenceMs: endless },
    settings: { partitions: 2 },
  },
  {
    name: 'joint-members',
    about: 'two members, one of which may hear late, and a write over two partitions while one of them moves',
    statesAtLeast: 20_000,
    processes: 2,
    coordinators: 1,
    writes: ['joint', 'joint'],
    budget: { attempts: 1 },
    constants: { writeTimeoutMs: endless, feedDelayMs: 1, drainMs: endless, fenceMs: endless },
    settings: { partitions: 2 },
  },
  {
    name: 'joint-in-doubt',
    about: 'a write over two partitions ends in doubt, and each of the two moves',
    statesAtLeast: 200_000,
    processes: 1,
    coordinators: 1,
    writes: ['joint'],
    budget: { attempts: 2, brokenWrites: 1 },
    settings: { partitions: 2 },
  },
  {
    name: 'joint-frozen',
    about: 'a write over two partitions reaches the guarded app as late as it likes, while either moves away',
    statesAtLeast: 500_000,
    processes: 1,
    coordinators: 1,
    owner: 'app',
    writes: ['joint'],
    budget: { attempts: 1, pauses: 1, removals: 1, frozen: 1, beats: 3 },
    constants: { leaseMs: 3, marginMs: 1, drainMs: endless, fenceMs: endless },
    settings: { startsAfterRemoval: true, partitions: 2 },
  },
  {
    name: 'linked',
    about: 'a write joins two partitions while each of them is about to move by itself',
    statesAtLeast: 120_000,
    processes: 1,
    coordinators: 2,
    writes: ['joint', 'joint'],
    budget: { attempts: 2 },
    constants: { writeTimeoutMs: endless, drainMs: endless, fenceMs: endless },
    settings: { partitions: 2, links: true },
  },
  {
    name: 'linked-crash',
    about: 'a process dies with a write that joins two partitions under way, and then one of them moves',
    statesAtLeast: 100_000,
    processes: 1,
    coordinators: 1,
    writes: ['joint'],
    budget: { attempts: 1, crashes: 1, removals: 1, beats: 3 },
    constants: {
      leaseMs: 3,
      marginMs: 1,
      settleMs: { legacy: 2, app: 0 },
      drainMs: endless,
      fenceMs: endless,
    },
    settings: { partitions: 2, links: true, startsAfterRemoval: true },
  },
];

export function scenarioNamed(name: string): Scenario {
  const found = scenarios.find((scenario) => scenario.name === name);
  if (found === undefined) throw new Error(`there is no scenario ${name}`);
  return found;
}

export function startWorld(core: Core, scenario: Scenario, rules: Partial<Rules> = {}): World {
  const { processes, joiners = 0, coordinators, owner = 'legacy', writes, workers = 0 } = scenario;
  const settings: WorldSettings = {
    core,
    constants: { ...calm, ...scenario.constants },
    rules: { ...realRules, ...rules },
    ...{
      partitions: 1,
      coordinators,
      splitOrders: false,
      splitBeats: false,
      splitSends: false,

      links: false,
      inPlace: false,
      startsAfterRemoval: false,
    },
    ...scenario.settings,
  };
  const world = World.begin(settings, noFaults);
  const pass = (step: string, a: number, b = -1): void => perform(world, { step, a, b });
  const enter = (slot: number): void => {
    startProcess(world, slot);
    for (const step of ['register', 'read-snapshot', 'load']) pass(step, slot);
    beatWhole(world, slot);
  };
  if (owner === 'app') world.witnesses.forEach((_, partition) => moveToApp(world, partition));
  for (let slot = 0; slot < processes; slot += 1) enter(slot);
  for (let slot = 0; slot < joiners; slot += 1) startProcess(world, processes + slot);
  world.writes = writes.map((kind, at) =>
    kind === 'joint' ? newWrite(0, 1 << at, false, 1) : newWrite(0, 1 << at, kind),
  );
  world.workers = Array.from({ length: workers }, () => ({
    ...{ partition: 0, stage: 'idle', mask: 0, session: undefined },
  }));
  world.budget = { ...noFaults, ...scenario.budget };
  if (world.violation !== undefined) throw new Error(world.violation.detail);
  return world;
}

/** By one handoff while nobody is there yet. */
function moveToApp(world: World, partition: number): void {
  world.budget = { ...noFaults, attempts: 1 };
  perform(world, { step: 'start', a: 0, b: partition });
  for (let guard = 0; guard < 30 && world.attempts.length > 0; guard += 1) {
    perform(world, { step: 'work', a: 0, b: 0 });
  }
  world.budget = noFaults;
}

function beatWhole(world: World, slot: number): void {
  perform(world, { step: 'beat', a: slot, b: -1 });
  if (!world.settings.splitBeats) return;
  perform(world, { step: 'handle-beat', a: slot, b: -1 });
  perform(world, { step: 'hear-beat', a: slot, b: -1 });
}
