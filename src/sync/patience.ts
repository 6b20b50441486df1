/** How long a read of a store is tried again. Writes are never: what became of them is found by reading. */
import { type ListScope, type Page, StoreFailure, type StoreReader } from '../core/ports.ts';
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

/** In the middle of a list a rate limit is waited out as often as the store asks for it, but not for ever. */
const refusalsInARow = 30;
const longestRefusalMs = 120_000;
const leastRefusalMs = 50;

/**
 * The pages of a list, which goes on where it stood when the store asks to wait, or is away for a moment: a pass over a
 * large store meets a 429 sooner or later, and would else never come to its end. Throws as the reader does where waiting
 * does not help, or takes too long.
 */
export async function* patientPages(
  reader: StoreReader,
  kind: string,
  scope: ListScope,
  signal: AbortSignal,
): AsyncGenerator<Page> {
  let place = scope;
  for (let tries = 1; ; tries += 1) {
    try {
      for await (const page of reader.pages(kind, place, signal)) {
        tries = 1;
        if (page.next !== undefined) place = { ...scope, after: page.next };
        yield page;
      }
      return;
    } catch (error) {
      const waitMs = error instanceof StoreFailure ? waitInListMs(error, tries) : undefined;
      if (waitMs === undefined) throw error;
      await pause(waitMs, signal);
    }
  }
}

function waitInListMs(failure: StoreFailure, tries: number): number | undefined {
  if (failure.kind !== 'rate-limited') return waitBeforeRetryMs(failure, 'background', tries);
  const waitMs = Math.max(leastRefusalMs, failure.retryAfterMs ?? 1_000);
  return tries > refusalsInARow || waitMs > longestRefusalMs ? undefined : waitMs;
}
