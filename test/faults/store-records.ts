/**
 * A store's records in memory, and its log: every accepted write is on disk, in order, before anybody can see
 * or hear of it.
 */
import { fdatasyncSync, openSync, writeSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import type { Accepted, Store } from './words.ts';

export interface Item {
  readonly id: string;
  readonly owner_id: string;
  /** Of the write that left it so. */
  readonly token: string;
  readonly text: string;
  readonly updated_at: string;
  readonly deleted_at: string | null;
}

export interface Author {
  readonly access: 'user' | 'copy';
  readonly epoch?: number;
}

export class StoreRecords {
  readonly #store: Store;
  readonly #items = new Map<string, Item>();
  readonly #log: number;
  #lastMs = 0;
  #lastNumber = 0;

  constructor(store: Store, logPath: string) {
    this.#store = store;
    this.#log = openSync(logPath, 'a');
  }

  get(id: string): Item | undefined {
    return this.#items.get(id);
  }

  /** Sorted by (updated_at, id); one more than `limit` where there are more. */
  list(query: {
    readonly owner: string | null;
    readonly since: string | null;
    readonly after: string | null;
    readonly limit: number;
  }): Item[] {
    const { owner, since, after, limit } = query;
    return [...this.#items.values()]
      .filter((item) => owner === null || item.owner_id === owner)
      .filter((item) => (since === null ? item.deleted_at === null : item.updated_at >= since))
      .filter((item) => after === null || positionOf(item) > after)
      .toSorted((a, b) => (positionOf(a) < positionOf(b) ? -1 : 1))
      .slice(0, limit + 1);
  }

  newId(): string {
    this.#lastNumber += 1;
    return this.#store === 'legacy' ? `L${String(this.#lastNumber).padStart(6, '0')}` : `A${randomUUID()}`;
  }

  keep(item: Omit<Item, 'updated_at' | 'deleted_at'>, author: Author, deleted = false): Item {
    // Each change has a time of its own, so that a feed of changes can be followed by it.
    this.#lastMs = Math.max(Date.now(), this.#lastMs + 1);
    const now = new Date(this.#lastMs).toISOString();
    const kept: Item = { ...item, updated_at: now, deleted_at: deleted ? now : null };
    const accepted: Accepted = {
      atMs: Date.now(),
      partition: item.owner_id,
      record: item.id,
      token: item.token,
      deleted,
      ...author,
    };
    writeSync(this.#log, `${JSON.stringify(accepted)}\n`);
    fdatasyncSync(this.#log);
    this.#items.set(item.id, kept);
    return kept;
  }
}

export function positionOf({ updated_at, id }: Item): string {
  return `${updated_at} ${id}`;
}
