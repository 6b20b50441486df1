/**
 * A store's rate limit, shared by all processes: one cell in Redis, by the generic cell rate algorithm
 * (GCRA, ITU-T I.371), on Redis's clock.
 */
import type { Redis } from 'ioredis';
import type { StoreName } from '../core/ownership.ts';
import { StoreFailure } from '../core/ports.ts';
import type { CallBudget } from '../stores/budget.ts';
import { budgetKey } from './keys.ts';
import { pause } from '../pause.ts';

export interface RateLimit {
  readonly requests: number;
  readonly perMs: number;
  /** Share that users' own requests keep, 0 to below 1. */
  readonly reserveForUsers: number;
}

export interface GcraRate {
  /** Distance of calls at the full rate, ms. */
  readonly intervalMs: number;
  /** Calls that may come at once after a rest. */
  readonly burst: number;
}

/** A rate at which no window of `perMs` sees more than the sync's share, bursts included. */
export function syncRate(limit: RateLimit): GcraRate {
  const share = limit.requests * (1 - limit.reserveForUsers);
  if (share < 1) return { intervalMs: limit.perMs / share, burst: 1 };
  const burst = Math.max(1, Math.floor(share / 5));
  return { intervalMs: limit.perMs / Math.max(1, Math.floor(share) - burst + 1), burst };
}

// KEYS: 1 the cell. ARGV: 1 interval in ms, 2 burst.
// Returns {0, 0}: go; {1, ms}: wait for the rate; {2, ms}: the platform asked everybody to wait.
const takeScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local cell = redis.call('HMGET', KEYS[1], 'next', 'paused')
local paused = tonumber(cell[2] or '0')
if paused > now then return {2, math.ceil(paused - now)} end
local interval = tonumber(ARGV[1])
local next = math.max(tonumber(cell[1] or '0'), now)
local early = next - interval * (tonumber(ARGV[2]) - 1)
if early > now then return {1, math.ceil(early - now)} end
redis.call('HSET', KEYS[1], 'next', string.format('%.3f', next + interval))
redis.call('PEXPIRE', KEYS[1], 86400000)
return {0, 0}`;

// KEYS: 1 the cell. ARGV: 1 how long to wait, ms. Keeps the longer wait.
const pauseScript = `
local time = redis.call('TIME')
local til = time[1] * 1000 + time[2] / 1000 + tonumber(ARGV[1])
if til > tonumber(redis.call('HGET', KEYS[1], 'paused') or '0') then
  redis.call('HSET', KEYS[1], 'paused', string.format('%.0f', til))
  redis.call('PEXPIRE', KEYS[1], 86400000)
end
return 0`;

export class RedisBudget implements CallBudget {
  readonly #redis: Redis;
  readonly #store: StoreName;
  readonly #rate: GcraRate;

  constructor(redis: Redis, store: StoreName, limit: RateLimit) {
    this.#redis = redis;
    this.#store = store;
    this.#rate = syncRate(limit);
  }

  async take(signal: AbortSignal): Promise<void> {
    const { intervalMs, burst } = this.#rate;
    for (;;) {
      signal.throwIfAborted();
      const [verdict = 0, waitMs = 0] = await this.#eval(takeScript, intervalMs, burst);
      if (verdict === 0) return;
      if (verdict === 2) {
        throw new StoreFailure('rate-limited', `${this.#store} asked everybody to wait ${waitMs} ms`, {
          retryAfterMs: Math.ceil(waitMs),
        });
      }
      // Not reserved but asked again, so that a long queue of background calls cannot form before a fence.
      await pause(waitMs, signal);
    }
  }

  async prepay(calls: number, signal: AbortSignal): Promise<void> {
    for (let paid = 0; paid < calls; paid += 1) await this.take(signal);
  }

  async pause(retryAfterMs: number): Promise<void> {
    await this.#eval(pauseScript, retryAfterMs, 0);
  }

  async #eval(script: string, first: number, second: number): Promise<number[]> {
    try {
      return (await this.#redis.eval(script, 1, budgetKey(this.#store), first, second)) as number[];
    } catch (error) {
      throw new StoreFailure('unavailable', `the rate budget of ${this.#store} cannot be read from Redis`, {
        cause: error,
      });
    }
  }
}
