/**
 * A client's connection and the one of its own that it has to legacy. What one side does with its connection the
 * other side sees: its end, its order of requests, and whoever was authenticated on it, are as they were without a
 * proxy in between.
 */
import { Agent, type ClientRequest, request as ask, type RequestOptions } from 'node:http';
import { Agent as TlsAgent, request as askOverTls } from 'node:https';
import type { Socket } from 'node:net';
import type { StoreTls } from '../../stores/connect.ts';

export interface LegacyAddress {
  /** Of the store; its path is put before every target. */
  readonly url: URL;
  readonly tls: StoreTls | undefined;
  /** Of an answer. */
  readonly headerBytesMax: number;
}

/** How far the way to legacy is; `handshake`: connected, and TLS is not agreed on. */
export type LineStage = 'connecting' | 'handshake' | 'open';

/** An exchange or a tunnel on a line. */
export interface Carried {
  /** The client has closed its connection. */
  clientGone(): void;
  /** The client's request has arrived whole. */
  readonly whole: boolean;
  /** Legacy has been sent all of it. */
  readonly sent: boolean;
}

export class Line {
  readonly #client: Socket;
  readonly #address: LegacyAddress;
  readonly #agent: Agent;
  readonly #carried = new Set<Carried>();
  #legacy: Socket | undefined;
  #clientEnded = false;
  #over = false;
  #stage: LineStage = 'connecting';

  constructor(client: Socket, address: LegacyAddress) {
    this.#client = client;
    this.#address = address;
    // One connection: requests that come without waiting for answers go on in their order, too.
    const settings = { keepAlive: true, maxSockets: 1, agentKeepAliveTimeoutBuffer: 0 };
    this.#agent =
      address.tls === undefined ? new Agent(settings) : new TlsAgent({ ...settings, ...address.tls });
    // And no second one: what comes behind an answer that ends the connection must reach nobody.
    const connect = this.#agent.createConnection.bind(this.#agent);
    let made = false;
    this.#agent.createConnection = (options, callback) => {
      if (!made) {
        made = true;
        return connect(options, callback);
      }
      callback?.(new Error('legacy has closed the connection'), undefined as never);
      return undefined;
    };
    // Heads hold bytes; node:http writes some of them without saying so.
    client.setDefaultEncoding('latin1');
    client.once('end', () => {
      this.#clientEnded = true;
      // Of a body behind an offer that was passed over (Upgrade), node:http does not say that it is broken off.
      if ([...this.#carried].every(({ whole }) => whole)) this.#passOnEnd();
      else client.destroy();
    });
    client.once('close', () => {
      for (const carried of this.#carried) carried.clientGone();
      this.#settle();
    });
  }

  /** Legacy has closed its connection: what the client still sends reaches nobody, as without a proxy. */
  get isOver(): boolean {
    return this.#over;
  }

  get isBusy(): boolean {
    return this.#carried.size > 0;
  }

  /** Of the connection to legacy. */
  get stage(): LineStage {
    return this.#stage;
  }

  /** The client has said that it will send no more. */
  get clientEnded(): boolean {
    return this.#clientEnded;
  }

  /** Nothing is added to the headers. Throws where node:http will not send them. */
  ask(method: string, target: string, headers: readonly string[]): ClientRequest {
    const { url, tls, headerBytesMax } = this.#address;
    const options: RequestOptions = {
      ...{ method, agent: this.#agent, setDefaultHeaders: false, maxHeaderSize: headerBytesMax },
      // What legacy answers its clients have put up with so far.
      insecureHTTPParser: true,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? (tls === undefined ? 80 : 443) : url.port,
      path: withPrefix(url.pathname, target),
      headers,
    };
    const asked = tls === undefined ? ask(options) : askOverTls(options);
    asked.once('socket', (socket) => this.#follow(socket));
    return asked;
  }

  add(carried: Carried): void {
    this.#carried.add(carried);
  }

  over(carried: Carried): void {
    this.#carried.delete(carried);
    this.#settle();
  }

  /** All of a request is on its way. */
  sent(): void {
    this.#passOnEnd();
  }

  #follow(socket: Socket): void {
    if (this.#legacy !== undefined) return;
    this.#legacy = socket;
    socket.setDefaultEncoding('latin1');
    this.#stage = 'connecting';
    socket.once('connect', () => {
      this.#stage = this.#address.tls === undefined ? 'open' : 'handshake';
    });
    socket.once('secureConnect', () => {
      this.#stage = 'open';
    });
    socket.once('close', () => {
      this.#over = true;
      this.#settle();
    });
  }

  /** The client will say no more: legacy is told, and decides for itself what that means. */
  #passOnEnd(): void {
    if (!this.#clientEnded || this.#carried.size === 0) return;
    if ([...this.#carried].every(({ sent }) => sent)) this.#legacy?.end();
  }

  #settle(): void {
    if (this.#carried.size > 0) return;
    if (this.#client.destroyed) this.#agent.destroy();
    else if (this.#over) this.#client.destroySoon();
  }
}

function withPrefix(prefix: string, target: string): string {
  return target.startsWith('/') ? prefix.replace(/\/$/, '') + target : target;
}
