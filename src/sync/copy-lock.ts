/**
 * At most one hand copies for a partition at a time. The lock alone fences nothing: it outlives every call
 * made under it, and whoever holds it proves that it still does before each write.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { copyLockKey } from './keys.ts';
import { pause } from '../pause.ts';

// KEYS: 1 lock. ARGV: 1 token, 2 ms. Returns 1 when the lock is still ours and lives so much longer, else 0.
const extendScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`;

// KEYS: 1 lock. ARGV: 1 token. Returns 1 when the lock was ours and is gone now, else 0.
const releaseScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])`;

export interface HeldLock {
  /** Prolongs the lock by its full length; false when it was lost: write nothing more. */
  stillHeld(): Promise<boolean>;
  /** The outcome of a write is unknown: the release must leave the lock standing for this long, ms. */
  keepAfterRelease(settleMs: number): void;
  release(): Promise<void>;
}

export class CopyLock {
  readonly #redis: Redis;
  readonly #lockMs: number;

  /** `lockMs` must be longer than any single call made under the lock can take. */
  constructor(redis: Redis, lockMs: number) {
    this.#redis = redis;
    this.#lockMs = lockMs;
  }

  /** Waits for the lock; undefined after `waitMs`, and throws the signal's reason when that ends first. */
  async acquire(partition: string, signal: AbortSignal, waitMs: number): Promise<HeldLock | undefined> {
    const untilMs = performance.now() + waitMs;
    const key = copyLockKey(partition);
    const token = randomUUID();
    for (let tries = 1; ; tries += 1) {
      signal.throwIfAborted();
      if ((await this.#redis.set(key, token, 'PX', this.#lockMs, 'NX')) === 'OK') break;
      if (performance.now() >= untilMs) return undefined;
      await pause(Math.min(50, 5 * tries), signal);
    }
    let keepMs = 0;
    return {
      stillHeld: async () => (await this.#redis.eval(extendScript, 1, key, token, this.#lockMs)) === 1,
      keepAfterRelease: (settleMs) => {
        keepMs = Math.max(keepMs, settleMs);
      },
      release: async () => {
        const released =
          keepMs > 0
            ? this.#redis.eval(extendScript, 1, key, token, keepMs)
            : this.#redis.eval(releaseScript, 1, key, token);
        // Without Redis the lock ends by itself; what the session had to say must not be lost over that.
        await released.catch(() => undefined);
      },
    };
  }
}
