/** What no rule is for is found quickly, and never takes a path from a rule that is for it in any reading. */
import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { compileRoutes, type RouteRule } from '../../../src/core/route.ts';

const segment = fc.constantFrom(
  ...[
    'notes',
    'Notes',
    'NOTES',
    'no%74es',
    'notes;a=b',
    '',
    '.',
    'x',
    ':id',
    'a%2Fb',
    'notes%5Cx',
    'notes\\x',
  ],
  ...[
    '\xe9',
    '%zz',
    '*',
    'logout',
    'notes.json',
    'NOTES.x.json',
    'x.y',
    '.notes',
    '%ffnotes',
    'notes%2ejson',
  ],
);
const rulePath = fc
  .array(fc.constantFrom('notes', 'Notes', 'logout', ':id', 'x', 'no%74es', 'a;b'), { maxLength: 3 })
  .chain((parts) => fc.constantFrom(`/${parts.join('/')}`, `/${[...parts, '*'].join('/')}`));
const rule: fc.Arbitrary<RouteRule> = fc.record(
  {
    path: rulePath,
    access: fc.constantFrom('read' as const, 'write' as const),
    store: fc.constantFrom('legacy' as const, 'app' as const),
  },
  { requiredKeys: ['path'] },
);
const endings = fc.constantFrom(undefined, [], ['json'], ['*']);
const path = fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join('/')}`);

test('a rule for anything, which never matches, changes nothing', () => {
  // With it, no path begins like none of the rules, so that every path is looked at whole.
  const whole: RouteRule = { path: '/:any', methods: ['NEVER'] };
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 4 }), path, endings, (rules, path, endings) => {
      const options = { partitionParameters: ['id'], endings };
      const seen = { method: 'GET', path, query: '' };
      expect(compileRoutes(rules, options)(seen)).toEqual(compileRoutes([...rules, whole], options)(seen));
    }),
    { numRuns: 5_000 },
  );
});
