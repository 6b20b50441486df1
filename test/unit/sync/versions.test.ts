import { describe, expect, test } from '@jest/globals';
import {
  compareVersions,
  isInstant,
  lessOverlap,
  newest,
  NewestVersion,
  owedSince,
} from '../../../src/sync/versions.ts';

const now = Date.parse('2026-05-01T12:00:00.000Z');
const ago = (seconds: number) => new Date(now - seconds * 1_000).toISOString();

test('versions are ordered as instants, as numbers, or as text', () => {
  expect(compareVersions('2024-01-01T01:00:00+01:00', '2024-01-01T00:00:01Z')).toBeLessThan(0);
  expect(compareVersions('9', '10')).toBeLessThan(0);
  expect(compareVersions('9007199254740993', '9007199254740992')).toBeGreaterThan(0);
  expect(compareVersions('1.5', '1.25')).toBeGreaterThan(0);
  expect(compareVersions('b', 'a')).toBeGreaterThan(0);
});

describe('the newest place in a feed', () => {
  test('is the newest version that was seen', () => {
    expect(newest(undefined, '3', now)).toBe('3');
    expect(newest('12', '3', now)).toBe('12');
    expect(newest(ago(5), ago(6), now)).toBe(ago(5));
  });

  test.each([
    [ago(5), ago(-1)],
    [String(now - 5_000), String(now + 1)],
    [String(now / 1_000 - 5), String(now / 1_000 + 1)],
    // The year 2999, as far from now as any other number.
    [String(now - 5_000), String(Date.parse('2999-01-01T00:00:00Z'))],
  ])('is not one that is ahead of now: %s, %s', (past, ahead) => {
    expect(newest(past, ahead, now)).toBe(past);
    expect(newest(ahead, past, now)).toBe(past);
  });

  test('where all are ahead, is a minute ago in their notation, and of other versions none', () => {
    const seen = (...versions: string[]) => {
      const all = new NewestVersion(now);
      for (const version of versions) all.see(version);
      return [all.version, all.minuteAgo];
    };
    expect(seen(ago(-1))).toEqual([undefined, ago(60)]);
    expect(seen(String(now + 1))).toEqual([undefined, String(now - 60_000)]);
    expect(seen(String(now / 1_000 + 1))).toEqual([undefined, String(now / 1_000 - 60)]);
    expect(seen('7', '8')).toEqual(['8', undefined]);
    expect(seen()).toEqual([undefined, undefined]);
  });
});

describe('a feed is asked again', () => {
  test.each([
    ['2024-01-01T00:00:05.000Z', '2024-01-01T00:00:03.000Z'],
    ['2024-01-01T01:00:05+01:00', '2024-01-01T00:00:03.000Z'],
    ['2024-01-01 00:00:05', '2024-01-01 00:00:03'],
    ['2024-01-02', '2024-01-01'],
    [String(now), String(now - 2_000)],
    [String(now / 1_000), String(now / 1_000 - 2)],
    [String(now / 1_000 + 0.25), String(now / 1_000 - 2)],
  ])('from the overlap before a time: %s', (version, since) => {
    expect(lessOverlap(version, 2_000, now)).toBe(since);
    expect(isInstant(version, now)).toBe(true);
  });

  test.each([
    ['7', '6'],
    ['0', '0'],
    ['9007199254740993', '9007199254740992'],
    ['opaque', 'opaque'],
  ])('from just before another version, of which that proves nothing: %s', (version, since) => {
    expect(lessOverlap(version, 2_000, now)).toBe(since);
    expect(isInstant(version, now)).toBe(false);
  });
});

describe('a copy is owed', () => {
  test('since its record’s own date less what clocks may differ by, and not before the last look', () => {
    expect(owedSince([ago(60), ago(100)], now - 600_000, now)).toBe(now - 105_000);
    expect(owedSince([ago(60), String(now - 100_000)], now - 600_000, now)).toBe(now - 105_000);
    expect(owedSince([ago(60)], now - 1_000, now)).toBe(now - 1_000);
  });

  test.each([ago(-1), '2026-05-01 11:59:59', '7', undefined])(
    'since the last look where the date says nothing: %s',
    (version) => {
      expect(owedSince([version, ago(1)], now - 600_000, now)).toBe(now - 600_000);
    },
  );

  test('since nobody knows when, where nothing was looked at before', () => {
    expect(owedSince([ago(1)], 0, now)).toBe(0);
  });
});
