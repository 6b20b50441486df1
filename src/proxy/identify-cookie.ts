/**
 * One cookie of a request, by the server's grammar of RFC 6265 (4.1.1, 4.2.1). Other cookies may look as they
 * like: browsers send what they were once given.
 */
import type { IncomingMessage } from 'node:http';
import { type Found, isOpaque } from './credential.ts';
import { valuesOf } from './field.ts';

/** cookie-octets, as they are or within quotes. */
const valueGrammar =
  /^(?:[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+|"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")$/;

/** `asSent` keeps the quotes, which belong to the value for some servers; `text` is without them. */
export function cookieIn(request: IncomingMessage, name: string): Found {
  const values = valuesOf(request.rawHeaders, 'cookie').flatMap((header) => valuesNamed(header, name));
  const [value] = values;
  if (value === undefined) return undefined;
  // Which of two counts, servers decide differently, and cookies of a parent domain can be set by others.
  if (values.length > 1) return { wrong: 'it is there more than once' };
  if (!valueGrammar.test(value) || !isOpaque(value)) return { wrong: 'its value is not one of a cookie' };
  return { text: value.startsWith('"') ? value.slice(1, -1) : value, asSent: value };
}

/**
 * White space around a name is no part of it for some servers, so it must not hide a second value: such a
 * cookie is there, but its value is never one.
 */
function valuesNamed(header: string, name: string): string[] {
  return header.split(';').flatMap((pair) => {
    const equals = pair.indexOf('=');
    const spelled = pair.slice(0, equals);
    if (equals === -1 || spelled.trim() !== name) return [];
    return [spelled.replace(/^[ \t]+/, '') === name ? pair.slice(equals + 1) : ''];
  });
}
