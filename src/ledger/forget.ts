/** What the ledger's books keep of a partition beside its ownership, counted and taken out when it is erased. */
import type { Redis } from 'ioredis';
import type { ErasurePlace, ErasureSubject, PartitionMemory } from '../core/erasure.ts';
import { type LinkBook, pairOf } from '../core/links.ts';
import { sentenceOf } from '../log.ts';
import type { RedisRegistry } from './books.ts';
import type { RedisDoubts } from './doubts.ts';
import type { FlipBook } from './flips.ts';
import { countKeys, forgetKeys } from './idempotency.ts';

export interface LedgerMemoryParts {
  readonly redis: Redis;
  readonly doubts: RedisDoubts;
  readonly links: LinkBook;
  readonly registry: RedisRegistry;
  readonly flips: FlipBook;
}

const by = 'erasure';
/** What stays until the sweep. */
export const laterPlace = 'writes-in-doubt';

/**
 * Has Redis write its append-only file anew, which else holds what was removed until it has doubled. Answers a warning
 * where it would not.
 */
export async function compactFiles(redis: Redis): Promise<string | undefined> {
  const what = "Redis's append-only file holds what was removed until it is rewritten (BGREWRITEAOF)";
  try {
    if (!(await redis.info('persistence')).includes('aof_enabled:1')) return undefined;
    await redis.bgrewriteaof();
    return undefined;
  } catch (error) {
    const isUnderWay = error instanceof Error && /already in progress/i.test(error.message);
    return isUnderWay ? `${what}; a rewrite was under way already` : `${what}: ${sentenceOf(error)}`;
  }
}

export class LedgerMemory implements PartitionMemory {
  readonly #parts: LedgerMemoryParts;

  constructor(parts: LedgerMemoryParts) {
    this.#parts = parts;
  }

  async count({ partition }: ErasureSubject): Promise<readonly ErasurePlace[]> {
    const { redis, doubts, registry, flips } = this.#parts;
    const partners = await this.#partnersOf(partition);
    const places: Readonly<Record<string, number>> = {
      'idempotency-keys': await countKeys(redis, partition),
      [laterPlace]: (await doubts.of(partition)).length,
      links: partners.length,
      attributes: Object.keys(await registry.attributesOf(partition)).length,
      'flip-reports': await flips.explaining(partition),
    };
    return Object.entries(places).map(([place, entries]) => ({ place, entries }));
  }

  async forget({ partition }: ErasureSubject): Promise<void> {
    const { redis, registry, flips } = this.#parts;
    await forgetKeys(redis, partition);
    await registry.forgetAttributes(partition);
    await flips.forgetWords(partition);
    await this.#forgetLinks(partition);
  }

  /** Until now they told a late write from one that nobody of ours sent; those that are not settled are newer. */
  async sweep({ partition }: ErasureSubject): Promise<readonly ErasurePlace[]> {
    return [{ place: laterPlace, entries: await this.#parts.doubts.forgetSettled(partition) }];
  }

  async #forgetLinks(partition: string): Promise<void> {
    const { links } = this.#parts;
    for (const partner of await this.#partnersOf(partition)) {
      const done = await links.forget(pairOf(partition, partner), by, 'one of the two was erased');
      if (done.result === 'ledger-regressed') throw new Error(done.detail);
    }
  }

  async #partnersOf(partition: string): Promise<readonly string[]> {
    return (await this.#parts.links.partnersOf([partition])).get(partition) ?? [];
  }
}
