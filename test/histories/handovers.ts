/** Handoffs of single partitions, step by step as the coordinator orders them, while their users' writes wait. */
import type { Ownership } from '../../src/core/ownership.ts';
import type { SyncRig } from '../support/sync.ts';
import type { Stage, StoreName } from './stage.ts';
import type { Family } from './truth.ts';
import type { Side } from './words.ts';

export class Handovers {
  readonly #stage: Stage;
  /** What the processes have heard of owners. */
  readonly #heard: Map<string, Ownership>;
  readonly #heardLater = new Map<string, Ownership>();
  /** Resolves when the handoff that holds the partition's writes has ended. */
  readonly #held = new Map<string, Promise<void>>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(stage: Stage, heard: Map<string, Ownership>) {
    this.#stage = stage;
    this.#heard = heard;
  }

  /** To the other store; back only where copies go back. Does not wait for its end. */
  start(family: Family, side: Side, ends: 'commit' | 'abort'): void {
    const partition = family.partition(side);
    const to: StoreName = family.owners[side] === 'app' ? 'legacy' : 'app';
    if (this.#running.has(partition) || (to === 'legacy' && !this.#stage.program.window)) return;
    const handoff = this.#handOver(family, side, to, ends).finally(() => this.#running.delete(partition));
    this.#running.set(partition, handoff);
  }

  /** Writes of a partition that is under a fence wait, as they do in the proxy. */
  async untilFree(family: Family, sides: readonly Side[]): Promise<void> {
    for (;;) {
      const held = sides
        .map((side) => this.#held.get(family.partition(side)))
        .filter((one) => one !== undefined);
      if (held.length === 0) return;
      await Promise.all(held);
    }
  }

  /** Now all have heard of everything. */
  spread(): void {
    for (const [partition, ownership] of this.#heardLater) this.#heard.set(partition, ownership);
    this.#heardLater.clear();
  }

  async ended(): Promise<void> {
    await Promise.allSettled(this.#running.values());
  }

  async #handOver(family: Family, side: Side, to: StoreName, ends: 'commit' | 'abort'): Promise<void> {
    const { rig } = this.#stage;
    const partition = family.partition(side);
    const { desk } = rig.sync;
    const attempt = `attempt ${this.#stage.number()}`;
    try {
      await desk.bringUp(partition, AbortSignal.timeout(10_000));
    } catch {
      this.#stage.count('handoff refused');
      return;
    }
    const hold = Promise.withResolvers<void>();
    this.#held.set(partition, hold.promise);
    try {
      await this.#order(partition, { kind: 'fence', to, attempt, fenceMs: 60_000 });
      const proven = await desk.catchUp(partition, attempt, AbortSignal.timeout(5_000)).then(
        () => true,
        () => false,
      );
      if (!proven || ends === 'abort') {
        await this.#order(partition, { kind: 'abort', attempt });
        this.#stage.count(proven ? 'handoff aborted' : 'handoff not proven');
        return;
      }
      family.move(side, to);
      await this.#order(partition, { kind: 'commit', attempt });
      await this.#order(partition, { kind: 'release', attempt });
      this.#stage.count(`handoff to ${to}`);
    } finally {
      this.#held.delete(partition);
      hold.resolve();
    }
  }

  async #order(partition: string, order: Parameters<SyncRig['order']>[1]): Promise<void> {
    const { rig, random } = this.#stage;
    await rig.order(partition, order);
    const { ownership } = await rig.ledger.read(partition);
    // Some hear of it at once, some later.
    if (random.next() < 0.5) this.#heard.set(partition, ownership);
    else this.#heardLater.set(partition, ownership);
  }
}
