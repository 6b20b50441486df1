/** Waiting, in one place: with a signal that ends it early. */
import { setTimeout as delay } from 'node:timers/promises';

/** Waits `waitMs`; throws the signal's reason as soon as that ends. */
export async function pause(waitMs: number, signal?: AbortSignal): Promise<void> {
  try {
    await delay(waitMs, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}
