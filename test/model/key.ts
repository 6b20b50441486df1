/**
 * A world as text: two worlds with the same text have the same future. Times are relative to now, counters
 * that are only compared with themselves are left out, and what is unordered is sorted.
 */
import { instantOf } from './shell.ts';
import type { Ownership } from '../../src/core/ownership.ts';
import type { Attempt, Ghost, LedgerState, Process, Task, Write } from './types.ts';
import { endless, type World } from './world.ts';

/** Times that are too old, or too far off, to make a difference any more are all the same. */
interface Limits {
  /** Of anything that a lease is counted from. */
  readonly lease: (at: number) => number;
  /** Of the last finished write: older ones are in the list. */
  readonly finished: (at: number) => number;
  readonly fence: (at: number) => number;
  readonly moved: (at: number) => number;
}

function limitsOf(world: World): Limits {
  const { leaseMs, writeTimeoutMs, settleMs, feedDelayMs, fenceMs } = world.settings.constants;
  const goneAfter = leaseMs + writeTimeoutMs + Math.max(settleMs.legacy, settleMs.app) + 1;
  return {
    lease: (at) => (leaseMs >= endless ? 0 : Math.max(-leaseMs, at)),
    finished: (at) => Math.max(-feedDelayMs, at),
    fence: (at) => (fenceMs >= endless ? 0 : Math.max(-fenceMs - 1, at)),
    moved: (at) => (world.budget.removals === 0 ? 0 : Math.max(-goneAfter, at)),
  };
}

interface Described {
  position: unknown;
  partitions: [string, Ownership][];
  activity: { partition: string; inFlight: number; settlesInMs: number[]; lastFinishedMs: number }[];
  lease: { term: number; left?: [number, number] };
  fences: unknown;
  unconfirmed: unknown;
  confirmed: unknown;
  snapshotVersion: unknown;
  viewIsAhead: unknown;
  renewal?: [number, number, number];
}

interface Text {
  readonly now: number;
  readonly text: string;
}

interface ProcessText extends Text {
  readonly term: number;
}

/** Parts are replaced, never changed, and only time makes their text another one: most are described once. */
const processes = new WeakMap<Process, ProcessText>();
const ledgers = new WeakMap<LedgerState, Text>();
const attempts = new WeakMap<Attempt, Text>();

function remembered<Part extends object>(
  known: WeakMap<Part, Text>,
  part: Part,
  now: number,
  describe: () => unknown,
): string {
  const before = known.get(part);
  if (before?.now === now) return before.text;
  const text = JSON.stringify(describe());
  known.set(part, { now, text });
  return text;
}

function processText(world: World, process: Process, limits: Limits): ProcessText {
  const known = processes.get(process);
  if (known?.now === world.now) return known;
  const { id, up, pause, registering, feedAt, loading, beat, covered } = process;
  const now = instantOf(world, process);
  // Describing forgets what has settled, and this machine is shared with worlds at other times.
  const state = process.machine.fork().describe(now) as Described;
  const parts: unknown[] = [id, up ? 1 : 0];
  if (up) {
    parts.push(pause, registering ? 1 : 0, feedAt, covered, state.position, partitionsText(state.partitions));
    for (const { partition, inFlight, settlesInMs, lastFinishedMs } of state.activity) {
      parts.push(
        partition,
        inFlight,
        settlesInMs.toSorted((one, other) => one - other),
        limits.finished(lastFinishedMs),
      );
    }
    parts.push(state.lease.left?.map((at) => limits.lease(at)));
    parts.push(state.renewal?.map((part, at) => (at < 2 ? limits.lease(part) : part)));
    parts.push(state.fences, state.unconfirmed, state.confirmed, state.snapshotVersion, state.viewIsAhead);
    if (loading === undefined || loading === 'asked') parts.push(loading);
    else parts.push(loading.position, partitionsText(loading.partitions));
    if (beat !== undefined) {
      const { heartbeat, answer } = beat;
      parts.push(limits.lease(heartbeat.sentAt.monotonicMs - now.monotonicMs));
      parts.push(limits.lease(heartbeat.sentAt.wallMs - now.wallMs));
      parts.push(heartbeat.confirmed, heartbeat.applied, answer);
    }
  }
  const fresh = { now: world.now, text: JSON.stringify(parts), term: state.lease.term };
  processes.set(process, fresh);
  return fresh;
}

function writeText(world: World, write: Write, terms: readonly number[]): string {
  const { phase, fate, ticket, process, upload } = write;
  const { writeTimeoutMs, feedDelayMs } = world.settings.constants;
  if (phase === 'idle') return upload ? 'u' : 'i';
  if (phase === 'over' && fate !== 'pending') {
    const hidden = fate === 'done' ? Math.max(0, write.doneAt + feedDelayMs - world.now) : 0;
    return `o${hidden === 0 ? '' : `${ticket?.owner}${hidden}`}`;
  }
  const { monotonicMs } = instantOf(world, world.process(process));
  const inTerm = terms[process] === ticket?.leaseTerm ? 1 : 0;
  const untimed = phase === 'over' || writeTimeoutMs >= endless;
  const age = untimed ? 0 : Math.max(-writeTimeoutMs, write.admittedAt - monotonicMs);
  const land =
    write.frozen || write.landBefore === Number.POSITIVE_INFINITY ? 'x' : write.landBefore - world.now;
  const sent =
    fate === 'pending' && phase === 'sent' && !untimed
      ? Math.max(-writeTimeoutMs - 5, write.sentAt - world.now)
      : '';
  const done = fate === 'done' ? Math.max(-feedDelayMs, write.doneAt - world.now) : '';
  const who = phase === 'over' ? '' : process;
  const epochs = [ticket?.epoch, ...(ticket?.also ?? []).map(({ epoch }) => epoch)].join('+');
  return `${phase},${fate},${who},${ticket?.owner},${epochs},${inTerm},${age},${land},${sent},${done},${write.frozen ? 1 : 0}`;
}

