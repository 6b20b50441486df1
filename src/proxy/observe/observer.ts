/**
 * The proxy that only observes: everything goes to legacy as it came, and what enforcing would have made of it is
 * written down. Read from the top, this is all that it does to a request; nothing in it waits for a judgement, a
 * ledger or a disk.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Config } from '../../config/schema.ts';
import { isReadMethod } from '../../core/route.ts';
import { type Log, sentenceOf } from '../../log.ts';
import { pause } from '../../pause.ts';
import { storeTlsOf } from '../../stores/connect.ts';
import { answerOnSocket } from '../answer.ts';
import { ByteBudget } from '../byte-budget.ts';
import { type CertificateWatch, readCertificate, watchCertificate } from '../certificate.ts';
import { clientsWithinFiles } from '../crowd.ts';
import { foldedName } from '../field.ts';
import { closedWithin, listenOn } from '../listening.ts';
import { Outages } from '../outages.ts';
import { peerTest } from '../peers.ts';
import { clientViewOf, Shape } from '../shape.ts';
import { outcomeUnknownAt } from '../trouble.ts';
import { PassingBody } from './body.ts';
import { Exchange, type ExchangeReport } from './exchange.ts';
import { observedHeaders, type ObservedHeaderRules } from './headers.ts';
import { Judge, type Judgement, nothingKnown } from './judge.ts';
import { type LegacyAddress, Line } from './line.ts';
import type { Notes, NotesState } from './notes.ts';
import { createObservingServer } from './server.ts';
import { Tunnel } from './tunnel.ts';

export interface ObserverParts {
  readonly config: Config;
  readonly notes: Notes;
  readonly log: Log;
  readonly limits?: Partial<ObserverLimits>;
}

export interface ObserverLimits {
  /** Client connections. */
  readonly connections: number;
  /** Bodies that are looked into, in memory, bytes. */
  readonly bodyBytes: number;
  /** What enforcing gives such a body to arrive, ms. */
  readonly bodyMs: number;
  /** Requests that are over and wait for their judgement. */
  readonly unjudged: number;
  readonly certificateLookMs: number;
}

export interface Observer {
  listen(): Promise<{ readonly host: string; readonly port: number }>;
  /** Judges by these rules from now on. Addresses and times stay those of the start. */
  judgeUnder(config: Config): void;
  /** Takes no new connection and waits for what is under way. True when everything ended in time. */
  drain(timeoutMs: number): Promise<boolean>;
  /** Breaks off what is left, and writes down what is not written yet. */
  stop(): Promise<void>;
  state(): NotesState;
  /** How long until no write whose end nobody saw can take effect any more, ms. */
  settlesInMs(): number;
  renewCertificate(): void;
}

const defaultLimits: ObserverLimits = {
  connections: 20_000,
  bodyBytes: 67_108_864,
  bodyMs: 10_000,
  unjudged: 10_000,
  certificateLookMs: 2_000,
};
/** Far more than enforcing takes: legacy says itself what it does not take. */
const headerBytesMax = 262_144;
const judgeClosesAfterMs = 60_000;
const judgedWithinMs = 2_000;

export function createObserver(parts: ObserverParts): Observer {
  return new RunningObserver(parts);
}

class RunningObserver implements Observer {
  readonly #config: Config;
  readonly #notes: Notes;
  readonly #log: Log;
  readonly #outages: Outages;
  readonly #limits: ObserverLimits;
  readonly #legacy: LegacyAddress;
  readonly #headerRules: ObservedHeaderRules;
  readonly #budget: ByteBudget;
  readonly #server: Server;
  readonly #certificate: CertificateWatch | undefined;
  readonly #lines = new WeakMap<Socket, Line>();
  readonly #tunnels = new Set<Tunnel>();
  #judge: Judge;
  /** Requests that are over and wait for their judgement. */
  readonly #unjudged = new Set<Promise<void>>();
  #draining = false;
  #settledAtMs = 0;

