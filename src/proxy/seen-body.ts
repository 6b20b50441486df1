/**
 * What a request's body shows to the rules: fields, a form, a GraphQL document, or nothing that could be looked
 * into. It is read whole first, within a limit, and then forwarded as it came.
 */
import type { IncomingMessage } from 'node:http';
import { onlyValueInPairs, readingsInPairs, type Reading } from '../core/condition.ts';
import { foreignCharset, formOf, isEncoded } from './identify-body.ts';
import { JsonText, jsonTextOf, membersMax, opensJson, readingsAt } from './json-text.ts';
import { valuesOf } from './field.ts';
import { bodyKindOf } from './upload.ts';

/** Longest body that is looked into. */
export const seenBodyBytesMax = 1_048_576;

export type SeenBody =
  | { readonly kind: 'json' | 'form' | 'graphql'; readonly text: string }
  /** JSON under another type: some servers decode it all the same, to others it is what its type says. */
  | { readonly kind: 'disguised'; readonly text: string; readonly as: Typed }
  /** There is none. */
  | { readonly kind: 'none' }
  /** Of a type that has no fields which a server takes for its own: XML, an image. */
  | { readonly kind: 'foreign' }
  /** A form in parts, or of no type: servers may find fields in it, the proxy does not look for them. */
  | { readonly kind: 'parts' }
  /** Too long, encoded, or not what its type says. */
  | { readonly kind: 'unreadable' };

type Typed = 'form' | 'graphql' | 'foreign' | 'parts';

const formType = /^application\/x-www-form-urlencoded[ \t]*(?:;|$)/i;
const graphqlType = /^application\/graphql[ \t]*(?:;|$)/i;
const fieldlessType =
  /^(?!multipart\/|application\/(?:x-www-form-urlencoded|graphql)\b|[^;]*json|text\/plain\b)[\w.+-]+\/[\w.+-]+[ \t]*(?:;|$)/i;

/** What the head alone says; undefined where the body must be looked into. */
export function seenWithoutReading(request: IncomingMessage): SeenBody | undefined {
  if (bodyKindOf(request) === 'none') return { kind: 'none' };
  return typeOf(request) === 'unreadable' ? { kind: 'unreadable' } : undefined;
}

/** Of a body that may be of any length, the beginning shows whether it is JSON under another type. */
export function lookAt(request: IncomingMessage): 'whole' | 'beginning' {
  const type = typeOf(request);
  return type === 'foreign' || type === 'parts' ? 'beginning' : 'whole';
}

function typeOf(request: IncomingMessage): Typed | 'json' | 'unreadable' {
  const types = valuesOf(request.rawHeaders, 'content-type');
  const [type] = types;
  const second = Object.keys(request.headers).some((name) => /^content[^a-z0-9-](type|encoding)$/.test(name));
  // Gateways that map fields to variables take content_type for the same.
  if (types.length > 1 || second) return 'unreadable';
  const form = formOf(request);
  if (form === 'json') return 'json';
  if (form !== 'other' || isEncoded(request)) return 'unreadable';
  if (type === undefined) return 'parts';
  if (fieldlessType.test(type)) return 'foreign';
  if (foreignCharset.test(type)) return 'unreadable';
  if (formType.test(type)) return 'form';
  if (graphqlType.test(type)) return 'graphql';
  return /^multipart\//i.test(type) ? 'parts' : 'unreadable';
}

/** `beginning`: as much as shows its first byte that is no blank. Undefined: all of it must be read. */
export function seenAtBeginning(
  request: IncomingMessage,
  beginning: Buffer | undefined,
): SeenBody | undefined {
  if (beginning?.byteLength === 0) return { kind: 'none' };
  const type = typeOf(request);
  const plain = beginning !== undefined && opensJson(beginning) === false;
  return plain && (type === 'foreign' || type === 'parts') ? { kind: type } : undefined;
}

/** `bytes`: the whole body, undefined where it is longer than the limit. */
export function seenIn(request: IncomingMessage, bytes: Buffer | undefined): SeenBody {
  if (bytes === undefined) return { kind: 'unreadable' };
  if (bytes.byteLength === 0) return { kind: 'none' };
  const kind = typeOf(request);
  if (kind === 'unreadable') return { kind };
  if (kind === 'json' || opensJson(bytes) === true) {
    const text = jsonTextOf(bytes);
    if (text !== undefined) return kind === 'json' ? { kind, text } : { kind: 'disguised', text, as: kind };
    // Documents of GraphQL begin with a brace, too.
    if (kind !== 'graphql') return { kind: 'unreadable' };
  }
  if (kind === 'foreign' || kind === 'parts') return { kind };
  try {
    return { kind, text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) };
  } catch {
    return { kind: 'unreadable' };
  }
}

type WithText = Extract<SeenBody, { readonly text: string }>;

