/** What one attempt does to a partition's right to write in the stores (core/freeze.ts), and when. */
import type { StoreFreezes } from '../core/freeze.ts';
import type { StoreName } from '../core/ownership.ts';
import { StoreFailure } from '../core/ports.ts';

/** How much longer the users of a partition that stays are held for its right to write to be given back, ms. */
const giveBackWithinMs = 1_000;

export class FenceFreeze {
  readonly #freezes: StoreFreezes | undefined;
  readonly #partition: string;
  readonly #from: StoreName;
  readonly #attempt: string;
  #frozen: Promise<void> | undefined;

  constructor(freezes: StoreFreezes | undefined, partition: string, from: StoreName, attempt: string) {
    this.#freezes = freezes;
    this.#partition = partition;
    this.#from = from;
    this.#attempt = attempt;
  }

  /**
   * Once, after every member has drained and before anything is read: what was admitted is through, and nobody can
   * add to it around the proxy. Throws as StoreFreezes does.
   */
  freeze(signal: AbortSignal): Promise<void> {
    this.#frozen ??=
      this.#freezes?.freeze(this.#from, this.#partition, this.#attempt, signal) ?? Promise.resolve();
    return this.#frozen;
  }

  /**
   * Before the commit, while it can still be undone: users must find a store that takes their writes. Throws as
   * StoreFreezes does, and StoreFailure after `withinMs`.
   */
  async thaw(to: StoreName, withinMs: number): Promise<void> {
    if (this.#freezes?.has(to) !== true) return;
    const signal = AbortSignal.timeout(Math.max(0, Math.ceil(withinMs)));
    const given = this.#freezes.unfreeze(to, this.#partition, this.#attempt, signal).then(() => true);
    if (await Promise.race([given, ended(signal)])) return;
    throw new StoreFailure(
      'unavailable',
      `${to} did not give the right to write back before the fence ended`,
    );
  }

  /** Before the partition is reopened where it was. Never rejects, and not for long: what is left is done afterwards. */
  async giveBack(): Promise<void> {
    if (this.#frozen === undefined || this.#freezes?.has(this.#from) !== true) return;
    const signal = AbortSignal.timeout(giveBackWithinMs);
    const given = this.#freezes.unfreeze(this.#from, this.#partition, this.#attempt, signal);
    await Promise.race([given.catch(() => undefined), ended(signal)]);
  }
}

function ended(signal: AbortSignal): Promise<false> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(false), { once: true }));
}
