import { expect, test } from '@jest/globals';
import { overridesMethodInQuery } from '../../../src/proxy/target.ts';

test.each([
  ...['_method=PUT', 'a=1&_METHOD=PUT', '.method=PUT', '+method=PUT', '_method[]=PUT', '_method%5B%5D=PUT'],
  ...['[_method]=PUT', '%5B_method%5D=PUT', '_method]=PUT', '[_method=PUT', '[method=PUT', '_method%00=PUT'],
  ...['_method%00x=PUT', 'a;_method=PUT', '%5Fmethod=PUT'],
])('%s asks to be taken for another method', (query) => {
  expect(overridesMethodInQuery(query)).toBe(true);
});

test.each(['method=PUT', 'x_method=PUT', '_methods=PUT', 'a=_method', 'filter[_method]=PUT', ''])(
  '%s does not',
  (query) => {
    expect(overridesMethodInQuery(query)).toBe(false);
  },
);
