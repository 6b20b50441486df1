/**
 * The turn of one restore, one at a time: it is kept as long as this process works, every step is refused once it
 * is lost, and what is written aside bears its token, so that no two restores ever write to the same place.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { inBatches } from '../batches.ts';
import type { Rules } from '../core/view.ts';
import { keyPrefix, keys, luaSource } from './connection.ts';

/** What is written aside, in the order of the scripts' keys. */
const books = ['partitions', 'registry', 'directory', 'cohorts', 'windows'] as const;
export type RestoredBook = (typeof books)[number];

export interface TurnSettings {
  /** So long an abandoned restore stands in the way, ms. */
  readonly turnMs: number;
  /** A ledger that nobody found anything missing of is marked first, so that from here on nothing is admitted. */
  readonly evenThoughHealthy: boolean;
}

/** Another restore has begun, or Redis has forgotten this one. Nothing was changed. */
export class TurnLost extends Error {
  override readonly name = 'TurnLost';
}

const entriesAtOnce = 500;
const underWay = `${keyPrefix}:restoring`;
const renewalsPerTurn = 4;

export class RestoreTurn {
  readonly #redis: Redis;
  readonly #turnMs: number;
  /** The mark was set by this restore. */
  readonly #marked: boolean;
  readonly #token: string;
  readonly #timer: NodeJS.Timeout;
  readonly #counts = new Map<RestoredBook, number>();

  private constructor(redis: Redis, token: string, turnMs: number, marked: boolean) {
    this.#redis = redis;
    this.#token = token;
    this.#turnMs = turnMs;
    this.#marked = marked;
    // What a renewal finds out, or cannot, the next step finds out too.
    this.#timer = setInterval(
      () => void this.#step().catch(() => undefined),
      Math.ceil(turnMs / renewalsPerTurn),
    );
    this.#timer.unref();
  }

  static async begin(
    redis: Redis,
    { turnMs, evenThoughHealthy }: TurnSettings,
  ): Promise<RestoreTurn | 'running' | 'not-regressed'> {
    const token = randomUUID();
    const begun = await redis.eval(
      luaSource('restore-begin'),
      ...[2, keys.meta, underWay, token, turnMs, evenThoughHealthy ? '1' : ''],
    );
    if (begun === 'running' || begun === 'not-regressed') return begun;
    return new RestoreTurn(redis, token, turnMs, begun === 'marked');
  }

  /** Members do not look there. No entry may come twice. Throws TurnLost. */
  async writeAside(book: RestoredBook, entries: Iterable<readonly [string, string]>): Promise<void> {
    for (const batch of inBatches(entries, entriesAtOnce)) {
      await this.#step(book, batch.flat());
      this.#counts.set(book, (this.#counts.get(book) ?? 0) + batch.length);
    }
  }

  /** Makes what was written aside the ledger, in one moment. Throws TurnLost, with nothing changed. */
  async finish(version: number, id: string, rules: Rules | undefined): Promise<void> {
    const finished = await this.#redis.eval(
      luaSource('restore-finish'),
      ...[14, keys.partitions, keys.meta, keys.changes, underWay, ...this.#aside],
      ...[keys.registry, keys.directory, keys.cohorts, keys.closedWindows, keys.closedWindowsVersion],
      ...[this.#token, version, id],
      ...[
        rules === undefined ? '' : JSON.stringify(rules),
        ...books.map((book) => this.#counts.get(book) ?? 0),
      ],
    );
    if (finished !== 1) throw new TurnLost('the last step of the restore was refused');
    clearInterval(this.#timer);
  }

  /** Leaves everything as it was; after `finish` there is nothing to give up. */
  async giveUp(): Promise<void> {
    clearInterval(this.#timer);
    await this.#redis.eval(
      luaSource('restore-give-up'),
      ...[2 + books.length, keys.meta, underWay, ...this.#aside, this.#token, this.#marked ? '1' : ''],
    );
  }

  get #aside(): string[] {
    return books.map((book) => `${keyPrefix}:restored:${this.#token}:${book}`);
  }

  /** Keeps the turn, and writes to a book where one is named. */
  async #step(book?: RestoredBook, fields: readonly string[] = []): Promise<void> {
    // Places in Lua begin at 1, and the turn itself stands first.
    const place = book === undefined ? '' : books.indexOf(book) + 2;
    const taken = await this.#redis.eval(
      luaSource('restore-step'),
      ...[1 + books.length, underWay, ...this.#aside, this.#token, this.#turnMs, place, ...fields],
    );
    if (taken !== 1) throw new TurnLost('another restore has begun, or Redis has forgotten this one');
  }
}
