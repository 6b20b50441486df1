/**
 * A member's right to admit writes, until a time. Counted from when the renewal was sent, less a margin,
 * on the monotonic and on the wall clock: it has lapsed when either says so (a suspended machine stops the
 * one, a corrected clock moves the other).
 */

/** Both clocks of this process. */
export interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

export interface LeaseSettings {
  readonly leaseMs: number;
  /** Safety margin taken off every lease. */
  readonly marginMs: number;
  /**
   * The member goes on with the last state it knows when the ledger is lost (`serve-last-known`). It is never
   * counted as gone then: a handoff waits for it, or aborts.
   */
  readonly unexpirable?: boolean;
}

export class Lease {
  readonly #settings: LeaseSettings;
  #until: Instant | undefined;
  #term = 0;
  #ended = false;

  constructor(settings: LeaseSettings) {
    this.#settings = settings;
  }

  /**
   * Grows with a lapse: what was admitted in an earlier term must not go on. Not with one that lies between sending
   * a renewal and its confirmation: by the sending time the member renewed in time, and it stayed listed, so whoever
   * fenced meanwhile waited for what it had admitted.
   */
  get term(): number {
    return this.#term;
  }

  held(now: Instant): boolean {
    const until = this.#until;
    if (until === undefined) return false;
    return this.#settings.unexpirable === true || !passed(until, now);
  }

  /** Milliseconds until it lapses; 0 when it has. */
  leftMs(now: Instant): number {
    const until = this.#until;
    if (until === undefined) return 0;
    if (this.#settings.unexpirable === true) return this.#settings.leaseMs;
    return Math.max(0, Math.min(until.monotonicMs - now.monotonicMs, until.wallMs - now.wallMs));
  }

  /** A renewal that was sent at `sentAt` counts from now on. */
  renew(sentAt: Instant): void {
    if (this.#ended) return;
    const lengthMs = this.#settings.leaseMs - this.#settings.marginMs;
    if (!this.held(sentAt)) this.#term += 1;
    this.#until = { monotonicMs: sentAt.monotonicMs + lengthMs, wallMs: sentAt.wallMs + lengthMs };
  }

  lose(): void {
    this.#until = undefined;
  }

  /** Lost for good: a renewal that is on its way yet counts for nothing. */
  end(): void {
    this.lose();
    this.#ended = true;
  }

  fork(): Lease {
    const twin = new Lease(this.#settings);
    twin.#until = this.#until;
    twin.#term = this.#term;
    twin.#ended = this.#ended;
    return twin;
  }

  describe(now: Instant): unknown {
    const until = this.#until;
    const left = until && [until.monotonicMs - now.monotonicMs, until.wallMs - now.wallMs];
    return { term: this.#term, left };
  }
}

function passed(until: Instant, now: Instant): boolean {
  return now.monotonicMs >= until.monotonicMs || now.wallMs >= until.wallMs;
}
