/**
 * A proxy process as a member: the shell around core's Member. It registers first and loads the snapshot
 * second, follows the stream, renews the lease, sends acknowledgements, and reopens what a dead
 * coordinator left behind (I7).
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { Redis } from 'ioredis';
import {
  Member,
  type Acknowledgement,
  type Admission,
  type Instant,
  type MemberEffect,
  type MemberSettings,
  type WriteOutcome,
  type WriteTicket,
} from '../core/member.ts';
import type { Ownership } from '../core/ownership.ts';
import type { MemberRecord, Registry, WriteGate } from '../core/ports.ts';
import type { Transition } from '../core/view.ts';
import { keys } from './connection.ts';
import type { StreamFeed } from './feed.ts';
import type { RedisLedger } from './ledger.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { Listeners } from './listeners.ts';
import { moveOn } from './unfinished.ts';

const acknowledgementsKept = 100_000;
const registryEveryMs = 500;
const reopenEveryMs = 100;
const watchLeaseEveryMs = 50;
const acknowledgeTries = 5;
const acknowledgeAgainMs = 50;

export interface MembershipParts {
  readonly ledger: RedisLedger;
  /** For acknowledgements. */
  readonly redis: Redis;
  readonly openFeed: (version: number) => Promise<StreamFeed>;
  readonly registry: Registry;
  readonly settings: MemberSettings & {
    readonly writeTimeoutMs: number;
    readonly configHash: string;
    /** How long the activity of an idle partition is remembered, ms; longer than any feed's delay. */
    readonly rememberMs: number;
  };
  /** Resolves when the receipts of the partition's finished writes are in the queue. */
  readonly flushReceipts: (partition: string) => Promise<void>;
  readonly log: Log;
}

export class Membership implements WriteGate {
  readonly #parts: MembershipParts;
  readonly #member: Member;
  #id = '';
  #feed: StreamFeed | undefined;
  #timers: NodeJS.Timeout[] = [];
  #beating: Promise<void> | undefined;
  #beatAgain = false;
  #reloading: Promise<void> | undefined;
  #regressed: string | undefined;
  #leaseWasHeld = false;
  #stopped = false;
  readonly #wakes = new Listeners();
  readonly #endings = new Listeners();
  readonly #noticed = new Set<string>();
  readonly #seen = new Set<string>();
  /** Partitions that are fenced or committed → the monotonic time from which anyone may move them on. */
  readonly #unfinished = new Map<string, { ownership: Ownership; fromMs: number }>();

  private constructor(parts: MembershipParts) {
    this.#parts = parts;
    this.#member = new Member(parts.settings, now());
  }

  static async join(parts: MembershipParts): Promise<Membership> {
    const membership = new Membership(parts);
    await membership.#enter();
    const everyMs = Math.max(50, Math.floor(parts.settings.leaseMs / 3));
    membership.#every(everyMs, () => membership.#beat());
    membership.#every(registryEveryMs, () => membership.#flushNoticed());
    membership.#every(reopenEveryMs, () => membership.#moveUnfinished());
    membership.#every(watchLeaseEveryMs, () => membership.#watchLease());
    membership.#every(10_000, () => membership.#member.forgetIdle(now(), parts.settings.rememberMs));
    return membership;
  }

  get id(): string {
    return this.#id;
  }

