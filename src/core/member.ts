/**
 * The member's side of the protocol: a proxy process that admits writes under a lease, counts what is in
 * flight, and answers fences. Deterministic: time comes in as an argument, what must be done goes out as
 * effects. No IO, so that a test can drive every interleaving of the code that runs in production.
 */
import type { Ownership, StoreName } from './ownership.ts';
import { LedgerView, type Position, type Snapshot, type Transition } from './view.ts';

/** Both clocks of this process: a lease has lapsed when either says so. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export interface MemberSettings {
  readonly leaseMs: number;
  /** Safety margin taken off every lease. */
  readonly marginMs: number;
  /** How long a write with unknown outcome may still take effect, per store. */
  readonly settleMs: Readonly<Record<StoreName, number>>;
  readonly defaultOwner: StoreName;
}

/** Held by one admitted write from admission to its end. */
export interface WriteTicket {
  readonly partition: string;
  readonly owner: StoreName;
  readonly epoch: number;
  /** Number of unbroken lease terms so far; a chunk sent under a later term must be refused. */
  readonly leaseTerm: number;
}

export type HoldReason = 'fenced' | 'committed' | 'not-yet-durable';
export type Admission =
  | { readonly verdict: 'admit'; readonly ticket: WriteTicket }
  | { readonly verdict: 'hold'; readonly because: HoldReason }
  | { readonly verdict: 'refuse'; readonly code: 'lease-lapsed' };

/** How a forwarded write ended: `ended` is any complete answer, `in-doubt` an unknown outcome. */
export type WriteOutcome = 'ended' | 'not-sent' | 'in-doubt';

export type DrainAnswer = 'drained' | 'in-doubt';

export interface Acknowledgement {
  readonly partition: string;
  readonly attempt: string;
  readonly epoch: number;
  readonly answer: DrainAnswer;
  /** Age of the partition's last finished write as far as this member knows, ms. */
  readonly lastWriteAgeMs: number;
  /** Until the last write in doubt has settled, ms; 0 where none is. */
  readonly settlesInMs: number;
}

export type MemberEffect =
  | { readonly kind: 'acknowledge'; readonly acknowledgement: Acknowledgement }
  /** Close WebSockets and other open-ended writers of this partition. */
  | { readonly kind: 'end-long-lived'; readonly partition: string }
  /** Held requests of this partition (of all, where none is named) may be admissible now. */
  | { readonly kind: 'wake'; readonly partition?: string }
  /** An admission waits for a durable heartbeat: send one now. */
  | { readonly kind: 'heartbeat-now' };

export interface Heartbeat {
  readonly sequence: number;
  readonly sentAt: Instant;
  /** Last position that a durable heartbeat confirmed; the ledger checks that it still has it. */
  readonly confirmed: Position;
  /** Position that the view had applied when this heartbeat was made. */
  readonly applied: Position;
}

interface PartitionActivity {
  inFlight: number;
  /** Monotonic times at which in-doubt writes settle. */
  inDoubtUntilMs: number[];
  lastFinishedMs: number;
}

interface PendingFence {
  readonly attempt: string;
  readonly epoch: number;
}

export class Member {
  readonly view: LedgerView;
  readonly #settings: MemberSettings;
  readonly #startedMs: number;
  #activity = new Map<string, PartitionActivity>();
  #fences = new Map<string, PendingFence>();
  /** Partitions whose latest transition is not yet covered by a durable heartbeat → its version. */
  #unconfirmed = new Map<string, number>();
  #confirmed: Position = { version: 0, id: '' };
  /** Which entries of a snapshot were durable is unknown, so one heartbeat must confirm them all. */
  #snapshotVersion = 0;
  #sequence = 0;
  #leaseUntil: Instant | undefined;
  #leaseTerm = 0;
  #renewal: { readonly sentAt: Instant; readonly needsVersion: number } | undefined;

  constructor(settings: MemberSettings, startedAt: Instant) {
    this.#settings = settings;
    this.#startedMs = startedAt.monotonicMs;
    this.view = new LedgerView(settings.defaultOwner);
  }

  ownershipOf(partition: string): Ownership {
    return this.view.of(partition);
  }

  // --- admission -----------------------------------------------------------------------------------

