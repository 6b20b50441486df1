/**
 * Step 3: may the request go on, and to which store? Reads follow the owner in every phase, also without a
 * lease. Writes are admitted and counted by the member in one step, held at a fence, or refused.
 *
 * A request that had to wait is planned anew, its partition included: nothing that was found out before counts.
 */
import type { Failure } from '../core/failure.ts';
import type { Directory, Homes } from '../core/homes.ts';
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
  | { readonly decision: 'refuse'; readonly failure: Failure }
  /** Other rules apply by now: whatever was found out about the request must be found out anew. */
  | { readonly decision: 'again'; readonly heldSinceMs: number | undefined };

/** Whether requests may go on under these rules; `paused` and `replaced` hold for whoever asks from then on. */
export interface Service {
  /** Paused: writes wait. Replaced: everything is judged by the rules that follow. */
  now: 'open' | 'paused' | 'replaced';
}

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

export interface AdmissionParts {
  readonly gate: WriteGate;
  readonly homes: Homes;
  readonly directory: Pick<Directory, 'look'>;
  readonly holds: Holds;
  readonly counters: AdmissionCounters;
  readonly service: Service;
}

export interface AdmissionRequest {
  /** Looks again, in memory, where the request belongs. */
  readonly place: () => Place;
  readonly access: Access;
  /** It says who it acts for: then what it names may be taken for real. */
  readonly identified: boolean;
  readonly client: Client;
  /** For what goes wrong after the call has returned. */
  readonly bug: (error: unknown) => void;
  /** When it began to wait, under whatever rules; monotonic ms. */
  readonly heldSinceMs?: number | undefined;
}

const retryAfterSeconds = 1;
/** A user whose entry changes more often than this while one request waits for it is told to come again. */
const looksMax = 5;

/**
 * Calls `decided` exactly once, in the same step as the decision (so that nothing changes in between), or
 * never where the client goes away while it waits.
 */
export function admit(
  parts: AdmissionParts,
  request: AdmissionRequest,
  decided: (decision: Decision) => void,
): void {
  const { gate, homes, directory, holds, counters, service } = parts;
  const { place, access, identified, client, bug, heldSinceMs } = request;
  plan({
    gate,
    homes,
    directory,
    holds,
    counters,
    service,
    place,
    access,
    identified,
    client,
    bug,
    heldSinceMs,
    decided,
    looks: 0,
  });
}

interface Admission extends AdmissionParts, Omit<AdmissionRequest, 'heldSinceMs'> {
  readonly decided: (decision: Decision) => void;
  looks: number;
  /** Where a read's partition was found that nobody knew; counts for that partition alone. */
  found?: { readonly partition: string; readonly store: StoreName };
  heldSinceMs: number | undefined;
}

function plan(admission: Admission): void {
  const { gate, homes, decided, service, found } = admission;
  if (service.now === 'replaced') {
    decided({ decision: 'again', heldSinceMs: admission.heldSinceMs });
    return;
  }
  const place = admission.place();
  switch (place.place) {
    case 'refused':
      decided(refuse(place.failure));
      return;
    case 'store':
      decided({ decision: 'forward', passage: { store: place.store } });
      return;
    case 'look-up':
      lookUp(admission, place.user);
      return;
    case 'partition':
      break;
  }
  const { partition } = place;
  if (admission.access === 'write') {
    planWrite(admission, partition);
    return;
  }
  if (homes.known(partition)) {
    if (admission.identified) gate.notice(partition);
    const { owner, epoch } = gate.ownershipOf(partition);
    decided({ decision: 'forward', passage: { store: owner, partition, epoch } });
    return;
  }
  if (found?.partition === partition) {
    const { epoch } = gate.ownershipOf(partition);
    decided({ decision: 'forward', passage: { store: found.store, partition, epoch } });
    return;
  }
  findHome(admission, partition);
}

/** What is found may come late: the rules, and where the request belongs, are looked at again with it. */
function findHome(admission: Admission, partition: string): void {
  const { client, homes } = admission;
  if (!mayLookAgain(admission)) return;
  homes
    .find(partition)
    .then(({ store }) => {
      if (client.gone()) return;
      admission.found = { partition, store };
      plan(admission);
    })
    .catch(admission.bug);
}

/** The directory answers in its own time; what it said is then read from memory, like everything else. */
function lookUp(admission: Admission, user: string): void {
  const { client, decided, directory, service } = admission;
  if (!mayLookAgain(admission)) return;
  directory
    .look(user)
    .then(
      () => true,
      () => false,
    )
    .then((found) => {
      if (client.gone()) return;
      if (found || service.now === 'replaced') plan(admission);
      else decided(refuseUnknownPartition());
    })
    .catch(admission.bug);
}

