/**
 * WebSocket upgrades: admitted like a write, carried by http-proxy-middleware, and ended on both sides when
 * their partition is fenced, so that the client comes back into the hold (RFC 6455, close code 1012).
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import { Agent } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { createProxyMiddleware } from 'http-proxy-middleware';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { WriteOutcome } from '../core/member.ts';
import type { StoreName } from '../core/ownership.ts';
import { touchedBy } from '../core/ticket.ts';
import { storeTlsOf, TlsFailure } from '../stores/connect.ts';
import type { Client, Passage } from './admit.ts';
import { answerOnSocket } from './answer.ts';
import type { MatchedRequest } from './classify.ts';
import { noteDoubt } from './doubt.ts';
import type { Identity } from './identify.ts';
import { resetConnection } from './reset.ts';
import { headersFor, shapedAnswer } from './outgoing.ts';
import {
  countRefusal,
  decide,
  type ProxyContext,
  identifyThen,
  noticeAnonymousWrite,
  withSent,
} from './serve.ts';
import type { AsReceived } from './shape.ts';
import { failureOf } from './trouble.ts';

/** How long a side has to take the closing frame, ms; far below any settle time. */
const closeWithinMs = 200;

/** Server to client: FIN, opcode 8, two bytes, 1012 "service restart". */
const closeFrame = Buffer.from([0x88, 0x02, 0x03, 0xf4]);
/** To the store a client's frame: the same, masked (RFC 6455, 5.3) with a key of zeros. */
const maskedCloseFrame = Buffer.from([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]);

interface Upgraded {
  readonly request: IncomingMessage;
  /** The request itself gets the headers for the store. */
  readonly received: AsReceived;
  readonly client: Duplex;
  readonly passage: Passage;
  readonly identity: Identity | undefined;
  store: Duplex | undefined;
  asked: ClientRequest | undefined;
  /** Connected to the store, and TLS is not agreed on yet. */
  inHandshake: boolean;
  stopListening: () => void;
  over: boolean;
}

export class Upgrades {
  #context: ProxyContext;
  readonly #open = new Map<IncomingMessage, Upgraded>();
  readonly #middlewares: Readonly<Record<StoreName, ReturnType<typeof createProxyMiddleware>>>;

