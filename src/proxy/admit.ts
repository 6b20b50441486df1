/**
 * Step 3: may the request go on, and to which store? Reads follow the owner in every phase, also without a
 * lease. Writes are admitted and counted by the member in one step, held at a fence, or refused.
 *
 * A request that had to wait is planned anew, its partition included: nothing that was found out before counts.
 */
import type { Failure } from '../core/failure.ts';
import type { ReadRule } from '../core/copy-reads.ts';
import type { Directory, Homes } from '../core/homes.ts';
import type { LinkNotes } from '../core/links.ts';
import type { StoreName } from '../core/ownership.ts';
import type { WriteGate } from '../core/ports.ts';
import type { Access } from '../core/route.ts';
import type { HoldReason, PartitionEpoch, WriteTicket } from '../core/ticket.ts';
import {
  directoryUnavailable,
  heldFailure,
  holdFull,
  leaseFailure,
  linkFailure,
  linkUnavailable,
  shuttingDown,
  splitFailure,
} from './admit-trouble.ts';
import { awaitEpoch, planRead, planReadOfNone } from './admit-read.ts';
import type { Classifier } from './classify.ts';
import type { Holds, Waiting } from './hold.ts';
import type { Place } from './place.ts';
import type { Reads } from './reads.ts';
import { settleHomes } from './settle-homes.ts';
import { waitForRules } from './wait-for-rules.ts';

/** Where an admitted request goes. Partition and epoch are absent for pinned and anonymous requests. */
export interface Passage {
  readonly store: StoreName;
  readonly partition?: string;
  readonly epoch?: number;
  /** The other partitions that the request touches; absent where there are none. */
  readonly also?: readonly PartitionEpoch[];
  /** Of a read that a copy answers: how old what it shows can be, ms. */
  readonly lagMs?: number;
  /** Of a write in a partition; whoever holds it must end it exactly once. */
  readonly ticket?: WriteTicket;
}

export type Decision =
  | { readonly decision: 'forward'; readonly passage: Passage }
  | { readonly decision: 'refuse'; readonly failure: Failure }
  /** Other rules apply by now: whatever was found out about the request must be found out anew. */
  | { readonly decision: 'again'; readonly heldSinceMs: number | undefined };

/** Whether requests may go on under these rules; `paused` and `replaced` hold for whoever asks from then on. */
export interface RulesState {
  /** Paused: writes wait. Replaced: everything is judged by the rules that follow. */
  now: 'open' | 'paused' | 'replaced';
  /** While paused: by what the rules that follow will match requests. */
  next?: Pick<Classifier, 'match'> | undefined;
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
  /** Partitions that have been written together. */
  readonly links: LinkNotes;
  readonly holds: Holds;
  readonly counters: AdmissionCounters;
  readonly service: RulesState;
  /** Absent where no route lets a copy answer. */
  readonly reads?: Reads | undefined;
}

export interface AdmissionRequest {
  /** Looks again, in memory, where the request belongs. */
  readonly place: () => Place;
  /** While the rules change: it goes to this store by those that follow, too, and belongs to no partition. */
  readonly staysPinned: (store: StoreName) => boolean;
  readonly access: Access;
  /** Path of its route, for the note that it joins partitions; '' where none matched. */
  readonly route: string;
  /** It says who it acts for: then what it names may be taken for real. */
  readonly identified: boolean;
  /** Who that is. */
  readonly user?: string | undefined;
  readonly client: Client;
  /** For what goes wrong after the call has returned. */
  readonly bug: (error: unknown) => void;
  /** When it began to wait, under whatever rules; monotonic ms. */
  readonly heldSinceMs?: number | undefined;
  /** What its route says of reads; absent: the owner answers. */
  readonly readRule?: ReadRule | undefined;
  /** The newest epoch of the partition that the client has seen, as it says. */
  readonly seenEpoch?: number | undefined;
}

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
  const { gate, homes, directory, links, holds, counters, service, reads } = parts;
  const { place, staysPinned, access, route, identified, user, client, bug } = request;
  const { heldSinceMs, readRule, seenEpoch } = request;
  // Every request comes by here: spreading would make it slower.
  plan({
    gate,
    homes,
    directory,
    links,
    holds,
    counters,
    service,
    reads,
    place,
    staysPinned,
    access,
    route,
    identified,
    user,
    client,
    bug,
    heldSinceMs,
    readRule,
    seenEpoch,
    decided,
    looks: 0,
    found: noneFound,
    waited: false,
  });
}

