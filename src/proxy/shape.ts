/** The form in which requests reach one store and its answers leave it, as `stores.<name>` asks for it. */
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { Config } from '../config/schema.ts';
import { foldedName } from './field.ts';
import {
  clientCookie,
  clientReference,
  clientRefresh,
  type ClientView,
  cookieRewriteOf,
  type StorePlace,
} from './rewrite.ts';

type Settings = Config['stores']['legacy'];
type Changes = Settings['headers'];
/** What the client sent, before anything is changed for the store. */
export type AsReceived = Pick<IncomingMessage, 'headers' | 'socket'>;

export class Shape {
  /** Host of the store's URL, with its port. */
  readonly storeHost: string;
  readonly #host: string;
  readonly #scheme: 'http' | 'https';
  readonly #prefix: string;
  readonly #request: HeaderChange;
  readonly #answer: HeaderChange;
  readonly #location: boolean;
  readonly #cookies: ReturnType<typeof cookieRewriteOf> | undefined;

  constructor({ url, host, headers, answerHeaders, rewrite }: Settings) {
    const { host: storeHost, pathname, protocol } = new URL(url);
    this.storeHost = storeHost;
    this.#host = host;
    this.#scheme = protocol === 'https:' ? 'https' : 'http';
    this.#prefix = pathname.replace(/\/$/, '');
    this.#request = new HeaderChange(headers);
    this.#answer = new HeaderChange(answerHeaders);
    this.#location = rewrite.location ?? this.#prefix !== '';
    const { cookieDomain, cookiePath } = rewrite;
    const cookies = Object.keys(cookieDomain).length + Object.keys(cookiePath).length > 0;
    this.#cookies = cookies ? cookieRewriteOf(cookieDomain, cookiePath) : undefined;
  }

  /** What the store sees as Host. A client that names no host (HTTP/1.0) cannot have it preserved. */
  hostFor(request: AsReceived): string {
    if (this.#host === 'store') return this.storeHost;
    return this.#host === 'preserve' ? (request.headers.host ?? this.storeHost) : this.#host;
  }

  /** A place behind the proxy as the store knows it, in the form in which the client wrote it. */
  reference({ target, absolute }: { target: string; absolute: boolean }, request: AsReceived): string {
    const path = this.#prefix + target;
    return absolute ? `${this.#scheme}://${this.hostFor(request)}${path}` : path;
  }

  /** `headers`: a flat list that may be changed. */
  request(headers: string[]): string[] {
    return this.#request.apply(headers);
  }

  /** What requests to the store must not say is not said behind their bodies either. */
  requestTrailers(trailers: string[]): string[] {
    return this.#request.dropFrom(trailers);
  }

  /** Head of a final answer, flat, in the view of the client that asked. */
  answer(headers: string[], request: AsReceived, viewOf: () => ClientView): string[] {
    if (this.#location || this.#cookies !== undefined) this.#rewrite(headers, request, viewOf);
    return this.#answer.apply(headers);
  }

  /** Interim answers and trailers: what an answer must not say is not said there either. */
  beside(headers: string[]): string[] {
    return this.#answer.dropFrom(headers);
  }

  #rewrite(headers: string[], request: AsReceived, viewOf: () => ClientView): void {
    for (let at = 0; at < headers.length; at += 2) {
      const name = (headers[at] ?? '').toLowerCase();
      const value = headers[at + 1] ?? '';
      if (name === 'set-cookie' && this.#cookies !== undefined) {
        headers[at + 1] = clientCookie(value, this.#cookies);
      } else if (this.#location && (name === 'location' || name === 'content-location')) {
        headers[at + 1] = clientReference(value, this.#placeFor(request), viewOf());
      } else if (this.#location && name === 'refresh') {
        headers[at + 1] = clientRefresh(value, this.#placeFor(request), viewOf());
      }
    }
  }

  #placeFor(request: AsReceived): StorePlace {
    return { scheme: this.#scheme, hosts: [this.storeHost, this.hostFor(request)], prefix: this.#prefix };
  }
}

class HeaderChange {
  readonly #dropped: ReadonlySet<string>;
  readonly #added: readonly string[];

  constructor({ set, remove }: NonNullable<Changes> = { set: {}, remove: [] }) {
    this.#dropped = new Set([...Object.keys(set), ...remove].map(canonical));
    this.#added = Object.entries(set).flat();
  }

  apply(headers: string[]): string[] {
    const kept = this.dropFrom(headers);
    return this.#added.length === 0 ? kept : [...kept, ...this.#added];
  }

  dropFrom(headers: string[]): string[] {
    if (this.#dropped.size === 0) return headers;
    const kept: string[] = [];
    for (let at = 0; at < headers.length; at += 2) {
      const name = headers[at] ?? '';
      if (!this.#dropped.has(canonical(name))) kept.push(name, headers[at + 1] ?? '');
    }
    return kept;
  }
}

/** Gateways that map headers to variables read X_Name as X-Name: it is dropped and replaced as the same. */
function canonical(name: string): string {
  return foldedName(name.toLowerCase());
}

/** `trusted`: the peer is a proxy whose X-Forwarded-* headers are believed. */
export function clientViewOf({ headers, socket }: AsReceived, trusted: boolean): ClientView {
  const told = trusted ? { scheme: headers['x-forwarded-proto'], host: headers['x-forwarded-host'] } : {};
  const host = told.host === undefined ? headers.host : String(told.host);
  const safe = host !== undefined && /^(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?$/i.test(host);
  const scheme = told.scheme === 'https' || told.scheme === 'http' ? told.scheme : schemeOf(socket);
  return { scheme, host: safe ? host : undefined };
}

export function schemeOf(socket: IncomingMessage['socket']): 'http' | 'https' {
  return socket instanceof TLSSocket ? 'https' : 'http';
}
