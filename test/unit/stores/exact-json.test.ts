import { expect, test } from '@jest/globals';
import { isInexact, parseExactly } from '../../../src/stores/rest/exact-json.ts';

function inexactItems(text: string): boolean[] {
  return (parseExactly(text) as object[]).map(isInexact);
}

test('a number that a double cannot hold marks the record that has it, and no other', () => {
  expect(
    inexactItems(
      '[{"id":9007199254740997},{"id":9007199254740996},{"a":{"b":[1234567890123456789]}},{"n":1e400}]',
    ),
  ).toEqual([true, false, true, true]);
});

test('numbers that are kept are left alone, also in long notations of one double', () => {
  expect(
    inexactItems(
      '[{"a":0.10000000000000001},{"a":1.50},{"a":1e3},{"a":123456789012345.6},{"a":-0.000000000000000001}]',
    ),
  ).toEqual([false, false, false, false, false]);
  expect(parseExactly('{"a":[1,2,{"b":null}]}')).toEqual({ a: [1, 2, { b: null }] });
});
