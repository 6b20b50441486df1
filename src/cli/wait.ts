/** Waiting for something that the admin API reports, with a deadline and a way out. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Context } from './command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from './exit.ts';

/** Deadline of the whole command: --timeout counts from here. */
export function deadlineOf(context: Context): number {
  return context.timeoutMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + context.timeoutMs;
}

/**
 * Asks until `ended` says so, at most every `everyMs`. Time up, an interrupt and a reader that went away are
 * refusals; each says that what was ordered goes on, as `goesOn` puts it.
 */
export async function poll<Value>(
  context: Context,
  settings: {
    readonly ask: () => Promise<Attempt<Value>>;
    readonly ended: (value: Value) => boolean;
    readonly seen: (value: Value) => void;
    readonly untilMs: number;
    readonly goesOn: string;
    readonly everyMs?: number;
  },
): Promise<Attempt<Value>> {
  const everyMs = settings.everyMs ?? 250;
  const stop = AbortSignal.any([context.interrupted, context.output.broken]);
  for (;;) {
    const asked = await settings.ask();
    if (stop.aborted) return failedAttempt(refusal('interrupted', `Interrupted. ${settings.goesOn}`));
    if (!asked.ok) return asked;
    settings.seen(asked.value);
    if (settings.ended(asked.value)) return asked;
    const leftMs = settings.untilMs - performance.now();
    if (leftMs <= 0) {
      const detail = `The time given by --timeout is over. ${settings.goesOn}`;
      return failedAttempt(refusal('timeout', detail, exitCodes.timeout));
    }
    await delay(Math.min(everyMs, leftMs), undefined, { signal: stop }).catch(() => undefined);
  }
}
