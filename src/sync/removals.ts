/** Whether copies may be removed that their owner has no more: the brakes are asked, and the ledger. */
import { otherStore, type StoreName } from '../core/ownership.ts';
import { type Ledger, StoreFailure } from '../core/ports.ts';
import type { CopyHand, StoreRecord } from '../core/records.ts';
import type { Brakes, HeldBack } from './brakes.ts';
import { SessionOver } from './may-copy.ts';
import type { RecordName } from './needed.ts';

export interface RemovalParts {
  readonly brakes: Pick<Brakes, 'mayRemove' | 'mayRemoveAll' | 'onAll'>;
  readonly ledger: Pick<Ledger, 'read'>;
}

/** Of one session. */
export class Removals {
  readonly #parts: RemovalParts;
  readonly #partition: string;
  readonly #from: StoreName;
  readonly #hand: CopyHand;
  /** Those that the brake has let through together. */
  readonly #allowed = new Set<string>();

  constructor(parts: RemovalParts, partition: string, from: StoreName, hand: CopyHand) {
    this.#parts = parts;
    this.#partition = partition;
    this.#from = from;
    this.#hand = hand;
  }

  /**
   * Asks once for all deletes of a pass, before any of them is applied; `held` names what the copy holds. Returns
   * what holds them back: then none of them may be applied.
   */
  async askForAll(
    keys: readonly RecordName[],
    held: ReadonlyMap<string, unknown>,
  ): Promise<HeldBack | undefined> {
    const deletes = keys.map(({ kind, id }) => ({ partition: this.#partition, kind, id }));
    const { brakes } = this.#parts;
    const [brake] = await Promise.all([
      brakes.mayRemoveAll(this.#partition, deletes, held.size, otherStore(this.#from)),
      // For this, too, a fence has no time.
      this.#hand.hand === 'sync' ? brakes.onAll.seen(held.keys()) : undefined,
    ]);
    if (brake === undefined) for (const key of keys) this.#allowed.add(nameOf(key));
    return brake;
  }

  /**
   * May this copy be removed, of which the owner has said that it is gone, or what it is now? `pass`: only a pass over
   * the partition can tell.
   */
  async may(key: RecordName, ownerRecord: StoreRecord | undefined): Promise<'yes' | 'no' | 'pass'> {
    const isGone = ownerRecord === undefined || ownerRecord.deleted;
    if (!isGone) await this.#ensureStays(key, ownerRecord.partition);
    if (this.#allowed.has(nameOf(key))) return 'yes';
    const { kind, id } = key;
    const answer = await this.#parts.brakes.mayRemove(
      { partition: this.#partition, kind, id },
      otherStore(this.#from),
    );
    // Whoever must read the record again does not count twice.
    if (answer === 'yes') this.#allowed.add(nameOf(key));
    return answer;
  }

  /** A record that has left for a partition which is not copied from here would be in no copy any more. */
  async #ensureStays({ kind, id }: RecordName, newPartition: string): Promise<void> {
    const { ownership } = await this.#parts.ledger.read(newPartition);
    if (ownership.phase !== 'open') {
      const because = `${kind} ${id} now belongs to another partition, which is being moved`;
      throw new SessionOver({ copied: 'no', because, when: 'later' });
    }
    if (ownership.owner === this.#from) return;
    throw new StoreFailure(
      'rejected',
      // Without its name: nobody would find it here when that one is erased.
      `${this.#from} shows ${kind} ${id} for another partition, which ${ownership.owner} owns; the copy for ` +
        `${this.#partition} was left alone: bring the record back, or make it in ${ownership.owner} and delete it here`,
    );
  }
}

function nameOf({ kind, id }: RecordName): string {
  return `${kind}\n${id}`;
}