  constructor({ config, notes, log, limits }: ObserverParts) {
    this.#config = config;
    this.#notes = notes;
    this.#log = log;
    this.#outages = new Outages({ log });
    this.#limits = { ...defaultLimits, ...limits };
    const url = new URL(config.stores.legacy.url);
    this.#legacy = { url, tls: storeTlsOf('legacy', config), headerBytesMax };
    this.#headerRules = headerRulesOf(config);
    this.#budget = new ByteBudget(this.#limits.bodyBytes);
    this.#judge = new Judge(config, log);
    const { tls } = config.proxy;
    const files = tls && readCertificate(tls);
    this.#server = createObservingServer(
      {
        observe: (request, response) => this.#orEnd(request, () => this.#observe(request, response)),
        upgrade: (request, client, head) => this.#orEnd(request, () => this.#upgrade(request, client, head)),
        connect: (request, client) => this.#refuseConnect(request, client),
        notHttp: (client) => this.#noteNotHttp(client),
      },
      { headerBytesMax, connectionsMax: clientsWithinFiles(this.#limits.connections, log), files },
    );
    const look = { lookMs: this.#limits.certificateLookMs, log };
    this.#certificate = tls && files && watchCertificate(this.#server, tls, files, look);
  }

  // --- one request -----------------------------------------------------------------------------------

  #observe(request: IncomingMessage, response: ServerResponse): void {
    const { match, judge } = this.#matchOf(request, false);
    if (match?.match === 'health') {
      this.#answerHealth(response);
      return;
    }
    const line = this.#lineOf(request.socket);
    if (line.isOver) return;
    const seen = this.#sightOf(request, judge);
    const bytesMax = match === undefined ? 0 : judge.bodyBytesMax(match);
    const withinMs = this.#limits.bodyMs;
    const body =
      bytesMax === 0 ? undefined : new PassingBody(request, { budget: this.#budget, bytesMax, withinMs });
    const judged = this.#judged(() => match && judge.judge(request, match, body));
    const { shape, isTrustedProxy } = this.#headerRules;
    void new Exchange({
      ...{ request, response, line, shape, body },
      headers: observedHeaders(request, this.#headerRules, false),
      view: () => clientViewOf(request, isTrustedProxy(request.socket.remoteAddress)),
      isLast: () => this.#draining,
      ended: (report) => this.#note(seen, report, judged, () => body?.forget()),
    });
  }

  #upgrade(request: IncomingMessage, client: Socket, head: Buffer): void {
    const { match, judge } = this.#matchOf(request, true);
    const line = this.#lineOf(request.socket);
    if (line.isOver) return;
    const seen = this.#sightOf(request, judge);
    const judged = this.#judged(() => match && judge.judge(request, match, undefined));
    const { shape, isTrustedProxy } = this.#headerRules;
    const view = () => clientViewOf(request, isTrustedProxy(request.socket.remoteAddress));
    const tunnel: Tunnel = new Tunnel({
      ...{ request, client, head, line },
      headers: observedHeaders(request, this.#headerRules, true),
      shaped: (rawHeaders) => shape.answer(rawHeaders, request, view),
      ended: (report) => {
        this.#tunnels.delete(tunnel);
        this.#note(seen, report, judged);
      },
    });
    this.#tunnels.add(tunnel);
  }

  /** There is no way to legacy for it that could be passed on: CONNECT names the other end itself. */
  #refuseConnect(request: IncomingMessage, client: Duplex): void {
    client.on('error', () => client.destroy());
    const detail = 'CONNECT is not forwarded. Nothing was sent.';
    answerOnSocket(client, { code: 'method-not-allowed', detail }, '');
    const judged = this.#judged(() =>
      this.#judge.judge(request, this.#judge.match(request, false), undefined),
    );
    const nothing = { status: undefined, headMs: undefined, requestBytes: 0, answerBytes: 0, sent: false };
    this.#note(this.#sightOf(request, this.#judge), { ended: 'refused', ...nothing }, judged);
  }

  #noteNotHttp(client: Duplex): boolean {
    if (this.#lines.get(client as Socket)?.isBusy === true) return false;
    this.#notes.notHttp += 1;
    return true;
  }

  #lineOf(socket: Socket): Line {
    const known = this.#lines.get(socket);
    if (known !== undefined) return known;
    const line = new Line(socket, this.#legacy);
    this.#lines.set(socket, line);
    return line;
  }

  // --- what is made of it ----------------------------------------------------------------------------

  #matchOf(request: IncomingMessage, upgrade: boolean) {
    const judge = this.#judge;
    try {
      return { judge, match: judge.match(request, upgrade) };
    } catch (error) {
      this.#log('error', 'observe.bug', { error: sentenceOf(error) });
      return { judge, match: undefined };
    }
  }

  /** Never rejects: a bug in judging costs the judgement, not the request. */
  async #judged(judge: () => Promise<Judgement> | undefined): Promise<Judgement> {
    try {
      return (await judge()) ?? nothingKnown;
    } catch (error) {
      this.#log('error', 'observe.bug', { error: sentenceOf(error) });
      return nothingKnown;
    }
  }

