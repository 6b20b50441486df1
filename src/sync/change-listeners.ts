/** Rings for the records of which a store itself tells that they have changed, while a worker listens. */
import { isBeingErased } from '../core/erasure.ts';
import type { Ownership, StoreName } from '../core/ownership.ts';
import type { RecordKey } from '../core/ports.ts';
import type { Log } from '../log.ts';
import type { ChangeListener, OpenStore } from '../stores/open.ts';
import { BatchingDoorbell } from './doorbell.ts';

export interface ListenerParts {
  readonly stores: readonly Pick<OpenStore, 'store' | 'listen'>[];
  readonly ring: (records: readonly RecordKey[]) => Promise<void>;
  /** As far as this process has heard. */
  readonly ownershipOf: (partition: string) => Ownership | undefined;
  /** Asks for a look at everything that may have changed. */
  readonly poll: () => Promise<void>;
  readonly log: Log;
}

export class ChangeListeners {
  readonly #listeners: readonly { readonly listener: ChangeListener; readonly bell: BatchingDoorbell }[];

  constructor(parts: ListenerParts) {
    this.#listeners = parts.stores.flatMap(({ store, listen }) => {
      if (listen === undefined) return [];
      const bell = new BatchingDoorbell({
        ringRecords: (records) => parts.ring(owned(parts, store, records)),
        onFailure: (error, records) =>
          parts.log('warn', 'sync.doorbell-failed', { records, detail: String(error) }),
      });
      const listener = listen({
        onNotice: (record) => bell.ring(record),
        onGap: () => void parts.poll().catch(() => undefined), // the next poll comes by itself
        onLost: (detail) => parts.log('warn', 'sync.not-listening', { store, detail }),
      });
      return [{ listener, bell }];
    });
  }

  start(): void {
    for (const { listener } of this.#listeners) listener.start();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#listeners.map(({ listener }) => listener.stop()));
    await Promise.all(this.#listeners.map(({ bell }) => bell.close()));
  }
}

/** A store tells of the copies made in it, too: only what its owner tells is worth a look. */
function owned(
  { ownershipOf }: ListenerParts,
  store: StoreName,
  records: readonly RecordKey[],
): readonly RecordKey[] {
  return records.filter(({ partition }) => {
    const ownership = ownershipOf(partition);
    return (ownership?.owner ?? 'legacy') === store && !isBeingErased(ownership);
  });
}
