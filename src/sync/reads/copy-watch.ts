/**
 * A member's part in reads of copies. It tells the other members of its writes, hears of theirs, and follows how far the
 * copies are; all that a request asks is in memory. docs/sync.md, "Reads of the copy", says why that is enough.
 *
 * - What was heard counts for `knownForMs` from when it was asked for, and only while every member on the ledger's list
 *   was heard within `silentMs`.
 * - A write is answered when Redis holds that it is under way, `knownForMs` later where another member reads that
 *   copy. A member that cannot tell Redis answers when all others must have found it silent.
 */
import type { Redis } from 'ioredis';
import type { CopyReads, CopyState } from '../../core/copy-reads.ts';
import type { WriteOutcome } from '../../core/member.ts';
import type { StoreName } from '../../core/ownership.ts';
import { touchedBy, type WriteTicket } from '../../core/ticket.ts';
import { type Log, sentenceOf } from '../../log.ts';
import { pause } from '../../pause.ts';
import { Copies } from './copies.ts';
import { Heard } from './heard.ts';
import { OwnWrites } from './own-writes.ts';
import { type Answer, type Call, entriesAtOnce, talk } from './script.ts';

export interface CopyWatchSettings {
  /** On a connection of its own. */
  readonly redis: Redis;
  readonly targets: readonly StoreName[];
  /** Id under which this process is listed in the ledger now. */
  readonly member: () => string;
  readonly settleMs: Readonly<Record<StoreName, number>>;
  readonly log: Log;
}

export const knownForMs = 150;
export const silentMs = 1_000;
/** Redis carries a call out within this time of its sending, or not at all. */
const callMs = 300;
/** Between two calls while copies are read, and while nobody does. */
const busyEveryMs = 50;
const idleEveryMs = 300;
const busyForMs = 5_000;
const copiesEveryMs = 200;
/** For how long a member says that it reads the copy of a partition; it goes by less, whatever clocks do. */
const interestMs = 60_000;
const interestUsedMs = 50_000;
const interestAgainMs = 25_000;
const interestMax = 20_000;
/** How far back Redis's clock may go in a failover, ms, without a write being taken for copied. */
const clockStepMs = 100;

export class CopyWatch implements CopyReads {
  readonly targets: readonly StoreName[];
  readonly #settings: CopyWatchSettings;
  readonly #own = new OwnWrites();
  readonly #heard = new Heard();
  readonly #copies = new Copies();
  /** Partition → since when the others know that this member reads its copy. */
  readonly #interest = new Map<string, number>();
  #wanted = new Set<string>();
  /** Of each write under way, by when its client is answered whatever happens. */
  readonly #answerBy = new WeakMap<WriteTicket, number>();
  #member = '';
  /** The last answer: when it was asked for, when it came, and what time it was in Redis between the two. */
  #last: { readonly sentMs: number; readonly gotMs: number; readonly nowMs: number } | undefined;
  #lastSentMs = Number.NEGATIVE_INFINITY;
  #lastEntry = 0;
  /** The census that everybody must have answered for what was heard to be all; undefined: one must be taken. */
  #census: number | undefined;
  #newestCensus = 0;
  #censusAnswered = -1;
  #heardAll = false;
  #usedMs = Number.NEGATIVE_INFINITY;
  #copiesAskedMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #calling: Promise<void> | undefined;
  #callAgain = false;
  #stopped = false;
  #failing = false;

