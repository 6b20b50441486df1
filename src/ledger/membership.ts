/**
 * A proxy process as a member: the shell around core's Member. It registers first and loads the snapshot
 * second, follows the stream, renews the lease, sends acknowledgements, and reopens what a dead
 * coordinator left behind (I7).
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import {
  Member,
  type Instant,
  type MemberEffect,
  type MemberSettings,
  type WriteOutcome,
} from '../core/member.ts';
import type { Pair } from '../core/links.ts';
import type { Ownership } from '../core/ownership.ts';
import type { Admission, WriteTicket } from '../core/ticket.ts';
import type { DoubtNotes, Doubts, ProxyDoubt } from '../core/doubt.ts';
import type { MemberRecord, Registry, WriteGate } from '../core/ports.ts';
import type { LedgerChange, Rules } from '../core/view.ts';
import { sendAcknowledgement } from './acknowledge.ts';
import type { StreamFeed } from './feed.ts';
import { type Holder, type Holding, type PriorView, Testimony } from './holding.ts';
import type { RedisLedger } from './ledger.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { Listeners } from './listeners.ts';
import { recordOf } from './member-record.ts';
import { Noticed } from './noticed.ts';
import { RulesSwitch } from './rules-switch.ts';
import { Unfinished } from './unfinished.ts';

const registryEveryMs = 500;
const reopenEveryMs = 100;
const watchLeaseEveryMs = 50;

export interface MembershipParts {
  readonly ledger: RedisLedger;
  /** For acknowledgements. */
  readonly redis: Redis;
  readonly openFeed: (version: number) => Promise<StreamFeed>;
  readonly registry: Registry;
  readonly doubts: Pick<Doubts, 'note'>;
  readonly settings: MemberSettings & {
    readonly writeTimeoutMs: number;
    readonly rules: Rules;
    /** How long the activity of an idle partition is remembered, ms; longer than any feed's delay. */
    readonly rememberMs: number;
  };
  /** What was looked up in the directory is as old as the view, and no older. */
  readonly directory?: { changed(user: string): void; clear(): void };
  /** What is known to be noted, likewise. */
  readonly links?: { forgotten(pair: Pair): void; clear(): void };
  /** What a process before this one knew: where the ledger has less, it has lost data. */
  readonly before?: PriorView | undefined;
  readonly log: Log;
}

export class Membership implements WriteGate, DoubtNotes, Holder {
  readonly #parts: MembershipParts;
  readonly #member: Member;
  readonly #testimony: Testimony;
  #id = '';
  #feed: StreamFeed | undefined;
  #timers: NodeJS.Timeout[] = [];
  #beating: Promise<void> | undefined;
  #beatAgain = false;
  #loading: Promise<void> | undefined;
  readonly #rules: RulesSwitch;
  #leaseWasHeld = false;
  #stopped = false;
  readonly #wakes = new Listeners();
  readonly #endings = new Listeners();
  readonly #noticed: Noticed;
  readonly #unfinished: Unfinished;

  private constructor(parts: MembershipParts) {
    this.#parts = parts;
    this.#member = new Member({ ...parts.settings, rulesHash: parts.settings.rules.hash }, now());
    this.#testimony = new Testimony(parts.before?.confirmed, parts.log);
    // Its effects are not for now: nothing is admitted before the ledger has agreed.
    if (parts.before !== undefined) this.#member.load(parts.before.document, now());
    this.#noticed = new Noticed(parts.registry, () => parts.ledger.confirmDurable());
    this.#rules = new RulesSwitch(parts.ledger, parts.settings.rules, parts.log);
    this.#unfinished = new Unfinished(parts.ledger, () => `member ${this.#id}`);
  }

  static async join(parts: MembershipParts): Promise<Membership> {
    const membership = new Membership(parts);
    try {
      await membership.#enter();
    } catch (error) {
      await membership.stop();
      await membership.#comeOffTheList();
      throw error;
    }
    await membership.#beat();
    // The first heartbeat may have made this process's rules the active ones; the second confirms them.
    await membership.#beat();
    const everyMs = Math.max(50, Math.floor(parts.settings.leaseMs / 3));
    membership.#every(everyMs, () => membership.#beat());
    membership.#every(registryEveryMs, () => membership.#noticed.flush());
    membership.#every(reopenEveryMs, () => membership.#unfinished.moveAllOn());
    membership.#every(watchLeaseEveryMs, () => membership.#watchLease());
    membership.#every(10_000, () => membership.#member.forgetIdle(now(), parts.settings.rememberMs));
    return membership;
  }

  get id(): string {
    return this.#id;
  }