const noneFound: ReadonlyMap<string, StoreName> = new Map();

interface Admission extends AdmissionParts, Omit<AdmissionRequest, 'heldSinceMs'> {
  readonly decided: (decision: Decision) => void;
  looks: number;
  /** Where a read's partitions were found that nobody knew, when it last asked. */
  found: ReadonlyMap<string, StoreName>;
  heldSinceMs: number | undefined;
  /** A read waits for this member's view only once. */
  waited: boolean;
}

function plan(admission: Admission): void {
  const { decided, service } = admission;
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
      if (admission.access === 'read') {
        decided(planReadOfNone(admission, place.store));
        return;
      }
      if (service.now === 'paused' && !admission.staysPinned(place.store)) {
        const sinceMs = (admission.heldSinceMs ??= performance.now());
        const then = { go: () => plan(admission), refuse: (failure: Failure) => decided(refuse(failure)) };
        waitForRules({ ...admission, sinceMs, ...then });
        return;
      }
      decided({ decision: 'forward', passage: { store: place.store } });
      return;
    case 'look-up':
      lookUp(admission, place.user);
      return;
    case 'partition':
      if (admission.access === 'write') planWrite(admission, partitionsOf(place));
      else admitRead(admission, partitionsOf(place));
  }
}

type Partitions = readonly [string, ...string[]];

function partitionsOf({ partition, also = [] }: Extract<Place, { place: 'partition' }>): Partitions {
  return [partition, ...also];
}

function admitRead(admission: Admission, names: Partitions): void {
  const { gate, client, decided, seenEpoch } = admission;
  const isLater =
    !admission.waited && awaitEpoch({ gate }, names[0], seenEpoch, client, () => plan(admission));
  admission.waited = true;
  if (isLater) return;
  const planned = planRead(admission, names);
  if (planned.decision === 'find') findHomes(admission, planned.names);
  else decided(planned);
}

/** What is found may come late: the rules, and where the request belongs, are looked at again with it. */
function findHomes(admission: Admission, partitions: readonly string[]): void {
  const { client, homes } = admission;
  if (!mayLookAgain(admission, directoryUnavailable)) return;
  Promise.all(partitions.map(async (name) => [name, (await homes.find(name)).store] as const))
    .then((found) => {
      if (client.gone()) return;
      admission.found = new Map(found);
      plan(admission);
    })
    .catch(admission.bug);
}

/** The directory answers in its own time; what it said is then read from memory, like everything else. */
function lookUp(admission: Admission, user: string): void {
  if (!mayLookAgain(admission, directoryUnavailable)) return;
  planAfter(admission, admission.directory.look(user), () => directoryUnavailable);
}

/** Nothing is admitted meanwhile; afterwards the request is planned anew, or refused where `asked` failed. */
function planAfter(admission: Admission, asked: Promise<unknown>, failed: (why: unknown) => Failure): void {
  const { client, decided, service, bug } = admission;
  asked
    .then(() => undefined, failed)
    .then((failure) => {
      if (client.gone()) return;
      if (failure === undefined || service.now === 'replaced') plan(admission);
      else decided(refuse(failure));
    })
    .catch(bug);
}

/** False where the request was refused instead. */
function mayLookAgain(admission: Admission, failure: Failure): boolean {
  admission.looks += 1;
  if (admission.looks <= looksMax) return true;
  admission.decided(refuse(failure));
  return false;
}

