/**
 * Why copies are not made now: an operator has paused them, or a store fails. It stands in Redis, so it outlives every
 * process of ours, and is lost only with everything else there. A handoff inside its fence never asks.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { Blocker } from '../core/flip.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import { failingField, type FailingKind, type FailingStore, parseFailing } from './failing-stores.ts';
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
  /** Also those that have recovered a while ago. */
  readonly failing: readonly FailingStore[];

  constructor(pauses: readonly CopyPause[] = [], failing: readonly FailingStore[] = []) {
    this.pauses = pauses;
    this.failing = failing;
  }

  get failingNow(): readonly FailingStore[] {
    return this.failing.filter(({ phase }) => phase !== 'closed');
  }

  /** Why no handoff that copies to this store should begin; all of it. */
  to(store: StoreName): readonly Blocker[] {
    return [
      ...this.#pausesOf(store).map(pausedBlocker),
      ...this.failingNow.filter((one) => concerns(one, store)).map(failingBlocker),
    ];
  }

  /** Nothing at all is copied to this store. */
  stops(store: StoreName): boolean {
    const open = this.failing.filter(({ phase }) => phase === 'open');
    return this.#pausesOf(store).length > 0 || open.some((one) => concerns(one, store));
  }

  /** It was failing so, and has not shown the contrary since. */
  isSuspect(store: StoreName, kind: FailingKind): boolean {
    return this.failingNow.some((one) => one.store === store && one.kind === kind);
  }

  #pausesOf(store: StoreName): readonly CopyPause[] {
    return this.pauses.filter(({ to }) => to === null || to === store);
  }
}

/** Every copy reads both stores; what a store refuses is written only where copies go to it. */
function concerns({ store, kind }: FailingStore, to: StoreName): boolean {
  return kind !== 'rejected' || store === to;
}

export class HaltBook {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  async read(): Promise<Halts> {
    const all = await this.#redis.hgetall(haltsKey);
    const texts = (fields: readonly string[]): readonly string[] =>
      fields.map((field) => all[field]).filter((text) => text !== undefined);
    return new Halts(
      texts(pauseFields).map((text) => pauseSchema.parse(JSON.parse(text))),
      texts(storeNames.map(failingField)).map(parseFailing),
    );
  }

  /** Another pause of the same copies is replaced. */
  async pause(to: StoreName | null, by: string, reason: string): Promise<void> {
    const [seconds, micros] = await this.#redis.time();
    const sinceMs = Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
    await this.#redis.hset(haltsKey, fieldOf(to), JSON.stringify({ to, by, reason, sinceMs }));
  }

  /** Lifts the pause of copies to that store, or every pause. False: there was none. */
  async resume(to: StoreName | null): Promise<boolean> {
    const fields = to === null ? pauseFields : [fieldOf(to)];
    return (await this.#redis.hdel(haltsKey, ...fields)) > 0;
  }
}

function fieldOf(to: StoreName | null): string {
  return `pause ${to ?? 'all'}`;
}
const pauseFields: readonly string[] = [null, ...storeNames].map(fieldOf);

function pausedBlocker({ to, by, reason, sinceMs }: CopyPause): Blocker {
  const since = new Date(sinceMs).toISOString();
  const what = to === null ? 'all copies' : `copies to ${to}`;
  return {
    code: 'sync-paused',
    detail: `${by} paused ${what} at ${since} (${reason}); go on with "onewriter sync resume${to === null ? '' : ` ${to}`} --reason TEXT"`,
  };
}

function failingBlocker({ store, detail, sinceMs, phase, changedMs }: FailingStore): Blocker {
  const since = new Date(sinceMs).toISOString();
  if (phase === 'trial') {
    const again = new Date(changedMs).toISOString();
    return {
      code: 'store-failing',
      detail: `${store} failed from ${since} on (${detail}); since ${again} it is on trial, until a first copy has succeeded`,
    };
  }
  return {
    code: 'store-failing',
    detail: `nothing is copied since ${since}, because whatever is asked of ${store} fails (${detail}); it is tried again by itself`,
  };
}
