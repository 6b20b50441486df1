/**
 * Records named by webhooks that have not been rung for yet. A delivery is answered 2xx only when its records are
 * here; whoever runs workers takes them out again. Entries are removed after the ring, so a process that dies rings
 * twice, never not at all.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { type StoreName, storeNames } from '../../core/ownership.ts';
import { repliesOf } from '../../ledger/connection.ts';
import { syncKeys } from '../keys.ts';
import type { NamedRecord } from './events.ts';

export interface InboxEntry extends NamedRecord {
  /** Of the Redis stream; begins with the time in ms. */
  readonly entry: string;
  readonly store: StoreName;
}

export interface Arrival {
  readonly store: StoreName;
  /** Under which a double is known. */
  readonly delivery: string | undefined;
  readonly records: readonly NamedRecord[];
}

export type Stored = 'stored' | 'double' | 'full';

export interface InboxLimits {
  /** Entries at most; beyond them the sender is asked to come again. */
  readonly entries: number;
  /** Records whose partition must be looked up; beyond them the oldest are left to the polls. */
  readonly unplaced: number;
  /** Deliveries that are remembered, and for how long, ms. */
  readonly seen: number;
  readonly seenMs: number;
}

export const inboxLimits: InboxLimits = {
  ...{ entries: 100_000, unplaced: 10_000 },
  ...{ seen: 50_000, seenMs: 3_600_000 },
};

// KEYS: 1 inbox, 2 deliveries seen, 3 counts. ARGV: 1 delivery or '', 2 ms for which it is remembered, 3 most of them,
// 4 most entries, 5 store, then entries. All of a delivery is stored, or nothing.
const storeScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  local at = redis.call('ZSCORE', KEYS[2], ARGV[1])
  if at and now - tonumber(at) < tonumber(ARGV[2]) then
    redis.call('HINCRBY', KEYS[3], ARGV[5] .. ' double', 1)
    return 'double'
  end
end
if redis.call('XLEN', KEYS[1]) + #ARGV - 5 > tonumber(ARGV[4]) then
  redis.call('HINCRBY', KEYS[3], ARGV[5] .. ' full', 1)
  return 'full'
end
for at = 6, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[at]) end
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[2]))
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - tonumber(ARGV[3]))
end
redis.call('HINCRBY', KEYS[3], ARGV[5] .. (#ARGV > 5 and ' stored' or ' ignored'), 1)
return 'stored'`;

const scanCount = 1_000;
const entrySchema = z.tuple([z.enum(storeNames), z.string(), z.string(), z.string()]);

export class Inbox {
  readonly #redis: Redis;
  readonly #limits: InboxLimits;

  constructor(redis: Redis, limits: InboxLimits = inboxLimits) {
    this.#redis = redis;
    this.#limits = limits;
  }

  async store({ store, delivery, records }: Arrival): Promise<Stored> {
    const keys = [syncKeys.inbox, syncKeys.deliveries, syncKeys.deliveryCounts];
    const { seenMs, seen, entries } = this.#limits;
    const id = delivery === undefined ? '' : `${store} ${delivery}`;
    const texts = records.map((record) => textOf(store, record));
    const answer = await this.#redis.eval(
      storeScript,
      3,
      ...keys,
      id,
      seenMs,
      seen,
      entries,
      store,
      ...texts,
    );
    return z.enum(['stored', 'double', 'full']).parse(answer);
  }

  /** The oldest entries; they stay until they are settled. */
  take(count: number): Promise<InboxEntry[]> {
    return this.#read(syncKeys.inbox, count);
  }

  takeUnplaced(count: number): Promise<InboxEntry[]> {
    return this.#read(syncKeys.unplaced, count);
  }

  /** Those of `rung` are done with; those of `unplaced` wait until somebody has found their partitions. */
  async settle(rung: readonly InboxEntry[], unplaced: readonly InboxEntry[]): Promise<void> {
    const all = [...rung, ...unplaced].map(({ entry }) => entry);
    if (all.length === 0) return;
    const transaction = this.#redis.multi();
    for (const one of unplaced) {
      const text = textOf(one.store, one);
      transaction.xadd(syncKeys.unplaced, 'MAXLEN', '~', this.#limits.unplaced, '*', 'e', text);
    }
    transaction.xdel(syncKeys.inbox, ...all);
    await repliesOf(transaction);
  }

  /** Entries that `concerns` picks; with `remove` they are gone afterwards. */
  async entriesOf(concerns: (entry: Omit<InboxEntry, 'entry'>) => boolean, remove: boolean): Promise<number> {
    let found = 0;
    for (const key of [syncKeys.inbox, syncKeys.unplaced]) {
      for (let from = '-'; ;) {
        const batch = await this.#read(key, scanCount, from);
        const ours = batch.filter(concerns).map(({ entry }) => entry);
        if (remove && ours.length > 0) await this.#redis.xdel(key, ...ours);
        found += ours.length;
        const last = batch.at(-1);
        if (last === undefined || batch.length < scanCount) break;
        from = `(${last.entry}`;
      }
    }
    return found;
  }

  async settleUnplaced(entries: readonly InboxEntry[]): Promise<void> {
    if (entries.length > 0) await this.#redis.xdel(syncKeys.unplaced, ...entries.map(({ entry }) => entry));
  }

  /** Counts deliveries that were refused, or records that could not be placed. */
  async count(store: StoreName, outcome: string, by: number): Promise<void> {
    await this.#redis.hincrby(syncKeys.deliveryCounts, `${store} ${outcome}`, by);
  }

  /** Deliveries by store and outcome, since Redis has counted. */
  async counts(): Promise<readonly { store: string; outcome: string; deliveries: number }[]> {
    const all = await this.#redis.hgetall(syncKeys.deliveryCounts);
    return Object.entries(all).map(([name, text]) => {
      const [store = '', outcome = ''] = name.split(' ');
      return { store, outcome, deliveries: Number(text) };
    });
  }

  async waiting(): Promise<number> {
    const [inbox, unplaced] = await Promise.all([
      this.#redis.xlen(syncKeys.inbox),
      this.#redis.xlen(syncKeys.unplaced),
    ]);
    return inbox + unplaced;
  }

  /** When the oldest entry arrived, Redis's clock; undefined where nothing waits. */
  async oldestMs(): Promise<number | undefined> {
    const [[first], [unplaced]] = await Promise.all([
      this.#redis.xrange(syncKeys.inbox, '-', '+', 'COUNT', 1),
      this.#redis.xrange(syncKeys.unplaced, '-', '+', 'COUNT', 1),
    ]);
    const times = [first, unplaced].flatMap((entry) =>
      entry === undefined ? [] : [Number.parseInt(entry[0])],
    );
    return times.length === 0 ? undefined : Math.min(...times);
  }

  async #read(key: string, count: number, from = '-'): Promise<InboxEntry[]> {
    const found = await this.#redis.xrange(key, from, '+', 'COUNT', count);
    return found.map(([entry, [, text = '']]) => {
      const [store, kind, id, partition] = entrySchema.parse(JSON.parse(text));
      return { entry, store, kind, id, ...(partition === '' ? {} : { partition }) };
    });
  }
}

function textOf(store: StoreName, { kind, id, partition = '' }: NamedRecord): string {
  return JSON.stringify([store, kind, id, partition]);
}
