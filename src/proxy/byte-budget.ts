/** One bound on the bytes that many requests keep in memory at the same time. */
export class ByteBudget {
  readonly #bytesMax: number;
  #taken = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get taken(): number {
    return this.#taken;
  }

  /** False, and nothing taken, where the bound would be passed. */
  take(bytes: number): boolean {
    if (this.#taken + bytes > this.#bytesMax) return false;
    this.#taken += bytes;
    return true;
  }

  give(bytes: number): void {
    if (bytes > this.#taken) throw new Error(`${bytes} bytes given back, ${this.#taken} were taken`);
    this.#taken -= bytes;
  }
}
