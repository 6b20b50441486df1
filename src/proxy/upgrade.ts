/**
 * WebSocket upgrades: admitted like a write, asked for at the store, and ended on both sides when their partition is
 * fenced, so that the client comes back into the hold (RFC 6455, close code 1012).
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { WriteOutcome } from '../core/member.ts';
import type { StoreName } from '../core/ownership.ts';
import { touchedBy } from '../core/ticket.ts';
import { type StoreDial, storeDialer, storeTlsOf } from '../stores/connect.ts';
import type { Client, Passage } from './admit.ts';
import { answerOnSocket } from './answer.ts';
import { passAnswer } from './answered-upgrade.ts';
import type { MatchedRequest } from './classify.ts';
import { statusClass, type StatusClass } from './counters.ts';
import { noteDoubt } from './doubt.ts';
import { EarlyBytes } from './early-bytes.ts';
import { isEventStream } from './event-streams.ts';
import { Handshake } from './handshake.ts';
import { framed, responseHeaders, without } from './headers.ts';
import type { Identity } from './identify.ts';
import { headersFor, shapedAnswer } from './outgoing.ts';
import { noticeWrite } from './notice.ts';
import { beginPinned } from './pinned.ts';
import {
  answerFieldsOf,
  countRefusal,
  decide,
  endOnBug,
  type ProxyContext,
  identifyThen,
  withSent,
} from './serve.ts';
import { failureBy, failureOf, lapsedFailure, leavesDoubt, upgradeBrokenOff } from './trouble.ts';
import { Tunnel } from './tunnel.ts';
import type { FailedStage } from './upstream.ts';

export class Upgrades {
  #context: ProxyContext;
  readonly #open = new Set<Upgrade>();
  readonly #dials: Readonly<Record<StoreName, StoreDial>>;

  constructor(context: ProxyContext) {
    this.#context = context;
    this.#dials = { legacy: dialTo('legacy', context.config), app: dialTo('app', context.config) };
  }

  /** `head`: what the client has sent behind its request. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    // Times of requests end here.
    (socket as Socket).setTimeout(0);
    const { bodies, counters } = this.#context;
    const full = (): void => countRefusal({ counters }, noRoomForEarlyBytes);
    const early = new EarlyBytes(socket, head, { budget: bodies.budget, full });
    if (!socket.destroyed) this.#take(request, early);
  }

  /** From now on; what is open under the rules before belongs to no partition. */
  serveUnder(context: ProxyContext): void {
    this.#context = context;
  }

  /** Connections that write to a partition; pinned ones belong to none (pinned.ts). */
  get writers(): number {
    return [...this.#open].filter(({ passage }) => passage.ticket !== undefined).length;
  }

  /** Closes every upgraded connection, because the proxy ends. */
  endAll(): void {
    for (const upgrade of this.#open) upgrade.close('shutting-down');
  }

  #take(request: IncomingMessage, early: EarlyBytes): void {
    const context = this.#context;
    const { client } = early;
    const refuse = (failure: Failure): void => {
      countRefusal(context, failure);
      early.take();
      answerOnSocket(client, failure, context.challenge);
    };
    const match = context.classifier.match(request, true);
    if (match.match !== 'request') {
      const detail = 'Nothing can be upgraded at this path. Nothing was forwarded.';
      refuse(match.match === 'refused' ? match.failure : { code: 'no-route', detail });
      return;
    }
    const matched = match.request;
    identifyThen(context, request, matched, undefined, (identification) => {
      if (client.destroyed) return;
      if (identification.kind === 'refused') {
        refuse(withSent(identification.failure, matched));
        return;
      }
      const identity = identification.kind === 'user' ? identification.identity : undefined;
      decide(context, request, matched, identity, socketClient(client), (decision) => {
        if (decision.decision === 'refuse') refuse(decision.failure);
        else if (decision.decision === 'again') this.#take(request, early);
        else this.#carry({ context, request, matched, identity, passage: decision.passage, early, refuse });
      });
    });
  }

  #carry(order: Omit<UpgradeOrder, 'dial' | 'again' | 'ended'>): void {
    const endPinned = beginPinned(order.context, order.request, order.matched, order.passage);
    const upgrade = new Upgrade({
      ...order,
      dial: this.#dials[order.passage.store],
      again: () => this.#take(order.request, order.early),
      ended: (outcome) => {
        endPinned?.(outcome);
        this.#open.delete(upgrade);
        order.context.counters.upgraded -= 1;
      },
    });
    this.#open.add(upgrade);
    order.context.counters.upgraded += 1;
    upgrade.start();
  }
}

const noRoomForEarlyBytes: Failure = {
  code: 'body-unavailable',
  detail: 'What was sent behind the upgrade, before its answer, found no room (proxy.limits.inspectedBytes).',
};

