/** The figures that benchmarks report. */
import { describe, expect, test } from '@jest/globals';
import { median, pairedMedian, quantile, slope } from '../../../bench/statistics.ts';

describe('a quantile', () => {
  const hundred = Array.from({ length: 100 }, (_, at) => at + 1);

  test('is the smallest value that so many are not above', () => {
    expect(quantile(hundred, 0.5)).toBe(50);
    expect(quantile(hundred, 0.99)).toBe(99);
    expect(quantile(hundred, 1)).toBe(100);
    expect(quantile(hundred, 0)).toBe(1);
    expect(quantile([1, 2, 3], 0.5)).toBe(2);
    expect(quantile([7], 0.99)).toBe(7);
  });

  test('of nothing is 0', () => {
    expect(quantile([], 0.5)).toBe(0);
  });
});

describe('a median', () => {
  test('is the middle, in whatever order, or between the two in the middle', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([10, 9, 1, 100])).toBe(9.5);
    expect(median([5])).toBe(5);
  });

  test('of nothing is not a number', () => {
    expect(median([])).toBeNaN();
  });
});

describe('a paired median', () => {
  const ratio = (mine: number, other: number): number => mine / other;

  test('compares within a round: a slow round slows both', () => {
    // Twice as fast in every round; the medians of each side alone would say otherwise.
    expect(pairedMedian([200, 20, 400], [100, 10, 200], ratio)).toBe(2);
    expect(pairedMedian([10, 90, 100], [20, 30, 1_000], ratio)).toBe(0.5);
  });

  test('takes only rounds that both have', () => {
    expect(pairedMedian([4, 1], [2], ratio)).toBe(2);
    expect(pairedMedian([4], [], ratio)).toBeNaN();
  });
});

describe('a slope', () => {
  test('is the change for each step', () => {
    expect(slope([0, 1, 2, 3].map((x) => ({ x, y: 5 + 2 * x })))).toBeCloseTo(2);
    expect(slope([0, 1, 2].map((x) => ({ x, y: 7 })))).toBe(0);
    expect(
      slope([
        { x: 0, y: 4 },
        { x: 1, y: 1 },
        { x: 2, y: 1 },
      ]),
    ).toBeCloseTo(-1.5);
  });

  test('of points at one place is 0', () => {
    expect(
      slope([
        { x: 1, y: 1 },
        { x: 1, y: 9 },
      ]),
    ).toBe(0);
    expect(slope([])).toBe(0);
  });
});
