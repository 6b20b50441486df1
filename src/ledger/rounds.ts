/**
 * Questions to the ledger that many ask at about the same time, asked once for all of them. An answer counts for
 * everybody who asked before it was sent for: what they rely on is only that it is younger than their question.
 */

/** One round at a time; who comes while one is under way gets the next. */
export class Rounds<Answer> {
  readonly #ask: () => Promise<Answer>;
  #running: Promise<Answer> | undefined;
  #next: Promise<Answer> | undefined;

  constructor(ask: () => Promise<Answer>) {
    this.#ask = ask;
  }

  /** An answer that was asked for after this call. */
  answer(): Promise<Answer> {
    if (this.#running === undefined) return this.#begin();
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined;
        return this.#begin();
      });
    return this.#next;
  }

  #begin(): Promise<Answer> {
    const running = this.#ask().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
