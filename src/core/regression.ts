/** A ledger that lost data that was confirmed: nothing is admitted and nothing moves until it is restored (I5). */

export interface Regression {
  /** What is missing, in one sentence. */
  readonly detail: string;
  /** When it was noticed, Redis clock. */
  readonly atMs: number;
  /** The file that says so, by host; '' where a running process does. */
  readonly by: string;
}
