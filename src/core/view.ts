/**
 * A member's picture of the ledger: a snapshot, then every change in order. Look-ups are in memory.
 * Partitions that no transition touched are not listed; they live at the default owner.
 */
import type { Pair } from './links.ts';
import { type Ownership, type StoreName, untouched } from './ownership.ts';
import { PartitionTable } from './partition-table.ts';

/** What every entry of the ledger's stream has. `id` is random: a version number alone is no identity (I5). */
interface Entry {
  readonly version: number;
  readonly id: string;
  /** Id of the entry before it: equal numbers can hide that a failover replaced one. */
  readonly previousId: string;
  /** Redis clock, ms since the epoch. */
  readonly atMs: number;
  readonly by: string;
  readonly reason: string;
}

/** A change of who owns a partition. */
export interface Transition extends Entry {
  readonly kind: 'ownership';
  readonly partition: string;
  readonly before: Ownership;
  readonly after: Ownership;
}

/**
 * What decides identity, partition and access, by the hash of the configuration that says it. A process
 * with another one admits no write.
 */
export interface Rules {
  readonly hash: string;
  /** Where a partition that nobody has seen begins its life. */
  readonly newPartitions: StoreName;
}

export interface RulesActivated extends Entry {
  readonly kind: 'rules';
  readonly rules: Rules;
}

/** An operator looked, and says that no write in doubt of the partition will still take effect. */
export interface DoubtResolved extends Entry {
  readonly kind: 'doubt-resolved';
  readonly partition: string;
}

/** A user belongs to another partition from now on; both were fenced while it changed. */
export interface DirectoryChanged extends Entry {
  readonly kind: 'directory';
  readonly user: string;
  readonly partition: string;
}

/** An operator says that the two are not written together any more: the next write that joins them is noted anew. */
export interface LinkForgotten extends Entry {
  readonly kind: 'link-forgotten';
  readonly partitions: Pair;
}

/** Rollback windows were closed, which ones stands beside the ledger: an older copy of Redis lacks this entry, too. */
export interface WindowsClosed extends Entry {
  readonly kind: 'windows-closed';
}

export type LedgerChange =
  Transition | RulesActivated | DoubtResolved | WindowsClosed | DirectoryChanged | LinkForgotten;

export interface Position {
  readonly version: number;
  readonly id: string;
}

export interface Snapshot {
  readonly position: Position;
  readonly partitions: Iterable<readonly [string, Ownership]>;
  /** Absent before the first process ever activated its own. */
  readonly rules?: Rules | undefined;
}

export type ApplyResult = 'applied' | 'already-known' | 'gap';

export class LedgerView {
  #position: Position = { version: 0, id: '' };
  #partitions = new PartitionTable();
  #rules: Rules | undefined;
  readonly #default: Ownership;

  constructor(defaultOwner: StoreName) {
    this.#default = untouched(defaultOwner);
  }

  get position(): Position {
    return this.#position;
  }

  get rules(): Rules | undefined {
    return this.#rules;
  }

  /** Some transition touched it. */
  has(partition: string): boolean {
    return this.#partitions.has(partition);
  }

  of(partition: string): Ownership {
    return this.#partitions.get(partition) ?? this.#default;
  }

  load(snapshot: Snapshot): void {
    this.#partitions = new PartitionTable();
    for (const [partition, ownership] of snapshot.partitions) this.#partitions.set(partition, ownership);
    this.#position = snapshot.position;
    this.#rules = snapshot.rules;
  }

  /** `gap` means that a change is missing: the caller must load a new snapshot. */
  apply(change: LedgerChange): ApplyResult {
    if (change.version <= this.#position.version) return 'already-known';
    const next = change.version === this.#position.version + 1;
    if (!next || change.previousId !== this.#position.id) return 'gap';
    if (change.kind === 'ownership') this.#partitions.set(change.partition, change.after);
    if (change.kind === 'rules') this.#rules = change.rules;
    this.#position = { version: change.version, id: change.id };
    return 'applied';
  }

  /** Independent, in the same state. */
  fork(): LedgerView {
    const twin = new LedgerView(this.#default.owner);
    twin.#partitions = this.#partitions.fork();
    twin.#position = this.#position;
    twin.#rules = this.#rules;
    return twin;
  }

  /** Partitions that differ from the default. */
  entries(): IterableIterator<[string, Ownership]> {
    return this.#partitions.entries();
  }

  get size(): number {
    return this.#partitions.size;
  }
}

/** Entries in the order of their names, so that equal states look alike. */
export function inOrder<Value>(entries: Iterable<readonly [string, Value]>): (readonly [string, Value])[] {
  return [...entries].toSorted(([a], [b]) => (a < b ? -1 : 1));
}
