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

/** Members of objects that are looked into in one text: the work grows with them, and nobody is known yet. */
export const membersMax = 10_000;

/** The text of valid JSON, whose objects are taken apart once, whoever looks into them. */
export class JsonText {
  readonly text: string;
  readonly #left: { members: number };
  /** By folded name. */
  #members: ReadonlyMap<string, readonly JsonMember[]> | undefined;

  constructor(text: string, left = { members: membersMax }) {
    this.text = text;
    this.#left = left;
  }

  /** None where it is no object; undefined where more than `membersMax` would have been looked at. */
  membersCalled(folded: string): readonly JsonMember[] | undefined {
    this.#members ??= this.#takeApart();
    return this.#members === undefined ? undefined : (this.#members.get(folded) ?? []);
  }

  #takeApart(): ReadonlyMap<string, readonly JsonMember[]> | undefined {
    const found = new Map<string, JsonMember[]>();
    const complete = eachMember(this.text, (key, from, to) => {
      this.#left.members -= 1;
      if (this.#left.members < 0) return false;
      const member = { key, value: new JsonText(this.text.slice(from, to), this.#left) };
      const folded = fold(key);
      const known = found.get(folded);
      if (known === undefined) found.set(folded, [member]);
      else known.push(member);
      return true;
    });
    return complete ? found : undefined;
  }
}

interface JsonMember {
  readonly key: string;
  readonly value: JsonText;
}

/**
 * Texts of the values that readers could find at the path, in the text of valid JSON; undefined stands for a
 * reader that finds none. One entry: all readers agree.
 */
export function readingsAt(
  json: string | JsonText,
  [name, ...rest]: readonly string[],
): (string | undefined)[] | 'too-many' {
  const text = typeof json === 'string' ? new JsonText(json) : json;
  if (name === undefined) return [text.text];
  const found = text.membersCalled(fold(name));
  if (found === undefined) return 'too-many';
  if (found.length === 0) return [undefined];
  const readings: (string | undefined)[] = [];
  for (const { value } of found) {
    const further = readingsAt(value, rest);
    if (further === 'too-many') return further;
    for (const reading of further) readings.push(reading);
  }
  return found.some(({ key }) => key === name) ? readings : [...readings, undefined];
}

/** Over both cases, because the Kelvin sign and the long s are letters of ASCII to whoever folds simply. */
function fold(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** The one member that every reader finds under the name. Undefined: none finds any, also where the text is no object. */
export function fieldNamed(json: JsonText, name: string): JsonText | { readonly wrong: string } | undefined {
  const members = json.membersCalled(fold(name));
  if (members === undefined) return { wrong: 'there are more fields than are looked at' };
  const [found, ...others] = members;
  if (others.length > 0) return { wrong: 'the field is there more than once' };
  return found === undefined || found.key === name
    ? found?.value
    : { wrong: 'the field is there in other letter case' };
}

/** Has the object one whose name is wanted? No where the text is no object. */
export function someMember(text: string, wanted: (key: string) => boolean): boolean {
  return !eachMember(text, (key) => !wanted(key));
}

/** `take` gets each member's name, and from where to where its value stands; false ends it, and is the answer. */
function eachMember(text: string, take: (key: string, from: number, to: number) => boolean): boolean {
  let at = skipSpace(text, 0);
  if (text[at] !== '{') return true;
  at = skipSpace(text, at + 1);
  while (text[at] === '"') {
    const keyEnd = endOfString(text, at);
    const written = text.slice(at + 1, keyEnd - 1);
    const key = written.includes('\\') ? String(JSON.parse(`"${written}"`)) : written;
    // Past the colon.
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = endOfValue(text, start);
    if (!take(key, start, end)) return false;
    at = skipSpace(text, end);
    if (text[at] === ',') at = skipSpace(text, at + 1);
  }
  return true;
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