export function key(world: World): string {
  const { now } = world;
  const limits = limitsOf(world);
  const described = world.processes.map((process) => processText(world, process, limits));
  const terms = described.map(({ term }) => term);
  const ledgerText = (ledger: LedgerState): string =>
    remembered(ledgers, ledger, now, () => describeLedger(ledger, now, limits));
  const parts = [
    `${Object.values(world.budget).join(',')} ${world.linked ? 1 : 0}`,
    ledgerText(world.ledger),
    streamText(world),
    world.lossy.map(ledgerText).join(';'),
    described.map(({ text }) => text).join(';'),
    world.gone.join(),
    world.attempts
      .map((attempt) => remembered(attempts, attempt, now, () => describeAttempt(world, attempt, limits)))
      .join(';'),
    world.acknowledgements
      .map(({ member, acknowledgement: { attempt, answer, lastWriteAgeMs } }) => {
        return `${member} ${attempt} ${answer} ${limits.finished(-lastWriteAgeMs)}`;
      })
      .toSorted()
      .join(';'),
    world.writes.map((write) => writeText(world, write, terms)).join(';'),
    world.stores.legacy.join(),
    world.stores.app.join(),
    world.guard.map(({ epoch, owner, closed }) => `${epoch}${owner}${closed}`).join(),
    world.locks
      .map((lock) => (lock === undefined ? '' : `${lock.holder} ${Math.max(0, lock.until - now)}`))
      .join(),
    ...world.workers.map(({ stage, partition, mask, session }) =>
      JSON.stringify([stage, partition, mask, session]),
    ),
    ...world.copies.map((copy) =>
      JSON.stringify({ ...copy, landBefore: copy.frozen ? 0 : copy.landBefore - now }),
    ),
    ...world.ghosts.map((ghost) => JSON.stringify(withoutDeadline(ghost))),
    world.witnesses.map(({ sent, acknowledged }) => `${sent.legacy} ${sent.app} ${acknowledged}`).join(),
  ];
  return parts.join('|');
}

function describeLedger(ledger: LedgerState, now: number, limits: Limits): unknown {
  return [
    ledger.records.map(({ ownership, opens }) => [
      ownershipText(ownership),
      deadlineIn(ownership, now),
      opens,
    ]),
    ledger.position,
    ledger.members.map(({ id, movedAt }) => [id, limits.moved(movedAt - now)]),
    limits.finished(ledger.departedAt - now),
    ledger.regressed ? 1 : 0,
  ];
}

/** The changes that somebody may still read, or that a position may still be compared with. */
function streamText(world: World): string {
  const { version } = world.ledger.position;
  const all = world.lossy.length > 0 || world.budget.failovers > 0;
  let readFrom = version;
  for (const { up, feedAt } of world.processes) if (up && feedAt >= 0) readFrom = Math.min(readFrom, feedAt);
  return world.ledger.changes
    .filter((change) => all || change.version > readFrom)
    .map((change) => {
      const what = change.kind === 'ownership' ? `${change.partition} ${ownershipText(change.after)}` : '';
      return `${change.id} ${what}`;
    })
    .join(';');
}

function describeAttempt(world: World, attempt: Attempt, limits: Limits): unknown {
  const { now } = world;
  const { rules } = world.settings;
  const { machine } = attempt;
  return [
    ...[attempt.coordinator, attempt.id, attempt.partition, attempt.entered, attempt.fencedEpoch],
    {
      ...machine,
      fencedAtMs: limits.fence(machine.fencedAtMs - now),
      newestWriteMs: limits.finished(machine.newestWriteMs - now),
      // Only for the report.
      ...{ failure: undefined, proof: undefined },
    },
    attempt.tasks.map((task) =>
      task.task === 'catch-up'
        ? { ...task, notBefore: Math.max(0, task.notBefore - now) }
        : withoutDeadline(task),
    ),
    rules.membersListedAfterFence ? 0 : attempt.listedBefore,
    rules.linksReadBehindDrain ? 0 : attempt.linkedBefore,
    rules.positionReadAfterDrain ? 0 : attempt.earlyMask,
  ];
}

function ownershipText(ownership: Ownership): string {
  const attempt = ownership.phase === 'open' ? '' : ownership.attempt;
  return `${ownership.phase} ${ownership.owner} ${ownership.epoch} ${attempt}`;
}

function partitionsText(partitions: readonly (readonly [string, Ownership])[]): string {
  return partitions.map(([name, ownership]) => `${name} ${ownershipText(ownership)}`).join();
}

function deadlineIn(ownership: Ownership, now: number): number {
  if (ownership.phase !== 'fenced') return 0;
  return Math.min(endless / 2, Math.max(0, ownership.deadlineMs - now));
}

/** A record that was read earlier is only compared by phase, epoch and attempt. */
function withoutDeadline(call: Task | Ghost): unknown {
  return 'before' in call && call.before !== undefined
    ? { ...call, before: ownershipText(call.before) }
    : call;
}