  constructor(settings: CopyWatchSettings) {
    this.#settings = settings;
    this.targets = settings.targets;
    // Whatever was lost with the connection, nobody tells.
    settings.redis.on('close', () => this.#lose());
    this.#timer = setTimeout(() => void this.#call(), 0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#calling;
  }

  // --- the proxy's side --------------------------------------------------------------------------------

  begin(ticket: WriteTicket): void {
    for (const { partition } of touchedBy(ticket)) this.#own.begin(partition);
    // Calls without it that are on their way yet are carried out by then, and counted as word of this member.
    this.#answerBy.set(ticket, this.#lastSentMs + callMs + silentMs + knownForMs);
    if (this.#own.isUrgent) this.#soon();
  }

  end(ticket: WriteTicket, outcome: WriteOutcome): void {
    const settleMs = outcome === 'in-doubt' ? this.#settings.settleMs[ticket.owner] : 0;
    const settlesAtMs = performance.now() + settleMs;
    for (const { partition } of touchedBy(ticket)) this.#own.end(partition, settlesAtMs);
  }

  mayAnswer(ticket: WriteTicket): Promise<void> | undefined {
    return this.#waitMs(ticket) <= 0 ? undefined : this.#untilKnown(ticket);
  }

  look(partition: string, epoch: number): CopyState {
    const nowMs = performance.now();
    const redisMs = this.#redisNowMs(nowMs);
    this.#use(partition, nowMs);
    if (redisMs === undefined) return { lagMs: undefined, holdsWrites: false };
    const throughMs = this.#copies.heldThroughMs(partition, epoch, redisMs);
    if (throughMs === undefined) return { lagMs: undefined, holdsWrites: false };
    const lagMs = Math.max(0, redisMs - throughMs);
    if (!this.#hearsOf(partition, nowMs) || this.#own.isOpen(partition)) return { lagMs, holdsWrites: false };
    const last = this.#heard.lastWrite(partition);
    return { lagMs, holdsWrites: last !== 'open' && throughMs > last + clockStepMs };
  }

  lagOfAllMs(): number | undefined {
    const nowMs = performance.now();
    this.#usedMs = nowMs;
    const redisMs = this.#redisNowMs(nowMs);
    const throughMs = this.#copies.allHeldThroughMs();
    return redisMs === undefined || throughMs === undefined ? undefined : Math.max(0, redisMs - throughMs);
  }

  /** At the most: since the question was sent. */
  #redisNowMs(nowMs: number): number | undefined {
    return this.#last && this.#last.nowMs + (nowMs - this.#last.sentMs);
  }

  /** Does this member know of every write of the partition that was answered before now? */
  #hearsOf(partition: string, nowMs: number): boolean {
    const since = this.#interest.get(partition);
    const { sentMs } = this.#last ?? {};
    if (since === undefined || sentMs === undefined || !this.#heardAll) return false;
    return nowMs - sentMs < knownForMs && sentMs >= since && nowMs - since < interestUsedMs;
  }

  #use(partition: string, nowMs: number): void {
    const idle = nowMs - this.#usedMs > busyForMs;
    this.#usedMs = nowMs;
    if (nowMs - (this.#interest.get(partition) ?? Number.NEGATIVE_INFINITY) > interestAgainMs) {
      if (this.#interest.size + this.#wanted.size < interestMax) this.#wanted.add(partition);
    }
    if (idle) this.#soon();
  }

  // --- when a write may be answered ----------------------------------------------------------------------

  #waitMs(ticket: WriteTicket): number {
    const nowMs = performance.now();
    const known = touchedBy(ticket).map(({ partition }) => this.#own.knownToAllMs(partition, knownForMs));
    const latest = Math.max(...known.map((ms) => ms ?? Number.POSITIVE_INFINITY));
    return Math.min(latest, this.#answerBy.get(ticket) ?? nowMs) - nowMs;
  }

  async #untilKnown(ticket: WriteTicket): Promise<void> {
    for (let waitMs = this.#waitMs(ticket); waitMs > 0 && !this.#stopped; waitMs = this.#waitMs(ticket)) {
      const called = this.#calling ?? this.#call();
      const waited = new AbortController();
      const time = pause(Math.ceil(waitMs), waited.signal).catch(() => undefined);
      const isTold = touchedBy(ticket).every(
        ({ partition }) => this.#own.knownToAllMs(partition, knownForMs) !== undefined,
      );
      await (isTold ? time : Promise.race([called, time]));
      waited.abort();
      // A call that fails at once must not make this a busy loop.
      if (!isTold && this.#failing) await pause(Math.min(waitMs, busyEveryMs));
    }
  }

  // --- talking to Redis ----------------------------------------------------------------------------------

  #soon(): void {
    if (this.#calling !== undefined) this.#callAgain = true;
    else void this.#call();
  }

  /** One at a time; never rejects. */
  #call(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#stopped) return Promise.resolve();
    this.#calling ??= this.#callOnce().then((again) => {
      this.#calling = undefined;
      const at = again || this.#callAgain ? 0 : this.#restMs();
      this.#callAgain = false;
      if (!this.#stopped) this.#timer = setTimeout(() => void this.#call(), at);
    });
    return this.#calling;
  }

  #restMs(): number {
    return performance.now() - this.#usedMs < busyForMs ? busyEveryMs : idleEveryMs;
  }

  /** True: there is more to say or to hear at once. */
  async #callOnce(): Promise<boolean> {
    const { redis, log } = this.#settings;
    if (redis.status !== 'ready') {
      this.#lose();
      this.#failing = true;
      return false;
    }
    const sentMs = performance.now();
    const call = this.#nextCall(sentMs);
    let done = false;
    try {
      this.#lastSentMs = sentMs;
      const answer = await talk(redis, call);
      this.#failing = false;
      if (answer.late) {
        this.#heardAll = false;
        this.#bookTime(sentMs, answer.nowMs);
        return true;
      }
      done = true;
      return this.#take(call, answer, sentMs);
    } catch (error) {
      if (!this.#failing) log('warn', 'reads.failing', { error: sentenceOf(error), detail: failing });
      this.#failing = true;
      this.#lose();
      return false;
    } finally {
      if (!done) for (const partition of call.interest) this.#wanted.add(partition);
    }
  }

  #nextCall(sentMs: number): Call {
    const { member } = this.#settings;
    const id = member();
    if (id !== this.#member) {
      // Under another name everything must be said again.
      this.#member = id;
      this.#interest.clear();
      this.#censusAnswered = -1;
    }
    const last = this.#last;
    const copies = sentMs - this.#usedMs < busyForMs && sentMs - this.#copiesAskedMs >= copiesEveryMs;
    if (copies) this.#copiesAskedMs = sentMs;
    const interest = [...this.#wanted];
    this.#wanted = new Set();
    const all = this.#censusAnswered < this.#newestCensus;
    return {
      ...{ member: id, copies, interestMs, interest, lastEntry: this.#lastEntry },
      // Until the time is known, only that is asked for.
      notAfterMs: last === undefined ? 0 : Math.floor(last.nowMs + (sentMs - last.gotMs) + callMs),
      takeCensus: this.#census === undefined,
      censusAnswered: this.#newestCensus,
      said: last === undefined ? [] : this.#own.toSay(sentMs, all),
    };
  }

  #bookTime(sentMs: number, nowMs: number): void {
    this.#last = { sentMs, gotMs: performance.now(), nowMs };
  }

  #take(call: Call, answer: Answer, sentMs: number): boolean {
    const { nowMs } = answer;
    this.#bookTime(sentMs, nowMs);
    const ended = this.#own.wasSaid(call.said, answer.wanted, performance.now(), nowMs);
    for (const partition of call.interest) this.#interest.set(partition, sentMs);
    this.#censusAnswered = call.censusAnswered;
    this.#newestCensus = answer.census;
    const complete = this.#hear(call, answer);
    for (const [partition, ms] of ended) this.#heard.ended(partition, ms);
    this.#heardAll = complete && this.#everybodyIsHeard(answer);
    if (answer.copies !== undefined) {
      this.#copies.learn(answer.copies);
      this.#heard.forget((partition, ms) => (this.#copies.sureThroughMs(partition) ?? 0) > ms + clockStepMs);
      this.#forgetInterest(sentMs);
    }
    return !complete || this.#censusAnswered < answer.census || this.#own.isUrgent;
  }

