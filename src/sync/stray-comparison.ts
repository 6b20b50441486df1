/** One kind of records of the partitions that have left a store, as its lists show it now, held against what it should be. */
import type { KindCapabilities, RecordKey, RecordProblem } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import type { Look } from './blame.ts';
import { eachOf } from './passes.ts';
import { patientPages } from './patience.ts';
import { ofKind, type Sides, type Snapshot, snapshotDigest } from './snapshots.ts';
import { NewestVersion } from './versions.ts';

export interface Watched {
  readonly partition: string;
  readonly epoch: number;
}

export interface Suspect extends RecordKey {
  readonly epoch: number;
  readonly expected: string | undefined;
}

const partitionsSideBySide = 4;
const problemsMax = 100;

/** One kind of a batch of partitions, read from the store and held against their snapshots. */
export class KindComparison {
  /** Partitions whose list did not come to its end: what it did not show is not gone. */
  readonly unread = new Set<string>();
  /** Records that nobody can judge. */
  readonly problems: RecordProblem[] = [];
  readonly #kind: string;
  readonly #sides: Sides;
  readonly #epochs: ReadonlyMap<string, number>;
  readonly #known: ReadonlyMap<string, Snapshot>;
  readonly #fresh: ReadonlyMap<string, Snapshot>;
  readonly #seen = new Map<string, Set<string>>();
  readonly #changed: Suspect[] = [];
  readonly #versions: NewestVersion;

  constructor(
    kind: string,
    sides: Sides,
    of: {
      readonly batch: readonly Watched[];
      readonly known: ReadonlyMap<string, Snapshot>;
      readonly fresh: ReadonlyMap<string, Snapshot>;
      readonly nowMs: number;
    },
  ) {
    this.#kind = kind;
    this.#sides = sides;
    this.#epochs = new Map(of.batch.map(({ partition, epoch }) => [partition, epoch]));
    this.#known = of.known;
    this.#fresh = of.fresh;
    this.#versions = new NewestVersion(of.nowMs);
  }

  /** Returns the newest version seen; undefined where not all was read. */
  async read(whole: boolean, look: Look, signal: AbortSignal): Promise<string | undefined> {
    const list = (scope: { readonly partition?: string }): Promise<boolean> =>
      look.at(`the list of ${this.#kind} ${scope.partition ?? ''}`.trim(), async () => {
        for await (const page of patientPages(this.#sides.left, this.#kind, scope, signal)) {
          this.problems.push(...page.problems.slice(0, problemsMax - this.problems.length));
          for (const record of page.records) this.#take(record);
        }
      });
    const partitions = [...this.#epochs.keys()];
    const readOne = async (partition: string): Promise<void> => {
      if (!(await list({ partition }))) this.unread.add(partition);
    };
    if (!whole) await eachOf(partitions, readOne, partitionsSideBySide);
    else if (!(await list({}))) for (const partition of partitions) this.unread.add(partition);
    return this.unread.size === 0 ? this.#versions.version : undefined;
  }

  suspects(): readonly Suspect[] {
    const gone: Suspect[] = [];
    for (const [partition, snapshot] of this.#known) {
      if (this.unread.has(partition)) continue;
      const seen = this.#seen.get(partition);
      for (const [id, expected] of snapshot.get(this.#kind) ?? []) {
        if (seen?.has(id) !== true) gone.push(this.#suspect(partition, id, expected));
      }
    }
    return [...this.#changed, ...gone];
  }

  #take(record: StoreRecord): void {
    const { partition, id } = record;
    this.#versions.see(record.version);
    if (!this.#epochs.has(partition)) return;
    const digest = snapshotDigest(record, partition, this.#sides);
    const fresh = this.#fresh.get(partition);
    if (fresh !== undefined) {
      if (digest !== undefined) ofKind(fresh, this.#kind).set(id, digest);
      return;
    }
    if (digest === undefined) return;
    const seen = this.#seen.get(partition) ?? new Set();
    this.#seen.set(partition, seen.add(id));
    const expected = this.#known.get(partition)?.get(this.#kind)?.get(id);
    if (digest !== expected) this.#changed.push(this.#suspect(partition, id, expected));
  }

  #suspect(partition: string, id: string, expected: string | undefined): Suspect {
    return { partition, kind: this.#kind, id, expected, epoch: this.#epochs.get(partition) ?? 0 };
  }
}

/** Only what is copied at all: of other kinds nobody knows what they should be. */
export function kindsOf({ left, owner }: Sides): readonly KindCapabilities[] {
  return left.capabilities.filter(({ kind }) =>
    owner.capabilities.some((capability) => capability.kind === kind),
  );
}

/** A list over all costs its pages, lists by partition at least one call each. */
export function readsWhole({ needsPartition, byPartition }: KindCapabilities, most: boolean): boolean {
  return needsPartition !== true && (most || !byPartition);
}
