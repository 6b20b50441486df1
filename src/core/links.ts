/**
 * Partitions that a write has joined: somebody changed records of both in one request, so a handoff that puts them
 * on different stores would split what belongs together (I4). Links are noted before the first such write is
 * forwarded; plans and handoffs look at them.
 */

/** In the order of their names. */
export type Pair = readonly [string, string];

export interface Link {
  readonly partitions: Pair;
  /** When it was first noted, Redis clock. */
  readonly atMs: number;
  /** Path of the route whose request joined them; '' where none matched. */
  readonly route: string;
}

/** For the proxy: what this process knows to be noted. */
export interface LinkNotes {
  /** In memory and synchronous: a write that joins these may be forwarded. */
  known(partitions: readonly string[]): boolean;
  /**
   * Resolves once it is noted for good; then `known` says so. Rejects where it could not be; with LinkShareSpent where
   * `user`, who may be nobody in particular, has joined too many.
   */
  note(partitions: readonly string[], route: string, user?: string): Promise<void>;
}

/** More would be new than may be. Nothing was noted. */
export class LinkShareSpent extends Error {
  readonly againAfterSeconds: number;

  constructor(againAfterSeconds: number) {
    super('too many partitions have been joined that were not joined before');
    this.name = 'LinkShareSpent';
    this.againAfterSeconds = againAfterSeconds;
  }
}

export interface LinkPage {
  readonly links: readonly Link[];
  /** Goes on behind the last one; absent on the last page. */
  readonly next?: string;
}

export type ForgetLinkResult =
  | { readonly result: 'forgotten'; readonly link: Link }
  | { readonly result: 'unknown' }
  | { readonly result: 'ledger-regressed'; readonly detail: string };

/** The links themselves. Throws where Redis is away. */
export interface LinkBook {
  /** Who was written together with each of these; whoever has no link is left out. */
  partnersOf(partitions: readonly string[]): Promise<ReadonlyMap<string, readonly string[]>>;
  /** In the order of the names; with `partition` those of this one only. */
  page(after: string, limit: number, partition?: string): Promise<LinkPage>;
  /** An operator says that it is no longer true; members note it again at the next write that joins the two. */
  forget(pair: Pair, by: string, reason: string): Promise<ForgetLinkResult>;
}

export function pairOf(one: string, other: string): Pair {
  return one < other ? [one, other] : [other, one];
}

/** A write joins all that it touches; each with the first is enough to find them all from any one. */
export function pairsOf([first = '', ...others]: readonly string[]): Pair[] {
  return others.map((other) => pairOf(first, other));
}

export interface Parting {
  /** About to move, each with whom it was written together. */
  readonly moving: Iterable<string>;
  readonly partnersOf: (partition: string) => readonly string[];
  /** It lives where the others go. */
  readonly isThere: (partition: string) => boolean;
}

/**
 * Who of the moving would be parted from somebody who stays behind, and from whom. Who must stay for that reason
 * makes its own partners stay.
 */
export function partedBy({ moving, partnersOf, isThere }: Parting): ReadonlyMap<string, readonly string[]> {
  const going = new Set(moving);
  const parted = new Map<string, readonly string[]>();
  const asked = [...going];
  for (const partition of asked) {
    if (!going.has(partition)) continue;
    const behind = partnersOf(partition).filter((partner) => !going.has(partner) && !isThere(partner));
    if (behind.length === 0) continue;
    going.delete(partition);
    parted.set(partition, behind);
    asked.push(...partnersOf(partition).filter((partner) => going.has(partner)));
  }
  return parted;
}

/** The same partitions, whoever is linked side by side; else in the order of their names. */
export function sideBySide(
  partitions: readonly string[],
  partnersOf: (partition: string) => readonly string[],
): string[] {
  const left = new Set(partitions.toSorted());
  const ordered: string[] = [];
  for (const first of left) {
    const group = [first];
    left.delete(first);
    for (const partition of group) {
      for (const partner of partnersOf(partition)) if (left.delete(partner)) group.push(partner);
    }
    ordered.push(...group);
  }
  return ordered;
}

/** Sizes of waves, each made larger where it would end among partitions that are linked. */
export function wholeWaves(
  sizes: readonly number[],
  partitions: readonly string[],
  partnersOf: (partition: string) => readonly string[],
): number[] {
  const place = new Map(partitions.map((partition, at) => [partition, at]));
  const wholes: number[] = [];
  let [from, wanted, end] = [0, 0, 0];
  for (const size of sizes) {
    wanted += size;
    end = Math.max(end, wanted);
    // Whoever is in it takes its partners along, and so do they.
    for (let at = from; at < end; at += 1) {
      for (const partner of partnersOf(partitions[at] ?? ''))
        end = Math.max(end, (place.get(partner) ?? -1) + 1);
    }
    if (end > from) wholes.push(end - from);
    from = end;
  }
  return wholes;
}
