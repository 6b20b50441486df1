/**
 * A proxy process around core's Member: registering, loading, following the stream, heartbeats. Mirrors
 * src/ledger/membership.ts, with every message as late as it likes.
 */
import type { Instant, Member, MemberEffect } from '../../src/core/member.ts';
import { depart, heartbeat, register, takeSnapshot } from './ledger.ts';
import type { Process } from './types.ts';
import { type Action, endless, type Steps, type World } from './world.ts';

export function instantOf(world: World, process: Process): Instant {
  return { monotonicMs: world.now - process.monotonicLag, wallMs: world.now - process.wallLag };
}

export function awake(process: Process): boolean {
  return process.up && process.pause === '';
}

/** Lets the machine of a process work, and carries out what it asks for. */
export function drive(
  world: World,
  slot: number,
  work: (machine: Member, now: Instant) => MemberEffect[],
  change: Partial<Process> = {},
): void {
  const process = world.process(slot);
  const machine = world.settings.inPlace ? process.machine : process.machine.fork();
  const effects = work(machine, instantOf(world, process));
  world.setProcess(slot, { ...process, ...change, machine });
  followUp(world, slot, effects);
}

/** #followUp and #carryOut of src/ledger/membership.ts */
function followUp(world: World, slot: number, effects: readonly MemberEffect[]): void {
  for (const effect of effects) {
    const process = world.process(slot);
    switch (effect.kind) {
      case 'register':
        world.setProcess(slot, { ...process, registering: true });
        break;
      case 'load-snapshot':
        // A load that is under way serves everybody who asks meanwhile.
        world.setProcess(slot, { ...process, loading: process.loading ?? 'asked' });
        break;
      case 'acknowledge': {
        const { acknowledgement } = effect;
        const said = world.acknowledgements.some(
          (other) =>
            other.member === process.id &&
            other.acknowledgement.attempt === acknowledgement.attempt &&
            other.acknowledgement.answer === acknowledgement.answer,
        );
        if (said) break;
        const entry = { member: process.id, acknowledgement, saidAt: world.now };
        world.acknowledgements = [...world.acknowledgements, entry];
        break;
      }
      // A heartbeat, a look at a held write: these can happen at any time anyway.
      case 'end-long-lived':
      case 'wake':
      case 'heartbeat-now':
        break;
    }
  }
}

export function startProcess(world: World, slot: number): void {
  const { core, constants } = world.settings;
  const { leaseMs, marginMs, settleMs } = constants;
  const at = { monotonicMs: world.now, wallMs: world.now };
  const machine = new core.Member({ leaseMs, marginMs, settleMs, defaultOwner: 'legacy' }, at);
  const process: Process = {
    ...{ slot, id: '', machine, up: true, pause: '', monotonicLag: 0, wallLag: 0 },
    ...{ registering: false, feedAt: -1, covered: -1, loading: undefined, beat: undefined },
  };
  world.processes = [...world.processes.slice(0, slot), process, ...world.processes.slice(slot + 1)];
  drive(world, slot, (member) => member.enter());
}

const beatOnce = (world: World, slot: number): void => {
  const { id } = world.process(slot);
  const beat = world.process(slot).beat;
  if (beat === undefined) throw new Error('no heartbeat under way');
  const { ledger, answer } = heartbeat(world.ledger, id, beat.heartbeat, world.settings.rules, world.now);
  world.setLedger(ledger);
  // Answered only when the replica has it (WAIT), and with it everything before.
  if (answer.answer === 'ok' && world.settings.rules.heartbeatIsDurable) world.confirm();
  if (answer.answer === 'ledger-regressed') {
    world.fail('I5', 'the ledger is said to have lost what was confirmed, and it has not');
  }
  world.setProcess(slot, { ...world.process(slot), beat: { heartbeat: beat.heartbeat, answer } });
};

const hearBeat = (world: World, slot: number): void => {
  const { beat } = world.process(slot);
  if (beat?.answer === undefined) throw new Error('no answer under way');
  const { answer } = beat;
  const over = { beat: undefined, covered: beat.heartbeat.applied.version };
  switch (answer.answer) {
    case 'ok':
      return drive(world, slot, (m) => m.heartbeatConfirmed(beat.heartbeat, answer.version), over);
    case 'view-ahead':
      return drive(world, slot, (m) => m.viewAhead(), over);
    case 'not-listed':
      return drive(world, slot, (m) => m.enter(), over);
    case 'ledger-regressed':
      return drive(world, slot, (m) => (m.loseLease(), []), over);
  }
};

const sendBeat = (world: World, slot: number): void => {
  world.spend('beats');
  const process = world.process(slot);
  const machine = world.settings.inPlace ? process.machine : process.machine.fork();
  const sent = machine.heartbeat(instantOf(world, process));
  world.setProcess(slot, { ...process, machine, beat: { heartbeat: sent } });
};

