/**
 * What a run leaves behind, as lines of NDJSON: the clients' history and each store's own log. Written by
 * clients and stores, judged by the checker; none of it comes from the program under test.
 */
import { readFile } from 'node:fs/promises';

export type Store = 'legacy' | 'app';
export const bothStores: readonly Store[] = ['legacy', 'app'];

export function otherOf(store: Store): Store {
  return store === 'legacy' ? 'app' : 'legacy';
}

export type Operation = 'create' | 'change' | 'remove' | 'read';

/** A client is about to send a request. It is never sent again. */
export interface Invoked {
  readonly step: 'invoke';
  readonly atMs: number;
  /** Number of the request, unique in the run. */
  readonly request: number;
  readonly user: string;
  readonly partition: string;
  readonly operation: Operation;
  /** Unique in the run; every write has one. */
  readonly token?: string;
  /** Absent for a record that is being created. */
  readonly record?: string;
  /** Name of the proxy that it is sent to. */
  readonly proxy: string;
}

/**
 * `fail`: definitely not applied, because onewriter said so (`sent: no`), because a store answered that it
 * refuses, or because nobody listened. `unknown`: anything else that is no success.
 */
export interface Ended {
  readonly step: 'ok' | 'fail' | 'unknown';
  readonly atMs: number;
  readonly request: number;
  readonly status?: number;
  /** Problem code, or what became of the connection. */
  readonly code?: string;
  /** Who answered, as the answer says (debug headers). */
  readonly store?: Store;
  readonly epoch?: number;
  /** Of a created record. */
  readonly record?: string;
  /** What a read found: the token of the write that the record shows, or null where there was none. */
  readonly seen?: string | null;
}

export type HistoryEntry = Invoked | Ended;

/** One write that a store accepted, in the order in which it did. */
export interface Accepted {
  readonly atMs: number;
  readonly partition: string;
  readonly record: string;
  /** Of the record as it is now: the writer's own, or for a copy the one that it carried. '' for a copied delete. */
  readonly token: string;
  readonly access: 'user' | 'copy';
  readonly deleted: boolean;
  /** What the guard's headers said, where the store gets them. */
  readonly epoch?: number;
}

/** As Redis gives an entry of the ledger's stream of transitions. */
export interface RawTransition {
  readonly id: string;
  readonly fields: readonly string[];
}

/** A process that stood still: what can happen only then is told apart by this. */
export interface Frozen {
  readonly process: string;
  readonly fromMs: number;
  /** Infinity where it was killed before it went on. */
  readonly toMs: number;
}

/** A last line that was cut off is left out. */
export function parseLines<Line>(text: string): Line[] {
  const lines = text.split('\n');
  lines.pop();
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Line);
}

export async function readLines<Line>(path: string): Promise<Line[]> {
  return parseLines<Line>(await readFile(path, 'utf8'));
}
