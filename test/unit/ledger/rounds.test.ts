import { describe, expect, test } from '@jest/globals';
import { Rounds } from '../../../src/ledger/rounds.ts';

/** Questions that the test answers by hand; each holds how to answer it. */
function asked() {
  const open: { answer: (value: number) => void; fail: () => void }[] = [];
  const rounds = new Rounds(
    () =>
      new Promise<number>((resolve, reject) => {
        open.push({ answer: resolve, fail: () => reject(new Error('away')) });
      }),
  );
  return { open, rounds };
}

describe('a shared question', () => {
  test('is asked at once where nobody is asking', async () => {
    const { open, rounds } = asked();
    const answer = rounds.answer();
    open[0]?.answer(1);
    expect(await answer).toBe(1);
  });

  test('is never answered by what was asked before it; who comes meanwhile shares the next', async () => {
    const { open, rounds } = asked();
    const first = rounds.answer();
    const late = [rounds.answer(), rounds.answer()];
    expect(open).toHaveLength(1);
    open[0]?.answer(1);
    expect(await first).toBe(1);
    await Promise.resolve();
    expect(open).toHaveLength(2);
    open[1]?.answer(2);
    expect(await Promise.all(late)).toEqual([2, 2]);
  });

  test('that failed fails for those who shared it, and the next is asked all the same', async () => {
    const { open, rounds } = asked();
    const first = rounds.answer();
    const second = rounds.answer();
    open[0]?.fail();
    await expect(first).rejects.toThrow('away');
    await Promise.resolve();
    open[1]?.answer(2);
    expect(await second).toBe(2);
  });
});
