/** A real ledger with real members in one process, for tests of the protocol. */
import { connectRedis } from '../../src/ledger/connection.ts';
import { StreamFeed } from '../../src/ledger/feed.ts';
import { RedisLedger } from '../../src/ledger/ledger.ts';
import { Membership } from '../../src/ledger/membership.ts';
import { RedisRegistry } from '../../src/ledger/books.ts';
import type { TestRedis } from './redis.ts';

export interface TestLedger {
  readonly ledger: RedisLedger;
  readonly feed: StreamFeed;
  readonly registry: RedisRegistry;
  join(settings?: { leaseMs?: number; settleMs?: number }): Promise<Membership>;
  close(): Promise<void>;
}

export async function openLedger(server: TestRedis): Promise<TestLedger> {
  const address = { url: server.url };
  const redis = await connectRedis(address);
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas: 0 });
  const registry = new RedisRegistry(redis);
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
    join: async ({ leaseMs = 3_000, settleMs = 200 } = {}) => {
      const member = await Membership.join({
        ledger,
        redis,
        openFeed,
        registry,
        settings: {
          leaseMs,
          marginMs: leaseMs / 10,
          settleMs: { legacy: settleMs, app: 0 },
          defaultOwner: 'legacy',
          writeTimeoutMs: 500,
          configHash: 'same',
          rememberMs: 600_000,
        },
        flushReceipts: async () => undefined,
        log: () => undefined,
      });
      members.push(member);
      return member;
    },
    close: async () => {
      for (const member of members) await member.stop();
      await feed.stop();
      redis.disconnect();
    },
  };
}
