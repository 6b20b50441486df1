/** What a process with workers knows of halts: at most half a second old, and without a question for each job. */
import type { StoreName } from '../core/ownership.ts';
import { type Log, sentenceOf } from '../log.ts';
import { type HaltBook, Halts } from './halts.ts';

export interface HaltWatchParts {
  readonly book: Pick<HaltBook, 'read'>;
  readonly targets: readonly StoreName[];
  readonly log: Log;
  /** Ends when the process does. */
  readonly stopping: AbortSignal;
  /** Follows each look; while nothing may be copied at all, nobody needs to take jobs. */
  readonly onLook: (halts: Halts, allHalted: boolean) => void;
}

const lookEveryMs = 500;

export class HaltWatch {
  readonly #parts: HaltWatchParts;
  #halts = new Halts();
  #halted: ReadonlySet<StoreName> = new Set();
  #running = new AbortController();
  #signal: AbortSignal;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;

  constructor(parts: HaltWatchParts) {
    this.#parts = parts;
    this.#signal = AbortSignal.any([parts.stopping, this.#running.signal]);
  }

  /** Ends background work when the process stops, or some store's copies are halted. Ask for it anew each time. */
  get signal(): AbortSignal {
    return this.#signal;
  }

  async start(): Promise<void> {
    await this.look();
    this.#timer = setInterval(() => void this.look(), lookEveryMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  get now(): Halts {
    return this.#halts;
  }

  isHalted(to: StoreName): boolean {
    return this.#halted.has(to);
  }

  get anyHalted(): boolean {
    return this.#halted.size > 0;
  }

  get allHalted(): boolean {
    const { targets } = this.#parts;
    return targets.length > 0 && targets.every((to) => this.#halted.has(to));
  }

  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #look(): Promise<void> {
    const { book, targets, log, onLook } = this.#parts;
    try {
      this.#halts = await book.read();
    } catch (error) {
      // As it was: where Redis does not answer, nothing is copied anyhow.
      log('warn', 'sync.halts-unknown', { detail: sentenceOf(error) });
      return;
    }
    const before = this.#halted;
    this.#halted = new Set(targets.filter((to) => this.#halts.stops(to)));
    for (const to of before) if (!this.#halted.has(to)) log('info', 'sync.goes-on', { to });
    const newly = [...this.#halted].filter((to) => !before.has(to));
    for (const to of newly) {
      log('warn', 'sync.halted', {
        to,
        detail: this.#halts
          .to(to)
          .map(({ detail }) => detail)
          .join('; '),
      });
    }
    if (newly.length > 0) {
      const running = this.#running;
      this.#running = new AbortController();
      this.#signal = AbortSignal.any([this.#parts.stopping, this.#running.signal]);
      running.abort(new Error('copies are halted'));
    }
    onLook(this.#halts, this.allHalted);
  }
}
