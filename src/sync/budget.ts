/**
 * A store's rate limit, shared by all processes: a cell in Redis, and one for each partition where the platform limits
 * accounts, by the generic cell rate algorithm
 * (GCRA, ITU-T I.371), on Redis's clock. It holds the sync to its share; where users take more than what is reserved
 * for them, the sync gets what they leave of the whole, down to nothing.
 */
import type { Redis } from 'ioredis';
import type { StoreName } from '../core/ownership.ts';
import { StoreFailure } from '../core/ports.ts';
import type { BudgetedCall, CallBudget } from '../stores/budget.ts';
import { budgetKey } from './keys.ts';
import { pause } from '../pause.ts';

export interface RateLimit {
  readonly requests: number;
  readonly perMs: number;
  /** Share that users' own requests keep, 0 to below 1. */
  readonly reserveForUsers: number;
  /** What the platform allows each account besides. */
  readonly perPartition?: { readonly requests: number; readonly perMs: number } | undefined;
}

export interface GcraRate {
  /** Distance of calls at the full rate, ms. */
  readonly intervalMs: number;
  /** Calls that may come at once after a rest. */
  readonly burst: number;
}

/** A rate at which no window of `perMs` sees more than the sync's share, bursts included. */
export function syncRate(limit: RateLimit, burstMin = 1): GcraRate {
  const share = limit.requests * (1 - limit.reserveForUsers);
  if (share < 1) return { intervalMs: limit.perMs / share, burst: 1 };
  const burst = Math.min(Math.floor(share), Math.max(burstMin, Math.floor(share / 5)));
  return { intervalMs: limit.perMs / Math.max(1, Math.floor(share) - burst + 1), burst };
}

/** Calls of everybody are counted in slices of the period, this long at least, ms: users' are reported a little late. */
const sliceMsMin = 100;
const slices = 10;
/** After a 429 the rate is halved, down to this; it rises again by a sixteenth in each period. */
const slowest = 1 / 64;
const recoveryStep = 1 / 16;
const recoveryMsMin = 1_000;
/** What users took at most is forgotten little by little, over ten periods: who pauses for a moment comes back. */
const peakMsMax = 60_000;
const unbounded = 1e12;
/** One record takes so many calls of one store at most: who gets fewer would begin with it again and again. */
const callsOfRecord = 4;
/** Longer than that nobody waits for a partition in the place of others, ms. */
const waitForPartitionMs = 2_000;
const idleMs = 86_400_000;

// Common to all. KEYS: 1 the cell. ARGV: 1 length of a slice, ms, 2 slices in a period, 3 ms in which the
// rate rises a step, 4 ms after which an idle cell is forgotten.
// The cell has two rings of slices, each "number calls": of the sync and of users.
const common = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local sliceMs, slices, recoveryMs, idleMs = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local slice = math.floor(now / sliceMs)
local function slot(who, number) return who .. ' ' .. number % (slices + 1) end
local function count(text, number)
  local at, calls = string.match(text or '', '^(%d+) (%d+)$')
  return at and tonumber(at) == number and tonumber(calls) or 0
end
local function add(who, calls)
  local name = slot(who, slice)
  local before = count(redis.call('HGET', KEYS[1], name), slice)
  redis.call('HSET', KEYS[1], name, string.format('%.0f %.0f', slice, before + calls))
  if redis.call('PTTL', KEYS[1]) < idleMs then redis.call('PEXPIRE', KEYS[1], idleMs) end
end
local function used(who)
  local sum = 0
  for number = slice - slices, slice do sum = sum + count(redis.call('HGET', KEYS[1], slot(who, number)), number) end
  return sum
end
local cell = redis.call('HMGET', KEYS[1], 'next', 'paused', 'factor', 'factorAt', 'slowed', 'peak', 'peakAt')
local function peak()
  local age = (now - tonumber(cell[7] or '0')) / math.min(${peakMsMax}, 10 * recoveryMs)
  return tonumber(cell[6] or '0') * math.max(0, 1 - age)
