/**
 * Records that a list of their owner shows, and of which `get` says that they are gone: an id that a server in between
 * does not let through, say. One such answer means nothing, because a list can be older. So it is noted, and counts when
 * a full pass that began afterwards lists the record nevertheless.
 */
import type { Redis } from 'ioredis';
import type { RecordKey } from '../core/ports.ts';
import { keyPrefix } from '../ledger/connection.ts';
import { letterOf } from './dead-letters.ts';

/** How long a first denial waits for a full pass, and how long it is known that one has listed the record, ms. */
const deniedMs = 60 * 60_000;
const listedMs = 6 * 60 * 60_000;

// A note is "first listed": when `get` first denied the record, and when the last full pass began that has listed it
// since, 0 for none; by Redis's clock, ms.

// KEYS: notes. ARGV: 1 when the pass began, 2 how late lists are, ms, 3 ms to keep.
const listedScript = `
for _, key in ipairs(KEYS) do
  local first = string.match(redis.call('GET', key) or '', '^%d+')
  if first and tonumber(first) + tonumber(ARGV[2]) <= tonumber(ARGV[1]) then
    redis.call('SET', key, first .. ' ' .. ARGV[1], 'PX', ARGV[3])
  end
end
return 0`;

// KEYS: 1 note. ARGV: 1 ms to keep, 2 whether to make a note. Returns when the last pass began that has listed it.
const deniedScript = `
local note = redis.call('GET', KEYS[1])
if note then return tonumber(string.match(note, '%d+$')) end
if ARGV[2] == '1' then
  local time = redis.call('TIME')
  redis.call('SET', KEYS[1], string.format('%.0f 0', time[1] * 1000 + math.floor(time[2] / 1000)), 'PX', ARGV[1])
end
return 0`;

export class HiddenRecords {
  readonly #redis: Redis;

  constructor(redis: Redis) {
    this.#redis = redis;
  }

  /** A full pass that began then lists these records of an owner, whose lists are so late, and their copies differ. */
  async listed(records: readonly RecordKey[], beganMs: number, feedDelayMs: number): Promise<void> {
    if (records.length === 0) return;
    await this.#redis.eval(
      ...([listedScript, records.length, ...records.map(keyOf)] as const),
      ...[beganMs, feedDelayMs, listedMs],
    );
  }

  /**
   * `get` says that the record is gone; `note` it where there is nothing to remove. True where a full pass lists it all
   * the same that began after the first such answer, and no later one has ended: `lastPassMs` is when that one began.
   */
  async denied(record: RecordKey, lastPassMs: number, note: boolean): Promise<boolean> {
    const said = await this.#redis.eval(deniedScript, 1, keyOf(record), deniedMs, note ? '1' : '0');
    const passMs = Number(said);
    return passMs > 0 && passMs >= lastPassMs;
  }
}

function keyOf(record: RecordKey): string {
  return `${keyPrefix}:sync:denied:${letterOf(record)}`;
}
