/**
 * Writes of users: admitted by a process's machine, sent, landing at the store, answered or in doubt. The
 * store takes what arrives; the app asks its guard in the same step. Mirrors src/proxy/forward.ts.
 */
import type { StoreName } from '../../src/core/ownership.ts';
import type { Admission } from '../../src/core/ticket.ts';
import { openName, partitionName } from './ledger.ts';
import { awake, drive, instantOf } from './shell.ts';
import type { Write } from './types.ts';
import type { Action, Steps, World } from './world.ts';

export function newWrite(partition: number, bit: number, upload = false, also = -1): Write {
  return {
    ...{ partition, also, bit, upload, phase: 'idle', fate: 'none', process: -1, ticket: undefined },
    ...{ admittedAt: 0, sentAt: 0, doneAt: 0, landBefore: Number.POSITIVE_INFINITY },
    ...{ frozen: false, acknowledged: false },
  };
}

export function touches(write: Write, partition: number): boolean {
  return write.partition === partition || write.also === partition;
}

/** Every partition that it touches, with the epoch of its ticket. */
function touchedWith(write: Write): { readonly partition: number; readonly epoch: number }[] {
  const ticket = ticketOf(write);
  const first = { partition: write.partition, epoch: ticket.epoch };
  const [other] = ticket.also ?? [];
  return other === undefined ? [first] : [first, { partition: write.also, epoch: other.epoch }];
}

function ticketOf(write: Write): NonNullable<Write['ticket']> {
  if (write.ticket === undefined) throw new Error('a write without a ticket');
  return write.ticket;
}

/** Its process's timer fires: the time of the whole write is up. */
function due(world: World, write: Write): boolean {
  if (write.phase === 'idle' || write.phase === 'over' || !world.settings.rules.writeTimeoutIsTotal)
    return false;
  const { monotonicMs } = instantOf(world, world.process(write.process));
  return monotonicMs >= write.admittedAt + world.settings.constants.writeTimeoutMs;
}

/** Time does not pass an awake process's timers by. */
export function timersAreServed(world: World): boolean {
  return !world.writes.some((write) => due(world, write) && awake(world.process(write.process)));
}

/**
 * Until when, exclusive, a write that was sent can take effect: a store ends what it received within the
 * write timeout, or the settle time after its process gave it up.
 */
function landLimit(world: World, write: Write): number {
  if (write.frozen) return Number.POSITIVE_INFINITY;
  if (write.phase !== 'sent') return write.landBefore;
  if (awake(world.process(write.process)) || !world.settings.rules.writeTimeoutIsTotal) {
    return Number.POSITIVE_INFINITY;
  }
  const { writeTimeoutMs, settleMs } = world.settings.constants;
  return write.sentAt + writeTimeoutMs + settleMs[ticketOf(write).owner];
}

/** After a tick: what did not take effect in time never will. */
export function voidLateWrites(world: World): void {
  world.writes.forEach((write, index) => {
    if (write.fate === 'pending' && world.now >= landLimit(world, write))
      world.setWrite(index, { fate: 'void' });
  });
}

function finish(world: World, index: number, outcome: 'ended' | 'not-sent' | 'in-doubt'): void {
  const write = world.write(index);
  const ticket = ticketOf(write);
  drive(world, write.process, (member, now) => member.end(ticket, outcome, now));
}

function giveUp(world: World, index: number): void {
  const write = world.write(index);
  const { settleMs } = world.settings.constants;
  switch (write.phase) {
    case 'admitted':
      finish(world, index, 'not-sent');
      return world.setWrite(index, { phase: 'over', fate: 'void' });
    case 'half':
      finish(world, index, 'in-doubt');
      return world.setWrite(index, { phase: 'over', fate: 'void' });
    case 'sent': {
      finish(world, index, 'in-doubt');
      const landBefore = world.now + settleMs[ticketOf(write).owner];
      const late = write.fate === 'pending' && !write.frozen && landBefore <= world.now;
      return world.setWrite(index, { phase: 'over', landBefore, ...(late ? { fate: 'void' } : {}) });
    }
    case 'idle':
    case 'over':
  }
}

