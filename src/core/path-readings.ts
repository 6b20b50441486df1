/**
 * How servers could read a path. They disagree about letter case, empty segments, parameters, slashes that are encoded
 * or the other way round, what is encoded twice, sequences that are no UTF-8, and endings (`/a.json` for `/a`): what a path decides is
 * compared over all of these readings, and where they differ it is refused.
 */

/** Decoded segments of a path; the first is empty. */
export interface Segments {
  /** As they are compared: in a loose reading without letter case. */
  readonly found: readonly string[];
  /** The same in the letters in which they are parameters. */
  readonly values: readonly string[];
  /** The last one without its ending, where the stores take that off. */
  readonly bare: { readonly found: string; readonly value: string } | undefined;
}

export interface LooseReading extends Segments {
  /** What it takes to read the path so. */
  readonly by: 'spelling' | 'encoding' | 'ending';
  /** False: most names with such an ending are names (ann@example.com), so it may be another partition. */
  readonly naming: boolean;
}

/** That the stores take off the last segment: in small letters, without the dot; `*`: any. Undefined: nobody knows. */
export type Endings = readonly string[] | undefined;

/** What servers offer one resource in; nobody's domain ends so. */
const commonEndings = new Set(
  'json xml html htm js txt csv yaml yml pdf rss atom ics vcf do action'.split(' '),
);

/** By its letters, decoded, because every server takes `%6f` for `o` (RFC 3986, 6.2.2.2). */
export function exactReading(path: string, endings: Endings): Segments {
  const found = path.split('/').map(decodeSegment);
  // Behind an encoded dot, or in encoded letters, some servers see no ending: only loose readings are without it.
  const written = endings && withoutEnding(path.slice(path.lastIndexOf('/') + 1), endings, asIs);
  const bare = written === undefined ? undefined : decodeSegment(written);
  return { found, values: found, bare: bare === undefined ? undefined : { found: bare, value: bare } };
}

/** As servers could read it that do not go by its letters. */
export function looseReadings(path: string, endings: Endings): readonly LooseReading[] {
  const again = decodedTwice(path);
  const spellings = again === undefined ? slashReadings(path) : [path, again].flatMap(slashReadings);
  const spelled = spellings.map((spelling) => looseReading(looseSegments(spelling), endings));
  // Most paths have one reading.
  if (!/[%.]/.test(path)) return spelled;
  const otherwise = isText(path) ? [] : [inLatin1(path), withoutFaults(path)].flatMap(slashReadings);
  const encoded = otherwise.map((reading) => looseReading(looseSegments(reading), endings, 'encoding'));
  const readings = [...spelled, ...encoded];
  return [...readings, ...readings.flatMap(({ values }) => readingsWithoutEnding(values, endings))];
}

/** Segments of a path or a template as loose readers have them; in their own letters. */
export function looseSegments(path: string): string[] {
  const segments = path.split('/').map((segment) => decodeSegment(withoutParameters(segment)));
  return ['', ...segments.filter((segment) => segment !== '')];
}

/** Some servers look for them behind a proxy that has decoded the semicolon (nginx in front of Tomcat). */
function withoutParameters(segment: string): string {
  const mark = segment.includes('%') ? segment.search(/;|%3b/i) : segment.indexOf(';');
  return mark === -1 ? segment : segment.slice(0, mark);
}

/** Names of parameters keep theirs. */
export function foldCase(segment: string): string {
  return segment.startsWith(':') ? segment : segment.toLowerCase();
}

function looseReading(
  values: readonly string[],
  endings: Endings,
  by: LooseReading['by'] = 'spelling',
  naming = true,
): LooseReading {
  const value = endings && withoutEnding(values.at(-1) ?? '', endings);
  const bare = value === undefined ? undefined : { found: foldCase(value), value };
  return { found: values.map(foldCase), values, bare, by, naming };
}

const asIs = (text: string): string => text;

/** Undefined where it has none of them. */
function withoutEnding(segment: string, endings: readonly string[], fold = foldCase): string | undefined {
  const dot = segment.lastIndexOf('.');
  if (dot < 1) return undefined;
  const known = endings.includes('*') || endings.includes(fold(segment.slice(dot + 1)));
  return known ? segment.slice(0, dot) : undefined;
}

/**
 * For servers that take any ending off what a rule names: Rails what is behind the last dot, older Spring also what is
 * behind the first.
 */
function readingsWithoutEnding(values: readonly string[], endings: Endings): LooseReading[] {
  const segment = values.at(-1) ?? '';
  const last = segment.lastIndexOf('.');
  if (last < 1 || (endings !== undefined && !endings.includes('*'))) return [];
  const common = endings === undefined && commonEndings.has(segment.slice(last + 1).toLowerCase());
  return [...new Set([segment.indexOf('.', 1), last])].map((dot) =>
    looseReading([...values.slice(0, -1), segment.slice(0, dot)], [], 'ending', common && dot === last),
  );
}

