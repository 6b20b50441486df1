/**
 * A coordinator's attempts around core's handoff machine. Every method mirrors one of
 * src/handoff/attempt.ts: orders are carried out in the background, what happened is told to the machine.
 */
import type { HandoffEvent, HandoffOrder } from '../../src/core/handoff.ts';
import type { Ownership, TransitionOrder } from '../../src/core/ownership.ts';
import { callGuard, ensureMayCopy, lockIsFree, mayCopy, releaseLock, sendCopy, takeLock } from './copies.ts';
import { partitionName, swap } from './ledger.ts';
import type { Attempt, Task } from './types.ts';
import type { Action, Steps, World } from './world.ts';

type CatchUp = Extract<Task, { task: 'catch-up' }>;

function push(world: World, index: number, task: Task): void {
  world.setAttempt(index, { tasks: [...world.attempt(index).tasks, task] });
}

function drop(world: World, index: number, task: Task): void {
  world.setAttempt(index, { tasks: world.attempt(index).tasks.filter((other) => other !== task) });
}

function replace(world: World, index: number, task: Task, next: Task): void {
  const tasks = world.attempt(index).tasks.map((other) => (other === task ? next : other));
  world.setAttempt(index, { tasks });
}

/** #tell, and what run() does with the event. */
export function tell(world: World, index: number, event: HandoffEvent): void {
  const before = world.attempt(index);
  const { core } = world.settings;
  const move = core.stepHandoff(before.machine, event, world.now, world.handoff);
  world.setAttempt(index, { machine: move.state });
  if (move.state.step === 'aborting' && before.machine.step !== 'aborting') cancelWork(world, index);
  for (const order of move.orders) carryOut(world, index, order);
}

/** The signal of the work inside the fence: what was sent may still arrive. */
function cancelWork(world: World, index: number): void {
  const { tasks, partition, id } = world.attempt(index);
  for (const task of tasks) {
    if (task.task === 'advance' || task.task === 'seal') {
      if (world.budget.brokenOrders > 0) {
        world.spend('brokenOrders');
        world.ghosts = [...world.ghosts, { ghost: task.task, partition, epoch: task.epoch }];
      }
    } else if (task.task === 'catch-up') {
      if (task.stage === 'read') releaseLock(world, partition, id);
    } else continue;
    drop(world, index, task);
  }
}

function carryOut(world: World, index: number, order: HandoffOrder): void {
  const { id, machine } = world.attempt(index);
  const { fenceMs } = world.settings.constants;
  const transition = (wanted: TransitionOrder): void => push(world, index, { task: 'order', order: wanted });
  switch (order.order) {
    case 'fence':
      return transition({ kind: 'fence', to: machine.to, attempt: id, fenceMs });
    case 'commit':
      if (world.settings.links) return push(world, index, { task: 'look' });
      return transition({ kind: 'commit', attempt: id });
    case 'abort':
      return transition({ kind: 'abort', attempt: id });
    case 'release':
      return push(world, index, { task: 'confirm' });
    case 'reread':
      return push(world, index, { task: 'reread' });
    case 'advance-guard':
      return push(world, index, { task: 'advance', store: order.store, epoch: order.epoch });
    case 'seal-guard':
      return push(world, index, { task: 'seal', store: order.store, epoch: order.epoch });
    case 'catch-up': {
      const { notBeforeMs: notBefore } = order;
      return push(world, index, { task: 'catch-up', stage: 'begin', notBefore, mask: 0, session: undefined });
    }
    default:
      return unknownOrder(order);
  }
}

/** An order that this model does not know, from a newer machine, must not pass in silence. */
function unknownOrder(order: never): never {
  throw new Error(`the model does not carry out ${JSON.stringify(order)}`);
}

/** #judge: the ledger's record says how far this attempt is. */
function judge(world: World, index: number, ownership: Ownership): void {
  const { id, machine, fencedEpoch } = world.attempt(index);
  const { step, to } = machine;
  const mine = ownership.phase !== 'open' && ownership.attempt === id;
  if (mine && ownership.phase === 'committed') {
    if (step === 'releasing') return push(world, index, { task: 'confirm' });
    return tell(world, index, { event: 'committed' });
  }
  if (mine) {
    if (step === 'fencing') return enterLater(world, index, ownership.epoch);
    if (step === 'aborting')
      return push(world, index, { task: 'order', order: { kind: 'abort', attempt: id } });
    return tell(world, index, { event: 'failed', failure: 'commit-refused', detail: '' });
  }
  if (step === 'fencing')
    return tell(world, index, { event: 'failed', failure: 'fence-refused', detail: '' });
  const passed = fencedEpoch > 0 && ownership.epoch >= fencedEpoch + 2;
  if (ownership.owner === to && passed) {
    if (step !== 'releasing') tell(world, index, { event: 'committed' });
    return tell(world, index, { event: 'released' });
  }
  return tell(world, index, { event: 'aborted' });
}

