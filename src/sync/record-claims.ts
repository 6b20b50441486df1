/**
 * Who may write the copy of a record. Copy locks are one for each partition, but a record can change partitions at its
 * owner while a copy of it is on its way under the old one. That copy carries an epoch that is still valid, so no guard
 * refuses it, and the lock of the new partition does not wait for it. So each write claims its records, too.
 *
 * A claim stands while its write is under way, and as long as one whose outcome is unknown may still take effect. Who
 * wants to write the record for another partition waits, and a handoff of that partition cannot be proven meanwhile.
 * Afterwards a trace of it stays for a while: who has read before it ended, reads again. Of a copy that was read longer
 * ago than a trace stays, nobody can tell, so it is read again as well.
 */
import { createHash } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { StoreName } from '../core/ownership.ts';
import type { RecordKey } from '../core/ports.ts';
import { keyPrefix } from '../ledger/connection.ts';
import { pause } from '../pause.ts';

/** How long a trace stays, ms. It takes about 180 bytes of Redis. */
const traceMs = 30_000;
const askEveryMs = 25;

// A claim is "hand until unsettled": who holds it, until when its write may be under way, and until when an earlier one
// of the same hand whose outcome is unknown may take effect; both by Redis's clock, ms.
const shared = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function read(key)
  local hand, under, unsettled = string.match(redis.call('GET', key) or '', '^(%S+) (%d+) (%d+)$')
  return hand, tonumber(under or 0), tonumber(unsettled or 0)
end
local function write(key, hand, under, unsettled)
  local text = string.format('%s %.0f %.0f', hand, under, unsettled)
  redis.call('SET', key, text, 'PX', string.format('%.0f', math.max(under, now) - now + tonumber(ARGV[2])))
end
`;

// KEYS: claims. ARGV: 1 ms that a write can take, 2 ms that a trace stays, then the hand for each claim. Returns for each:
// 0 it is ours, 1 it is ours and was another hand's, 2 another hand may be writing.
const takeScript = `${shared}
local said = {}
for at, key in ipairs(KEYS) do
  local hand, under, unsettled = read(key)
  said[at] = 0
  if hand and hand ~= ARGV[2 + at] then
    said[at] = under > now and 2 or 1
    unsettled = 0
  end
  if said[at] ~= 2 then write(key, ARGV[2 + at], math.max(now + tonumber(ARGV[1]), unsettled), unsettled) end
end
return said`;

// KEYS: claims. ARGV: 1 ms for which the write may still take effect, 0 for none, 2 and more: as above.
const endScript = `${shared}
for at, key in ipairs(KEYS) do
  local hand, _, unsettled = read(key)
  if hand == ARGV[2 + at] then
    if tonumber(ARGV[1]) > 0 then unsettled = math.max(unsettled, now + tonumber(ARGV[1])) end
    write(key, hand, unsettled, unsettled)
  end
end
return 0`;

export interface Claimed<K extends RecordKey> {
  /** May be written. */
  readonly ours: readonly K[];
  /** Ours, too, but somebody else has written the record: what was read of it may be older. */
  readonly changedHands: readonly K[];
}

/** Was the copy read so lately that a trace of every write since then still stands? Ask when the claim was taken. */
export function isFresh(readMs: number): boolean {
  return performance.now() - readMs < traceMs;
}

export class RecordClaims {
  readonly #redis: Redis;
  readonly #writeMs: number;

  /** `writeMs` must be longer than any single write can take. */
  constructor(redis: Redis, writeMs: number) {
    this.#redis = redis;
    this.#writeMs = writeMs;
  }

  /**
   * Claims what can be had for one write to the store, each record for its partition; waits up to `waitMs` while nothing
   * can. Whoever claims must say `ended`.
   */
  async take<K extends RecordKey>(
    store: StoreName,
    records: readonly K[],
    waitMs: number,
    signal: AbortSignal,
  ): Promise<Claimed<K>> {
    const endMs = performance.now() + waitMs;
    for (;;) {
      const said = (await this.#run(takeScript, store, records, this.#writeMs)) as number[];
      const ours = records.filter((_, at) => said[at] === 0);
      const changedHands = records.filter((_, at) => said[at] === 1);
      const isNothing = ours.length + changedHands.length === 0;
      if (!isNothing || performance.now() >= endMs) return { ours, changedHands };
      await pause(askEveryMs, signal);
    }
  }

  /**
   * Never rejects: a claim that cannot be given back ends by itself. `stillMs`: how long the write may still take effect,
   * 0 where its outcome is known.
   */
  async ended(store: StoreName, { ours, changedHands }: Claimed<RecordKey>, stillMs: number): Promise<void> {
    await this.#run(endScript, store, [...ours, ...changedHands], stillMs).catch(() => undefined);
  }

  async #run(script: string, store: StoreName, records: readonly RecordKey[], ms: number): Promise<unknown> {
    if (records.length === 0) return [];
    const keys = records.map(({ kind, id }) => `${keyPrefix}:claim:${short([store, kind, id])}`);
    const hands = records.map(({ partition }) => short([partition]));
    return this.#redis.eval(script, keys.length, ...keys, ms, traceMs, ...hands);
  }
}

function short(names: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(names)).digest('base64').slice(0, 22);
}
