/**
 * Paths without what names somebody: ids become placeholders, so that requests of one kind fall together and an
 * operator can write a route from them.
 */

const segmentsMax = 16;
const literalBytesMax = 32;

/** Words that stand in paths: letters with - and _, perhaps a digit at the end (oauth2), a version, .well-known. */
const word =
  /^[.$_]?[A-Za-z]{3,}(?:[-_][A-Za-z]+)*\d?$|^[.$_]?[A-Za-z]{1,2}(?:[-_][A-Za-z]+)*$|^v\d{1,3}(?:\.\d{1,3})?$/;
const extension =
  /^(.+)(\.(?:json|xml|html?|txt|csv|pdf|ics|vcf|eml|js|css|map|png|jpe?g|gif|svg|webp|woff2?|zip|php|aspx?|jsp|do))$/i;

/**
 * `path` without its query; `named`: values that stand for something, with the placeholder for each. A word stays
 * what it is, so a user's name that is one stays, too, unless it is named or there are many in its place.
 */
export function maskPath(path: string, named: ReadonlyMap<string, string>): string {
  const segments = path.split('/');
  const kept = segments.slice(0, segmentsMax).map((segment) => maskSegment(segment, named));
  return segments.length > segmentsMax ? `${kept.join('/')}/…` : kept.join('/');
}

const dots = /^(?:\.|%2e){1,2}$/i;
const slash = /%(?:2f|5c)|\\/i;

function maskSegment(segment: string, named: ReadonlyMap<string, string>): string {
  // What a request was refused for must be seen, and names nobody.
  if (segment === '' || dots.test(segment)) return segment;
  const plain = decoded(segment);
  const name = named.get(plain);
  if (slash.test(segment)) return `:id(${slash.exec(segment)?.[0] ?? ''})`;
  if (name !== undefined) return `:${name}`;
  if (isWord(plain)) return plain;
  const [, base = '', ending = ''] = extension.exec(plain) ?? [];
  if (base === '') return ':id';
  const baseName = named.get(base);
  if (baseName !== undefined) return `:${baseName}${ending}`;
  return isWord(base) ? plain : `:id${ending}`;
}

function isWord(text: string): boolean {
  return text.length <= literalBytesMax && word.test(text);
}

function decoded(segment: string): string {
  if (!segment.includes('%')) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Different words in one place of a path; more of them are names, not parts of an interface. */
const wordsMax = 40;

/** One segment of the paths that were seen so far. */
interface Node<Value> {
  readonly children: Map<string, Node<Value>>;
  /** So many words stood here that they count as ids. */
  manyWords: boolean;
  value: Value | undefined;
}

/**
 * Values by path, where places with many different words are taken for places of ids: a segment of its own for
 * every user's name would hide what the interface is, and would not fit in memory.
 */
export class PathTable<Value> {
  readonly #root: Node<Value> = newNode();
  readonly #make: () => Value;
  readonly #merge: (into: Value, other: Value) => void;
  #room: number;

  constructor(
    valuesMax: number,
    parts: { readonly make: () => Value; readonly merge: (into: Value, other: Value) => void },
  ) {
    this.#room = valuesMax;
    this.#make = parts.make;
    this.#merge = parts.merge;
  }

  /** The value for a masked path, and the path under which it stands; undefined where there is no room for it. */
  at(path: string): { readonly path: string; readonly value: Value } | undefined {
    const taken: string[] = [];
    let node = this.#root;
    for (const segment of path.split('/')) {
      const child = this.#childOf(node, segment);
      if (child === undefined) return undefined;
      taken.push(child.name);
      node = child.node;
    }
    node.value ??= this.#make();
    return { path: taken.join('/'), value: node.value };
  }

  *entries(): Iterable<readonly [path: string, value: Value]> {
    yield* entriesBelow(this.#root, []);
  }

  #childOf(node: Node<Value>, segment: string): { name: string; node: Node<Value> } | undefined {
    const literal = isLiteral(segment);
    const name = literal && node.manyWords ? ':id' : segment;
    const known = node.children.get(name);
    if (known !== undefined) return { name, node: known };
    if (literal && !node.manyWords && [...node.children.keys()].filter(isLiteral).length >= wordsMax) {
      this.#takeForIds(node);
      return this.#childOf(node, segment);
    }
    if (this.#room === 0) return undefined;
    this.#room -= 1;
    const made = newNode<Value>();
    node.children.set(name, made);
    return { name, node: made };
  }

  #takeForIds(node: Node<Value>): void {
    node.manyWords = true;
    const before = node.children.get(':id');
    const ids = before ?? newNode<Value>();
    if (before === undefined) this.#room -= 1;
    for (const [name, child] of [...node.children]) {
      if (!isLiteral(name)) continue;
      node.children.delete(name);
      this.#room += 1;
      this.#join(ids, child);
    }
    node.children.set(':id', ids);
  }

  #join(into: Node<Value>, other: Node<Value>): void {
    if (other.value !== undefined) {
      if (into.value === undefined) into.value = other.value;
      else this.#merge(into.value, other.value);
    }
    into.manyWords ||= other.manyWords;
    for (const [name, child] of other.children) {
      const there = into.children.get(name);
      if (there === undefined) {
        into.children.set(name, child);
      } else {
        this.#room += 1;
        this.#join(there, child);
      }
    }
    const words = [...into.children.keys()].filter(isLiteral);
    if (into.manyWords ? words.length > 0 : words.length > wordsMax) this.#takeForIds(into);
  }
}

function isLiteral(segment: string): boolean {
  return segment !== '' && !segment.startsWith(':') && segment !== '…';
}

function newNode<Value>(): Node<Value> {
  return { children: new Map(), manyWords: false, value: undefined };
}

function* entriesBelow<Value>(
  node: Node<Value>,
  above: readonly string[],
): Iterable<readonly [string, Value]> {
  if (node.value !== undefined) yield [above.join('/'), node.value];
  for (const [name, child] of node.children) yield* entriesBelow(child, [...above, name]);
}
