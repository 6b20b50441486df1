/**
 * What both stores must hold in the end, told by what the users did alone. Nothing of the program is used here: equal
 * is what this file calls equal.
 */
import type { Side } from './words.ts';

type Value = string | number | boolean | null | readonly Value[] | { readonly [name: string]: Value };
export type Body = Readonly<Record<string, Value>>;
type Store = 'legacy' | 'app';

/** One record of a history; users write it where its partition's owner is. */
export class Slot {
  readonly id: string;
  /** Of the two partitions, the one that it is in, or was in last. */
  side: Side;
  body: Body | undefined;

  constructor(id: string, side: Side) {
    this.id = id;
    this.side = side;
  }
}

export class Family {
  readonly name: string;
  readonly slots: readonly Slot[];
  readonly owners: [Store, Store] = ['legacy', 'legacy'];
  readonly #goesBack: boolean;
  /** What legacy holds of a partition that has left: as it was then. */
  readonly #left = new Map<string, Body>();

  /** `goesBack`: what is written in the app is copied to legacy. */
  constructor(name: string, slots: readonly Slot[], goesBack: boolean) {
    this.name = name;
    this.slots = slots;
    this.#goesBack = goesBack;
  }

  partition(side: Side): string {
    return `${this.name}-${side}`;
  }

  /** At the commit, while nobody writes. */
  move(side: Side, to: Store): void {
    for (const slot of this.slots) {
      if (this.#goesBack || slot.side !== side || slot.body === undefined) continue;
      this.#left.set(slot.id, slot.body);
    }
    this.owners[side] = to;
  }

  /** By id. */
  expected(store: Store): Map<string, Body> {
    const bodies = new Map(store === 'legacy' ? this.#left : []);
    for (const { id, side, body } of this.slots) {
      const isThere = store === 'app' || this.#goesBack || this.owners[side] === 'legacy';
      if (body !== undefined && isThere) bodies.set(id, body);
    }
    return bodies;
  }
}

/** One line for each record that is not as it should be. */
export function differencesIn(
  store: Store,
  families: readonly Family[],
  held: ReadonlyMap<string, Body>,
): string[] {
  const found = new Map([...held].filter(([, body]) => isLive(body)));
  const differences: string[] = [];
  for (const family of families) {
    for (const [id, body] of family.expected(store)) {
      const [wanted, seen] = [canonical(body), canonical(found.get(id))];
      found.delete(id);
      if (wanted !== seen) differences.push(`${store} ${id}: ${seen} instead of ${wanted}`);
    }
  }
  for (const [id, body] of found) differences.push(`${store} ${id}: ${canonical(body)} instead of nothing`);
  return differences;
}

/** Not marked as deleted. */
export function isLive(body: Body | undefined): boolean {
  return body !== undefined && (body['deleted_at'] ?? null) === null;
}

const ofTheStoreItself: ReadonlySet<string> = new Set(['updated_at', 'deleted_at']);

function canonical(body: Body | undefined): string {
  if (body === undefined) return 'nothing';
  const names = Object.keys(body).filter((name) => !ofTheStoreItself.has(name) && body[name] !== null);
  return JSON.stringify(names.toSorted().map((name) => [name, body[name]]));
}
