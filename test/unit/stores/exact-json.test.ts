import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
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

test('a decimal with more digits than a double has is one, too, wherever its point stands', () => {
  const changed = [
    ...['99999999999999.99', '1234567890123.4567890123', '36028797018963.967', '0.1234567890123456789'],
    ...['12345678901234.567', '1e-400', '99999999999999984', '1.0000000000000000001'],
  ];
  const kept = ['99999999999999.9', '9999999999999.99', '123456789012.3456', '-0.30000000000000004', '1E+2'];
  expect(inexactItems(`[${changed.map((text) => `{"a":${text}}`).join()}]`)).toEqual(changed.map(() => true));
  expect(inexactItems(`[${kept.map((text) => `{"a":${text}}`).join()}]`)).toEqual(kept.map(() => false));
});

test('what is no problem is printed again as it came, or is all that C prints of a double', () => {
  const decimal = fc.tuple(fc.bigInt({ min: 0n, max: 10n ** 20n }), fc.nat({ max: 25 }));
  fc.assert(
    fc.property(decimal, ([digits, places]) => {
      const [record] = parseExactly(`[{"a":${digits}e-${places}}]`) as [{ a: number }];
      if (isInexact(record)) return;
      const given = digits * 10n ** BigInt(fine - places);
      expect([String(record.a), record.a.toPrecision(17)].map(inUnits)).toContain(given);
    }),
    { numRuns: 1_000 },
  );
});

const fine = 60;

/** Of 10^-60. */
function inUnits(printed: string): bigint {
  const [mantissa = '', exponent = '0'] = printed.split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  return BigInt(whole + fraction) * 10n ** BigInt(fine + Number(exponent) - fraction.length);
}

test('numbers that are kept are left alone, also in long notations of one double', () => {
  expect(
    inexactItems(
      '[{"a":0.10000000000000001},{"a":1.50},{"a":1e3},{"a":123456789012345.6},{"a":-0.000000000000000001}]',
    ),
  ).toEqual([false, false, false, false, false]);
  expect(parseExactly('{"a":[1,2,{"b":null}]}')).toEqual({ a: [1, 2, { b: null }] });
});

describe('names of fields', () => {
  test('keeps keys of one escaped character, which V8 of Node 24 mixes up', () => {
    expect(parseExactly('{"t":1,"\\\\":2}')).toEqual({ t: 1, '\\': 2 });
    expect(parseExactly('{"t":1,"\\u5e74":2}')).toEqual({ t: 1, 年: 2 });
    expect(parseExactly('{"t":1,"\\u00e9" : 2}')).toEqual({ t: 1, é: 2 });
  });

  test('reads as JSON.parse does, also with every character escaped', () => {
    const escaped = (text: string): string =>
      Array.from({ length: text.length }, (_, at) => escape(text.charCodeAt(at))).join('');
    const escape = (code: number): string => `\\u${code.toString(16).padStart(4, '0')}`;
    const name = fc.string({ minLength: 2, maxLength: 6, unit: 'grapheme' });
    fc.assert(
      fc.property(fc.dictionary(name, name, { noNullPrototype: true }), (record) => {
        const fields = Object.entries(record).map(([key, value]) => `"${escaped(key)}": "${escaped(value)}"`);
        expect(parseExactly(`{${fields.join(', ')}}`)).toEqual(record);
        expect(parseExactly(JSON.stringify(record))).toEqual(record);
      }),
    );
  });

  test('does not touch what only looks like a key inside a text', () => {
    const record = { a: 'say "\\u00e9": yes', 'x"é': 1 };
    expect(parseExactly(JSON.stringify(record))).toEqual(record);
    expect(parseExactly('{"x\\"\\u00e9": 1}')).toEqual({ 'x"é': 1 });
  });
});
