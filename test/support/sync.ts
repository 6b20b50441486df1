/** A sync between two small REST stores, with a real Redis, its ledger and its registry. */
import type { Redis } from 'ioredis';
import { configSchema, type Config } from '../../src/config/schema.ts';
import type { Ownership, TransitionOrder } from '../../src/core/ownership.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { feedBlockMs, StreamFeed } from '../../src/ledger/feed.ts';
import { RedisRegistry } from '../../src/ledger/books.ts';
import { RedisLedger } from '../../src/ledger/ledger.ts';
import { createSync, type Sync } from '../../src/sync/create.ts';
import type { TestRedis } from './redis.ts';
import { connectorFor, type RestStoreOptions, startRestStore, type TestRestStore } from './rest-store.ts';

export interface SyncRig {
  readonly legacy: TestRestStore;
  readonly app: TestRestStore;
  readonly ledger: RedisLedger;
  readonly registry: RedisRegistry;
  readonly redis: Redis;
  readonly config: Config;
  sync: Sync;
  readonly events: { readonly event: string; readonly fields: Readonly<Record<string, unknown>> }[];
  order(partition: string, order: TransitionOrder): Promise<void>;
  /** Moves the partition to the app, through every step of the ledger. */
  flip(partition: string): Promise<void>;
  /** Another process of the same deployment. */
  restartSync(): Promise<void>;
  /** One more beside it; whoever starts it stops it. */
  another(): Promise<Sync>;
  stop(): Promise<void>;
}

export interface SyncRigOptions {
  readonly legacy?: RestStoreOptions;
  readonly app?: RestStoreOptions;
  /** Another platform in the place of the small one. */
  readonly legacyUrl?: string;
  readonly legacyConnector?: Record<string, unknown>;
  readonly legacyStore?: Record<string, unknown>;
  readonly appStore?: Record<string, unknown>;
  readonly sync?: Record<string, unknown>;
  /** Other sections of the configuration. */
  readonly more?: Record<string, unknown>;
  /** What the processes have heard; left out: as much as one knows that has just started. */
  readonly ownershipOf?: (partition: string) => Ownership | undefined;
}

export async function startSyncRig(
  server: Pick<TestRedis, 'url'>,
  options: SyncRigOptions = {},
): Promise<SyncRig> {
  const redis = await connectRedis({ url: server.url });
  await redis.flushall();
  const legacy = await startRestStore(options.legacy);
  const app = await startRestStore(options.app);
  const config = configSchema.parse({
    secret: 'a-secret-of-the-sync-tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: {
      legacy: {
        url: options.legacyUrl ?? legacy.url,
        connector: { ...connectorFor(options.legacy), ...options.legacyConnector },
        ...options.legacyStore,
      },
      app: { url: app.url, guard: false, connector: connectorFor(options.app), ...options.appStore },
    },
    sync: { pollMs: 50, ...options.sync },
    ...options.more,
  });
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas: 0 });
  const registry = new RedisRegistry(redis);
  const events: SyncRig['events'] = [];
  const feeds: StreamFeed[] = [];
  const start = async (): Promise<Sync> => {
    // As a process that follows the ledger's stream.
    const blocking = await connectRedis({ url: server.url }, { blockingMs: feedBlockMs });
    const { position } = await ledger.snapshot();
    const feed = await StreamFeed.open(
      blocking,
      { version: position.version, acknowledgements: false },
      () => undefined,
    );
    feeds.push(feed);
    const known = new Map<string, Ownership>();
    feed.onTransition(({ partition, after }) => known.set(partition, after));
    for (const [partition, { ownership }] of await ledger.touched()) {
      if ((known.get(partition)?.epoch ?? 0) < ownership.epoch) known.set(partition, ownership);
    }
    return createSync({
      ...{ config, ledger, registry, redis: { url: server.url } },
      ownershipOf: options.ownershipOf ?? ((partition) => known.get(partition)),
      log: (_level, event, fields = {}) => events.push({ event, fields }),
    });
  };
  const rig: SyncRig = {
    ...{ legacy, app, ledger, registry, redis, config, events },
    sync: await start(),
    order: async (partition, order) => {
      const answer = await ledger.order({ partition, order, by: 'test', reason: 'test' });
      if (answer.result !== 'done') throw new Error(`the ledger answered ${JSON.stringify(answer)}`);
    },
    flip: async (partition) => {
      const attempt = `attempt of ${partition}`;
      await rig.order(partition, { kind: 'fence', to: 'app', attempt, fenceMs: 10_000 });
      await rig.order(partition, { kind: 'commit', attempt });
      await rig.order(partition, { kind: 'release', attempt });
    },
    restartSync: async () => {
      await rig.sync.stop();
      rig.sync = await start();
    },
    another: start,
    stop: async () => {
      await rig.sync.stop();
      await Promise.all(feeds.map((feed) => feed.stop()));
      await Promise.all([legacy.stop(), app.stop()]);
      redis.disconnect();
    },
  };
  return rig;
}

export function appointment(id: string, owner: string, title = `appointment ${id}`) {
  return { id, owner_id: owner, title };
}