  constructor(context: ProxyContext) {
    this.#context = context;
    this.#middlewares = {
      legacy: this.#middlewareTo('legacy', context.config),
      app: this.#middlewareTo('app', context.config),
    };
  }

  #middlewareTo(store: StoreName, { stores }: Config): ReturnType<typeof createProxyMiddleware> {
    const tls = storeTlsOf(store, { stores });
    return createProxyMiddleware({
      target: stores[store].url,
      ...(tls === undefined ? {} : { agent: new Agent({ ...tls, keepAlive: false }) }),
      ws: true,
      changeOrigin: false,
      upgradeTimeout: stores[store].writeTimeoutMs,
      on: {
        proxyReqWs: (asked, request) => this.#asked(asked, request),
        error: (error, request) => this.#failed(request, error),
      },
    });
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const match = this.#context.classifier.match(request, true);
    if (match.match !== 'request') {
      const detail = 'Nothing can be upgraded at this path. Nothing was forwarded.';
      this.#refuse(socket, match.match === 'refused' ? match.failure : { code: 'no-route', detail });
      return;
    }
    const matched = match.request;
    identifyThen(this.#context, request, matched, undefined, (identification) => {
      if (socket.destroyed) return;
      if (identification.kind === 'refused') {
        this.#refuse(socket, withSent(identification.failure, matched));
        return;
      }
      const identity = identification.kind === 'user' ? identification.identity : undefined;
      decide(this.#context, request, matched, identity, socketClient(socket), (decision) => {
        if (decision.decision === 'refuse') this.#refuse(socket, decision.failure);
        else if (decision.decision === 'again') this.upgrade(request, socket, head);
        else this.#carry(request, socket, head, matched, identity, decision.passage);
      });
    });
  }

  /** From now on; what is open under the rules before belongs to no partition. */
  serveUnder(context: ProxyContext): void {
    this.#context = context;
  }

  /** Connections that write to a partition; pinned ones belong to none. */
  get writers(): number {
    return [...this.#open.values()].filter(({ passage }) => passage.ticket !== undefined).length;
  }

  /** Closes every upgraded connection, because the proxy ends. */
  endAll(): void {
    for (const upgraded of this.#open.values()) this.#close(upgraded);
  }

  #carry(
    request: IncomingMessage,
    client: Duplex,
    head: Buffer,
    matched: MatchedRequest,
    identity: Identity | undefined,
    passage: Passage,
  ): void {
    const { store } = passage;
    const upgraded: Upgraded = {
      request,
      received: { headers: request.headers, socket: request.socket },
      client,
      passage,
      identity,
      store: undefined,
      asked: undefined,
      inHandshake: false,
      stopListening: () => {},
      over: false,
    };
    this.#open.set(request, upgraded);
    this.#context.counters.upgraded += 1;
    if (passage.ticket !== undefined) {
      const stops = touchedBy(passage.ticket).map(({ partition }) =>
        this.#context.gate.onEndLongLived(partition, () => this.#endAtFence(upgraded)),
      );
      upgraded.stopListening = () => {
        for (const stop of stops) stop();
      };
    }
    client.once('close', () => this.#end(upgraded));
    const target = this.#context.prefixes[store] + matched.target;
    const headers = headersFor(this.#context, request, matched, passage, identity, target);
    setHeaders(request, headers);
    request.url = matched.target;
    this.#middlewares[store].upgrade(request, client as Socket, head);
  }

  #endAtFence(upgraded: Upgraded): void {
    if (upgraded.over) return;
    this.#context.counters.closedAtFence += 1;
    this.#close(upgraded);
  }

  #asked(asked: ClientRequest, request: IncomingMessage): void {
    const upgraded = this.#open.get(request);
    if (upgraded === undefined || upgraded.over) {
      asked.destroy();
      return;
    }
    upgraded.asked = asked;
    asked.once('socket', (socket) => {
      if (!(socket instanceof TLSSocket)) return;
      socket.once('connect', () => {
        upgraded.inHandshake = true;
      });
      socket.once('secureConnect', () => {
        upgraded.inHandshake = false;
      });
    });
    asked.once('upgrade', (answer, store) => {
      this.#shape(upgraded, answer);
      upgraded.store = store;
      noticeAnonymousWrite(this.#context, upgraded.passage, upgraded.identity);
      store.once('close', () => this.#end(upgraded));
      if (upgraded.over) store.destroy();
    });
    asked.once('response', (answer: IncomingMessage) => {
      this.#shape(upgraded, answer);
      answer.once('end', () => this.#settle(upgraded, 'ended'));
    });
  }

  /** This listener is called before the forwarder's, which sends the parsed form on. */
  #shape({ received, passage }: Upgraded, answer: IncomingMessage): void {
    const flat = Object.entries(answer.headers).flatMap(([name, value = '']) =>
      [value].flat().flatMap((one) => [name, one]),
    );
    answer.headers = parsedForm(shapedAnswer(this.#context, received, 'head', passage.store, flat));
  }

  /** Before the 101 the client gets an answer; after it, both ends are closed. */
  #failed(request: IncomingMessage, error: Error): void {
    const upgraded = this.#open.get(request);
    if (upgraded === undefined || upgraded.over) return;
    const { passage, client, store } = upgraded;
    const refused = 'code' in error && error.code === 'ECONNREFUSED';
    const untrusted = upgraded.inHandshake;
    const sending = !refused && !untrusted;
    if (store === undefined && client.writable) {
      const reason = untrusted ? new TlsFailure(error).reason : undefined;
      const at = { store: passage.store, access: 'write', sending, reason } as const;
      this.#refuse(client, failureOf(untrusted ? 'tls' : refused ? 'refused' : 'broken', at));
    }
    if (!sending) this.#settle(upgraded, 'not-sent');
    else this.#end(upgraded);
  }

  #close(upgraded: Upgraded): void {
    const { client, store } = upgraded;
    if (store === undefined) {
      client.destroy();
    } else {
      store.unpipe(client);
      client.unpipe(store);
      client.end(closeFrame, () => client.destroy());
      store.end(maskedCloseFrame, () => store.destroy());
      // What a side that does not read has not taken by then, it shall not get any more.
      setTimeout(() => {
        for (const side of [client, store]) {
          if (!side.destroyed) resetConnection(side);
        }
      }, closeWithinMs).unref();
    }
    this.#end(upgraded);
  }

  /** One side is gone: so is the other. What the last frames did is not known. */
  #end(upgraded: Upgraded): void {
    const { client, store, asked } = upgraded;
    this.#settle(upgraded, 'in-doubt');
    if (store === undefined) asked?.destroy();
    else if (!store.writableEnded) store.destroy();
    if (!client.writableEnded) client.destroy();
  }

  #settle(upgraded: Upgraded, outcome: WriteOutcome): void {
    if (upgraded.over) return;
    upgraded.over = true;
    upgraded.stopListening();
    this.#open.delete(upgraded.request);
    this.#context.counters.upgraded -= 1;
    const { ticket } = upgraded.passage;
    if (ticket === undefined) return;
    this.#context.gate.end(ticket, outcome);
    if (outcome !== 'in-doubt') return;
    const why = 'the WebSocket was closed; what its last frames did is not known';
    noteDoubt(this.#context, upgraded.passage, { method: 'GET', target: upgraded.request.url ?? '', why });
  }

  #refuse(socket: Duplex, failure: Failure): void {
    countRefusal(this.#context, failure);
    answerOnSocket(socket, failure, this.#context.challenge);
  }
}

function socketClient(socket: Duplex): Client {
  return {
    gone: () => socket.destroyed,
    onGone(listener) {
      socket.once('close', listener);
      return () => socket.off('close', listener);
    },
  };
}

/** The forwarder takes its headers from the parsed form: give it what would be sent, and the handshake. */
function setHeaders(request: IncomingMessage, headers: readonly string[]): void {
  const { 'transfer-encoding': _, ...parsed } = parsedForm(headers);
  request.headers = { ...parsed, connection: 'Upgrade', upgrade: 'websocket' };
}

function parsedForm(headers: readonly string[]): Record<string, string | string[]> {
  const parsed: Record<string, string | string[]> = {};
  for (let at = 0; at < headers.length; at += 2) {
    const name = (headers[at] ?? '').toLowerCase();
    const value = headers[at + 1] ?? '';
    const before = parsed[name];
    parsed[name] = before === undefined ? value : [before, value].flat();
  }
  return parsed;
}
