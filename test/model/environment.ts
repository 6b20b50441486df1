/**
 * What nobody in particular does: time passes, a fence past its deadline is expired and a commit released by
 * whoever finds it (src/ledger/unfinished.ts), a member that is gone is removed (src/handoff/members.ts),
 * Redis fails over to its replica, and calls that were given up arrive after all.
 */
import { attemptCopyEnded, swapNow } from './coordinator.ts';
import { callGuard, landCopy, voidLateCopies, workerDone, workerOf } from './copies.ts';
import { depart, foreignChange } from './ledger.ts';
import { timersAreServed, voidLateWrites, watchTickets } from './writes.ts';
import type { Copy } from './types.ts';
import type { Action, Steps, World } from './world.ts';

/** MemberWatch: the counter stood still for the lease, and as long as its last write could run and take effect. */
function isGone(world: World, movedAt: number): boolean {
  const { leaseMs, writeTimeoutMs, settleMs } = world.settings.constants;
  const settled = writeTimeoutMs + Math.max(settleMs.legacy, settleMs.app);
  return world.now - movedAt > leaseMs + (world.settings.rules.goneAfterWritesSettled ? settled : 0);
}

function tick(world: World, slow: number): void {
  world.now += 1;
  for (const process of world.processes) {
    const slept = process.pause === 'suspended' && process.up;
    if (!slept && process.slot !== slow) continue;
    world.setProcess(process.slot, {
      ...process,
      monotonicLag: process.monotonicLag + 1,
      wallLag: process.wallLag + (process.slot === slow ? 1 : 0),
    });
  }
  voidLateWrites(world);
  voidLateCopies(world, (copy) => copyLost(world, copy));
}

function copyLost(world: World, copy: Copy): void {
  const worker = workerOf(world, copy.sender);
  if (worker >= 0) workerDone(world, worker, true);
  else attemptCopyEnded(world, copy.sender, undefined);
}

export const environmentSteps: Steps = {
  tick(world) {
    tick(world, -1);
  },
  /** The clocks of this process lose a tick, within what the lease's margin allows for. */
  'tick-slow'(world, slot) {
    world.spend('slips');
    tick(world, slot);
  },
  expire(world, partition) {
    swapNow(world, partition, world.ownership(partition), { kind: 'expire' });
  },
  'release-found'(world, partition) {
    const found = world.ownership(partition);
    if (found.phase !== 'committed') throw new Error('nothing to release');
    world.confirm();
    swapNow(world, partition, found, { kind: 'release', attempt: found.attempt });
  },
  remove(world, which) {
    world.spend('removals');
    const member = world.ledger.members[which];
    if (member === undefined) throw new Error('no such member');
    world.setLedger(depart(world.ledger, member.id, world.now));
    world.confirm();
    world.gone = [...world.gone, member.id].slice(-4);
  },
  /** The replica takes over with what it had; every state since the last that it confirmed is possible. */
  failover(world, which) {
    world.spend('failovers');
    const found = world.lossy[which];
    if (found === undefined) throw new Error('no such state');
    world.ledger = found;
    world.lossy = [];
    // What was under way to the old primary is over; a heartbeat without its answer has failed.
    world.ghosts = world.ghosts.filter(({ ghost }) => ghost !== 'swap');
    watchTickets(world);
  },
  'foreign-change'(world) {
    world.spend('foreignChanges');
    world.setLedger(foreignChange(world.ledger, world.now, world.newId('t')));
  },
  'land-copy'(world, which) {
    const copy = world.copies[which];
    if (copy === undefined) throw new Error('no such copy');
    const taken = landCopy(world, copy);
    const worker = workerOf(world, copy.sender);
    if (worker < 0) attemptCopyEnded(world, copy.sender, taken);
    else if (world.workers[worker]?.stage === 'sent') workerDone(world, worker, false);
  },
  'ghost-arrives'(world, which) {
    const ghost = world.ghosts[which];
    if (ghost === undefined) throw new Error('no such ghost');
    world.ghosts = world.ghosts.filter((other) => other !== ghost);
    if (ghost.ghost === 'swap') swapNow(world, ghost.partition, ghost.before, ghost.order);
    else callGuard(world, ghost.ghost, ghost.partition, ghost.epoch);
  },
};

/** For one partition of many, or for all. */
export function partitionActions(world: World, partition: number, out: Action[]): void {
  const current = world.ownership(partition);
  if (current.phase === 'fenced' && world.now >= current.deadlineMs) {
    out.push({ step: 'expire', a: partition, b: -1 });
  }
  if (current.phase === 'committed') out.push({ step: 'release-found', a: partition, b: -1 });
}

export function environmentActions(world: World, out: Action[]): void {
  const { budget } = world;
  const may = (step: string, a = -1): void => {
    out.push({ step, a, b: -1 });
  };
  world.ghosts.forEach((_, at) => may('ghost-arrives', at));
  if (timersAreServed(world)) {
    may('tick');
    if (budget.slips > 0) {
      for (const process of world.processes) if (process.up) may('tick-slow', process.slot);
    }
  }
  if (budget.removals > 0) {
    world.ledger.members.forEach(({ movedAt }, at) => {
      if (isGone(world, movedAt)) may('remove', at);
    });
  }
  if (budget.failovers > 0) world.lossy.forEach((_, at) => may('failover', at));
  if (budget.foreignChanges > 0) may('foreign-change');
}
