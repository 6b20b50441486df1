/** The states that were reached, by a 64-bit hash of their text, each with the step that led to it first. */

export class SeenStates {
  #high = new Uint32Array(1 << 16);
  #low = new Uint32Array(1 << 16);
  /** Place of the state in the order of discovery, plus one; 0 where the slot is free. */
  #place = new Uint32Array(1 << 16);
  #parent = new Uint32Array(1 << 16);
  #action = new Uint16Array(1 << 16);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** False when a state with this text was reached before. */
  add(text: string, parent: number, action: number): boolean {
    if (this.#size * 2 >= this.#place.length) this.#grow();
    const [high, low] = hash(text);
    const mask = this.#place.length - 1;
    let slot = low & mask;
    while (this.#place[slot] !== 0) {
      if (this.#high[slot] === high && this.#low[slot] === low) return false;
      slot = (slot + 1) & mask;
    }
    this.#high[slot] = high;
    this.#low[slot] = low;
    this.#parent[this.#size] = parent;
    this.#action[this.#size] = action;
    this.#size += 1;
    this.#place[slot] = this.#size;
    return true;
  }

  /** Which action to take in each state from the first one on. */
  pathTo(place: number): number[] {
    const path: number[] = [];
    for (let at = place; at !== 0; at = this.#parent[at] ?? 0) path.push(this.#action[at] ?? 0);
    return path.toReversed();
  }

  #grow(): void {
    const length = this.#place.length * 2;
    const [high, low, place] = [this.#high, this.#low, this.#place];
    this.#high = new Uint32Array(length);
    this.#low = new Uint32Array(length);
    this.#place = new Uint32Array(length);
    const mask = length - 1;
    for (let from = 0; from < place.length; from += 1) {
      if (place[from] === 0) continue;
      let slot = (low[from] ?? 0) & mask;
      while (this.#place[slot] !== 0) slot = (slot + 1) & mask;
      this.#high[slot] = high[from] ?? 0;
      this.#low[slot] = low[from] ?? 0;
      this.#place[slot] = place[from] ?? 0;
    }
    const parent = new Uint32Array(length);
    parent.set(this.#parent);
    this.#parent = parent;
    const action = new Uint16Array(length);
    action.set(this.#action);
    this.#action = action;
  }
}

/** cyrb53 by bryc (public domain), all 64 bits of it. */
function hash(text: string): [high: number, low: number] {
  let one = 0xdeadbeef;
  let two = 0x41c6ce57;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    one = Math.imul(one ^ code, 2654435761);
    two = Math.imul(two ^ code, 1597334677);
  }
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
  two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return [two >>> 0, one >>> 0];
}
