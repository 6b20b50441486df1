/**
 * A credential in a field of a JSON body. A field that is there twice is refused: which of the two counts,
 * readers of JSON decide differently (RFC 8259, 4), and the store must not see another user than the proxy.
 * For the same reason a body that says it is JSON, and that only a more tolerant reader could read, is refused.
 */
import type { IncomingMessage } from 'node:http';
import { type BodySource, type Found, isOpaque } from './credential.ts';
import { valuesOf } from './field.ts';
import { bodyKindOf } from './upload.ts';
import type { Failure } from '../core/failure.ts';

/** Old SDKs send JSON as text/plain, which needs no permission of another origin in browsers. */
const jsonTypes = /^(?:application\/(?:[\w.+-]+\+)?json|text\/plain)[ \t]*(?:;|$)/i;
/** Also where it stands in a list, or before what is no parameter: some servers take the part that they like. */
const namesJson = /(?:^|,)[ \t]*(?:application\/(?:[\w.+-]+\+)?json|text\/plain)(?![\w.+-])/i;
const foreignCharset = /;[ \t]*charset[ \t]*=[ \t]*(?!"?utf-?8"?[ \t]*(?:;|$))/i;

export async function fieldOfBody(
  request: IncomingMessage,
  body: BodySource | undefined,
  path: readonly string[],
  bytesMax: number,
): Promise<Found | { readonly failure: Failure }> {
  const form = formOf(request);
  if (body === undefined || form === 'other') return undefined;
  const bytes = await body.read(bytesMax);
  if (!Buffer.isBuffer(bytes)) return { failure: bytes };
  if (bytes.byteLength === 0) return undefined;
  return form === 'json' ? credentialIn(bytes, path) : form;
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
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    JSON.parse(text);
  } catch {
    return { wrong: 'the body is not JSON in UTF-8' };
  }
  let value: string | undefined = text;
  for (const name of path) {
    const values: string[] = membersNamed(value, name);
    if (values.length > 1) return { wrong: 'the field is there more than once' };
    [value] = values;
    if (value === undefined) return undefined;
  }
  const credential: unknown = JSON.parse(value);
  if (credential === null) return undefined;
  if (typeof credential !== 'string' || !isOpaque(credential)) return { wrong: 'the field holds no session' };
  return { text: credential, asSent: credential };
}

/** Texts of the members of that name, in the text of a valid JSON value; none where it is no object. */
function membersNamed(text: string, name: string): string[] {
  let at = skipSpace(text, 0);
  if (text[at] !== '{') return [];
  const found: string[] = [];
  at = skipSpace(text, at + 1);
  while (text[at] === '"') {
    const keyEnd = endOfString(text, at);
    const key: unknown = JSON.parse(text.slice(at, keyEnd));
    // Past the colon.
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = endOfValue(text, start);
    if (key === name) found.push(text.slice(start, end));
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return found;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at += 1;
  return at;
}

/** `from` is at the opening quote; the answer is behind the closing one. */
function endOfString(text: string, from: number): number {
  let at = from + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
  return at + 1;
}

function endOfValue(text: string, from: number): number {
  let at = from;
  let depth = 0;
  while (at < text.length) {
    const character = text[at];
    if (character === '"') {
      at = endOfString(text, at);
    } else if (character === '{' || character === '[') {
      depth += 1;
      at += 1;
    } else if (character === '}' || character === ']') {
      if (depth === 0) return at;
      depth -= 1;
      at += 1;
    } else if (depth === 0 && (character === ',' || character === ' ' || character === '\n')) {
      return at;
    } else if (depth === 0 && (character === '\r' || character === '\t')) {
      return at;
    } else {
      at += 1;
      continue;
    }
    if (depth === 0) return at;
  }
  return at;
}