function enterLater(world: World, index: number, epoch: number): void {
  world.setAttempt(index, { fencedEpoch: epoch });
  if (world.settings.splitOrders) push(world, index, { task: 'enter', epoch });
  else enter(world, index, epoch);
}

/** RedisLedger.order: the record is read, core's rule computes, one compare-and-set stores. */
function order(world: World, index: number, task: Extract<Task, { task: 'order' }>, broken: number): void {
  const { partition } = world.attempt(index);
  const { core, splitOrders } = world.settings;
  const before = task.before ?? world.ownership(partition);
  if (task.before === undefined) {
    // The deadline is for the script to judge, by the ledger's clock.
    const clock = before.phase === 'fenced' ? before.deadlineMs - 1 : 0;
    if (core.isRefusal(core.applyOrder(before, task.order, clock))) {
      drop(world, index, task);
      return answered(world, index, task.order, false, before);
    }
    if (splitOrders) return replace(world, index, task, { ...task, before });
  }
  drop(world, index, task);
  if (broken === 1) {
    world.spend('brokenOrders');
    world.ghosts = [...world.ghosts, { ghost: 'swap', partition, order: task.order, before }];
    return tell(world, index, { event: 'transition-unknown' });
  }
  const done = swapNow(world, partition, before, task.order);
  if (broken === 2) {
    world.spend('brokenOrders');
    return tell(world, index, { event: 'transition-unknown' });
  }
  return answered(world, index, task.order, done, world.ownership(partition));
}

export function swapNow(
  world: World,
  partition: number,
  before: Ownership,
  wanted: TransitionOrder,
): boolean {
  const { core } = world.settings;
  const current = world.ownership(partition);
  const id = world.newId('t');
  const { result, ledger } = swap(core, world.ledger, partition, before, wanted, world.now, id);
  if (result === 'refused') return false;
  if (wanted.kind === 'commit') {
    world.commits += 1;
    if (current.phase === 'fenced' && world.now >= current.deadlineMs) {
      world.fail('I7', 'a fence was committed after its deadline');
    }
  }
  world.setLedger(ledger);
  if (wanted.kind === 'commit' && world.settings.links) watchParting(world);
  return true;
}

/** I4: what a write has joined, no handoff parts. */
function watchParting(world: World): void {
  const joined = world.writes.some(({ also, fate }) => also >= 0 && (fate === 'pending' || fate === 'done'));
  if (joined && world.ownership(0).owner !== world.ownership(1).owner) {
    world.fail('I4', 'a handoff parted two partitions that had been written together');
  }
}

function answered(
  world: World,
  index: number,
  wanted: TransitionOrder,
  done: boolean,
  record: Ownership,
): void {
  switch (wanted.kind) {
    case 'fence':
      if (done) return enterLater(world, index, record.epoch);
      return tell(world, index, { event: 'failed', failure: 'fence-refused', detail: '' });
    case 'commit':
      if (done) return tell(world, index, { event: 'committed' });
      return tell(world, index, { event: 'failed', failure: 'commit-refused', detail: '' });
    case 'release':
      return done ? tell(world, index, { event: 'released' }) : judge(world, index, record);
    case 'abort':
      return done ? tell(world, index, { event: 'aborted' }) : judge(world, index, record);
    case 'expire':
      throw new Error('a coordinator expires no fence of its own');
  }
}

/** whyCut of src/handoff/linked.ts, for the one link there is. */
function look(world: World, index: number): void {
  const { partition, id, machine, linkedBefore } = world.attempt(index);
  const linked = world.settings.rules.linksReadBehindDrain ? world.linked : linkedBefore;
  const partner = world.ownership(partition === 0 ? 1 : 0);
  const together = partner.phase === 'open' && partner.owner === machine.to;
  if (linked && !together) {
    return tell(world, index, { event: 'failed', failure: 'cuts-link', detail: '' });
  }
  return push(world, index, { task: 'order', order: { kind: 'commit', attempt: id } });
}

/** #enter: whoever registers later loads a snapshot that shows the fence. */
function enter(world: World, index: number, epoch: number): void {
  const { listedBefore } = world.attempt(index);
  if (world.settings.rules.fenceIsConfirmedFirst) world.confirm();
  const listed = world.ledger.members.map(({ id }) => id);
  const members = world.settings.rules.membersListedAfterFence ? listed : listedBefore;
  const lastDepartureAgeMs = Math.max(0, world.now - world.ledger.departedAt);
  tell(world, index, { event: 'fenced', epoch, members, lastDepartureAgeMs });
  world.setAttempt(index, { entered: true });
}