/** Beside the pool, so that long-lived connections never stand in the way of requests. */
function dialTo(store: StoreName, { stores }: Config): StoreDial {
  const { url, connectTimeoutMs } = stores[store];
  return storeDialer({ origin: new URL(url).origin, tls: storeTlsOf(store, { stores }), connectTimeoutMs });
}

interface UpgradeOrder {
  readonly context: ProxyContext;
  readonly request: IncomingMessage;
  readonly matched: MatchedRequest;
  readonly identity: Identity | undefined;
  readonly passage: Passage;
  readonly early: EarlyBytes;
  readonly dial: StoreDial;
  readonly refuse: (failure: Failure) => void;
  /** Nothing was sent yet, and it must be decided anew where the request goes. */
  readonly again: () => void;
  /** Once. */
  readonly ended: (outcome: WriteOutcome) => void;
}

/** One admitted upgrade: asking, then either a tunnel or an ordinary answer. */
class Upgrade {
  readonly #order: UpgradeOrder;
  #handshake: Handshake | undefined;
  #tunnel: Tunnel | undefined;
  #stopListening = (): void => {};
  #sending = false;
  #sentAtMs = 0;
  #answering = false;
  /** Of an answer that does not end by itself. */
  #endStream: (() => void) | undefined;
  #over = false;

  constructor(order: UpgradeOrder) {
    this.#order = order;
  }

  get passage(): Passage {
    return this.#order.passage;
  }

  start(): void {
    const { context, request, matched, identity, passage, early, dial } = this.#order;
    const { config, gate, prefixes } = context;
    const { store, ticket } = passage;
    if (context.draining) {
      this.close('shutting-down');
      return;
    }
    const stops = (ticket === undefined ? [] : touchedBy(ticket)).map(({ partition }) =>
      gate.onEndLongLived(partition, () => this.close('fenced')),
    );
    this.#stopListening = () => {
      for (const stop of stops) stop();
    };
    early.client.once('close', this.#onClientClose);
    if (early.client.destroyed) {
      this.#onClientClose();
      return;
    }
    const settings = config.stores[store];
    const target = prefixes[store] + matched.target;
    // Without a body there is nothing behind which they could stand.
    const headers = without('trailer', headersFor(context, request, matched, passage, identity, target));
    const offer = ['Connection', 'Upgrade', 'Upgrade', request.headers.upgrade ?? 'websocket'];
    this.#handshake = new Handshake(
      {
        ...{ dial, target, headers: [...headers, ...offer] },
        answerTimeoutMs: settings.writeTimeoutMs,
        headerBytesMax: config.proxy.limits.headerBytes,
      },
      {
        onSending: () => this.#mayContinue() && this.#begin(),
        onUpgraded: this.#guarded((answer, socket, head) => this.#onUpgraded(answer, socket, head)),
        onAnswered: this.#guarded((answer) => this.#onAnswered(answer)),
        onFailed: (stage, cause) => this.#fail(stage, cause),
      },
    );
    const known = ticket && context.reads?.mayAnswer(ticket);
    if (known === undefined) this.#handshake.start();
    // What is acknowledged through it is never seen here, so every member must know of it before.
    else void known.then(() => this.#over || this.#handshake?.start());
  }

  /** The partition is fenced, the lease has lapsed, or the proxy ends. An ordinary answer goes on, within its time. */
  close(why: 'fenced' | 'shutting-down'): void {
    const { context, passage, refuse, again } = this.#order;
    if (this.#over || (this.#answering && this.#endStream === undefined)) return;
    const sending = this.#sending;
    if (why === 'fenced' && sending) context.counters.closedAtFence += 1;
    if (this.#tunnel !== undefined) {
      this.#tunnel.close();
      return;
    }
    if (this.#endStream !== undefined) {
      this.#endStream();
      return;
    }
    this.#handshake?.cancel();
    this.#settle(sending ? 'in-doubt' : 'not-sent', 'broken');
    const { store } = passage;
    if (sending) refuse(upgradeBrokenOff(store, why));
    else if (why === 'fenced') again();
    else refuse(failureOf('closed', { store, access: 'write', sending }));
  }

  #begin(): boolean {
    this.#sending = true;
    this.#sentAtMs = performance.now();
    const { context, passage } = this.#order;
    context.userCalls?.sent(passage);
    return true;
  }

  readonly #mayContinue = (): boolean => {
    const { context, passage, refuse } = this.#order;
    if (passage.ticket === undefined || context.gate.mayContinue(passage.ticket)) return true;
    if (this.#tunnel !== undefined) return false;
    this.#settle('not-sent', 'broken');
    refuse(lapsedFailure(passage.store, false));
    return false;
  };

