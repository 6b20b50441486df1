/**
 * Takes records out of the inbox and rings for them. For those that were named without a partition it is looked up:
 * in what was learned, else in the store, else in the other store, which still holds what was deleted.
 */
import { inBatches } from '../../batches.ts';
import { isBeingErased } from '../../core/erasure.ts';
import { otherStore, type Ownership, type StoreName, storeNames } from '../../core/ownership.ts';
import { StoreFailure, type StoreReader } from '../../core/ports.ts';
import { type Log, sentenceOf } from '../../log.ts';
import type { Backlog } from '../backlog.ts';
import { isOfOneRecord } from '../blame.ts';
import type { Inbox, InboxEntry } from './inbox.ts';
import type { Whereabouts } from './whereabouts.ts';

export interface DrainParts {
  readonly inbox: Inbox;
  readonly backlog: Pick<Backlog, 'ring' | 'isFull'>;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly whereabouts: Readonly<Partial<Record<StoreName, Whereabouts>>>;
  /** Can one record of this kind be read by its id alone? */
  readonly readableById: (store: StoreName, kind: string) => boolean;
  /** As far as this process has heard. */
  readonly ownershipOf: (partition: string) => Ownership | undefined;
  readonly log: Log;
}

const batchEntries = 500;
const lookUpsAtOnce = 4;
const lookUpsPerRound = 200;
/** After a failure of Redis or of a store; a store that does not let us in is asked again only this often. */
const restMs = 1_000;
const deniedRestMs = 30_000;
/** How often a record is looked up that its store will not show although it shows others; the polls look at it, too. */
const triesMax = 10;

type Placed = InboxEntry & { readonly partition: string };

export class InboxDrain {
  readonly #parts: DrainParts;
  readonly #stopping = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #again = false;
  #lookUpsAfterMs = 0;
  #failure = '';
  /** Look-ups that have failed, by entry of those that still wait. */
  #tries = new Map<string, number>();

  constructor(parts: DrainParts) {
    this.#parts = parts;
  }

  /** Looks every `everyMs`, too, for what other processes have taken and then died. */
  start(everyMs: number): void {
    this.#timer = setInterval(() => this.wake(), everyMs);
    this.wake();
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#retry);
    this.#stopping.abort(new Error('the sync is stopping'));
    await this.#running;
  }

