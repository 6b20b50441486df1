/**
 * Where partitions live that the ledger does not list, and which partition a user belongs to: what the proxy must
 * know beside the gate.
 */
import type { Attributes, KnownPartition } from './cohort.ts';
import type { StoreName } from './ownership.ts';

export interface Registry {
  all(): Promise<KnownPartition[]>;
  count(): Promise<number>;
  knows(partition: string): Promise<boolean>;
  /** Adds what is new; attributes given here replace those of the same name. */
  note(partitions: Iterable<{ readonly partition: string; readonly attributes?: Attributes }>): Promise<void>;
  completeness(): Promise<Completeness>;
  /** An operator says that it names everybody who lives at the default store. */
  declareComplete(by: string): Promise<void>;
}

/** Does the registry name everybody who lives at the default store? Only then can anybody be known to be new. */
export type Completeness =
  | { readonly complete: true; readonly by: string; readonly atMs: number }
  | {
      readonly complete: false;
      /** It was complete until this member died, which may have seen partitions that it told nobody of. */
      readonly lost?: { readonly member: string; readonly atMs: number };
    };

/**
 * Where partitions live that no transition touched, while new ones begin at the other store. Nobody needs it
 * while they begin at the default store: then every home is known.
 */
export interface Homes {
  /** In memory and synchronous, like the gate. */
  known(partition: string): boolean;
  /** For a held write: claims the partition, or finds where it lives; the gate wakes the write then. */
  settle(partition: string): void;
  /**
   * Where a read finds the most, and whether anybody knows the partition yet. Begins nothing; never rejects, and
   * answers soon: what cannot be told in time is taken for old.
   */
  find(partition: string): Promise<Found>;
}

export interface Found {
  readonly store: StoreName;
  /**
   * `known`: the ledger or the registry names it. `new`: they would, were it not new. `taken-for-old`: they do not,
   * and the registry is not complete. `no-answer`: they could not be asked.
   */
  readonly home: 'known' | 'new' | 'taken-for-old' | 'no-answer';
}

/** Users and their partitions, for the partition rule `directory`. */
export interface Directory {
  /**
   * In memory and synchronous, as true as the gate's picture of the ledger: null where the user has no entry,
   * undefined where nobody has looked yet, or something has changed since.
   */
  cached(user: string): string | null | undefined;
  /** Looks the user up; `cached` answers afterwards, unless something changed meanwhile. Rejects where Redis is away. */
  look(user: string): Promise<void>;
}

export interface DirectoryChange {
  /** `expected`: the entry that must be there; left out: there must be none. */
  readonly entries: readonly {
    readonly user: string;
    readonly partition: string;
    readonly expected?: string;
  }[];
  /** What must be true of partitions: fenced under an attempt, or, with attempt '', claimed by nobody yet. */
  readonly conditions: readonly { readonly partition: string; readonly attempt: string }[];
  /** Hash of the rules under which this was decided. */
  readonly rules: string;
  readonly by: string;
  readonly reason: string;
}

export type DirectoryResult =
  | { readonly result: 'done' }
  /** The user's entry is another one than expected; undefined: there is none. */
  | { readonly result: 'changed'; readonly user: string; readonly partition: string | undefined }
  | { readonly result: 'not-fenced' | 'claimed'; readonly partition: string }
  | { readonly result: 'rules-changed' }
  | { readonly result: 'ledger-regressed'; readonly detail: string };

/** The entries themselves. Throws where Redis is away; then nobody knows whether a change took effect. */
export interface DirectoryBook {
  partitionOf(user: string): Promise<string | undefined>;
  /** In the order of the users. */
  partitionsOf(users: readonly string[]): Promise<(string | undefined)[]>;
  /** All entries, or none. */
  change(change: DirectoryChange): Promise<DirectoryResult>;
}

export interface DirectoryOrder {
  readonly user: string;
  readonly partition: string;
  readonly by: string;
  readonly reason: string;
}

export interface DirectoryReport {
  readonly user: string;
  readonly partition: string;
  /** The entry of before. */
  readonly before?: string;
  /** How long the partitions took no write, by Redis's clock. */
  readonly pauseMs: number;
}

export interface FillReport {
  readonly added: number;
  readonly unchanged: number;
  /** Users who have an entry for another partition; it was left alone. */
  readonly others: readonly string[];
}

export interface DirectoryRefusal {
  readonly refused:
    | 'partition-in-request'
    | 'partition-busy'
    | 'other-owner'
    | 'write-in-doubt'
    | 'drain-timeout'
    | 'rules-differ'
    | 'ledger-regressed'
    | 'not-settled';
  readonly detail: string;
}

/** The directory as operators see it. */
export interface DirectoryDesk {
  /** Also where the user has no entry, but belongs somewhere by the rules. */
  partitionOf(user: string): Promise<string | undefined>;
  set(order: DirectoryOrder): Promise<DirectoryReport | DirectoryRefusal>;
  /** First entries only; what is there already is left alone. */
  fill(
    entries: readonly { readonly user: string; readonly partition: string }[],
    by: string,
    reason: string,
  ): Promise<FillReport | DirectoryRefusal>;
}

const importAgain = 'Run: onewriter partitions import FILE --complete --reason TEXT';

/** For operators: can anybody be known to be new, and what to do where not. */
export function sayCompleteness(known: Completeness): string {
  if (known.complete) {
    const at = new Date(known.atMs).toISOString();
    return `The registry names everybody who lives in legacy, as ${known.by} said at ${at}; others are new.`;
  }
  if (known.lost === undefined) {
    return `Nobody has said that the registry names everybody who lives in legacy, so nobody counts as new: whom it does not name begins in legacy. ${importAgain}`;
  }
  const at = new Date(known.lost.atMs).toISOString();
  return `The registry was complete until member ${known.lost.member} died (found at ${at}), which may have let somebody write whom it does not name; so nobody counts as new, and whom it does not name begins in legacy. Once the list is checked: ${importAgain}`;
}
