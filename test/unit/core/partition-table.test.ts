import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Ownership } from '../../../src/core/ownership.ts';
import { PartitionTable } from '../../../src/core/partition-table.ts';

const store = fc.constantFrom('legacy' as const, 'app' as const);
const epoch = fc.oneof(fc.nat(20), fc.constantFrom(0, 65_535, 65_536, 4_000_000_000));
const ownership: fc.Arbitrary<Ownership> = fc.oneof(
  fc.record({ phase: fc.constant('open' as const), owner: store, epoch }),
  fc.record({
    ...{ phase: fc.constant('fenced' as const), owner: store, to: store, epoch },
    ...{ attempt: fc.string(), deadlineMs: fc.nat() },
  }),
  fc.record({ phase: fc.constant('committed' as const), owner: store, epoch, attempt: fc.string() }),
);
/** Few, so that many are set again; also empty, with every byte, and wider ones. */
const name = fc.oneof(
  fc.nat(60).map((number) => `user-${number}`),
  fc.constantFrom('', '\u0000', '\u00ff', 'é', 'e\u0301', '用户', '\ud83d\ude00', '\ud83d', 'constructor'),
  fc.string({ unit: 'binary', maxLength: 3 }),
);
const sets = fc.array(fc.tuple(name, ownership), { maxLength: 200 });

function filled(entries: readonly (readonly [string, Ownership])[]): PartitionTable {
  const table = new PartitionTable();
  for (const [partition, value] of entries) table.set(partition, value);
  return table;
}

function expectAlike(table: PartitionTable, map: ReadonlyMap<string, Ownership>): void {
  expect(table.size).toBe(map.size);
  expect(new Map(table.entries())).toEqual(map);
  for (const [partition, value] of map) {
    expect(table.has(partition)).toBe(true);
    expect(table.get(partition)).toEqual(value);
  }
}

describe('a table of partitions', () => {
  test('holds what a Map would hold, whatever the names and however often they are set', () => {
    fc.assert(
      fc.property(sets, name, (entries, asked) => {
        const table = filled(entries);
        const map = new Map(entries);
        expectAlike(table, map);
        expect(table.get(asked)).toEqual(map.get(asked));
        expect(table.has(asked)).toBe(map.has(asked));
      }),
      { numRuns: 500 },
    );
  });

  test('and its fork go separate ways, whichever of them changes', () => {
    fc.assert(
      fc.property(sets, sets, sets, (before, here, there) => {
        const table = filled(before);
        const twin = table.fork();
        for (const [partition, value] of here) table.set(partition, value);
        for (const [partition, value] of there) twin.set(partition, value);
        expectAlike(table, new Map([...before, ...here]));
        expectAlike(twin, new Map([...before, ...there]));
      }),
    );
  });

  test('finds each of a hundred thousand, and none that is not there', () => {
    const entries = Array.from({ length: 100_000 }, (_, number): [string, Ownership] => [
      `user-${number}`,
      { phase: 'open', owner: number % 2 === 0 ? 'app' : 'legacy', epoch: 1 + (number % 9) },
    ]);
    const table = filled(entries);
    const wrong = entries.filter(
      ([partition, value]) => table.get(partition)?.owner !== value.owner || table.has(`${partition}x`),
    );
    expect(wrong).toEqual([]);
    expect([...table.entries()]).toEqual(entries);
  });
});
