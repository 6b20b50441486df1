/**
 * The audit log: every change an operator made, in a Redis stream, oldest first, never trimmed. Its ids are
 * the stream's, so a reader that was cut off goes on exactly where it stopped.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';

export interface NewAuditEntry {
  /** Name of the token, or of the part of onewriter that acted by itself. */
  readonly actor: string;
  /** What was done, for example `flip.pause`. */
  readonly action: string;
  /** To what: a flip's id, a cohort's name. */
  readonly target: string;
  readonly reason: string;
  readonly before: unknown;
  readonly after: unknown;
}

export interface AuditEntry extends NewAuditEntry {
  readonly id: string;
  /** Redis clock, ms since 1970. */
  readonly atMs: number;
}

export interface AuditPage {
  /** Newest first. */
  readonly entries: readonly AuditEntry[];
  /** Hand it in again for the next page; absent on the last. */
  readonly next?: string;
}

export interface AuditLog {
  append(entry: NewAuditEntry): Promise<AuditEntry>;
  page(cursor: string | undefined, limit: number): Promise<AuditPage>;
  /**
   * Calls `listener` with every entry after `fromId`, in order, each once; from now on where `fromId` is
   * undefined. Resolves, with the way out, once the starting point is fixed.
   */
  follow(fromId: string | undefined, listener: (entry: AuditEntry) => void): Promise<() => void>;
}

const key = '{onewriter}:audit';
const blockMs = 2_000;
/** How much longer than it may block a waiting call may take. */
const answerMs = 5_000;
const retryMs = 250;
const batch = 200;

/** An entry's id as Redis writes it: milliseconds, a dash, a sequence number. */
export const auditId = /^\d{1,16}-\d{1,16}$/;

const stored = z.object({
  actor: z.string(),
  action: z.string(),
  target: z.string(),
  reason: z.string(),
  before: z.unknown(),
  after: z.unknown(),
});

type RawEntry = readonly [id: string, fields: readonly string[]];

interface Follower {
  lastId: string;
  readonly listener: (entry: AuditEntry) => void;
  running: boolean;
  again: boolean;
  stopped: boolean;
}

/**
 * `client` is used for commands that return at once; a second connection, made from it when somebody follows,
 * waits for news. `close` ends only that second one.
 */
export class RedisAuditLog implements AuditLog {
  readonly #client: Redis;
  readonly #followers = new Set<Follower>();
  #waiter: Redis | undefined;

  constructor(client: Redis) {
    this.#client = client;
  }

  async append(entry: NewAuditEntry): Promise<AuditEntry> {
    const id = await this.#client.xadd(key, '*', 'entry', JSON.stringify(entry));
    if (id === null) throw new Error('Redis gave the audit entry no id');
    return { ...entry, id, atMs: atMsOf(id) };
  }

  async page(cursor: string | undefined, limit: number): Promise<AuditPage> {
    const from = cursor === undefined ? '+' : `(${cursor}`;
    const raw = await this.#client.xrevrange(key, from, '-', 'COUNT', limit + 1);
    const entries = raw.slice(0, limit).map(parseEntry);
    const last = entries.at(-1);
    return raw.length > limit && last !== undefined ? { entries, next: last.id } : { entries };
  }

  async follow(fromId: string | undefined, listener: (entry: AuditEntry) => void): Promise<() => void> {
    const lastId = fromId ?? (await this.#newestId());
    const follower: Follower = { lastId, listener, running: false, again: false, stopped: false };
    this.#followers.add(follower);
    void this.#catchUp(follower);
    if (this.#waiter === undefined) {
      this.#waiter = this.#client.duplicate({
        lazyConnect: false,
        enableOfflineQueue: true,
        maxRetriesPerRequest: null,
        commandTimeout: blockMs + answerMs,
      });
      void this.#wait(this.#waiter);
    }
    return () => {
      follower.stopped = true;
      this.#followers.delete(follower);
      if (this.#followers.size === 0) this.close();
    };
  }

  /** Ends the connection that waits for news. Followers get nothing more. */
  close(): void {
    this.#waiter?.disconnect();
    this.#waiter = undefined;
  }

  async #newestId(): Promise<string> {
    const newest = await this.#client.xrevrange(key, '+', '-', 'COUNT', 1);
    return newest[0]?.[0] ?? '0-0';
  }

  /** Wakes the followers when the stream grows. What they read, they read themselves, from their own place. */
  async #wait(waiter: Redis): Promise<void> {
    waiter.on('error', () => undefined); // Reported by the command that fails; ioredis connects again.
    let seen = await this.#newestId().catch(() => '0-0');
    while (this.#waiter === waiter) {
      try {
        for (const follower of this.#followers) void this.#catchUp(follower);
        const news = await waiter.xread('COUNT', batch, 'BLOCK', blockMs, 'STREAMS', key, seen);
        seen = news?.[0]?.[1].at(-1)?.[0] ?? seen;
      } catch {
        if (this.#waiter !== waiter) return;
        await new Promise((resolve) => {
          setTimeout(resolve, retryMs).unref();
        });
      }
    }
  }

  async #catchUp(follower: Follower): Promise<void> {
    follower.again = true;
    if (follower.running) return;
    follower.running = true;
    try {
      while (follower.again && !follower.stopped) {
        follower.again = false;
        const raw = await this.#client.xrange(key, `(${follower.lastId}`, '+', 'COUNT', batch);
        for (const entry of raw) {
          if (follower.stopped) return;
          follower.lastId = entry[0];
          follower.listener(parseEntry(entry));
        }
        if (raw.length === batch) follower.again = true;
      }
    } catch {
      // Redis is away. The next round of #wait tries again from the same place.
    } finally {
      follower.running = false;
    }
  }
}

function parseEntry([id, fields]: RawEntry): AuditEntry {
  const at = fields.indexOf('entry');
  const entry = stored.parse(JSON.parse(fields[at + 1] ?? 'null'));
  return { ...entry, id, atMs: atMsOf(id) };
}

function atMsOf(id: string): number {
  return Number(id.slice(0, id.indexOf('-')));
}
