/**
 * What a route asks of a request beyond its path and method. A name that is there twice, or in a spelling that
 * only some servers take for it, has several readings; a condition that they do not agree on is `unclear`.
 */

/** `*`: whatever it is, it must be there. */
export type Wanted = string | number | boolean | null;
/** What some server could find in a place; undefined: nothing. */
export type Reading = string | number | boolean | object | null | undefined;
export type Verdict = 'yes' | 'no' | 'unclear';

export function judge(readings: readonly Reading[], wanted: Wanted): Verdict {
  let yes = false;
  let no = readings.length === 0;
  for (const reading of readings) {
    if (reading !== undefined && (wanted === '*' || reading === wanted)) yes = true;
    else no = true;
  }
  if (yes && no) return 'unclear';
  return yes ? 'yes' : 'no';
}

/** Of one name in a query or a form: as it is written, and as servers find it that read more loosely. */
export interface PairValues {
  readonly exact: readonly string[];
  readonly loose: readonly string[];
}

/** Many servers read this many and overlook the others (qs and PHP 1,000). */
const pairsReadByAll = 500;

/** A query or a form, taken apart once, whoever asks for a name in it. */
export class Pairs {
  readonly #exact = new Map<string, string[]>();
  /** Places in `#values`, by each loose name that a pair could be taken for. */
  readonly #loose = new Map<string, number[]>();
  /** Of names that some servers read as %u0041, or pass over bytes that are no UTF-8: such a name may be any. */
  readonly #nameless: number[] = [];
  readonly #values: string[] = [];

  constructor(text: string) {
    for (const pair of text.split('&').slice(0, pairsReadByAll)) {
      const { name, value, written } = readPair(pair);
      if (name !== undefined) addTo(this.#exact, name, value ?? written);
    }
    for (const pair of text.split(/[&;]/)) {
      const { name, value = '' } = readPair(pair);
      const place = this.#values.push(value) - 1;
      if (name === undefined) {
        this.#nameless.push(place);
        continue;
      }
      const [loose, mangled] = [looseName(name), mangledName(name)];
      addTo(this.#loose, loose, place);
      if (mangled !== undefined && mangled !== loose) addTo(this.#loose, mangled, place);
    }
  }

  valuesOf(name: string): PairValues {
    const places = [...(this.#loose.get(looseName(name)) ?? []), ...this.#nameless];
    const loose = places.toSorted((one, other) => one - other).map((place) => this.#values[place] ?? '');
    return { exact: this.#exact.get(name) ?? [], loose };
  }
}

function addTo<Value>(map: Map<string, Value[]>, name: string, value: Value): void {
  const known = map.get(name);
  if (known === undefined) map.set(name, [value]);
  else known.push(value);
}

/** Undefined, where it holds sequences that are no UTF-8. `written`: the value as it stands there. */
function readPair(pair: string): { name: string | undefined; value: string | undefined; written: string } {
  const mark = pair.indexOf('=');
  const written = mark === -1 ? '' : pair.slice(mark + 1);
  return { name: decodePart(mark === -1 ? pair : pair.slice(0, mark)), value: decodePart(written), written };
}

export function readingsInPairs(text: string | Pairs, name: string): readonly Reading[] {
  if (text === '') return [];
  const { exact, loose } = valuesInPairs(text, name);
  return exact.length === 0 && loose.length > 0 ? [...loose, undefined] : [...exact, ...loose];
}

export function valuesInPairs(text: string | Pairs, name: string): PairValues {
  return (typeof text === 'string' ? new Pairs(text) : text).valuesOf(name);
}

/**
 * Undefined: nobody finds the name. The empty text, which names nothing: servers could find different values,
 * or it is there twice.
 */
export function onlyValueInPairs(text: string | Pairs, name: string): string | undefined {
  const { exact, loose } = valuesInPairs(text, name);
  if (exact.length === 0 && loose.length === 0) return undefined;
  const [value = ''] = exact;
  return exact.length === 1 && loose.length === 1 && value === loose[0] ? value : '';
}

/** `*.example.org` stands for every name below example.org, not for itself. Ports do not count. */
export function judgeHost(host: string | undefined, wanted: string): Verdict {
  if (host === undefined) return 'no';
  const have = plainHost(host);
  const want = plainHost(wanted);
  const matches = want.startsWith('*.')
    ? have.endsWith(want.slice(1)) && have.length > want.length - 1
    : have === want;
  return matches ? 'yes' : 'no';
}

function plainHost(host: string): string {
  return host.toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '');
}

/**
 * Some servers overlook letter case, and PHP ends a name at NUL and reads "a.b" and "a b" as "a_b" and "a[]" as "a".
 * qs and Rack overlook brackets around a name.
 */
export function looseName(name: string): string {
  const [whole = ''] = name.split('\0', 1);
  const bare = withoutBrackets(whole.trim().toLowerCase());
  const open = bare.indexOf('[');
  return (open === -1 ? bare : bare.slice(0, open)).replaceAll(/[. ]/g, '_');
}

/** No regular expression: anchored at the end, it would try every bracket of a name that is nothing else. */
function withoutBrackets(name: string): string {
  let from = 0;
  let to = name.length;
  while (from < to && isBracket(name[from])) from += 1;
  while (to > from && isBracket(name[to - 1])) to -= 1;
  return name.slice(from, to);
}

function isBracket(letter: string | undefined): boolean {
  return letter === '[' || letter === ']';
}

/** Do some servers read `found`, which is decoded, as a name that is loosely `want`? */
export function couldMean(found: string, want: string): boolean {
  return looseName(found) === want || mangledName(found) === want;
}

/** PHP reads a bracket that nothing closes as "_". */
function mangledName(name: string): string | undefined {
  const open = name.indexOf('[');
  return open === -1 || name.includes(']', open) ? undefined : looseName(name.replaceAll('[', '_'));
}

/** Undefined where it holds sequences that are no UTF-8. */
function decodePart(part: string): string | undefined {
  const spaced = part.includes('+') ? part.replaceAll('+', ' ') : part;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return undefined;
  }
}
