/** The ledger on Redis: the one record of who owns which partition. */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import {
  applyOrder,
  attemptOf,
  firstEpoch,
  isRefusal,
  untouched,
  type Ownership,
  type StoreName,
  type TransitionOrder,
} from '../core/ownership.ts';
import type { Ledger, LedgerRecord, MemberRecord, Order, OrderResult } from '../core/ports.ts';
import type { Regression } from '../core/regression.ts';
import type { Position, Rules, Snapshot } from '../core/view.ts';
import { sentenceOf } from '../log.ts';
import { readAllPartitions } from './all-partitions.ts';
import { keys, luaSource, onlyReplyOf, redisNowMs } from './connection.ts';
import { durabilityGaps } from './durability.ts';
import { DurableWrites } from './durable-writes.ts';
import { RedisObservers } from './observers.ts';
import { parseRecord } from './records.ts';
import { readRegression } from './regression.ts';

const memberSchema = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.int(),
  sequence: z.int(),
  appliedVersion: z.int(),
  configHash: z.string(),
  leaseMs: z.number(),
  writeTimeoutMs: z.number(),
  settleMs: z.number(),
  inFlight: z.int(),
  inDoubt: z.int(),
  unexpirable: z.boolean().optional(),
});

/** Changes kept in the stream; a member that is further behind loads a snapshot. */
export const changesKept = 200_000;

export type HeartbeatAnswer =
  | { readonly answer: 'ok'; readonly version: number }
  /** The ledger does not have what was applied last; nobody acted on it. */
  | { readonly answer: 'view-ahead' }
  | { readonly answer: 'not-listed' }
  | { readonly answer: 'ledger-regressed'; readonly detail: string };

/** What a process knows of the ledger: confirmed durable, and applied. */
export interface Known {
  readonly confirmed: Position;
  readonly applied: Position;
}

/** What became of an order to change something beside ownership. */
export type AnnounceResult =
  | { readonly result: 'done'; readonly version: number }
  | { readonly result: 'refused'; readonly detail: string };

/** What is done about a partition that the ledger does not list; see lua/claim.lua. */
export type ClaimStep = 'ask' | 'seal' | 'claim';

export type ClaimResult =
  | { readonly result: 'claimed' | 'touched'; readonly record: LedgerRecord }
  /** Nobody knows it; only after `ask` and `seal`. */
  | { readonly result: 'newcomer' }
  /**
   * It lives at the default store: the registry knows it, or is not complete, so that nobody can tell. `sealed`:
   * the app's guard was sealed for it, and takes its copies only under a higher epoch.
   */
  | { readonly result: 'at-home' | 'taken-for-old'; readonly sealed: boolean }
  | { readonly result: 'refused'; readonly detail: string };

export interface LedgerSettings {
  readonly defaultOwner: StoreName;
  readonly minReplicas: number;
}

