/**
 * The second target of MOVE and COPY (RFC 4918, 9.8, 9.9 and 10.3): where the resource goes to. It is read by the
 * same rules as the request's own target, because the write changes what stands there, too.
 */
import type { IncomingMessage } from 'node:http';
import { asText, valuesOf } from './field.ts';
import { isControlPath, readTarget } from './target.ts';

export interface Destination {
  /** Origin form, before anything is put before it for a store. */
  readonly target: string;
  readonly path: string;
  readonly query: string;
  /** The client wrote it with scheme and host. */
  readonly absolute: boolean;
}

export type ReadDestination = Destination | { readonly refused: string } | undefined;

/** `overridden`: the request may be taken for one of another method. */
export function namesDestination(method: string, overridden: boolean): boolean {
  return method === 'MOVE' || method === 'COPY' || overridden;
}

/** `hosts`: by which the client may know the proxy. Undefined where there is none. */
export function readDestination(
  { rawHeaders }: IncomingMessage,
  hosts: readonly (string | undefined)[],
): ReadDestination {
  const values = valuesOf(rawHeaders, 'destination');
  if (values.length === 0) return undefined;
  const [value = ''] = values;
  if (values.length > 1) return { refused: 'there is more than one' };
  // Some stores read such bytes as UTF-8, others as Latin-1: two names of one place (RFC 3986, 2: a URI is ASCII).
  if (/[^\u0000-\u007e]/.test(value)) {
    return { refused: 'it holds bytes that are not ASCII; percent-encode them' };
  }
  const [whole, scheme = '', authority = '', rest = ''] = /^(https?):\/\/([^/?#]*)(.*)$/is.exec(value) ?? [];
  if (whole !== undefined) {
    const host = plainAuthority(scheme, authority);
    const ours = hosts.some((one) => one !== undefined && plainAuthority(scheme, one) === host);
    if (authority === '' || !ours) return { refused: 'it names another host than the request' };
  }
  const read = readTarget(whole === undefined ? value : rest.startsWith('/') ? rest : `/${rest}`, undefined);
  if ('refused' in read) return { refused: read.refused };
  // Alone, "//x" names another host.
  if (whole === undefined && read.target.startsWith('//')) return { refused: 'it names another host' };
  if (isControlPath(read.path)) return { refused: 'this path is not open to clients' };
  return { ...read, absolute: whole !== undefined };
}

/** Without the port that the scheme has anyway. */
function plainAuthority(scheme: string, authority: string): string {
  const usual = scheme.toLowerCase() === 'https' ? ':443' : ':80';
  const lower = authority.toLowerCase();
  return lower.endsWith(usual) ? lower.slice(0, -usual.length) : lower;
}

/** X-Forwarded-Host of a peer that may say it, beside the Host. */
export function hostsOf({ headers, rawHeaders }: IncomingMessage, trusted: boolean): (string | undefined)[] {
  const forwarded = trusted ? valuesOf(rawHeaders, 'x-forwarded-host') : [];
  return [headers.host, forwarded.length === 1 ? asText(forwarded[0] ?? '') : undefined];
}