/** I1: what was sent under other epochs to another owner has ended, or its settle time is over. */
function watchSend(world: World, index: number): void {
  const write = world.write(index);
  const { owner } = ticketOf(write);
  const other = owner === 'legacy' ? 'app' : 'legacy';
  for (const { partition, epoch } of touchedWith(write)) {
    const { sent } = world.witness(partition);
    const overlaps = world.writes.some(
      (rival) =>
        touches(rival, partition) &&
        rival.fate === 'pending' &&
        !rival.frozen &&
        rival.ticket?.owner === other,
    );
    if (overlaps) world.fail('I1', `a write goes to ${owner} while one to ${other} can still take effect`);
    if (sent[other] >= epoch) {
      world.fail(
        'I1',
        `a write of epoch ${epoch} goes to ${owner} after one of epoch ${sent[other]} to ${other}`,
      );
    }
    world.setWitness(partition, { sent: { ...sent, [owner]: Math.max(sent[owner], epoch) } });
  }
}

/** The write takes effect: nobody else may own any of its partitions by now. */
function watchEffect(world: World, write: Write): void {
  const { owner } = ticketOf(write);
  const other: StoreName = owner === 'legacy' ? 'app' : 'legacy';
  const touched = touchedWith(write);
  const owners = new Set(touched.map(({ partition }) => world.ownership(partition).owner));
  if (owners.size > 1) world.fail('I4', 'a write took effect whose partitions live in different stores');
  for (const { partition, epoch } of touched) {
    if (world.witness(partition).sent[other] > epoch) {
      world.fail('I1', `a write of epoch ${epoch} took effect in ${owner} after writes went to ${other}`);
    }
    if (world.ownership(partition).owner !== owner) {
      world.fail(
        'I1',
        `a write of epoch ${epoch} took effect in ${owner}, which ${other} has replaced as owner`,
      );
    }
  }
}

/** I5: nobody acts on what the ledger does not hold, and a process never goes back. */
export function watchTickets(world: World): void {
  for (const write of world.writes) {
    if (write.ticket === undefined || write.phase === 'over') continue;
    for (const { partition, epoch } of touchedWith(write)) {
      const opens: readonly string[] = world.ledger.records[partition]?.opens ?? [];
      const name = openName({ phase: 'open', owner: write.ticket.owner, epoch });
      const oldest = Number.parseInt(opens[0] ?? '0', 10);
      if (epoch >= oldest && !opens.includes(name)) {
        world.fail('I5', `a write was admitted under ${name}, which the ledger does not have`);
      }
    }
  }
}

/** The guard checks every partition in the transaction that writes: all of them, or nothing. */
function guardTakes(world: World, write: Write): boolean {
  const { core } = world.settings;
  const verdicts = touchedWith(write).map(({ partition, epoch }) => {
    const verdict = core.guardVerdict(world.guardRow(partition), 'write', epoch);
    return { partition, epoch, verdict };
  });
  for (const { partition, epoch, verdict } of verdicts) {
    const current = world.ownership(partition);
    const isCurrent = current.phase === 'open' && current.owner === 'app' && current.epoch === epoch;
    if (!verdict.accept && isCurrent) {
      world.fail('I7', `the guard refuses a write of the current epoch (${verdict.code})`);
    }
  }
  const checked = world.settings.rules.guardChecksAll ? verdicts : verdicts.slice(0, 1);
  if (!checked.every(({ verdict }) => verdict.accept)) return false;
  for (const { partition, verdict } of checked) world.setGuard(partition, verdict.row);
  return true;
}

function land(world: World, index: number): void {
  const write = world.write(index);
  const { owner } = ticketOf(write);
  if (owner === 'app' && world.settings.constants.guarded && !guardTakes(world, write)) {
    return world.setWrite(index, { fate: 'rejected' });
  }
  watchEffect(world, write);
  for (const { partition } of touchedWith(write)) {
    world.setHeld(owner, partition, world.held(owner, partition) | write.bit);
  }
  world.setWrite(index, { fate: 'done', doneAt: world.now });
}

