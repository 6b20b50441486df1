/**
 * Finds out where partitions live that the ledger does not list, while new ones begin at the app: before its
 * first write a new partition is claimed, once, whoever asks first. Everything here may be asked again: what a
 * broken connection left open, the next try is told.
 */
import { randomUUID } from 'node:crypto';
import { firstEpoch, otherStore, type StoreName } from '../core/ownership.ts';
import type { Found, Homes } from '../core/homes.ts';
import type { CopyStamp } from '../core/ports.ts';
import type { Rules } from '../core/view.ts';
import { type Log, sentenceOf } from '../log.ts';
import { inTime, pause } from '../pause.ts';
import type { ClaimResult, ClaimStep, RedisLedger } from './ledger.ts';

export interface ClaimParts {
  readonly ledger: Pick<RedisLedger, 'claim' | 'order' | 'read' | 'sealedSince' | 'untouched'>;
  readonly member: {
    readonly id: string;
    homeIsKnown(partition: string): boolean;
    findAtHome(partition: string): void;
  };
  readonly rules: Rules;
  /** Seals the guard of the app; undefined where it has none. */
  readonly seal: ((stamp: CopyStamp) => Promise<void>) | undefined;
  /** How long a write waits for its claim at most, ms; then it is refused, and the claim given up. */
  readonly withinMs: number;
  readonly log: Log;
}

const atOnce = 64;
const waitingMax = 10_000;
const againMs = 100;
const sealWithinMs = 2_000;
/** Longest that a read waits for what is only a better place to read from. */
const findWithinMs = 1_000;
/** A newcomer's reads ask again after this: it may have been claimed, or registered, in the meantime. */
const newcomerForMs = 1_000;
const newcomersRemembered = 10_000;
/** What nobody has ended after this was begun by a member that is no more. */
const abandonedAfterMs = 60_000;
const lookForAbandonedEveryMs = 10_000;
const raiseWithinMs = 3_000;

export class Claims implements Homes {
  readonly #parts: ClaimParts;
  readonly #waiting = new Set<string>();
  readonly #running = new Set<string>();
  readonly #asking = new Map<string, Promise<Found>>();
  readonly #newcomers = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;
  #toldOfOld = false;
  #stopped = false;