function guardCall(world: World, index: number, task: Extract<Task, { task: 'advance' | 'seal' }>): void {
  const { partition } = world.attempt(index);
  const taken = callGuard(world, task.task, partition, task.epoch);
  if (task.task === 'advance') {
    if (taken) return tell(world, index, { event: 'guard-advanced' });
    return tell(world, index, { event: 'failed', failure: 'guard-advance-failed', detail: '' });
  }
  if (taken) return tell(world, index, { event: 'guard-sealed' });
  return tell(world, index, { event: 'failed', failure: 'guard-seal-failed', detail: '' });
}

/** One stage of catchUp in src/sync/desk.ts: read the owner, read the copy, write what differs, again. */
function catchUp(world: World, index: number, task: CatchUp): void {
  const { partition, id, earlyMask } = world.attempt(index);
  const hand = { hand: 'handoff', attempt: id } as const;
  const failed = (): void => {
    drop(world, index, task);
    releaseLock(world, partition, id);
    tell(world, index, { event: 'failed', failure: 'catch-up-failed', detail: '' });
  };
  if (task.stage === 'begin') {
    const session = mayCopy(world, partition, hand);
    if (session === undefined) return failed();
    takeLock(world, partition, id);
    const { positionReadAfterDrain } = world.settings.rules;
    const mask = positionReadAfterDrain ? world.shown(session.from, partition) : earlyMask;
    return replace(world, index, task, { ...task, stage: 'read', mask, session });
  }
  const { session } = task;
  if (session === undefined || !ensureMayCopy(world, partition, id, hand, session)) return failed();
  if (task.mask !== world.held(session.to, partition)) {
    sendCopy(world, partition, id, session, task.mask);
    return replace(world, index, task, { ...task, stage: 'sent' });
  }
  drop(world, index, task);
  releaseLock(world, partition, id);
  return tell(world, index, {
    event: 'caught-up',
    proof: { recordsCompared: 1, recordsCopied: 0, passes: 1 },
  });
}

/** A copy of this attempt landed (`taken`), was refused, or was lost (undefined). */
export function attemptCopyEnded(world: World, sender: string, taken: boolean | undefined): void {
  const index = world.attempts.findIndex(({ id }) => id === sender);
  const attempt = world.attempts[index];
  const task = attempt?.tasks.find(
    (other): other is CatchUp => other.task === 'catch-up' && other.stage === 'sent',
  );
  if (attempt === undefined || task === undefined) return;
  // Of a copy in doubt the lock stands until it has settled.
  if (taken !== undefined) releaseLock(world, attempt.partition, sender);
  if (taken === true) {
    return replace(world, index, task, { ...task, stage: 'begin', mask: 0, session: undefined });
  }
  drop(world, index, task);
  return tell(world, index, { event: 'failed', failure: 'catch-up-failed', detail: '' });
}

export const attemptSteps: Steps = {
  start(world, coordinator, partition) {
    world.spend('attempts');
    const { owner } = world.ownership(partition);
    const start = world.settings.core.startHandoff(owner, world.now);
    const attempt: Attempt = {
      ...{ coordinator, id: world.newId('a'), partition, machine: start.state, tasks: [] },
      ...{ entered: false, fencedEpoch: 0 },
      listedBefore: world.ledger.members.map(({ id }) => id),
      linkedBefore: world.linked,
      earlyMask: world.shown(owner, partition),
    };
    world.attempts = [...world.attempts, attempt];
    for (const wanted of start.orders) carryOut(world, world.attempts.length - 1, wanted);
  },
  /** `which` is the task's place, plus 100 or 200 for an order whose outcome stays unknown. */
  work(world, index, which) {
    const task = world.attempt(index).tasks[which % 100];
    if (task === undefined) throw new Error('no such task');
    switch (task.task) {
      case 'order':
        return order(world, index, task, Math.floor(which / 100));
      case 'enter':
        drop(world, index, task);
        return enter(world, index, task.epoch);
      case 'confirm': {
        drop(world, index, task);
        world.confirm();
        const { id } = world.attempt(index);
        return push(world, index, { task: 'order', order: { kind: 'release', attempt: id } });
      }
      case 'reread':
        drop(world, index, task);
        return judge(world, index, world.ownership(world.attempt(index).partition));
      case 'look':
        drop(world, index, task);
        return look(world, index);
      case 'advance':
      case 'seal':
        drop(world, index, task);
        return guardCall(world, index, task);
      case 'catch-up':
        return catchUp(world, index, task);
    }
  },
  hear(world, index, which) {
    const heard = world.acknowledgements[which];
    if (heard === undefined) throw new Error('no such acknowledgement');
    const { answer, lastWriteAgeMs, settlesInMs } = heard.acknowledgement;
    tell(world, index, { event: 'acknowledged', member: heard.member, answer, lastWriteAgeMs, settlesInMs });
  },
  /** #watchAwaited: it left with nothing under way, or was proven gone. */
  'tell-gone'(world, index, which) {
    const member = world.attempt(index).machine.awaiting[which] ?? '';
    tell(world, index, { event: 'member-gone', member });
  },
  'tick-attempt'(world, index) {
    tell(world, index, { event: 'tick' });
  },
  'stop-flip'(world, index) {
    world.spend('stops');
    tell(world, index, { event: 'stop', detail: '' });
  },
  'crash-coordinator'(world, index) {
    world.spend('coordinatorCrashes');
    world.attempts = world.attempts.filter((_, at) => at !== index);
  },
};

