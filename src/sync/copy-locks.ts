/**
 * The copy locks of many partitions at once, for a first copy. Each is the same lock that single hands take
 * (copy-lock.ts): short while its holder reads, as long as a write can take before one.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { pause } from '../pause.ts';
import { readingMs, renewEveryMs } from './copy-lock.ts';
import { backfillKey, copyLockKey } from './keys.ts';

// KEYS: locks. ARGV: 1 token, 2 ms. Returns the places of those that are ours now.
const takeScript = `
local ours = {}
for at, key in ipairs(KEYS) do
  if redis.call('SET', key, ARGV[1], 'PX', ARGV[2], 'NX') then ours[#ours + 1] = at end
end
return ours`;

// KEYS: 1 first copies under way, then locks. ARGV: 1 token, 2 ms, 3 name of the first copy, 4 its run.
// Returns the places of the locks that are ours and live at least so much longer; nothing when another run took over.
const extendScript = `
if redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[4] then return false end
local ours = {}
for at = 2, #KEYS do
  if redis.call('GET', KEYS[at]) == ARGV[1] then
    if redis.call('PTTL', KEYS[at]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[at], ARGV[2]) end
    ours[#ours + 1] = at - 1
  end
end
return ours`;

// KEYS: locks. ARGV: 1 token, 2 ms that they must stand, 0 for none.
const releaseScript = `
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    if tonumber(ARGV[2]) > 0 then redis.call('PEXPIRE', key, ARGV[2]) else redis.call('DEL', key) end
  end
end
return 0`;

/** A first copy may be taken over by another process; only the run that took it last may write. */
export interface BackfillRun {
  readonly backfill: string;
  readonly run: string;
}

/** Another process goes on with the first copy: whoever hears this writes nothing more. */
export class TakenOver extends Error {}

export interface HeldLocks {
  readonly partitions: ReadonlySet<string>;
  /**
   * Makes the locks last as long as a write can take; those partitions of which it cannot are left out. Throws
   * TakenOver.
   */
  coverWrite(partitions: readonly string[]): Promise<ReadonlySet<string>>;
  /** The outcome of a write is unknown: the release must leave these standing for this long, ms. */
  keepAfterRelease(partitions: readonly string[], settleMs: number): void;
  release(): Promise<void>;
}

export interface LockAsk {
  readonly run: BackfillRun;
  readonly lockWaitMs: number;
  /** Partitions that another hand has had for a while. */
  readonly busy: ReadonlySet<string>;
}

const retryMs = 100;

export class CopyLocks {
  readonly #redis: Redis;
  readonly #writeMs: number;

  /** `writeMs` must be longer than any single write made under the locks can take. */
  constructor(redis: Redis, writeMs: number) {
    this.#redis = redis;
    this.#writeMs = writeMs;
  }

  /**
   * The locks that could be had within `waitMs`; for those that were not to be had before, nobody waits. Throws the
   * signal's reason when that ends first.
   */
  async acquire(
    wanted: readonly string[],
    { run, lockWaitMs, busy }: LockAsk,
    signal: AbortSignal,
  ): Promise<HeldLocks> {
    const token = randomUUID();
    const ours = new Set<string>();
    const extend = (partitions: readonly string[], forMs: number) =>
      this.#places(extendScript, partitions, [backfillKey], [token, forMs, run.backfill, run.run]);
    const renew = (): void => void extend([...ours], readingMs).catch(() => undefined);
    const renewal = setInterval(renew, renewEveryMs);
    const kept = new Map<string, number>();
    const release = async (): Promise<void> => {
      clearInterval(renewal);
      for (const [forMs, partitions] of Map.groupBy(ours, (partition) => kept.get(partition) ?? 0)) {
        // Without Redis they end by themselves.
        await this.#places(releaseScript, partitions, [], [token, forMs]).catch(() => undefined);
      }
    };
    try {
      const untilMs = performance.now() + lockWaitMs;
      for (;;) {
        signal.throwIfAborted();
        const missing = wanted.filter((partition) => !ours.has(partition));
        for (const partition of await this.#places(takeScript, missing, [], [token, readingMs])) {
          ours.add(partition);
        }
        if (missing.every((partition) => ours.has(partition) || busy.has(partition))) break;
        if (performance.now() >= untilMs) break;
        await pause(retryMs, signal);
      }
    } catch (error) {
      await release();
      throw error;
    }
    return {
      partitions: ours,
      coverWrite: (partitions) => extend(partitions, this.#writeMs),
      keepAfterRelease: (partitions, settleMs) => {
        for (const name of partitions) kept.set(name, Math.max(kept.get(name) ?? 0, settleMs));
      },
      release,
    };
  }

  /** Runs a script over the locks of the partitions; the partitions of which it gave the places. */
  async #places(
    script: string,
    partitions: readonly string[],
    keys: readonly string[],
    values: readonly (string | number)[],
  ): Promise<ReadonlySet<string>> {
    if (partitions.length === 0) return new Set();
    const all = [...keys, ...partitions.map(copyLockKey)];
    const places = await this.#redis.eval(script, all.length, ...all, ...values);
    if (places === null) throw new TakenOver();
    if (!Array.isArray(places)) return new Set();
    return new Set((places as number[]).map((at) => partitions[at - 1] ?? ''));
  }
}
