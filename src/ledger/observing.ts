/**
 * An observing proxy and the ledger. It needs none; but where there is one it stands on its list, so that nothing
 * moves while its writes go to legacy, and it must not run once something has moved. It asks before it listens; from
 * then on it never waits for the ledger again.
 */
import { randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { type Log, sentenceOf } from '../log.ts';
import { connectRedis, type RedisAddress } from './connection.ts';
import { KeptViews } from './kept-views.ts';
import { RedisLedger } from './ledger.ts';
import { nameOfLedger } from './lookout.ts';
import { checkOnStart } from './regression.ts';

export interface ObserverPostSettings {
  /** Where the ledger is, as of now; undefined while there is none. */
  readonly find: () => Promise<RedisAddress | undefined>;
  /** `redis.url` of the configuration. */
  readonly redisUrl: string;
  readonly dataDir: string;
  readonly minReplicas: number;
  readonly settleMs: number;
  readonly log: Log;
  readonly everyMs?: number;
}

interface Listing {
  readonly ledger: RedisLedger;
  readonly close: () => void;
  version: string | undefined;
}

const defaultOwner = 'legacy';
const defaultEveryMs = 1_000;

/** What makes it wrong to send everything to legacy. */
class Misplaced extends Error {}

export class ObserverPost {
  readonly id = randomUUID();
  readonly #settings: ObserverPostSettings;
  #listing: Listing | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #troubled = false;
  #displace: (error: Error) => void = () => undefined;
  /** Settles when the ledger says that something has moved: from then on nothing may be passed on any more. */
  readonly displaced: Promise<Error>;

  private constructor(settings: ObserverPostSettings) {
    this.#settings = settings;
    this.displaced = new Promise((resolve) => {
      this.#displace = resolve;
    });
  }

  /** Throws a sentence where the ledger does not answer, or where something has moved. */
  static async take(settings: ObserverPostSettings): Promise<ObserverPost> {
    const post = new ObserverPost(settings);
    try {
      await post.#renew();
      if (post.#listing === undefined) await mustKnowOfNone(settings.dataDir);
    } catch (error) {
      await post.#close();
      throw error;
    }
    post.#timer = setInterval(() => void post.#look(), settings.everyMs ?? defaultEveryMs);
    return post;
  }

  /** Whether the ledger has this process on its list; false where there is no ledger. */
  get listed(): boolean {
    return this.#listing?.version !== undefined;
  }

  /** Only once nothing that was passed on can take effect any more. */
  async leave(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    try {
      await this.#listing?.ledger.observers.end(this.id);
    } catch (error) {
      const detail = `It stays on the ledger's list, and nothing can be moved until it is taken off: onewriter members remove ${this.id}`;
      this.#settings.log('warn', 'observer.stays-listed', { error: sentenceOf(error), detail });
    }
    await this.#close();
  }

  #look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => (this.#looking = undefined));
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    const { log } = this.#settings;
    try {
      await this.#renew();
      if (this.#troubled) log('info', 'observer.listed-again', {});
      this.#troubled = false;
    } catch (error) {
      if (error instanceof Misplaced) {
        log('error', 'observer.misplaced', { detail: sentenceOf(error) });
        this.#displace(error);
      } else if (!this.#troubled) {
        this.#troubled = true;
        log('warn', 'observer.not-listed', { error: sentenceOf(error), detail: goesOn });
      }
    }
  }

  async #renew(): Promise<void> {
    this.#listing ??= await this.#open();
    const listing = this.#listing;
    if (listing === undefined) return;
    const { settleMs } = this.#settings;
    const answer = await listing.ledger.observers.renew(this.id, settleMs, defaultOwner, listing.version);
    switch (answer.answer) {
      case 'listed':
        listing.version = answer.version;
        return;
      case 'moved':
        throw new Misplaced(sayMoved(answer.partition));
      case 'ledger-regressed':
        throw new Misplaced(
          `The ledger has lost data (${answer.detail}), so nobody knows whether something has moved. Nothing is passed on. Restore it (docs/ledger-loss.md) and start again.`,
        );
    }
  }

  async #open(): Promise<Listing | undefined> {
    const { find, minReplicas } = this.#settings;
    const address = await find();
    if (address === undefined) return undefined;
    const redis = await connectRedis(address);
    const writing = minReplicas === 0 ? redis : await connectRedis(address);
    const close = (): void => {
      redis.disconnect();
      writing.disconnect();
    };
    try {
      const ledger = new RedisLedger(redis, { defaultOwner, minReplicas }, writing);
      await this.#mustBeWhole(redis, ledger);
      return { ledger, close, version: undefined };
    } catch (error) {
      close();
      throw error;
    }
  }

  /** What this host knew of the ledger must still be in it. */
  async #mustBeWhole(redis: Parameters<typeof checkOnStart>[0], ledger: RedisLedger): Promise<void> {
    const by = `observer ${process.pid} on ${hostname()}`;
    const views = new KeptViews(this.#settings.dataDir, nameOfLedger(this.#settings), by);
    const lost = await checkOnStart(redis, ledger, views, await views.newest());
    if (lost !== undefined) throw new Misplaced(lost);
  }

  async #close(): Promise<void> {
    this.#listing?.close();
    this.#listing = undefined;
  }
}

const goesOn =
  'Everything is passed on to legacy as before. If this process is not on the list, a flip could begin that does not wait for it: order none before "onewriter members list" shows it, or before it is stopped.';

function sayMoved(partition: string): string {
  return (
    `The ledger says that ${JSON.stringify(partition)} does not live in legacy, or is on its way: an observing proxy would send its writes there. ` +
    'Nothing is passed on. Set proxy.mode to enforce; if everything is to go back to legacy, flip it back first.'
  );
}

/** A directory that knows a ledger belongs to proxies that may have moved something. */
async function mustKnowOfNone(dataDir: string): Promise<void> {
  const directory = resolve(dataDir, 'ledger-views');
  const names = await readdir(directory).catch(() => []);
  if (!names.some((name) => name.endsWith('.ndjson'))) return;
  throw new Misplaced(
    `${directory} says that there was a ledger, which may have moved something, and none is configured that could be asked. ` +
      'Nothing was started. Name it in redis.url, or give this proxy another dataDir if it belongs to another platform.',
  );
}
