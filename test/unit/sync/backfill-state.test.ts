/** How fast a first copy is, and when it should end. */
import { expect, test } from '@jest/globals';
import { type BackfillState, endOf, withRate } from '../../../src/sync/backfill-state.ts';

const begun: BackfillState = {
  ...{ phase: 'copying', records: 0, written: 0, total: 10_000, startedMs: 1_000, restarts: 0 },
  rateFrom: { ms: 1_000, records: 0 },
};

test('the rate is taken over some seconds, and half of what was known before stays', () => {
  expect(withRate({ ...begun, records: 500 }, 3_000).rate).toBeUndefined();
  const first = withRate({ ...begun, records: 1_000 }, 11_000);
  expect(first.rate).toBe(100);
  const second = withRate({ ...first, records: 4_000 }, 21_000);
  expect(second.rate).toBe(200);
  expect(withRate({ ...second, records: 0 }, 31_000).rate).toBe(100);
});

test('the end is expected from the rate and the total, and told when it has come', () => {
  const state = withRate({ ...begun, records: 1_000 }, 11_000);
  expect(endOf(state)).toBe(11_000 + 90_000);
  expect(endOf({ ...state, total: undefined })).toBeUndefined();
  expect(endOf({ ...state, phase: 'looking' })).toBeUndefined();
  expect(endOf({ ...state, rate: 0 })).toBeUndefined();
  expect(endOf({ ...state, phase: 'done', endedMs: 50_000 })).toBe(50_000);
});
