import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { Json } from '../../../src/core/records.ts';
import { isInexact, parseExactly } from '../../../src/stores/rest/exact-json.ts';
import { cutBelow, isDeeperThan, nestingMax } from '../../../src/stores/rest/nesting.ts';

const lists = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);

test('depth is told of lists and objects alike, however deep they are', () => {
  const deep = (text: string, most: number): boolean => isDeeperThan(JSON.parse(text) as Json, most);
  expect(deep('"text"', 0)).toBe(false);
  expect(deep('[1,{"a":null}]', 2)).toBe(false);
  expect(deep('[1,{"a":[]}]', 2)).toBe(true);
  expect(deep(lists(nestingMax), nestingMax)).toBe(false);
  expect(deep(lists(nestingMax + 1), nestingMax)).toBe(true);
  expect(deep(lists(1_000_000), nestingMax)).toBe(true);
});

test('what is cut is only what stands too deep', () => {
  expect(cutBelow('{"a":[1,{"b":[2]},"]\\"[["],"c":[[3]],"d":4}', 2)).toBe(
    '{"a":[1,{},"]\\"[["],"c":[[]],"d":4}',
  );
  const json = fc.json({ maxDepth: 6, stringUnit: 'grapheme' });
  fc.assert(
    fc.property(json, fc.integer({ min: 1, max: 4 }), (text, most) => {
      const cut = cutBelow(text, most);
      const isDeep = isDeeperThan(JSON.parse(text) as Json, most);
      if (!isDeep) expect(JSON.parse(cut)).toEqual(JSON.parse(text));
      expect(isDeeperThan(JSON.parse(cut) as Json, most)).toBe(isDeep);
      expect(isDeeperThan(JSON.parse(cut) as Json, most + 1)).toBe(false);
    }),
  );
});

test('numbers of the other records are looked at although one is nested without end', () => {
  const text = `[{"deep":${lists(100_000)},"n":1},{"id":9007199254740997},{"id":9007199254740996}]`;
  const items = parseExactly(text) as (object & Json)[];
  expect(items.map(isInexact)).toEqual([false, true, false]);
  expect(items.map((item) => isDeeperThan(item, nestingMax))).toEqual([true, false, false]);
  expect(() => parseExactly(`[1234567890123456,${'['.repeat(1_000)}!${']'.repeat(1_000)}]`)).toThrow(
    SyntaxError,
  );
});
