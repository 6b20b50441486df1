/**
 * Why copies are not made now: an operator has paused them. It stands in Redis, so it outlives every process of ours,
 * and is lost only with everything else there. A handoff inside its fence never asks.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { Blocker } from '../core/flip.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import { haltsKey } from './keys.ts';

const pauseSchema = z.object({
  /** Copies to which store; null: to any. */
  to: z.enum(['legacy', 'app']).nullable(),
  by: z.string(),
  reason: z.string(),
  /** Redis's clock. */
  sinceMs: z.number(),
});
export type CopyPause = z.output<typeof pauseSchema>;

/** Everything that keeps copies from being made, as it was at one moment. */
export class Halts {
  readonly pauses: readonly CopyPause[];

  constructor(pauses: readonly CopyPause[]) {
    this.pauses = pauses;
  }

  /** Why nothing is copied to this store; all of it. */
  to(store: StoreName): readonly Blocker[] {
    return this.pauses.filter(({ to }) => to === null || to === store).map(blockerOf);
  }
}

export class HaltBook {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async read(): Promise<Halts> {
    const all = await this.#redis.hvals(haltsKey);
    return new Halts(all.map((text) => pauseSchema.parse(JSON.parse(text))));
  }

  /** Another pause of the same copies is replaced. */
  async pause(to: StoreName | null, by: string, reason: string): Promise<void> {
    const [seconds, micros] = await this.#redis.time();
    const sinceMs = Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
    await this.#redis.hset(haltsKey, fieldOf(to), JSON.stringify({ to, by, reason, sinceMs }));
  }

  /** Lifts the pause of copies to that store, or every pause. False: there was none. */
  async resume(to: StoreName | null): Promise<boolean> {
    const fields = to === null ? [fieldOf(null), ...storeNames.map(fieldOf)] : [fieldOf(to)];
    return (await this.#redis.hdel(haltsKey, ...fields)) > 0;
  }
}

function fieldOf(to: StoreName | null): string {
  return `pause ${to ?? 'all'}`;
}

function blockerOf({ to, by, reason, sinceMs }: CopyPause): Blocker {
  const since = new Date(sinceMs).toISOString();
  const what = to === null ? 'all copies' : `copies to ${to}`;
  return {
    code: 'sync-paused',
    detail: `${by} paused ${what} at ${since} (${reason}); go on with "onewriter sync resume"`,
  };
}
