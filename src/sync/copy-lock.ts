/**
 * At most one hand copies for a partition at a time. The lock alone fences nothing: it outlives every write
 * made under it, and whoever holds it proves that it still does before each write.
 *
 * It is kept short while its holder only reads, so that a holder that dies costs a handoff seconds; before a
 * write it is made to last as long as that write can take, since a dead holder's write may still arrive.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { pause } from '../pause.ts';
import { copyLockKey } from './keys.ts';
import { leaveTraces, type Trace, traceArguments } from './known-copies.ts';

/** How long the lock outlives a holder that dies while it reads, ms. */
export const readingMs = 3_000;
export const renewEveryMs = 750;

// KEYS: 1 lock. ARGV: 1 token, 2 ms. Returns 1 when the lock is ours and lives at least so much longer, else 0.
const extendScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1`;

// KEYS: 1 lock, 2 and 3 see leaveTraces. ARGV: 1 token, 2 ms, from 3 on see leaveTraces. Returns as the one above.
const coverScript = `
${leaveTraces}
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
leaveTraces(2, 3)
return 1`;

// KEYS: 1 lock. ARGV: 1 token, 2 ms that it must stand, 0 for none. Returns 1 when the lock was ours, else 0.
const releaseScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('DEL', KEYS[1])`;

export interface HeldLock {
  /** False when the lock was lost: nothing that was read under it may be used. */
  stillHeld(): Promise<boolean>;
  /**
   * Makes the lock last as long as a write can take; false when it was lost: write nothing more. A first copy that
   * has read one of the records before learns from its trace to leave it alone.
   */
  coverWrite(traces: readonly Trace[]): Promise<boolean>;
  /** The outcome of a write is unknown: the release must leave the lock standing for this long, ms. */
  keepAfterRelease(settleMs: number): void;
  release(): Promise<void>;
}

export class CopyLock {
  readonly #redis: Redis;
  readonly #writeMs: number;

  /** `writeMs` must be longer than any single write made under the lock can take. */
  constructor(redis: Redis, writeMs: number) {
    this.#redis = redis;
    this.#writeMs = writeMs;
  }

  /** Waits for the lock; undefined after `waitMs`, and throws the signal's reason when that ends first. */
  async acquire(partition: string, signal: AbortSignal, waitMs: number): Promise<HeldLock | undefined> {
    const untilMs = performance.now() + waitMs;
    const key = copyLockKey(partition);
    const token = randomUUID();
    for (let tries = 1; ; tries += 1) {
      signal.throwIfAborted();
      if ((await this.#redis.set(key, token, 'PX', readingMs, 'NX')) === 'OK') break;
      if (performance.now() >= untilMs) return undefined;
      await pause(Math.min(50, 5 * tries), signal);
    }
    const extend = async (forMs: number): Promise<boolean> =>
      (await this.#redis.eval(extendScript, 1, key, token, forMs)) === 1;
    // A renewal that fails is not repeated: the holder finds out before it writes.
    const renewal = setInterval(() => void extend(readingMs).catch(() => undefined), renewEveryMs);
    let keepMs = 0;
    return {
      stillHeld: () => extend(readingMs),
      coverWrite: async (traces) => {
        const { keys, values } = traceArguments(traces);
        const all = [key, ...keys, token, this.#writeMs, ...values];
        return (await this.#redis.eval(coverScript, 1 + keys.length, ...all)) === 1;
      },
      keepAfterRelease: (settleMs) => {
        keepMs = Math.max(keepMs, settleMs);
      },
      release: async () => {
        clearInterval(renewal);
        // Without Redis the lock ends by itself; what the session had to say must not be lost over that.
        await this.#redis.eval(releaseScript, 1, key, token, keepMs).catch(() => undefined);
      },
    };
  }
}
