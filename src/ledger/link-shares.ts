/** How many partitions each user may join that nobody has joined before: else one could fill the book for all. */
import { LinkShareSpent } from '../core/links.ts';

/** New links of one user within an hour, at one process; one request makes at most 99. */
export const linksPerHour = 500;
const hourMs = 3_600_000;
/** Users whose share is remembered, those that began theirs last. */
const usersMax = 100_000;

interface Share {
  readonly sinceMs: number;
  taken: number;
}

export class LinkShares {
  readonly #shares = new Map<string, Share>();
  readonly #nowMs: () => number;
  readonly #perHour: number;

  constructor(nowMs: () => number, perHour = linksPerHour) {
    this.#nowMs = nowMs;
    this.#perHour = perHour;
  }

  /**
   * `ask` gets how many may be new, and answers how many were. What it was given counts as taken meanwhile, and for good
   * where it fails and nobody knows.
   */
  async take(user: string, wanted: number, ask: (freshMax: number) => Promise<number>): Promise<void> {
    const share = this.#shareOf(user);
    const given = Math.min(wanted, this.#perHour - share.taken);
    share.taken += given;
    try {
      share.taken -= given - (await ask(given));
    } catch (error) {
      if (!(error instanceof LinkShareSpent)) throw error;
      share.taken -= given;
      throw new LinkShareSpent(Math.ceil((share.sinceMs + hourMs - this.#nowMs()) / 1_000));
    }
  }

  #shareOf(user: string): Share {
    const known = this.#shares.get(user);
    const sinceMs = this.#nowMs();
    if (known !== undefined && known.sinceMs + hourMs > sinceMs) return known;
    const share = { sinceMs, taken: 0 };
    this.#shares.delete(user);
    const [oldest] = this.#shares.keys();
    if (this.#shares.size >= usersMax && oldest !== undefined) this.#shares.delete(oldest);
    this.#shares.set(user, share);
    return share;
  }
}
