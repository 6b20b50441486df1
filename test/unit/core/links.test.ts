/** Partitions that are written together: who would be parted, and in which order they move. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { pairOf, pairsOf, partedBy, sideBySide, wholeWaves } from '../../../src/core/links.ts';
import { waveSizes } from '../../../src/core/waves.ts';

type Pairs = readonly (readonly [string, string])[];

function partnersIn(pairs: Pairs): (partition: string) => string[] {
  return (partition) =>
    pairs.flatMap(([one, other]) => (one === partition ? [other] : other === partition ? [one] : []));
}

function parted(moving: string[], pairs: Pairs, there: string[] = []): Record<string, readonly string[]> {
  const isThere = (partition: string): boolean => there.includes(partition);
  return Object.fromEntries(partedBy({ moving, partnersOf: partnersIn(pairs), isThere }));
}

test('a write joins each of its partitions with the first, whichever way round they are named', () => {
  expect(pairsOf(['u1'])).toEqual([]);
  expect(pairsOf(['u2', 'u1', 'u3'])).toEqual([
    ['u1', 'u2'],
    ['u2', 'u3'],
  ]);
  expect(pairOf('b', 'a')).toEqual(pairOf('a', 'b'));
});

describe('parted would be', () => {
  test('nobody whose partners move along or are there already', () => {
    expect(parted(['u1', 'u2'], [['u1', 'u2']])).toEqual({});
    expect(parted(['u1'], [['u1', 'u2']], ['u2'])).toEqual({});
    expect(parted(['u3'], [['u1', 'u2']])).toEqual({});
  });

  test('who leaves a partner behind, named with it', () => {
    expect(
      parted(
        ['u1', 'u3'],
        [
          ['u1', 'u2'],
          ['u1', 'u4'],
        ],
      ),
    ).toEqual({ u1: ['u2', 'u4'] });
  });

  test('who would go without somebody that must stay for this reason, however far away', () => {
    const chain: Pairs = [
      ['u1', 'u2'],
      ['u2', 'u3'],
      ['u3', 'u4'],
    ];
    expect(Object.keys(parted(['u1', 'u2', 'u3'], chain)).toSorted()).toEqual(['u1', 'u2', 'u3']);
  });
});

const name = fc.constantFrom(...'abcdefghijkl'.split(''));
const pairsArb = fc.array(
  fc.tuple(name, name).filter(([one, other]) => one !== other),
  { maxLength: 14 },
);
const some = fc.uniqueArray(name, { maxLength: 12 });

test('whoever still goes leaves nobody behind, and nobody stays without need', () => {
  fc.assert(
    fc.property(some, some, pairsArb, (moving, others, pairs) => {
      const there = others.filter((partition) => !moving.includes(partition));
      const stay = parted(moving, pairs, there);
      const goes = (partition: string): boolean => moving.includes(partition) && !(partition in stay);
      const together = (partition: string): boolean => goes(partition) || there.includes(partition);
      for (const partition of moving.filter(goes)) {
        expect(partnersIn(pairs)(partition).filter((partner) => !together(partner))).toEqual([]);
      }
      // What must stay is what can be reached from somebody who does, over partitions that would move.
      const stuck = new Set<string>();
      for (let found = true; found;) {
        found = false;
        for (const partition of moving) {
          const reaches = partnersIn(pairs)(partition).some(
            (partner) => stuck.has(partner) || (!moving.includes(partner) && !there.includes(partner)),
          );
          if (!reaches || stuck.has(partition)) continue;
          stuck.add(partition);
          found = true;
        }
      }
      expect(Object.keys(stay).toSorted()).toEqual([...stuck].toSorted());
    }),
  );
});

test('linked partitions stand side by side, and no wave ends among them', () => {
  const groupOf = (partition: string, pairs: Pairs): string => {
    const group = [partition];
    for (const one of group) {
      for (const partner of partnersIn(pairs)(one)) if (!group.includes(partner)) group.push(partner);
    }
    return group.toSorted().join('');
  };
  fc.assert(
    fc.property(
      some,
      pairsArb,
      fc.constantFrom(['1', '10%', '100%'], ['50%'], ['3']),
      (all, pairs, waves) => {
        const linked = pairs.filter((pair) => pair.every((one) => all.includes(one)));
        const ordered = sideBySide(all, partnersIn(linked));
        expect(ordered.toSorted()).toEqual(all.toSorted());
        const groups = ordered.map((partition) => groupOf(partition, linked));
        expect(groups.filter((group, at) => group !== groups[at - 1]).length).toBe(new Set(groups).size);
        const sizes = wholeWaves(waveSizes(all.length, waves), ordered, partnersIn(linked));
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(all.length);
        expect(sizes.every((size) => size > 0)).toBe(true);
        let end = 0;
        for (const size of sizes) {
          end += size;
          expect(groups[end]).not.toBe(groups[end - 1] ?? 'before the first');
        }
      },
    ),
  );
});

test('without links the order is that of the names, and waves are as ordered', () => {
  expect(sideBySide(['c', 'a', 'b'], () => [])).toEqual(['a', 'b', 'c']);
  expect(wholeWaves([1, 2, 3], 'abcdef'.split(''), () => [])).toEqual([1, 2, 3]);
});