  constructor(parts: ClaimParts) {
    this.#parts = parts;
    this.#timer = setInterval(() => void this.endAbandoned(abandonedAfterMs), lookForAbandonedEveryMs);
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  known(partition: string): boolean {
    return this.#parts.member.homeIsKnown(partition);
  }

  settle(partition: string): void {
    // Beyond the bound a write waits in vain, and is told so.
    if (this.#waiting.size >= waitingMax) return;
    this.#waiting.add(partition);
    this.#next();
  }

  async find(partition: string): Promise<Found> {
    const newUntilMs = this.#newcomers.get(partition);
    if (newUntilMs !== undefined && performance.now() < newUntilMs) return this.#new;
    const asked = this.#asking.get(partition) ?? this.#ask(partition);
    this.#asking.set(partition, asked);
    return asked;
  }

  /** Goes on with what members began and did not end. */
  async endAbandoned(olderThanMs: number): Promise<void> {
    if (this.#stopped) return;
    try {
      for (const partition of await this.#parts.ledger.sealedSince(olderThanMs)) {
        if (!this.#running.has(partition)) await this.#settleOne(partition, () => false);
      }
    } catch (error) {
      this.#parts.log('warn', 'claim.abandoned', { error: sentenceOf(error) });
    }
  }

  get #new(): Found {
    return { store: this.#parts.rules.newPartitions, home: 'new' };
  }

  /** What nobody can tell is read where old partitions live: a newcomer has nothing yet that it could miss. */
  #old(home: 'taken-for-old' | 'no-answer'): Found {
    return { store: this.#defaultOwner, home };
  }

  get #defaultOwner(): StoreName {
    return this.#parts.ledger.untouched.ownership.owner;
  }

  #next(): void {
    for (const partition of this.#waiting) {
      if (this.#running.size >= atOnce) return;
      // Who asks while a try is under way waits for how that ends.
      if (this.#running.has(partition)) continue;
      this.#waiting.delete(partition);
      this.#running.add(partition);
      void this.#settleOne(partition, () => this.known(partition)).then((settled) => {
        this.#running.delete(partition);
        // Where it failed, whoever came later still has time, and gets a try of their own.
        if (settled) this.#waiting.delete(partition);
        this.#next();
      });
    }
  }

  /** False where the time was over first. */
  async #settleOne(partition: string, known: () => boolean): Promise<boolean> {
    const untilMs = performance.now() + this.#parts.withinMs;
    while (!this.#stopped && !known()) {
      let trouble = 'the ledger refused it';
      try {
        if (await this.#try(partition)) return true;
      } catch (error) {
        trouble = sentenceOf(error);
      }
      if (performance.now() + againMs > untilMs) {
        this.#parts.log('warn', 'claim.failed', { partition, error: trouble });
        return false;
      }
      await pause(againMs);
    }
    return true;
  }

  /** True when nothing is left to do but to wait for the stream. */
  async #try(partition: string): Promise<boolean> {
    const { seal } = this.#parts;
    if (seal !== undefined) {
      const noted = await this.#ledgerSays(partition, 'seal');
      if (noted.result !== 'newcomer') return this.#take(partition, noted);
      // Before the claim: from then on writes may come, and the guard takes none for a store it was not sealed for.
      // One that comes later does no harm: it is below every epoch that a claim, or giving it up, leads to.
      const tooLate = `the guard of the app did not answer within ${sealWithinMs} ms`;
      await inTime(seal({ partition, epoch: firstEpoch }), sealWithinMs, tooLate);
    }
    return this.#take(partition, await this.#ledgerSays(partition, 'claim'));
  }

  async #take(partition: string, claim: ClaimResult): Promise<boolean> {
    switch (claim.result) {
      case 'claimed':
        this.#parts.log('info', 'claim.made', { partition, owner: claim.record.ownership.owner });
        return true;
      case 'touched':
        return true;
      case 'newcomer':
        return false;
      case 'at-home':
      case 'taken-for-old':
        if (claim.result === 'taken-for-old') this.#tellOfOld(partition);
        if (!claim.sealed) {
          this.#parts.member.findAtHome(partition);
          return true;
        }
        await this.#raise(partition);
        // A record in the ledger says that it is done, and with it the note of the seal goes.
        return (await this.#ledgerSays(partition, 'seal')).result === 'touched';
      case 'refused':
        // Under other rules this member admits nothing; with its own it looks at what it holds again.
        return claim.detail === 'rules-changed';
    }
  }

  /**
   * The guard was sealed at the first epoch for a partition that stays at the default store: it takes copies of
   * it only under a higher one. A fence that is lifted at once raises it, and changes nothing else.
   */
  async #raise(partition: string): Promise<void> {
    const { ledger } = this.#parts;
    if ((await ledger.read(partition)).version !== 0) return;
    const by = `member ${this.#parts.member.id}`;
    const reason = 'the guard was sealed for a claim that was not made';
    const attempt = randomUUID();
    const to = otherStore(this.#defaultOwner);
    const fence = { kind: 'fence', to, attempt, fenceMs: raiseWithinMs } as const;
    const fenced = await ledger.order({ partition, order: fence, by, reason });
    if (fenced.result === 'refused') return;
    await ledger.order({ partition, order: { kind: 'abort', attempt }, by, reason });
  }

  #ask(partition: string): Promise<Found> {
    return Promise.race([this.#askOnce(partition), pause(findWithinMs).then(() => this.#old('no-answer'))])
      .catch(() => this.#old('no-answer'))
      .finally(() => this.#asking.delete(partition));
  }

  async #askOnce(partition: string): Promise<Found> {
    const asked = await this.#ledgerSays(partition, 'ask');
    switch (asked.result) {
      case 'claimed':
      case 'touched':
        return { store: asked.record.ownership.owner, home: 'known' };
      case 'newcomer':
        if (this.#newcomers.size >= newcomersRemembered) this.#newcomers.clear();
        this.#newcomers.set(partition, performance.now() + newcomerForMs);
        return this.#new;
      case 'at-home':
        // Not where a seal is noted: its copies wait for the epoch that only a write's way through here raises.
        if (!asked.sealed) this.#parts.member.findAtHome(partition);
        return { store: this.#defaultOwner, home: 'known' };
      case 'taken-for-old':
        return this.#old('taken-for-old');
      case 'refused':
        return this.#old('no-answer');
    }
  }

  #ledgerSays(partition: string, step: ClaimStep): Promise<ClaimResult> {
    const { ledger, rules, member } = this.#parts;
    return ledger.claim(partition, rules, `member ${member.id}`, step);
  }

  #tellOfOld(partition: string): void {
    if (this.#toldOfOld) return;
    this.#toldOfOld = true;
    this.#parts.log('warn', 'claim.registry-incomplete', { partition, detail: takenForOld });
  }
}

const takenForOld =
  'new partitions should begin in the app, but nobody has said that the registry names everybody who lives in ' +
  'legacy, so this one and those that follow are taken for old and live in legacy; no write is lost, and none refused ' +
  'but those without an identity to partitions that nobody knows. ' +
  'Run: onewriter partitions import FILE --complete --reason TEXT';
