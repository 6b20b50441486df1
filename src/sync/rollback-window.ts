/**
 * The rollback window: of partitions that live in the app, what users write there is copied back to legacy, so that they
 * can go back. It opens with the commit, and is closed by an operator; then nothing of the partition is copied back until
 * it has come to the app once more. Which way copies go, the ledger alone says: here stands only where they have ended.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { inBatches } from '../batches.ts';
import type { Ownership, StoreName } from '../core/ownership.ts';
import type { Ledger } from '../core/ports.ts';
import { keyPrefix, redisNowMs } from '../ledger/connection.ts';

/** The store that partitions leave, and that gets copies only through the window. */
export const leftStore: StoreName = 'legacy';

const closedKey = `${keyPrefix}:sync:windows-closed`;
const versionKey = `${closedKey}:version`;
const partitionsAtOnce = 1_000;
/** For how long it is believed that no window is open: only a look at every partition tells. */
const noneOpenMs = 1_000;

const closedSchema = z.object({ by: z.string(), reason: z.string(), atMs: z.number() });
export type ClosedWindow = z.output<typeof closedSchema>;

// KEYS: 1 closed windows, 2 version. ARGV: 1 entry, then partitions. Returns how many were open.
const closeScript = `
local closed = 0
for at = 2, #ARGV do closed = closed + redis.call('HSETNX', KEYS[1], ARGV[at], ARGV[1]) end
if closed > 0 then redis.call('INCR', KEYS[2]) end
return closed`;

// KEYS: as above. ARGV: 1 partition.
const reopenScript = `
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[2]) end
return 0`;

/** As of one moment, for who only wants to spare useless work. */
export interface WindowView {
  readonly anyOpen: boolean;
  isClosed(partition: string): boolean;
}

export interface WindowParts {
  readonly redis: Redis;
  readonly ledger: Pick<Ledger, 'touched'>;
  readonly ownershipOf: (partition: string) => Ownership | undefined;
}

export class RollbackWindow {
  readonly #parts: WindowParts;
  #known: { readonly version: string | null; readonly closed: ReadonlySet<string> } | undefined;
  #open: string | undefined;
  #noneOpenUntilMs = 0;

  constructor(parts: WindowParts) {
    this.#parts = parts;
  }

  async isClosed(partition: string): Promise<boolean> {
    return (await this.#parts.redis.hexists(closedKey, partition)) === 1;
  }

  /** Returns how many were open. A copy that is on its way at this moment may still arrive. */
  async close(partitions: readonly string[], by: string, reason: string): Promise<number> {
    const { redis } = this.#parts;
    const entry: ClosedWindow = { by, reason, atMs: await redisNowMs(redis) };
    let closed = 0;
    for (const batch of inBatches(partitions, partitionsAtOnce)) {
      const given = await redis.eval(closeScript, 2, closedKey, versionKey, JSON.stringify(entry), ...batch);
      closed += Number(given);
    }
    return closed;
  }

  /** The partition is about to come to the app: what was closed before belonged to another stay. */
  async reopen(partition: string): Promise<void> {
    await this.#parts.redis.eval(reopenScript, 2, closedKey, versionKey, partition);
  }

  async closed(): Promise<ReadonlySet<string>> {
    const { redis } = this.#parts;
    // The version is read first: what changes after it is seen next time.
    const version = await redis.get(versionKey);
    if (this.#known?.version !== version) {
      this.#known = { version, closed: new Set(await redis.hkeys(closedKey)) };
    }
    return this.#known?.closed ?? new Set();
  }

  async closedBy(partition: string): Promise<ClosedWindow | undefined> {
    const text = await this.#parts.redis.hget(closedKey, partition);
    return text === null ? undefined : closedSchema.parse(JSON.parse(text));
  }

  async view(): Promise<WindowView> {
    const closed = await this.closed();
    return { anyOpen: await this.#anyOpen(closed), isClosed: (partition) => closed.has(partition) };
  }

  async #anyOpen(closed: ReadonlySet<string>): Promise<boolean> {
    const { ledger, ownershipOf } = this.#parts;
    const isOpen = (partition: string, ownership: Ownership | undefined): boolean =>
      ownership !== undefined && ownership.owner !== leftStore && !closed.has(partition);
    if (this.#open !== undefined && isOpen(this.#open, ownershipOf(this.#open))) return true;
    if (performance.now() < this.#noneOpenUntilMs) return false;
    this.#open = undefined;
    for (const [partition, { ownership }] of await ledger.touched()) {
      if (!isOpen(partition, ownership)) continue;
      this.#open = partition;
      return true;
    }
    this.#noneOpenUntilMs = performance.now() + noneOpenMs;
    return false;
  }
}