end
local paused = tonumber(cell[2] or '0')
local risen = math.max(0, math.floor((now - tonumber(cell[4] or '0')) / recoveryMs))
local factor = math.min(1, tonumber(cell[3] or '1') + risen * ${recoveryStep})
`;

// ARGV: 5 interval in ms, 6 burst, 7 calls that the store allows everybody in a period, 8 of these, reserved for users.
// Users who are beyond their reserve are likely to want still more: as much again is left to them. A twentieth of the whole is left to nobody: the platform may count otherwise.
// Returns {0, 0}: go; {1, ms}: wait for the rate; {2, ms}: the platform asked everybody to wait.
const takeScript = `${common}
if paused > now then return {2, math.ceil(paused - now)} end
local interval = tonumber(ARGV[5]) / factor
local burst = math.max(1, math.floor(tonumber(ARGV[6]) * factor))
local next = math.max(tonumber(cell[1] or '0'), now)
local early = next - interval * (burst - 1)
if early > now then return {1, math.ceil(early - now)} end
local users = math.max(used('users'), peak())
users = users + math.max(0, users - tonumber(ARGV[8]))
local limit = tonumber(ARGV[7])
if users + used('sync') + 1 > limit - math.floor(limit / 20) then return {1, math.ceil((slice + 1) * sliceMs - now)} end
redis.call('HSET', KEYS[1], 'next', string.format('%.3f', next + interval))
add('sync', 1)
return {0, 0}`;

// ARGV: 5 calls that users have made.
const usersScript = `${common}
add('users', tonumber(ARGV[5]))
local users = used('users')
if users >= peak() then redis.call('HSET', KEYS[1], 'peak', users, 'peakAt', string.format('%.0f', now)) end
return {0, 0}`;

// ARGV: 5 how long to wait, ms. Keeps the longer wait. Answers to calls that were under way together slow down once.
const pauseScript = `${common}
local til = now + tonumber(ARGV[5])
if til > paused then redis.call('HSET', KEYS[1], 'paused', string.format('%.0f', til)) end
if now - tonumber(cell[5] or '0') >= 1000 then
  redis.call('HSET', KEYS[1], 'factor', math.max(${slowest}, factor / 2), 'slowed', string.format('%.0f', now),
    'factorAt', string.format('%.0f', math.max(til, paused)))
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(idleMs, til - now)))
return {0, 0}`;

/** What one cell says to who asks for a call: go, wait for the rate, or wait because the platform said so. */
type Verdict = { readonly say: 'go' } | { readonly say: 'rate' | 'told'; readonly waitMs: number };

class RateCell {
  /** Distance of the sync's calls at its full rate, ms. */
  readonly intervalMs: number;
  readonly #redis: Redis;
  readonly #store: StoreName;
  readonly #key: string;
  readonly #burst: number;
  readonly #requests: number;
  readonly #reserved: number;
  readonly #window: readonly number[];

  constructor(
    { redis, store, key }: { readonly redis: Redis; readonly store: StoreName; readonly key: string },
    limit: Omit<RateLimit, 'perPartition'>,
    { burstMin, idleMs: forgottenMs }: { readonly burstMin: number; readonly idleMs: number },
  ) {
    this.#redis = redis;
    this.#store = store;
    this.#key = key;
    const { intervalMs, burst } = syncRate(limit, burstMin);
    this.intervalMs = intervalMs;
    this.#burst = burst;
    this.#requests = limit.requests;
    this.#reserved = limit.requests * limit.reserveForUsers;
    const sliceMs = Math.max(sliceMsMin, limit.perMs / slices);
    const recoveryMs = Math.max(recoveryMsMin, limit.perMs);
    this.#window = [sliceMs, Math.ceil(limit.perMs / sliceMs), recoveryMs, forgottenMs];
  }

  async ask(haste?: 'at-once'): Promise<Verdict> {
    const [atOnce, calls] = haste === 'at-once' ? [unbounded, unbounded] : [this.#burst, this.#requests];
    const verdicts = await this.#eval(takeScript, this.intervalMs, atOnce, calls, this.#reserved);
    const [verdict = 0, waitMs = 0] = verdicts;
    return verdict === 0 ? { say: 'go' } : { say: verdict === 1 ? 'rate' : 'told', waitMs };
  }

  async pause(retryAfterMs: number): Promise<void> {
    await this.#eval(pauseScript, retryAfterMs);
  }

  async noteUsers(calls: number): Promise<void> {
    await this.#eval(usersScript, calls);
  }

  async #eval(script: string, ...given: readonly number[]): Promise<number[]> {
    try {
      return (await this.#redis.eval(script, 1, this.#key, ...this.#window, ...given)) as number[];
    } catch (error) {
      throw new StoreFailure('unavailable', `the rate budget of ${this.#store} cannot be read from Redis`, {
        cause: error,
      });
    }
  }
}

