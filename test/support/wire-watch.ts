/**
 * Watches what arrives at two stores over the wire, and judges it by the ledger's own stream. It knows the protocol's
 * text and nothing of the sync: a store may take a copy only while the other one owns the partition, from the first to
 * the last moment of the call, and only with content that the other one has held.
 */
import type { Redis } from 'ioredis';
import {
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import type { StoreName } from '../../src/core/ownership.ts';
import type { Fields, Json } from '../../src/core/records.ts';
import { redisNowMs } from '../../src/ledger/connection.ts';
import { readTimelines, type Span, type Timelines } from '../faults/timeline.ts';
import type { GivenAnswer, SeenCall, TestRestStore } from './rest-store.ts';

/** A copy that a store took. Times are Redis's, so they compare with the stream's. */
interface Landed {
  readonly store: StoreName;
  readonly partition: string;
  readonly id: string;
  readonly title: string | undefined;
  readonly fromMs: number;
  readonly toMs: number;
  /** As its guard headers said. */
  readonly epoch: number | undefined;
}

export interface WireWatchParts {
  readonly redis: Redis;
  readonly stores: Readonly<Record<StoreName, TestRestStore>>;
  readonly partitionOf: (id: string) => string;
  /** Does the app ask the guard's rule? Else it takes everything, and only the sync itself holds it back. */
  readonly guarded: boolean;
}

export class WireWatch {
  readonly landed: Landed[] = [];
  /** Hears of every read of a store before it is answered, and may keep it waiting. */
  onRead: ((store: StoreName, call: SeenCall) => Promise<void>) | undefined;
  /** How long a store takes over each write, ms. */
  readonly slowMs: Record<StoreName, number> = { legacy: 0, app: 0 };
  readonly #parts: WireWatchParts;
  readonly #rows = new Map<string, GuardRow>();
  /** Titles that users wrote in each store: what copies may carry to the other one. */
  readonly #held: Readonly<Record<StoreName, Set<string>>> = { legacy: new Set(), app: new Set() };

  constructor(parts: WireWatchParts) {
    this.#parts = parts;
    for (const store of ['legacy', 'app'] as const) {
      for (const fields of parts.stores[store].records.values())
        this.#held[store].add(textOf(fields['title']));
      parts.stores[store].intercept = (call) => this.#meet(store, call);
    }
  }

  /** A user's write, as the owner takes it from the proxy. False: the guard refused it. */
  userWrites(store: StoreName, epoch: number, fields: Fields): boolean {
    const partition = textOf(fields['owner_id']);
    if (store === 'app' && this.#parts.guarded) {
      const verdict = guardVerdict(this.#row(partition), 'write', epoch);
      if (!verdict.accept) return false;
      this.#rows.set(partition, verdict.row);
    }
    this.#held[store].add(textOf(fields['title']));
    this.#parts.stores[store].set(fields);
    return true;
  }

  /** What is wrong; empty where everything was right. */
  async judge(): Promise<readonly string[]> {
    const entries = await this.#parts.redis.xrange('{onewriter}:changes', '-', '+');
    const timelines = readTimelines(
      entries.map(([id, fields]) => ({ id, fields })),
      'legacy',
    );
    const wrong = timelines.breaks.map(({ partition, detail }) => `ledger: ${partition}: ${detail}`);
    return [...wrong, ...this.landed.flatMap((copy) => this.#faultsOf(copy, timelines))];
  }

  #faultsOf(copy: Landed, timelines: Timelines): string[] {
    const { store, partition, id, title, epoch } = copy;
    const spans = timelines.of(partition);
    const told = `${store} took ${id} of ${partition}${title === undefined ? ' as deleted' : ''}`;
    const faults = during(spans, copy)
      .filter((span) => span.owner === store || span.phase === 'committed')
      .map(({ phase, owner, epoch: at }) => `${told} in ${phase}(${owner}, ${at})`);
    const stamped = epoch === undefined ? undefined : spans.find((span) => span.epoch === epoch);
    if (epoch !== undefined && (stamped === undefined || stamped.owner === store)) {
      faults.push(`${told} under epoch ${epoch}, in which it was not to be copied to`);
    }
    const other = store === 'legacy' ? 'app' : 'legacy';
    if (title !== undefined && !this.#held[other].has(title)) {
      faults.push(`${told} with "${title}", which ${other} never held`);
    }
    return faults;
  }

  #row(partition: string): GuardRow {
    return this.#rows.get(partition) ?? unknownToGuard;
  }

  async #meet(store: StoreName, call: SeenCall): Promise<GivenAnswer | undefined> {
    const guardCall = /^\/\.well-known\/onewriter\/guard\/(\w+)$/.exec(call.path)?.[1];
    if (guardCall !== undefined) return this.#guardCall(guardCall, call);
    if (call.method === 'GET') {
      await this.onRead?.(store, call);
      return undefined;
    }
    const fromMs = await redisNowMs(this.#parts.redis);
    await new Promise((resolve) => setTimeout(resolve, this.slowMs[store]));
    const toMs = await redisNowMs(this.#parts.redis);
    const id = call.path.split('/')[2] ?? '';
    const partition = this.#parts.partitionOf(id);
    // From here on one step: what the guard says, and what the store does.
    const epoch = call.headers['onewriter-epoch'] === undefined ? undefined : stampOf(call).epoch;
    if (store === 'app' && this.#parts.guarded) {
      const verdict = guardVerdict(this.#row(partition), 'copy', epoch ?? 0);
      if (!verdict.accept) return { status: 409, body: { code: verdict.code } };
      this.#rows.set(partition, verdict.row);
    }
    const title = call.method === 'DELETE' ? undefined : textOf(call.body?.['title']);
    this.landed.push({ store, partition, id, title, fromMs, toMs, epoch });
    // By now the other one may copy it back.
    if (title !== undefined) this.#held[store].add(title);
    return undefined;
  }

  #guardCall(name: string, call: SeenCall): GivenAnswer {
    const { partition, epoch } = stampOf(call);
    const row = this.#row(partition);
    if (name === 'verdict') return { status: 200, body: { partition, ...row } };
    const after = name === 'advance' ? guardAdvance(row, epoch) : guardSeal(row, epoch);
    this.#rows.set(partition, after);
    return after.epoch === epoch && after.closed
      ? { status: 200, body: { partition, ...after } }
      : { status: 409, body: { code: 'stale-epoch' } };
  }
}

/** Spans that held at some time of the call; of two that met in its first millisecond, only the newer one. */
function during(spans: readonly Span[], { fromMs, toMs }: Landed): readonly Span[] {
  return spans.filter((span, at) => {
    const endMs = spans[at + 1]?.fromMs ?? Number.POSITIVE_INFINITY;
    return span.fromMs <= toMs && endMs > fromMs;
  });
}

function stampOf({ headers }: SeenCall): { readonly partition: string; readonly epoch: number } {
  return {
    partition: decodeURIComponent(String(headers['onewriter-partition'])),
    epoch: Number(headers['onewriter-epoch']),
  };
}

function textOf(value: Json | undefined): string {
  return typeof value === 'string' ? value : '';
}