/** onSending: the last look at the lease, in the same step as the write to the socket. */
function send(world: World, index: number): void {
  const write = world.write(index);
  const process = world.process(write.process);
  if (!process.machine.mayContinue(ticketOf(write), instantOf(world, process))) {
    finish(world, index, write.phase === 'half' ? 'in-doubt' : 'not-sent');
    return world.setWrite(index, { phase: 'over', fate: 'void' });
  }
  if (write.upload && write.phase === 'admitted') return world.setWrite(index, { phase: 'half' });
  watchSend(world, index);
  return world.setWrite(index, { phase: 'sent', fate: 'pending', sentAt: world.now });
}

/** Only before its first admission: what was noted stays noted. */
function mustBeNoted(world: World, write: Write): boolean {
  const { links, rules } = world.settings;
  return links && rules.linkNotedFirst && write.also >= 0 && !world.linked;
}

export const writeSteps: Steps = {
  /** links.note of src/proxy/admit.ts; afterwards the write is planned anew. */
  note(world) {
    world.linked = true;
  },
  admit(world, index, slot) {
    const { partition, also } = world.write(index);
    let admission: Admission | undefined;
    const { monotonicMs } = instantOf(world, world.process(slot));
    drive(world, slot, (member, now) => {
      admission = member.admit(partitionName(partition), now, also < 0 ? [] : [partitionName(also)]);
      return [];
    });
    // 409: the client is told, and nothing is sent.
    if (admission?.verdict === 'split') world.setWrite(index, { phase: 'over' });
    if (admission?.verdict !== 'admit') return;
    const { ticket } = admission;
    world.setWrite(index, { phase: 'admitted', process: slot, ticket, admittedAt: monotonicMs });
    watchTickets(world);
    if (!world.settings.splitSends) send(world, index);
  },
  send,
  land,
  answer(world, index) {
    const write = world.write(index);
    finish(world, index, 'ended');
    if (world.settings.links && write.also >= 0) world.linked = true;
    world.setWrite(index, { phase: 'over', acknowledged: write.fate === 'done' });
    if (write.fate !== 'done') return;
    for (const { partition } of touchedWith(write)) {
      const { acknowledged } = world.witness(partition);
      world.setWitness(partition, { acknowledged: acknowledged | write.bit });
    }
  },
  timeout: giveUp,
  'break-off'(world, index) {
    world.spend('brokenWrites');
    giveUp(world, index);
  },
  freeze(world, index) {
    world.spend('frozen');
    world.setWrite(index, { frozen: true });
  },
};

export function writeActions(world: World, index: number, out: Action[]): void {
  const write = world.write(index);
  const may = (step: string, b = -1): void => {
    out.push({ step, a: index, b });
  };
  if (write.fate === 'pending') may('land');
  if (write.phase === 'idle') {
    for (const process of world.processes) {
      if (!awake(process) || process.registering) continue;
      const open = (partition: number): boolean =>
        partition < 0 || process.machine.ownershipOf(partitionName(partition)).phase === 'open';
      const held = process.machine.leaseHeld(instantOf(world, process));
      if (!held || !open(write.partition) || !open(write.also)) continue;
      may(mustBeNoted(world, write) ? 'note' : 'admit', process.slot);
    }
    return;
  }
  if (write.phase === 'over' || !awake(world.process(write.process))) return;
  if (due(world, write)) may('timeout');
  if (write.phase === 'admitted' || write.phase === 'half') may('send');
  if (write.phase !== 'sent') return;
  if (write.fate === 'done' || write.fate === 'rejected') may('answer');
  if (world.budget.brokenWrites > 0) may('break-off');
  const guarded = write.ticket?.owner === 'app' && world.settings.constants.guarded;
  if (guarded && write.fate === 'pending' && !write.frozen && world.budget.frozen > 0) may('freeze');
}
