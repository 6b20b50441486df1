/** What the sync keeps of a partition beside the stores, counted and taken out when the partition is erased. */
import type { Redis } from 'ioredis';
import type { ErasedRecord, ErasurePlace, ErasureSubject, PartitionMemory } from '../core/erasure.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import type { Ledger, RecordKey } from '../core/ports.ts';
import type { Backlog } from './backlog.ts';
import type { Brakes } from './brakes.ts';
import type { DeadLetters } from './dead-letters.ts';
import { FreezeBook } from './freeze-book.ts';
import type { Receipts } from './receipts.ts';
import type { Snapshots } from './snapshots.ts';
import type { StrayBook } from './stray-book.ts';
import { VerificationBook } from './verification-book.ts';
import { Inbox, type InboxEntry } from './webhooks/inbox.ts';
import { Whereabouts } from './webhooks/whereabouts.ts';

export interface ForgettingParts {
  readonly redis: Redis;
  readonly ledger: Pick<Ledger, 'read'>;
  /** Stores in which nothing may come up of partitions that have left them. */
  readonly watched: readonly StoreName[];
  readonly backlog: Backlog;
  readonly letters: DeadLetters;
  readonly brakes: Brakes;
  readonly receipts: Receipts;
  readonly snapshots: Snapshots;
  readonly strays: StrayBook;
}

export class SyncMemory implements PartitionMemory {
  readonly #parts: ForgettingParts;
  readonly #inbox: Inbox;
  readonly #freezes: FreezeBook;
  readonly #verifications: VerificationBook;
  readonly #whereabouts: readonly Whereabouts[];

  constructor(parts: ForgettingParts) {
    this.#parts = parts;
    this.#inbox = new Inbox(parts.redis);
    this.#freezes = new FreezeBook(parts.redis);
    this.#verifications = new VerificationBook(parts.redis);
    this.#whereabouts = storeNames.map((store) => new Whereabouts(parts.redis, store));
  }

  async count(subject: ErasureSubject): Promise<readonly ErasurePlace[]> {
    const { partition } = subject;
    const { backlog, letters, brakes, receipts, strays } = this.#parts;
    const { marks, jobs } = await backlog.owedOf(partition, false);
    const places: Readonly<Record<string, number>> = {
      inbox: await this.#inbox.entriesOf(concerning(subject), false),
      marks,
      jobs,
      'dead-letters': await letters.count(partition),
      strays: (await strays.list()).filter((stray) => stray.partition === partition).length,
      snapshots: await this.#snapshots(partition),
      verifications: await this.#verifications.showing(partition),
      receipts: await receipts.among(keysOf(subject)),
      brakes: ((await brakes.of(partition)) === undefined ? 0 : 1) + (await brakes.onAll.naming(partition)),
      whereabouts: await this.#known(subject, false),
      freezes: (await this.#freezes.ofPartition(partition)).length,
    };
    return Object.entries(places).map(([place, entries]) => ({ place, entries }));
  }

  /** Whoever looks between two turns finds records gone that were there at the handoff, and no fence any more. */
  async disregard(partition: string): Promise<void> {
    for (const store of storeNames) await this.#parts.snapshots.remove(store, partition);
  }

  async forget(subject: ErasureSubject): Promise<void> {
    const { partition } = subject;
    const { backlog, letters, brakes, receipts, strays, snapshots, watched, ledger } = this.#parts;
    await this.#inbox.entriesOf(concerning(subject), true);
    await backlog.owedOf(partition, true);
    await letters.clear(partition);
    const { owner } = (await ledger.read(partition)).ownership;
    for (const store of storeNames) {
      // Nothing may come up in a store that the partition has left: what does is a stray, and not what was there before.
      if (store !== owner && watched.includes(store)) await snapshots.save(store, partition, new Map());
      else await snapshots.remove(store, partition);
    }
    await strays.forget(partition);
    await this.#verifications.forget(partition);
    await receipts.forget(keysOf(subject));
    await brakes.forget(partition);
    for (const frozen of await this.#freezes.ofPartition(partition)) await this.#freezes.forget(frozen);
    await this.#known(subject, true);
  }

  async sweep(subject: ErasureSubject): Promise<readonly ErasurePlace[]> {
    const { backlog, letters } = this.#parts;
    const erased = new Set(subject.records.map(nameOf));
    const concerns = (key: RecordKey): boolean =>
      key.partition === subject.partition && erased.has(nameOf(key));
    const jobs = await backlog.forgetFailed(concerns);
    // A record that is gone takes its letter along, and one that somebody has made anew must keep it.
    await backlog.ringEach((await letters.list(subject.partition)).filter(concerns));
    await this.#verifications.forget(subject.partition, (id) => subject.records.some((one) => one.id === id));
    const whereabouts = await this.#known(subject, true);
    return [
      { place: 'jobs', entries: jobs },
      { place: 'whereabouts', entries: whereabouts },
    ];
  }

  async #snapshots(partition: string): Promise<number> {
    let held = 0;
    for (const store of storeNames) {
      const snapshot = (await this.#parts.snapshots.load(store, [partition])).get(partition);
      for (const records of snapshot?.values() ?? []) held += records.size;
    }
    return held;
  }

  async #known({ partition, records }: ErasureSubject, remove: boolean): Promise<number> {
    let known = 0;
    for (const whereabouts of this.#whereabouts) {
      known += await whereabouts.knownIn(partition, distinct(records), remove);
    }
    return known;
  }
}

function concerning({ partition, records }: ErasureSubject): (entry: Omit<InboxEntry, 'entry'>) => boolean {
  const erased = new Set(records.map(nameOf));
  return (entry) =>
    entry.partition === partition || (entry.partition === undefined && erased.has(nameOf(entry)));
}

function keysOf({ partition, records }: ErasureSubject): RecordKey[] {
  return distinct(records).map(({ kind, id }) => ({ partition, kind, id }));
}

/** The same record stands in both stores. */
function distinct(records: ErasureSubject['records']): ErasureSubject['records'] {
  return [...new Map(records.map((record) => [nameOf(record), record])).values()];
}

function nameOf({ kind, id }: Pick<ErasedRecord, 'kind' | 'id'>): string {
  return `${kind}\n${id}`;
}
