/** Which partitions a cohort selects. */

export type AttributeValue = string | number | boolean | null;
export type Attributes = Readonly<Record<string, AttributeValue>>;

export type Condition =
  | AttributeValue
  | {
      readonly eq?: AttributeValue | undefined;
      readonly ne?: AttributeValue | undefined;
      readonly in?: readonly AttributeValue[] | undefined;
      readonly gt?: number | undefined;
      readonly gte?: number | undefined;
      readonly lt?: number | undefined;
      readonly lte?: number | undefined;
    };

export type CohortSelection =
  | { readonly partitions: readonly string[] }
  | { readonly percent: number; readonly salt: string }
  | { readonly where: Readonly<Record<string, Condition>> };

/** The registry's answer about one partition. */
export interface KnownPartition {
  readonly partition: string;
  readonly attributes: Attributes;
}

/**
 * The cohort's partitions, sorted and without repeats. A list selects its names whether the registry
 * knows them or not; a percentage and an attribute select from `known`.
 */
export function resolveCohort(selection: CohortSelection, known: Iterable<KnownPartition>): string[] {
  if ('partitions' in selection) return sortedUnique(selection.partitions);
  const chosen: string[] = [];
  for (const { partition, attributes } of known) {
    if (selects(selection, partition, attributes)) chosen.push(partition);
  }
  return sortedUnique(chosen);
}

export function selects(selection: CohortSelection, partition: string, attributes: Attributes): boolean {
  if ('partitions' in selection) return selection.partitions.includes(partition);
  if ('percent' in selection) {
    return bucketOf(partition, selection.salt) < selection.percent * 100;
  }
  return Object.entries(selection.where).every(([name, condition]) =>
    satisfies(attributes[name] ?? null, condition),
  );
}

/** 0 to 9,999: murmur3 (32 bit, x86) of `salt:partition`, modulo 10,000. */
export function bucketOf(partition: string, salt: string): number {
  return murmur3(`${salt}:${partition}`) % 10_000;
}

function satisfies(value: AttributeValue, condition: Condition): boolean {
  if (condition === null || typeof condition !== 'object') return value === condition;
  if (condition.eq !== undefined && value !== condition.eq) return false;
  if (condition.ne !== undefined && value === condition.ne) return false;
  if (condition.in !== undefined && !condition.in.includes(value)) return false;
  const bounds = [condition.gt, condition.gte, condition.lt, condition.lte];
  if (bounds.every((bound) => bound === undefined)) return true;
  if (typeof value !== 'number') return false;
  const { gt, gte, lt, lte } = condition;
  return (
    (gt === undefined || value > gt) &&
    (gte === undefined || value >= gte) &&
    (lt === undefined || value < lt) &&
    (lte === undefined || value <= lte)
  );
}

function sortedUnique(names: readonly string[]): string[] {
  return [...new Set(names)].toSorted();
}

/** MurmurHash3_x86_32 of the UTF-8 bytes, seed 0 (Austin Appleby, public domain reference). */
export function murmur3(text: string): number {
  const bytes = utf8(text);
  let hash = 0;
  const tail = bytes.length & ~3;
  for (let at = 0; at < tail; at += 4) {
    const block =
      (bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24);
    hash ^= scramble(block);
    hash = Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64;
  }
  let rest = 0;
  for (let at = bytes.length - 1; at >= tail; at -= 1) rest = (rest << 8) | (bytes[at] ?? 0);
  if (bytes.length > tail) hash ^= scramble(rest);
  hash ^= bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

function scramble(block: number): number {
  const mixed = Math.imul(block, 0xcc9e2d51);
  return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593);
}

/** UTF-8 without TextEncoder, which is no part of the language; lone surrogates become U+FFFD. */
function utf8(text: string): number[] {
  const bytes: number[] = [];
  for (const character of text.toWellFormed()) {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else {
      bytes.push(
        0xf0 | (code >> 18),
        0x80 | ((code >> 12) & 63),
        0x80 | ((code >> 6) & 63),
        0x80 | (code & 63),
      );
    }
  }
  return bytes;
}
