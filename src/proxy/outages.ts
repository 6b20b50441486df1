/**
 * Tells the operator that a store fails, and that it does so no more: one line when it begins, one a minute while it
 * lasts, one when it is over. Requests are counted, not judged: what a client is told is decided elsewhere.
 */
import type { StoreName } from '../core/ownership.ts';
import type { Log } from '../log.ts';
import { BodyOverLimit, ClientBrokeOff, LeaseLapsed } from './upload.ts';

export interface OutageSettings {
  readonly log: Log;
  /** Without a failure for so long, and with an answer, it is over, ms. */
  readonly quietMs?: number;
  readonly againMs?: number;
}

interface Outage {
  readonly sinceMs: number;
  count: number;
  lastMs: number;
  toldMs: number;
}

/** Stages of a failed exchange that say something about the store; a full pool and a client that left do not. */
const telling: ReadonlySet<string> = new Set([
  ...['refused', 'connect-timeout', 'tls', 'broken', 'timeout'],
  ...['unreachable', 'store-broke-off'],
]);
/** They break an exchange off, too. */
const notTheStores = [ClientBrokeOff, BodyOverLimit, LeaseLapsed] as const;
const defaults = { quietMs: 5_000, againMs: 60_000 };

export class Outages {
  readonly #log: Log;
  readonly #quietMs: number;
  readonly #againMs: number;
  readonly #outages = new Map<StoreName, Outage>();

  constructor({ log, quietMs = defaults.quietMs, againMs = defaults.againMs }: OutageSettings) {
    this.#log = log;
    this.#quietMs = quietMs;
    this.#againMs = againMs;
  }

  failed(store: StoreName, stage: string, cause: Error | undefined): void {
    if (!telling.has(stage) || notTheStores.some((kind) => cause instanceof kind)) return;
    const nowMs = performance.now();
    const known = this.#outages.get(store);
    const outage = known ?? { sinceMs: nowMs, count: 0, lastMs: nowMs, toldMs: nowMs };
    outage.count += 1;
    outage.lastMs = nowMs;
    if (known !== undefined && nowMs - known.toldMs < this.#againMs) return;
    outage.toldMs = nowMs;
    this.#outages.set(store, outage);
    const detail = `${store} does not answer requests; those that it does not answer are answered by the proxy.`;
    const error = cause === undefined ? {} : { error: cause.message };
    this.#log('warn', 'upstream.failing', { store, stage, count: outage.count, ...error, detail });
  }

  /** Cheap while nothing fails: every answer comes by here. */
  answered(store: StoreName): void {
    if (this.#outages.size === 0) return;
    const outage = this.#outages.get(store);
    const nowMs = performance.now();
    if (outage === undefined || nowMs - outage.lastMs < this.#quietMs) return;
    this.#outages.delete(store);
    const forMs = Math.round(outage.lastMs - outage.sinceMs);
    this.#log('info', 'upstream.recovered', { store, count: outage.count, forMs });
  }
}
