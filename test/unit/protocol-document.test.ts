/** The protocol's page names an enforcer and a test for each invariant: both must exist. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';

const page = readFileSync('docs/protocol.md', 'utf8');
const rows = page.split('\n').filter((line) => /^\| I\d /.test(line));
const testTexts = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => readFileSync(join('test', name), 'utf8'));

describe('each invariant of docs/protocol.md', () => {
  test('has a row', () => {
    expect(rows.map((row) => row.slice(2, 4))).toEqual(['I1', 'I2', 'I3', 'I4', 'I5', 'I7', 'I8']);
  });

  test.each(rows.map((row) => [row.slice(2, 4), row]))('%s names enforcers that exist', (_, row) => {
    const paths = [...row.matchAll(/`(src\/[^`]+)`/g)].map(([, path]) => path ?? '');
    expect(paths.length).toBeGreaterThan(0);
    expect(paths.filter((path) => !existsSync(path))).toEqual([]);
  });

  test.each(rows.map((row) => [row.slice(2, 4), row]))('%s names a test that exists', (_, row) => {
    const names = [...row.matchAll(/"([^"]+)"/g)].map(([, name]) => name ?? '');
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !testTexts.some((text) => text.includes(name)))).toEqual([]);
  });
});
