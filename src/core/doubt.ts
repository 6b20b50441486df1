/** Writes in doubt: sent, and nobody knows what became of them. What is told of them, and who keeps the book. */
import type { StoreName } from './ownership.ts';

/** What the proxy knows of a write whose outcome it does not know. */
export interface ProxyDoubt {
  readonly partition: string;
  readonly store: StoreName;
  readonly epoch: number;
  readonly method: string;
  /** Without its query. */
  readonly path: string;
  /** One sentence: how it came that nobody knows. */
  readonly why: string;
}

export interface NewDoubt extends ProxyDoubt {
  readonly member: string;
  /** For how long it may still take effect. */
  readonly settleMs: number;
}

export interface DoubtfulWrite extends ProxyDoubt {
  readonly id: string;
  readonly member: string;
  /** Redis clock. */
  readonly atMs: number;
  readonly settlesAtMs: number;
  readonly resolved?: { readonly by: string; readonly reason: string; readonly atMs: number } | undefined;
}

/** The book of writes in doubt, for operators. Bounded: the oldest are forgotten. */
export interface Doubts {
  note(doubt: NewDoubt): Promise<void>;
  /** Those that may still take effect, of all partitions. */
  unsettled(): Promise<DoubtfulWrite[]>;
  /** All that are remembered of one partition. */
  of(partition: string): Promise<DoubtfulWrite[]>;
  /** Marks what is unsettled as looked into; returns it. Members must be told through the ledger. */
  resolve(partition: string, by: string, reason: string): Promise<DoubtfulWrite[]>;
}

/** In the background; a note that is lost loses no safety, only an explanation. */
export interface DoubtNotes {
  note(doubt: ProxyDoubt): void;
}