  holding(): Holding {
    const { view } = this.#member;
    const { position, rules } = view;
    return { confirmed: this.#testimony.here, position, partitions: view.entries(), rules };
  }

  regressed(): string | undefined {
    return this.#testimony.regressed;
  }

  /** Why this member admits no write; where it admits all the same, on what it goes. */
  trouble(): string | undefined {
    const regressed = this.regressed();
    if (regressed !== undefined) return `ledger-regressed: ${regressed}`;
    const otherRules = this.#rules.trouble(this.#member.view.rules);
    if (otherRules !== undefined) return otherRules;
    if (this.#member.leaseHeld(now())) return this.#testimony.silence(this.#parts.settings.leaseMs);
    return 'lease-lapsed: the ledger did not confirm this member in time';
  }

  // --- the proxy's face ----------------------------------------------------------------------------

  ownershipOf(partition: string): Ownership {
    return this.#member.ownershipOf(partition);
  }

  admit(partition: string, also?: readonly string[]): Admission {
    return this.#member.admit(partition, now(), also);
  }

  mayContinue(ticket: WriteTicket): boolean {
    return this.#member.mayContinue(ticket, now());
  }

  end(ticket: WriteTicket, outcome: WriteOutcome): void {
    this.#carryOut(this.#member.end(ticket, outcome, now()));
  }

  note(doubt: ProxyDoubt): void {
    const settleMs = this.#parts.settings.settleMs[doubt.store];
    this.#background(this.#parts.doubts.note({ ...doubt, member: this.#id, settleMs }));
  }

  onWake(partition: string, listener: () => void): () => void {
    return this.#wakes.add(partition, listener);
  }

  onEndLongLived(partition: string, listener: () => void): () => void {
    return this.#endings.add(partition, listener);
  }

  leaseLeftMs(): number {
    return this.#member.leaseLeftMs(now());
  }

  notice(partition: string): void {
    this.#noticed.add(partition);
  }

  homeIsKnown(partition: string): boolean {
    return this.#member.homeIsKnown(partition);
  }

  findAtHome(partition: string): void {
    this.#carryOut(this.#member.findAtHome(partition));
  }

  /** Writes under way and in doubt, of all partitions. */
  underWay(): { readonly inFlight: number; readonly inDoubt: number } {
    return this.#member.totals(now());
  }

  /** Leaves the ledger once nothing is in flight and nothing in doubt, or when `withinMs` is over. */
  async leave(withinMs: number): Promise<void> {
    const until = performance.now() + withinMs;
    while (!this.#member.quiet(now()) && performance.now() < until) await pause(20);
    // Nothing is admitted from here on, so quiet it stays.
    this.#member.retire();
    const quiet = this.#member.quiet(now());
    await this.stop();
    // A member that is not quiet stays listed: it must be waited for until its writes have settled. So does one
    // that could not tell the registry of every partition it saw: found dead, it makes the registry incomplete.
    if (quiet && this.#noticed.told) await this.#comeOffTheList();
    else this.#parts.log('warn', 'member.stays-listed', { member: this.#id, quiet });
  }

  /** Stops without leaving: for a coordinator this member is like one that died. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    await this.#feed?.stop();
    await this.#beating;
    await this.#noticed.flush();
    this.#member.retire();
  }

  // --- entering and following ----------------------------------------------------------------------

  /** The order of the two steps is core's: register first, so that no fence goes by unseen. */
  #enter(): Promise<void> {
    return this.#followUp(this.#member.enter());
  }

  async #followUp(effects: readonly MemberEffect[]): Promise<void> {
    for (const effect of effects) {
      if (effect.kind === 'register') {
        this.#id = randomUUID();
        await this.#register();
        await this.#followUp(this.#member.registered());
      } else if (effect.kind === 'load-snapshot') await this.#load();
      else this.#carryOut([effect]);
    }
  }

  /** An id that was written, but never confirmed, must not stay: a handoff would wait for who is nobody. */
  async #register(): Promise<void> {
    try {
      await this.#parts.ledger.register(this.#record(0));
    } catch (error) {
      await this.#comeOffTheList();
      throw error;
    }
  }

  /** Where the ledger does not answer, a coordinator finds this member gone in time. */
  async #comeOffTheList(): Promise<void> {
    await this.#parts.ledger.removeMember(this.#id).catch(() => undefined);
  }

