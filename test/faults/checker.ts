/**
 * Judges a run from outside. It knows the protocol's text and nothing of the program: it reads what the
 * clients saw, what each store logged, and the ledger's stream as Redis gives it.
 *
 * What counts as a violation, and why:
 *
 * - `ledger`: the stream contradicts itself: an epoch that does not grow by one, a transition that the protocol
 *   does not have, a version or a random id twice. An epoch has one owner because one transition makes it.
 * - `two-owners`: writes under one epoch of a partition were taken by both stores, or an answer names a store
 *   that did not own the partition in the epoch that the same answer names (I1).
 * - `wrong-store`: a store took a user's write while it did not own the partition. A store may take writes while
 *   it owns the partition in the phases `open` and `fenced`: a write that was admitted before the fence may end
 *   inside it. From `committed` on it may take none.
 * - `late`: a write whose outcome no client knows landed in a fence that went on to commit, later than the drain
 *   and the settle time allow. A member answers a fence when nothing is in flight, and refuses it while a write
 *   is in doubt, so a fence that commits has neither: such a write was admitted or settled wrongly, even if the
 *   catch-up happened to see it. (In a fence that is aborted it may land at any time: the owner stays.)
 * - `lost`: the owner took a write, and today's owner holds neither it nor a later one of the same record (I2).
 *   Also where no client heard of its success: the old owner had it while it was the owner, so it must move.
 *   A write that a client heard of, and that no store logged, is lost as well.
 * - `doubled`: one write was taken twice, or lives in two records of the owner.
 * - `refused-but-done`: a client was told that nothing was done, but a store took the write.
 * - `unasked`: a store took a user's write that no client sent.
 * - `copy-against-owner`: a copy was taken by the store that owned the partition, or in `committed` (I3).
 * - `copy-from-nowhere`: a copy carries what the owner's record never held.
 * - `stale-read`: a client did not see its own acknowledged write through the proxy that had passed it on.
 *   Through another one it may: one that is cut off from the ledger still asks the old owner (docs/protocol.md).
 * - `stuck`: at the end of a run, healed, a partition is not open.
 *
 * The documented gap, counted and named, not a violation: a process that froze between its last check and the
 * socket, for longer than it takes to be proven gone, and woke up after the partition had moved; its write
 * lands at a platform without a guard. It is only taken for that when the write's own proxy stood still from
 * before the commit until after it, was asked for the write before it froze, and the write arrived at that
 * platform right after it woke. Check and socket are one step of one thread, so a freeze can explain one write.
 */
import { readTimelines, type Span, spanAt, type Timelines } from './timeline.ts';
import {
  type Accepted,
  bothStores,
  type Ended,
  type Frozen,
  type HistoryEntry,
  type Invoked,
  otherOf,
  type RawTransition,
  type Store,
} from './words.ts';

export interface CheckInput {
  readonly history: readonly HistoryEntry[];
  readonly accepted: Readonly<Record<Store, readonly Accepted[]>>;
  readonly transitions: readonly RawTransition[];
  readonly frozen: readonly Frozen[];
  readonly settings: {
    readonly leaseMs: number;
    readonly writeTimeoutMs: number;
    readonly settleMs: number;
    readonly drainMs: number;
    readonly defaultOwner: Store;
    readonly guarded: Readonly<Record<Store, boolean>>;
  };
}

export const violationKinds = [
  'ledger',
  'two-owners',
  'wrong-store',
  'late',
  'lost',
  'doubled',
  'refused-but-done',
  'unasked',
  'copy-against-owner',
  'copy-from-nowhere',
  'stale-read',
  'stuck',
] as const;
export type ViolationKind = (typeof violationKinds)[number];

export interface Violation {
  readonly kind: ViolationKind;
  readonly partition: string;
  readonly detail: string;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  /** Writes that came through the documented gap. */
  readonly gap: readonly string[];
  readonly requests: number;
  readonly ended: Readonly<Record<Ended['step'], number>>;
  /** Requests that did not succeed, by problem code or what became of the connection. */
  readonly codes: Readonly<Record<string, number>>;
  readonly writesTaken: Readonly<Record<Store, number>>;
  readonly copiesTaken: number;
  readonly handoffs: { readonly committed: number; readonly aborted: number };
  readonly pausesMs: readonly number[];
  readonly overrunsMs: readonly number[];
}

