/**
 * A credential in a field of a JSON body. A field that is there twice is refused: which of the two counts,
 * readers of JSON decide differently (RFC 8259, 4), and the store must not see another user than the proxy.
 */
import type { IncomingMessage } from 'node:http';
import { type BodySource, type Found, isOpaque } from './credential.ts';
import { jsonTextOf, membersNamed } from './json-text.ts';
import { bodyKindOf } from './upload.ts';
import type { Failure } from '../core/failure.ts';

/** Old SDKs send JSON as text/plain, which needs no permission of another origin in browsers. */
const jsonTypes = /^(?:application\/(?:[\w.+-]+\+)?json|text\/plain)[ \t]*(?:;|$)/i;
export const foreignCharset = /;[ \t]*charset[ \t]*=[ \t]*(?!"?utf-?8"?[ \t]*(?:;|$))/i;

export async function fieldOfBody(
  request: IncomingMessage,
  body: BodySource | undefined,
  path: readonly string[],
  bytesMax: number,
): Promise<Found | { readonly failure: Failure }> {
  if (body === undefined || !mayHoldJson(request)) return undefined;
  const bytes = await body.read(bytesMax);
  if (!Buffer.isBuffer(bytes)) return { failure: bytes };
  return credentialIn(bytes, path);
}

export function mayHoldJson(request: IncomingMessage): boolean {
  const { 'content-type': type, 'content-encoding': encoding } = request.headers;
  if (bodyKindOf(request) === 'none' || encoding !== undefined || type === undefined) return false;
  return jsonTypes.test(type) && !foreignCharset.test(type);
}

/** Exported for its tests. */
export function credentialIn(bytes: Buffer, path: readonly string[]): Found {
  let value = jsonTextOf(bytes);
  if (value === undefined) return undefined;
  for (const name of path) {
    const values = membersNamed(value, name);
    if (values.length > 1) return { wrong: 'the field is there more than once' };
    [value] = values;
    if (value === undefined) return undefined;
  }
  const credential: unknown = JSON.parse(value);
  if (credential === null) return undefined;
  if (typeof credential !== 'string' || !isOpaque(credential)) return { wrong: 'the field holds no session' };
  return { text: credential, asSent: credential };
}
