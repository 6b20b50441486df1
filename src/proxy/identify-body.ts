/**
 * A credential in a field of a JSON body. A field that is there twice is refused: which of the two counts,
 * readers of JSON decide differently (RFC 8259, 4), and the store must not see another user than the proxy. So is one
 * in other letter case, which only some readers find (encoding/json of Go, Newtonsoft.Json, options of Jackson).
 * For the same reason a body that says it is JSON, and that only a more tolerant reader could read, is refused, and so
 * is JSON under another type that holds one.
 */
import type { IncomingMessage } from 'node:http';
import { type BodySource, type Found, isOpaque } from './credential.ts';
import { valuesOf } from './field.ts';
import { fieldNamed, JsonText, jsonTextOf, opensJson } from './json-text.ts';
import { bodyKindOf } from './upload.ts';
import type { Failure } from '../core/failure.ts';

/** Old SDKs send JSON as text/plain, which needs no permission of another origin in browsers. */
const jsonTypes = /^(?:application\/(?:[\w.+-]+\+)?json|text\/plain)[ \t]*(?:;|$)/i;
/** Also where it stands in a list, or before what is no parameter: some servers take the part that they like. */
const namesJson = /(?:^|,)[ \t]*(?:application\/(?:[\w.+-]+\+)?json|text\/plain)(?![\w.+-])/i;
export const foreignCharset = /;[ \t]*charset[ \t]*=[ \t]*(?!"?utf-?8"?[ \t]*(?:;|$))/i;

export async function fieldOfBody(
  request: IncomingMessage,
  body: BodySource | undefined,
  path: readonly string[],
  bytesMax: number,
): Promise<Found | { readonly failure: Failure }> {
  const form = formOf(request);
  if (body === undefined || bodyKindOf(request) === 'none') return undefined;
  if (form === 'other') {
    // A server that decodes JSON whatever its type says would find a credential that the proxy has not seen.
    if (isEncoded(request)) return { wrong: 'the body is encoded' };
    const beginning = await body.beginning();
    if (!Buffer.isBuffer(beginning)) return { failure: beginning };
    if (beginning.byteLength === 0 || opensJson(beginning) === false) return undefined;
  }
  const bytes = await body.read(bytesMax);
  if (!Buffer.isBuffer(bytes)) return { failure: bytes };
  if (bytes.byteLength === 0) return undefined;
  if (form !== 'other') return form === 'json' ? credentialIn(bytes, path) : form;
  return credentialIn(bytes, path) === undefined ? undefined : { wrong: 'the type of the body is not JSON' };
}

/** Only what is not encoded is looked into. */
export function isEncoded({ rawHeaders }: IncomingMessage): boolean {
  return valuesOf(rawHeaders, 'content-encoding').some((value) => value.trim().toLowerCase() !== 'identity');
}

/** What the header says that the body is: JSON that is read here, something else, or what readers could differ on. */
export function formOf(request: IncomingMessage): 'json' | 'other' | { readonly wrong: string } {
  if (bodyKindOf(request) === 'none') return 'other';
  const types = valuesOf(request.rawHeaders, 'content-type');
  const encodings = valuesOf(request.rawHeaders, 'content-encoding');
  if (types.length > 1) return { wrong: 'Content-Type is there more than once' };
  if (encodings.length > 1) return { wrong: 'Content-Encoding is there more than once' };
  const [type = ''] = types;
  const [encoding = 'identity'] = encodings;
  if (!namesJson.test(type)) return 'other';
  if (!jsonTypes.test(type)) return { wrong: 'Content-Type names more than one type' };
  if (foreignCharset.test(type)) return { wrong: 'the body is in another charset than UTF-8' };
  if (encoding.trim().toLowerCase() !== 'identity') return { wrong: 'the body is encoded' };
  return 'json';
}

/** Exported for its tests. */
export function credentialIn(bytes: Buffer, path: readonly string[]): Found {
  const text = jsonTextOf(bytes);
  if (text === undefined) return { wrong: 'the body is not JSON in UTF-8' };
  let value = new JsonText(text);
  for (const name of path) {
    const found = fieldNamed(value, name);
    if (found === undefined) return undefined;
    if ('wrong' in found) return found;
    value = found;
  }
  const credential: unknown = JSON.parse(value.text);
  if (credential === null) return undefined;
  if (typeof credential !== 'string' || !isOpaque(credential)) return { wrong: 'the field holds no session' };
  return { text: credential, asSent: credential };
}