interface Request {
  readonly invoked: Invoked;
  readonly ended: Ended | undefined;
}

/** One accepted write, with the store that took it and what the ledger said at that time. */
interface Taken extends Accepted {
  readonly store: Store;
  readonly span: Span;
}

export function check(input: CheckInput): Verdict {
  return new Checker(input).run();
}

class Checker {
  readonly #input: CheckInput;
  readonly #violations: Violation[] = [];
  readonly #gap: string[] = [];
  /** The write that each freeze explains. */
  readonly #explained = new Map<Frozen, string>();
  readonly #requests: Request[];
  readonly #byToken: ReadonlyMap<string, Request>;
  readonly #timelines: Timelines;

  constructor(input: CheckInput) {
    this.#input = input;
    const ends = new Map<number, Ended>();
    for (const entry of input.history) if (entry.step !== 'invoke') ends.set(entry.request, entry);
    this.#requests = input.history
      .filter((entry): entry is Invoked => entry.step === 'invoke')
      .map((invoked) => ({ invoked, ended: ends.get(invoked.request) }));
    this.#byToken = new Map(this.#requests.map((request) => [request.invoked.token ?? '', request]));
    this.#timelines = readTimelines(input.transitions, input.settings.defaultOwner);
  }

  run(): Verdict {
    const { accepted } = this.#input;
    for (const { partition, detail } of this.#timelines.breaks) this.#add('ledger', partition, detail);
    const taken = bothStores.flatMap((store) => accepted[store].map((write) => this.#place(store, write)));
    const users = taken.filter((write) => write.access === 'user');
    const rightful = users.filter((write) => this.#isRightful(write));
    this.#checkCopies(taken);
    this.#checkOwnersPerEpoch(users);
    this.#checkCounts(users);
    this.#checkLost(rightful);
    this.#checkReads();
    this.#checkOpen();
    const ended = { ok: 0, fail: 0, unknown: 0 };
    const codes: Record<string, number> = {};
    for (const request of this.#requests) {
      const { step = 'unknown', code = 'none' } = request.ended ?? {};
      ended[step] += 1;
      if (step !== 'ok') codes[code] = (codes[code] ?? 0) + 1;
    }
    const { committed, aborted, pausesMs, overrunsMs } = this.#timelines;
    const ofStore = (store: Store): number => users.filter((write) => write.store === store).length;
    return {
      violations: this.#violations,
      gap: this.#gap,
      requests: this.#requests.length,
      ended,
      codes,
      writesTaken: { legacy: ofStore('legacy'), app: ofStore('app') },
      copiesTaken: taken.length - users.length,
      handoffs: { committed, aborted },
      pausesMs,
      overrunsMs,
    };
  }

  #add(kind: ViolationKind, partition: string, detail: string): void {
    this.#violations.push({ kind, partition, detail });
  }

  #place(store: Store, write: Accepted): Taken {
    return { ...write, store, span: spanAt(this.#timelines.of(write.partition), write.atMs) };
  }

  /** Reports a write that its store had no right to take. */
  #isRightful(write: Taken): boolean {
    const { partition, store, span, atMs } = write;
    if (span.owner !== store || span.phase === 'committed') {
      const detail = `${describe(write)} while the ledger said ${span.phase}(${span.owner}, ${span.epoch})`;
      if (this.#cameThroughTheGap(write)) this.#gap.push(`${partition}: ${detail}`);
      else this.#add('wrong-store', partition, detail);
      return false;
    }
    const { drainMs, settleMs } = this.#input.settings;
    const spans = this.#timelines.of(partition);
    const next = spans[spans.indexOf(span) + 1];
    const allowedMs = Math.max(drainMs, settleMs);
    const known = this.#byToken.get(write.token)?.ended?.step === 'ok';
    if (!known && span.phase === 'fenced' && next?.phase === 'committed' && atMs > span.fromMs + allowedMs) {
      this.#add(
        'late',
        partition,
        `${describe(write)}, ${atMs - span.fromMs} ms into a fence that committed`,
      );
    }
    return true;
  }

  #cameThroughTheGap(write: Taken): boolean {
    const { guarded, leaseMs, writeTimeoutMs, settleMs } = this.#input.settings;
    const invoked = this.#byToken.get(write.token)?.invoked;
    if (guarded[write.store] || invoked === undefined) return false;
    const movedMs = this.#timelines
      .of(write.partition)
      .find(
        ({ phase, owner, fromMs }) => phase === 'committed' && owner !== write.store && fromMs <= write.atMs,
      )?.fromMs;
    const freeze = this.#input.frozen.find(
      ({ process, fromMs, toMs }) =>
        process === invoked.proxy &&
        movedMs !== undefined &&
        invoked.atMs <= fromMs &&
        toMs - fromMs > leaseMs &&
        fromMs < movedMs &&
        movedMs < toMs &&
        write.atMs >= toMs &&
        write.atMs <= toMs + writeTimeoutMs + settleMs,
    );
    if (freeze === undefined || this.#explained.has(freeze)) return false;
    this.#explained.set(freeze, write.token);
    return true;
  }

  #checkCopies(taken: readonly Taken[]): void {
    const held = new Map<string, number>();
    const key = (store: Store, write: Accepted): string => `${store}\n${write.record}\n${write.token}`;
    for (const write of taken) {
      const at = held.get(key(write.store, write));
      if (at === undefined || write.atMs < at) held.set(key(write.store, write), write.atMs);
    }
    for (const copy of taken) {
      if (copy.access !== 'copy') continue;
      const { partition, span, store } = copy;
      if (span.owner === store || span.phase === 'committed') {
        const state = `${span.phase}(${span.owner}, ${span.epoch})`;
        this.#add('copy-against-owner', partition, `${describe(copy)} while the ledger said ${state}`);
      }
      // A copied delete carries nothing.
      if (copy.deleted) continue;
      const sourceMs = held.get(key(otherOf(store), copy));
      if (sourceMs === undefined || sourceMs > copy.atMs) {
        this.#add('copy-from-nowhere', partition, `${describe(copy)}, which ${otherOf(store)} did not hold`);
      }
    }
  }

  #checkOwnersPerEpoch(users: readonly Taken[]): void {
    const owners = new Map<string, Store>();
    const under = (partition: string, epoch: number, store: Store, what: string): void => {
      const name = `${partition}\n${epoch}`;
      const first = owners.get(name) ?? store;
      owners.set(name, first);
      const span = this.#timelines.of(partition).find((known) => known.epoch === epoch);
      if (first !== store) {
        this.#add('two-owners', partition, `${what}: epoch ${epoch} has been used at ${first} before`);
      } else if (span?.owner !== store || span.phase !== 'open') {
        const said = span === undefined ? 'does not have' : `says ${span.phase}(${span.owner})`;
        this.#add('two-owners', partition, `${what}: the ledger ${said} for epoch ${epoch}`);
      }
    };
    for (const { invoked, ended } of this.#requests) {
      if (invoked.operation === 'read' || ended?.step !== 'ok') continue;
      const { store, epoch } = ended;
      if (store !== undefined && epoch !== undefined) {
        under(invoked.partition, epoch, store, `request ${invoked.request} was answered by ${store}`);
      }
    }
    for (const write of users) {
      if (write.epoch !== undefined) under(write.partition, write.epoch, write.store, describe(write));
    }
  }

