import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { differencesOf, type Fields } from '../../../src/core/records.ts';
import { digestOf } from '../../../src/sync/digest.ts';

const leaf = fc.oneof(
  fc.constantFrom(
    null,
    0,
    1,
    'a',
    '',
    true,
    '2024-01-01T00:00:00Z',
    '2024-01-01T01:00:00+01:00',
    '2024-13-01T00:00:00Z',
  ),
  fc.integer(),
  fc.string(),
);
const value = fc.oneof(
  leaf,
  fc.array(leaf, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom('x', '__proto__'), leaf),
  fc.constant(JSON.parse('{"__proto__":{}}')),
);
const fields = fc.dictionary(fc.constantFrom('a', 'constructor', '__proto__'), value) as fc.Arbitrary<Fields>;

const inherited = [
  ['{"constructor":null}', '{}'],
  ['{"a":{"__proto__":{}}}', '{"a":{}}'],
].map((texts) => texts.map((text) => JSON.parse(text) as Fields) as [Fields, Fields]);

test('two digests are equal exactly when a comparison of the records finds no difference', () => {
  fc.assert(
    fc.property(fields, fields, (wanted, held) => {
      const copy = { kind: 'k', id: '1', fields: wanted };
      const found = { kind: 'k', id: '1', partition: 'p', fields: held, deleted: false };
      const same = differencesOf([copy], [found], new Set()).length === 0;
      const names = Object.keys(wanted);
      expect(digestOf(wanted, names) === digestOf(held, names)).toBe(same);
    }),
    { numRuns: 2_000, examples: inherited },
  );
});
