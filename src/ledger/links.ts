/** Which partitions are written together: the book in Redis, and what one proxy process knows to stand in it. */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import {
  type ForgetLinkResult,
  type Link,
  type LinkBook,
  type LinkNotes,
  type LinkPage,
  LinkShareSpent,
  type Pair,
  pairOf,
  pairsOf,
} from '../core/links.ts';
import { inTime } from '../pause.ts';
import { keys, luaSource } from './connection.ts';
import type { DurableWrites } from './durable-writes.ts';
import { changesKept } from './ledger.ts';
import { LinkShares } from './link-shares.ts';

/** About 500 bytes of Redis each. Beyond it no further partitions can be joined until some are forgotten. */
const usualLinksKept = 200_000;
const askedAtOnce = 500;
/** Parts the two names of a member of the sets; no name holds a control character. */
const between = '\n';
/** Behind every member that begins with a name and `between`. */
const behind = '\u000b';

const notedSchema = z.object({ atMs: z.number(), route: z.string() });

export class RedisLinks implements LinkBook {
  readonly #redis: Redis;
  readonly #writes: DurableWrites;
  readonly #kept: number;

  constructor(redis: Redis, writes: DurableWrites, kept = usualLinksKept) {
    this.#redis = redis;
    this.#writes = writes;
    this.#kept = kept;
    writes.define('onewriterLinksNote', { numberOfKeys: 2, lua: luaSource('links-note') });
    writes.define('onewriterLinkForget', { numberOfKeys: 4, lua: luaSource('link-forget') });
  }

  /**
   * Resolves once as many replicas as must have them have got them; what was there already stays as it was. Answers how
   * many were new; LinkShareSpent where those would be more than `freshMax`.
   */
  async note(pairs: readonly Pair[], route: string, freshMax = Number.MAX_SAFE_INTEGER): Promise<number> {
    let fresh = 0;
    for (let at = 0; at < pairs.length; at += askedAtOnce) {
      const group = pairs.slice(at, at + askedAtOnce).flat();
      const [answer, added = 0] = await this.#writes.sendSurely<[string, number?]>((pipeline) =>
        pipeline.onewriterLinksNote(
          ...[keys.links, keys.partners, this.#kept, route, freshMax - fresh],
          ...group,
        ),
      );
      fresh += added;
      if (answer === 'too-many') throw new LinkShareSpent(0);
      if (answer !== 'noted') {
        throw new Error(
          `${this.#kept} links are noted already; forget some that are no longer true (onewriter links list)`,
        );
      }
    }
    return fresh;
  }

  async partnersOf(partitions: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>> {
    const found = new Map<string, readonly string[]>();
    for (let at = 0; at < partitions.length; at += askedAtOnce) {
      const group = partitions.slice(at, at + askedAtOnce);
      const pipeline = this.#redis.pipeline();
      for (const name of group) {
        pipeline.zrangebylex(keys.partners, `[${name}${between}`, `(${name}${behind}`);
      }
      const results = (await pipeline.exec()) ?? [];
      for (const [index, name] of group.entries()) {
        const [error, members] = results[index] ?? [new Error('Redis did not answer')];
        if (error) throw error;
        const partners = (members as string[]).map((member) => namesIn(member)[1]);
        if (partners.length > 0) found.set(name, partners);
      }
    }
    return found;
  }

  async page(after: string, limit: number, partition?: string): Promise<LinkPage> {
    const from = after !== '' ? `(${after}` : partition === undefined ? '-' : `[${partition}${between}`;
    const to = partition === undefined ? '+' : `(${partition}${behind}`;
    const members: string[] = [];
    let start = from;
    // Each link stands there from both sides; over all partitions it is shown from one.
    for (;;) {
      const read = await this.#redis.zrangebylex(keys.partners, start, to, 'LIMIT', 0, 2 * limit + 1);
      members.push(...read.filter((member) => partition !== undefined || isInOrder(namesIn(member))));
      const last = read.at(-1);
      if (members.length > limit || last === undefined || read.length <= 2 * limit) break;
      start = `(${last}`;
    }
    const shown = members.slice(0, limit);
    const links = await this.#linksOf(shown.map((member) => pairOf(...namesIn(member))));
    const last = shown.at(-1);
    return members.length > limit && last !== undefined ? { links, next: last } : { links };
  }

  async forget(pair: Pair, by: string, reason: string): Promise<ForgetLinkResult> {
    const [answer, detail] = await this.#writes.sendSurely<[string, string]>((pipeline) =>
      pipeline.onewriterLinkForget(
        ...[keys.links, keys.partners, keys.meta, keys.changes, ...pair],
        ...[randomUUID(), by, reason, changesKept],
      ),
    );
    switch (answer) {
      case 'forgotten':
        return { result: answer, link: linkOf(pair, detail) };
      case 'ledger-regressed':
        return { result: answer, detail };
      default:
        return { result: 'unknown' };
    }
  }

