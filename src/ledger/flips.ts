/**
 * Flips as the ledger keeps them: what was ordered, how far it is, what each partition went through; the lease of
 * the coordinator that runs one; the operators' orders to it; and which partition is reserved for which flip. What
 * was planned is written once; progress and reports apart from it, so that a save costs what has changed.
 *
 * Who runs a flip writes progress and reports, and nobody else; operators write orders, and nothing else: there is
 * no update that one of them could lose of the other.
 */
import type { ChainableCommander, Redis } from 'ioredis';
import { z } from 'zod';
import { type BlockedPartition, flipStates, partitionOutcomes, type PartitionReport } from '../core/flip.ts';
import { waveSizes } from '../core/waves.ts';
import { keyPrefix, luaSource, onlyReplyOf, repliesOf } from './connection.ts';

const stored = `${keyPrefix}:flip`;
const keys = {
  heads: `${stored}:heads`,
  partitions: `${stored}:partitions`,
  progress: `${stored}:progress`,
  orders: `${stored}:orders`,
  reserved: `${stored}:reserved`,
  terms: `${stored}:terms`,
  active: `${stored}:active`,
  ended: `${stored}:ended`,
} as const;
/** Of one flip: `…:lease`, `…:reports`, `…:failed`. */
const ofFlip = (id: string): string => `${stored}:of:${id}`;

/** Ended flips that are kept; older ones are dropped. */
const endedKept = 200;

const count = z.int().nonnegative();
const blockedSchema = z.object({ partition: z.string(), code: z.string(), detail: z.string() });
const headSchema = z
  .object({
    id: z.string(),
    planId: z.string(),
    cohort: z.string(),
    to: z.enum(['legacy', 'app']),
    by: z.string(),
    reason: z.string(),
    createdAtMs: z.number(),
    /** As the plan showed them; partitions that are written together are in one. */
    waveSizes: z.array(count).optional(),
    /** What flips of before have instead: the sizes, or only the waves as ordered. */
    sizes: z.array(count).optional(),
    waves: z.array(z.string()).default([]),
    total: count,
    blocked: z.array(blockedSchema),
  })
  .transform(({ sizes, waves, ...head }) => ({
    ...head,
    waveSizes: head.waveSizes ?? sizes ?? waveSizes(head.total, waves),
  }));
const progressSchema = z.object({
  state: z.enum(flipStates),
  detail: z.string(),
  pausedBy: z.string().optional(),
  gate: count.optional(),
  gatesPassed: count,
  heeded: count,
  committed: count,
  aborted: count,
  pauseMs: z.object({ p50: z.number(), p99: z.number(), max: z.number() }).optional(),
  endedAtMs: z.number().optional(),
});
const orderSchema = z.object({
  number: count,
  kind: z.enum(['pause', 'resume', 'abort']),
  by: z.string(),
  reason: z.string(),
});
const reportSchema = z.object({
  outcome: z.enum(partitionOutcomes),
  attempts: count,
  pauseMs: z.number().optional(),
  stepsMs: z.record(z.string(), z.number()).optional(),
  proof: z
    .object({
      recordsCompared: count,
      recordsCopied: count,
      passes: count,
      unwritten: z.literal(true).optional(),
    })
    .optional(),
  lastFailure: z.object({ code: z.string(), detail: z.string() }).optional(),
});

/** What was ordered; never changes. */
export interface FlipHead extends z.output<typeof headSchema> {
  /** Those that the plan had left out. */
  readonly blocked: BlockedPartition[];
}

/** How far a flip is. */
export interface FlipProgress extends z.output<typeof progressSchema> {
  /** Set while the flip stands until somebody resumes it; one that waits for a condition goes on by itself. */
  pausedBy?: string | undefined;
  /** The wave behind which it stands, counted from 1. */
  gate?: number | undefined;
  /** After how many waves the flip may go on although handoffs failed. */
  gatesPassed: number;
  /** Number of the last operator's order that was heeded. */
  heeded: number;
}

export type FlipOrder = z.output<typeof orderSchema>;
export type FlipOrderKind = FlipOrder['kind'];

export interface KeptFlip {
  readonly head: FlipHead;
  readonly progress: FlipProgress;
  readonly order: FlipOrder | undefined;
  /** Partitions that were given up, with why. */
  readonly failed: ReadonlyMap<string, { readonly code: string; readonly detail: string }>;
}

/** What a coordinator needs to run a flip, or to go on with one. */
export interface FlipToRun extends KeptFlip {
  readonly partitions: readonly string[];
  readonly reports: ReadonlyMap<string, PartitionReport>;
}

export interface FlipChanges {
  readonly progress: FlipProgress;
  readonly reports: readonly (readonly [partition: string, report: PartitionReport])[];
  /** Not reserved for this flip any more. */
  readonly free: readonly string[];
}