  /** Each acknowledged write once, each refused one never, each other one at most once. */
  #checkCounts(users: readonly Taken[]): void {
    const times = new Map<string, number>();
    for (const write of users) {
      times.set(write.token, (times.get(write.token) ?? 0) + 1);
      if (!this.#byToken.has(write.token)) this.#add('unasked', write.partition, describe(write));
    }
    for (const { invoked, ended } of this.#requests) {
      if (invoked.token === undefined) continue;
      const { partition, token, operation } = invoked;
      const count = times.get(token) ?? 0;
      const what = `${operation} ${token} of ${invoked.record ?? ended?.record ?? 'a new record'}`;
      if (count > 1) this.#add('doubled', partition, `${what} was taken ${count} times`);
      if (ended?.step === 'ok' && count === 0)
        this.#add('lost', partition, `${what} was acknowledged, no store took it`);
      if (ended?.step === 'fail' && count > 0)
        this.#add('refused-but-done', partition, `${what} (${ended.code})`);
    }
  }

  /** The owner of today shows, for each record, the last write that any owner took. */
  #checkLost(rightful: readonly Taken[]): void {
    const chains = new Map<string, Taken[]>();
    // A log is in order by itself; which owner came first, the epochs of its time tell.
    for (const write of rightful.toSorted((a, b) => a.span.epoch - b.span.epoch)) {
      const key = `${write.partition}\n${write.record}`;
      chains.set(key, [...(chains.get(key) ?? []), write]);
    }
    const states = {
      legacy: lastStates(this.#input.accepted.legacy),
      app: lastStates(this.#input.accepted.app),
    };
    for (const chain of chains.values()) {
      const last = chain.at(-1);
      if (last === undefined) continue;
      const { partition, record } = last;
      const owner = this.#timelines.of(partition).at(-1)?.owner ?? this.#input.settings.defaultOwner;
      const held = states[owner].get(record);
      const shows = held === undefined || held.deleted ? null : held.token;
      const wanted = last.deleted ? null : last.token;
      if (shows !== wanted) {
        const found = shows === null ? 'does not hold the record' : `shows ${shows}`;
        const known =
          this.#byToken.get(last.token)?.ended?.step === 'ok' ? 'acknowledged' : 'not acknowledged';
        this.#add('lost', partition, `${describe(last)} (${known}), and ${owner} ${found} today`);
      }
    }
    for (const store of bothStores) this.#checkHomes(store, states[store]);
  }

  /** What the owner shows of one write, it shows once. */
  #checkHomes(store: Store, states: ReadonlyMap<string, Accepted>): void {
    const homes = new Map<string, string>();
    for (const { partition, record, token, deleted } of states.values()) {
      if (deleted || (this.#timelines.of(partition).at(-1)?.owner ?? store) !== store) continue;
      const home = homes.get(token);
      if (home !== undefined)
        this.#add('doubled', partition, `${store} shows ${token} as ${home} and as ${record}`);
      homes.set(token, record);
    }
  }

  #checkReads(): void {
    const lastOk = new Map<string, Request>();
    const inGap = new Set(this.#explained.values());
    const doubtful = new Map<string, string[]>();
    for (const { invoked } of this.#requests.filter(
      ({ ended }) => ended === undefined || ended.step === 'unknown',
    )) {
      if (invoked.record === undefined || invoked.operation === 'read') continue;
      const shown = invoked.operation === 'remove' ? 'null' : (invoked.token ?? '');
      doubtful.set(invoked.record, [...(doubtful.get(invoked.record) ?? []), shown]);
    }
    // In the order of the history: a user does one thing after the other on records of its own.
    for (const request of this.#requests) {
      const { invoked, ended } = request;
      if (ended?.step !== 'ok') continue;
      const record = invoked.record ?? ended.record ?? '';
      if (invoked.operation !== 'read') {
        if (!inGap.has(invoked.token ?? '')) lastOk.set(record, request);
        continue;
      }
      const before = lastOk.get(record);
      if (before === undefined || before.invoked.proxy !== invoked.proxy) continue;
      const wanted = before.invoked.operation === 'remove' ? 'null' : before.invoked.token;
      const seen = String(ended.seen);
      if (seen === wanted || (doubtful.get(record) ?? []).includes(seen)) continue;
      const detail = `request ${invoked.request} saw ${seen} in ${record} after ${wanted} was acknowledged`;
      this.#add('stale-read', invoked.partition, `${detail}, both through ${invoked.proxy}`);
    }
  }

  #checkOpen(): void {
    for (const partition of this.#timelines.partitions) {
      const last = this.#timelines.of(partition).at(-1);
      if (last !== undefined && last.phase !== 'open') {
        this.#add('stuck', partition, `it is ${last.phase} since epoch ${last.epoch}`);
      }
    }
  }
}

/** What each record is like at the end of a log. */
function lastStates(log: readonly Accepted[]): Map<string, Accepted> {
  return new Map(log.map((write) => [write.record, write]));
}

function describe({ access, token, record, store, atMs, epoch }: Taken): string {
  const under = epoch === undefined ? '' : ` under epoch ${epoch}`;
  return `${store} took the ${access === 'copy' ? 'copy' : 'write'} ${token} of ${record}${under} at ${atMs}`;
}
