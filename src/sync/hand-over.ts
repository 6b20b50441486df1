/** What is noted of a partition while its copy is proven under a fence. */
import { otherStore, type StoreName } from '../core/ownership.ts';
import { type Ledger, StoreFailure, type StoreReader } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';
import type { HandedOver } from './desk.ts';
import { leftStore, type RollbackWindow } from './rollback-window.ts';
import { snapshotOf, type Snapshots } from './snapshots.ts';

/** A handoff that cannot keep its snapshot is tried again: an older one would take its own changes for strays. */
export function takeSnapshots(
  snapshots: Snapshots,
  ledger: Pick<Ledger, 'read'>,
  readers: Readonly<Record<StoreName, StoreReader>>,
  window: RollbackWindow | undefined,
): HandedOver {
  return async (partition, records) => {
    try {
      const { owner } = (await ledger.read(partition)).ownership;
      // Nobody looks for strays in the other one: it is copied to again.
      if (owner !== leftStore) return;
      await window?.reopen(partition);
      const sides = { left: readers[owner], owner: readers[otherStore(owner)] };
      await snapshots.save(owner, partition, snapshotOf(records, partition, sides));
    } catch (cause) {
      const what = `what ${partition} held could not be noted in Redis: ${sentenceOf(cause)}`;
      throw new StoreFailure('unavailable', what, { cause });
    }
  };
}
