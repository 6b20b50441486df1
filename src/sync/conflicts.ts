/**
 * Who else can write a record, where the connector says so, joins partitions as a write of both does (core/links.ts):
 * plans and handoffs do not part them. Noted while records are read, before anybody does anything with them.
 */
import { type Pair, pairOf } from '../core/links.ts';
import type { Page, StoreReader } from '../core/ports.ts';
import type { StoreRecord } from '../core/records.ts';
import type { Log } from '../log.ts';
import { sentenceOf } from '../log.ts';

/** Resolves once they are noted for good. `where` is shown to operators. */
export type NoteLinks = (pairs: readonly Pair[], where: string) => Promise<unknown>;

/** Pairs that are remembered as noted; who is forgotten is noted once more. */
const rememberedMax = 100_000;
const between = '\n';

export class Conflicts {
  readonly #note: NoteLinks;
  readonly #log: Log;
  #noted = new Set<string>();
  #failure = '';

  constructor(note: NoteLinks, log: Log) {
    this.#note = note;
    this.#log = log;
  }

  /** Never rejects: what could not be noted is noted when the records are read again. */
  async learn(records: readonly StoreRecord[]): Promise<void> {
    for (const [kind, ofKind] of Map.groupBy(records, (record) => record.kind)) {
      const fresh = this.#freshIn(ofKind);
      if (fresh.size === 0) continue;
      try {
        await this.#note([...fresh.values()], `writers of ${kind}`);
        if (this.#noted.size + fresh.size > rememberedMax) this.#noted = new Set();
        for (const name of fresh.keys()) this.#noted.add(name);
        this.#failure = '';
      } catch (error) {
        const detail = sentenceOf(error);
        if (detail !== this.#failure) this.#log('error', 'sync.links-not-noted', { kind, detail });
        this.#failure = detail;
      }
    }
  }

  #freshIn(records: readonly StoreRecord[]): Map<string, Pair> {
    const fresh = new Map<string, Pair>();
    for (const { partition, writers = [], deleted } of records) {
      if (deleted) continue;
      for (const writer of writers) {
        if (writer === partition) continue;
        const pair = pairOf(partition, writer);
        const name = pair.join(between);
        if (!this.#noted.has(name)) fresh.set(name, pair);
      }
    }
    return fresh;
  }
}

/** Reads as the other one does, and learns from every record. */
export class ConflictReader implements StoreReader {
  readonly store: StoreReader['store'];
  readonly capabilities: StoreReader['capabilities'];
  readonly feedDelayMs: number;
  readonly shape: StoreReader['shape'];
  readonly #reader: StoreReader;
  readonly #conflicts: Conflicts;

  constructor(reader: StoreReader, conflicts: Conflicts) {
    this.store = reader.store;
    this.capabilities = reader.capabilities;
    this.feedDelayMs = reader.feedDelayMs;
    this.shape = reader.shape;
    this.#reader = reader;
    this.#conflicts = conflicts;
  }

  async *pages(...asked: Parameters<StoreReader['pages']>): AsyncGenerator<Page> {
    for await (const page of this.#reader.pages(...asked)) {
      await this.#conflicts.learn(page.records);
      yield page;
    }
  }

  async get(...asked: Parameters<StoreReader['get']>): ReturnType<StoreReader['get']> {
    const record = await this.#reader.get(...asked);
    if (record !== undefined) await this.#conflicts.learn([record]);
    return record;
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
