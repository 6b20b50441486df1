/** A write whose partitions' homes nobody knows sets about finding them; what comes of it wakes the write. */
import type { Failure } from '../core/failure.ts';
import type { Homes } from '../core/homes.ts';
import { nobodyKnowsIt } from './admit-trouble.ts';

export interface HomesWait {
  readonly homes: Homes;
  /** The write says who it acts for. */
  readonly identified: boolean;
  readonly bug: (error: unknown) => void;
  readonly refuse: (failure: Failure) => void;
  /** Where they live cannot be told at the moment. */
  readonly giveUp: () => void;
}

export function settleHomes(
  { homes, identified, bug, refuse, giveUp }: HomesWait,
  names: readonly string[],
): void {
  for (const partition of names.filter((name) => !homes.known(name))) {
    if (identified) {
      homes.settle(partition);
      continue;
    }
    // Who does not say who they are begins no partition, in either store: anybody could claim or register names.
    homes
      .find(partition)
      .then(({ home }) => {
        switch (home) {
          case 'known':
            // Nothing begins with it: it ends what somebody else began, and the gate wakes the write.
            homes.settle(partition);
            return;
          case 'new':
          case 'taken-for-old':
            refuse(nobodyKnowsIt);
            return;
          case 'no-answer':
            giveUp();
        }
      })
      .catch(bug);
  }
}
