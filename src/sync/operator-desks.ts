/** Dead letters and brakes as operators see them. */
import { type Backlog, wholePartition } from './backlog.ts';
import type { BrakeOnAll } from './brake-on-all.ts';
import type { Brakes, DeleteBrake } from './brakes.ts';
import type { DeadLetter, DeadLetters } from './dead-letters.ts';

export interface DeadLetterDesk {
  total(): Promise<number>;
  /** Oldest first. */
  list(): Promise<DeadLetter[]>;
  /** Rings for the record again; its letter stays until it was copied. Undefined when there is no such letter. */
  retry(letter: string): Promise<DeadLetter | undefined>;
  /** Takes it off the list, copied or not. */
  discard(letter: string): Promise<DeadLetter | undefined>;
}

export interface BrakeDesk {
  /** Oldest first. */
  list(): Promise<DeleteBrake[]>;
  /** Agrees to the deletes and rings the partition; undefined where nothing is held back. */
  release(partition: string): Promise<DeleteBrake | undefined>;
  /** The brake on all partitions together; undefined while it holds nothing back. */
  onAll(): Promise<BrakeOnAll | undefined>;
  /** Agrees to its deletes; the next full pass finds them. */
  releaseAll(): Promise<BrakeOnAll | undefined>;
}

export function brakeDesk(brakes: Brakes, backlog: Backlog): BrakeDesk {
  return {
    list: () => brakes.list(),
    release: async (partition) => {
      const released = await brakes.release(partition);
      if (released !== undefined) await backlog.ringEach([wholePartition(partition)]);
      return released;
    },
    onAll: () => brakes.onAll.holding(),
    releaseAll: () => brakes.onAll.release(),
  };
}

export function deadLetterDesk(letters: DeadLetters, backlog: Backlog): DeadLetterDesk {
  return {
    total: () => letters.total(),
    list: () => letters.list(),
    discard: (letter) => letters.discard(letter),
    retry: async (name) => {
      const found = await letters.find(name);
      if (found === undefined) return undefined;
      const { partition, kind, id } = found;
      await backlog.ringEach([{ partition, kind, id }]);
      return found;
    },
  };
}
