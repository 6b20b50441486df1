/** The proxy as a whole: one listening server, its upstream connections, and an orderly end. */
import type { Server } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Directory, Homes } from '../core/homes.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import type { CopyReads } from '../core/copy-reads.ts';
import type { DoubtNotes } from '../core/doubt.ts';
import type { IdempotencyKeys } from '../core/idempotency.ts';
import type { LinkNotes } from '../core/links.ts';
import type { Doorbell, WriteGate, UserCalls } from '../core/ports.ts';
import type { Log } from '../log.ts';
import { storeTlsOf } from '../stores/connect.ts';
import { Bodies } from './body.ts';
import { ByteBudget } from './byte-budget.ts';
import { readCertificate, watchCertificate } from './certificate.ts';
import { createClassifier } from './classify.ts';
import { newCounters, type ProxyCounters } from './counters.ts';
import { EventStreams } from './event-streams.ts';
import { Holds } from './hold.ts';
import type { Hooks } from './hook.ts';
import { placeIn } from './hook-checks.ts';
import { type HookParts, HookedUpstreams } from './hooked-upstream.ts';
import { KeyedWrites } from './idempotency.ts';
import { readsUnder } from './reads.ts';
import { createContext, type ProxyContext } from './serve.ts';
import { Outages } from './outages.ts';
import { PinnedWrites, type Unpinned } from './pinned.ts';
import { closedWithin, listenOn } from './listening.ts';
import { newServer } from './server.ts';
import { Upgrades } from './upgrade.ts';
import { Upstream } from './upstream.ts';

/** What requests are judged by, as long as the rules are the same. */
export interface Terms {
  readonly config: Config;
  readonly gate: WriteGate;
  /** Left out: new partitions begin at the default store, so every home is known. */
  readonly homes?: Homes;
  /** Left out: no user has an entry. */
  readonly directory?: Directory;
  /** Left out: nothing is noted of partitions that are written together. */
  readonly links?: LinkNotes;
  readonly doubts: DoubtNotes;
  /** Left out: the owners answer all reads. */
  readonly copies?: CopyReads | undefined;
}

export interface ProxyParts extends Terms {
  readonly doorbell: Doorbell;
  /** Left out: nobody counts what users take of a store's rate limit. */
  readonly userCalls?: UserCalls | undefined;
  /** Left out: an Idempotency-Key is only passed on. */
  readonly keys?: IdempotencyKeys;
  readonly log: Log;
  /** Those that `loadHooks` found for `config`. Left out: none. */
  readonly hooks?: Hooks;
  /** Wall clock, ms; for credentials and signatures. */
  readonly nowMs?: () => number;
  /** Between two looks at the files of the certificate, ms. */
  readonly certificateLookMs?: number;
}

export interface Proxy {
  listen(): Promise<{ readonly host: string; readonly port: number }>;
  /**
   * From now on writes wait, as at a fence; what is under way goes on. So do writes on pinned routes, where the rules
   * that are to follow leave them at their store.
   */
  pauseWrites(next: Config): void;
  resumeWrites(): void;
  /**
   * Judges by these from now on, also what waits: from its identity on, as if it came now. Only once nothing is
   * under way that was admitted by the gate before. Addresses, times and limits stay those of the start.
   */
  serveUnder(terms: Terms): void;
  /**
   * Takes no new connection, answers held writes with 503, and waits for what is in flight. True when
   * everything ended in time; what did not is broken off by `stop`.
   */
  drain(timeoutMs: number): Promise<boolean>;
  /** Breaks off what is left; writes under way end in doubt. */
  stop(): Promise<void>;
  counters(): ProxyCounters;
  /** Open WebSockets that write to a partition. */
  openWriters(): number;
  /** What is under way, or in doubt, on pinned routes that are pinned otherwise by these rules; as often as it is asked. */
  unpinnedBy(next: Config): () => Unpinned;
  /** Until no write on a pinned route is in doubt any more, ms; of those that have ended. */
  pinnedSettledInMs(): number;
  /** Reads the certificate of the listening side again; without one there is nothing to do. */
  renewCertificate(): void;
}

const defaultCertificateLookMs = 2_000;
/** Longer than any question about an identity takes. */
const identifiedWithinMs = 60_000;