export type FlipStarted =
  | { readonly started: true; readonly term: number }
  | { readonly started: false; readonly partition: string; readonly holder: string };

export type FlipOrdered =
  | { readonly ordered: 'yes'; readonly number: number }
  /** The flip is ending already, by an order that came before. */
  | { readonly ordered: 'aborting'; readonly number: number }
  | { readonly ordered: 'no-such-flip' | 'ended' };

export class FlipBook {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
    redis.defineCommand('onewriterFlipStart', { numberOfKeys: 7, lua: luaSource('flip-start') });
    redis.defineCommand('onewriterFlipLead', { numberOfKeys: 3, lua: luaSource('flip-lead') });
    redis.defineCommand('onewriterFlipSave', { numberOfKeys: 11, lua: luaSource('flip-save') });
    redis.defineCommand('onewriterFlipOrder', { numberOfKeys: 3, lua: luaSource('flip-order') });
  }

  // --- the coordinator that runs a flip --------------------------------------------------------------

  /** Writes the flip down and reserves its partitions, unless one of them is reserved for another. */
  async start(
    head: FlipHead,
    partitions: readonly string[],
    progress: FlipProgress,
    leaseMs: number,
  ): Promise<FlipStarted> {
    const [answer, detail, holder] = await this.#run<[string, string | number, string]>((pipeline) =>
      pipeline.onewriterFlipStart(
        ...[keys.heads, keys.partitions, keys.progress, keys.reserved, keys.terms, keys.active],
        `${ofFlip(head.id)}:lease`,
        ...[head.id, JSON.stringify(head), JSON.stringify(partitions), JSON.stringify(progress), leaseMs],
      ),
    );
    if (answer === 'started') return { started: true, term: Number(detail) };
    return { started: false, partition: String(detail), holder };
  }

  /** The term under which the caller may run the flip; undefined while another coordinator does, or it has ended. */
  async take(id: string, leaseMs: number): Promise<number | undefined> {
    const term = await this.#lead(id, 'take', '', leaseMs);
    return term === 0 ? undefined : term;
  }

  /** False when another coordinator has taken the flip over. */
  async renew(id: string, term: number, leaseMs: number): Promise<boolean> {
    return (await this.#lead(id, 'renew', term, leaseMs)) === term;
  }

  /** Lets another coordinator take the flip at once. */
  async leave(id: string, term: number): Promise<void> {
    await this.#lead(id, 'leave', term, 0);
  }

  /** False when the term is over: nothing was saved. */
  async save(id: string, term: number, { progress, reports, free }: FlipChanges): Promise<boolean> {
    const lines = reports.map(([partition, report]) => [
      partition,
      JSON.stringify(report),
      report.outcome === 'stayed' ? JSON.stringify(report.lastFailure) : '',
    ]);
    const saved = await this.#run<number>((pipeline) =>
      pipeline.onewriterFlipSave(
        ...[keys.terms, keys.progress, keys.reserved, `${ofFlip(id)}:reports`, `${ofFlip(id)}:failed`],
        ...[keys.active, keys.ended, keys.heads, keys.partitions, keys.orders, `${ofFlip(id)}:lease`],
        ...[id, term, JSON.stringify(progress), JSON.stringify(lines), JSON.stringify(free)],
        ...[progress.endedAtMs ?? '', endedKept, ofFlip('')],
      ),
    );
    return saved === 1;
  }

  /** Flips that have not ended, whoever runs them. */
  active(): Promise<string[]> {
    return this.#redis.smembers(keys.active);
  }

  async toRun(id: string): Promise<FlipToRun | undefined> {
    const flip = await this.flip(id);
    if (flip === undefined) return undefined;
    const [partitions, reports] = await Promise.all([
      this.partitions(id),
      this.#redis.hgetall(`${ofFlip(id)}:reports`),
    ]);
    const parsed = Object.entries(reports).map(([name, text]) => [name, parse(reportSchema, text)] as const);
    return { ...flip, partitions, reports: new Map(parsed) };
  }

  // --- erasures --------------------------------------------------------------------------------------

  /** In how many flips it stands why the partition could not move: such a sentence can hold a store's own words. */
  async explaining(partition: string): Promise<number> {
    let flips = 0;
    for (const id of await this.#redis.hkeys(keys.heads)) {
      const [report, why] = await this.#wordsOn(id, partition);
      if (report?.lastFailure !== undefined || why !== undefined) flips += 1;
    }
    return flips;
  }

  async forgetWords(partition: string): Promise<void> {
    for (const id of await this.#redis.hkeys(keys.heads)) {
      const [report, why] = await this.#wordsOn(id, partition);
      if (report?.lastFailure !== undefined) {
        const { lastFailure: _, ...rest } = report;
        await this.#redis.hset(`${ofFlip(id)}:reports`, partition, JSON.stringify(rest));
      }
      if (why !== undefined) {
        const text = JSON.stringify({ code: why.code, detail: 'erased' });
        await this.#redis.hset(`${ofFlip(id)}:failed`, partition, text);
      }
    }
  }

  async #wordsOn(id: string, partition: string) {
    const report = await this.#redis.hget(`${ofFlip(id)}:reports`, partition);
    const failed = await this.#redis.hget(`${ofFlip(id)}:failed`, partition);
    const why = failed === null ? undefined : parse(failureSchema, failed);
    return [
      report === null ? undefined : parse(reportSchema, report),
      why?.detail === 'erased' ? undefined : why,
    ] as const;
  }

  // --- everybody -------------------------------------------------------------------------------------

  /** Tells the coordinator that runs the flip, wherever it is. */
  async order(id: string, kind: FlipOrderKind, by: string, reason: string): Promise<FlipOrdered> {
    const [answer, number] = await this.#run<[string, number]>((pipeline) =>
      pipeline.onewriterFlipOrder(keys.active, keys.heads, keys.orders, id, kind, by, reason),
    );
    if (answer === 'no-such-flip' || answer === 'ended') return { ordered: answer };
    return { ordered: answer === 'aborting' ? 'aborting' : 'yes', number };
  }

  async orders(ids: readonly string[]): Promise<(FlipOrder | undefined)[]> {
    if (ids.length === 0) return [];
    const texts = await this.#redis.hmget(keys.orders, ...ids);
    return texts.map((text) => (text === null ? undefined : parse(orderSchema, text)));
  }

  async flip(id: string): Promise<KeptFlip | undefined> {
    return (await this.#read([id]))[0];
  }

  async all(): Promise<KeptFlip[]> {
    return this.#read(await this.#redis.hkeys(keys.heads));
  }

  /** In the order in which they move. */
  async partitions(id: string): Promise<string[]> {
    const text = await this.#redis.hget(keys.partitions, id);
    return text === null ? [] : parse(z.array(z.string()), text);
  }

  async reports(id: string, partitions: readonly string[]): Promise<(PartitionReport | undefined)[]> {
    if (partitions.length === 0) return [];
    const texts = await this.#redis.hmget(`${ofFlip(id)}:reports`, ...partitions);
    return texts.map((text) => (text === null ? undefined : parse(reportSchema, text)));
  }

  /** Partition → the flip that is about to move it. */
  async reserved(): Promise<ReadonlyMap<string, string>> {
    return new Map(Object.entries(await this.#redis.hgetall(keys.reserved)));
  }

  /** All that is known of each flip at one moment; who is not there any more is left out. */
  async #read(ids: readonly string[]): Promise<KeptFlip[]> {
    if (ids.length === 0) return [];
    const asked = this.#redis
      .multi()
      .hmget(keys.heads, ...ids)
      .hmget(keys.progress, ...ids)
      .hmget(keys.orders, ...ids);
    for (const id of ids) asked.hgetall(`${ofFlip(id)}:failed`);
    const [heads, progress, orders, ...failures] = (await repliesOf(asked)) as AllRead;
    return ids.flatMap((_, at) => {
      const [headText, progressText, orderText] = [heads[at], progress[at], orders[at]];
      if (typeof headText !== 'string' || typeof progressText !== 'string') return [];
      const failed = Object.entries(failures[at] ?? {}).map(
        ([partition, why]) => [partition, parse(failureSchema, why)] as const,
      );
      return {
        head: parse(headSchema, headText),
        progress: parse(progressSchema, progressText),
        order: typeof orderText === 'string' ? parse(orderSchema, orderText) : undefined,
        failed: new Map(failed),
      };
    });
  }

  #lead(id: string, what: 'take' | 'renew' | 'leave', term: number | '', leaseMs: number): Promise<number> {
    return this.#run<number>((pipeline) =>
      pipeline.onewriterFlipLead(keys.terms, keys.active, `${ofFlip(id)}:lease`, id, what, term, leaseMs),
    );
  }

  async #run<Reply>(script: (pipeline: ChainableCommander) => ChainableCommander): Promise<Reply> {
    return (await onlyReplyOf(script(this.#redis.pipeline()))) as Reply;
  }
}

type Texts = readonly (string | null)[];
type AllRead = [heads: Texts, progress: Texts, orders: Texts, ...failures: Record<string, string>[]];

const failureSchema = z.object({ code: z.string(), detail: z.string() });

function parse<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> {
  return schema.parse(JSON.parse(text));
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterFlipStart(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterFlipLead(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterFlipSave(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterFlipOrder(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
