/**
 * Stores that fail whatever is asked of them, as all processes know it: nothing is copied while one of them does. It is
 * tried again after a while, longer each time, and one success lets everything go on.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { StoreName } from '../core/ownership.ts';
import type { StoreFailureKind } from '../core/ports.ts';
import { haltsKey } from './keys.ts';

/** Those that can have one cause for all records; a rate limit has its own, and a guard knows what it refuses. */
const failingKinds = ['denied', 'unavailable', 'bad-answer', 'rejected'] as const;
export type FailingKind = (typeof failingKinds)[number];

export function isFailingKind(kind: StoreFailureKind): kind is FailingKind {
  return (failingKinds as readonly string[]).includes(kind);
}

const failingSchema = z.object({
  store: z.enum(['legacy', 'app']),
  kind: z.enum(failingKinds),
  /** Of the last failure. */
  detail: z.string(),
  /** `open`: nothing is copied; `trial`: a little is, to see; `closed`: it has recovered, and may soon fail again. */
  phase: z.enum(['open', 'trial', 'closed']),
  tries: z.number(),
  /** All by Redis's clock. Of this failure: what it recovered from before is another one. */
  sinceMs: z.number(),
  /** When it came into this phase, or was last tried in vain. */
  changedMs: z.number(),
  /** Of one that is open. */
  nextTryMs: z.number(),
});
export type FailingStore = z.output<typeof failingSchema>;

export function parseFailing(text: string): FailingStore {
  return failingSchema.parse(JSON.parse(text));
}

const firstWaitMs = 1_000;
const longestWaitMs = 60_000;
/** Who tries it may die; two at once do no harm. */
const claimMs = 10_000;
/** Who fails again within this after a recovery is waited for longer than the last time. */
const rememberMs = 60_000;
const detailLengthMax = 500;

// KEYS: 1 halts. ARGV: 1 field, 2 what happened, 3 store, 4 kind, 5 detail, 6 first wait, 7 longest wait, 8 remembered.
// Returns what stands there now, and whether this call changed it; nothing where nothing ever did.
const moveScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local text = redis.call('HGET', KEYS[1], ARGV[1])
local old = text and cjson.decode(text)
local what = ARGV[2]
local new
if what == 'failed' or what == 'still-failing' then
  if old and old.phase == 'open' and what == 'failed' then return {text, 0} end
  local recent = old and (old.phase ~= 'closed' or now - old.changedMs < tonumber(ARGV[8]))
  local tries = recent and old.tries + 1 or 1
  local wait = math.min(tonumber(ARGV[7]), tonumber(ARGV[6]) * 2 ^ math.min(tries - 1, 20))
  new = {store = ARGV[3], kind = ARGV[4], detail = ARGV[5], phase = 'open', tries = tries,
    sinceMs = old and old.phase ~= 'closed' and old.sinceMs or now, changedMs = now, nextTryMs = now + wait}
elseif not old then
  return {}
elseif what == 'claim' and old.phase == 'open' and now >= old.nextTryMs then
  new = old
  new.nextTryMs = now + ${claimMs}
elseif what == 'try' and old.phase == 'open' then
  new = old
  new.phase, new.changedMs = 'trial', now
elseif what == 'recovered' and old.phase == 'trial' then
  new = old
  new.phase, new.changedMs = 'closed', now
else
  return {text, 0}
end
local made = cjson.encode(new)
redis.call('HSET', KEYS[1], ARGV[1], made)
return {made, 1}`;

export interface Moved {
  readonly now: FailingStore;
  readonly changed: boolean;
}

export class FailingStores {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** Opens it. Unchanged where it was open already. */
  failed(store: StoreName, kind: FailingKind, detail: string): Promise<Moved | undefined> {
    return this.#move('failed', store, kind, detail);
  }

  /** The probe of one that is open has failed. */
  stillFailing(store: StoreName, kind: FailingKind, detail: string): Promise<Moved | undefined> {
    return this.#move('still-failing', store, kind, detail);
  }

  /** True for the one process that is to try it now. */
  async claim(store: StoreName): Promise<boolean> {
    return (await this.#move('claim', store))?.changed === true;
  }

  async beginTrial(store: StoreName): Promise<void> {
    await this.#move('try', store);
  }

  /** True where it was on trial. */
  async recovered(store: StoreName): Promise<boolean> {
    return (await this.#move('recovered', store))?.changed === true;
  }

  async #move(what: string, store: StoreName, kind = '', detail = ''): Promise<Moved | undefined> {
    const answer = (await this.#redis.eval(
      ...([moveScript, 1, haltsKey, failingField(store), what, store, kind] as const),
      ...[detail.slice(0, detailLengthMax), firstWaitMs, longestWaitMs, rememberMs],
    )) as [string, number] | [];
    const [text, changed] = answer;
    return text === undefined ? undefined : { now: parseFailing(text), changed: changed === 1 };
  }
}

export function failingField(store: StoreName): string {
  return `store ${store}`;
}
