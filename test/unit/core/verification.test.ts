import { describe, expect, test } from '@jest/globals';
import { confidenceOf, sampleOf, shownValue } from '../../../src/core/verification.ts';

describe('the bound of a sample', () => {
  test('without a difference it is the rule of three', () => {
    expect(confidenceOf(300, 0).atMost).toBeCloseTo(1 - 0.05 ** (1 / 300), 9);
    expect(confidenceOf(300, 0).atMost).toBeLessThan(3 / 300);
  });

  // qbeta(0.95, k + 1, n - k) in R.
  test.each([
    [10, 1, 0.394163],
    [100, 2, 0.06162],
    [20, 19, 0.997439],
  ])('of %i with %i different', (compared, differing, atMost) => {
    expect(confidenceOf(compared, differing).atMost).toBeCloseTo(atMost, 4);
  });

  test('says nothing where nothing, or everything, differed', () => {
    expect(confidenceOf(0, 0).atMost).toBe(1);
    expect(confidenceOf(5, 5).atMost).toBe(1);
  });

  test('can be told for large samples', () => {
    const { atMost } = confidenceOf(100_000, 1_000);
    expect(atMost).toBeGreaterThan(0.01);
    expect(atMost).toBeLessThan(0.011);
  });
});

describe('a sample', () => {
  const names = Array.from({ length: 50 }, (_, at) => `p${at}`);

  test('is the same for the same seed, in whatever order the names come, and another for another', () => {
    expect(sampleOf(names.toReversed(), 10, 5)).toEqual(sampleOf(names, 10, 5));
    expect(sampleOf(names, 10, 6)).not.toEqual(sampleOf(names, 10, 5));
    expect(new Set(sampleOf(names, 10, 5)).size).toBe(10);
    expect(sampleOf(names, 80, 5)).toHaveLength(50);
  });

  test('takes every name about as often', () => {
    const taken = new Map<string, number>();
    for (let seed = 0; seed < 1_000; seed += 1) {
      for (const name of sampleOf(names, 10, seed)) taken.set(name, (taken.get(name) ?? 0) + 1);
    }
    // 200 expected, 12.6 the standard deviation: six of them off is one in a billion.
    for (const name of names) expect(Math.abs((taken.get(name) ?? 0) - 200)).toBeLessThan(76);
  });
});

test('a value is cut, and an absent one is said to be none', () => {
  expect(shownValue(undefined)).toBe('(none)');
  expect(shownValue('a'.repeat(500))).toHaveLength(201);
  expect(shownValue({ a: [1] })).toBe('{"a":[1]}');
});
