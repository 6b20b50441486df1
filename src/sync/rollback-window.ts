/**
 * The rollback window: of partitions that live in the app, what users write there is copied back to legacy, so that they
 * can go back. It opens with the commit, and is closed by an operator; then nothing of the partition is copied back until
 * it has come to the app once more. Which way copies go, the ledger alone says: here stands only where they have ended.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { inBatches } from '../batches.ts';
import type { Ownership, StoreName } from '../core/ownership.ts';
import type { Ledger } from '../core/ports.ts';
import { type ClosedWindow, closedWindowSchema } from '../ledger/closed-window.ts';
import { keys, redisNowMs } from '../ledger/connection.ts';

/** The store that partitions leave, and that gets copies only through the window. */
export const leftStore: StoreName = 'legacy';

const { closedWindows: closedKey, closedWindowsVersion: versionKey } = keys;
const partitionsAtOnce = 1_000;
/** For how long it is believed that no window is open: only a look at every partition tells. */
const noneOpenMs = 1_000;

// The version is random: a number that is counted anew after a loss of Redis could be one that somebody knows.
// KEYS: 1 closed windows, 2 version. ARGV: 1 new version, 2 entry, then partitions. Returns how many were open.
const closeScript = `
local closed = 0
for at = 3, #ARGV do
  local text = redis.call('HGET', KEYS[1], ARGV[at])
  if not text then closed = closed + 1 end
  if not text or cjson.decode(text).byRestore then redis.call('HSET', KEYS[1], ARGV[at], ARGV[2]) end
end
redis.call('SET', KEYS[2], ARGV[1])
return closed`;

// KEYS: as above. ARGV: 1 new version, then partitions. Returns how many a restore had closed; only those are opened.
const openScript = `
local opened = 0
for at = 2, #ARGV do
  local text = redis.call('HGET', KEYS[1], ARGV[at])
  if text and cjson.decode(text).byRestore then opened = opened + redis.call('HDEL', KEYS[1], ARGV[at]) end
end
redis.call('SET', KEYS[2], ARGV[1])
return opened`;

// KEYS: as above. ARGV: 1 new version, 2 partition.
const reopenScript = `
if redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then redis.call('SET', KEYS[2], ARGV[1]) end
return 0`;

/** As of one moment, for who only wants to spare useless work. */
export interface WindowView {
  readonly anyOpen: boolean;
  isClosed(partition: string): boolean;
}

export interface WindowParts {
  readonly redis: Redis;
  readonly ledger: Pick<Ledger, 'touched' | 'noteClosedWindows'>;
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

  /**
   * Returns how many were open. A copy that is on its way at this moment may still arrive. Throws where the ledger cannot
   * note it; then a later loss of Redis may take it along unseen.
   */
  async close(partitions: readonly string[], by: string, reason: string): Promise<number> {
    const { redis, ledger } = this.#parts;
    const entry: ClosedWindow = { by, reason, atMs: await redisNowMs(redis) };
    const closed = await this.#change(closeScript, partitions, JSON.stringify(entry));
    // Afterwards, so that whatever holds the note holds what it stands for.
    if (partitions.length > 0) await ledger.noteClosedWindows(by, reason);
    return closed;
  }

  /** Of partitions whose window a restore of the ledger has closed; returns how many. What an operator closed stays. */
  open(partitions: readonly string[]): Promise<number> {
    return this.#change(openScript, partitions);
  }

  async #change(script: string, partitions: readonly string[], ...more: readonly string[]): Promise<number> {
    let changed = 0;
    for (const batch of inBatches(partitions, partitionsAtOnce)) {
      const given = [closedKey, versionKey, randomUUID(), ...more, ...batch];
      changed += Number(await this.#parts.redis.eval(script, 2, ...given));
    }
    return changed;
  }

  /** The partition is about to come to the app: what was closed before belonged to another stay. */
  async reopen(partition: string): Promise<void> {
    await this.#change(reopenScript, [partition]);
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

  /** Those of them that no operator has closed. */
  async closedByRestore(): Promise<ReadonlySet<string>> {
    const all = Object.entries(await this.#parts.redis.hgetall(closedKey));
    const byRestore = all.filter(([, text]) => closedWindowSchema.parse(JSON.parse(text)).byRestore === true);
    return new Set(byRestore.map(([partition]) => partition));
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