  #load(): Promise<void> {
    this.#loading ??= this.#loadOnce().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #loadOnce(): Promise<void> {
    const snapshot = await this.#parts.ledger.snapshot();
    this.#unfinished.clear();
    this.#parts.directory?.clear();
    this.#parts.links?.clear();
    const effects = this.#member.load(snapshot, now());
    for (const [partition, ownership] of this.#member.view.entries()) {
      this.#unfinished.note(partition, ownership, 0);
    }
    if (this.#feed === undefined) {
      this.#feed = await this.#parts.openFeed(snapshot.position.version);
      this.#feed.onChanges((changes) => this.#follow(changes));
    } else {
      this.#feed.skipTo(this.#member.view.position.version);
    }
    this.#carryOut(effects);
  }

  #follow(changes: readonly LedgerChange[]): void {
    const effects: MemberEffect[] = [];
    for (const change of changes) {
      const more = this.#member.apply(change, now());
      effects.push(...more);
      if (more.some((effect) => effect.kind === 'load-snapshot')) {
        this.#parts.log('warn', 'ledger.gap', { version: change.version });
        break;
      }
      if (change.kind === 'directory') this.#parts.directory?.changed(change.user);
      if (change.kind === 'link-forgotten') this.#parts.links?.forgotten(change.partitions);
      if (change.kind === 'ownership') this.#unfinished.note(change.partition, change.after, change.atMs);
    }
    this.#carryOut(effects);
  }

  #carryOut(effects: readonly MemberEffect[]): void {
    let beat = false;
    for (const effect of effects) {
      switch (effect.kind) {
        case 'register':
        case 'load-snapshot':
          this.#background(this.#followUp([effect]));
          break;
        case 'acknowledge':
          this.#background(sendAcknowledgement(this.#parts.redis, this.#id, effect.acknowledgement));
          break;
        case 'end-long-lived':
          this.#endings.call(effect.partition);
          break;
        case 'wake':
          if (effect.partition === undefined) this.#wakes.callAll();
          else this.#wakes.call(effect.partition);
          break;
        case 'heartbeat-now':
          beat = true;
          break;
      }
    }
    if (beat) this.#background(this.#beat());
  }

  // --- the lease -----------------------------------------------------------------------------------

  /** Without the lease a fence can go by unseen, so whatever stays open and writes is closed. */
  #watchLease(): void {
    const held = this.#member.leaseHeld(now());
    if (this.#leaseWasHeld && !held) {
      this.#parts.log('warn', 'lease.lapsed', { member: this.#id });
      this.#endings.callAll();
    }
    this.#leaseWasHeld = held;
  }

  /** One heartbeat at a time; one that is asked for meanwhile follows at once. */
  #beat(): Promise<void> {
    if (this.#beating !== undefined) {
      this.#beatAgain = true;
      return this.#beating;
    }
    this.#beating = this.#beatOnce().finally(() => {
      this.#beating = undefined;
      if (!this.#beatAgain || this.#stopped) return;
      this.#beatAgain = false;
      this.#background(this.#beat());
    });
    return this.#beating;
  }

  async #beatOnce(): Promise<void> {
    const heartbeat = this.#member.heartbeat(now());
    try {
      const { applied } = heartbeat;
      const known = { confirmed: this.#testimony.claim, applied };
      const answer = await this.#parts.ledger.heartbeat(this.#record(heartbeat.sequence), known);
      switch (answer.answer) {
        case 'ok':
          if (this.#testimony.confirm(applied, answer.version)) await this.#load();
          this.#carryOut(this.#member.heartbeatConfirmed(heartbeat, answer.version));
          if (await this.#rules.ask(this.#member.view.rules, `member ${this.#id}`)) await this.#load();
          break;
        case 'view-ahead':
          this.#parts.log('warn', 'ledger.lost-unconfirmed', { version: applied.version });
          await this.#followUp(this.#member.viewAhead());
          this.#beatAgain = true;
          break;
        case 'not-listed':
          // A coordinator took this member for gone and removed it: it comes back as a new one.
          this.#parts.log('warn', 'member.removed', { member: this.#id });
          this.#testimony.sound();
          await this.#enter();
          this.#beatAgain = true;
          break;
        case 'ledger-regressed':
          this.#testimony.lost(answer.detail);
          // Who serves what it knows last goes on doing so; nothing can be moved away from it meanwhile.
          if (this.#parts.settings.unexpirable !== true) this.#member.loseLease();
          break;
      }
    } catch (error) {
      // The lease runs on; if this lasts, it lapses and writes are refused.
      this.#parts.log('warn', 'heartbeat.failed', { error: sentenceOf(error) });
    }
  }

  #record(sequence: number): MemberRecord {
    const state = { appliedVersion: this.#member.view.position.version, ...this.#member.totals(now()) };
    return recordOf(this.#id, sequence, this.#parts.settings, state);
  }

  // --- housekeeping --------------------------------------------------------------------------------

  #every(everyMs: number, work: () => void | Promise<void>): void {
    const timer = setInterval(() => this.#background(Promise.resolve().then(work)), everyMs);
    this.#timers.push(timer);
  }

  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.#parts.log('warn', 'member.trouble', { error: sentenceOf(error) }));
  }
}

function now(): Instant {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}
