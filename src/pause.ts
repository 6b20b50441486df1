/** Waiting, in one place: with a signal that ends it early, or for something else, with a bound. */
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

/** Undefined where the promise takes longer. */
export async function within<Value>(promise: Promise<Value>, waitMs: number): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), waitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Rejects with `tooLate` where the promise takes longer. */
export async function inTime<Value>(
  promise: Promise<Value>,
  waitMs: number,
  tooLate: string,
): Promise<Value> {
  const settled = await within(
    promise.then((value) => ({ value })),
    waitMs,
  );
  if (settled === undefined) throw new Error(tooLate);
  return settled.value;
}
