/** How long a read of a store is tried again. Writes are never: what became of them is found by reading. */
import { StoreFailure } from '../core/ports.ts';
import { pause } from '../pause.ts';

/**
 * `background` waits for rate limits and short outages. `fence` holds users up: it tries an unreachable
 * store again until its signal ends, and gives up on a rate limit at once. `none` leaves it to the queue.
 */
export type Patience = 'background' | 'fence' | 'none';

const backgroundTries = 4;
const longestBackgroundWaitMs = 30_000;

/** Throws the last StoreFailure, or the signal's reason when that ended first. */
export async function readPatiently<T>(
  patience: Patience,
  signal: AbortSignal,
  read: () => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    signal.throwIfAborted();
    try {
      return await read();
    } catch (error) {
      const waitMs = error instanceof StoreFailure ? waitBeforeRetryMs(error, patience, tries) : undefined;
      if (waitMs === undefined) throw error;
      await pause(waitMs, signal);
    }
  }
}

/** Undefined: do not try again. */
export function waitBeforeRetryMs(
  failure: StoreFailure,
  patience: Patience,
  tries: number,
): number | undefined {
  if (patience === 'none') return undefined;
  if (patience === 'fence') return failure.kind === 'unavailable' ? Math.min(200, 25 * tries) : undefined;
  if (tries >= backgroundTries) return undefined;
  if (failure.kind !== 'unavailable' && failure.kind !== 'rate-limited') return undefined;
  const waitMs = failure.retryAfterMs ?? 100 * 2 ** tries;
  return waitMs > longestBackgroundWaitMs ? undefined : waitMs;
}
