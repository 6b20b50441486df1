/** What a store is told about the way of a request: X-Forwarded-*, and where it is asked for Forwarded and Via. */
import type { IncomingMessage } from 'node:http';
import { valuesOf } from './field.ts';
import { plainAddress } from './peers.ts';
import { schemeOf } from './shape.ts';

/** The proxy writes these itself. */
export const rewritten: ReadonlySet<string> = new Set([
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
]);

export interface WayRules {
  /** Forwarded is written, too (RFC 7239). */
  readonly forwarded: boolean;
  /** Name of the proxy in Via (RFC 9110, 7.6.3). */
  readonly via: string | undefined;
}

/** Appends to the flat list `headers`. `trusted`: what the peer says about the way before it is believed. */
export function appendWay(
  request: IncomingMessage,
  trusted: boolean,
  rules: WayRules,
  headers: string[],
): void {
  const { rawHeaders, socket } = request;
  const before = (name: string): string[] =>
    trusted ? valuesOf(rawHeaders, name).filter((value) => value !== '') : [];
  const peer = plainAddress(socket.remoteAddress ?? '');
  const scheme = schemeOf(socket);
  const host = request.headers.host;
  headers.push('X-Forwarded-For', [...before('x-forwarded-for'), peer].join(', '));
  headers.push('X-Forwarded-Proto', before('x-forwarded-proto').join(', ') || scheme);
  const seenHost = before('x-forwarded-host').join(', ') || host;
  if (seenHost !== undefined) headers.push('X-Forwarded-Host', seenHost);
  if (rules.forwarded) {
    headers.push('Forwarded', [...before('forwarded'), elementOf(peer, host, scheme)].join(', '));
  }
  if (rules.via !== undefined) headers.push('Via', `${request.httpVersion} ${rules.via}`);
}

/** One element of Forwarded: what this proxy itself has seen. */
function elementOf(peer: string, host: string | undefined, scheme: string): string {
  const node = peer.includes(':') ? `"[${peer}]"` : peer;
  // A colon is no token (RFC 7239, 4); Host was found to be a host, so there is nothing to escape in it.
  const name =
    host === undefined || host === '' ? '' : /[:[]/.test(host) ? `;host="${host}"` : `;host=${host}`;
  return `for=${node}${name};proto=${scheme}`;
}
