/**
 * Which store answers a read whose route says `reads: copy` or `reads: app`, and what a write must wait for so that
 * nobody reads a copy that lacks it. How old copies are, the sync says; whatever is not certain is the owner's.
 */
import type { Config } from '../config/schema.ts';
import type { CopyReads, ReadRule } from '../core/copy-reads.ts';
import type { Failure } from '../core/failure.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { WriteGate } from '../core/ports.ts';
import type { WriteTicket } from '../core/ticket.ts';
import type { Passage } from './admit.ts';
import { holdingAnswers } from './answer-hold.ts';
import type { OwnerReason, ReadCounters } from './read-counters.ts';
import type { Upstream } from './upstream.ts';

/** Where the read goes, and how old what it shows can be, ms; absent where it is not old at all. */
export type ReadChoice =
  | { readonly store: StoreName; readonly lagMs?: number }
  | { readonly store?: undefined; readonly failure: Failure };

export interface ReadsParts {
  readonly copies: CopyReads;
  readonly gate: WriteGate;
  readonly counters: ReadCounters;
  /** Copies are read: then the others must hear of every write. */
  readonly tell: boolean;
}

/** After a store has failed to answer a read of a copy, the owners answer for so long. */
const failingMs = 1_000;

const nothingIsCopied: CopyReads = {
  targets: [],
  begin: () => undefined,
  end: () => undefined,
  mayAnswer: () => undefined,
  look: () => ({ lagMs: undefined, holdsWrites: false }),
  lagOfAllMs: () => undefined,
};

/** Undefined where no route lets anybody but the owner answer. */
export function readsUnder(
  { routes }: Pick<Config, 'routes'>,
  copies: CopyReads = nothingIsCopied,
  parts: Pick<ReadsParts, 'gate' | 'counters'>,
): Reads | undefined {
  const wanted = new Set(routes.map(({ reads }) => reads));
  if (!wanted.has('copy') && !wanted.has('app')) return undefined;
  return new Reads({ ...parts, copies, tell: wanted.has('copy') });
}

export class Reads {
  readonly #parts: ReadsParts;
  readonly #failedMs: Partial<Record<StoreName, number>> = {};

  constructor(parts: ReadsParts) {
    this.#parts = parts;
  }

  /** The partitions are all known to live in `owner`. */
  ofCopy({ maxStalenessMs }: ReadRule, partitions: readonly string[], owner: StoreName): ReadChoice {
    const { counters } = this.#parts;
    const found = this.#ageOf(otherStore(owner), partitions, maxStalenessMs);
    if (typeof found === 'number') {
      counters.byCopy += 1;
      return { store: otherStore(owner), lagMs: found };
    }
    counters.byOwner[found] += 1;
    return { store: owner };
  }

  #ageOf(copy: StoreName, partitions: readonly string[], maxStalenessMs: number): number | OwnerReason {
    const { copies, gate } = this.#parts;
    if (!copies.targets.includes(copy)) return 'not-copied';
    // Who has lost touch with the ledger may not know where the partition is by now.
    if (gate.leaseLeftMs() <= 0 || gate.trouble() !== undefined) return 'unknown';
    if (performance.now() - (this.#failedMs[copy] ?? Number.NEGATIVE_INFINITY) < failingMs) return 'failing';
    let worstMs = 0;
    for (const partition of partitions) {
      const { phase, epoch } = gate.ownershipOf(partition);
      if (phase !== 'open') return 'moving';
      const { lagMs, holdsWrites } = copies.look(partition, epoch);
      if (lagMs === undefined) return 'unknown';
      if (lagMs > maxStalenessMs) return 'late';
      if (!holdsWrites) return 'written';
      worstMs = Math.max(worstMs, lagMs);
    }
    return worstMs;
  }

  /** `partitions`: those that the request names, where it is their records that are shown. */
  ofApp({ maxStalenessMs, namesPartitions }: ReadRule, partitions: readonly string[]): ReadChoice {
    const lagMs = namesPartitions ? this.#lagOf(partitions) : this.#parts.copies.lagOfAllMs();
    const age = lagMs === undefined ? {} : { lagMs };
    if ((lagMs ?? Number.POSITIVE_INFINITY) <= maxStalenessMs) return { store: 'app', ...age };
    return { failure: tooOld(lagMs, maxStalenessMs) };
  }

  #lagOf(partitions: readonly string[]): number | undefined {
    const { copies, gate } = this.#parts;
    let worstMs = 0;
    for (const partition of partitions) {
      const { owner, epoch } = gate.ownershipOf(partition);
      if (owner === 'app') continue;
      const { lagMs } = copies.look(partition, epoch);
      if (lagMs === undefined) return undefined;
      worstMs = Math.max(worstMs, lagMs);
    }
    return worstMs;
  }

  /** The store did not answer a read. */
  failed(store: StoreName): void {
    this.#failedMs[store] = performance.now();
  }

  /** The way to the store for this request: what a write is answered waits until every member knows of the write. */
  wayFor(upstream: Pick<Upstream, 'send'>, { ticket }: Passage): Pick<Upstream, 'send'> {
    return ticket === undefined ? upstream : holdingAnswers(upstream, () => this.mayAnswer(ticket));
  }

  mayAnswer(ticket: WriteTicket): Promise<void> | undefined {
    return this.#parts.copies.mayAnswer(ticket);
  }

  /** The gate, with all that it admits told to the others. */
  telling(): WriteGate {
    const { copies, gate, tell } = this.#parts;
    if (!tell) return gate;
    return {
      ownershipOf: (partition) => gate.ownershipOf(partition),
      admit: (partition, also) => {
        const said = gate.admit(partition, also);
        if (said.verdict === 'admit') copies.begin(said.ticket);
        return said;
      },
      mayContinue: (ticket) => gate.mayContinue(ticket),
      end: (ticket, outcome) => {
        copies.end(ticket, outcome);
        gate.end(ticket, outcome);
      },
      onWake: (partition, listener) => gate.onWake(partition, listener),
      onEndLongLived: (partition, listener) => gate.onEndLongLived(partition, listener),
      leaseLeftMs: () => gate.leaseLeftMs(),
      trouble: () => gate.trouble(),
      notice: (partition) => gate.notice(partition),
    };
  }
}

function tooOld(lagMs: number | undefined, maxStalenessMs: number): Failure {
  const how =
    lagMs === undefined ? 'nobody can tell how old they are' : `they are ${Math.round(lagMs)} ms old`;
  return {
    code: 'copy-too-old',
    detail: `The app shows copies here, which may be ${maxStalenessMs} ms old at the most, and ${how}. Nothing is lost; try again.`,
  };
}
