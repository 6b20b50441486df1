import { expect, test } from '@jest/globals';
import { failureOf } from '../../../src/stores/rest/answers.ts';

test.each([
  [{ 'retry-after': '7', 'ratelimit-reset': '30' }, 7_000],
  [{ 'ratelimit-reset': '30' }, 30_000],
  [{ ratelimit: '"default";r=0;t=12' }, 12_000],
  [{ ratelimit: '"default";r=0' }, 1_000],
  [{ 'ratelimit-reset': '999999999' }, 3_600_000],
  [{ 'ratelimit-reset': 'soon' }, 1_000],
  [{}, 1_000],
])('a 429 with %j is waited out', (headers, waitMs) => {
  const failure = failureOf('legacy', { method: 'GET', path: '/x' }, { status: 429, headers, text: '' }, 0);
  expect(failure).toMatchObject({ kind: 'rate-limited', retryAfterMs: waitMs });
});
