/** Credentials in the Authorization header: Bearer (RFC 6750) and Basic (RFC 7617). */
import type { IncomingMessage } from 'node:http';
import { type Found, isOpaque } from './credential.ts';
import { isGoodName, valuesOf } from './field.ts';

export function bearerIn(request: IncomingMessage): Found {
  const found = underScheme(request, 'bearer');
  if (typeof found !== 'string') return found;
  return isOpaque(found) ? { text: found, asSent: found } : { wrong: 'it is not the text of a token' };
}

/** The text is the user's name; it says nothing until its password is verified. */
export function basicIn(request: IncomingMessage): Found {
  const found = underScheme(request, 'basic');
  if (typeof found !== 'string') return found;
  const pair = decoded(found);
  if (pair === undefined) return { wrong: 'it is not Base64 of UTF-8 text' };
  // Control characters are not allowed on either side of the colon (RFC 7617, 2).
  if (/[\u0000-\u001f\u007f]/.test(pair)) return { wrong: 'it has control characters' };
  const colon = pair.indexOf(':');
  if (colon === -1) return { wrong: 'it has no password' };
  const user = pair.slice(0, colon);
  return isGoodName(user) ? { text: user, asSent: found } : { wrong: 'it has no usable user name' };
}

/**
 * Behind another scheme. Laravel takes what is behind the last "Bearer " anywhere; others split at any white space, and
 * what is that beyond ASCII differs. A token may hold the letters "basic", and a blank behind them it cannot.
 */
const couldHold = { bearer: /bearer|[^\t\x20-\x7e]/i, basic: /basic[^\w.~+/-]|[^\t\x20-\x7e]/i } as const;

/** What follows the scheme; undefined where there is another scheme, or none. */
function underScheme(
  request: IncomingMessage,
  scheme: 'basic' | 'bearer',
): string | { readonly wrong: string } | undefined {
  const values = valuesOf(request.rawHeaders, 'authorization');
  const [value] = values;
  if (value === undefined) return undefined;
  // Who reads which of them is anybody's guess.
  if (values.length > 1) return { wrong: 'the Authorization header is there more than once' };
  const space = value.search(/[ \t]/);
  const name = space === -1 ? value : value.slice(0, space);
  if (name.toLowerCase() !== scheme) {
    return couldHold[scheme].test(value)
      ? { wrong: `it stands under another scheme, and servers could find a ${scheme} credential in it` }
      : undefined;
  }
  return space === -1 ? '' : value.slice(space).trim();
}

/** Only the one right spelling of Base64 (RFC 4648, 3.5): Buffer alone would skip what does not belong. */
function decoded(text: string): string | undefined {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
