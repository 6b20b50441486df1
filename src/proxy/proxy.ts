/** The proxy as a whole: one listening server, its upstream connections, and an orderly end. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Config } from '../config/schema.ts';
import type { StoreName } from '../core/ownership.ts';
import type { Doorbell, WriteGate } from '../core/ports.ts';
import type { Log } from '../log.ts';
import { answerOnSocket } from './answer.ts';
import { newCounters, type ProxyCounters } from './counters.ts';
import { Holds } from './hold.ts';
import { createContext, type ProxyContext, serve } from './serve.ts';
import { Upgrades } from './upgrade.ts';
import { Upstream } from './upstream.ts';

export interface ProxyParts {
  readonly config: Config;
  readonly gate: WriteGate;
  readonly doorbell: Doorbell;
  readonly log: Log;
  /** Wall clock, ms; for credentials and signatures. */
  readonly nowMs?: () => number;
  readonly limits?: Partial<ProxyLimits>;
}

export interface ProxyLimits {
  readonly heldPerPartition: number;
  readonly heldTotal: number;
  /** Client connections. */
  readonly connections: number;
  /** Requests that wait for an upstream connection, per store. */
  readonly queued: number;
}

export interface Proxy {
  listen(): Promise<{ readonly host: string; readonly port: number }>;
  /**
   * Takes no new connection, answers held writes with 503, and waits for what is in flight. True when
   * everything ended in time; what did not is broken off by `stop`.
   */
  drain(timeoutMs: number): Promise<boolean>;
  /** Breaks off what is left; writes under way end in doubt. */
  stop(): Promise<void>;
  counters(): ProxyCounters;
}

const defaultLimits: ProxyLimits = {
  heldPerPartition: 100,
  heldTotal: 10_000,
  connections: 20_000,
  queued: 1_024,
};
const headerBytesMax = 32_768;
const headersTimeoutMs = 30_000;
/** For a whole request; the time that it may be held comes on top. */
const requestTimeoutMs = 300_000;
const keepAliveMs = 65_000;
const bodySilenceMs = 300_000;
const idleLookMs = 20;

export function createProxy(parts: ProxyParts): Proxy {
  const { config, gate } = parts;
  const limits = { ...defaultLimits, ...parts.limits };
  const counters = newCounters();
  const holds = new Holds(gate, {
    perPartition: limits.heldPerPartition,
    total: limits.heldTotal,
    holdMs: config.flip.holdMs,
  });
  const upstreams = { legacy: upstreamOf(config, 'legacy', limits), app: upstreamOf(config, 'app', limits) };
  const nowMs = parts.nowMs ?? Date.now;
  const context = createContext({ ...parts, nowMs, holds, counters, upstreams });
  const upgrades = new Upgrades(context);
  const server = newServer(context, upgrades, limits);
  return {
    listen: () => listen(server, config.proxy.host, config.proxy.port),
    drain: async (timeoutMs) => drain(context, server, upgrades, timeoutMs),
    stop: async () => {
      holds.expireAll();
      upgrades.endAll();
      await Promise.all([upstreams.legacy.close(), upstreams.app.close()]);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      if (server.listening) await closed;
    },
    counters: () => ({ ...counters, holding: holds.size }),
  };
}

function upstreamOf(config: Config, store: StoreName, limits: ProxyLimits): Upstream {
  const { url, connections, connectTimeoutMs } = config.stores[store];
  return new Upstream({
    origin: new URL(url).origin,
    connections,
    connectTimeoutMs,
    queueMax: limits.queued,
    queueMs: connectTimeoutMs,
    bodyTimeoutMs: bodySilenceMs,
    headerBytesMax,
  });
}

function newServer(context: ProxyContext, upgrades: Upgrades, limits: ProxyLimits): Server {
  const server = createServer({
    maxHeaderSize: headerBytesMax,
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs + context.config.flip.holdMs,
    keepAliveTimeout: keepAliveMs,
    noDelay: true,
    // Only WebSocket is spoken here; a server may ignore every other offer (RFC 9110, 7.8).
    shouldUpgradeCallback: (request: IncomingMessage) =>
      request.headers.upgrade?.toLowerCase() === 'websocket',
  });
  server.maxConnections = limits.connections;
  const serveSafely = (request: IncomingMessage, response: ServerResponse): void => {
    try {
      serve(context, request, response);
    } catch (error) {
      // A bug that one request shows must not end the requests of everybody else.
      context.log('error', 'proxy.bug', { error: String(error) });
      request.socket.destroy();
    }
  };
  server.on('request', serveSafely);
  // The 100 is sent once the request is admitted.
  server.on('checkContinue', serveSafely);
  server.on('upgrade', (request, socket, head) => upgrades.upgrade(request, socket, head));
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy());
    const detail = 'CONNECT is not forwarded. Nothing was sent.';
    answerOnSocket(socket, { code: 'method-not-allowed', detail }, context.challenge);
  });
  return server;
}

async function listen(server: Server, host: string, port: number): Promise<{ host: string; port: number }> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const address = server.address() as AddressInfo;
  return { host: address.address, port: address.port };
}

async function drain(
  context: ProxyContext,
  server: Server,
  upgrades: Upgrades,
  timeoutMs: number,
): Promise<boolean> {
  context.draining = true;
  const closed = server.listening
    ? new Promise<boolean>((resolve) => server.close(() => resolve(true)))
    : Promise.resolve(true);
  context.holds.expireAll();
  upgrades.endAll();
  // A connection whose last answer began before the drain stays open after it.
  const idle = setInterval(() => server.closeIdleConnections(), idleLookMs);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const inTime = await Promise.race([closed, late]);
  clearInterval(idle);
  clearTimeout(timer);
  return inTime;
}
