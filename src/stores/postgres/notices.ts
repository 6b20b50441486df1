/**
 * A doorbell: the database says which records have changed, on a channel of LISTEN and NOTIFY. What is said while
 * nobody listens is lost, so nothing rests on it: after every gap somebody has to poll.
 */
import { Client, type ClientConfig } from 'pg';
import { z } from 'zod';
import type { RecordKey } from '../../core/ports.ts';
import { sentenceOf } from '../../log.ts';
import { inTime, pause } from '../../pause.ts';
import { quoted } from './names.ts';

export interface NoticeParts {
  readonly channel: string;
  readonly client: ClientConfig;
  /** Kinds of records that are known; of others nothing is passed on. */
  readonly kinds: readonly string[];
  readonly onNotice: (record: RecordKey) => void;
  /** Something may have been missed, or was said in words that are not understood. */
  readonly onGap: () => void;
  readonly onLost: (detail: string) => void;
}

const name = z.union([z.string().min(1), z.number().transform(String)]);
const noticeSchema = z.object({ kind: z.string(), id: name, partition: name.nullish() });

const retryMsMin = 100;
const retryMsMax = 5_000;
/** A connection that is cut without a word is noticed after so long, ms. */
const livenessMs = 10_000;

export class Notices {
  readonly #parts: NoticeParts;
  readonly #stopping = new AbortController();
  #running: Promise<void> | undefined;

  constructor(parts: NoticeParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('the sync is stopping'));
    await this.#running;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let waitMs = retryMsMin;
    while (!signal.aborted) {
      const heardMs = performance.now();
      const why = await this.#listen(signal);
      if (signal.aborted) return;
      this.#parts.onLost(why);
      waitMs = performance.now() - heardMs > retryMsMax ? retryMsMin : Math.min(retryMsMax, 2 * waitMs);
      await pause(waitMs, signal).catch(() => undefined);
    }
  }

  /** Resolves when the connection has ended, with the reason. */
  async #listen(signal: AbortSignal): Promise<string> {
    const client = new Client(this.#parts.client);
    let end: (why: string) => void = () => undefined;
    const ended = new Promise<string>((settle) => (end = settle));
    const stop = (): void => end('stopping');
    signal.addEventListener('abort', stop, { once: true });
    client.on('error', (error) => end(error.message));
    client.on('end', () => end('the connection was closed'));
    client.on('notification', ({ payload }) => this.#hear(payload));
    const check = async (sql: string): Promise<void> => {
      await inTime(client.query(sql), livenessMs / 2, 'the connection does not answer');
    };
    let alive: NodeJS.Timeout | undefined;
    try {
      await client.connect();
      await check(`LISTEN ${quoted(this.#parts.channel)}`);
      // Before this nobody listened.
      this.#parts.onGap();
      alive = setInterval(
        () => void check('SELECT 1').catch((error: Error) => end(error.message)),
        livenessMs,
      );
      return await ended;
    } catch (error) {
      return sentenceOf(error);
    } finally {
      clearInterval(alive);
      signal.removeEventListener('abort', stop);
      void client.end().catch(() => undefined);
    }
  }

  #hear(payload: string | undefined): void {
    const notice = noticeSchema.safeParse(jsonIn(payload)).data;
    if (notice?.partition === undefined || notice.partition === null) {
      this.#parts.onGap();
      return;
    }
    const { kind, id, partition } = notice;
    if (this.#parts.kinds.includes(kind)) this.#parts.onNotice({ kind, id, partition });
  }
}

function jsonIn(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}
