/**
 * Step 3: may the request go on, and to which store? Reads follow the owner in every phase, also without a
 * lease. Writes are admitted and counted by the member in one step, held at a fence, or refused.
 */
import type { Failure } from '../core/failure.ts';
import type { HoldReason, WriteTicket } from '../core/member.ts';
import type { StoreName } from '../core/ownership.ts';
import type { WriteGate } from '../core/ports.ts';
import type { Access } from '../core/route.ts';
import type { Place } from './classify.ts';
import type { Holds, Waiting } from './hold.ts';

/** Where an admitted request goes. Partition and epoch are absent for pinned and anonymous requests. */
export interface Passage {
  readonly store: StoreName;
  readonly partition?: string;
  readonly epoch?: number;
  /** Of a write in a partition; whoever holds it must end it exactly once. */
  readonly ticket?: WriteTicket;
}

export type Decision =
  | { readonly decision: 'forward'; readonly passage: Passage }
  | { readonly decision: 'refuse'; readonly failure: Failure };

/** The client of a request that may have to wait. */
export interface Client {
  gone(): boolean;
  /** Calls back once when the client goes away. Returns the way out. */
  onGone(listener: () => void): () => void;
}

export interface AdmissionCounters {
  held: number;
  abandonedHolds: number;
}

const retryAfterSeconds = 1;

/**
 * Calls `decided` exactly once, in the same step as the decision (so that nothing changes in between), or
 * never where the client goes away while it waits.
 */
export function admit(
  parts: { readonly gate: WriteGate; readonly holds: Holds; readonly counters: AdmissionCounters },
  request: {
    readonly place: Exclude<Place, { place: 'refused' }>;
    readonly access: Access;
    readonly client: Client;
  },
  decided: (decision: Decision) => void,
): void {
  const { gate, holds, counters } = parts;
  const { place, access, client } = request;
  if (place.place === 'store') {
    decided({ decision: 'forward', passage: { store: place.store } });
    return;
  }
  const { partition } = place;
  if (access === 'read') {
    const { owner, epoch } = gate.ownershipOf(partition);
    decided({ decision: 'forward', passage: { store: owner, partition, epoch } });
    return;
  }
  const first = tryAdmission(gate, partition);
  if (!('hold' in first)) {
    decided(first);
    return;
  }
  let because = first.hold;
  /** The last word: false only while the write must wait and `last` is not said. */
  const decideNow = (last: boolean): boolean => {
    if (client.gone()) return true;
    const next = tryAdmission(gate, partition);
    if ('hold' in next) {
      because = next.hold;
      if (last) leave(refuseHeld(because));
      return last;
    }
    leave(next);
    return true;
  };
  const waiting: Waiting = {
    partition,
    look: () => decideNow(false),
    expire: () => {
      decideNow(true);
    },
  };
  if (!holds.hold(waiting)) {
    decided(refuseFull());
    return;
  }
  counters.held += 1;
  const stopWatching = client.onGone(() => {
    if (holds.release(waiting)) counters.abandonedHolds += 1;
  });
  function leave(decision: Decision): void {
    stopWatching();
    decided(decision);
  }
}

function tryAdmission(gate: WriteGate, partition: string): Decision | { readonly hold: HoldReason } {
  const admission = gate.admit(partition);
  switch (admission.verdict) {
    case 'admit': {
      const { ticket } = admission;
      const { owner: store, epoch } = ticket;
      return { decision: 'forward', passage: { store, partition, epoch, ticket } };
    }
    case 'hold':
      return { hold: admission.because };
    case 'refuse':
      return refuse({
        code: 'lease-lapsed',
        detail:
          'This proxy has lost touch with the ledger and cannot know who owns the record. Nothing was sent; try again shortly.',
        sent: 'no',
        retryAfterSeconds,
      });
  }
}

function refuseHeld(because: HoldReason): Decision {
  if (because === 'fenced') {
    return refuse({
      code: 'fenced',
      detail:
        'The account is being moved and the move took longer than a write may wait. Nothing was sent; try again shortly.',
      sent: 'no',
      retryAfterSeconds,
    });
  }
  return refuse({
    code: 'commit-not-durable',
    detail:
      'The record of who owns the account is not confirmed everywhere yet. Nothing was sent; try again shortly.',
    sent: 'no',
    retryAfterSeconds,
  });
}

function refuseFull(): Decision {
  return refuse({
    code: 'hold-full',
    detail:
      'The account is being moved and too many writes wait already. Nothing was sent; try again shortly.',
    sent: 'no',
    retryAfterSeconds,
  });
}

function refuse(failure: Failure): Decision {
  return { decision: 'refuse', failure };
}