/** What was found in bodies, so that many rules do not look at all of one again. */
const looked = new WeakMap<SeenBody, JsonText>();
const readBefore = new WeakMap<SeenBody, Map<string, readonly Reading[] | 'unreadable'>>();

function textsIn(body: WithText, path: string): ReturnType<typeof readingsAt> {
  const json = looked.get(body) ?? new JsonText(body.text);
  looked.set(body, json);
  return readingsAt(json, path.split('.'));
}

/** For conditions on fields of a JSON body. */
export function fieldReadings(body: SeenBody, path: string): readonly Reading[] | 'unreadable' {
  if (body.kind === 'none') return [];
  if (body.kind !== 'json' && body.kind !== 'disguised') return 'unreadable';
  const before = readBefore.get(body) ?? new Map<string, readonly Reading[] | 'unreadable'>();
  readBefore.set(body, before);
  const readings = before.get(path) ?? readingsIn(body, path);
  before.set(path, readings);
  return readings;
}

function readingsIn(body: WithText, path: string): readonly Reading[] | 'unreadable' {
  const texts = textsIn(body, path);
  if (texts === 'too-many') return 'unreadable';
  const readings = texts.map((text) => (text === undefined ? undefined : (JSON.parse(text) as Reading)));
  return body.kind === 'json' ? readings : [...readings, undefined];
}

/**
 * The partition that a JSON body names. Undefined: it names none. The empty text: what it names cannot be told,
 * and nobody else's partition may be taken instead.
 */
export function nameInBody(body: SeenBody, path: string): string | undefined {
  if (body.kind === 'unreadable' || body.kind === 'parts') return '';
  // Many servers take fields of a form for those of JSON.
  const pairs = formIn(body);
  if (pairs !== undefined && mayName({ kind: 'form', text: pairs }, path)) return '';
  if (body.kind !== 'json' && body.kind !== 'disguised') return undefined;
  const readings = textsIn(body, path);
  if (readings === 'too-many' || readings.length > 1) return '';
  // Who goes by the type finds nobody there, and takes the record for another's.
  if (body.kind === 'disguised') return readings[0] === undefined ? undefined : '';
  const [text] = readings;
  return text === undefined ? undefined : nameOfText(text);
}

function formIn(body: SeenBody): string | undefined {
  const isForm = body.kind === 'form' || (body.kind === 'disguised' && body.as === 'form');
  return isForm ? body.text : undefined;
}

/**
 * Could a server find something by this name in the body, or something that is a part of it? Also where that cannot
 * be told. Servers put what they find in a body and in a query together (PHP, Rails, Express).
 */
export function mayName(body: SeenBody, name: string): boolean {
  switch (body.kind) {
    case 'none':
    case 'foreign':
    case 'graphql':
      return false;
    case 'form':
      return (
        hasMorePairs(body.text, membersMax) ||
        rootsOf(name).some((root) => readingsInPairs(body.text, root).length > 0)
      );
    case 'json':
      return hasMember(body, name);
    case 'disguised': {
      if (hasMember(body, name)) return true;
      const pairs = formIn(body);
      return pairs !== undefined && mayName({ kind: 'form', text: pairs }, name);
    }
    case 'parts':
    case 'unreadable':
      return true;
  }
}

function hasMember(body: WithText, name: string): boolean {
  return rootsOf(name).some((root) => {
    const texts = textsIn(body, root);
    return texts === 'too-many' || texts.some((text) => text !== undefined);
  });
}

/** `a.b` and `a[b]` are members of `a`, or names of their own. */
export function rootsOf(name: string): readonly string[] {
  const [first = ''] = name.split(/[.[]/, 1);
  return first === '' || first === name ? [name] : [first, name];
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
      if (hasMorePairs(body.text, membersMax)) return 'unknown';
      return readingsInPairs(body.text, '_method').length > 0 ? 'yes' : 'no';
    case 'json':
      return namesMethod(body);
    case 'disguised': {
      const named = namesMethod(body);
      if (named !== 'no') return named;
      return overridesMethodIn(
        body.as === 'foreign' || body.as === 'parts' ? { kind: body.as } : { kind: body.as, text: body.text },
      );
    }
    case 'parts':
    case 'unreadable':
      return 'unknown';
  }
}

function namesMethod(body: WithText): 'no' | 'yes' | 'unknown' {
  const readings = textsIn(body, '_method');
  if (readings === 'too-many') return 'unknown';
  return readings.some((reading) => reading !== undefined) ? 'yes' : 'no';
}

function hasMorePairs(text: string, pairsMax: number): boolean {
  let pairs = 1;
  for (const mark of ['&', ';']) {
    for (let at = text.indexOf(mark); at !== -1 && pairs <= pairsMax; at = text.indexOf(mark, at + 1))
      pairs += 1;
  }
  return pairs > pairsMax;
}

/** From a query; like nameInBody. */
export function nameInQuery(query: string, name: string): string | undefined {
  return query === '' ? undefined : onlyValueInPairs(query, name);
}
