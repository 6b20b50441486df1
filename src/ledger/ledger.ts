/** The ledger on Redis: the one record of who owns which partition. */
import { randomUUID } from 'node:crypto';
import type { ChainableCommander, Redis } from 'ioredis';
import { z } from 'zod';
import {
  applyOrder,
  attemptOf,
  isRefusal,
  untouched,
  type Ownership,
  type StoreName,
  type TransitionOrder,
} from '../core/ownership.ts';
import type { Ledger, LedgerRecord, MemberRecord, Order, OrderResult } from '../core/ports.ts';
import type { Snapshot } from '../core/view.ts';
import { sentenceOf } from '../log.ts';
import { keys, luaSource } from './connection.ts';
import { durabilityGaps } from './durability.ts';

const store = z.enum(['legacy', 'app']);
const stamp = { version: z.int(), transitionId: z.string(), changedAtMs: z.number() };
const recordSchema = z.discriminatedUnion('phase', [
  z.object({ phase: z.literal('open'), owner: store, epoch: z.int(), ...stamp }),
  z.object({
    phase: z.literal('fenced'),
    owner: store,
    to: store,
    epoch: z.int(),
    attempt: z.string(),
    deadlineMs: z.number(),
    ...stamp,
  }),
  z.object({ phase: z.literal('committed'), owner: store, epoch: z.int(), attempt: z.string(), ...stamp }),
]);

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
});

/** Transitions kept in the stream; a member that is further behind loads a snapshot. */
const transitionsKept = 200_000;
const replicaWaitMs = 1_000;

export type HeartbeatAnswer =
  | { readonly answer: 'ok'; readonly version: number }
  | { readonly answer: 'not-listed' }
  | { readonly answer: 'ledger-regressed'; readonly detail: string };

export interface LedgerSettings {
  readonly defaultOwner: StoreName;
  readonly minReplicas: number;
}

export class RedisLedger implements Ledger {
  readonly untouched: LedgerRecord;
  readonly #redis: Redis;
  readonly #settings: LedgerSettings;
  readonly #untouchedRecord: string;

