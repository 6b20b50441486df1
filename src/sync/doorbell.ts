/**
 * The proxy's side of the sync: after a write was answered, it rings for the record. Rings are collected
 * and sent in batches; none of it is in the way of a request, and a ring that is lost is covered by the polls.
 */
import type { Doorbell, RecordKey } from '../core/ports.ts';

export interface DoorbellSettings {
  readonly ringRecords: (records: readonly RecordKey[]) => Promise<void>;
  readonly onFailure: (error: unknown, records: number) => void;
  /** Rings that wait at most; beyond them the oldest are dropped and counted. */
  readonly waitingMax?: number;
  /** How long rings are collected, ms. */
  readonly collectMs?: number;
}

const batchRecords = 500;

export class BatchingDoorbell implements Doorbell {
  readonly #settings: DoorbellSettings;
  readonly #waitingMax: number;
  #waiting: RecordKey[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();
  #dropped = 0;

  constructor(settings: DoorbellSettings) {
    this.#settings = settings;
    this.#waitingMax = settings.waitingMax ?? 10_000;
  }

  /** Rings that never reached the queue. */
  get dropped(): number {
    return this.#dropped;
  }

  ring(record: RecordKey): void {
    if (record.partition === '' || record.kind === '' || record.id === '') return;
    if (this.#waiting.length >= this.#waitingMax) {
      this.#waiting.shift();
      this.#dropped += 1;
    }
    this.#waiting.push(record);
    this.#timer ??= setTimeout(() => void this.#send(), this.#settings.collectMs ?? 10);
  }

  /** Resolves when every ring so far is in the queue. Never rejects: what could not be sent is dropped and counted. */
  close(): Promise<void> {
    return this.#send();
  }

  #send(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sending = this.#sending.then(() => this.#sendAll());
    return this.#sending;
  }

  async #sendAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, batchRecords);
      try {
        await this.#settings.ringRecords(batch);
      } catch (error) {
        this.#dropped += batch.length;
        this.#settings.onFailure(error, batch.length);
      }
    }
  }
}