  /** True: everything that was said up to now was heard. */
  #hear(call: Call, { nowMs, entries, census, members, heard }: Answer): boolean {
    if (call.takeCensus) {
      this.#census = census;
      this.#lastEntry = entries;
      this.#heard.beginAnew(nowMs);
      return true;
    }
    const first = heard[0]?.entry ?? (entries === this.#lastEntry ? entries + 1 : 0);
    if (first !== this.#lastEntry + 1) {
      // Some were thrown away before they were heard, or Redis has lost some.
      this.#census = undefined;
      return false;
    }
    for (const said of heard) if (said.member !== this.#member) this.#heard.hear(said);
    this.#lastEntry = heard.at(-1)?.entry ?? this.#lastEntry;
    this.#heard.keepOnly(new Set(members.keys()), nowMs);
    return heard.length < entriesAtOnce;
  }

  #everybodyIsHeard({ nowMs, members }: Answer): boolean {
    const census = this.#census ?? Number.POSITIVE_INFINITY;
    return [...members].every(
      ([id, note]) =>
        id === this.#member ||
        (note !== undefined && nowMs - note.heardMs <= silentMs && note.census >= census),
    );
  }

  #forgetInterest(nowMs: number): void {
    for (const [partition, since] of this.#interest) {
      if (nowMs - since > interestMs) this.#interest.delete(partition);
    }
  }

  /** What Redis held may be lost, too. */
  #lose(): void {
    this.#heardAll = false;
    this.#census = undefined;
    this.#interest.clear();
  }
}

const failing =
  'Copies are not read, because nobody can tell which writes they lack; the owners answer. Writes go on; for a second ' +
  'some may be answered later.';
