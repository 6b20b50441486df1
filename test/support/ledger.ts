/** A real ledger with real members in one process, for tests of the protocol. */
import type { StoreName } from '../../src/core/ownership.ts';
import type { Redis } from 'ioredis';
import { connectRedis } from '../../src/ledger/connection.ts';
import { StreamFeed } from '../../src/ledger/feed.ts';
import type { DirectoryMemory } from '../../src/ledger/directory.ts';
import { RedisDoubts } from '../../src/ledger/doubts.ts';
import { RedisLedger } from '../../src/ledger/ledger.ts';
import { type LinkMemory, RedisLinks } from '../../src/ledger/links.ts';
import { Membership } from '../../src/ledger/membership.ts';
import { RedisRegistry } from '../../src/ledger/books.ts';
import type { KeptView } from '../../src/ledger/kept-views.ts';
import type { Log } from '../../src/log.ts';

export interface TestLedger {
  readonly ledger: RedisLedger;
  readonly feed: StreamFeed;
  readonly registry: RedisRegistry;
  readonly doubts: RedisDoubts;
  readonly links: RedisLinks;
  /** For what the ledger itself has no words for. */
  readonly redis: Redis;
  join(settings?: {
    leaseMs?: number;
    settleMs?: number;
    rulesHash?: string;
    newPartitions?: StoreName;
    unexpirable?: boolean;
    before?: KeptView;
    directory?: DirectoryMemory;
    links?: LinkMemory;
    log?: Log;
  }): Promise<Membership>;
  close(): Promise<void>;
}

export async function openLedger(
  server: { readonly url: string },
  { minReplicas = 0 }: { readonly minReplicas?: number } = {},
): Promise<TestLedger> {
  const address = { url: server.url };
  const redis = await connectRedis(address);
  const writing = minReplicas === 0 ? redis : await connectRedis(address);
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas }, writing);
  const registry = new RedisRegistry(redis);
  const doubts = new RedisDoubts(redis);
  const links = new RedisLinks(redis, ledger.writes);
  const openFeed = async (version: number, acknowledgements = false): Promise<StreamFeed> =>
    StreamFeed.open(
      await connectRedis(address, { blockingMs: 1_000 }),
      { version, acknowledgements },
      () => undefined,
    );
  const { position } = await ledger.snapshot();
  const feed = await openFeed(position.version, true);
  const members: Membership[] = [];
  return {
    ledger,
    feed,
    registry,
    doubts,
    links,
    redis,
    join: async (asked = {}) => {
      const { leaseMs = 3_000, settleMs = 200, rulesHash = 'same', newPartitions = 'legacy' } = asked;
      const member = await Membership.join({
        ledger,
        redis,
        openFeed,
        registry,
        doubts,
        ...(asked.directory && { directory: asked.directory }),
        ...(asked.links && { links: asked.links }),
        settings: {
          leaseMs,
          marginMs: leaseMs / 10,
          settleMs: { legacy: settleMs, app: 0 },
          defaultOwner: 'legacy',
          writeTimeoutMs: 500,
          rules: { hash: rulesHash, newPartitions },
          rememberMs: 600_000,
          unexpirable: asked.unexpirable ?? false,
        },
        before: asked.before,
        log: asked.log ?? (() => undefined),
      });
      members.push(member);
      return member;
    },
    close: async () => {
      for (const member of members) await member.stop();
      await feed.stop();
      redis.disconnect();
      writing.disconnect();
    },
  };
}