  /** Why this member admits no write, where that is so. */
  trouble(): string | undefined {
    if (this.#regressed !== undefined) return `ledger-regressed: ${this.#regressed}`;
    if (this.#member.leaseHeld(now())) return undefined;
    return 'lease-lapsed: the ledger did not confirm this member in time';
  }

  // --- the proxy's face ----------------------------------------------------------------------------

  ownershipOf(partition: string): Ownership {
    return this.#member.ownershipOf(partition);
  }

  admit(partition: string): Admission {
    return this.#member.admit(partition, now());
  }

  mayContinue(ticket: WriteTicket): boolean {
    return this.#member.mayContinue(ticket, now());
  }

  end(ticket: WriteTicket, outcome: WriteOutcome): void {
    this.#carryOut(this.#member.end(ticket, outcome, now()));
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
    if (this.#seen.has(partition)) return;
    // Bounded: forgetting only means that the registry is told once more.
    if (this.#seen.size >= 200_000) this.#seen.clear();
    this.#seen.add(partition);
    this.#noticed.add(partition);
  }

  /** Leaves the ledger once nothing is in flight and nothing in doubt, or when `withinMs` is over. */
  async leave(withinMs: number): Promise<void> {
    const until = performance.now() + withinMs;
    while (!this.#member.quiet(now()) && performance.now() < until) {
      await pause(20);
    }
    const quiet = this.#member.quiet(now());
    await this.stop();
    // A member that is not quiet stays listed: it must be waited for until its writes have settled.
    if (quiet) await this.#parts.ledger.removeMember(this.#id).catch(() => undefined);
  }

  /** Stops without leaving: for a coordinator this member is like one that died. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    await this.#feed?.stop();
    await this.#beating;
    await this.#flushNoticed();
    this.#member.loseLease();
  }

  // --- entering and following ----------------------------------------------------------------------

  async #enter(): Promise<void> {
    this.#id = randomUUID();
    await this.#parts.ledger.register(this.#record(0));
    await this.#reload();
    await this.#beat();
  }

  #reload(): Promise<void> {
    this.#reloading ??= this.#reloadOnce().finally(() => {
      this.#reloading = undefined;
    });
    return this.#reloading;
  }

  async #reloadOnce(): Promise<void> {
    const snapshot = await this.#parts.ledger.snapshot();
    this.#unfinished.clear();
    const effects = this.#member.load(snapshot, now());
    for (const [partition, ownership] of this.#member.view.entries()) this.#track(partition, ownership, 0);
    if (this.#feed === undefined) {
      this.#feed = await this.#parts.openFeed(snapshot.position.version);
      this.#feed.onTransitions((transitions) => this.#follow(transitions));
    } else {
      this.#feed.skipTo(this.#member.view.position.version);
    }
    this.#carryOut(effects);
  }

  #follow(transitions: readonly Transition[]): void {
    const effects: MemberEffect[] = [];
    for (const transition of transitions) {
      const more = this.#member.apply(transition, now());
      if (more === undefined) {
        this.#parts.log('warn', 'ledger.gap', { version: transition.version });
        this.#background(this.#reload());
        break;
      }
      effects.push(...more);
      this.#track(transition.partition, transition.after, transition.atMs);
    }
    this.#carryOut(effects);
  }

  #carryOut(effects: readonly MemberEffect[]): void {
    let beat = false;
    for (const effect of effects) {
      switch (effect.kind) {
        case 'acknowledge':
          this.#background(this.#acknowledge(effect.acknowledgement));
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

  async #acknowledge(acknowledgement: Acknowledgement): Promise<void> {
    if (acknowledgement.answer === 'drained') await this.#parts.flushReceipts(acknowledgement.partition);
    const json = JSON.stringify({ ...acknowledgement, member: this.#id });
    for (let tries = 1; ; tries += 1) {
      try {
        const { redis } = this.#parts;
        await redis.xadd(keys.acknowledgements, 'MAXLEN', '~', acknowledgementsKept, '*', 'json', json);
        return;
      } catch (error) {
        // Saying it twice is harmless; not saying it costs the user the whole drain time.
        if (tries === acknowledgeTries) throw error;
        await pause(acknowledgeAgainMs);
      }
    }
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
    if (this.#regressed !== undefined) return;
    const heartbeat = this.#member.heartbeat(now());
    try {
      const answer = await this.#parts.ledger.heartbeat(
        this.#record(heartbeat.sequence),
        heartbeat.confirmed,
      );
      switch (answer.answer) {
        case 'ok':
          this.#carryOut(this.#member.heartbeatConfirmed(heartbeat, answer.version));
          break;
        case 'not-listed':
          await this.#enterAgain();
          break;
        case 'ledger-regressed':
          this.#member.loseLease();
          this.#regressed = answer.detail;
          this.#parts.log('error', 'ledger.regressed', { detail: answer.detail });
          break;
      }
    } catch (error) {
      // The lease runs on; if this lasts, it lapses and writes are refused.
      this.#parts.log('warn', 'heartbeat.failed', { error: sentenceOf(error) });
    }
  }

  /** A coordinator took this member for gone and removed it: it comes back as a new one. */
  async #enterAgain(): Promise<void> {
    this.#member.loseLease();
    this.#parts.log('warn', 'member.removed', { member: this.#id });
    this.#id = randomUUID();
    await this.#parts.ledger.register(this.#record(0));
    await this.#reload();
    this.#beatAgain = true;
  }

  #record(sequence: number): MemberRecord {
    const { settings } = this.#parts;
    return {
      id: this.#id,
      host: hostname(),
      pid: process.pid,
      sequence,
      appliedVersion: this.#member.view.position.version,
      configHash: settings.configHash,
      leaseMs: settings.leaseMs,
      writeTimeoutMs: settings.writeTimeoutMs,
      settleMs: Math.max(settings.settleMs.legacy, settings.settleMs.app),
      ...this.#member.totals(now()),
    };
  }

  // --- what a coordinator left behind --------------------------------------------------------------

  #track(partition: string, ownership: Ownership, atMs: number): void {
    if (ownership.phase === 'open') {
      this.#unfinished.delete(partition);
      return;
    }
    // From a snapshot the age is unknown; Redis's clock has the last word either way.
    const lengthMs = ownership.phase === 'fenced' && atMs > 0 ? ownership.deadlineMs - atMs : 1_000;
    this.#unfinished.set(partition, { ownership, fromMs: performance.now() + lengthMs });
  }

  async #moveUnfinished(): Promise<void> {
    for (const [partition, { ownership, fromMs }] of this.#unfinished) {
      if (performance.now() < fromMs) continue;
      this.#unfinished.set(partition, { ownership, fromMs: performance.now() + 500 });
      await moveOn(this.#parts.ledger, partition, ownership, `member ${this.#id}`);
    }
  }

  // --- housekeeping --------------------------------------------------------------------------------

  async #flushNoticed(): Promise<void> {
    if (this.#noticed.size === 0) return;
    const batch = [...this.#noticed];
    this.#noticed.clear();
    try {
      await this.#parts.registry.note(batch.map((partition) => ({ partition })));
    } catch {
      for (const partition of batch) this.#seen.delete(partition);
    }
  }

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
