/** Waits until every member has acknowledged that some partitions are drained under one attempt. */
import type { LedgerFeed, MemberAcknowledgement } from '../core/ports.ts';
import { type MemberWatch, watchAwaited } from './members.ts';

export interface DrainFailure {
  readonly because: 'write-in-doubt' | 'drain-timeout';
  readonly detail: string;
  /** Of a write in doubt: until it can take effect no more, ms. */
  readonly settlesInMs?: number;
}

export interface Drain {
  /**
   * Undefined when all have; `members` are those listed after the fences were in the ledger. One that has left
   * since, or was removed as gone, answers nothing any more, and need not.
   */
  all(
    members: readonly string[],
    partitions: readonly string[],
    withinMs: number,
  ): Promise<DrainFailure | undefined>;
  stop(): void;
}

/** Listens from now on, so that nothing which is said before `all` is called is missed. */
export function awaitDrained(
  feed: LedgerFeed,
  watch: Pick<MemberWatch, 'listedSince'>,
  attempt: string,
): Drain {
  const drained = new Set<string>();
  let doubt: MemberAcknowledgement | undefined;
  let heard = (): void => undefined;
  const stop = feed.onAcknowledgement((acknowledgement) => {
    if (acknowledgement.attempt !== attempt) return;
    if (acknowledgement.answer === 'in-doubt') doubt = acknowledgement;
    else drained.add(keyOf(acknowledgement.member, acknowledgement.partition));
    heard();
  });
  return {
    stop,
    all: (members, partitions, withinMs) =>
      new Promise((resolve) => {
        const awaited = new Set(members);
        const missing = (): string[] =>
          [...awaited].filter((member) => partitions.some((name) => !drained.has(keyOf(member, name))));
        const end = (failure: DrainFailure | undefined): void => {
          clearTimeout(timer);
          unwatch();
          resolve(failure);
        };
        const timer = setTimeout(() => {
          const detail = `no acknowledgement from ${missing().join(', ')} within ${withinMs} ms`;
          end({ because: 'drain-timeout', detail });
        }, withinMs);
        const unwatch = watchAwaited(watch, missing, (member) => {
          awaited.delete(member);
          heard();
        });
        heard = () => {
          if (doubt === undefined && missing().length > 0) return;
          end(
            doubt && {
              because: 'write-in-doubt',
              detail: sayDoubt(doubt),
              settlesInMs: doubt.settlesInMs,
            },
          );
        };
        heard();
      }),
  };
}

function keyOf(member: string, partition: string): string {
  return `${member} ${partition}`;
}

function sayDoubt({ partition, settlesInMs }: MemberAcknowledgement): string {
  return `a write of "${partition}" may still take effect; that settles in ${Math.ceil(settlesInMs)} ms`;
}
