/**
 * What a request's body shows to the rules: fields, a form, a GraphQL document, or nothing that could be looked
 * into. It is read whole first, within a limit, and then forwarded as it came.
 */
import type { IncomingMessage } from 'node:http';
import { onlyValueInPairs, readingsInPairs, type Reading } from '../core/condition.ts';
import { foreignCharset, formOf } from './identify-body.ts';
import { jsonTextOf, readingsAt } from './json-text.ts';
import { valuesOf } from './field.ts';
import { bodyKindOf } from './upload.ts';

/** Longest body that is looked into. */
export const seenBodyBytesMax = 1_048_576;

export type SeenBody =
  | { readonly kind: 'json' | 'form' | 'graphql'; readonly text: string }
  /** There is none. */
  | { readonly kind: 'none' }
  /** Of a type that has no fields which a server takes for its own: XML, an image. */
  | { readonly kind: 'foreign' }
  /** A form in parts, or of no type: servers may find fields in it, the proxy does not look for them. */
  | { readonly kind: 'parts' }
  /** Too long, encoded, or not what its type says. */
  | { readonly kind: 'unreadable' };

const formType = /^application\/x-www-form-urlencoded[ \t]*(?:;|$)/i;
const graphqlType = /^application\/graphql[ \t]*(?:;|$)/i;
const fieldlessType =
  /^(?!multipart\/|application\/(?:x-www-form-urlencoded|graphql)\b|[^;]*json|text\/plain\b)[\w.+-]+\/[\w.+-]+[ \t]*(?:;|$)/i;

/** What the head alone says; undefined where the body must be read. */
export function seenWithoutReading(request: IncomingMessage): SeenBody | undefined {
  if (bodyKindOf(request) === 'none') return { kind: 'none' };
  const types = valuesOf(request.rawHeaders, 'content-type');
  const [type] = types;
  // Gateways that map fields to variables take the spelling with underscores for the same.
  const second = Object.keys(request.headers).some((name) => /^content_(type|encoding)$/.test(name));
  if (types.length > 1 || second) return { kind: 'unreadable' };
  if (type === undefined) return { kind: 'parts' };
  const form = formOf(request);
  if (form === 'json') return undefined;
  if (form !== 'other') return { kind: 'unreadable' };
  if (fieldlessType.test(type)) return { kind: 'foreign' };
  if (request.headers['content-encoding'] !== undefined || foreignCharset.test(type))
    return { kind: 'unreadable' };
  if (formType.test(type) || graphqlType.test(type)) return undefined;
  return { kind: /^multipart\//i.test(type) ? 'parts' : 'unreadable' };
}

/** `bytes`: the whole body, undefined where it is longer than the limit. */
export function seenIn(request: IncomingMessage, bytes: Buffer | undefined): SeenBody {
  if (bytes === undefined) return { kind: 'unreadable' };
  if (bytes.byteLength === 0) return { kind: 'none' };
  if (formOf(request) === 'json') {
    const text = jsonTextOf(bytes);
    return text === undefined ? { kind: 'unreadable' } : { kind: 'json', text };
  }
  const kind = formType.test(request.headers['content-type'] ?? '') ? 'form' : 'graphql';
  try {
    return { kind, text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { kind: 'unreadable' };
  }
}

/** For conditions on fields of a JSON body. */
export function fieldReadings(body: SeenBody, path: string): readonly Reading[] | 'unreadable' {
  if (body.kind === 'none') return [];
  if (body.kind !== 'json') return 'unreadable';
  return readingsAt(body.text, path.split('.')).map((text) =>
    text === undefined ? undefined : (JSON.parse(text) as Reading),
  );
}

/**
 * The partition that a JSON body names. Undefined: it names none. The empty text: what it names cannot be told,
 * and nobody else's partition may be taken instead.
 */
export function nameInBody(body: SeenBody, path: string): string | undefined {
  if (body.kind === 'unreadable') return '';
  if (body.kind !== 'json') return undefined;
  const readings = readingsAt(body.text, path.split('.'));
  if (readings.length > 1) return '';
  const [text] = readings;
  return text === undefined ? undefined : nameOfText(text);
}

/** Of the text of one value. */
export function nameOfText(text: string): string {
  const value: unknown = JSON.parse(text);
  if (typeof value === 'string') return value;
  // A number that readers could round or write differently is no name.
  return typeof value === 'number' && String(value) === text ? text : '';
}

/** Does the body say that the request is one of another method? */
export function overridesMethodIn(body: SeenBody): 'no' | 'yes' | 'unknown' {
  switch (body.kind) {
    case 'none':
    case 'foreign':
    case 'graphql':
      return 'no';
    case 'form':
      return readingsInPairs(body.text, '_method').length > 0 ? 'yes' : 'no';
    case 'json':
      return readingsAt(body.text, ['_method']).some((reading) => reading !== undefined) ? 'yes' : 'no';
    case 'parts':
    case 'unreadable':
      return 'unknown';
  }
}

/** From a query; like nameInBody. */
export function nameInQuery(query: string, name: string): string | undefined {
  return query === '' ? undefined : onlyValueInPairs(query, name);
}
