/** Puts the webhooks together, as far as the configuration asks for them. */
import type { Redis } from 'ioredis';
import type { Config, WebhookConfig } from '../../config/schema.ts';
import { type Ownership, type StoreName, storeNames } from '../../core/ownership.ts';
import type { Page, RecordKey, StoreReader } from '../../core/ports.ts';
import type { Log } from '../../log.ts';
import { placeholdersOf } from '../../stores/rest/paths.ts';
import { restConnectorOf } from '../../stores/rest/store.ts';
import { placeholdersInBody } from '../../stores/rest/templates.ts';
import type { Backlog } from '../backlog.ts';
import { InboxDrain } from './drain.ts';
import { Inbox } from './inbox.ts';
import { WebhookReceiver } from './receiver.ts';
import { Whereabouts } from './whereabouts.ts';

export interface WebhookSettings {
  readonly config: Config;
  readonly redis: Redis;
  readonly backlog: Backlog;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly ownershipOf: (partition: string) => Ownership | undefined;
  readonly log: Log;
}

export interface WebhookState {
  /** Records named and not rung for yet. */
  readonly waiting: number;
  readonly deliveries: readonly {
    readonly store: string;
    readonly outcome: string;
    readonly deliveries: number;
  }[];
}

export interface Webhooks {
  /** The owner's pages, and in passing which partition each record is in. */
  learning(reader: StoreReader): StoreReader;
  /** Writes through the proxy touched these. Never rejects. */
  learn(records: readonly RecordKey[]): Promise<void>;
  /** When the oldest record that was named arrived, Redis's clock. */
  oldestMs(): Promise<number | undefined>;
  state(): Promise<WebhookState>;
  /** Begins to ring in this process. */
  start(everyMs: number): void;
  /** Begins to take deliveries; returns the address, undefined where the configuration has no place for them. */
  listen(): Promise<string | undefined>;
  stop(): Promise<void>;
}

export function openWebhooks(settings: WebhookSettings): Webhooks {
  const { config, redis, log } = settings;
  const inbox = new Inbox(redis);
  const webhooks: Partial<Record<StoreName, WebhookConfig>> = {};
  const whereabouts: Partial<Record<StoreName, Whereabouts>> = {};
  for (const store of storeNames) {
    const webhook = restConnectorOf(config.stores[store].connector)?.webhook;
    if (webhook === undefined) continue;
    webhooks[store] = webhook;
    // Where every event names the partition, nothing has to be remembered.
    if (webhook.events.some(({ partition }) => partition === undefined)) {
      whereabouts[store] = new Whereabouts(redis, store);
    }
  }
  const isUsed = Object.keys(webhooks).length > 0;
  const drain = new InboxDrain({
    ...{ ...settings, inbox, whereabouts },
    readableById: (store, kind) => readableById(config, store, kind),
  });
  let receiver: WebhookReceiver | undefined;
  const ownerOf = (partition: string): StoreName => settings.ownershipOf(partition)?.owner ?? 'legacy';
  return {
    learning: (reader) => {
      const known = whereabouts[reader.store];
      return known === undefined ? reader : new LearningReader(reader, known);
    },
    learn: async (records) => {
      for (const [store, ofStore] of Map.groupBy(records, ({ partition }) => ownerOf(partition))) {
        await whereabouts[store]?.learn(ofStore).catch(() => undefined);
      }
    },
    oldestMs: async () => (isUsed ? inbox.oldestMs() : undefined),
    state: async () => {
      if (!isUsed) return { waiting: 0, deliveries: [] };
      const [waiting, deliveries] = await Promise.all([inbox.waiting(), inbox.counts()]);
      return { waiting, deliveries };
    },
    start: (everyMs) => {
      if (isUsed) drain.start(everyMs);
    },
    listen: async () => {
      const { webhooks: at } = config;
      if (at === undefined || receiver !== undefined) return undefined;
      receiver = new WebhookReceiver({ at, webhooks, inbox, log, onStored: () => drain.wake() });
      const { host, port } = await receiver.listen();
      return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
    },
    stop: async () => {
      await receiver?.stop();
      await drain.stop();
    },
  };
}

function readableById(config: Config, store: StoreName, kind: string): boolean {
  const records = restConnectorOf(config.stores[store].connector)?.records ?? {};
  const get = Object.hasOwn(records, kind) ? records[kind]?.get : undefined;
  if (get === undefined) return false;
  return ![...placeholdersOf(get.path), ...placeholdersInBody(get.body)].includes('partition');
}

/** Reads as the other one does, and learns from every page. */
class LearningReader implements StoreReader {
  readonly store: StoreReader['store'];
  readonly capabilities: StoreReader['capabilities'];
  readonly feedDelayMs: number;
  readonly shape: StoreReader['shape'];
  readonly #reader: StoreReader;
  readonly #known: Whereabouts;

  constructor(reader: StoreReader, known: Whereabouts) {
    this.store = reader.store;
    this.capabilities = reader.capabilities;
    this.feedDelayMs = reader.feedDelayMs;
    this.shape = reader.shape;
    this.#reader = reader;
    this.#known = known;
  }

  async *pages(...asked: Parameters<StoreReader['pages']>): AsyncGenerator<Page> {
    for await (const page of this.#reader.pages(...asked)) {
      await this.#known.learn(page.records).catch(() => undefined);
      yield page;
    }
  }

  get(...asked: Parameters<StoreReader['get']>): ReturnType<StoreReader['get']> {
    return this.#reader.get(...asked);
  }

  toCopy(...asked: Parameters<StoreReader['toCopy']>): ReturnType<StoreReader['toCopy']> {
    return this.#reader.toCopy(...asked);
  }

  probe(signal: AbortSignal): Promise<void> {
    return this.#reader.probe(signal);
  }

  close(): Promise<void> {
    return this.#reader.close();
  }
}
