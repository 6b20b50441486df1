/** What the traffic writes down: one line of JSON for each step of each request. Times are Unix ms. */
export type WriteMethod = 'POST' | 'PUT' | 'DELETE';

interface Entry {
  readonly at_ms: number;
  readonly user: string;
  readonly method: WriteMethod | 'GET';
  readonly proxy: string;
  /** Number of the request; ties an outcome to its start. */
  readonly request: number;
  /** The appointment; for a POST known only from its answer. */
  readonly id?: string;
  /** Content of a POST or PUT; no two writes have the same. */
  readonly title?: string;
}

export interface Invoked extends Entry {
  readonly step: 'invoke';
}

/**
 * `ok`: answered 2xx. `fail`: certainly without effect. `unknown`: sent, and nobody can say. `code` is the
 * problem code of the answer, or `connection-refused`, `connection-broken`, `timeout` without one.
 */
export interface Ended extends Entry {
  readonly step: 'ok' | 'fail' | 'unknown';
  readonly status?: number;
  readonly code?: string;
  /** Onewriter-Store of the answer. */
  readonly store?: string;
  readonly tookMs: number;
}

/** After an unknown outcome: what a look at the calendar showed. */
export interface Reread extends Entry {
  readonly step: 'reread';
  readonly found: 'effect' | 'no-effect' | 'no-answer';
}

export type JournalEntry = Invoked | Ended | Reread;
