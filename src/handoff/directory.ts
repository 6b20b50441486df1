/**
 * Changes which partition a user belongs to. Both partitions stay where they are: they are fenced, all members
 * have ended what they had under way, the entry is changed, and both are reopened. Whatever fails on the way, they
 * are reopened and the entry is as it was.
 */
import { randomUUID } from 'node:crypto';
import { inBatches } from '../batches.ts';
import type { Config } from '../config/schema.ts';
import type {
  DirectoryBook,
  DirectoryDesk,
  DirectoryOrder,
  DirectoryRefusal,
  DirectoryReport,
  FillReport,
} from '../core/homes.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { GuardCalls, Ledger, LedgerFeed, LedgerRecord, Registry } from '../core/ports.ts';
import { type Log, sentenceOf } from '../log.ts';
import { awaitDrained, type DrainFailure } from './drain.ts';
import type { MemberHealth, MemberWatch } from './members.ts';

export interface DirectorySettings {
  readonly fenceMs: number;
  readonly drainMs: number;
  /** Hash of the rules that this process runs by; what it decides is true only under them. */
  readonly rules: string;
  readonly newPartitions: StoreName;
  /** Where a user without an entry belongs: nowhere, to a partition of their own name, or it is in the request. */
  readonly withoutEntry: 'nowhere' | 'own-name' | 'in-request';
}

export interface DirectoryParts {
  readonly ledger: Ledger;
  readonly feed: LedgerFeed;
  readonly registry: Pick<Registry, 'completeness' | 'knows'>;
  readonly book: DirectoryBook;
  readonly members: Pick<MemberWatch, 'health' | 'listedSince'>;
  readonly guards: Pick<GuardCalls, 'advance'>;
  readonly guarded: Readonly<Record<StoreName, boolean>>;
  /** As they are now: the rules can change while this process runs. */
  readonly settings: () => DirectorySettings;
  readonly log: Log;
}

/** By the rules behind the directory; the first that yields a partition decides. */
export function placeWithoutEntry(rules: Config['partition']): DirectorySettings['withoutEntry'] {
  const at = rules.findIndex((rule) => 'directory' in rule);
  const next = at === -1 ? undefined : rules[at + 1];
  if (next === undefined) return 'nowhere';
  return 'by' in next ? 'own-name' : 'in-request';
}

/** Where a partition's writes go, as far as anybody can have written. */
type Home = { readonly claimed: true; readonly record: LedgerRecord } | { readonly claimed: false };
type Fenced = { readonly partition: string; readonly record: LedgerRecord };

/** Part of the fence after which nothing more is begun under it. */
const changeWithin = 0.8;

export class DirectoryMoves implements DirectoryDesk {
  readonly #parts: DirectoryParts;

  constructor(parts: DirectoryParts) {
    this.#parts = parts;
  }