  /** Decides on one write and, when it is admitted, counts it in flight in the same step. */
  admit(partition: string, now: Instant): Admission {
    if (!this.leaseHeld(now)) return { verdict: 'refuse', code: 'lease-lapsed' };
    const ownership = this.view.of(partition);
    if (ownership.phase !== 'open') return { verdict: 'hold', because: ownership.phase };
    if (this.#unconfirmed.has(partition) || this.#confirmed.version < this.#snapshotVersion) {
      return { verdict: 'hold', because: 'not-yet-durable' };
    }
    this.#activityOf(partition).inFlight += 1;
    const { owner, epoch } = ownership;
    return { verdict: 'admit', ticket: { partition, owner, epoch, leaseTerm: this.#leaseTerm } };
  }

  /** May another chunk of this admitted write be sent? Not after any lapse since its admission. */
  mayContinue(ticket: WriteTicket, now: Instant): boolean {
    return this.leaseHeld(now) && ticket.leaseTerm === this.#leaseTerm;
  }

  end(ticket: WriteTicket, outcome: WriteOutcome, now: Instant): MemberEffect[] {
    const activity = this.#activityOf(ticket.partition);
    if (activity.inFlight < 1) throw new Error(`write of ${ticket.partition} ended twice`);
    activity.inFlight -= 1;
    if (outcome === 'ended') activity.lastFinishedMs = Math.max(activity.lastFinishedMs, now.monotonicMs);
    if (outcome === 'in-doubt') {
      const settledMs = now.monotonicMs + this.#settings.settleMs[ticket.owner];
      activity.inDoubtUntilMs.push(settledMs);
      // It may take effect until then, and lists show that later still.
      activity.lastFinishedMs = Math.max(activity.lastFinishedMs, settledMs);
    }
    return this.#answerFence(ticket.partition, now);
  }

  inFlight(partition: string): number {
    return this.#activity.get(partition)?.inFlight ?? 0;
  }

  /** In-doubt writes of the partition that are younger than the settle time. */
  inDoubt(partition: string, now: Instant): number {
    return this.#unsettled(this.#activity.get(partition), now).length;
  }

  /** Over all partitions; for the member's record in the ledger. */
  totals(now: Instant): { inFlight: number; inDoubt: number } {
    let inFlight = 0;
    let inDoubt = 0;
    for (const activity of this.#activity.values()) {
      inFlight += activity.inFlight;
      inDoubt += this.#unsettled(activity, now).length;
    }
    return { inFlight, inDoubt };
  }

  /** Nothing in flight and nothing in doubt anywhere: the member may leave. */
  quiet(now: Instant): boolean {
    for (const activity of this.#activity.values()) {
      if (activity.inFlight > 0 || this.#unsettled(activity, now).length > 0) return false;
    }
    return true;
  }

  /** Forgets activity older than `rememberMs` so that memory stays bounded. */
  forgetIdle(now: Instant, rememberMs: number): void {
    for (const [partition, activity] of this.#activity) {
      const idle = activity.inFlight === 0 && this.#unsettled(activity, now).length === 0;
      if (idle && now.monotonicMs - activity.lastFinishedMs > rememberMs) this.#activity.delete(partition);
    }
  }

  // --- the ledger's stream -------------------------------------------------------------------------

  /** An older snapshot than the view is ignored: going back could readmit writes under an old epoch. */
  load(snapshot: Snapshot, now: Instant): MemberEffect[] {
    if (snapshot.position.version < this.view.position.version) return [];
    const busy = [...this.#activity].filter(([, { inFlight }]) => inFlight > 0);
    const before = busy.map(([partition]) => [partition, this.view.of(partition).epoch] as const);
    this.view.load(snapshot);
    this.#fences.clear();
    this.#unconfirmed.clear();
    const effects: MemberEffect[] = [];
    // Whose fence went by unseen must not go on writing to the owner of then.
    for (const [partition, epoch] of before) {
      if (this.view.of(partition).epoch !== epoch) effects.push({ kind: 'end-long-lived', partition });
    }
    for (const [partition, ownership] of this.view.entries()) {
      effects.push(...this.#meet(partition, ownership, now));
    }
    this.#snapshotVersion = snapshot.position.version;
    effects.push({ kind: 'heartbeat-now' });
    this.#renewIfApplied();
    return effects;
  }

  /** Applies the next transition; `undefined` means a gap, so a snapshot must be loaded. */
  apply(transition: Transition, now: Instant): MemberEffect[] | undefined {
    const result = this.view.apply(transition);
    if (result === 'gap') return undefined;
    if (result === 'already-known') return [];
    const { partition, after } = transition;
    this.#unconfirmed.set(partition, transition.version);
    const effects = this.#meet(partition, after, now);
    if (after.phase === 'open') effects.push({ kind: 'heartbeat-now' });
    this.#renewIfApplied();
    return effects;
  }

  #meet(partition: string, ownership: Ownership, now: Instant): MemberEffect[] {
    if (ownership.phase !== 'fenced') {
      this.#fences.delete(partition);
      return [];
    }
    this.#fences.set(partition, { attempt: ownership.attempt, epoch: ownership.epoch });
    return [{ kind: 'end-long-lived', partition }, ...this.#answerFence(partition, now)];
  }

  /** Answers once per fence: drained, or at once with a nack where a write is in doubt. */
  #answerFence(partition: string, now: Instant): MemberEffect[] {
    const fence = this.#fences.get(partition);
    if (fence === undefined) return [];
    const activity = this.#activity.get(partition);
    const unsettled = this.#unsettled(activity, now);
    const doubtful = unsettled.length > 0;
    if (!doubtful && (activity?.inFlight ?? 0) > 0) return [];
    this.#fences.delete(partition);
    const lastFinishedMs = activity?.lastFinishedMs ?? this.#startedMs;
    const acknowledgement: Acknowledgement = {
      partition,
      attempt: fence.attempt,
      epoch: fence.epoch,
      answer: doubtful ? 'in-doubt' : 'drained',
      lastWriteAgeMs: Math.max(0, now.monotonicMs - lastFinishedMs),
      settlesInMs: doubtful ? Math.max(...unsettled) - now.monotonicMs : 0,
    };
    return [{ kind: 'acknowledge', acknowledgement }];
  }

  // --- the lease -----------------------------------------------------------------------------------

  leaseHeld(now: Instant): boolean {
    const until = this.#leaseUntil;
    return until !== undefined && now.monotonicMs < until.monotonicMs && now.wallMs < until.wallMs;
  }

  /** Milliseconds until the lease lapses; 0 when it has. */
  leaseLeftMs(now: Instant): number {
    const until = this.#leaseUntil;
    if (until === undefined) return 0;
    return Math.max(0, Math.min(until.monotonicMs - now.monotonicMs, until.wallMs - now.wallMs));
  }

  heartbeat(now: Instant): Heartbeat {
    this.#sequence += 1;
    return {
      sequence: this.#sequence,
      sentAt: now,
      confirmed: this.#confirmed,
      applied: this.view.position,
    };
  }

  /**
   * The ledger confirmed `heartbeat` durably and named its newest version. The lease is renewed, counted
   * from when the heartbeat was sent, as soon as the view has applied that version.
   */
  heartbeatConfirmed(heartbeat: Heartbeat, ledgerVersion: number): MemberEffect[] {
    const hadSnapshot = this.#confirmed.version >= this.#snapshotVersion;
    if (heartbeat.applied.version >= this.#confirmed.version) this.#confirmed = heartbeat.applied;
    if (this.#renewal === undefined || heartbeat.sentAt.monotonicMs >= this.#renewal.sentAt.monotonicMs) {
      this.#renewal = { sentAt: heartbeat.sentAt, needsVersion: ledgerVersion };
      this.#renewIfApplied();
    }
    const effects: MemberEffect[] = [];
    if (!hadSnapshot && this.#confirmed.version >= this.#snapshotVersion) effects.push({ kind: 'wake' });
    for (const [partition, version] of this.#unconfirmed) {
      if (version > this.#confirmed.version) continue;
      this.#unconfirmed.delete(partition);
      effects.push({ kind: 'wake', partition });
    }
    return effects;
  }

  /** The ledger no longer lists this member, or lost data: admit nothing more under this lease. */
  loseLease(): void {
    this.#leaseUntil = undefined;
    this.#renewal = undefined;
  }

  #renewIfApplied(): void {
    const renewal = this.#renewal;
    if (renewal === undefined || this.view.position.version < renewal.needsVersion) return;
    this.#renewal = undefined;
    const { sentAt } = renewal;
    const lengthMs = this.#settings.leaseMs - this.#settings.marginMs;
    const held = this.#leaseUntil;
    const brokenOff =
      held === undefined || sentAt.monotonicMs >= held.monotonicMs || sentAt.wallMs >= held.wallMs;
    if (brokenOff) this.#leaseTerm += 1;
    this.#leaseUntil = {
      monotonicMs: sentAt.monotonicMs + lengthMs,
      wallMs: sentAt.wallMs + lengthMs,
    };
  }

  #activityOf(partition: string): PartitionActivity {
    const known = this.#activity.get(partition);
    if (known !== undefined) return known;
    const fresh: PartitionActivity = { inFlight: 0, inDoubtUntilMs: [], lastFinishedMs: this.#startedMs };
    this.#activity.set(partition, fresh);
    return fresh;
  }

  #unsettled(activity: PartitionActivity | undefined, now: Instant): number[] {
    if (activity === undefined || activity.inDoubtUntilMs.length === 0) return [];
    activity.inDoubtUntilMs = activity.inDoubtUntilMs.filter((untilMs) => untilMs > now.monotonicMs);
    return activity.inDoubtUntilMs;
  }
}
