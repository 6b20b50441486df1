import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { exploreMutant, mutants } from './mutants.ts';

/** A mutant that hides behind more states than this is not found. */
const statesMax = 400_000;

describe('without this rule the exploration finds a violation, and shows the shortest way there:', () => {
  test.each(mutants)(
    '$name',
    async (mutant) => {
      const { violation, trace } = await exploreMutant(mutant, statesMax);
      expect(violation?.invariant).toMatch(/^(I\d|stuck)$/);
      expect(trace.length).toBeGreaterThan(3);
    },
    240_000,
  );
});

test('the tests that keep the rules outside of the core are there', () => {
  const named = mutants.flatMap(({ enforcedIn }) => (enforcedIn === undefined ? [] : [enforcedIn]));
  const lost = named.filter(({ file, title }) => !readFileSync(file, 'utf8').includes(title));
  expect(lost).toEqual([]);
  expect(named.length).toBeGreaterThan(5);
});
