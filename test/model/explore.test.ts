import { describe, expect, test } from '@jest/globals';
import { exploreApart } from './program.ts';
import { scenarios } from './scenarios.ts';

/** Enough for most scenarios to their end; `scripts/simulate --explore` goes on where this stops. */
const statesMax = 50_000;

describe('in every order of events no invariant is broken:', () => {
  test.each(scenarios)(
    '$name: $about',
    async ({ name, statesAtLeast }) => {
      const found = await exploreApart({ scenario: name, states: statesMax });
      expect({ violation: found.violation, trace: found.trace }).toEqual({ trace: [] });
      expect(found.complete || found.states >= statesMax).toBe(true);
      expect(found.states).toBeGreaterThanOrEqual(Math.min(statesMax, statesAtLeast));
    },
    240_000,
  );
});
