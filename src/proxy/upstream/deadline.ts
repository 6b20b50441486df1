/**
 * A time limit that is set and lifted with every request. The timer behind it stays where it is and looks, when it
 * fires, whether there is still a limit: that costs a request nothing but a look at the clock.
 */
export class Deadline {
  readonly #passed: () => void;
  #dueMs = Number.POSITIVE_INFINITY;
  #firesMs = Number.POSITIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(passed: () => void) {
    this.#passed = passed;
  }

  set(afterMs: number): void {
    const nowMs = performance.now();
    this.#dueMs = nowMs + afterMs;
    if (this.#firesMs > this.#dueMs) this.#arm(nowMs);
  }

  lift(): void {
    this.#dueMs = Number.POSITIVE_INFINITY;
  }

  close(): void {
    this.lift();
    clearTimeout(this.#timer);
  }

  #arm(nowMs: number): void {
    clearTimeout(this.#timer);
    this.#firesMs = this.#dueMs;
    // Rounded up: a timer may not fire before its time and find nothing.
    this.#timer = setTimeout(this.#onTimer, Math.ceil(this.#dueMs - nowMs)).unref();
  }

  readonly #onTimer = (): void => {
    this.#firesMs = Number.POSITIVE_INFINITY;
    if (this.#dueMs === Number.POSITIVE_INFINITY) return;
    const nowMs = performance.now();
    if (nowMs < this.#dueMs) {
      this.#arm(nowMs);
      return;
    }
    this.lift();
    this.#passed();
  };
}
