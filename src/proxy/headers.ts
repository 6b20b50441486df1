/**
 * Header fields on their way through: hop-by-hop fields removed (RFC 9110, 7.6.1), nothing that only
 * onewriter may say taken from outside, everything else in its order, case and number.
 */
import type { IncomingMessage } from 'node:http';
import { foldedName } from './field.ts';
import { appendWay, rewritten, type WayRules } from './forwarded.ts';
import type { PeerTest } from './peers.ts';

const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);
/** Say where a request came from, or move it to another path behind the classifier's back. */
export const fromTrustedPeersOnly = new Set([
  'forwarded',
  'x-real-ip',
  'x-original-url',
  'x-rewrite-url',
  'x-original-host',
  'x-original-uri',
  'x-original-path',
  'x-envoy-original-path',
  // CGI's own: gunicorn, among others, takes them from a request (SCRIPT_NAME), and looks for the rest of the path.
  'script-name',
  'x-script-name',
  'path-info',
  'path-translated',
]);
/**
 * What a request is was judged by these, and by its body as they describe it: a store that missed one could take it for
 * another. Connection must not name them (RFC 9110, 7.6.1), and does so in vain.
 */
const judgedBy = new Set(['content-length', 'content-type', 'content-encoding', 'idempotency-key']);

export interface RequestHeaderRules extends WayRules {
  readonly isTrustedProxy: PeerTest;
  /** Lower-case names by which identity, route or partition are found: no second spelling of them passes. */
  readonly guardedNames: ReadonlySet<string>;
  /** The same, folded. */
  readonly guardedFolds: ReadonlySet<string>;
  /** Of them, those that say who the user is, with the peers that may say it: from others they end here. */
  readonly identityHeaders: ReadonlyMap<string, PeerTest>;
}

/**
 * The flat list to send upstream. The field that frames the body stays in its place; what it says is written by
 * whoever sends the body. `host`: what the store sees as Host; without it the list is without Host and framing.
 */
export function requestHeaders(request: IncomingMessage, rules: RequestHeaderRules, host?: string): string[] {
  const { rawHeaders, socket } = request;
  const trusted = rules.isTrustedProxy(socket.remoteAddress);
  const named = namedByConnection(request.headers.connection);
  const headers: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const lower = name.toLowerCase();
    if (lower === 'host' || lower === 'transfer-encoding' || lower === 'trailer') {
      if (host !== undefined) headers.push(name, lower === 'host' ? host : (rawHeaders[at + 1] ?? ''));
      continue;
    }
    // 100 is answered here.
    if (hopByHop.has(lower) || lower === 'expect' || rewritten.has(lower)) continue;
    if (named?.has(lower) === true && !judgedBy.has(lower) && !rules.guardedNames.has(lower)) continue;
    const mayIdentify = rules.identityHeaders.get(lower);
    if (mayIdentify !== undefined && !mayIdentify(socket.remoteAddress)) continue;
    if (rules.forwarded && lower === 'forwarded') continue;
    if (!trusted && (fromTrustedPeersOnly.has(lower) || lower.startsWith('x-forwarded-'))) continue;
    const folded = foldedName(lower);
    if (folded.startsWith('onewriter-')) continue;
    if (folded !== lower && isReserved(folded) && !rules.guardedNames.has(lower)) continue;
    if (rules.guardedFolds.has(folded) && !rules.guardedNames.has(lower)) continue;
    headers.push(name, rawHeaders[at + 1] ?? '');
  }
  if (host !== undefined && request.headers.host === undefined) headers.unshift('Host', host);
  appendWay(request, trusted, rules, headers);
  return headers;
}

/** What must be known before a body, or must not be said by its sender (RFC 9110, 6.5.1), in lower case. */
const neverTrailers = new Set([
  ...['content-length', 'content-encoding', 'content-type', 'content-range', 'content-location', 'trailer'],
  ...[
    'host',
    'expect',
    'max-forwards',
    'cache-control',
    'pragma',
    'range',
    'vary',
    'via',
    'origin',
    'idempotency-key',
  ],
  ...['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range'],
  ...['authorization', 'cookie', 'set-cookie'],
  ...['x-http-method-override', 'x-method-override', 'x-http-method'],
]);

/** Fields behind the request's body: only those that can mean nothing else, or somebody else's, before it. */
export function requestTrailers(rawTrailers: readonly string[], rules: RequestHeaderRules): string[] {
  const trailers: string[] = [];
  for (let at = 0; at < rawTrailers.length; at += 2) {
    const name = rawTrailers[at] ?? '';
    const folded = foldedName(name.toLowerCase());
    if (neverTrailers.has(folded) || folded.startsWith('onewriter-')) continue;
    if (isReserved(folded) || rules.guardedFolds.has(folded)) continue;
    trailers.push(name, rawTrailers[at + 1] ?? '');
  }
  return trailers;
}

/** Whatever the configuration says. */
function isReserved(folded: string): boolean {
  return (
    folded.startsWith('x-forwarded-') ||
    fromTrustedPeersOnly.has(folded) ||
    folded === 'content-length' ||
    hopByHop.has(folded)
  );
}

/** The flat list to send to the client. Nobody but the proxy says Onewriter-*. */
export function responseHeaders(rawHeaders: readonly string[]): string[] {
  let connection: string | undefined;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue;
    connection = connection === undefined ? rawHeaders[at + 1] : `${connection},${rawHeaders[at + 1]}`;
  }
  const named = namedByConnection(connection);
  const headers: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || lower.startsWith('onewriter-')) continue;
    if (named !== undefined && named.has(lower) && lower !== 'content-length') continue;
    headers.push(name, rawHeaders[at + 1] ?? '');
  }
  return headers;
}

/** Without what an answer to this request, as its client gets it, cannot say. */
export function framed(request: IncomingMessage, status: number, headers: string[]): string[] {
  // RFC 9110, 8.6: some clients would wait for the bytes of a length.
  const sized = status === 204 ? without('content-length', headers) : headers;
  if (!has('trailer', sized)) return sized;
  const bodyless = request.method === 'HEAD' || status === 204 || status === 304;
  const trailed = !bodyless && request.httpVersionMinor > 0 && !has('content-length', sized);
  // They need chunks; node:http refuses to announce them otherwise.
  return trailed ? sized : without('trailer', sized);
}

/** `headers`: flat list; `name` in lower case. */
function has(name: string, headers: readonly string[]): boolean {
  for (let at = 0; at < headers.length; at += 2) {
    const field = headers[at] ?? '';
    if (field.length === name.length && field.toLowerCase() === name) return true;
  }
  return false;
}

/** Flat list without one field; `name` in lower case. */
export function without(name: string, headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at < headers.length; at += 2) {
    const field = headers[at] ?? '';
    if (field.toLowerCase() !== name) kept.push(field, headers[at + 1] ?? '');
  }
  return kept;
}

function namedByConnection(value: string | undefined): Set<string> | undefined {
  if (value === undefined) return undefined;
  const lower = value.toLowerCase();
  if (lower === 'keep-alive' || lower === 'close') return undefined;
  return new Set(lower.split(',').map((name) => name.trim()));
}

/** Of a flat list, in its order. */
export function pairsOf(flat: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < flat.length; at += 2) pairs.push([flat[at] ?? '', flat[at + 1] ?? '']);
  return pairs;
}