/** False where the request was refused instead. */
function mayLookAgain(admission: Admission): boolean {
  admission.looks += 1;
  if (admission.looks <= looksMax) return true;
  admission.decided(refuseUnknownPartition());
  return false;
}

function planWrite(admission: Admission, partition: string): void {
  const { holds, counters, client, decided } = admission;
  const first = tryAdmission(admission, partition);
  if (!('hold' in first)) {
    decided(first);
    return;
  }
  let because = first.hold;
  /** True: decided, or planned anew elsewhere. False, only while `last` is not said: it must go on waiting. */
  const decideNow = (last: boolean): boolean => {
    if (client.gone()) return true;
    if (admission.service.now === 'replaced' && !last) {
      leave({ decision: 'again', heldSinceMs: admission.heldSinceMs });
      return true;
    }
    const place = admission.place();
    const moved = place.place !== 'partition' || place.partition !== partition;
    const next = moved ? { hold: because } : tryAdmission(admission, partition);
    if (!('hold' in next)) leave(next);
    else if (last) leave(refuseHeld(next.hold));
    else if (moved) {
      stopWatching();
      plan(admission);
    } else {
      because = next.hold;
      settleHome(admission, partition, because, leaveEarly);
      return false;
    }
    return true;
  };
  admission.heldSinceMs ??= performance.now();
  const waiting: Waiting = {
    partition,
    sinceMs: admission.heldSinceMs,
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
  function leaveEarly(decision: Decision): void {
    if (holds.release(waiting)) leave(decision);
  }
  settleHome(admission, partition, because, leaveEarly);
}

/** A write whose partition's home nobody knows sets about finding it; what comes of it wakes the write. */
function settleHome(
  { homes, identified, bug }: Admission,
  partition: string,
  because: HoldReason,
  leaveEarly: (decision: Decision) => void,
): void {
  if (because !== 'unclaimed') return;
  if (identified) {
    homes.settle(partition);
    return;
  }
  // Who does not say who they are begins no partition, in either store: anybody could claim or register names.
  homes
    .find(partition)
    .then(({ home }) => {
      switch (home) {
        case 'known':
          // Nothing begins with it: it ends what somebody else began, and the gate wakes the write.
          homes.settle(partition);
          return;
        case 'new':
        case 'taken-for-old':
          leaveEarly(refuse({ code: 'no-partition', detail: nobodyKnowsIt, sent: 'no' }));
          return;
        case 'no-answer':
          leaveEarly(refuseHeld(because));
      }
    })
    .catch(bug);
}

const nobodyKnowsIt =
  'Nobody knows the partition that the request names, and a request without an identity begins none. Nothing was forwarded and nothing was changed.';

function tryAdmission(
  { gate, identified, service }: Admission,
  partition: string,
): Decision | { readonly hold: HoldReason } {
  if (service.now !== 'open') return { hold: 'rules-not-active' };
  const admission = gate.admit(partition);
  switch (admission.verdict) {
    case 'admit': {
      const { ticket } = admission;
      // Whoever has written must be in the registry; see noticeAnonymousWrite for the others.
      if (identified) gate.notice(partition);
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

const heldTooLong: Readonly<Record<HoldReason, Failure>> = {
  fenced: {
    code: 'fenced',
    detail:
      'The account is being moved and the move took longer than a write may wait. Nothing was sent; try again shortly.',
  },
  committed: notDurable(),
  'not-yet-durable': notDurable(),
  'rules-not-active': {
    code: 'rules-not-active',
    detail:
      'This proxy runs newer or older rules than the others and waits until all run the same. Nothing was sent; try again shortly.',
  },
  unclaimed: {
    code: 'unclaimed',
    detail:
      'Where the new account is kept could not be settled in time. Nothing was sent; try again shortly.',
  },
};

function notDurable(): Failure {
  return {
    code: 'commit-not-durable',
    detail:
      'The record of who owns the account is not confirmed everywhere yet. Nothing was sent; try again shortly.',
  };
}

function refuseHeld(because: HoldReason): Decision {
  return refuse({ ...heldTooLong[because], sent: 'no', retryAfterSeconds });
}

function refuseUnknownPartition(): Decision {
  return refuse({
    code: 'directory-unavailable',
    detail:
      'The directory that says which partition the user belongs to could not be asked. Nothing was forwarded; try again shortly.',
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