  wake(): void {
    if (this.#stopping.signal.aborted) return;
    this.#again = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#again) this.wake();
    });
  }

  /** Never rejects: what could not be done is done at the next look. */
  async #run(): Promise<void> {
    while (this.#again && !this.#stopping.signal.aborted) {
      this.#again = false;
      try {
        await this.#ringAll();
        if (performance.now() >= this.#lookUpsAfterMs) await this.#lookUp();
        this.#failure = '';
      } catch (error) {
        this.#note(error);
        return;
      }
    }
  }

  async #ringAll(): Promise<void> {
    const { inbox, backlog } = this.#parts;
    for (;;) {
      this.#stopping.signal.throwIfAborted();
      // What waits here costs less than what waits there, and the inbox is bounded, too.
      if (await backlog.isFull()) return;
      const entries = await inbox.take(batchEntries);
      if (entries.length === 0) return;
      const { placed, unplaced } = await this.#sortOut(entries);
      await this.#ring(placed);
      await inbox.settle(placed, unplaced);
      if (entries.length < batchEntries) return;
    }
  }

  async #sortOut(entries: readonly InboxEntry[]): Promise<{ placed: Placed[]; unplaced: InboxEntry[] }> {
    const placed: Placed[] = [];
    const unplaced: InboxEntry[] = [];
    for (const store of storeNames) {
      const ofStore = entries.filter((entry) => entry.store === store);
      const nameless = ofStore.filter(({ partition }) => partition === undefined);
      const found = (await this.#parts.whereabouts[store]?.find(nameless)) ?? [];
      const learned = new Map(nameless.map((entry, at) => [entry.entry, found[at]]));
      for (const entry of ofStore) {
        const partition = entry.partition ?? learned.get(entry.entry);
        if (partition === undefined) unplaced.push(entry);
        else placed.push({ ...entry, partition });
      }
    }
    return { placed, unplaced };
  }

  /** A store reports the copies made in it, too: only what its owner reports is worth a look. */
  async #ring(entries: readonly Placed[]): Promise<void> {
    const { backlog, ownershipOf } = this.#parts;
    const owned = entries.filter(({ partition, store }) => {
      const ownership = ownershipOf(partition);
      return (ownership?.owner ?? 'legacy') === store && !isBeingErased(ownership);
    });
    await backlog.ring(owned.map(({ partition, kind, id }) => ({ partition, kind, id })));
  }

  async #lookUp(): Promise<void> {
    const entries = await this.#parts.inbox.takeUnplaced(lookUpsPerRound);
    const tries = new Map<string, number>();
    let failure: unknown;
    for (const batch of inBatches(entries, lookUpsAtOnce)) {
      failure = (await this.#place(batch, tries)) ?? failure;
    }
    this.#tries = tries;
    if (failure !== undefined) throw failure;
    if (entries.length === lookUpsPerRound) this.#again = true;
  }

  /**
   * Rings for those whose partition is found. Of those that could not be looked up, the failure comes back, and they
   * wait: throws only where others would not be shown, either.
   */
  async #place(batch: readonly InboxEntry[], tries: Map<string, number>): Promise<unknown> {
    const { inbox, readers, log } = this.#parts;
    const { signal } = this.#stopping;
    const placed: Placed[] = [];
    const settled: InboxEntry[] = [];
    const failed: { readonly entry: InboxEntry; readonly error: unknown }[] = [];
    const lookAt = async (entry: InboxEntry): Promise<void> => {
      try {
        const partition = await this.#partitionOf(entry);
        settled.push(entry);
        if (partition !== undefined) placed.push({ ...entry, partition });
      } catch (error) {
        failed.push({ entry, error });
      }
    };
    await Promise.all(batch.map(lookAt));
    signal.throwIfAborted();
    await this.#ring(placed);
    await inbox.settleUnplaced(settled);
    for (const { entry, error } of failed) {
      if (!(await isOfOneRecord(error, readers, signal))) throw error;
      const count = (this.#tries.get(entry.entry) ?? 0) + 1;
      tries.set(entry.entry, count);
      if (count < triesMax) continue;
      const { store, kind, id } = entry;
      log('warn', 'sync.record-not-placed', { store, kind, id, detail: sentenceOf(error) });
      await inbox.settleUnplaced([entry]);
    }
    return failed[0]?.error;
  }

  /** Undefined where no store shows the record: then nothing has to be copied, or the polls will find it. */
  async #partitionOf({ store, kind, id }: InboxEntry): Promise<string | undefined> {
    const { readers, readableById } = this.#parts;
    for (const asked of [store, otherStore(store)]) {
      if (!readableById(asked, kind)) continue;
      try {
        const record = await readers[asked].get(kind, { id, partition: '' }, this.#stopping.signal);
        if (record !== undefined) return record.partition;
      } catch (error) {
        if (!(error instanceof StoreFailure) || isPassing(error)) throw error;
      }
    }
    return undefined;
  }

  #note(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    const isStore = error instanceof StoreFailure;
    const waitMs = isStore && error.kind === 'denied' ? deniedRestMs : restMs;
    const restsMs = Math.max(waitMs, isStore ? (error.retryAfterMs ?? 0) : 0);
    this.#lookUpsAfterMs = performance.now() + restsMs;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.wake(), restsMs + 1);
    const failure = sentenceOf(error);
    if (failure !== this.#failure) {
      const level = isStore && error.kind === 'denied' ? 'error' : 'warn';
      this.#parts.log(level, 'sync.inbox-waits', { detail: failure });
    }
    this.#failure = failure;
  }
}

/** The store may say something else later. */
function isPassing({ kind }: StoreFailure): boolean {
  return kind === 'rate-limited' || kind === 'denied' || kind === 'unavailable';
}