  async partitionOf(user: string): Promise<string | undefined> {
    const entry = await this.#parts.book.partitionOf(user);
    return entry ?? (this.#parts.settings().withoutEntry === 'own-name' ? user : undefined);
  }

  async set(order: DirectoryOrder): Promise<DirectoryReport | DirectoryRefusal> {
    const { book, ledger } = this.#parts;
    const settings = this.#parts.settings();
    const { user, partition } = order;
    const entry = await book.partitionOf(user);
    const before = entry === undefined ? {} : { before: entry };
    if (entry === partition) {
      // It may stand there since an order that could not be confirmed.
      if (!(await ledger.confirmDurable())) return refusals.entryUnconfirmed(user);
      return { user, partition, ...before, pauseMs: 0 };
    }
    if (entry === undefined && settings.withoutEntry === 'in-request') return refusals.inRequest(user);
    const from = entry ?? (settings.withoutEntry === 'own-name' ? user : undefined);
    // Nobody has anything under way for a user without a partition, and nothing changes for one who stays.
    const moved =
      from === undefined || from === partition
        ? await this.#change(order, entry, [])
        : await this.#move(order, entry, from);
    if ('refused' in moved) return moved;
    return { user, partition, ...before, pauseMs: moved.pauseMs };
  }

  async fill(
    entries: readonly { readonly user: string; readonly partition: string }[],
    by: string,
    reason: string,
  ): Promise<FillReport | DirectoryRefusal> {
    const { book } = this.#parts;
    const settings = this.#parts.settings();
    if (settings.withoutEntry !== 'nowhere') return refusals.oneByOne();
    let added = 0;
    let unchanged = 0;
    const others: string[] = [];
    for (const group of inBatches(entries, filledAtOnce)) {
      const known = await book.partitionsOf(group.map(({ user }) => user));
      const first = new Map<string, string>();
      for (const [index, { user, partition }] of group.entries()) {
        const is = known[index] ?? first.get(user);
        if (is === undefined) first.set(user, partition);
        else if (is === partition) unchanged += 1;
        else others.push(user);
      }
      const fresh = [...first].map(([user, partition]) => ({ user, partition }));
      if (fresh.length === 0) continue;
      const refused = await this.#write({ entries: fresh, conditions: [], by, reason });
      if (refused !== undefined) return refused;
      added += fresh.length;
    }
    return { added, unchanged, others };
  }

  // --- one user ------------------------------------------------------------------------------------

  async #move(
    order: DirectoryOrder,
    entry: string | undefined,
    from: string,
  ): Promise<Moved | DirectoryRefusal> {
    const source = await this.#homeOf(from);
    const target = await this.#homeOf(order.partition);
    if (!source.claimed) {
      // Nobody can have written there, and nobody will have before this change is known.
      return this.#change(order, entry, [{ partition: from, attempt: '' }]);
    }
    for (const home of [source, target]) {
      if (home.claimed && home.record.ownership.phase !== 'open') return refusals.busy(order.user);
    }
    const { owner } = source.record.ownership;
    const there = target.claimed ? target.record.ownership.owner : this.#parts.settings().newPartitions;
    if (owner !== there) return refusals.otherOwner(from, owner, order.partition, there);
    const names = target.claimed ? [from, order.partition].toSorted() : [from];
    const unclaimed = target.claimed ? [] : [{ partition: order.partition, attempt: '' }];
    return this.#underFence(order, names, owner, (attempt) =>
      this.#change(order, entry, [...names.map((partition) => ({ partition, attempt })), ...unclaimed]),
    );
  }

  async #underFence(
    order: DirectoryOrder,
    names: readonly string[],
    owner: StoreName,
    change: (attempt: string) => Promise<Moved | DirectoryRefusal>,
  ): Promise<Moved | DirectoryRefusal> {
    const { ledger, feed, guards, guarded, members: watch } = this.#parts;
    const settings = this.#parts.settings();
    // Looked at now: nobody is to be paused for a member that will not acknowledge.
    await watch.listedSince(performance.now());
    const { stale } = watch.health();
    if (stale.length > 0) return refusals.silent(order.user, stale);
    const attempt = randomUUID();
    const drained = awaitDrained(feed, watch, attempt);
    const fenced: Fenced[] = [];
    let durable = true;
    const tried: string[] = [];
    let outcome: Moved | DirectoryRefusal;
    try {
      for (const partition of names) {
        tried.push(partition);
        const fence = { kind: 'fence', to: otherStore(owner), attempt, fenceMs: settings.fenceMs } as const;
        const result = await ledger.order({ partition, order: fence, ...saying(order) });
        // Somebody was faster, or the connection broke: what stands is given up below.
        if (result.result !== 'done' || result.record.ownership.owner !== owner) {
          throw new GivenUp(refusals.busy(order.user));
        }
        fenced.push({ partition, record: result.record });
        durable &&= result.durable;
      }
      // A guard must not be told of an epoch that a failover can still take back: it would refuse its own users.
      if (!durable && !(await ledger.confirmDurable())) throw new GivenUp(refusals.unconfirmed(order.user));
      const members = (await ledger.members()).map(({ id }) => id);
      const failure = await drained.all(members, names, settings.drainMs);
      if (failure !== undefined) throw new GivenUp(refusals.notDrained(order.user, failure));
      const withinMs = settings.fenceMs * changeWithin;
      for (const { partition, record } of guarded[owner] ? fenced : []) {
        // A write that was held up on its way must not come in under the epoch of before.
        await guards.advance(
          owner,
          { partition, epoch: record.ownership.epoch },
          AbortSignal.timeout(withinMs),
        );
      }
      outcome = await change(attempt);
    } catch (error) {
      outcome = error instanceof GivenUp ? error.refusal : await this.#afterTrouble(order, error);
    } finally {
      drained.stop();
    }
    const pauseMs = await this.#reopen(order, attempt, tried, fenced);
    return 'refused' in outcome ? outcome : { pauseMs };
  }

  /** Reopens at once; where that cannot be said, any member does after the deadline (I7). */
  async #reopen(
    order: DirectoryOrder,
    attempt: string,
    tried: readonly string[],
    fenced: readonly Fenced[],
  ): Promise<number> {
    const { ledger, log } = this.#parts;
    let pauseMs = 0;
    for (const partition of tried) {
      try {
        const reopened = await ledger.order({
          partition,
          order: { kind: 'abort', attempt },
          ...saying(order),
        });
        const since = fenced.find((one) => one.partition === partition)?.record.changedAtMs;
        if (reopened.result === 'done' && since !== undefined) {
          pauseMs = Math.max(pauseMs, reopened.record.changedAtMs - since);
        }
      } catch (error) {
        log('warn', 'directory.reopen', { partition, error: sentenceOf(error) });
      }
    }
    return pauseMs;
  }

  /** The change may have been made before the connection broke: only the entry itself can tell. */
  async #afterTrouble(order: DirectoryOrder, error: unknown): Promise<Moved | DirectoryRefusal> {
    this.#parts.log('warn', 'directory.trouble', { user: order.user, error: sentenceOf(error) });
    const entry = await this.#parts.book.partitionOf(order.user).catch(() => undefined);
    const stands =
      entry === order.partition && (await this.#parts.ledger.confirmDurable().catch(() => false));
    return stands ? { pauseMs: 0 } : refusals.trouble(order.user, sentenceOf(error));
  }

  async #change(
    { user, partition, by, reason }: DirectoryOrder,
    entry: string | undefined,
    conditions: readonly { readonly partition: string; readonly attempt: string }[],
  ): Promise<Moved | DirectoryRefusal> {
    const entries = [{ user, partition, ...(entry === undefined ? {} : { expected: entry }) }];
    return (await this.#write({ entries, conditions, by, reason })) ?? { pauseMs: 0 };
  }

  async #write(
    change: Omit<Parameters<DirectoryBook['change']>[0], 'rules'>,
  ): Promise<DirectoryRefusal | undefined> {
    const { book } = this.#parts;
    const settings = this.#parts.settings();
    const answer = await book.change({ ...change, rules: settings.rules });
    switch (answer.result) {
      case 'done':
        return undefined;
      case 'changed':
      case 'not-fenced':
      case 'claimed':
        return refusals.busy('user' in answer ? answer.user : (change.entries[0]?.user ?? ''));
      case 'rules-changed':
        return refusals.otherRules();
      case 'ledger-regressed':
        return refusals.regressed(answer.detail);
    }
  }

  async #homeOf(partition: string): Promise<Home> {
    const { ledger, registry } = this.#parts;
    const settings = this.#parts.settings();
    const record = await ledger.read(partition);
    const claimed =
      record.version !== 0 ||
      settings.newPartitions === ledger.untouched.ownership.owner ||
      !(await registry.completeness()).complete ||
      (await registry.knows(partition));
    return claimed ? { claimed, record } : { claimed };
  }
}

