/** Paths that servers read differently are refused, wherever in a path the difference stands. */
import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { unsafeTarget } from '../../../src/core/path-readings.ts';

const segment = fc.string({
  unit: fc.constantFrom(..."aZ09_-.~!$&'()*+,;=:@".split(''), '%20', '%C3', '%41', '\xe9'),
  maxLength: 5,
});
// Some servers pass over bytes that are no UTF-8.
const safe = segment.filter((text) => !/^\.\.?$/.test(text.replaceAll('%C3', '').split(';', 1)[0] ?? ''));

test('a path of safe segments is taken, also with empty ones', () => {
  fc.assert(
    fc.property(fc.array(safe, { minLength: 1, maxLength: 4 }), (segments) => {
      expect(unsafeTarget(`/${segments.join('/')}`)).toBeUndefined();
    }),
  );
});

test.each([
  [
    'a dot segment',
    [
      ...['.', '..', '%2e', '%2E%2e', '.%2e', '..;a', '.;', '%2e;x=1', 'a%2f..', '..%5Cb', 'a\\..'],
      // A proxy in between can have decoded the semicolon, or all of it, before a server looks.
      ...['..%3B', '..%3bx', '.%3B', '%2e%2e%3Ba', '..%c0%bb', '..%253b'],
      ...['%252e%252E', '.%252e', 'a%252f..', 'a%255c%252e%252e', '%25%32%65.', '%25c0%25ae.', '%%32e.'],
      // To lenient readers: overlong, in another notation, with bytes that they pass over.
      ...[
        '%c0%ae%C0%AE',
        '.%e0%80%ae',
        '%f0%80%80%ae.',
        'a%c0%af..',
        '..%c1%9cb',
        '%u002e%U002E',
        'a%u002f..',
      ],
      ...['.%ff.', '%ff.', '.%', '%e2%82..'],
    ],
  ],
  [
    'an encoded control character',
    ['%2500', '%00', '%0d', '%1F', '%7f', 'a%0A', '%c0%80', '%u000a', '%c1%bf', '%e0%80%8d'],
  ],
  ['a control character, a space or a fragment', ['\0', '\n', 'a b', '\x7f', 'a#']],
])('a path with %s is refused', (why, odd) => {
  fc.assert(
    fc.property(
      fc.array(safe, { maxLength: 3 }),
      fc.constantFrom(...odd),
      fc.array(safe, { maxLength: 3 }),
      (before, at, after) => {
        expect(unsafeTarget(`/${[...before, at, ...after].join('/')}`)).toContain(why);
      },
    ),
  );
});

test('a path starts with a slash', () => {
  for (const path of ['', 'a', 'a/b', '*', '?/a'])
    expect(unsafeTarget(path)).toContain('does not start with a slash');
});
