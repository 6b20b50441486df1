/**
 * Where a read goes: to the owner of what it names, in every phase and also without a lease, or to a copy where its route
 * allows it. A client that has seen a newer epoch than this member knows is not shown the store of before.
 */
import type { Homes } from '../core/homes.ts';
import type { ReadRule } from '../core/copy-reads.ts';
import type { StoreName } from '../core/ownership.ts';
import type { WriteGate } from '../core/ports.ts';
import type { Client, Decision, Passage } from './admit.ts';
import { splitFailure } from './admit-trouble.ts';
import type { ReadChoice, Reads } from './reads.ts';

export interface ReadAdmission {
  readonly gate: Pick<WriteGate, 'ownershipOf' | 'onWake'>;
  readonly homes: Pick<Homes, 'known'>;
  /** Absent where no route lets a copy answer. */
  readonly reads?: Reads | undefined;
  /** What its route says; absent: the owner answers. */
  readonly readRule?: ReadRule | undefined;
  /** Where its partitions were found that nobody knew. */
  readonly found: ReadonlyMap<string, StoreName>;
}

type ReadDecision = Exclude<Decision, { decision: 'again' }>;
/** `find`: nobody knows yet where these live. */
export type ReadPlan = ReadDecision | { readonly decision: 'find'; readonly names: string[] };

export function planRead(admission: ReadAdmission, names: readonly [string, ...string[]]): ReadPlan {
  const { gate, homes, found, readRule } = admission;
  const [only] = names;
  // Mostly there is one, everybody knows where it lives, and the owner answers.
  if (names.length === 1 && readRule === undefined && homes.known(only)) {
    const { owner, epoch } = gate.ownershipOf(only);
    return { decision: 'forward', passage: { store: owner, partition: only, epoch } };
  }
  const unknown = names.filter((name) => !homes.known(name));
  if (readRule?.from !== 'app' && unknown.some((name) => !found.has(name))) {
    return { decision: 'find', names: unknown };
  }
  const storeOf = (name: string): StoreName => {
    const { owner } = gate.ownershipOf(name);
    return homes.known(name) ? owner : (found.get(name) ?? owner);
  };
  const owner = storeOf(only);
  if (readRule?.from !== 'app' && names.some((name) => storeOf(name) !== owner)) {
    const owners = names.map((name) => ({ partition: name, owner: storeOf(name) }));
    return { decision: 'refuse', failure: splitFailure('read', owners) };
  }
  const choice = choose(admission, names, unknown.length > 0, owner);
  if (choice.store === undefined) return { decision: 'refuse', failure: choice.failure };
  return { decision: 'forward', passage: { ...choice, ...touched(gate, names) } };
}

function choose(
  { reads, readRule }: ReadAdmission,
  names: readonly string[],
  anyUnknown: boolean,
  owner: StoreName,
): ReadChoice {
  if (reads === undefined || readRule === undefined) return { store: owner };
  if (readRule.from === 'app') return reads.ofApp(readRule, names);
  return anyUnknown ? { store: owner } : reads.ofCopy(readRule, names, owner);
}

function touched(
  gate: ReadAdmission['gate'],
  [partition, ...others]: readonly [string, ...string[]],
): Omit<Passage, 'store'> {
  const { epoch } = gate.ownershipOf(partition);
  if (others.length === 0) return { partition, epoch };
  const also = others.map((name) => ({ partition: name, epoch: gate.ownershipOf(name).epoch }));
  return { partition, epoch, also };
}

/** A read of no partition, which would go to `store`. */
export function planReadOfNone(
  { reads, readRule }: Pick<ReadAdmission, 'reads' | 'readRule'>,
  store: StoreName,
): ReadDecision {
  if (reads === undefined || readRule?.from !== 'app') return { decision: 'forward', passage: { store } };
  const choice = reads.ofApp({ ...readRule, namesPartitions: false }, []);
  if (choice.store === undefined) return { decision: 'refuse', failure: choice.failure };
  return { decision: 'forward', passage: choice };
}

const waitMs = 1_000;
const waitingMax = 1_000;
let waiting = 0;

/**
 * Calls back, once, when this member knows of the epoch that the client has seen, when a second has passed, or never
 * where the client goes away. What a client says is not believed: it can only make itself wait. False: it need not.
 */
export function awaitEpoch(
  { gate }: Pick<ReadAdmission, 'gate'>,
  partition: string,
  epoch: number | undefined,
  client: Client,
  then: () => void,
): boolean {
  const isKnown = (): boolean => epoch === undefined || gate.ownershipOf(partition).epoch >= epoch;
  if (isKnown() || waiting >= waitingMax) return false;
  waiting += 1;
  const leave = (): void => {
    waiting -= 1;
    clearTimeout(timer);
    stopListening();
    stopWatching();
  };
  const goOn = (): void => {
    leave();
    then();
  };
  const timer = setTimeout(goOn, waitMs);
  const stopWatching = client.onGone(leave);
  const stopListening = gate.onWake(partition, () => {
    if (isKnown()) goOn();
  });
  return true;
}