export const processSteps: Steps = {
  register(world, slot) {
    const id = world.settings.rules.memberIdPerRegistration ? world.newId('m') : `slot${slot}`;
    world.setLedger(register(world.ledger, id, world.now));
    world.confirm();
    drive(world, slot, (member) => member.registered(), { id, registering: false });
  },
  'read-snapshot'(world, slot) {
    const loading = takeSnapshot(world.settings.core, world.ledger);
    world.setProcess(slot, { ...world.process(slot), loading });
  },
  load(world, slot) {
    const { loading, feedAt } = world.process(slot);
    if (loading === undefined || loading === 'asked') throw new Error('no snapshot to load');
    drive(world, slot, (member, now) => member.load(loading, now), { loading: undefined });
    const process = world.process(slot);
    const next = feedAt < 0 ? loading.position.version : process.machine.view.position.version;
    world.setProcess(slot, { ...process, feedAt: next });
  },
  deliver(world, slot) {
    const { feedAt } = world.process(slot);
    const change = world.ledger.changes.find(({ version }) => version > feedAt);
    if (change === undefined) throw new Error('nothing to deliver');
    drive(world, slot, (member, now) => member.apply(change, now), { feedAt: change.version });
  },
  beat(world, slot) {
    sendBeat(world, slot);
    if (world.settings.splitBeats) return;
    beatOnce(world, slot);
    hearBeat(world, slot);
  },
  'handle-beat': beatOnce,
  'hear-beat': hearBeat,
  'lose-beat'(world, slot) {
    world.setProcess(slot, { ...world.process(slot), beat: undefined });
  },
  crash(world, slot) {
    world.spend('crashes');
    const { settleMs, writeTimeoutMs } = world.settings.constants;
    const { rules } = world.settings;
    world.writes.forEach((write, index) => {
      if (write.process !== slot || write.phase === 'over' || write.phase === 'idle') return;
      if (write.phase !== 'sent') return world.setWrite(index, { phase: 'over', fate: 'void' });
      // Its connections are closed; what a store had received may still take effect.
      const settled = write.sentAt + writeTimeoutMs + settleMs[write.ticket?.owner ?? 'legacy'];
      const landBefore = rules.writeTimeoutIsTotal ? settled : Number.POSITIVE_INFINITY;
      return world.setWrite(index, { phase: 'over', landBefore });
    });
    world.setProcess(slot, { ...world.process(slot), up: false, loading: undefined, beat: undefined });
  },
  restart(world, slot) {
    world.spend('restarts');
    startProcess(world, slot);
  },
  stop(world, slot) {
    world.spend('pauses');
    world.setProcess(slot, { ...world.process(slot), pause: 'stopped' });
  },
  suspend(world, slot) {
    world.spend('suspensions');
    world.setProcess(slot, { ...world.process(slot), pause: 'suspended' });
  },
  wake(world, slot) {
    world.setProcess(slot, { ...world.process(slot), pause: '' });
  },
  leave(world, slot) {
    world.spend('departures');
    const { id } = world.process(slot);
    world.setLedger(depart(world.ledger, id, world.now));
    world.confirm();
    world.setProcess(slot, { ...world.process(slot), up: false, loading: undefined, beat: undefined });
  },
};

/** Where leases never lapse, one heartbeat more only confirms what it confirmed before. */
function matters(world: World, process: Process): boolean {
  if (world.budget.beats < 1) return false;
  if (world.settings.constants.leaseMs < endless || world.lossy.length > 0) return true;
  if (process.machine.view.position.version !== process.covered) return true;
  return !process.machine.leaseHeld(instantOf(world, process));
}

export function processActions(world: World, slot: number, out: Action[]): void {
  const process = world.process(slot);
  const { budget, settings } = world;
  const may = (step: string): void => {
    out.push({ step, a: slot, b: -1 });
  };
  if (!process.up) {
    if (budget.restarts > 0) may('restart');
    return;
  }
  if (process.beat !== undefined && process.beat.answer === undefined) may('handle-beat');
  if (process.pause !== '') return may('wake');
  if (process.registering) may('register');
  if (process.loading === 'asked') may('read-snapshot');
  else if (process.loading !== undefined) may('load');
  const { feedAt } = process;
  if (feedAt >= 0 && feedAt < world.ledger.position.version) {
    if (world.ledger.changes.some(({ version }) => version > feedAt)) may('deliver');
  }
  if (process.beat === undefined && !process.registering && feedAt >= 0 && matters(world, process))
    may('beat');
  if (process.beat?.answer !== undefined) may('hear-beat');
  if (process.beat !== undefined && settings.inPlace) may('lose-beat');
  if (budget.crashes > 0) may('crash');
  if (budget.pauses > 0) may('stop');
  if (budget.suspensions > 0) may('suspend');
  // Asking forgets what has settled; a machine that is shared with other worlds must not be asked.
  if (budget.departures < 1) return;
  const asked = settings.inPlace ? process.machine : process.machine.fork();
  if (asked.quiet(instantOf(world, process))) may('leave');
}
