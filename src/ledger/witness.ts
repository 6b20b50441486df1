/**
 * Follows the ledger in a process that need not be a member, and asks it again and again whether it still
 * holds what was confirmed. So a loss is found by an admin or a worker, too, and the feed that they share goes
 * back with a ledger that lost what was never confirmed.
 */
import { randomUUID } from 'node:crypto';
import type { Ownership, StoreName } from '../core/ownership.ts';
import { LedgerView, type Position } from '../core/view.ts';
import { type Log, sentenceOf } from '../log.ts';
import type { StreamFeed } from './feed.ts';
import { type Holder, type Holding, Testimony } from './holding.ts';
import type { RedisLedger } from './ledger.ts';

export interface WitnessParts {
  readonly ledger: RedisLedger;
  readonly feed: StreamFeed;
  readonly defaultOwner: StoreName;
  readonly everyMs: number;
  /** From a file: what was confirmed to a process before this one. */
  readonly before: Position | undefined;
  readonly log: Log;
}

export class Witness implements Holder {
  readonly id = randomUUID();
  readonly #parts: WitnessParts;
  readonly #view: LedgerView;
  readonly #testimony: Testimony;
  #timer: NodeJS.Timeout | undefined;
  #asking: Promise<void> | undefined;
  #loading: Promise<void> | undefined;
  #unfollow: () => void = () => undefined;

  private constructor(parts: WitnessParts) {
    this.#parts = parts;
    this.#view = new LedgerView(parts.defaultOwner);
    this.#testimony = new Testimony(parts.before, parts.log);
  }

  /** The feed must have been opened before: what it brings meanwhile is in the snapshot already. */
  static async open(parts: WitnessParts): Promise<Witness> {
    const witness = new Witness(parts);
    witness.#unfollow = parts.feed.onChanges((changes) => {
      for (const change of changes) {
        if (witness.#view.apply(change) !== 'gap') continue;
        void witness.#load();
        return;
      }
    });
    witness.#view.load(await parts.ledger.snapshot());
    await witness.#ask();
    witness.#timer = setInterval(() => void witness.#ask(), parts.everyMs);
    return witness;
  }

  holding(): Holding {
    const { position, rules } = this.#view;
    return { confirmed: this.#testimony.here, position, partitions: this.#view.entries(), rules };
  }

  /** Undefined where no transition touched the partition. */
  ownershipOf(partition: string): Ownership | undefined {
    return this.#view.has(partition) ? this.#view.of(partition) : undefined;
  }

  regressed(): string | undefined {
    return this.#testimony.regressed;
  }

  /** Right now: what the ledger has lost, undefined while it is sound. Throws where it does not answer. */
  lost(): Promise<string | undefined> {
    return this.#parts.ledger.lost({ confirmed: this.#testimony.claim });
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#unfollow();
    await this.#asking;
    await this.#loading;
  }

  #ask(): Promise<void> {
    this.#asking ??= this.#askOnce().finally(() => (this.#asking = undefined));
    return this.#asking;
  }

  async #askOnce(): Promise<void> {
    const { ledger, feed, log } = this.#parts;
    const applied = this.#view.position;
    try {
      const answer = await ledger.testify({ confirmed: this.#testimony.claim, applied });
      switch (answer.answer) {
        case 'ok':
          if (this.#testimony.confirm(applied, answer.version)) await this.#load();
          break;
        case 'view-ahead':
          await this.#load();
          feed.skipTo(this.#view.position.version);
          break;
        case 'ledger-regressed':
          this.#testimony.lost(answer.detail);
          break;
      }
    } catch (error) {
      log('debug', 'ledger.not-asked', { error: sentenceOf(error) });
    }
  }

  /** What cannot be loaded now is loaded when the view is found standing still. */
  #load(): Promise<void> {
    this.#loading ??= this.#parts.ledger
      .snapshot()
      .then((snapshot) => {
        // A ledger that lost confirmed changes says so when it is asked; the view keeps what it knows.
        if (snapshot.position.version >= this.#testimony.claim.version) this.#view.load(snapshot);
      })
      .catch((error: unknown) => this.#parts.log('debug', 'ledger.not-loaded', { error: sentenceOf(error) }))
      .finally(() => (this.#loading = undefined));
    return this.#loading;
  }
}