export class RedisLedger implements Ledger {
  readonly untouched: LedgerRecord;
  readonly #redis: Redis;
  readonly writes: DurableWrites;
  readonly observers: RedisObservers;
  readonly #settings: LedgerSettings;
  readonly #untouchedRecord: string;
  /** `writing`: a connection for nothing else, where replicas must confirm (see DurableWrites). */
  constructor(redis: Redis, settings: LedgerSettings, writing = redis) {
    this.#redis = redis;
    this.writes = new DurableWrites(writing, settings.minReplicas);
    this.#settings = settings;
    this.#untouchedRecord = JSON.stringify({
      ...untouched(settings.defaultOwner),
      version: 0,
      transitionId: '',
      changedAtMs: 0,
    });
    this.untouched = parseRecord(this.#untouchedRecord);
    this.observers = new RedisObservers(redis, this.writes);
    writing.defineCommand('onewriterTransition', { numberOfKeys: 4, lua: luaSource('transition') });
    const heartbeat = { numberOfKeys: 3, lua: luaSource('heartbeat') };
    for (const asked of new Set([redis, writing])) asked.defineCommand('onewriterHeartbeat', heartbeat);
    writing.defineCommand('onewriterAppend', { numberOfKeys: 3, lua: luaSource('append') });
    writing.defineCommand('onewriterClaim', { numberOfKeys: 6, lua: luaSource('claim') });
    writing.defineCommand('onewriterDepart', { numberOfKeys: 2, lua: luaSource('depart') });
  }

  async read(partition: string): Promise<LedgerRecord> {
    return parseRecord((await this.#redis.hget(keys.partitions, partition)) ?? this.#untouchedRecord);
  }

  async readMany(partitions: readonly string[]): Promise<readonly LedgerRecord[]> {
    if (partitions.length === 0) return [];
    const found = await this.#redis.hmget(keys.partitions, ...partitions);
    return found.map((text) => parseRecord(text ?? this.#untouchedRecord));
  }

  async touched(): Promise<ReadonlyMap<string, LedgerRecord>> {
    return new Map((await readAllPartitions(this.#redis, (record) => record)).entries);
  }

  nowMs(): Promise<number> {
    return redisNowMs(this.#redis);
  }

  /**
   * Orders one transition. The next state is computed by core's rule from the record as read; the script
   * stores it only if that record still stands and the deadline rule holds by Redis's own clock.
   */
  async order(order: Order): Promise<OrderResult> {
    const before = order.seen ?? (await this.read(order.partition));
    const transitionId = randomUUID();
    const nowMs = deadlineClock(order.order, before.ownership);
    const next = applyOrder(before.ownership, order.order, nowMs);
    if (isRefusal(next)) return { result: 'refused', refusal: next, record: before };
    try {
      return await this.#swap(order, before.ownership, next, transitionId);
    } catch (error) {
      return this.#afterBrokenConnection(order.partition, transitionId, error);
    }
  }

  async #swap(order: Order, current: Ownership, next: Ownership, transitionId: string): Promise<OrderResult> {
    const { kind } = order.order;
    const { reply, durable } = await this.writes.send<[string, string]>((pipeline) =>
      pipeline.onewriterTransition(
        keys.partitions,
        keys.meta,
        keys.changes,
        keys.observers,
        order.partition,
        current.phase,
        current.epoch,
        attemptOf(current),
        JSON.stringify(next),
        order.order.kind === 'fence' ? order.order.fenceMs : '',
        kind === 'commit' ? 'before' : kind === 'expire' ? 'after' : '',
        transitionId,
        order.by,
        order.reason,
        this.#untouchedRecord,
        changesKept,
      ),
    );
    const [answer, text] = reply;
    const record = parseRecord(text);
    switch (answer) {
      case 'done':
        return { result: 'done', record, durable };
      case 'observed': {
        const detail = 'a proxy only observes and sends every write to legacy; "members list" names it';
        return { result: 'refused', refusal: { refused: answer, detail }, record };
      }
      case 'ledger-regressed':
      case 'deadline-passed':
      case 'deadline-not-passed':
        return { result: 'refused', refusal: { refused: answer, detail: `${kind}: ${answer}` }, record };
      default: {
        const detail = `somebody else changed the partition first; it is ${record.ownership.phase} now`;
        return { result: 'refused', refusal: { refused: 'wrong-phase', detail }, record };
      }
    }
  }

  /** The transition may or may not have happened: only its random id in the record proves that it did. */
  async #afterBrokenConnection(
    partition: string,
    transitionId: string,
    cause: unknown,
  ): Promise<OrderResult> {
    const detail = sentenceOf(cause);
    try {
      const record = await this.read(partition);
      if (record.transitionId === transitionId) {
        return { result: 'done', record, durable: this.#settings.minReplicas === 0 };
      }
    } catch {
      // Redis is still away; the caller decides when to look again.
    }
    return { result: 'unknown', detail };
  }

  async confirmDurable(): Promise<boolean> {
    const { durable } = await this.writes.send((pipeline) =>
      pipeline.hset(keys.meta, 'confirm', randomUUID()),
    );
    return durable;
  }

  // --- members -------------------------------------------------------------------------------------

  async members(): Promise<MemberRecord[]> {
    const all = await this.#redis.hvals(keys.members);
    return all.map((text) => memberSchema.parse(JSON.parse(text)));
  }

  async register(member: MemberRecord): Promise<void> {
    await this.writes.sendSurely((pipeline) =>
      pipeline.hset(keys.members, member.id, JSON.stringify(member)),
    );
  }

  async heartbeat(member: MemberRecord, known: Known): Promise<HeartbeatAnswer> {
    return this.#heartbeat(member.id, JSON.stringify(member), known, '');
  }

  /**
   * Asks, as no member, whether the ledger still holds what was confirmed; a loss is noted in it. `file`: which
   * one says so, where nothing was confirmed to this process itself.
   */
  async testify(known: Known, file = ''): Promise<Exclude<HeartbeatAnswer, { answer: 'not-listed' }>> {
    const answer = await this.#heartbeat('', '', known, file);
    if (answer.answer === 'not-listed') throw new Error('the ledger took a witness for a member');
    return answer;
  }

  /** What the ledger has lost of what was confirmed, as of now; undefined while it is sound. Waits for no replica. */
  async lost({ confirmed }: Pick<Known, 'confirmed'>): Promise<string | undefined> {
    const { version, id } = confirmed;
    const asked = this.#redis
      .pipeline()
      .onewriterHeartbeat(
        ...[keys.members, keys.meta, keys.changes, '', '', version, id, version, id, '', ''],
      );
    const [answer, detail] = (await onlyReplyOf(asked)) as [string, string];
    return answer === 'ledger-regressed' ? detail : undefined;
  }

  async #heartbeat(id: string, record: string, known: Known, file: string): Promise<HeartbeatAnswer> {
    const { confirmed, applied } = known;
    const mark = this.#settings.minReplicas === 0 ? '' : randomUUID();
    const [answer, detail] = await this.writes.sendSurely<[HeartbeatAnswer['answer'], string | number]>(
      (pipeline) =>
        pipeline.onewriterHeartbeat(
          ...[keys.members, keys.meta, keys.changes, id, record],
          ...[confirmed.version, confirmed.id, applied.version, applied.id, file, mark],
        ),
    );
    switch (answer) {
      case 'ok':
        return { answer, version: Number(detail) };
      case 'view-ahead':
      case 'not-listed':
        return { answer };
      case 'ledger-regressed':
        return { answer, detail: String(detail) };
    }
  }

  async removeMember(id: string, seenSequence?: number): Promise<boolean> {
    const removed = await this.writes.sendSurely<number>((pipeline) =>
      pipeline.onewriterDepart(keys.members, keys.meta, id, seenSequence ?? ''),
    );
    return removed === 1;
  }

  async lastDepartureMs(): Promise<number> {
    return Number((await this.#redis.hget(keys.meta, 'lastDepartureMs')) ?? 0);
  }

  /** Everything at one moment: what a member loads after it has registered. */
  async snapshot(): Promise<Snapshot> {
    const { meta, entries } = await readAllPartitions(this.#redis, ({ ownership }) => ownership);
    return { ...meta, partitions: entries };
  }

  async position(): Promise<Position> {
    const [version, id] = await this.#redis.hmget(keys.meta, 'version', 'id');
    return { version: Number(version ?? 0), id: id ?? '' };
  }

  // --- changes beside ownership --------------------------------------------------------------------

  /** Refused while a listed member runs other rules, or when others than `from` are active. */
  activateRules(from: Rules | undefined, to: Rules, by: string, reason: string): Promise<AnnounceResult> {
    return this.#append('rules', to, by, reason, from?.hash ?? '');
  }

  async resolveDoubt(partition: string, by: string, reason: string): Promise<void> {
    const answer = await this.#append('doubt-resolved', { partition }, by, reason);
    if (answer.result === 'refused') throw new Error(`the ledger refused it (${answer.detail})`);
  }

  async noteClosedWindows(by: string, reason: string): Promise<void> {
    const answer = await this.#append('windows-closed', {}, by, reason);
    if (answer.result === 'refused') throw new Error(`the ledger refused it (${answer.detail})`);
  }

  async #append(
    kind: 'rules' | 'doubt-resolved' | 'windows-closed',
    payload: unknown,
    by: string,
    reason: string,
    expected = '',
  ): Promise<AnnounceResult> {
    const [answer, detail] = await this.writes.sendSurely<[string, string | number]>((pipeline) =>
      pipeline.onewriterAppend(
        ...[keys.meta, keys.changes, keys.members, kind, JSON.stringify(payload)],
        ...[randomUUID(), by, reason, changesKept, expected],
      ),
    );
    if (answer === 'done') return { result: 'done', version: Number(detail) };
    return { result: 'refused', detail: `${answer}: ${detail}` };
  }

  /** Makes the app the owner of a partition that nobody has seen, or says where it lives. */
  async claim(partition: string, rules: Rules, by: string, step: ClaimStep = 'claim'): Promise<ClaimResult> {
    const owned = { phase: 'open', owner: rules.newPartitions, epoch: firstEpoch + 1 } as const;
    const [answer, text, sealed] = await this.writes.sendSurely<[string, string, string]>((pipeline) =>
      pipeline.onewriterClaim(
        ...[keys.partitions, keys.meta, keys.changes, keys.registry, keys.sealing, keys.observers],
        ...[partition, rules.hash],
        ...[JSON.stringify(owned), randomUUID(), by, 'first write of a new partition'],
        ...[this.#untouchedRecord, changesKept, step],
      ),
    );
    switch (answer) {
      case 'claimed':
      case 'touched':
        return { result: answer, record: parseRecord(text) };
      case 'newcomer':
        return { result: answer };
      case 'at-home':
      case 'taken-for-old':
        return { result: answer, sealed: sealed === '1' };
      default:
        return { result: 'refused', detail: answer };
    }
  }

  /** Partitions whose guard somebody began to seal at least so long ago, and did not claim since. */
  async sealedSince(olderThanMs: number): Promise<string[]> {
    const noted = Object.entries(await this.#redis.hgetall(keys.sealing));
    if (noted.length === 0) return [];
    const nowMs = await this.nowMs();
    return noted.filter(([, atMs]) => nowMs - Number(atMs) >= olderThanMs).map(([partition]) => partition);
  }

  regression(): Promise<Regression | undefined> {
    return readRegression(this.#redis);
  }

  durabilityGaps(): Promise<string[]> {
    return durabilityGaps(this.#redis, this.#settings.minReplicas);
  }
}

/**
 * A time at which core's rule finds no fault with the deadline: only the script can judge that, by Redis's clock
 * and in the same step as the swap. It also sets the deadline of a fence.
 */
function deadlineClock(order: TransitionOrder, current: Ownership): number {
  if (order.kind === 'fence' || current.phase !== 'fenced') return 0;
  return order.kind === 'expire' ? current.deadlineMs : current.deadlineMs - 1;
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterTransition(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterHeartbeat(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterAppend(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterClaim(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterDepart(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
