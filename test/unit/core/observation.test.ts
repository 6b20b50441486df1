import { describe, expect, test } from '@jest/globals';
import { observationLine, observedRow } from '../../../src/config/observation.ts';
import { Distinct } from '../../../src/core/distinct.ts';
import type { Observation } from '../../../src/core/observation.ts';
import { maskPath, PathTable } from '../../../src/core/path-template.ts';
import { Tally } from '../../../src/core/tally.ts';

const nobody: ReadonlyMap<string, string> = new Map();

describe('a path without what names somebody', () => {
  test.each([
    ['/api/appointments/17', '/api/appointments/:id'],
    ['/api/v2/users/6f9619ff-8b86-d011-b42d-00cf4fc964ff/photo.png', '/api/v2/users/:id/photo.png'],
    ['/oauth2/token', '/oauth2/token'],
    ['/.well-known/caldav', '/.well-known/caldav'],
    ['/calendars/anna%40example.org/home', '/calendars/:id/home'],
    ['/api/items/u1', '/api/items/:id'],
    ['/files/2024-03-01.ics', '/files/:id.ics'],
    ['/odata/Users(12)', '/odata/:id'],
    ['/bad/%ff', '/bad/:id'],
    ['//', '//'],
    ['/notes/../x', '/notes/../x'],
    ['/notes/%2E%2e/./x', '/notes/%2E%2e/./x'],
    ['/notes/a%2Fb', '/notes/:id(%2F)'],
    ['/notes/anna%5c', '/notes/:id(%5c)'],
    [`/api/${'long'.repeat(20)}`, '/api/:id'],
  ])('%s is %s', (path, masked) => {
    expect(maskPath(path, nobody)).toBe(masked);
  });

  test('what the request itself names is a placeholder, also where it is a word, and before an ending', () => {
    const named = new Map([
      ['anna', 'user'],
      ['acme', 'partition'],
    ]);
    expect(maskPath('/users/anna/orgs/acme.json', named)).toBe('/users/:user/orgs/:partition.json');
    expect(maskPath('/users/%61nna', named)).toBe('/users/:user');
  });

  test('a path without end is cut', () => {
    expect(maskPath('/a'.repeat(1_000), nobody)).toBe(`${'/a'.repeat(15)}/…`);
  });
});

describe('paths in a table', () => {
  const count = (limit = 1_000) =>
    new PathTable<{ n: number }>(limit, {
      make: () => ({ n: 0 }),
      merge: (into, other) => (into.n += other.n),
    });
  const word = (at: number): string => `x${String.fromCodePoint(97 + Math.floor(at / 26), 97 + (at % 26))}`;

  test('many words in one place are names: they become one path, with everything below them and before', () => {
    const table = count();
    for (let at = 0; at < 60; at += 1) {
      const found = table.at(`/users/${word(at)}/photo`);
      if (found !== undefined) found.value.n += 1;
    }
    const later = table.at('/users/anna/photo');
    if (later !== undefined) later.value.n += 1;
    expect(later?.path).toBe('/users/:id/photo');
    expect([...table.entries()].map(([path, { n }]) => [path, n])).toEqual([['/users/:id/photo', 61]]);
  });

  test('there is room for so many segments, and what finds none is said to find none', () => {
    const table = count(5);
    const places = ['/a/b', '/c/d', '/e/f'].map((path) => table.at(path)?.path);
    expect(places).toEqual(['/a/b', '/c/d', undefined]);
    expect(table.at('/a/b')?.path).toBe('/a/b');
  });

  test('room that merged paths give back can be used again', () => {
    const table = count(50);
    for (let at = 0; at < 45; at += 1) table.at(`/${word(at)}`);
    const after = Array.from({ length: 40 }, (_, at) => table.at(`/:id/${word(at)}`)?.path);
    expect(after.at(0)).toBe('/:id/xaa');
    expect(after.at(-1)).toBe('/:id/xbn');
  });
});