export function createProxy(parts: ProxyParts): Proxy {
  const { config, keys, log } = parts;
  const { limits } = config.proxy;
  const counters = newCounters();
  const bug = (error: unknown): void => log('error', 'proxy.bug', { error: String(error) });
  const upstreams = { legacy: upstreamOf(config, 'legacy', bug), app: upstreamOf(config, 'app', bug) };
  const nowMs = parts.nowMs ?? Date.now;
  const keyedWrites =
    keys && new KeyedWrites({ keys, stores: config.stores, log, bytesMax: limits.keyedBytes });
  const bodies = new Bodies({ bytesMax: limits.inspectedBytes, timeoutMs: limits.inspectMs });
  const hooked = hookedUpstreams(parts, upstreams);
  const outages = new Outages({ log });
  const pinned = new PinnedWrites();
  const contextOf = (terms: Terms): ProxyContext => {
    const { homes = everyHomeIsKnown, directory = emptyDirectory, links = noLinks, copies } = terms;
    const reads = readsUnder(terms.config, copies, { gate: terms.gate, counters: counters.copyReads });
    const gate = reads?.telling() ?? terms.gate;
    const holds = new Holds(gate, {
      perPartition: limits.heldPerPartition,
      total: limits.heldTotal,
      holdMs: terms.config.flip.holdMs,
    });
    const shared = {
      ...{ doorbell: parts.doorbell, userCalls: parts.userCalls, log, nowMs, bodies, keyedWrites },
      ...{ counters, upstreams, hooked, eventStreams: new EventStreams(), outages, pinned },
    };
    return createContext({ ...terms, ...shared, gate, reads, homes, directory, links, holds });
  };
  let context = contextOf(parts);
  const upgrades = new Upgrades(context);
  const { tls } = config.proxy;
  const files = tls && readCertificate(tls);
  const server = newServer(() => context, upgrades, files);
  const lookMs = parts.certificateLookMs ?? defaultCertificateLookMs;
  const certificate = tls && files && watchCertificate(server, tls, files, { lookMs, log });
  return {
    listen: () => listenOn(server, config.proxy),
    pauseWrites: (next) => {
      context.service.now = 'paused';
      context.service.next = createClassifier(next);
    },
    resumeWrites: () => {
      context.service.now = 'open';
      context.service.next = undefined;
      context.holds.lookAll();
    },
    serveUnder: (terms) => {
      const before = context;
      context = contextOf(terms);
      context.draining = before.draining;
      before.successor = context;
      before.service.now = 'replaced';
      upgrades.serveUnder(context);
      before.holds.lookAll();
      // The gate that they listen to hears of no move any more.
      before.eventStreams.endAll();
      // Who is being identified yet is still told who they are, and then judged anew.
      setTimeout(() => before.identifier.close(), identifiedWithinMs).unref();
    },
    drain: async (timeoutMs) => drain(context, server, upgrades, timeoutMs),
    stop: async () => {
      certificate?.stop();
      context.holds.close();
      upgrades.endAll();
      context.identifier.close();
      await Promise.all([upstreams.legacy.close(), upstreams.app.close()]);
      await keyedWrites?.close();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      if (server.listening) await closed;
    },
    openWriters: () => upgrades.writers,
    unpinnedBy: (next) => {
      const classifier = createClassifier(next);
      return () => pinned.unpinnedBy(classifier, next);
    },
    pinnedSettledInMs: () => pinned.settledInMs(),
    renewCertificate: () => certificate?.renew(),
    counters: () => ({ ...counters, holding: context.holds.size }),
  };
}

const everyHomeIsKnown: Homes = {
  known: () => true,
  settle: () => undefined,
  find: async () => ({ store: 'legacy', home: 'known' }),
};
const noLinks: LinkNotes = { known: () => true, note: async () => undefined };
const emptyDirectory: Directory = { cached: () => null, look: async () => undefined };

function upstreamOf(config: Config, store: StoreName, bug: (error: unknown) => void): Upstream {
  const { limits } = config.proxy;
  const { url, connections, streams, connectTimeoutMs } = config.stores[store];
  return new Upstream({
    origin: new URL(url).origin,
    tls: storeTlsOf(store, config),
    connections,
    streams,
    connectTimeoutMs,
    queueMax: limits.queued,
    queueMs: connectTimeoutMs,
    bodyTimeoutMs: limits.answerSilenceMs,
    headerBytesMax: limits.headerBytes,
    bug,
  });
}

function hookedUpstreams(
  { hooks = {}, config, log }: ProxyParts,
  upstreams: Readonly<Record<StoreName, Upstream>>,
): ProxyContext['hooked'] {
  const budget = new ByteBudget(config.proxy.limits.hookedBytes);
  const hooked: Partial<Record<StoreName, HookedUpstreams>> = {};
  for (const store of storeNames) {
    const [hook, settings] = [hooks[store], config.stores[store].hook];
    if (hook === undefined || settings === undefined) continue;
    const failed: HookParts['failed'] = (part, cause, { method, route, partition }) =>
      log('error', 'hook.failed', {
        ...{ store, part, error: String(cause), at: placeIn(settings.file, cause) },
        ...{ method, route, partition },
      });
    hooked[store] = new HookedUpstreams({ upstream: upstreams[store], hook, settings, budget, failed });
  }
  return hooked;
}

async function drain(
  context: ProxyContext,
  server: Server,
  upgrades: Upgrades,
  timeoutMs: number,
): Promise<boolean> {
  context.draining = true;
  const inTime = closedWithin(server, timeoutMs);
  context.holds.close();
  upgrades.endAll();
  context.eventStreams.endAll();
  return inTime;
}
