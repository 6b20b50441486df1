/** The directory of users: the entries in Redis, and what one proxy process remembers of them. */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import type { Directory, DirectoryBook, DirectoryChange, DirectoryResult } from '../core/homes.ts';
import { keys, luaSource } from './connection.ts';
import type { DurableWrites } from './durable-writes.ts';
import { changesKept } from './ledger.ts';

export class RedisDirectory implements DirectoryBook {
  readonly #redis: Redis;
  readonly #writes: DurableWrites;

  constructor(redis: Redis, writes: DurableWrites) {
    this.#redis = redis;
    this.#writes = writes;
    writes.define('onewriterDirectory', { numberOfKeys: 5, lua: luaSource('directory') });
  }

  async partitionOf(user: string): Promise<string | undefined> {
    return (await this.#redis.hget(keys.directory, user)) ?? undefined;
  }

  async partitionsOf(users: readonly string[]): Promise<(string | undefined)[]> {
    if (users.length === 0) return [];
    const found = await this.#redis.hmget(keys.directory, ...users);
    return found.map((partition) => partition ?? undefined);
  }

  async change({ entries, conditions, rules, by, reason }: DirectoryChange): Promise<DirectoryResult> {
    const wanted = entries.map(({ user, partition, expected = '' }) => ({ user, partition, expected }));
    const [answer = '', subject = '', detail = ''] = await this.#writes.sendSurely<string[]>((pipeline) =>
      pipeline.onewriterDirectory(
        ...[keys.meta, keys.changes, keys.directory, keys.partitions, keys.registry],
        ...[JSON.stringify(wanted), JSON.stringify(conditions), rules, randomUUID(), by, reason, changesKept],
      ),
    );
    switch (answer) {
      case 'done':
        return { result: 'done' };
      case 'changed':
        return { result: 'changed', user: subject, partition: detail === '' ? undefined : detail };
      case 'not-fenced':
      case 'claimed':
        return { result: answer, partition: subject };
      case 'rules-changed':
        return { result: answer };
      default:
        return { result: 'ledger-regressed', detail: subject };
    }
  }
}

/** Beyond it the oldest is forgotten, and looked up again. */
const remembered = 100_000;
/** A user whose entry changes this often while it is being looked up is left to whoever asks next. */
const readsMax = 5;

/**
 * Entries as they were when this process last heard of them. It hears of every change in the ledger's stream, in
 * order with the fences around it; so as long as the member's view is good, what stands here is.
 */
export class DirectoryMemory implements Directory {
  readonly #read: (user: string) => Promise<string | undefined>;
  readonly #entries = new Map<string, string | null>();
  readonly #looking = new Map<string, { readonly found: Promise<void>; stale: boolean }>();

  /** `read` rejects where nobody can tell, also whether what it found is there to stay. */
  constructor(read: (user: string) => Promise<string | undefined>) {
    this.#read = read;
  }

  cached(user: string): string | null | undefined {
    return this.#entries.get(user);
  }

  look(user: string): Promise<void> {
    const under = this.#looking.get(user);
    if (under !== undefined) return under.found;
    const look = { found: Promise.resolve(), stale: false };
    look.found = this.#lookUp(user, look).finally(() => this.#looking.delete(user));
    this.#looking.set(user, look);
    return look.found;
  }

  changed(user: string): void {
    this.#entries.delete(user);
    const under = this.#looking.get(user);
    if (under !== undefined) under.stale = true;
  }

  clear(): void {
    this.#entries.clear();
    for (const under of this.#looking.values()) under.stale = true;
  }

  async #lookUp(user: string, look: { stale: boolean }): Promise<void> {
    for (let reads = 0; reads < readsMax; reads += 1) {
      look.stale = false;
      const found = await this.#read(user);
      // Read before a change that was heard of since: what was found may be what was before it.
      if (look.stale) continue;
      this.#remember(user, found ?? null);
      return;
    }
  }

  #remember(user: string, entry: string | null): void {
    const [oldest] = this.#entries.keys();
    if (oldest !== undefined && this.#entries.size >= remembered) this.#entries.delete(oldest);
    this.#entries.set(user, entry);
  }
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterDirectory(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
