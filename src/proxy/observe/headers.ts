/**
 * Header fields of a request on their way through an observing proxy: all of them as they came, in their order and
 * case, hop-by-hop ones and Onewriter-* too, because each client's connection has one of its own to legacy. But what
 * legacy believes because of who it comes from must not be said by somebody else, now that all comes from here.
 */
import type { IncomingMessage } from 'node:http';
import { foldedName } from '../field.ts';
import { appendWay, rewritten, type WayRules } from '../forwarded.ts';
import { fromTrustedPeersOnly } from '../headers.ts';
import type { PeerTest } from '../peers.ts';
import type { Shape } from '../shape.ts';

export interface ObservedHeaderRules extends WayRules {
  readonly isTrustedProxy: PeerTest;
  /** Of fields that say who the user is, in lower case with hyphens: the peers that may say it. */
  readonly identityHeaders: ReadonlyMap<string, PeerTest>;
  readonly shape: Shape;
}

const offers = new Set(['upgrade', 'http2-settings']);

/** Flat. `tunnel`: an offer to speak another protocol goes along. */
export function observedHeaders(
  request: IncomingMessage,
  rules: ObservedHeaderRules,
  tunnel: boolean,
): string[] {
  const { rawHeaders, socket } = request;
  const { isTrustedProxy, identityHeaders, shape } = rules;
  const peer = socket.remoteAddress;
  const trusted = isTrustedProxy(peer);
  const host = shape.hostFor(request);
  const headers: string[] = [];
  const coded = request.headers['transfer-encoding'] !== undefined;
  let named = false;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const value = rawHeaders[at + 1] ?? '';
    // Gateways that map fields to variables (CGI, WSGI, PHP) read X_User as X-User.
    const canonical = foldedName(name.toLowerCase());
    if (rewritten.has(canonical) || (rules.forwarded && canonical === 'forwarded')) continue;
    if (!trusted && (fromTrustedPeersOnly.has(canonical) || canonical.startsWith('x-forwarded-'))) continue;
    if (identityHeaders.get(canonical)?.(peer) === false) continue;
    if (!tunnel && offers.has(canonical)) continue;
    // Trailers can only follow chunks.
    if (canonical === 'trailer' && !coded) continue;
    if (canonical === 'host') {
      const asSent = host === request.headers.host;
      if (asSent || !named) headers.push(name, asSent ? value : host);
      named = true;
    } else if (canonical === 'connection' && !tunnel) {
      const kept = withoutOffers(value);
      if (kept !== '') headers.push(name, kept);
    } else headers.push(name, value);
  }
  if (!named) headers.unshift('Host', host);
  appendWay(request, trusted, rules, headers);
  return shape.request(headers);
}

function withoutOffers(value: string): string {
  if (!/upgrade|http2-settings/i.test(value)) return value;
  const kept = value.split(',').filter((name) => !offers.has(name.trim().toLowerCase()));
  return kept.join(',').trim();
}
