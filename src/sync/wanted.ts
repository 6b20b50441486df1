/**
 * The owner's records of which no copy was seen yet, in a pass over all partitions: a digest for each. Two partitions
 * can have a record of the same id, where ids count within each of them.
 */

export interface Expected {
  readonly digest: string;
  /** Fields in which the owner's record has a value. */
  readonly given: ReadonlySet<string>;
}

interface Entry {
  readonly partition: string;
  expected: Expected;
  next: Entry | undefined;
}

export class Wanted {
  /** By id, then side by side: almost always there is one, and a key of both names would cost as much memory again. */
  readonly #byId = new Map<string, Entry>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Of a record that comes up twice, the later one is newer. Returns another partition that has a record of this id. */
  set(id: string, partition: string, expected: Expected): string | undefined {
    const first = this.#byId.get(id);
    for (let entry = first; entry !== undefined; entry = entry.next) {
      if (entry.partition !== partition) continue;
      entry.expected = expected;
      return undefined;
    }
    this.#byId.set(id, { partition, expected, next: first });
    this.#size += 1;
    return first?.partition;
  }

  /** What is expected of it, and forgets it; undefined where there is none. */
  take(id: string, partition: string): Expected | undefined {
    let before: Entry | undefined;
    for (let entry = this.#byId.get(id); entry !== undefined; entry = entry.next) {
      if (entry.partition === partition) {
        this.#leaveOut(id, entry, before);
        return entry.expected;
      }
      before = entry;
    }
    return undefined;
  }

  *[Symbol.iterator](): Generator<{ readonly id: string; readonly partition: string }> {
    for (const [id, first] of this.#byId) {
      for (let entry: Entry | undefined = first; entry !== undefined; entry = entry.next) {
        yield { id, partition: entry.partition };
      }
    }
  }

  #leaveOut(id: string, { next }: Entry, before: Entry | undefined): void {
    this.#size -= 1;
    if (before !== undefined) before.next = next;
    else if (next === undefined) this.#byId.delete(id);
    else this.#byId.set(id, next);
  }
}
