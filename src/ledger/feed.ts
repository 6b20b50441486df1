/**
 * Follows the ledger's streams over one blocking connection: changes for members and coordinators,
 * acknowledgements for coordinators. After a broken connection it goes on behind the last entry it saw.
 */
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { LedgerFeed, MemberAcknowledgement } from '../core/ports.ts';
import type { LedgerChange, Transition } from '../core/view.ts';
import { pause } from '../pause.ts';
import { keys } from './connection.ts';
import { parseRecord, parseRules } from './records.ts';

export const feedBlockMs = 1_000;
const entriesPerRead = 1_000;
const retryPauseMs = 50;

const acknowledgementSchema = z.object({
  member: z.string(),
  partition: z.string(),
  attempt: z.string(),
  epoch: z.int(),
  answer: z.enum(['drained', 'in-doubt']),
  lastWriteAgeMs: z.number(),
  settlesInMs: z.number(),
});

const kindSchema = z.enum([
  'ownership',
  'rules',
  'doubt-resolved',
  'windows-closed',
  'directory',
  'link-forgotten',
]);
const doubtSchema = z.object({ partition: z.string() });
const linkSchema = z.object({ partitions: z.tuple([z.string(), z.string()]) });
const directorySchema = z.object({ user: z.string(), partition: z.string() });

type Entry = [id: string, fields: string[]];
type StreamReply = [stream: string, entries: Entry[]][] | null;

export interface FeedStart {
  /** Changes after this version. */
  readonly version: number;
  readonly acknowledgements: boolean;
}

export class StreamFeed implements LedgerFeed {
  readonly #redis: Redis;
  readonly #batches = new Set<(changes: readonly LedgerChange[]) => void>();
  readonly #acknowledgements = new Set<(acknowledgement: MemberAcknowledgement) => void>();
  readonly #onTrouble: (error: unknown) => void;
  #changeId: string;
  #acknowledgementId: string | undefined;
  #stopped = false;
  #trouble = '';
  #loop: Promise<void> = Promise.resolve();

  private constructor(redis: Redis, start: FeedStart, onTrouble: (error: unknown) => void) {
    this.#redis = redis;
    this.#changeId = `${start.version}-0`;
    this.#onTrouble = onTrouble;
  }

  /** `redis` must be a connection of its own: it blocks. */
  static async open(
    redis: Redis,
    start: FeedStart,
    onTrouble: (error: unknown) => void,
  ): Promise<StreamFeed> {
    const feed = new StreamFeed(redis, start, onTrouble);
    if (start.acknowledgements) {
      const last = await redis.xrevrange(keys.acknowledgements, '+', '-', 'COUNT', 1);
      feed.#acknowledgementId = last[0]?.[0] ?? '0-0';
    }
    feed.#loop = feed.#run();
    return feed;
  }

  /** All changes of one read at once, in order: a member answers a batch with one heartbeat. */
  onChanges(listener: (changes: readonly LedgerChange[]) => void): () => void {
    this.#batches.add(listener);
    return () => this.#batches.delete(listener);
  }

  onTransition(listener: (transition: Transition) => void): () => void {
    return this.onChanges((changes) => {
      for (const change of changes) if (change.kind === 'ownership') listener(change);
    });
  }

  onDoubtResolved(listener: (partition: string) => void): () => void {
    return this.onChanges((changes) => {
      for (const change of changes) if (change.kind === 'doubt-resolved') listener(change.partition);
    });
  }

  onAcknowledgement(listener: (acknowledgement: MemberAcknowledgement) => void): () => void {
    this.#acknowledgements.add(listener);
    return () => this.#acknowledgements.delete(listener);
  }

