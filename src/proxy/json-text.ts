/**
 * Looks fields up in the text of a JSON body, so that what a parser would resolve silently is seen: a name that
 * is there twice (RFC 8259, 4, leaves it open which one counts), or in another letter case (some parsers
 * overlook it).
 */

/** The text of valid JSON in UTF-8; undefined otherwise. */
export function jsonTextOf(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    JSON.parse(text);
    return text;
  } catch {
    return undefined;
  }
}

/**
 * Could it be an object or an array to a reader that does not ask for its type, and is tolerant of what comes before?
 * Undefined: only blanks, marks of the byte order, or zeros of wider letters have come.
 */
export function opensJson(bytes: Buffer): boolean | undefined {
  for (const byte of bytes) {
    if (byte === 0x7b || byte === 0x5b) return true;
    if (byte > 0x20 && !marks.has(byte)) return false;
  }
  return undefined;
}

/** Bytes of U+FEFF and U+00A0, in UTF-8 and UTF-16. */
const marks = new Set([0xef, 0xbb, 0xbf, 0xfe, 0xff, 0xc2, 0xa0]);

/**
 * Texts of the values that readers could find at the path, in the text of valid JSON; undefined stands for a
 * reader that finds none. One entry: all readers agree.
 */
export function readingsAt(text: string, path: readonly string[]): (string | undefined)[] {
  const [name, ...rest] = path;
  if (name === undefined) return [text];
  const folded = fold(name);
  const found = membersWhere(text, (key) => fold(key) === folded);
  if (found.length === 0) return [undefined];
  const readings = found.flatMap(({ value }) => readingsAt(value, rest));
  return found.some(({ key }) => key === name) ? readings : [...readings, undefined];
}

/** Over both cases, because the Kelvin sign and the long s are letters of ASCII to whoever folds simply. */
function fold(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** The one member that every reader finds under the name. Undefined: none finds any, also where the text is no object. */
export function fieldNamed(text: string, name: string): Member | { readonly wrong: string } | undefined {
  const folded = fold(name);
  const [found, ...others] = membersWhere(text, (key) => fold(key) === folded);
  if (others.length > 0) return { wrong: 'the field is there more than once' };
  return found === undefined || found.key === name
    ? found
    : { wrong: 'the field is there in other letter case' };
}

export interface Member {
  readonly key: string;
  /** As text. */
  readonly value: string;
}

export function membersWhere(text: string, wanted: (key: string) => boolean): Member[] {
  let at = skipSpace(text, 0);
  if (text[at] !== '{') return [];
  const found: Member[] = [];
  at = skipSpace(text, at + 1);
  while (text[at] === '"') {
    const keyEnd = endOfString(text, at);
    const key = String(JSON.parse(text.slice(at, keyEnd)));
    // Past the colon.
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = endOfValue(text, start);
    if (wanted(key)) found.push({ key, value: text.slice(start, end) });
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return found;
}

/** Texts of the elements of an array; undefined where the text is none, or has more than `elementsMax`. */
export function elementsOf(text: string, elementsMax: number): string[] | undefined {
  let at = skipSpace(text, 0);
  if (text[at] !== '[') return undefined;
  const found: string[] = [];
  at = skipSpace(text, at + 1);
  while (at < text.length && text[at] !== ']') {
    if (found.length === elementsMax) return undefined;
    const end = endOfValue(text, at);
    found.push(text.slice(at, end));
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