function planWrite(admission: Admission, names: Partitions): void {
  const { holds, counters, client, decided } = admission;
  const first = tryAdmission(admission, names);
  if (first === 'note-link') {
    noteLink(admission, names);
    return;
  }
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
    const moved = place.place !== 'partition' || !sameNames(partitionsOf(place), names);
    const next = moved ? 'elsewhere' : tryAdmission(admission, names);
    if (typeof next !== 'string' && !('hold' in next)) leave(next);
    else if (last) leave(refuseHeld(admission, names, typeof next === 'string' ? because : next.hold));
    else if (typeof next === 'string') {
      stopWatching();
      plan(admission);
    } else {
      because = next.hold;
      findHomesFor(because);
      return false;
    }
    return true;
  };
  admission.heldSinceMs ??= performance.now();
  const waiting: Waiting = {
    partitions: names,
    sinceMs: admission.heldSinceMs,
    look: () => decideNow(false),
    expire: () => {
      decideNow(true);
    },
  };
  if (!holds.hold(waiting)) {
    decided(holds.closed ? refuseHeld(admission, names, because) : refuseWrite(admission, names, holdFull));
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
  function findHomesFor(reason: HoldReason): void {
    if (reason !== 'unclaimed') return;
    const giveUp = (): void => leaveEarly(refuseHeld(admission, names, reason));
    settleHomes({ ...admission, giveUp, refuse: (failure) => leaveEarly(refuse(failure)) }, names);
  }
  findHomesFor(because);
}

function sameNames(one: Partitions, other: Partitions): boolean {
  return one.length === other.length && one.every((name, at) => name === other[at]);
}

function noteLink(admission: Admission, names: Partitions): void {
  if (!mayLookAgain(admission, linkUnavailable)) return;
  const { links, route, user } = admission;
  planAfter(admission, links.note(names, route, user), linkFailure);
}

type Tried = Decision | { readonly hold: HoldReason } | 'note-link';

function tryAdmission(admission: Admission, names: Partitions): Tried {
  const { gate, service, links } = admission;
  if (service.now !== 'open') return { hold: 'rules-not-active' };
  const [partition, ...also] = names;
  // Before it is admitted: whoever fences one of them afterwards, and waits until it has ended, finds the link.
  if (also.length > 0 && !links.known(names) && agree(admission, names)) return 'note-link';
  const said = gate.admit(partition, also);
  switch (said.verdict) {
    case 'admit': {
      const { ticket } = said;
      const { owner: store, epoch, also: others } = ticket;
      const touched = others === undefined ? { partition, epoch } : { partition, epoch, also: others };
      return { decision: 'forward', passage: { store, ...touched, ticket } };
    }
    case 'hold':
      return { hold: said.because };
    case 'split':
      return refuse(splitFailure('write', said.owners));
    case 'refuse':
      return refuseWrite(admission, names, leaseFailure(gate.trouble()));
  }
}

/** Could a write to these be admitted as things stand? Only what is let through joins anybody. */
function agree({ gate, homes }: Admission, names: Partitions): boolean {
  const { owner } = gate.ownershipOf(names[0]);
  return names.every((name) => {
    const ownership = gate.ownershipOf(name);
    return homes.known(name) && ownership.phase === 'open' && ownership.owner === owner;
  });
}

/** A held write that may not go on waiting. */
function refuseHeld(admission: Admission, names: Partitions, because: HoldReason): Decision {
  return refuseWrite(admission, names, admission.holds.closed ? shuttingDown : heldFailure(because));
}

/** A write that was not admitted: `store` is its owner as far as this proxy knows. */
function refuseWrite({ gate }: Admission, [partition]: Partitions, failure: Failure): Decision {
  const at = { store: gate.ownershipOf(partition).owner, stage: 'admission' };
  return refuse({ ...failure, members: { ...failure.members, ...at } });
}

function refuse(failure: Failure): Decision {
  return { decision: 'refuse', failure };
}
