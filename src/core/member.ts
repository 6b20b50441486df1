/**
 * The member's side of the protocol: a proxy process that admits writes under a lease, counts what is in
 * flight, and answers fences. Deterministic: time comes in as an argument, what must be done goes out as
 * effects. No IO, so that a test can drive every interleaving of the code that runs in production.
 */
import { WriteActivity, type WriteOutcome } from './activity.ts';
import { type Instant, Lease, type LeaseSettings } from './lease.ts';
import type { Ownership, StoreName } from './ownership.ts';
import type { Admission, HoldReason, PartitionOwner, WriteTicket } from './ticket.ts';
import { inOrder, type LedgerChange, LedgerView, type Position, type Snapshot } from './view.ts';

export type { Instant } from './lease.ts';
export type { WriteOutcome } from './activity.ts';

export interface MemberSettings extends LeaseSettings {
  /** How long a write with unknown outcome may still take effect, per store. */
  readonly settleMs: Readonly<Record<StoreName, number>>;
  readonly defaultOwner: StoreName;
  /** The rules that this process runs by; while the ledger names others, it admits nothing. */
  readonly rulesHash?: string | undefined;
}

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
  /** Put this process on the ledger's list; only then load the snapshot, so that no fence is missed. */
  | { readonly kind: 'register' }
  | { readonly kind: 'load-snapshot' }
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
  /** Position that the view had applied when this heartbeat was made; the ledger says whether it has it. */
  readonly applied: Position;
}

/** Partitions whose home is remembered. */
const homesRemembered = 200_000;

type PendingFence = Pick<Acknowledgement, 'attempt' | 'epoch'>;

export class Member {
  readonly #settings: MemberSettings;
  #view: LedgerView;
  #activity: WriteActivity;
  #lease: Lease;
  #fences = new Map<string, PendingFence>();
  /** Partitions whose latest transition is not yet covered by a durable heartbeat → its version. */
  #unconfirmed = new Map<string, number>();
  #confirmed: Position = { version: 0, id: '' };
  /** Which entries of a snapshot were durable is unknown, so one heartbeat must confirm them all. */
  #snapshotVersion = 0;
  /** The ledger does not have the last transitions of this view, so an older snapshot is the truth. */
  #viewIsAhead = false;
  /** Partitions that no transition touched, and that are no newcomers. */
  #atHome = new Set<string>();
  #sequence = 0;
  #renewal: { readonly sentAt: Instant; readonly needsVersion: number } | undefined;

  constructor(settings: MemberSettings, startedAt: Instant) {
    this.#settings = settings;
    this.#view = new LedgerView(settings.defaultOwner);
    this.#activity = new WriteActivity(settings.settleMs, startedAt.monotonicMs);
    this.#lease = new Lease(settings);
  }

  get view(): LedgerView {
    return this.#view;
  }

  ownershipOf(partition: string): Ownership {
    return this.#view.of(partition);
  }

  // --- admission -----------------------------------------------------------------------------------