  constructor(redis: Redis, settings: LedgerSettings) {
    this.#redis = redis;
    this.#settings = settings;
    this.#untouchedRecord = JSON.stringify({
      ...untouched(settings.defaultOwner),
      version: 0,
      transitionId: '',
      changedAtMs: 0,
    });
    this.untouched = parseRecord(this.#untouchedRecord);
    redis.defineCommand('onewriterTransition', { numberOfKeys: 3, lua: luaSource('transition') });
    redis.defineCommand('onewriterHeartbeat', { numberOfKeys: 3, lua: luaSource('heartbeat') });
    redis.defineCommand('onewriterDepart', { numberOfKeys: 2, lua: luaSource('depart') });
  }

  async read(partition: string): Promise<LedgerRecord> {
    return parseRecord((await this.#redis.hget(keys.partitions, partition)) ?? this.#untouchedRecord);
  }

  async touched(): Promise<ReadonlyMap<string, LedgerRecord>> {
    const all = await this.#redis.hgetall(keys.partitions);
    return new Map(Object.entries(all).map(([partition, text]) => [partition, parseRecord(text)]));
  }

  async nowMs(): Promise<number> {
    const [seconds, microseconds] = await this.#redis.time();
    return Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
  }

  /**
   * Orders one transition. The next state is computed by core's rule from the record as read; the script
   * stores it only if that record still stands and the deadline rule holds by Redis's own clock.
   */
  async order(order: Order): Promise<OrderResult> {
    const before = await this.read(order.partition);
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
    const { reply, durable } = await this.#write<[string, string]>((pipeline) =>
      pipeline.onewriterTransition(
        keys.partitions,
        keys.meta,
        keys.transitions,
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
        transitionsKept,
      ),
    );
    const [answer, text] = reply;
    const record = parseRecord(text);
    switch (answer) {
      case 'done':
        return { result: 'done', record, durable };
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

  /** Runs one scripted write, with WAIT behind it on the same connection where replicas must confirm. */
  async #write<Reply>(
    write: (pipeline: ChainableCommander) => ChainableCommander,
  ): Promise<{ reply: Reply; durable: boolean }> {
    const pipeline = write(this.#redis.pipeline());
    const { minReplicas } = this.#settings;
    if (minReplicas > 0) pipeline.wait(minReplicas, replicaWaitMs);
    const results = (await pipeline.exec()) ?? [];
    for (const [error] of results) if (error) throw error;
    const durable = minReplicas === 0 || Number(results[1]?.[1]) >= minReplicas;
    return { reply: results[0]?.[1] as Reply, durable };
  }

  /** Like #write, but a write that too few replicas confirmed counts as failed. */
  async #durably<Reply>(write: (pipeline: ChainableCommander) => ChainableCommander): Promise<Reply> {
    const { reply, durable } = await this.#write<Reply>(write);
    if (!durable) {
      const { minReplicas } = this.#settings;
      throw new Error(`fewer than ${minReplicas} replicas confirmed a write within ${replicaWaitMs} ms`);
    }
    return reply;
  }

  async confirmDurable(): Promise<boolean> {
    const { durable } = await this.#write((pipeline) => pipeline.hset(keys.meta, 'confirm', randomUUID()));
    return durable;
  }

  // --- members -------------------------------------------------------------------------------------

  async members(): Promise<MemberRecord[]> {
    const all = await this.#redis.hvals(keys.members);
    return all.map((text) => memberSchema.parse(JSON.parse(text)));
  }

  async register(member: MemberRecord): Promise<void> {
    await this.#durably((pipeline) => pipeline.hset(keys.members, member.id, JSON.stringify(member)));
  }

  async heartbeat(
    member: MemberRecord,
    confirmed: { readonly version: number; readonly id: string },
  ): Promise<HeartbeatAnswer> {
    const [answer, detail] = await this.#durably<[HeartbeatAnswer['answer'], string | number]>((pipeline) =>
      pipeline.onewriterHeartbeat(
        keys.members,
        keys.meta,
        keys.transitions,
        member.id,
        JSON.stringify(member),
        confirmed.version,
        confirmed.id,
      ),
    );
    switch (answer) {
      case 'ok':
        return { answer, version: Number(detail) };
      case 'not-listed':
        return { answer };
      case 'ledger-regressed':
        return { answer, detail: String(detail) };
    }
  }

  async removeMember(id: string, seenSequence?: number): Promise<boolean> {
    const removed = await this.#durably<number>((pipeline) =>
      pipeline.onewriterDepart(keys.members, keys.meta, id, seenSequence ?? ''),
    );
    return removed === 1;
  }

  async lastDepartureMs(): Promise<number> {
    return Number((await this.#redis.hget(keys.meta, 'lastDepartureMs')) ?? 0);
  }

  /** Everything at one moment: what a member loads after it has registered. */
  async snapshot(): Promise<Snapshot> {
    const results = await this.#redis
      .multi()
      .hmget(keys.meta, 'version', 'id')
      .hgetall(keys.partitions)
      .exec();
    if (results === null) throw new Error('the snapshot transaction was discarded');
    for (const [error] of results) if (error) throw error;
    const [version, id] = (results[0]?.[1] ?? []) as (string | null | undefined)[];
    const all = results[1]?.[1] as Record<string, string>;
    return {
      position: { version: Number(version ?? 0), id: id ?? '' },
      partitions: Object.entries(all).map(
        ([partition, text]) => [partition, parseRecord(text).ownership] as const,
      ),
    };
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

export function parseRecord(text: string): LedgerRecord {
  const { version, transitionId, changedAtMs, ...ownership } = recordSchema.parse(JSON.parse(text));
  return { ownership, version, transitionId, changedAtMs };
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterTransition(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterHeartbeat(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterDepart(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
