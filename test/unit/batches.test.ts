import { describe, expect, test } from '@jest/globals';
import { inBatches } from '../../src/batches.ts';

describe('inBatches', () => {
  test('gives all items in order, the rest in a smaller batch, and never an empty one', () => {
    expect([...inBatches([1, 2, 3, 4, 5], 2)]).toEqual([[1, 2], [3, 4], [5]]);
    expect([...inBatches([1, 2, 3, 4], 2)]).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect([...inBatches([], 2)]).toEqual([]);
  });

  test('takes no more than the batch that is asked for, and ends what it takes from', () => {
    let taken = 0;
    let ended = false;
    function* numbers(): Generator<number> {
      try {
        for (;;) yield (taken += 1);
      } finally {
        ended = true;
      }
    }
    for (const batch of inBatches(numbers(), 3)) {
      expect(batch).toEqual([1, 2, 3]);
      break;
    }
    expect(taken).toBe(3);
    expect(ended).toBe(true);
  });
});