  /**
   * Decides on one write and, when it is admitted, counts it in flight for every partition that it touches, in the
   * same step. One that touches several is admitted only while all of them are open at one owner (I4).
   */
  admit(partition: string, now: Instant, also: readonly string[] = []): Admission {
    if (!this.leaseHeld(now)) return { verdict: 'refuse', code: 'lease-lapsed' };
    const { rulesHash } = this.#settings;
    if (rulesHash !== undefined && this.#view.rules?.hash !== rulesHash) {
      return { verdict: 'hold', because: 'rules-not-active' };
    }
    const owners = also.length === 0 ? [] : this.#ownersOfOpen([partition, ...also]);
    // Those that are open do not come to agree by waiting for the others.
    if (owners.some(({ owner }) => owner !== owners[0]?.owner)) return { verdict: 'split', owners };
    let because = this.#whyHeld(partition);
    for (const name of also) because ??= this.#whyHeld(name);
    if (because !== undefined) return { verdict: 'hold', because };
    const { owner, epoch } = this.#view.of(partition);
    this.#activity.begin(partition);
    for (const name of also) this.#activity.begin(name);
    const ticket = { partition, owner, epoch, leaseTerm: this.#lease.term };
    if (also.length === 0) return { verdict: 'admit', ticket };
    const others = also.map((name) => ({ partition: name, epoch: this.#view.of(name).epoch }));
    return { verdict: 'admit', ticket: { ...ticket, also: others } };
  }

  #ownersOfOpen(partitions: readonly string[]): PartitionOwner[] {
    const open = partitions.filter((partition) => this.#whyHeld(partition) === undefined);
    return open.map((partition) => ({ partition, owner: this.#view.of(partition).owner }));
  }

  #whyHeld(partition: string): HoldReason | undefined {
    const { phase } = this.#view.of(partition);
    if (phase !== 'open') return phase;
    if (this.#unconfirmed.has(partition) || this.#confirmed.version < this.#snapshotVersion) {
      return 'not-yet-durable';
    }
    return this.homeIsKnown(partition) ? undefined : 'unclaimed';
  }

  /**
   * False for a partition that may be new while new ones begin at the other store: the ledger does not list
   * who lives at the default store, so its absence there proves nothing.
   */
  homeIsKnown(partition: string): boolean {
    const begin = this.#view.rules?.newPartitions ?? this.#settings.defaultOwner;
    if (begin === this.#settings.defaultOwner) return true;
    return this.#view.has(partition) || this.#atHome.has(partition);
  }

  /** The partition was found in the registry, untouched: it lives at the default store. */
  findAtHome(partition: string): MemberEffect[] {
    // Bounded: who is forgotten is looked up once more.
    if (this.#atHome.size >= homesRemembered) this.#atHome.clear();
    this.#atHome.add(partition);
    return [{ kind: 'wake', partition }];
  }

  /** May another chunk of this admitted write be sent? Not in a lapse, nor in a later term of the lease. */
  mayContinue(ticket: WriteTicket, now: Instant): boolean {
    return this.#lease.held(now) && ticket.leaseTerm === this.#lease.term;
  }

  end(ticket: WriteTicket, outcome: WriteOutcome, now: Instant): MemberEffect[] {
    const { partition, owner, also = [] } = ticket;
    this.#activity.end(partition, owner, outcome, now.monotonicMs);
    for (const other of also) this.#activity.end(other.partition, owner, outcome, now.monotonicMs);
    const effects = this.#answerFence(partition, now);
    for (const other of also) effects.push(...this.#answerFence(other.partition, now));
    return effects;
  }

  inFlight(partition: string): number {
    return this.#activity.inFlight(partition);
  }

  /** In-doubt writes of the partition that are younger than the settle time. */
  inDoubt(partition: string, now: Instant): number {
    return this.#activity.unsettled(partition, now.monotonicMs).length;
  }

  /** Over all partitions; for the member's record in the ledger. */
  totals(now: Instant): { inFlight: number; inDoubt: number } {
    return this.#activity.totals(now.monotonicMs);
  }

  /** Nothing in flight and nothing in doubt anywhere: the member may leave. */
  quiet(now: Instant): boolean {
    const { inFlight, inDoubt } = this.totals(now);
    return inFlight === 0 && inDoubt === 0;
  }

  /** Forgets activity older than `rememberMs` so that memory stays bounded. */
  forgetIdle(now: Instant, rememberMs: number): void {
    this.#activity.forgetIdle(now.monotonicMs, rememberMs);
  }

  // --- the ledger's stream -------------------------------------------------------------------------

  /** The first thing a member does: it registers, and loads the snapshot only when it is on the list. */
  enter(): MemberEffect[] {
    this.loseLease();
    return [{ kind: 'register' }];
  }

  /** It is on the list now: whoever fences from here on waits for it, so a snapshot misses no fence. */
  registered(): MemberEffect[] {
    return [{ kind: 'load-snapshot' }];
  }

  /**
   * An older snapshot than the view is ignored: going back could readmit writes under an old epoch. Unless
   * the ledger said that it lost what this view has beyond it; nothing of that was ever acted upon.
   */
  load(snapshot: Snapshot, now: Instant): MemberEffect[] {
    const { version } = snapshot.position;
    const tooOld = version < (this.#viewIsAhead ? this.#confirmed.version : this.#view.position.version);
    if (tooOld) return [];
    this.#viewIsAhead = false;
    const before = this.#activity.busy().map((name) => [name, this.#view.of(name).epoch] as const);
    this.#view.load(snapshot);
    this.#fences.clear();
    this.#unconfirmed.clear();
    this.#atHome.clear();
    const effects: MemberEffect[] = [];
    // Whose fence went by unseen must not go on writing to the owner of then.
    for (const [partition, epoch] of before) {
      if (this.#view.of(partition).epoch !== epoch) effects.push({ kind: 'end-long-lived', partition });
    }
    for (const [partition, ownership] of this.#view.entries()) {
      effects.push(...this.#meet(partition, ownership, now));
    }
    this.#snapshotVersion = version;
    return [...effects, { kind: 'heartbeat-now' }, ...this.#renewIfApplied()];
  }

  /** Applies the ledger's next change; where one before it is missing, asks for a snapshot instead. */
  apply(change: LedgerChange, now: Instant): MemberEffect[] {
    // What was applied last is lost, so what comes after it is not the next; a snapshot is on its way.
    if (this.#viewIsAhead) return [];
    const result = this.#view.apply(change);
    if (result === 'gap') return [{ kind: 'load-snapshot' }];
    if (result === 'already-known') return [];
    return [...this.#take(change, now), ...this.#renewIfApplied()];
  }

  #take(change: LedgerChange, now: Instant): MemberEffect[] {
    switch (change.kind) {
      case 'ownership': {
        const { partition, after } = change;
        this.#unconfirmed.set(partition, change.version);
        const effects = this.#meet(partition, after, now);
        if (after.phase === 'open') effects.push({ kind: 'heartbeat-now' });
        return effects;
      }
      case 'rules':
        // Like a snapshot: nothing is admitted under them before a heartbeat has confirmed them.
        this.#snapshotVersion = change.version;
        this.#atHome.clear();
        return [{ kind: 'heartbeat-now' }];
      case 'doubt-resolved':
        this.#activity.resolve(change.partition, now.monotonicMs);
        return [];
      case 'windows-closed':
      case 'directory':
      case 'link-forgotten':
        return [];
    }
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
    const unsettled = this.#activity.unsettled(partition, now.monotonicMs);
    const doubtful = unsettled.length > 0;
    if (!doubtful && this.#activity.inFlight(partition) > 0) return [];
    this.#fences.delete(partition);
    const acknowledgement: Acknowledgement = {
      ...{ partition, attempt: fence.attempt, epoch: fence.epoch },
      answer: doubtful ? 'in-doubt' : 'drained',
      lastWriteAgeMs: this.#activity.lastFinishedAgeMs(partition, now.monotonicMs),
      settlesInMs: doubtful ? Math.max(...unsettled) - now.monotonicMs : 0,
    };
    return [{ kind: 'acknowledge', acknowledgement }];
  }

  // --- the lease -----------------------------------------------------------------------------------

  leaseHeld(now: Instant): boolean {
    return this.#lease.held(now);
  }

  /** Milliseconds until the lease lapses; 0 when it has. */
  leaseLeftMs(now: Instant): number {
    return this.#lease.leftMs(now);
  }

  heartbeat(now: Instant): Heartbeat {
    this.#sequence += 1;
    const [confirmed, applied] = [this.#confirmed, this.#view.position];
    return { sequence: this.#sequence, sentAt: now, confirmed, applied };
  }

  /**
   * The ledger confirmed `heartbeat` durably and named its newest version. The lease is renewed, counted
   * from when the heartbeat was sent, as soon as the view has applied that version.
   */
  heartbeatConfirmed(heartbeat: Heartbeat, ledgerVersion: number): MemberEffect[] {
    const hadSnapshot = this.#confirmed.version >= this.#snapshotVersion;
    if (heartbeat.applied.version >= this.#confirmed.version) this.#confirmed = heartbeat.applied;
    const effects: MemberEffect[] = [];
    if (this.#renewal === undefined || heartbeat.sentAt.monotonicMs >= this.#renewal.sentAt.monotonicMs) {
      this.#renewal = { sentAt: heartbeat.sentAt, needsVersion: ledgerVersion };
      effects.push(...this.#renewIfApplied());
    }
    if (!hadSnapshot && this.#confirmed.version >= this.#snapshotVersion) effects.push({ kind: 'wake' });
    for (const [partition, version] of this.#unconfirmed) {
      if (version > this.#confirmed.version) continue;
      this.#unconfirmed.delete(partition);
      effects.push({ kind: 'wake', partition });
    }
    return effects;
  }

  /**
   * The ledger has not got what this view applied last: a failover lost it before it was confirmed. Nothing
   * was admitted because of it, so the view goes back to what the ledger has, and the lease begins anew: the
   * old one was held in a view that is given up.
   */
  viewAhead(): MemberEffect[] {
    this.#viewIsAhead = true;
    this.loseLease();
    return [{ kind: 'load-snapshot' }];
  }

  /** The ledger no longer lists this member, or lost data: admit nothing more under this lease. */
  loseLease(): void {
    this.#lease.lose();
    this.#renewal = undefined;
  }

  /** Nothing is admitted any more, whatever is confirmed later. */
  retire(): void {
    this.#lease.end();
  }

  /** A lease that begins anew may let in what was held under the one before. */
  #renewIfApplied(): MemberEffect[] {
    const renewal = this.#renewal;
    if (renewal === undefined || this.#view.position.version < renewal.needsVersion) return [];
    this.#renewal = undefined;
    const { term } = this.#lease;
    this.#lease.renew(renewal.sentAt);
    return this.#lease.term === term ? [] : [{ kind: 'wake' }];
  }

  // --- for whoever explores what could happen ------------------------------------------------------

  /** Independent, in the same state. */
  fork(): Member {
    const twin = new Member(this.#settings, { monotonicMs: 0, wallMs: 0 });
    twin.#view = this.#view.fork();
    twin.#activity = this.#activity.fork();
    twin.#lease = this.#lease.fork();
    twin.#fences = new Map(this.#fences);
    twin.#unconfirmed = new Map(this.#unconfirmed);
    twin.#confirmed = this.#confirmed;
    twin.#snapshotVersion = this.#snapshotVersion;
    twin.#viewIsAhead = this.#viewIsAhead;
    twin.#atHome = new Set(this.#atHome);
    twin.#sequence = this.#sequence;
    twin.#renewal = this.#renewal;
    return twin;
  }

  /** The whole state as plain values, with times relative to `now`. */
  describe(now: Instant): unknown {
    const { sentAt, needsVersion } = this.#renewal ?? {};
    return {
      position: this.#view.position,
      partitions: inOrder(this.#view.entries()),
      rules: this.#view.rules,
      activity: this.#activity.describe(now.monotonicMs),
      lease: this.#lease.describe(now),
      fences: inOrder(this.#fences),
      unconfirmed: inOrder(this.#unconfirmed),
      confirmed: this.#confirmed,
      snapshotVersion: this.#snapshotVersion,
      viewIsAhead: this.#viewIsAhead,
      atHome: [...this.#atHome].toSorted(),
      sequence: this.#sequence,
      renewal: sentAt && [sentAt.monotonicMs - now.monotonicMs, sentAt.wallMs - now.wallMs, needsVersion],
    };
  }
}
