/** The page about HTTP names code and tests for each row: both must exist, and the tests must carry the row's number. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

const folder = 'test/e2e/http';
const rows = readFileSync('docs/http.md', 'utf8')
  .split('\n')
  .flatMap((line) => {
    const [, number, , where = '', tests = ''] = /^\| (\d+) +\|(.*)\|(.*)\|(.*)\|$/.exec(line) ?? [];
    return number === undefined ? [] : [{ number, where, tests }];
  });
const quoted = (text: string, pattern: RegExp): string[] =>
  [...text.matchAll(pattern)].map(([, found]) => found ?? '');

test('the rows of docs/http.md are counted without a gap', () => {
  expect(rows.map(({ number }) => Number(number))).toEqual(rows.map((_, at) => at + 1));
  expect(rows.length).toBeGreaterThanOrEqual(15);
});

describe.each(rows)('row $number of docs/http.md', ({ number, where, tests }) => {
  test('names code that exists', () => {
    const paths = quoted(where, /`(src\/[^`]+)`/g);
    expect(paths.length).toBeGreaterThan(0);
    expect(paths.filter((path) => !existsSync(path))).toEqual([]);
  });

  test('names tests that carry its number', () => {
    const files = quoted(tests, /`([^`]+\.test\.ts)`/g);
    expect(files.length).toBeGreaterThan(0);
    const without = files.filter((file) => {
      const path = join(folder, file);
      return !existsSync(path) || !new RegExp(`['"\`]row ${number}: `).test(readFileSync(path, 'utf8'));
    });
    expect(without).toEqual([]);
  });
});
