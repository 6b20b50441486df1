import { describe, expect, test } from '@jest/globals';
import { bucketOf, murmur3, resolveCohort, selects } from '../../../src/core/cohort.ts';
import { waveSizes } from '../../../src/core/waves.ts';

describe('murmur3', () => {
  // From the reference implementation's published values, seed 0.
  test.each([
    ['', 0],
    ['test', 0xba6bd213],
    ['Hello, world!', 0xc0363e43],
    ['The quick brown fox jumps over the lazy dog', 0x2e4ff723],
  ])('of %j is the published value', (text, hash) => {
    expect(murmur3(text)).toBe(hash);
  });
});

describe('a cohort', () => {
  const known = Array.from({ length: 5_000 }, (_, at) => ({
    partition: `u${at}`,
    attributes: { seats: at, plan: at % 2 === 0 ? 'team' : 'pro' },
  }));

  test('by list is what the list says, once each and sorted, known or not', () => {
    expect(resolveCohort({ partitions: ['b', 'a', 'b'] }, [])).toEqual(['a', 'b']);
  });

  test('by percentage takes about that share, and growing it only adds', () => {
    const ten = resolveCohort({ percent: 10, salt: 's' }, known);
    const twenty = new Set(resolveCohort({ percent: 20, salt: 's' }, known));
    expect(ten.length).toBeGreaterThan(400);
    expect(ten.length).toBeLessThan(600);
    expect(ten.every((partition) => twenty.has(partition))).toBe(true);
    expect(ten.every((partition) => bucketOf(partition, 's') < 1_000)).toBe(true);
  });

  test('by percentage changes with the salt', () => {
    const one = resolveCohort({ percent: 10, salt: 's1' }, known);
    expect(resolveCohort({ percent: 10, salt: 's2' }, known)).not.toEqual(one);
  });

  test('by attribute takes what satisfies every condition', () => {
    const where = { seats: { gt: 10, lte: 14 }, plan: { in: ['team'] } };
    expect(resolveCohort({ where }, known)).toEqual(['u12', 'u14']);
    expect(selects({ where: { plan: 'pro' } }, 'u', { plan: 'pro' })).toBe(true);
    expect(selects({ where: { seats: { gt: 1 } } }, 'u', {})).toBe(false);
    expect(selects({ where: { seats: { ne: 1 } } }, 'u', {})).toBe(true);
  });
});

describe('waves', () => {
  test.each([
    [120, ['1', '10%', '100%'], [1, 11, 108]],
    [4, ['1', '10%', '100%'], [1, 3]],
    [0, ['1', '100%'], []],
    [10, ['50%'], [5, 5]],
    [3, ['10'], [3]],
  ])('of %d partitions by %j are %j', (total, waves, sizes) => {
    expect(waveSizes(total, waves)).toEqual(sizes);
  });
});
