/**
 * The right of one coordinator to run one flip: a lease in the ledger, with a term that fences it. While the lease
 * is not held no handoff begins. Those under way need it not: each of their transitions is a compare-and-set.
 */
import type { FlipBook, FlipChanges } from '../ledger/flips.ts';

/** How long a flip waits for a coordinator that died, ms. */
export const defaultLeadMs = 3_000;
/** Share of the lease kept back, since clocks run at different speeds. */
const leadMargin = 0.1;

export class FlipLead {
  readonly #book: FlipBook;
  readonly #flip: string;
  readonly #term: number;
  readonly #leaseMs: number;
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #untilMs: number;

  /** `sentAtMs`: when the term was asked for, by this process's monotonic clock. */
  constructor(book: FlipBook, flip: string, term: number, leaseMs: number, sentAtMs: number) {
    this.#book = book;
    this.#flip = flip;
    this.#term = term;
    this.#leaseMs = leaseMs;
    this.#untilMs = this.#lapseOf(sentAtMs);
    this.#timer = setInterval(() => void this.#renew().catch(() => undefined), leaseMs / 3);
  }

  /** May a handoff begin now? */
  get held(): boolean {
    return !this.#lost.signal.aborted && performance.now() < this.#untilMs;
  }

  /** Ends when another coordinator has taken the flip over; there is no way back from that. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async save(changes: FlipChanges): Promise<void> {
    if (this.#lost.signal.aborted) return;
    if (!(await this.#book.save(this.#flip, this.#term, changes))) this.#lose();
  }

  /** The flip has ended, or somebody else may have it. */
  async leave(): Promise<void> {
    this.#untilMs = 0;
    clearInterval(this.#timer);
    if (!this.#lost.signal.aborted) await this.#book.leave(this.#flip, this.#term);
  }

  async #renew(): Promise<void> {
    const sentAtMs = performance.now();
    if (!(await this.#book.renew(this.#flip, this.#term, this.#leaseMs))) this.#lose();
    else if (this.#untilMs > 0) this.#untilMs = this.#lapseOf(sentAtMs);
  }

  #lose(): void {
    clearInterval(this.#timer);
    this.#lost.abort();
  }

  #lapseOf(sentAtMs: number): number {
    return sentAtMs + this.#leaseMs * (1 - leadMargin);
  }
}
