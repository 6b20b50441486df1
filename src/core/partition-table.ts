/**
 * Ownership by partition, as a Map would hold it, in a few flat arrays: a million entries of a Map are two million
 * objects that every collection of garbage must visit. Open addressing with linear probing (Knuth, TAOCP 6.4).
 */
import { firstEpoch, type Ownership, type StoreName } from './ownership.ts';

const slotsAtFirst = 16;
const entriesAtFirst = 8;
/** Open partitions of lower epochs stand in the arrays as one number; whatever else there is, in a Map. */
const epochsInArrays = 2 ** 16;
const elsewhere = 0;

/** So that nobody can choose names that all fall into one slot; no answer depends on it. */
// oxlint-disable-next-line no-restricted-properties
const seed = Math.floor(Math.random() * 2 ** 32);

export class PartitionTable {
  /** Pairs: the hash of a name, and one more than the number of its entry; 0 where the slot is free. */
  #slots = new Uint32Array(2 * slotsAtFirst);
  /** Pairs: where the name of an entry ends in `names` (it begins where the one before it ends), and its value. */
  #entries = new Uint32Array(2 * entriesAtFirst);
  /** One byte for a character, one name after the other. */
  #names = new Uint8Array(8 * entriesAtFirst);
  #size = 0;
  /** Of entries whose value says `elsewhere`. */
  #others = new Map<number, Ownership>();
  /** Of names with characters that are no byte. */
  #wide = new Map<string, Ownership>();
  #sharedWithTwin = false;

  get size(): number {
    return this.#size + this.#wide.size;
  }

  has(partition: string): boolean {
    return this.#find(partition, hashOf(partition)) >= 0 || this.#wide.has(partition);
  }

  get(partition: string): Ownership | undefined {
    const entry = this.#find(partition, hashOf(partition));
    return entry < 0 ? this.#wide.get(partition) : this.#ownershipAt(entry);
  }

  set(partition: string, ownership: Ownership): void {
    this.#own();
    const hash = hashOf(partition);
    let entry = this.#find(partition, hash);
    if (entry < 0 && !isOfBytes(partition)) {
      this.#wide.set(partition, ownership);
      return;
    }
    if (entry < 0) entry = this.#add(partition, hash);
    const value = valueOf(ownership);
    this.#entries[2 * entry + 1] = value;
    if (value === elsewhere) this.#others.set(entry, ownership);
    else this.#others.delete(entry);
  }

  /** In the order in which they were first set, those with wide names last. */
  *entries(): IterableIterator<[string, Ownership]> {
    for (let entry = 0; entry < this.#size; entry += 1) yield [this.#nameAt(entry), this.#ownershipAt(entry)];
    yield* this.#wide.entries();
  }

  /** Independent, with the same entries. Shares the arrays until either of the two changes. */
  fork(): PartitionTable {
    const twin = new PartitionTable();
    this.#sharedWithTwin = true;
    twin.#sharedWithTwin = true;
    twin.#slots = this.#slots;
    twin.#entries = this.#entries;
    twin.#names = this.#names;
    twin.#size = this.#size;
    twin.#others = this.#others;
    twin.#wide = this.#wide;
    return twin;
  }

  #own(): void {
    if (!this.#sharedWithTwin) return;
    this.#sharedWithTwin = false;
    this.#slots = this.#slots.slice();
    this.#entries = this.#entries.slice();
    this.#names = this.#names.slice();
    this.#others = new Map(this.#others);
    this.#wide = new Map(this.#wide);
  }

  /** The number of the entry; -1 where there is none. */
  #find(partition: string, hash: number): number {
    const slots = this.#slots;
    const last = slots.length / 2 - 1;
    for (let slot = hash & last; ; slot = (slot + 1) & last) {
      const entry = (slots[2 * slot + 1] ?? 0) - 1;
      if (entry < 0) return -1;
      if (slots[2 * slot] === hash && this.#isNamed(entry, partition)) return entry;
    }
  }

  #isNamed(entry: number, partition: string): boolean {
    const names = this.#names;
    const from = this.#startOf(entry);
    if ((this.#entries[2 * entry] ?? 0) - from !== partition.length) return false;
    for (let at = 0; at < partition.length; at += 1) {
      if (names[from + at] !== partition.charCodeAt(at)) return false;
    }
    return true;
  }

  #add(partition: string, hash: number): number {
    const entry = this.#size;
    const from = this.#startOf(entry);
    const end = from + partition.length;
    if (2 * entry === this.#entries.length) this.#entries = grown(this.#entries, new Uint32Array(4 * entry));
    if (end > this.#names.length) {
      this.#names = grown(this.#names, new Uint8Array(Math.max(end, 2 * this.#names.length)));
    }
    for (let at = 0; at < partition.length; at += 1) this.#names[from + at] = partition.charCodeAt(at);
    this.#entries[2 * entry] = end;
    this.#size += 1;
    // At most half of the slots are taken, so that most names are found at once.
    if (4 * this.#size > this.#slots.length) this.#spread();
    occupy(this.#slots, hash, entry);
    return entry;
  }

  #spread(): void {
    const before = this.#slots;
    const slots = new Uint32Array(2 * before.length);
    for (let at = 0; at < before.length; at += 2) {
      const entry = (before[at + 1] ?? 0) - 1;
      if (entry >= 0) occupy(slots, before[at] ?? 0, entry);
    }
    this.#slots = slots;
  }

  #startOf(entry: number): number {
    return entry === 0 ? 0 : (this.#entries[2 * entry - 2] ?? 0);
  }

  #nameAt(entry: number): string {
    const bytes = this.#names.subarray(this.#startOf(entry), this.#entries[2 * entry]);
    return String.fromCharCode(...bytes);
  }

  #ownershipAt(entry: number): Ownership {
    const value = this.#entries[2 * entry + 1] ?? 0;
    const other = value === elsewhere ? this.#others.get(entry) : undefined;
    return other ?? openOf(value);
  }
}

function hashOf(name: string): number {
  let hash = seed;
  for (let at = 0; at < name.length; at += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(at), 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  return hash >>> 0;
}

function isOfBytes(name: string): boolean {
  for (let at = 0; at < name.length; at += 1) if (name.charCodeAt(at) > 0xff) return false;
  return true;
}

function occupy(slots: Uint32Array, hash: number, entry: number): void {
  const last = slots.length / 2 - 1;
  let slot = hash & last;
  while (slots[2 * slot + 1] !== 0) slot = (slot + 1) & last;
  slots[2 * slot] = hash;
  slots[2 * slot + 1] = entry + 1;
}

function grown<Flat extends Uint8Array | Uint32Array>(from: Flat, to: Flat): Flat {
  to.set(from);
  return to;
}

/** Never `elsewhere` for what stands in the arrays, as epochs begin at 1. */
function valueOf(ownership: Ownership): number {
  const { phase, owner, epoch } = ownership;
  if (phase !== 'open' || epoch < firstEpoch || epoch >= epochsInArrays) return elsewhere;
  return 2 * epoch + (owner === 'app' ? 1 : 0);
}

/** One object for all that are alike. */
const opens: (Ownership | undefined)[] = [];

function openOf(value: number): Ownership {
  const known = opens[value];
  if (known !== undefined) return known;
  const owner: StoreName = value % 2 === 1 ? 'app' : 'legacy';
  const open: Ownership = { phase: 'open', owner, epoch: Math.floor(value / 2) };
  while (opens.length < value) opens.push(undefined);
  opens[value] = open;
  return open;
}
