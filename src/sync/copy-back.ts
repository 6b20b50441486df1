/**
 * What a copy into the store that users have left must know besides: what stands there by our own hand. There somebody
 * may still work who goes around onewriter, so nothing is written over that we did not put there, or that was not there
 * at the handoff. What we write shows up in that store's lists and feeds, and must not be taken for somebody's change.
 *
 * Before a write the record counts as uncertain, and after it, once it was read back, as what was found: a store may
 * hold it differently than it was written. Whoever loses count in between leaves it uncertain: then the next copy
 * believes what was there before, and what was sent; anything else is somebody's change, or what the store made of ours,
 * and only somebody who looks can tell.
 */
import type { StoreName } from '../core/ownership.ts';
import { type RecordKey, StoreFailure, type WriteCondition } from '../core/ports.ts';
import type { CopyForm, StoreRecord } from '../core/records.ts';
import {
  isAsSent,
  ofKind,
  sentBack,
  type Sides,
  type Snapshot,
  snapshotDigest,
  type Snapshots,
} from './snapshots.ts';

/** Thrown where somebody else has changed the record; it is in the book of strays by then. */
export class StrayInTheWay extends StoreFailure {}

export interface FoundStray {
  readonly store: StoreName;
  readonly key: RecordKey;
  readonly epoch: number;
  readonly expected: string | undefined;
  readonly digest: string | undefined;
  readonly record: StoreRecord | undefined;
  readonly ownerRecord: StoreRecord | undefined;
}

/** The copy that is to be made, as its session knows it. */
export interface BackCopy {
  readonly key: RecordKey;
  readonly epoch: number;
  readonly sides: Sides;
  readonly ownerRecord: StoreRecord | undefined;
  /** What the handoff left there, loaded once by each session; undefined where nothing is known. */
  readonly snapshot: () => Promise<KnownSnapshot | undefined>;
}

export interface KnownSnapshot {
  readonly snapshot: Snapshot;
  /** What it belongs to, see Snapshots. */
  readonly memory: string;
}

export interface CopyBackParts {
  readonly snapshots: Snapshots;
  readonly tellStray: (found: FoundStray) => Promise<void>;
}

export class CopyBack {
  readonly store: StoreName;
  readonly #parts: CopyBackParts;

  constructor(store: StoreName, parts: CopyBackParts) {
    this.store = store;
    this.#parts = parts;
  }

  async snapshotOf(partition: string): Promise<KnownSnapshot | undefined> {
    const { snapshots } = this.#parts;
    const memory = await snapshots.memory();
    const snapshot = (await snapshots.load(this.store, [partition])).get(partition);
    return snapshot && { snapshot, memory };
  }

  /** The record is as the owner has it: what was uncertain is known again. */
  async same(copy: BackCopy, held: StoreRecord | undefined): Promise<void> {
    const known = await this.#parts.snapshots.copied(this.store, copy.key);
    if (known?.certain === false) await this.#note(copy, held);
  }

  /**
   * Call right before the write, with what was just read, and what is to be written; undefined: the record is to be
   * removed. Throws StrayInTheWay.
   */
  async begin(
    copy: BackCopy,
    held: StoreRecord | undefined,
    form: CopyForm | undefined,
  ): Promise<WriteCondition | undefined> {
    const { key, epoch, ownerRecord, sides } = copy;
    const digest = this.#digestOf(copy, held);
    const loaded = await copy.snapshot();
    const known = await this.#parts.snapshots.copied(this.store, key);
    const stands = known === undefined && loaded?.memory === (await this.#parts.snapshots.memory());
    const snapshot = stands ? loaded?.snapshot : undefined;
    const expected = known === undefined ? ofKindOf(snapshot, key) : known.digest;
    const isKnown = known !== undefined || snapshot !== undefined;
    const isOurs = known?.sent !== undefined && isAsSent(known.sent, held, key.partition, sides);
    if (isKnown && expected !== digest && !isOurs) {
      const found = { store: this.store, key, epoch, expected, digest, record: held, ownerRecord };
      await this.#parts.tellStray(found);
      const { kind, id } = key;
      throw new StrayInTheWay(
        'rejected',
        `${kind} ${id} was changed in ${this.store}, which does not own it, so it was not written over: ` +
          'look at it with "strays list", and say with "strays resolve" what became of it',
      );
    }
    await this.#parts.snapshots.uncertain(this.store, key, digest, sentBack(form, sides.left));
    if (held === undefined) return 'absent';
    return held.version === undefined ? undefined : { version: held.version };
  }

  /** Nothing was written: the record is what it was. */
  unchanged(copy: BackCopy, held: StoreRecord | undefined): Promise<void> {
    return this.#note(copy, held);
  }

  /** What became of the write; where that cannot be read, the record stays uncertain. */
  async readBack(copy: BackCopy, signal: AbortSignal): Promise<StoreRecord | undefined | 'unread'> {
    const { kind, id, partition } = copy.key;
    try {
      const held = await copy.sides.left.get(kind, { id, partition }, signal);
      await this.#note(copy, held);
      return held;
    } catch (error) {
      if (error instanceof StoreFailure) return 'unread';
      throw error;
    }
  }

  #note(copy: BackCopy, held: StoreRecord | undefined): Promise<void> {
    return this.#parts.snapshots.note(this.store, copy.key, this.#digestOf(copy, held));
  }

  #digestOf({ key, sides }: BackCopy, held: StoreRecord | undefined): string | undefined {
    return snapshotDigest(held, key.partition, sides);
  }
}

function ofKindOf(snapshot: Snapshot | undefined, { kind, id }: RecordKey): string | undefined {
  return snapshot === undefined ? undefined : ofKind(snapshot, kind).get(id);
}