export class RedisBudget implements CallBudget {
  readonly #redis: Redis;
  readonly #store: StoreName;
  readonly #limit: RateLimit;
  readonly #all: RateCell;

  constructor(redis: Redis, store: StoreName, limit: RateLimit) {
    this.#redis = redis;
    this.#store = store;
    this.#limit = limit;
    this.#all = new RateCell({ redis, store, key: budgetKey(store) }, limit, { burstMin: 1, idleMs });
  }

  /** Whether the platform counts the calls of each partition by themselves. */
  get isPerPartition(): boolean {
    return this.#limit.perPartition !== undefined;
  }

  async take(signal: AbortSignal, { haste, partition }: BudgetedCall = {}): Promise<void> {
    if (haste === undefined) await this.#takeOwn(partition, signal, waitForPartitionMs);
    await this.#takeShared(signal, haste);
  }

  async prepay(calls: number, signal: AbortSignal, partition: string): Promise<void> {
    for (let paid = 0; paid < calls; paid += 1) {
      await this.#takeOwn(partition, signal, Number.POSITIVE_INFINITY);
      await this.#takeShared(signal);
    }
  }

  async pause(retryAfterMs: number, partition?: string): Promise<void> {
    await (this.#cellOf(partition) ?? this.#all).pause(retryAfterMs);
  }

  /** Users have made so many calls: they are neither delayed nor refused, but leave less to the sync. */
  async noteUsers(calls: number, partition?: string): Promise<void> {
    const cell = partition === undefined ? this.#all : this.#cellOf(partition);
    await cell?.noteUsers(calls);
  }

  async #takeShared(signal: AbortSignal, haste?: 'at-once'): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const verdict = await this.#all.ask(haste);
      if (verdict.say === 'go') return;
      const { waitMs } = verdict;
      if (verdict.say === 'told') {
        throw this.#limited(`${this.#store} asked everybody to wait ${waitMs} ms`, waitMs);
      }
      // Not reserved but asked again, so that a long queue of background calls cannot form before a fence.
      await pause(waitMs, signal);
    }
  }

  /** Does not wait for long: others would wait behind it, whose partitions may call. */
  async #takeOwn(partition: string | undefined, signal: AbortSignal, waitMaxMs: number): Promise<void> {
    const cell = this.#cellOf(partition);
    if (cell === undefined) return;
    for (;;) {
      signal.throwIfAborted();
      const verdict = await cell.ask();
      if (verdict.say === 'go') return;
      const { waitMs } = verdict;
      if (verdict.say === 'told' || waitMs > waitMaxMs) {
        const untilMs = waitMs + (callsOfRecord - 1) * cell.intervalMs;
        throw this.#limited(`${this.#store} limits the calls of this partition: wait ${untilMs} ms`, untilMs);
      }
      await pause(waitMs, signal);
    }
  }

  #limited(message: string, waitMs: number): StoreFailure {
    return new StoreFailure('rate-limited', message, { retryAfterMs: Math.ceil(waitMs) });
  }

  /** Made anew each time: what it counts is in Redis, for as long as it means something. */
  #cellOf(partition: string | undefined): RateCell | undefined {
    const { perPartition, reserveForUsers } = this.#limit;
    if (perPartition === undefined || partition === undefined || partition === '') return undefined;
    const place = { redis: this.#redis, store: this.#store, key: budgetKey(this.#store, partition) };
    const forgottenMs = Math.max(2 * perPartition.perMs, peakMsMax);
    const bounds = { burstMin: callsOfRecord, idleMs: forgottenMs };
    return new RateCell(place, { ...perPartition, reserveForUsers }, bounds);
  }
}
