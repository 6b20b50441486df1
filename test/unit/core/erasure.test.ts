import { describe, expect, test } from '@jest/globals';
import { decideErase, erasureAttempt, isBeingErased } from '../../../src/core/erasure.ts';
import type { Ownership } from '../../../src/core/ownership.ts';
import { decideCopy } from '../../../src/core/records.ts';

const attempt = erasureAttempt('one');
const fenced = (by: string): Ownership => ({
  ...{ phase: 'fenced', owner: 'app', to: 'legacy', epoch: 5, attempt: by, deadlineMs: 1 },
});
const others: readonly Ownership[] = [
  { phase: 'open', owner: 'legacy', epoch: 4 },
  { phase: 'committed', owner: 'app', epoch: 6, attempt },
  fenced('of a handoff'),
  fenced(erasureAttempt('two')),
];

describe('the exception to I3', () => {
  test('holds under the fence of this erasure alone, at its epoch', () => {
    expect(decideErase(fenced(attempt), attempt)).toEqual({ erase: 'yes', epoch: 5 });
    for (const ownership of others) expect(decideErase(ownership, attempt)).toMatchObject({ erase: 'no' });
    // Not even where a handoff and its attempt agree.
    expect(decideErase(fenced('of a handoff'), 'of a handoff')).toMatchObject({ erase: 'no' });
  });

  test('lets nobody copy meanwhile', () => {
    const hand = { hand: 'sync' } as const;
    expect(decideCopy(fenced(attempt), hand, ['legacy', 'app'])).toMatchObject({ copy: 'no' });
    expect(isBeingErased(fenced(attempt))).toBe(true);
    for (const ownership of others.slice(0, 3)) expect(isBeingErased(ownership)).toBe(false);
  });
});
