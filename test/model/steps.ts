/** Everything that can happen next in a world, what it does, and what must hold afterwards. */
import { copyActions, workerActions, workerSteps } from './copies.ts';
import { attemptActions, attemptSteps, settleAttempts, startActions } from './coordinator.ts';
import { environmentActions, environmentSteps, partitionActions } from './environment.ts';
import { processActions, processSteps } from './shell.ts';
import { writeActions, writeSteps } from './writes.ts';
import type { Action, Steps, World } from './world.ts';

const steps: Steps = {
  ...processSteps,
  ...writeSteps,
  ...workerSteps,
  ...attemptSteps,
  ...environmentSteps,
};

export function actions(world: World): Action[] {
  const out: Action[] = [];
  world.writes.forEach((_, at) => writeActions(world, at, out));
  world.attempts.forEach((_, at) => attemptActions(world, at, out));
  for (let at = 0; at < world.settings.coordinators; at += 1) startActions(world, at, out);
  world.processes.forEach((_, at) => processActions(world, at, out));
  world.copies.forEach((_, at) => copyActions(world, at, out));
  world.workers.forEach((_, at) => workerActions(world, at, out));
  world.ledger.records.forEach((_, at) => partitionActions(world, at, out));
  environmentActions(world, out);
  return out;
}

/** Changes the world that it is given. */
export function perform(world: World, { step, a, b }: Action): void {
  const work = steps[step];
  if (work === undefined) throw new Error(`no step ${step}`);
  work(world, a, b);
  settleAttempts(world);
  for (let partition = 0; partition < world.witnesses.length; partition += 1) check(world, partition);
}

export function apply(world: World, action: Action): World {
  const next = world.fork();
  perform(next, action);
  return next;
}

/** What must hold in every state; what must hold at a step is watched where the step is. */
function check(world: World, partition: number): void {
  const ownership = world.ownership(partition);
  const { acknowledged } = world.witness(partition);
  const lost = acknowledged & ~world.held(ownership.owner, partition);
  if (lost !== 0) {
    world.fail('I2', `acknowledged writes are missing in ${ownership.owner}, which owns the partition`);
  }
  const { core } = world.settings;
  if (ownership.phase === 'fenced' && world.now >= ownership.deadlineMs) {
    const reopened = core.applyOrder(ownership, { kind: 'expire' }, world.now);
    if (core.isRefusal(reopened) || reopened.phase !== 'open' || reopened.owner !== ownership.owner) {
      world.fail('I7', 'a fence past its deadline cannot be reopened at its owner');
    }
  }
  if (ownership.phase === 'committed') {
    const released = core.applyOrder(ownership, { kind: 'release', attempt: ownership.attempt }, world.now);
    if (core.isRefusal(released) || released.phase !== 'open' || released.owner !== ownership.owner) {
      world.fail('I7', 'a commit cannot be released forward');
    }
  }
}