  #onUpgraded(answer: IncomingMessage, store: Socket, head: Buffer): void {
    const { context, passage, early } = this.#order;
    const { client } = early;
    const protocol = answer.headers.upgrade ?? '';
    // RFC 9110, 7.8: a store must not choose what was not offered.
    if (protocol.toLowerCase() !== 'websocket') {
      store.destroy();
      this.#fail('broken', new Error(`the store switched to ${protocol || 'nothing'}`));
      return;
    }
    noticeWrite(context, passage);
    this.#count('1xx');
    client.off('close', this.#onClientClose);
    const lines = [`HTTP/1.1 101 ${answer.statusMessage || 'Switching Protocols'}`];
    const fields = [...this.#shaped(answer), 'Connection', 'Upgrade', 'Upgrade', protocol];
    for (let at = 0; at < fields.length; at += 2) lines.push(`${fields[at]}: ${fields[at + 1]}`);
    client.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
    const { limits } = context.config.proxy;
    this.#tunnel = new Tunnel({
      ...{ client, store, mayContinue: this.#mayContinue },
      storeStallMs: context.config.stores[passage.store].writeTimeoutMs,
      clientStallMs: limits.stalledMs,
      silenceMs: limits.upgradedSilenceMs,
      ended: () => this.#settle('in-doubt'),
    });
    this.#tunnel.open({ fromClient: early.take(), fromStore: head });
  }

  /** The store does not upgrade: its answer is the client's. */
  #onAnswered(answer: IncomingMessage): void {
    const { context, request, early, passage } = this.#order;
    const status = answer.statusCode ?? 0;
    if (status === 101) {
      answer.destroy();
      this.#fail('broken', new Error('the store switched without saying to what'));
      return;
    }
    if (statusClass(status) !== '4xx') noticeWrite(context, passage);
    this.#answering = true;
    const { writeTimeoutMs } = context.config.stores[passage.store];
    const breakOff = passAnswer({
      ...{ request, answer, early, fields: framed(request, status, this.#shaped(answer)) },
      leftMs: writeTimeoutMs - (performance.now() - this.#sentAtMs),
      stalledMs: context.config.proxy.limits.stalledMs,
      ended: (complete) => {
        const doubtful = !complete || leavesDoubt(status);
        this.#settle(doubtful ? 'in-doubt' : 'ended', complete ? statusClass(status) : 'broken');
      },
    });
    if (isEventStream(answer.rawHeaders)) this.#endStream = breakOff;
  }

  #shaped(answer: IncomingMessage): string[] {
    const { context, request, passage } = this.#order;
    const received = responseHeaders(answer.rawHeaders);
    return [
      ...shapedAnswer(context, request, 'head', passage.store, received),
      ...answerFieldsOf(context, passage, request),
    ];
  }

  #fail(stage: FailedStage, cause: Error): void {
    const { context, passage, refuse } = this.#order;
    const sending = this.#sending;
    context.outages.failed(passage.store, stage, cause);
    this.#settle(sending ? 'in-doubt' : 'not-sent', 'broken');
    refuse(failureBy(cause, stage, { store: passage.store, access: 'write', sending }));
  }

  readonly #onClientClose = (): void => {
    this.#handshake?.cancel();
    if (!this.#answering) this.#settle(this.#sending ? 'in-doubt' : 'not-sent', 'broken');
  };

  /** A store's answer must not be able to end the process. */
  #guarded<Given extends unknown[]>(step: (...given: Given) => void): (...given: Given) => void {
    return (...given) => {
      try {
        step(...given);
      } catch (error) {
        const { context, request } = this.#order;
        endOnBug(context, request, error);
        this.#settle('in-doubt');
      }
    };
  }

  #count(status: StatusClass): void {
    const { counters, outages } = this.#order.context;
    counters.requests[this.passage.store].write[status] += 1;
    if (status !== 'broken') outages.answered(this.passage.store);
  }

  #settle(outcome: WriteOutcome, status?: StatusClass): void {
    if (this.#over) return;
    this.#over = true;
    const { context, matched, passage, ended, early } = this.#order;
    this.#stopListening();
    early.client.off('close', this.#onClientClose);
    if (status !== undefined) this.#count(status);
    ended(outcome);
    if (passage.ticket === undefined) return;
    context.gate.end(passage.ticket, outcome);
    if (outcome !== 'in-doubt') return;
    noticeWrite(context, passage);
    const why =
      this.#tunnel === undefined
        ? 'the WebSocket was asked for, and what became of it is not known'
        : 'the WebSocket was closed; what its last frames did is not known';
    noteDoubt(context, passage, { method: 'GET', target: matched.target, why });
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
