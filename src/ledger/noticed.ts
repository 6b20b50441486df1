/**
 * Partitions that traffic showed to this process, on their way into the registry; each is told about once, and
 * again after a while: the registry may have been lost with the ledger.
 */
import type { Registry } from '../core/ports.ts';

/** Bounded: forgetting only means that the registry is told once more. */
const seenMax = 200_000;
const usualTellAgainMs = 60_000;

export class Noticed {
  readonly #registry: Pick<Registry, 'note'>;
  /** True when what the registry was told cannot be lost any more. */
  readonly #confirm: () => Promise<boolean>;
  readonly #tellAgainMs: number;
  #forgetAtMs: number;
  readonly #seen = new Set<string>();
  readonly #waiting = new Set<string>();
  #flushing: Promise<void> | undefined;

  constructor(
    registry: Pick<Registry, 'note'>,
    confirm: () => Promise<boolean>,
    tellAgainMs = usualTellAgainMs,
  ) {
    this.#registry = registry;
    this.#confirm = confirm;
    this.#tellAgainMs = tellAgainMs;
    this.#forgetAtMs = performance.now() + tellAgainMs;
  }

  /** The registry knows everything that was noticed, for good. */
  get told(): boolean {
    return this.#waiting.size === 0 && this.#flushing === undefined;
  }

  add(partition: string): void {
    const nowMs = performance.now();
    if (nowMs >= this.#forgetAtMs) {
      this.#seen.clear();
      this.#forgetAtMs = nowMs + this.#tellAgainMs;
    }
    if (this.#seen.has(partition)) return;
    if (this.#seen.size >= seenMax) this.#seen.clear();
    this.#seen.add(partition);
    this.#waiting.add(partition);
  }

  /** What the registry could not be told is told the next time. */
  async flush(): Promise<void> {
    // One at a time: a flush that returns has told everything noticed before it began.
    while (this.#flushing !== undefined) await this.#flushing;
    if (this.#waiting.size === 0) return;
    this.#flushing = this.#flushOnce().finally(() => {
      this.#flushing = undefined;
    });
    await this.#flushing;
  }

  async #flushOnce(): Promise<void> {
    const batch = [...this.#waiting];
    this.#waiting.clear();
    try {
      await this.#registry.note(batch.map((partition) => ({ partition })));
      if (await this.#confirm()) return;
    } catch {
      // Told the next time.
    }
    for (const partition of batch) this.#waiting.add(partition);
  }
}
