/**
 * Reading single fields out of raw headers. The raw list is used because node:http's parsed form joins or
 * drops repeated fields, and for a credential a repetition must be seen, not resolved.
 */

/** All values of the field; `name` in lower case. */
export function valuesOf(rawHeaders: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const key = rawHeaders[at] ?? '';
    if (key.length === name.length && key.toLowerCase() === name) values.push(rawHeaders[at + 1] ?? '');
  }
  return values;
}

/**
 * A field's lower-case name as gateways see it that map fields to variables (CGI, WSGI, PHP): to them X_User and X.User
 * are X-User.
 */
export function foldedName(lower: string): string {
  return /^[a-z0-9-]*$/.test(lower) ? lower : lower.replaceAll(/[^a-z0-9]/g, '-');
}

/** Node hands header bytes over as Latin-1; names are UTF-8. Undefined where they are not. */
export function asText(value: string): string | undefined {
  if (/^[\x20-\x7e]*$/.test(value)) return value;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.from(value, 'latin1'));
  } catch {
    return undefined;
  }
}

const nameBytesMax = 256;

/**
 * May this stand for a user or a partition? Non-empty, at most 256 bytes, no control characters; and nothing that many
 * stores take for another name: white space at an end, invisible characters, letters that are not composed (NFC).
 */
export function isGoodName(name: string): boolean {
  if (name === '' || name.length > nameBytesMax) return false;
  if (/^[\x21-\x7e]+$/.test(name)) return true;
  if (/[\p{Cc}\p{Cf}]|^\s|\s$/u.test(name) || !name.isWellFormed()) return false;
  return name === name.normalize('NFC') && Buffer.byteLength(name) <= nameBytesMax;
}