  #sightOf({ method = '', url = '' }: IncomingMessage, { rules }: Judge): Sight {
    return { rules, atMs: Date.now(), sinceMs: performance.now(), method, target: url };
  }

  #note(seen: Sight, report: ExchangeReport, judged: Promise<Judgement>, then?: () => void): void {
    const { rules, method, target, atMs, sinceMs } = seen;
    const durationMs = performance.now() - sinceMs;
    this.#noteUnsettled(method, report);
    if (report.ended === 'answered') this.#outages.answered('legacy');
    else this.#outages.failed('legacy', report.ended, report.error);
    const note = (judgement: Judgement): void => {
      const tooSlow = this.#isTooSlow(judgement, report, durationMs);
      this.#notes.note({ rules, atMs, durationMs, method, target, judgement, report, tooSlow });
    };
    if (this.#unjudged.size >= this.#limits.unjudged) {
      note(nothingKnown);
      then?.();
      return;
    }
    const noted: Promise<void> = judged
      .then(note)
      .catch((error: unknown) => this.#log('error', 'observe.bug', { error: sentenceOf(error) }))
      .finally(() => {
        this.#unjudged.delete(noted);
        then?.();
      });
    this.#unjudged.add(noted);
  }

  #isTooSlow({ matched, would }: Judgement, { headMs }: ExchangeReport, durationMs: number): boolean {
    if (would.do !== 'forward' || matched === undefined || matched.accessBy === 'upgrade') return false;
    const { writeTimeoutMs, readTimeoutMs } = this.#config.stores[would.store];
    return matched.access === 'write' ? durationMs > writeTimeoutMs : (headMs ?? durationMs) > readTimeoutMs;
  }

  /** A write whose end nobody saw may still take effect, also after this process has gone. */
  #noteUnsettled(method: string, { ended, status, sent }: ExchangeReport): void {
    if (!sent || (isReadMethod(method) && status !== 101)) return;
    const known = ended === 'answered' && status !== 202 && status !== 101 && !outcomeUnknownAt(status ?? 0);
    if (!known) this.#settledAtMs = performance.now() + this.#config.stores.legacy.settleMs;
  }

  #answerHealth(response: ServerResponse): void {
    const body = Buffer.from(JSON.stringify({ status: 'ok', mode: 'observe', ...this.state() }));
    response.writeHead(200, {
      'Content-Type': 'application/json',
      'Content-Length': body.byteLength,
      'Cache-Control': 'no-store',
    });
    response.end(body);
  }

  // --- beginning and end -----------------------------------------------------------------------------

  /** What one request makes go wrong must not end the requests of everybody else. */
  #orEnd(request: IncomingMessage, step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#log('error', 'observe.bug', { error: sentenceOf(error) });
      request.socket.destroy();
    }
  }

  listen(): Promise<{ host: string; port: number }> {
    return listenOn(this.#server, this.#config.proxy);
  }

  judgeUnder(config: Config): void {
    const before = this.#judge;
    this.#judge = new Judge(config, this.#log);
    setTimeout(() => before.close(), judgeClosesAfterMs).unref();
  }

  async drain(timeoutMs: number): Promise<boolean> {
    this.#draining = true;
    if (!this.#server.listening) return true;
    const inTime = closedWithin(this.#server, timeoutMs);
    for (const tunnel of this.#tunnels) tunnel.close();
    return inTime;
  }

  async stop(): Promise<void> {
    this.#certificate?.stop();
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const tunnel of this.#tunnels) tunnel.close();
    this.#server.closeAllConnections();
    await closed;
    // Whoever was being asked who somebody is will not be heard any more.
    this.#judge.close();
    const given = new AbortController();
    await Promise.race([
      Promise.all(this.#unjudged),
      pause(judgedWithinMs, given.signal).catch(() => undefined),
    ]);
    given.abort();
    await this.#notes.close();
  }

  state(): NotesState {
    return this.#notes.state();
  }

  settlesInMs(): number {
    return Math.max(0, this.#settledAtMs - performance.now());
  }

  renewCertificate(): void {
    this.#certificate?.renew();
  }
}

interface Sight {
  readonly rules: string;
  readonly atMs: number;
  readonly sinceMs: number;
  readonly method: string;
  readonly target: string;
}

function headerRulesOf({ proxy, identity, stores }: Config): ObservedHeaderRules {
  const named = identity.flatMap((rule) =>
    'header' in rule ? [[foldedName(rule.header.toLowerCase()), peerTest(rule.from)] as const] : [],
  );
  return {
    isTrustedProxy: peerTest(proxy.trustedProxies),
    identityHeaders: new Map(named),
    ...{ forwarded: proxy.forwarded, via: proxy.via },
    shape: new Shape(stores.legacy),
  };
}
