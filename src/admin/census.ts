/** All partitions onewriter knows of, with owner and phase: the registry's and those a transition touched. */
import type { Attributes } from '../core/cohort.ts';
import { type Phase, type StoreName, untouched } from '../core/ownership.ts';
import type { Ledger, LedgerRecord, Registry } from '../core/ports.ts';

export interface PartitionState {
  readonly partition: string;
  readonly owner: StoreName;
  readonly phase: Phase;
  readonly epoch: number;
  /** Redis clock, ms since 1970; 0 where no transition touched the partition. */
  readonly changedAtMs: number;
  readonly attributes: Attributes;
}

export interface Counts {
  readonly total: number;
  readonly byOwner: Readonly<Record<StoreName, number>>;
  readonly byPhase: Readonly<Record<Phase, number>>;
  /** Where writes go now; `fenced` ones go nowhere for the moment. The three add up to `total`. */
  readonly writes: { readonly app: number; readonly fenced: number; readonly legacy: number };
  /** Age of the oldest fence, ms; 0 where nothing is fenced. */
  readonly longestFenceMs: number;
}

export class Census {
  readonly nowMs: number;
  readonly #known: ReadonlyMap<string, Attributes>;
  readonly #touched: ReadonlyMap<string, LedgerRecord>;
  readonly #defaultOwner: StoreName;

  constructor(
    nowMs: number,
    known: ReadonlyMap<string, Attributes>,
    touched: ReadonlyMap<string, LedgerRecord>,
    defaultOwner: StoreName,
  ) {
    this.nowMs = nowMs;
    this.#known = known;
    this.#touched = touched;
    this.#defaultOwner = defaultOwner;
  }

  /** Sorted names of all partitions. */
  names(): string[] {
    return [...new Set([...this.#known.keys(), ...this.#touched.keys()])].toSorted();
  }

  knows(partition: string): boolean {
    return this.#known.has(partition) || this.#touched.has(partition);
  }

  inRegistry(partition: string): boolean {
    return this.#known.has(partition);
  }

  record(partition: string): LedgerRecord | undefined {
    return this.#touched.get(partition);
  }

  of(partition: string): PartitionState {
    const record = this.#touched.get(partition);
    const { owner, phase, epoch } = record?.ownership ?? untouched(this.#defaultOwner);
    const changedAtMs = record?.changedAtMs ?? 0;
    return { partition, owner, phase, epoch, changedAtMs, attributes: this.#known.get(partition) ?? {} };
  }

  count(partitions: Iterable<string>): Counts {
    const byOwner = { legacy: 0, app: 0 };
    const byPhase = { open: 0, fenced: 0, committed: 0 };
    const writes = { app: 0, fenced: 0, legacy: 0 };
    let total = 0;
    let longestFenceMs = 0;
    for (const partition of partitions) {
      const { owner, phase, changedAtMs } = this.of(partition);
      total += 1;
      byOwner[owner] += 1;
      byPhase[phase] += 1;
      writes[phase === 'fenced' ? 'fenced' : owner] += 1;
      if (phase === 'fenced') longestFenceMs = Math.max(longestFenceMs, this.nowMs - changedAtMs);
    }
    return { total, byOwner, byPhase, writes, longestFenceMs };
  }
}

export async function takeCensus(parts: {
  readonly ledger: Ledger;
  readonly registry: Registry;
  readonly defaultOwner: StoreName;
}): Promise<Census> {
  const [known, touched, nowMs] = await Promise.all([
    parts.registry.all(),
    parts.ledger.touched(),
    parts.ledger.nowMs(),
  ]);
  const attributes = new Map(known.map((entry) => [entry.partition, entry.attributes]));
  return new Census(nowMs, attributes, touched, parts.defaultOwner);
}
