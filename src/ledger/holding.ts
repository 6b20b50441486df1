/** What one process knows of the ledger, and how much of that the ledger must never lose again. */
import type { Ownership } from '../core/ownership.ts';
import type { Position, Rules, Snapshot } from '../core/view.ts';
import type { Log } from '../log.ts';

export interface Holding {
  /** Last change that a durable answer confirmed to this process; undefined before the first. */
  readonly confirmed: Position | undefined;
  /** Last change in the view; it may be ahead of what was confirmed. */
  readonly position: Position;
  readonly partitions: Iterable<readonly [string, Ownership]>;
  readonly rules: Rules | undefined;
}

/** What was known of the ledger before: by a process before this one, or by a member before this one. */
export interface PriorView {
  /** What the ledger must still have. */
  readonly confirmed: Position;
  readonly document: Snapshot;
}

/** A process that follows the ledger: a member, or a witness where there is no member. */
export interface Holder {
  readonly id: string;
  holding(): Holding;
  /** What the ledger lost, as it told this process; undefined while it is sound. */
  regressed(): string | undefined;
}

/**
 * What a process can say of the ledger against the ledger: the last change known to be durable, to it or, from a
 * file, to one before it; and whether the ledger was found to have lost that.
 */
export class Testimony {
  readonly #before: Position;
  readonly #log: Log;
  #here: Position | undefined;
  #regressed: string | undefined;
  #confirmedAtMs = performance.now();
  #standsAt = -1;

  constructor(before: Position = { version: 0, id: '' }, log: Log = () => undefined) {
    this.#before = before;
    this.#log = log;
  }

  /** What the ledger must still have. */
  get claim(): Position {
    return this.#here !== undefined && this.#here.version >= this.#before.version ? this.#here : this.#before;
  }

  /** Undefined until this process was told something that is at least as new as the file. */
  get here(): Position | undefined {
    return this.#here === this.claim ? this.#here : undefined;
  }

  get regressed(): string | undefined {
    return this.#regressed;
  }

  /**
   * A durable answer: the ledger holds what was claimed, and `position`, and is at `version`. True when the view
   * stands still behind that since the answer before: something on its way to it is lost, so it must be loaded.
   */
  confirm(position: Position, version: number): boolean {
    const stuck = position.version < version && position.version === this.#standsAt;
    this.#standsAt = position.version;
    this.sound();
    this.#confirmedAtMs = performance.now();
    if (this.#here === undefined || position.version >= this.#here.version) this.#here = position;
    return stuck;
  }

  /** What it means that the ledger has confirmed nothing for that long; undefined where it has. */
  silence(longestMs: number): string | undefined {
    if (performance.now() - this.#confirmedAtMs <= longestMs) return undefined;
    return 'ledger-silent: the ledger confirms nothing; writes go by what was last known of it';
  }

  sound(): void {
    if (this.#regressed === undefined) return;
    this.#regressed = undefined;
    this.#log('warn', 'ledger.restored', {});
  }

  lost(detail: string): void {
    if (this.#regressed === detail) return;
    this.#regressed = detail;
    this.#log('error', 'ledger.regressed', { detail });
  }
}
