import { expect, test } from '@jest/globals';
import type { CopyWriter } from '../../../src/core/ports.ts';
import { makeWriters } from '../../../src/sync/writers.ts';

test('no writer for legacy is constructed without a rollback window', () => {
  const made: string[] = [];
  const storeNamed = (name: 'legacy' | 'app') => ({
    makeWriter: (): CopyWriter => {
      made.push(name);
      return {
        store: name,
        put: () => Promise.resolve(),
        remove: () => Promise.resolve(),
        bulk: () => undefined,
        putMany: () => Promise.resolve({ written: new Set(), mayStillHappen: false }),
      };
    },
  });
  const stores = { legacy: storeNamed('legacy'), app: storeNamed('app') };
  for (const off of ['off', false] as const) {
    expect([...makeWriters(stores, off).keys()]).toEqual(['app']);
  }
  expect(made).toEqual(['app', 'app']);
  for (const on of ['on', true] as const) {
    expect([...makeWriters(stores, on).keys()]).toEqual(['app', 'legacy']);
  }
});
