/**
 * I7 as a path: from here, with every coordinator dead and no more faults, do the members that are left bring
 * the partition back to where it takes writes? One schedule is tried, the fair one.
 */
import { noFaults } from './scenarios.ts';
import { actions, perform } from './steps.ts';
import { endless, nameOf, type World } from './world.ts';
import { newWrite } from './writes.ts';

/** In the order in which they are done; ticks only when nothing else is left. */
const healing = [
  ...['wake', 'timeout', 'handle-beat', 'hear-beat', 'register', 'read-snapshot', 'load', 'deliver'],
  ...['answer', 'expire', 'release-found'],
];
const stepsMax = 400;

/** Undefined when all is well; else what is wrong with the end of the schedule. */
export function cannotHeal(from: World): string | undefined {
  if (from.settings.constants.fenceMs >= endless) return undefined;
  const world = from.fork();
  if (!world.processes.some(({ up }) => up)) return undefined;
  world.attempts = [];
  world.ghosts = [];
  world.budget = noFaults;
  for (let step = 0; step < stepsMax; step += 1) {
    const possible = actions(world);
    const next = healing.flatMap((wanted) => possible.filter((action) => action.step === wanted)).at(0);
    if (next !== undefined) perform(world, next);
    else if (takesWrites(world)) return undefined;
    else {
      for (const { step: wanted, a, b } of possible)
        if (wanted === 'beat') perform(world, { step: wanted, a, b });
      for (const action of actions(world)) {
        if (healing.includes(action.step) || action.step === 'tick') {
          perform(world, action);
          break;
        }
      }
    }
    if (world.violation !== undefined) return world.violation.detail;
  }
  const { phase, owner, epoch } = world.ownership(0);
  return `no process admits a write for ${phase} ${owner} ${epoch}; possible: ${actions(world).map(nameOf).join()}`;
}

/** One more write is admitted and taken by its store. */
function takesWrites(from: World): boolean {
  return from.processes.some(({ slot, up }) => {
    if (!up) return false;
    const world = from.fork();
    const at = world.writes.length;
    world.writes = [...world.writes, newWrite(0, 1 << 20)];
    perform(world, { step: 'admit', a: at, b: slot });
    if (world.write(at).phase === 'admitted') perform(world, { step: 'send', a: at, b: -1 });
    if (world.write(at).fate === 'pending') perform(world, { step: 'land', a: at, b: -1 });
    return world.write(at).fate === 'done' && world.violation === undefined;
  });
}
