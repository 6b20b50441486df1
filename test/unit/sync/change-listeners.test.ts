import { expect, test } from '@jest/globals';
import type { Ownership } from '../../../src/core/ownership.ts';
import type { RecordKey } from '../../../src/core/ports.ts';
import type { ChangeHearer } from '../../../src/stores/open.ts';
import { ChangeListeners } from '../../../src/sync/change-listeners.ts';

test('what a store tells rings only for partitions that it owns, and a gap asks for a look', async () => {
  const rung: RecordKey[] = [];
  let looks = 0;
  const hearers: ChangeHearer[] = [];
  const listen = (hears: ChangeHearer) => {
    hearers.push(hears);
    return { start: () => undefined, stop: async () => undefined };
  };
  const open = (owner: 'legacy' | 'app'): Ownership => ({ phase: 'open', owner, epoch: 4 });
  const known = new Map([['moved', open('app')]]);
  const listeners = new ChangeListeners({
    stores: [{ store: 'legacy', listen }, { store: 'app', listen }, { store: 'app' }],
    ring: async (records) => void rung.push(...records),
    ownershipOf: (partition) => known.get(partition),
    poll: async () => void (looks += 1),
    log: () => undefined,
  });
  listeners.start();
  for (const [at, store] of ['legacy', 'app'].entries()) {
    for (const partition of ['moved', 'untouched']) {
      hearers[at]?.onNotice({ partition, kind: 'note', id: `from ${store}` });
    }
  }
  hearers[0]?.onGap();
  await listeners.stop();
  expect(rung.map(({ partition, id }) => `${partition} ${id}`)).toEqual([
    'untouched from legacy',
    'moved from app',
  ]);
  expect(looks).toBe(1);
});