  /** Continues behind `version`, after a new snapshot was loaded. */
  skipTo(version: number): void {
    this.#changeId = `${version}-0`;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#redis.disconnect();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      try {
        this.#deliver(await this.#read());
        this.#trouble = '';
      } catch (error) {
        if (this.#stopped) return;
        this.#tell(error);
        await pause(retryPauseMs);
      }
    }
  }

  /** The same trouble again and again is told once. */
  #tell(error: unknown): void {
    if (this.#trouble === String(error)) return;
    this.#trouble = String(error);
    this.#onTrouble(error);
  }

  async #read(): Promise<StreamReply> {
    const from = this.#acknowledgementId;
    const streams = from === undefined ? [keys.changes] : [keys.changes, keys.acknowledgements];
    const ids = from === undefined ? [this.#changeId] : [this.#changeId, from];
    return this.#redis.xread('COUNT', entriesPerRead, 'BLOCK', feedBlockMs, 'STREAMS', ...streams, ...ids);
  }

  #deliver(reply: StreamReply): void {
    for (const [stream, entries] of reply ?? []) {
      const lastId = entries.at(-1)?.[0];
      if (lastId === undefined) continue;
      if (stream === keys.changes) {
        this.#changeId = lastId;
        const changes = this.#readable(entries, ([id, fields]) => parseChange(id, fields));
        for (const listener of this.#batches) this.#call(() => listener(changes));
      } else {
        this.#acknowledgementId = lastId;
        const acknowledgements = this.#readable(entries, ([, fields]) =>
          acknowledgementSchema.parse(JSON.parse(fields[1] ?? '')),
        );
        for (const acknowledgement of acknowledgements) {
          for (const listener of this.#acknowledgements) this.#call(() => listener(acknowledgement));
        }
      }
    }
  }

  /** What a newer version wrote and this one cannot read is left out; a view notices the gap and loads a snapshot. */
  #readable<Value>(entries: readonly Entry[], parse: (entry: Entry) => Value): Value[] {
    return entries.flatMap((entry) => {
      try {
        return [parse(entry)];
      } catch (error) {
        this.#onTrouble(error);
        return [];
      }
    });
  }

  /** What one listener throws takes nothing from the others. */
  #call(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#onTrouble(error);
    }
  }
}

/** The transition that made a version; undefined where another kind of change did. */
export async function transitionAt(redis: Redis, version: number): Promise<Transition | undefined> {
  const [entry] = await redis.xrange(keys.changes, `${version}-0`, `${version}-0`);
  const change = entry && parseChange(entry[0], entry[1]);
  return change?.kind === 'ownership' ? change : undefined;
}

/** `fields` alternates names and values, as Redis gives them. */
export function parseChange(id: string, fields: readonly string[]): LedgerChange {
  const values = new Map<string, string>();
  for (let at = 0; at + 1 < fields.length; at += 2) values.set(fields[at] ?? '', fields[at + 1] ?? '');
  const need = (name: string): string => {
    const value = values.get(name);
    if (value === undefined) throw new Error(`ledger entry ${id} has no ${name}`);
    return value;
  };
  const entry = {
    version: Number(id.split('-', 1)[0]),
    id: need('id'),
    previousId: need('previous'),
    by: need('by'),
    reason: need('reason'),
  };
  const kind = kindSchema.parse(need('kind'));
  if (kind === 'ownership') {
    const after = parseRecord(need('after'));
    const before = parseRecord(need('before')).ownership;
    const partition = need('partition');
    return { kind, ...entry, partition, before, after: after.ownership, atMs: after.changedAtMs };
  }
  const atMs = Number(need('atMs'));
  if (kind === 'rules') return { kind, ...entry, atMs, rules: parseRules(need('payload')) };
  if (kind === 'windows-closed') return { kind, ...entry, atMs };
  const payload: unknown = JSON.parse(need('payload'));
  if (kind === 'directory') return { kind, ...entry, atMs, ...directorySchema.parse(payload) };
  if (kind === 'link-forgotten') return { kind, ...entry, atMs, ...linkSchema.parse(payload) };
  return { kind, ...entry, atMs, ...doubtSchema.parse(payload) };
}
