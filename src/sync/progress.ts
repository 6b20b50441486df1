/** Where the polls are. Kept in Redis so that another worker goes on from there; losing it costs a full pass. */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { StoreName } from '../core/ownership.ts';
import { syncKeys } from './keys.ts';

const feedSchema = z.object({
  /** Every change up to this version has been rung. */
  proven: z.string().optional(),
  /** Newest version seen so far; proven once one more poll has begun after it was seen. */
  seen: z.string().optional(),
  fullPassAtMs: z.number().default(0),
  /** The last full pass met records without a version: the feed does not show all changes. */
  partial: z.boolean().default(false),
});
export type FeedProgress = z.output<typeof feedSchema>;

const sweepSchema = z.object({
  /** Partitions in order of their names; the sweep goes on behind this one. */
  after: z.string().default(''),
  /** Absent for a round that began without knowing of every partition. */
  startedMs: z.number().optional(),
  /** When the last sweep that reached the end had begun. */
  reachedMs: z.number().optional(),
});
export type SweepProgress = z.output<typeof sweepSchema>;

/** What readers of copies go by: see Proof. */
export const proofField = 'proof';
export interface Proof {
  /** Every change up to then was seen, deletes among them, and rung for. */
  readonly seenMs: number;
  /** When the last comparison of everything had begun. */
  readonly wholeMs: number;
}

const failureField = 'failure';
const failureSchema = z.object({ sinceMs: z.number(), atMs: z.number(), detail: z.string() });
/** Of the polls: since when none reached its end, by Redis's clock, and why the last did not. */
export type PollFailure = z.output<typeof failureSchema>;

export class Progress {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async feed(store: StoreName, kind: string): Promise<FeedProgress> {
    return feedSchema.parse(await this.#read(`feed ${store} ${kind}`));
  }

  saveFeed(store: StoreName, kind: string, feed: FeedProgress): Promise<void> {
    return this.#write(`feed ${store} ${kind}`, feed);
  }

  async sweep(store: StoreName): Promise<SweepProgress> {
    return sweepSchema.parse(await this.#read(`sweep ${store}`));
  }

  saveSweep(store: StoreName, sweep: SweepProgress): Promise<void> {
    return this.#write(`sweep ${store}`, sweep);
  }

  /** Begin of the last poll that reached the end of everything there is to poll, Redis's clock. */
  async reachedMs(): Promise<number | undefined> {
    return z
      .number()
      .optional()
      .parse((await this.#read('reached')) ?? undefined);
  }

  async saveReached(ms: number, proof: Proof): Promise<void> {
    await Promise.all([this.#write('reached', ms), this.#write(proofField, proof)]);
  }

  async pollFailure(): Promise<PollFailure | undefined> {
    const text = await this.#redis.hget(syncKeys.progress, failureField);
    return text === null ? undefined : failureSchema.parse(JSON.parse(text));
  }

  async pollFailed(atMs: number, detail: string): Promise<void> {
    const before = await this.pollFailure();
    await this.#write(failureField, { sinceMs: before?.sinceMs ?? atMs, atMs, detail });
  }

  async pollSucceeded(): Promise<void> {
    await this.#redis.hdel(syncKeys.progress, failureField);
  }

  async #read(field: string): Promise<unknown> {
    const text = await this.#redis.hget(syncKeys.progress, field);
    return text === null ? (field === 'reached' ? undefined : {}) : JSON.parse(text);
  }

  async #write(field: string, value: unknown): Promise<void> {
    await this.#redis.hset(syncKeys.progress, field, JSON.stringify(value));
  }
}
