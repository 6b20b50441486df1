import { describe, expect, test } from '@jest/globals';
import { instantIn, writeInstant } from '../../../src/core/instants.ts';
import { compareVersions, lessOverlap, newest, versionAt } from '../../../src/sync/versions.ts';

const noon = Date.UTC(2024, 4, 1, 12, 0, 0);

describe('dates in the usual notations', () => {
  test.each([
    ['2024-05-01T12:00:00Z', 'iso'],
    ['2024-05-01T12:00:00', 'iso'],
    ['2024-05-01T14:00:00+02:00', 'iso'],
    ['2024-05-01T17:30:00.000+0530', 'iso'],
    ['2024-05-01T05:00-07', 'iso'],
    ['2024-05-01t12:00:00z', 'iso'],
    ['2024-05-01 12:00:00', 'sql'],
    ['2024-05-01 12:00:00.000000', 'sql'],
    ['2024-05-01 14:00:00+02', 'sql'],
    ['2024-05-01 12:00:00 UTC', 'sql'],
    ['20240501T120000Z', 'basic'],
    ['Wed, 01 May 2024 12:00:00 GMT', 'http'],
    ['Wednesday, 01-May-24 12:00:00 GMT', 'http'],
    ['Wed May  1 12:00:00 2024', 'http'],
    ['Wed, 1 May 2024 14:00:00 +0200', 'http'],
    ['1714564800', 'seconds'],
    ['1714564800.0', 'seconds'],
    ['1714564800000', 'milliseconds'],
    ['/Date(1714564800000)/', 'dotnet'],
    ['/Date(1714564800000+0200)/', 'dotnet'],
  ])('%s is an instant', (text, notation) => {
    expect(instantIn(text)).toEqual({ ms: noon, finer: '', notation });
  });

  test.each([
    '',
    'x',
    '17',
    '171456480',
    '17145648000',
    '2024-13-01',
    '2024-05-01T25:00:00Z',
    '2024-05',
    'a1b2',
  ])('"%s" is none', (text) => {
    expect(instantIn(text)).toBeUndefined();
  });

  test('a day is its beginning', () => {
    expect(instantIn('2024-05-01')).toEqual({ ms: noon - 43_200_000, finer: '', notation: 'day' });
  });

  test.each(['iso', 'sql', 'http', 'seconds', 'milliseconds', 'basic', 'dotnet', 'day'] as const)(
    'what is written as %s is read as the same, and never later',
    (notation) => {
      const back = instantIn(writeInstant(noon + 123, notation));
      expect(back?.notation).toBe(notation);
      expect(back?.ms).toBeLessThanOrEqual(noon + 123);
      expect(back?.ms).toBeGreaterThan(noon - 86_400_000);
    },
  );
});

describe('versions', () => {
  test.each([
    ['2024-05-01T13:30:00+02:00', '2024-05-01T12:00:00Z'],
    ['Tue, 30 Apr 2024 12:00:00 GMT', 'Mon, 06 May 2024 12:00:00 GMT'],
    ['2024-05-01 09:00:00', '2024-05-01T09:00:01Z'],
    ['2024-05-01T12:00:00.123456Z', '2024-05-01T14:00:00.123457+02:00'],
    ['1714564800.5', '1714564801'],
    ['1714564800000', '1714564800001'],
    ['9', '10'],
    ['90071992547409930', '90071992547409931'],
    ['a', 'b'],
  ])('%s is older than %s', (older, newer) => {
    expect(compareVersions(older, newer)).toBeLessThan(0);
    expect(compareVersions(newer, older)).toBeGreaterThan(0);
    expect(newest(older, newer)).toBe(newer);
  });

  test.each([
    ['2024-05-01T14:00:00+02:00', '2024-05-01T11:59:58.000Z'],
    ['2024-05-01 12:00:00', '2024-05-01 11:59:58'],
    ['Wed, 01 May 2024 12:00:00 GMT', 'Wed, 01 May 2024 11:59:58 GMT'],
    ['1714564800', '1714564798'],
    ['1714564800000', '1714564798000'],
    ['2024-05-01', '2024-04-30'],
    ['17', '16'],
    ['90071992547409931', '90071992547409930'],
    ['abc', 'abc'],
  ])('behind %s a poll begins at %s', (version, since) => {
    expect(lessOverlap(version, 2_000)).toBe(since);
  });

  test('a time is written as the store writes its versions', () => {
    expect(versionAt(noon, '2023-01-01 00:00:00')).toBe('2024-05-01 12:00:00');
    expect(versionAt(noon, '17')).toBeUndefined();
  });
});
