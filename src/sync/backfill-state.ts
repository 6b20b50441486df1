/**
 * How far a first copy is. Kept in Redis, so that another process goes on from there; losing it costs another full
 * pass. Only the run that took it last can move it on.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { backfillKey, backfillProgressKey, knownKey } from './keys.ts';

const count = z.int().min(0);

const progressSchema = z.object({
  /** `looking`: which ids the target holds already. `given-up`: full passes must do the rest. */
  phase: z.enum(['looking', 'copying', 'done', 'given-up']),
  /** Where the list of that phase goes on; absent at its beginning. */
  after: z.string().optional(),
  /** Records of the owner seen so far; what became of each is settled, or marked for a later look. */
  records: count,
  /** Of these, written by this first copy. */
  written: count,
  /** Records in the owner's list, where anybody knows. */
  total: count.optional(),
  startedMs: z.number(),
  endedMs: z.number().optional(),
  /** How often the list had to begin anew. */
  restarts: count,
  /** Records for each second, over the last while. */
  rate: z.number().optional(),
  rateFrom: z.object({ ms: z.number(), records: count }),
});
export type BackfillState = z.output<typeof progressSchema>;

// KEYS: 1 under way, 2 progress, 3 known ids. ARGV: 1 name, 2 state. Returns 1, or 0 when it is under way already.
const beginScript = `
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('HSET', KEYS[1], ARGV[1], '')`;

// KEYS: as above. ARGV: 1 name, 2 run. Returns the state, or nothing when it is not under way.
const takeScript = `
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local state = redis.call('HGET', KEYS[2], ARGV[1])
if not state then redis.call('HDEL', KEYS[1], ARGV[1]) return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return state`;

// KEYS: as above. ARGV: 1 name, 2 run, 3 state, 4 'end' or ''. Returns 1, or 0 when another run has it.
const saveScript = `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
if ARGV[4] == 'end' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
end
return 1`;

/** The rate is taken over at least so long, ms. */
const rateOverMs = 5_000;

export class BackfillStates {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** False when it is under way already. */
  async begin(name: string, total: number | undefined, nowMs: number): Promise<boolean> {
    const state: BackfillState = {
      ...{ phase: 'looking', records: 0, written: 0, startedMs: nowMs, restarts: 0 },
      rateFrom: { ms: nowMs, records: 0 },
      ...(total === undefined ? {} : { total }),
    };
    return (await this.#eval(beginScript, name, JSON.stringify(state))) === 1;
  }

  async isUnderWay(name: string): Promise<boolean> {
    return (await this.#redis.hexists(backfillKey, name)) === 1;
  }

  underWay(): Promise<string[]> {
    return this.#redis.hkeys(backfillKey);
  }

  /** Takes it over from whoever had it. Undefined when it is not under way. */
  async take(name: string): Promise<{ readonly run: string; readonly state: BackfillState } | undefined> {
    const run = randomUUID();
    const text = await this.#eval(takeScript, name, run);
    return typeof text === 'string' ? { run, state: progressSchema.parse(JSON.parse(text)) } : undefined;
  }

  /** False when another run has taken it over: nothing was saved. */
  async save(name: string, run: string, state: BackfillState): Promise<boolean> {
    const ends = state.endedMs === undefined ? '' : 'end';
    return (await this.#eval(saveScript, name, run, JSON.stringify(state), ends)) === 1;
  }

  /** Also of those that have ended. */
  async all(): Promise<ReadonlyMap<string, BackfillState>> {
    const found = await this.#redis.hgetall(backfillProgressKey);
    const states = Object.entries(found).map(
      ([name, text]) => [name, progressSchema.parse(JSON.parse(text))] as const,
    );
    return new Map(states);
  }

  async of(name: string): Promise<BackfillState | undefined> {
    const text = await this.#redis.hget(backfillProgressKey, name);
    return text === null ? undefined : progressSchema.parse(JSON.parse(text));
  }

  #eval(script: string, name: string, ...values: string[]): Promise<unknown> {
    const keys = [backfillKey, backfillProgressKey, knownKey(name)];
    return this.#redis.eval(script, keys.length, ...keys, name, ...values);
  }
}

/** The state with its rate, as of now. */
export function withRate(state: BackfillState, nowMs: number): BackfillState {
  const { rateFrom, records } = state;
  const tookMs = nowMs - rateFrom.ms;
  if (tookMs < rateOverMs) return state;
  const measured = (1_000 * Math.max(0, records - rateFrom.records)) / tookMs;
  // Half of what was known before: a rate that jumps about makes an estimate nobody believes.
  const rate = state.rate === undefined ? measured : (state.rate + measured) / 2;
  return { ...state, rate, rateFrom: { ms: nowMs, records } };
}

/** When it ended, or is expected to, Redis's clock; undefined where nobody can tell. */
export function endOf({ endedMs, rate, rateFrom, records, total, phase }: BackfillState): number | undefined {
  if (endedMs !== undefined) return endedMs;
  if (phase !== 'copying' || total === undefined || rate === undefined || rate <= 0) return undefined;
  const left = Math.max(0, total - Math.max(records, rateFrom.records));
  return Math.round(rateFrom.ms + (1_000 * left) / rate);
}
