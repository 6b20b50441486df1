import { describe, expect, test } from '@jest/globals';
import { instantIn, type Notation, writeInstant } from '../../../src/core/instants.ts';
import {
  compareVersions,
  lessOverlap,
  newest,
  NewestVersion,
  owedSince,
} from '../../../src/sync/versions.ts';

const noon = Date.UTC(2024, 4, 1, 12, 0, 0);
const later = Date.UTC(2024, 5, 1);

describe('dates in the usual notations', () => {
  test.each<[text: string, notation: Notation, zoned?: boolean]>([
    ['2024-05-01T12:00:00Z', 'iso'],
    ['2024-05-01T12:00:00', 'iso', false],
    ['2024-05-01T14:00:00+02:00', 'iso'],
    ['2024-05-01T17:30:00.000+0530', 'iso'],
    ['2024-05-01T05:00-07', 'iso'],
    ['2024-05-01t12:00:00z', 'iso'],
    ['2024-05-01 12:00:00', 'sql', false],
    ['2024-05-01 12:00:00.000000', 'sql', false],
    ['2024-05-01 14:00:00+02', 'iso'],
    ['2024-05-01 12:00:00 UTC', 'iso'],
    ['20240501T120000Z', 'basic'],
    ['20240501T120000', 'basic', false],
    ['Wed, 01 May 2024 12:00:00 GMT', 'http'],
    ['Wednesday, 01-May-24 12:00:00 GMT', 'http'],
    ['Wed May  1 12:00:00 2024', 'http', false],
    ['Wed, 1 May 2024 14:00:00 +0200', 'http'],
    ['1714564800', 'seconds'],
    ['1714564800.0', 'seconds'],
    ['1714564800000', 'milliseconds'],
    ['/Date(1714564800000)/', 'dotnet'],
    ['/Date(1714564800000+0200)/', 'dotnet'],
  ])('%s is an instant', (text, notation, zoned = true) => {
    expect(instantIn(text)).toEqual({ ms: noon, finer: '', notation, zoned });
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
    expect(instantIn('2024-05-01')).toEqual({
      ms: noon - 43_200_000,
      finer: '',
      notation: 'day',
      zoned: false,
    });
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
    expect(newest(older, newer, later)).toBe(newer);
  });

  test.each([
    ['2024-05-01T14:00:00+02:00', '2024-05-01T11:59:58.000Z'],
    ['2024-05-01 12:00:00', '2024-05-01 11:59:58'],
    ['2024-05-01 07:00:00-05', '2024-05-01T11:59:58.000Z'],
    ['20240501T120000Z', '20240501T115958Z'],
    ['/Date(1714564800000)/', '/Date(1714564798000)/'],
    ['Wed, 01 May 2024 12:00:00 GMT', 'Wed, 01 May 2024 11:59:58 GMT'],
    ['1714564800', '1714564798'],
    ['1714564800000', '1714564798000'],
    ['2024-05-01', '2024-04-30'],
    ['17', '16'],
    // As far from now as any other number, so it is a counter.
    ['4070908800', '4070908799'],
    ['90071992547409931', '90071992547409930'],
    ['abc', 'abc'],
  ])('behind %s a poll begins at %s', (version, since) => {
    expect(lessOverlap(version, 2_000, later)).toBe(since);
  });

  test.each([
    ['Wed, 01 May 2024 12:00:00 GMT', 'Fri, 31 May 2024 23:59:00 GMT'],
    ['/Date(1714564800000)/', `/Date(${later - 60_000})/`],
    ['1714564800', String(later / 1_000 - 60)],
    // Nobody knows how far behind UTC they are.
    ['2024-05-01 12:00:00', '2024-05-31 11:59:00'],
    ['2024-05-01', '2024-05-31'],
    ['17', undefined],
  ])('a minute ago is written as the store writes its versions: %s', (version, written) => {
    const seen = new NewestVersion(later);
    seen.see(version);
    expect(seen.minuteAgo).toBe(written);
  });

  test.each([
    ['Mon, 03 Jun 2024 12:00:00 GMT', 'Wed, 01 May 2024 12:00:00 GMT'],
    ['/Date(1717416000000)/', '/Date(1714564800000)/'],
    ['20240603T120000Z', '20240501T120000Z'],
    ['2024-06-03 12:00:00', '2024-05-01 12:00:00'],
  ])('ahead of now is no place in a feed: %s', (ahead, past) => {
    expect(newest(past, ahead, later)).toBe(past);
    expect(newest(ahead, undefined, later)).toBeUndefined();
  });

  test('only a date that names its zone says since when a copy is owed', () => {
    const owed = (version: string) => owedSince([version], noon - 60_000, later);
    expect(owed('Wed, 01 May 2024 12:00:00 GMT')).toBe(noon - 5_000);
    expect(owed('20240501T120000Z')).toBe(noon - 5_000);
    expect(owed('Wed May  1 12:00:00 2024')).toBe(noon - 60_000);
    expect(owed('2024-05-02')).toBe(noon - 60_000);
  });
});