  async all(): Promise<Link[]> {
    const all = await this.#redis.hgetall(keys.links);
    return Object.entries(all).map(([member, noted]) => linkOf(namesIn(member), noted));
  }

  async #linksOf(pairs: readonly Pair[]): Promise<Link[]> {
    if (pairs.length === 0) return [];
    const noted = await this.#redis.hmget(keys.links, ...pairs.map((pair) => pair.join(between)));
    // One that was forgotten since is left out.
    return pairs.flatMap((pair, at) => {
      const text = noted[at];
      return typeof text === 'string' ? [linkOf(pair, text)] : [];
    });
  }
}

function namesIn(member: string): Pair {
  const [one = '', other = ''] = member.split(between);
  return [one, other];
}

function isInOrder([one, other]: Pair): boolean {
  return one < other;
}

function linkOf(partitions: Pair, noted: string): Link {
  return { partitions, ...notedSchema.parse(JSON.parse(noted)) };
}

/** Pairs that are remembered as noted; who is forgotten is noted once more. */
const remembered = 100_000;
/** Longest that a write waits for the note. */
const noteWithinMs = 1_000;

/** Like `note` of RedisLinks. */
type NoteNew = (pairs: readonly Pair[], route: string, freshMax: number) => Promise<number>;

/**
 * Pairs that this process knows to be noted. It hears in the ledger's stream of every one that is forgotten, so what
 * stands here is as good as the member's view.
 */
export class LinkMemory implements LinkNotes {
  readonly #note: NoteNew;
  readonly #shares: LinkShares;
  readonly #known = new Set<string>();
  /** Grows whenever something was forgotten: what was noted before may be gone. */
  #forgotten = 0;

  constructor(note: NoteNew, shares = new LinkShares(() => performance.now())) {
    this.#note = note;
    this.#shares = shares;
  }

  known(partitions: readonly string[]): boolean {
    return pairsOf(partitions).every((pair) => this.#known.has(pair.join(between)));
  }

  async note(partitions: readonly string[], route: string, user = ''): Promise<void> {
    const pairs = pairsOf(partitions).filter((pair) => !this.#known.has(pair.join(between)));
    const before = this.#forgotten;
    const noted = this.#shares.take(user, pairs.length, (freshMax) => this.#note(pairs, route, freshMax));
    await inTime(noted, noteWithinMs, `the ledger did not note a link within ${noteWithinMs} ms`);
    if (before !== this.#forgotten) return;
    if (this.#known.size + pairs.length > remembered) this.#known.clear();
    for (const pair of pairs) this.#known.add(pair.join(between));
  }

  forgotten(pair: Pair): void {
    this.#forgotten += 1;
    this.#known.delete(pair.join(between));
  }

  clear(): void {
    this.#forgotten += 1;
    this.#known.clear();
  }
}

declare module 'ioredis' {
  interface ChainableCommander {
    onewriterLinksNote(...keysAndArguments: (string | number)[]): ChainableCommander;
    onewriterLinkForget(...keysAndArguments: (string | number)[]): ChainableCommander;
  }
}
