/**
 * One cookie of a request, by the server's grammar of RFC 6265 (4.1.1, 4.2.1). Other cookies may look as they
 * like, since browsers send what they were once given; but where some server could find this cookie in them, by another
 * spelling or by another way to take the header apart, it is refused.
 */
import type { IncomingMessage } from 'node:http';
import { couldMean, looseName } from '../core/condition.ts';
import { type Found, isOpaque } from './credential.ts';
import { valuesOf } from './field.ts';

/** cookie-octets, as they are or within quotes. */
const valueGrammar =
  /^(?:[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+|"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")$/;

/** `asSent` keeps the quotes, which belong to the value for some servers; `text` is without them. */
export function cookieIn(request: IncomingMessage, name: string): Found {
  const found = valuesOf(request.rawHeaders, 'cookie').flatMap((header) => placesNamed(header, name));
  const [place] = found;
  // Of a name alone, nobody gets a session.
  if (place === undefined || found.every((one) => one === 'name alone')) return undefined;
  // Which of two counts, servers decide differently, and cookies of a parent domain can be set by others.
  if (found.length > 1) return { wrong: 'it is there more than once, or another one could be taken for it' };
  if (typeof place === 'string') return { wrong: 'only some servers take what is there for this cookie' };
  const { value } = place;
  if (!valueGrammar.test(value) || !isOpaque(value)) return { wrong: 'its value is not one of a cookie' };
  return { text: value.startsWith('"') ? value.slice(1, -1) : value, asSent: value };
}

type Place = { readonly value: string } | 'name alone' | 'perhaps';

/** Where servers could find the cookie. */
function placesNamed(header: string, name: string): Place[] {
  const wanted = looseName(name);
  const places: Place[] = [];
  let quoted = false;
  for (const pair of header.split(';')) {
    const equals = pair.indexOf('=');
    const spelled = (equals === -1 ? pair : pair.slice(0, equals)).replace(/^[ \t]+/, '');
    if (equals === -1) {
      if (couldBe(spelled, wanted)) places.push('name alone');
    } else if (spelled === name) {
      places.push(quoted ? 'perhaps' : { value: pair.slice(equals + 1) });
    } else if (couldBe(spelled, wanted)) {
      places.push('perhaps');
    }
    if (!separator.test(pair)) continue;
    places.push(...placesWithin(pair, wanted));
    quoted ||= leavesQuotesOpen(pair);
  }
  return places;
}

/**
 * Letter case, blanks, dots, brackets, and letters that are percent-encoded (PHP and Rack have decoded names, too). What is
 * white space differs: Python strips U+0085 and U+2028, in Latin-1 or in UTF-8, and others strip controls.
 */
function couldBe(spelled: string, wanted: string): boolean {
  if (/^[\w-]*$/.test(spelled)) return spelled.length === wanted.length && spelled.toLowerCase() === wanted;
  const decoded = spelled.replaceAll('+', ' ').replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => {
    return String.fromCharCode(Number.parseInt(hex, 16));
  });
  return [decoded, ...stripped.map((bytes) => decoded.replaceAll(bytes, ''))].some((name) =>
    couldMean(name, wanted),
  );
}

/** PHP ends a name at NUL, and reads a blank in it as "_": stripped or not, each counts. */
const stripped = [/[^\0\x20-\x7e]/g, /[^\0\x21-\x7e]/g, /[^\x21-\x7e]/g];

/** Every byte that is not visible ASCII could be white space, or a part of it. */
const separator = /[^\x21\x23-\x2b\x2d-\x7e]/;
const nameWithin = /[^\x21\x23-\x2b\x2d-\x7e]([\x21\x23-\x2b\x2d-\x3c\x3e-\x7e]+)[^\x21-\x7e]*=/g;

/** For servers that take the header apart at commas or blanks, too, or that know no quotes. */
function placesWithin(pair: string, wanted: string): Place[] {
  return [...pair.trimStart().matchAll(nameWithin)].flatMap(([, spelled = '']) =>
    couldBe(spelled, wanted) ? ['perhaps' as const] : [],
  );
}

/**
 * For servers that know quotes (RFC 2109, RFC 2965), with or without a backslash as an escape, a value in quotes goes
 * on beyond the semicolon, and what follows stands in it.
 */
function leavesQuotesOpen(pair: string): boolean {
  return [/(?:^|[=,\s])"(?:[^"\\]|\\.)*("?)/gs, /(?:^|[=,\s])"[^"]*("?)/g].some((quotes) =>
    [...pair.matchAll(quotes)].some(([, close]) => close === ''),
  );
}
