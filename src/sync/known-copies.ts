/**
 * Which records of a kind the target of a first copy may hold already, or somebody has copied or removed since it
 * began: those it must not touch, because what it has read of them may be old, or another partition's.
 *
 * They are bits of one Redis string (a Bloom filter: Bloom, CACM 13(7), 1970), so ten million of them take no more
 * room than one, and they stand there only while a first copy is under way. Who is in it by mistake is looked at later,
 * by the next full pass.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import { backfillKey, knownKey } from './keys.ts';

/** 16 MiB at most; at ten million records one in 200 is taken for known by mistake. */
const bits = 2 ** 27;
const bitsPerId = 4;

/** What a write leaves behind: for which first copy, and which bits. */
export interface Trace {
  readonly backfill: string;
  readonly offsets: readonly number[];
}

export function traceOf(backfill: string, id: string): Trace {
  const hash = createHash('sha256').update(id).digest();
  return {
    backfill,
    offsets: Array.from({ length: bitsPerId }, (_, at) => hash.readUInt32LE(4 * at) % bits),
  };
}

/**
 * Lua, for the script that covers a write: KEYS[first] the first copies under way, [first+1] known ids; ARGV from
 * `from` on: the first copy's name, then offsets.
 */
export const leaveTraces = `
local function leaveTraces(first, from)
  if not ARGV[from] or redis.call('HEXISTS', KEYS[first], ARGV[from]) == 0 then return end
  for at = from + 1, #ARGV do redis.call('SETBIT', KEYS[first + 1], ARGV[at], 1) end
end
`;

/** Keys and arguments of `leaveTraces`; all traces are of one first copy. */
export function traceArguments(traces: readonly Trace[]): {
  readonly keys: readonly string[];
  readonly values: readonly (string | number)[];
} {
  const [first] = traces;
  const keys = [backfillKey, knownKey(first?.backfill ?? '')];
  if (first === undefined) return { keys, values: [] };
  return { keys, values: [first.backfill, ...traces.flatMap(({ offsets }) => offsets)] };
}

export class KnownCopies {
  readonly #redis: Redis;
  readonly #backfill: string;

  constructor(redis: Redis, backfill: string) {
    this.#redis = redis;
    this.#backfill = backfill;
  }

  trace(id: string): Trace {
    return traceOf(this.#backfill, id);
  }

  /** For each trace: may the record be known? Never false where it was added. */
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
}
