/**
 * What a first copy must know beside the pages it reads: which ids the target may hold already, and which records
 * somebody else has copied meanwhile. Both are kept in Redis only while a first copy of that kind is under way.
 *
 * The ids are bits of one Redis string (a Bloom filter: Bloom, CACM 13(7), 1970), so a million of them take no
 * more room than one. Who is in it by mistake is only looked at later, by the next full pass.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { backfillKey, knownKey, syncKeys } from './keys.ts';

/** 16 MiB at most; at ten million records one in 200 is taken for known by mistake. */
const bits = 2 ** 27;
const bitsPerId = 4;
/** Longest time between the reading of a page and the writing of its records, ms. */
export const pageGoodForMs = 120_000;

/** What a write leaves behind: where, and for which record. */
export interface Trace {
  readonly backfill: string;
  readonly mark: string;
  readonly offsets: readonly number[];
}

export function traceOf(backfill: string, kind: string, id: string): Trace {
  const hash = createHash('sha256').update(`${kind}\n${id}`).digest();
  const offsets = Array.from({ length: bitsPerId }, (_, at) => hash.readUInt32LE(4 * at) % bits);
  return { backfill, mark: hash.toString('base64', 16, 28), offsets };
}

/**
 * Lua, for the script that covers a write: KEYS[first] the first copies under way, [first+1] trail, [first+2] known
 * ids; ARGV from `from` on: the first copy's name, then for each record its mark and its offsets.
 */
export const leaveTraces = `
local function leaveTraces(first, from)
  if not ARGV[from] or redis.call('HEXISTS', KEYS[first], ARGV[from]) == 0 then return end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for at = from + 1, #ARGV, ${bitsPerId + 1} do
    redis.call('ZADD', KEYS[first + 1], now, ARGV[at])
    for bit = 1, ${bitsPerId} do redis.call('SETBIT', KEYS[first + 2], ARGV[at + bit], 1) end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[first + 1], '-inf', now - ${2 * pageGoodForMs})
end
`;

/** Keys and arguments of `leaveTraces`; all traces are of one first copy. */
export function traceArguments(traces: readonly Trace[]): {
  readonly keys: readonly string[];
  readonly values: readonly (string | number)[];
} {
  const [first] = traces;
  const backfill = first?.backfill ?? '';
  return {
    keys: [backfillKey, syncKeys.trail, knownKey(backfill)],
    values:
      first === undefined ? [] : [backfill, ...traces.flatMap(({ mark, offsets }) => [mark, ...offsets])],
  };
}

export class KnownCopies {
  readonly #redis: Redis;
  readonly #backfill: string;

  constructor(redis: Redis, backfill: string) {
    this.#redis = redis;
    this.#backfill = backfill;
  }

  trace(kind: string, id: string): Trace {
    return traceOf(this.#backfill, kind, id);
  }

  /** For each trace: may the target hold the record? Never false where it was added. */
  async has(traces: readonly Trace[]): Promise<readonly boolean[]> {
    if (traces.length === 0) return [];
    const gets = traces.flatMap(({ offsets }) => offsets.flatMap((at) => ['GET', 'u1', at]));
    const found = (await this.#redis.call('BITFIELD_RO', knownKey(this.#backfill), ...gets)) as number[];
    return traces.map((_, at) => found.slice(at * bitsPerId, (at + 1) * bitsPerId).every((bit) => bit === 1));
  }

  async add(traces: readonly Trace[]): Promise<void> {
    if (traces.length === 0) return;
    const sets = traces.flatMap(({ offsets }) => offsets.flatMap((at) => ['SET', 'u1', at, 1]));
    await this.#redis.call('BITFIELD', knownKey(this.#backfill), ...sets);
  }

  /** For each trace: did somebody begin to write this record's copy at or after `sinceMs`, by Redis's clock? */
  async copiedSince(traces: readonly Trace[], sinceMs: number): Promise<readonly boolean[]> {
    if (traces.length === 0) return [];
    const scores = await this.#redis.zmscore(syncKeys.trail, ...traces.map(({ mark }) => mark));
    return scores.map((score) => score !== null && Number(score) >= sinceMs);
  }

  async forget(): Promise<void> {
    await this.#redis.del(knownKey(this.#backfill));
  }
}
