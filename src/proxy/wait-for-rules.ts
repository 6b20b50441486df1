/** Writes without a ticket that wait while the rules change, because those that follow could send them elsewhere. */
import type { Failure } from '../core/failure.ts';
import type { AdmissionCounters, Client, RulesState } from './admit.ts';
import { heldFailure, holdFull, shuttingDown } from './admit-trouble.ts';
import type { Holds, Waiting } from './hold.ts';

export interface RulesWait {
  readonly service: RulesState;
  readonly holds: Holds;
  readonly counters: AdmissionCounters;
  readonly client: Client;
  /** When it began to wait; monotonic ms. */
  readonly sinceMs: number;
  /** The change is over, one way or the other. */
  readonly go: () => void;
  readonly refuse: (failure: Failure) => void;
}

/** Calls `go` or `refuse` once, or neither where the client goes away. */
export function waitForRules({ service, holds, counters, client, sinceMs, go, refuse }: RulesWait): void {
  const waiting: Waiting = {
    partitions: [],
    sinceMs,
    look: () => {
      if (service.now === 'paused') return false;
      stopWatching();
      if (!client.gone()) go();
      return true;
    },
    expire: () => {
      stopWatching();
      refuse(holds.closed ? shuttingDown : heldFailure('rules-not-active'));
    },
  };
  if (!holds.hold(waiting)) {
    refuse(holds.closed ? shuttingDown : holdFull);
    return;
  }
  counters.held += 1;
  const stopWatching = client.onGone(() => {
    if (holds.release(waiting)) counters.abandonedHolds += 1;
  });
}