/** What some servers take for a slash, before they look at segments. */
const otherSlashes = [/%2f/gi, /%5c/gi, /\\/g];

function slashReadings(path: string): readonly string[] {
  if (!/[%\\]|^\/\//.test(path)) return [path];
  const readings = otherSlashes.reduce<readonly string[]>(
    (found, slash) =>
      found.flatMap((reading) => {
        const split = reading.replaceAll(slash, '/');
        return split === reading ? [reading] : [reading, split];
      }),
    [path],
  );
  // Read as a reference, "//x/y" is /y at the host x (RFC 3986, 4.2): so does `new URL(target, base)`.
  return readings.flatMap((reading) =>
    reading.startsWith('//') ? [reading, reading.replace(/^\/+[^/]*/, '') || '/'] : [reading],
  );
}

/**
 * Still encoded, as it is for servers that decode what another one has decoded already; undefined where that changes
 * nothing. Only percent signs and hex digits are decoded here, for more is not needed to find new sequences.
 */
function decodedTwice(path: string): string | undefined {
  if (!path.includes('%') || (!path.includes('%25') && isText(path))) return undefined;
  const again = path.replaceAll(/%(25|3[0-9]|[46][1-6])/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return again === path ? undefined : again;
}

/** Are all of its encoded sequences UTF-8? */
function isText(path: string): boolean {
  return decoded(path) !== undefined;
}

/** A segment with sequences that are no UTF-8 stays as it is. */
function decodeSegment(segment: string): string {
  return decoded(segment) ?? segment;
}

function decoded(text: string): string | undefined {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Still encoded, as servers read it to whom a byte is a letter: each segment that is no UTF-8. */
function inLatin1(path: string): string {
  return path.replaceAll(/[^/]+/g, (segment) =>
    isText(segment)
      ? segment
      : segment.replaceAll(/%([89a-f][0-9a-f])/gi, (_, hex: string) => encoded(Number.parseInt(hex, 16))),
  );
}

const sequences =
  /%u[0-9a-f]{4}|%f[0-9a-f](?:%[89ab][0-9a-f]){3}|%e[0-9a-f](?:%[89ab][0-9a-f]){2}|%[cd][0-9a-f]%[89ab][0-9a-f]|%[0-9a-f]{2}|%/gi;

/**
 * Still encoded, as lenient servers read it: with the letters of overlong sequences (RFC 3629, 3) and of `%u0041`, and
 * without what is no letter at all.
 */
function withoutFaults(path: string): string {
  return path.replaceAll(sequences, (sequence) => {
    if (isText(sequence)) return sequence;
    if (/^%u/i.test(sequence)) return encoded(Number.parseInt(sequence.slice(2), 16));
    const [first = 0, ...more] = sequence
      .split('%')
      .slice(1)
      .map((hex) => Number.parseInt(hex, 16));
    if (more.length === 0) return '';
    const letter = more.reduce((bits, byte) => bits * 64 + (byte % 64), first % 2 ** (6 - more.length));
    // Longer than it need be: the encoding of a letter that has a shorter one.
    return letter < ([0, 0x80, 0x800, 0x10000][more.length] ?? 0) ? encoded(letter) : '';
  });
}

/** Halves of a letter (surrogates) are none. */
function encoded(code: number): string {
  const letter = String.fromCharCode(code);
  return letter.isWellFormed() ? encodeURIComponent(letter) : '';
}

/** Without any letter that is looked for below: most paths. */
const plainPath = /^(?:\/[\w~!$&'()*+,:@=-]*)+$/;

/**
 * Why a target cannot be classified safely, if so. Upstreams disagree about dot segments, also behind slashes that
 * are encoded or the other way round, before parameters, and encoded twice, so a path with them could mean one record here and another one there.
 */
export function unsafeTarget(path: string): string | undefined {
  if (plainPath.test(path)) return undefined;
  if (!path.startsWith('/')) return 'it does not start with a slash';
  if (/[\u0000-\u0020\u007f#]/.test(path)) return 'it contains a control character, a space or a fragment';
  const again = decodedTwice(path);
  const decodings = again === undefined ? [path] : [path, again];
  for (const reading of decodings.flatMap((text) => (isText(text) ? [text] : [text, withoutFaults(text)]))) {
    for (const segment of reading.split(/\/|%2f|%5c|\\/i)) {
      const name = withoutParameters(segment.replaceAll(/%2e/gi, '.'));
      if (name === '.' || name === '..') return 'it contains a dot segment';
    }
    if (/%([01][0-9a-f]|7f)/i.test(reading)) return 'it contains an encoded control character';
  }
  return undefined;
}