describe('different names', () => {
  const names = (from: number, to: number): Distinct => {
    const distinct = new Distinct();
    for (const _again of [1, 2]) for (let at = from; at < to; at += 1) distinct.add(`u${at}`);
    return distinct;
  };

  test('are counted exactly while they are few', () => {
    expect([0, 1, 2, 500].map((many) => names(0, many).count())).toEqual([0, 1, 2, 500]);
  });

  test.each([2_000, 50_000, 200_000])('are estimated within 15 %% where there are %i', (many) => {
    const estimate = names(0, many).count();
    expect(Math.abs(estimate / many - 1)).toBeLessThan(0.15);
  });

  test('of two lots together count once', () => {
    const few = names(0, 300);
    few.merge(names(200, 400));
    expect(few.count()).toBe(400);
    const many = names(0, 20_000);
    many.merge(names(10_000, 30_000));
    expect(Math.abs(many.count() / 30_000 - 1)).toBeLessThan(0.15);
  });
});

const seen: Observation = {
  type: 'request',
  at: '2026-03-01T10:00:00.000Z',
  method: 'PUT',
  path: '/api/items/:id',
  route: null,
  identity: 'header',
  user: 'h:1',
  partitions: ['h:1'],
  partitionBy: 'user',
  access: 'write',
  accessBy: 'method',
  would: { do: 'forward', store: 'legacy', because: 'owner' },
  tooSlow: false,
  status: 200,
  ended: 'answered',
  requestBytes: 1,
  answerBytes: 2,
  durationMs: 1.5,
};

describe('a tally', () => {
  test('has a row for each route, for each method and path that no route matches, and one for the rest', () => {
    const tally = new Tally({ pathsMax: 6, routesMax: 2 });
    const route = { index: 1, path: '/login' };
    const refused = { do: 'refuse', code: 'no-identity' } as const;
    const nobodyThere = { identity: 'none', user: null, partitions: [], partitionBy: null } as const;
    tally.add('/api/items/:id', seen);
    tally.add('/api/items/:id', { ...seen, partitions: ['h:1', 'h:2'], tooSlow: true });
    tally.add('/api/items/:id', { ...seen, ...nobodyThere, would: refused });
    tally.add('/api/items/:id', {
      ...seen,
      method: 'GET',
      access: 'read',
      ended: 'unreachable',
      status: null,
    });
    tally.add('/login', {
      ...seen,
      ...nobodyThere,
      route,
      would: { do: 'forward', store: 'app', because: 'pinned' },
    });
    tally.add('/no/room/here', { ...seen, would: { do: 'look-up' }, partitions: [] });
    const zero = {
      refused: {},
      withoutIdentity: 0,
      withoutPartition: 0,
      severalPartitions: 0,
      partitions: 0,
    };
    const none = { ...zero, toApp: 0, lookUps: 0, tooSlow: 0, unanswered: 0 };
    const unmatched = { route: null, path: '/api/items/:id' };
    const put = { ...none, ...unmatched, method: 'PUT', requests: 3, reads: 0, writes: 3 };
    expect(tally.rows()).toEqual([
      ...[{ ...none, route, method: null, path: '/login', requests: 1, reads: 0, writes: 1 }].map((row) => ({
        ...row,
        ...{ toApp: 1, withoutIdentity: 1 },
      })),
      {
        ...put,
        ...{ refused: { 'no-identity': 1 }, withoutIdentity: 1, withoutPartition: 1 },
        ...{ severalPartitions: 1, partitions: 2, tooSlow: 1 },
      },
      {
        ...{ ...none, ...unmatched, method: 'GET', requests: 1, reads: 1, writes: 0 },
        ...{ partitions: 1, unanswered: 1 },
      },
      { ...none, route: null, method: null, path: null, requests: 1, reads: 0, writes: 1, lookUps: 1 },
    ]);
    expect(tally.requests).toBe(6);
    for (const row of tally.rows()) expect(observedRow.parse(row)).toEqual(row);
    const [first, rest, ...more] = tally.rows(2);
    expect(more).toEqual([]);
    expect(first).toEqual(tally.rows()[0]);
    expect(rest).toMatchObject({ path: null, requests: 5, writes: 4, refused: { 'no-identity': 1 } });
  });
});

describe('lines that are read back', () => {
  test('are what was written, without what a later version has added', () => {
    expect(observationLine.parse({ ...seen, later: true })).toEqual(seen);
    expect(observationLine.safeParse({ ...seen, would: { do: 'guess' } }).success).toBe(false);
  });
});
