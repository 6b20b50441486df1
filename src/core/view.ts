/**
 * A member's picture of the ledger: a snapshot, then every transition in order. Look-ups are in memory.
 * Partitions that no transition touched are not listed; they live at the default owner.
 */
import { type Ownership, type StoreName, untouched } from './ownership.ts';

/** One entry of the ledger's stream. `id` is random: a version number alone is no identity (I5). */
export interface Transition {
  readonly version: number;
  readonly id: string;
  readonly partition: string;
  readonly before: Ownership;
  readonly after: Ownership;
  /** Redis clock, ms since the epoch. */
  readonly atMs: number;
  readonly by: string;
  readonly reason: string;
}

export interface Position {
  readonly version: number;
  readonly id: string;
}

export interface Snapshot {
  readonly position: Position;
  readonly partitions: Iterable<readonly [string, Ownership]>;
}

export type ApplyResult = 'applied' | 'already-known' | 'gap';

export class LedgerView {
  #position: Position = { version: 0, id: '' };
  #partitions = new Map<string, Ownership>();
  readonly #default: Ownership;

  constructor(defaultOwner: StoreName) {
    this.#default = untouched(defaultOwner);
  }

  get position(): Position {
    return this.#position;
  }

  of(partition: string): Ownership {
    return this.#partitions.get(partition) ?? this.#default;
  }

  load(snapshot: Snapshot): void {
    this.#partitions = new Map(snapshot.partitions);
    this.#position = snapshot.position;
  }

  /** `gap` means that a transition is missing: the caller must load a new snapshot. */
  apply(transition: Transition): ApplyResult {
    if (transition.version <= this.#position.version) return 'already-known';
    if (transition.version !== this.#position.version + 1) return 'gap';
    this.#partitions.set(transition.partition, transition.after);
    this.#position = { version: transition.version, id: transition.id };
    return 'applied';
  }

  /** Partitions that differ from the default. */
  entries(): IterableIterator<[string, Ownership]> {
    return this.#partitions.entries();
  }

  get size(): number {
    return this.#partitions.size;
  }
}