/** Attempts that have ended are forgotten; one that can neither end nor go on is a fault. */
export function settleAttempts(world: World): void {
  const over = (attempt: Attempt): boolean =>
    attempt.tasks.length === 0 && world.settings.core.isOver(attempt.machine);
  if (world.attempts.some(over)) world.attempts = world.attempts.filter((attempt) => !over(attempt));
  for (const { tasks, machine } of world.attempts) {
    if (tasks.length === 0 && machine.step !== 'draining') {
      world.fail('stuck', `an attempt waits in ${machine.step}, and nothing is under way for it`);
    }
  }
  if (!world.settings.rules.acknowledgementNamesAttempt) return;
  const wanted = world.acknowledgements.filter(({ acknowledgement }) =>
    isAwaited(world, acknowledgement.attempt),
  );
  if (wanted.length !== world.acknowledgements.length) world.acknowledgements = wanted;
}

function isAwaited(world: World, id: string): boolean {
  return world.attempts.some(
    (attempt) => attempt.id === id && ['fencing', 'draining'].includes(attempt.machine.step),
  );
}

export function startActions(world: World, coordinator: number, out: Action[], only?: number): void {
  if (world.budget.attempts < 1 || world.attempts.some((attempt) => attempt.coordinator === coordinator))
    return;
  if (world.settings.startsAfterRemoval && world.gone.length === 0) return;
  world.ledger.records.forEach(({ ownership }, partition) => {
    if (only !== undefined && partition !== only) return;
    if (ownership.phase === 'open') out.push({ step: 'start', a: coordinator, b: partition });
  });
}

export function attemptActions(world: World, index: number, out: Action[]): void {
  const attempt = world.attempt(index);
  const { budget, settings } = world;
  const may = (step: string, b = -1): void => {
    out.push({ step, a: index, b });
  };
  attempt.tasks.forEach((task, at) => {
    if (task.task === 'catch-up') {
      if (task.stage === 'sent') return;
      if (task.stage === 'begin' && (world.now < task.notBefore || !lockIsFree(world, attempt.partition)))
        return;
    }
    may('work', at);
    const swaps = task.task === 'order' && (task.before !== undefined || !settings.splitOrders);
    if (swaps && budget.brokenOrders > 0) {
      may('work', at + 100);
      may('work', at + 200);
    }
  });
  const { machine } = attempt;
  if (attempt.entered && machine.step === 'draining') {
    world.acknowledgements.forEach(({ member, acknowledgement }, at) => {
      const named = acknowledgement.attempt === attempt.id || !settings.rules.acknowledgementNamesAttempt;
      const matters = acknowledgement.answer === 'in-doubt' || machine.awaiting.includes(member);
      if (named && matters && acknowledgement.partition === partitionName(attempt.partition)) may('hear', at);
    });
    const listed = new Set(world.ledger.members.map(({ id }) => id));
    machine.awaiting.forEach((member, at) => {
      if (!listed.has(member)) may('tell-gone', at);
    });
  }
  const tick = settings.core.stepHandoff(machine, { event: 'tick' }, world.now, world.handoff);
  if (tick.state !== machine) may('tick-attempt');
  if (budget.stops > 0) {
    const stop = settings.core.stepHandoff(machine, { event: 'stop', detail: '' }, world.now, world.handoff);
    if (stop.state !== machine) may('stop-flip');
  }
  if (budget.coordinatorCrashes > 0) may('crash-coordinator');
}