const filledAtOnce = 500;

interface Moved {
  readonly pauseMs: number;
}

class GivenUp extends Error {
  readonly refusal: DirectoryRefusal;
  constructor(refusal: DirectoryRefusal) {
    super(refusal.detail);
    this.refusal = refusal;
  }
}

function saying({ by, reason, user }: DirectoryOrder): { readonly by: string; readonly reason: string } {
  return { by, reason: `the directory entry of ${user}: ${reason}` };
}

const unchanged = 'Nothing was changed';

const refusals = {
  inRequest: (user: string): DirectoryRefusal => ({
    refused: 'partition-in-request',
    detail: `${unchanged}: "${user}" has no entry yet, and by the rule behind the directory the requests themselves say where such users belong; nobody can tell which partition to leave. Put the directory last under partition.`,
  }),
  oneByOne: (): DirectoryRefusal => ({
    refused: 'partition-in-request',
    detail: `${unchanged}: by a rule behind the directory, users without an entry belong somewhere already. Set them one by one, or put the directory last under partition.`,
  }),
  busy: (user: string): DirectoryRefusal => ({
    refused: 'partition-busy',
    detail: `${unchanged}: one of the partitions of "${user}", or the entry itself, is being changed by somebody else. Try again in a few seconds.`,
  }),
  otherOwner: (from: string, owner: StoreName, to: string, there: StoreName): DirectoryRefusal => ({
    refused: 'other-owner',
    detail: `${unchanged}: "${from}" lives in ${owner} and "${to}" in ${there}. A user moves only between partitions of one store; flip one of them first.`,
  }),
  notDrained: (user: string, { because, detail }: DrainFailure): DirectoryRefusal => ({
    refused: because,
    detail: `${unchanged}: ${detail}. "${user}" stays where they are; try again.`,
  }),
  silent: (user: string, stale: MemberHealth['stale']): DirectoryRefusal => ({
    refused: 'drain-timeout',
    detail: `${unchanged}: no heartbeat from ${stale.map(({ id, pid, host }) => `${id} (pid ${pid} on ${host})`).join(', ')}, so nobody can tell whether its writes have ended. "${user}" stays where they are; try again when it answers, or is proven gone.`,
  }),
  unconfirmed: (user: string): DirectoryRefusal => ({
    refused: 'not-settled',
    detail: `${unchanged}: the fence is not confirmed by as many replicas of Redis as must have it. "${user}" stays where they are; try again when the replicas follow.`,
  }),
  entryUnconfirmed: (user: string): DirectoryRefusal => ({
    refused: 'not-settled',
    detail: `The entry of "${user}" is as you want it, but not confirmed by as many replicas of Redis as must have it: a failover could still lose it. Repeat the order when the replicas follow.`,
  }),
  otherRules: (): DirectoryRefusal => ({
    refused: 'rules-differ',
    detail: `${unchanged}: the proxies run other rules than this process. Restart it with their configuration.`,
  }),
  regressed: (detail: string): DirectoryRefusal => ({
    refused: 'ledger-regressed',
    detail: `${unchanged}: the ledger has lost data (${detail}). Restore it first.`,
  }),
  trouble: (user: string, detail: string): DirectoryRefusal => ({
    refused: 'not-settled',
    detail: `The entry of "${user}" could not be changed (${detail}); look it up before you try again. Both partitions are open again, at the latest when their fence ends.`,
  }),
};
