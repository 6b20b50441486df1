/** Which route a request matches: tables over every kind of condition, and over what is ambiguous. */
import { describe, expect, test } from '@jest/globals';
import type { Reading } from '../../../src/core/condition.ts';
import { unsafeTarget } from '../../../src/core/path-readings.ts';
import { compileRoutes, type RouteRule, type SeenRequest } from '../../../src/core/route.ts';

interface Sent {
  readonly path?: string;
  readonly method?: string;
  readonly query?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, readonly string[]>>;
  readonly fields?: Readonly<Record<string, readonly Reading[]>> | 'unreadable' | 'not read';
}

function seen(sent: Sent): SeenRequest {
  const { path = '/a', method = 'POST', query = '', host, headers = {}, fields = {} } = sent;
  const field = (name: string): readonly Reading[] | 'unreadable' =>
    fields === 'unreadable' || fields === 'not read' ? 'unreadable' : (fields[name] ?? []);
  return {
    ...{ method, path, query, host },
    header: (name) => headers[name] ?? [],
    field: fields === 'not read' ? undefined : field,
  };
}

/** The conditions, on a rule of an effect of its own before one that takes everything. */
function outcome(conditions: Partial<RouteRule>, sent: Sent): string {
  const table = compileRoutes([
    { path: '/a', access: 'read', ...conditions },
    { path: '/*', access: 'write' },
  ]);
  const found = table(seen(sent));
  if (found.match !== 'route') return found.match;
  const first = found.route?.rule.access === 'read' ? 'first' : 'second';
  return found.unread ? `${first}, unread` : first;
}

type Rows = [conditions: Partial<RouteRule>, sent: Sent, expected: string][];

describe('a route by host', () => {
  const rows: Rows = [
    [{ host: 'example.org' }, { host: 'example.org' }, 'first'],
    [{ host: 'example.org' }, { host: 'EXAMPLE.org:8080' }, 'first'],
    [{ host: 'example.org' }, { host: 'example.org.' }, 'first'],
    [{ host: 'example.org' }, { host: 'a.example.org' }, 'second'],
    [{ host: 'example.org' }, {}, 'second'],
    [{ host: '*.example.org' }, { host: 'a.example.org' }, 'first'],
    [{ host: '*.example.org' }, { host: 'a.b.example.org:1' }, 'first'],
    [{ host: '*.example.org' }, { host: 'example.org' }, 'second'],
    [{ host: '*.example.org' }, { host: '.example.org' }, 'second'],
    [{ host: '*.example.org' }, { host: 'badexample.org' }, 'second'],
    [{ host: '[::1]' }, { host: '[::1]:8080' }, 'first'],
  ];
  test.each(rows)('%j takes %j: %s', (conditions, sent, expected) => {
    expect(outcome(conditions, sent)).toBe(expected);
  });
});

describe('a route by query', () => {
  const rows: Rows = [
    [{ query: { a: 'x' } }, { query: 'a=x' }, 'first'],
    [{ query: { a: 'x y' } }, { query: 'b=1&%61=x+y' }, 'first'],
    [{ query: { a: 'x y' } }, { query: 'a=x%20y' }, 'first'],
    [{ query: { a: 'x' } }, { query: 'a=y' }, 'second'],
    [{ query: { a: 'x' } }, { query: '' }, 'second'],
    [{ query: { a: 'x' } }, { query: 'a=%zz' }, 'second'],
    [{ query: { a: '' } }, { query: 'a' }, 'first'],
    [{ query: { a: '*' } }, { query: 'a' }, 'first'],
    [{ query: { a: '*' } }, { query: 'a=1&a=2' }, 'first'],
    [{ query: { a: '*' } }, { query: 'b=a' }, 'second'],
    [{ query: { a: 'x', b: '*' } }, { query: 'a=x' }, 'second'],
    [{ query: { a: 'x', b: '*' } }, { query: 'b=&a=x' }, 'first'],
    // Which of the two counts, servers decide differently.
    [{ query: { a: 'x' } }, { query: 'a=x&a=y' }, 'ambiguous'],
    [{ query: { a: 'x' } }, { query: 'a=y&a=x' }, 'ambiguous'],
    [{ query: { a: 'x' } }, { query: 'a=x&a=x' }, 'first'],
    [{ query: { a: 'x' } }, { query: 'a=y&a=z' }, 'second'],
    // Spelled so that some servers take it for the name.
    [{ query: { a: 'x' } }, { query: 'A=x' }, 'ambiguous'],
    [{ query: { a: 'x' } }, { query: 'a[]=x' }, 'ambiguous'],
    [{ query: { a: 'x' } }, { query: 'b=1;a=x' }, 'ambiguous'],
    [{ query: { a: 'x' } }, { query: 'a=x;b=1' }, 'ambiguous'],
    [{ query: { a_b: '*' } }, { query: 'a.b=x' }, 'ambiguous'],
  ];
  test.each(rows)('%j takes %j: %s', (conditions, sent, expected) => {
    expect(outcome(conditions, sent)).toBe(expected);
  });
});

describe('a route by headers', () => {
  const rows: Rows = [
    [{ headers: { 'X-A': 'x' } }, { headers: { 'x-a': ['x'] } }, 'first'],
    [{ headers: { 'x-a': 'x' } }, { headers: { 'x-a': ['y'] } }, 'second'],
    [{ headers: { 'x-a': 'x' } }, {}, 'second'],
    [{ headers: { 'x-a': '*' } }, { headers: { 'x-a': ['p', 'q'] } }, 'first'],
    [{ headers: { 'x-a': 'x' } }, { headers: { 'x-a': ['x', 'y'] } }, 'ambiguous'],
  ];
  test.each(rows)('%j takes %j: %s', (conditions, sent, expected) => {
    expect(outcome(conditions, sent)).toBe(expected);
  });
});

describe('a route by fields of the body', () => {
  const rows: Rows = [
    [{ body: { a: 'x' } }, { fields: { a: ['x'] } }, 'first'],
    [{ body: { a: 1, 'b.c': null } }, { fields: { a: [1], 'b.c': [null] } }, 'first'],
    [{ body: { a: '*' } }, { fields: { a: [{}] } }, 'first'],
    [{ body: { a: 1 } }, { fields: { a: ['1'] } }, 'second'],
    [{ body: { a: 'x' } }, { fields: { a: [undefined] } }, 'second'],
    [{ body: { a: 'x' } }, { fields: { a: ['x', 'y'] } }, 'ambiguous'],
    [{ body: { a: '*' } }, { fields: { a: ['x', undefined] } }, 'ambiguous'],
    [{ body: { a: 'x' } }, { fields: 'unreadable' }, 'second, unread'],
    [{ body: { a: 'x' } }, { fields: 'not read' }, 'needs-body'],
    // Nothing else of the request fits: no reason to read its body.
    [{ body: { a: 'x' }, query: { b: '1' } }, { fields: 'not read' }, 'second'],
    [{ body: { a: 'x' }, methods: ['PUT'] }, { fields: 'not read' }, 'second'],
  ];
  test.each(rows)('%j takes %j: %s', (conditions, sent, expected) => {
    expect(outcome(conditions, sent)).toBe(expected);
  });
});

test('the first route that matches wins, and every condition must hold', () => {
  const table = compileRoutes([
    { path: '/:x', query: { a: '1' }, headers: { h: '1' }, partition: 'path.x' },
    { path: '/a', query: { a: '1' }, store: 'app' },
    { path: '/a', store: 'legacy' },
  ]);
  const ruleOf = (sent: Sent): unknown => {
    const found = table(seen(sent));
    return found.match === 'route' ? (found.route?.rule.store ?? found.route?.rule.partition) : found.match;
  };
  expect(ruleOf({ query: 'a=1', headers: { h: ['1'] } })).toBe('path.x');
  expect(ruleOf({ query: 'a=1' })).toBe('app');
  expect(ruleOf({ query: 'a=2', headers: { h: ['1'] } })).toBe('legacy');
  expect(ruleOf({ path: '/b', query: 'a=2' })).toBeUndefined();
});

test('a name that is there twice does no harm where the routes treat the request alike', () => {
  const table = compileRoutes([
    { path: '/a', query: { a: 'x' }, partition: 'user', record: { kind: 'note', id: 'response.id' } },
    { path: '/a', partition: 'user' },
  ]);
  expect(table(seen({ query: 'a=x&a=y' }))).toMatchObject({ match: 'route', route: { parameters: {} } });
});

test('a path that is spelled in another way is ambiguous under conditions, too', () => {
  const table = compileRoutes([{ path: '/a', query: { a: 'x' }, access: 'read' }]);
  expect(table(seen({ path: '/A', query: 'a=x' }))).toEqual({ match: 'ambiguous', by: 'spelling' });
  expect(table(seen({ path: '/A', query: 'a=y' }))).toMatchObject({ match: 'route', route: undefined });
});

describe('a slash that is encoded, or the other way round', () => {
  const table = compileRoutes([
    { path: '/files/*', store: 'legacy' },
    { path: '/calendars/:owner/*', partition: 'path.owner' },
    { path: '/a/b/c', access: 'read' },
  ]);
  test.each([
    '/b%2Fc',
    '/b%5cc',
    '/b\\c',
    '/files/a%2Fb',
    '/files/a\\b%2f',
    '/x/%2F/y',
    '/calendars/o/a%2Fb',
  ])('%s is forwarded: no route is in question', (path) => expect(table(seen({ path })).match).toBe('route'));
  test.each([
    '/files%2Fa',
    '/FILES%5ca',
    '/files\\a',
    '/calendars/ann%2Fx',
    '/calendars/a%2fb/x',
    '/calendars%2Fann/x',
    // At the host "x", for whoever reads the target as a reference.
    '//x/files/a',
    '//x/calendars/ann/y',
    '/%2fx/files/a',
    // Whoever takes one of them for a slash, and not the other.
    '/a%2Fb\\c',
    '/a\\b/c',
    '/calendars/ann\\b%2Fx',
  ])('%s is ambiguous', (path) => {
    expect(table(seen({ path }))).toEqual({ match: 'ambiguous', by: 'spelling' });
  });
  test.each(['/a%2F..%2Fb', '/a\\..', '/%5c%2e%2E%5cb', '/a/..%2fb', '/..\\', '/.%2Fa'])(
    '%s is refused',
    (path) => {
      expect(unsafeTarget(path)).toBe('it contains a dot segment');
    },
  );
  test.each(['/b%2Fc', '/b\\c', '/a..%2F..b', '/a%252e%252e%252f'])('%s is no climb', (path) => {
    expect(unsafeTarget(path)).toBeUndefined();
  });
});

describe('what a server reads that decodes again, or a semicolon that is encoded', () => {
  const table = compileRoutes([
    { path: '/files/*', store: 'legacy' },
    { path: '/users/:owner/*', partition: 'path.owner' },
  ]);
  test.each([
    '/users/u%2531/x',
    '/users/%2575%2531/x',
    '/users/%25%37%35/x',
    '/users/a%252Fb/x',
    '/users/u1%3Bx/y',
    '/users/u1%253bx/y',
    '/users%3bx/u1/y',
    '/%2566iles/x',
    '/f%%36%39les/x',
    '/files%3Bx/y',
    '/files%252Fy',
  ])('%s is ambiguous', (path) => {
    expect(table(seen({ path }))).toMatchObject({ match: 'ambiguous' });
  });
  test.each([
    '/files/50%2525',
    '/files/a%253Bb%3Bc',
    '/users/u1/a%2541%3b',
    '/other%2541/x',
    '/users/50%25/x',
  ])('%s is forwarded: no route is in question', (path) => expect(table(seen({ path })).match).toBe('route'));
});

/** What becomes of a path at rules of two kinds: by a literal, and by partition. */
const outcomes = (endings?: readonly string[]): ((path: string) => string) => {
  const table = compileRoutes(
    [
      { path: '/login', store: 'legacy' },
      { path: '/feeds/all.json', store: 'app' },
      { path: '/feeds/all', access: 'write' },
      { path: '/caf\u00e9', store: 'app' },
      { path: '/a/run', access: 'write' },
      { path: '/a/:owner', partition: 'path.owner' },
      { path: '/a/:owner/*', partition: 'path.owner' },
      { path: '/b/:id', partition: 'user' },
    ],
    { endings },
  );
  return (path) => {
    const found = table(seen({ path, method: 'GET' }));
    if (found.match !== 'route') return found.match === 'ambiguous' ? `ambiguous ${found.by}` : found.match;
    const { rule, parameters } = found.route ?? {};
    return rule === undefined ? 'none' : (parameters?.['owner'] ?? rule.store ?? rule.access ?? 'user');
  };
};

describe('sequences that are no UTF-8', () => {
  const outcome = outcomes();
  test.each([
    ['a byte of Latin-1', 'al%FFce'],
    ['half of a letter', 'al%C3'],
    ['a letter without its head', '%A9l'],
    ['an overlong letter', '%C1%A1l'],
    ['an overlong letter of three bytes', '%E0%81%A1l'],
    ['a surrogate', '%ED%A0%80l'],
    ['a pair of surrogates', '%ED%A0%BD%ED%B8%80'],
    ['a letter beyond Unicode', '%F5%80%80%80'],
    ['an overlong slash', 'al%C0%AFce'],
    ['no sequence', 'al%zz'],
    ['a percent sign', 'al%'],
    ['the notation of old scripts', 'al%u0041'],
  ])('%s in the name of a partition is ambiguous', (_, name) => {
    expect(outcome(`/a/${name}`)).toBe('ambiguous encoding');
    expect(outcome(`/a/${name}/notes`)).toBe('ambiguous encoding');
    expect(outcome(`/a/${name}%2Fnotes`)).toMatch('ambiguous');
  });
  test.each([
    '/login%FF',
    '/%FFlogin',
    '/log%C1%A9n',
    '/%u006Cogin',
    '/%login',
    '/caf%E9',
    '/a%C0%AFrun',
    '/%c0%aflogin',
  ])('%s could be the path of a route, and is ambiguous', (path) =>
    expect(outcome(path)).toBe('ambiguous encoding'),
  );
  test.each([
    ['/a/ann/%FF', 'ann'],
    ['/a/ann/%zz%C0%AF', 'ann'],
    ['/b/x%FF', 'user'],
    ['/%FF%FE', 'none'],
    ['/%zz', 'none'],
    ['/a/z%C3%B6', 'z\u00f6'],
    ['/a/%F0%9F%98%80', '\u{1f600}'],
    ['/a/%25FF', '%FF'],
  ])('%s is no question: %s', (path, expected) => {
    expect(outcome(path)).toBe(expected);
  });
});

describe('an ending', () => {
  const rows: [path: string, unknown_: string, none: string, json: string, any: string][] = [
    ['/login.json', 'ambiguous ending', 'none', 'legacy', 'legacy'],
    ['/login.JSON', 'ambiguous ending', 'none', 'ambiguous spelling', 'legacy'],
    ['/LOGIN.json', 'ambiguous ending', 'none', 'ambiguous spelling', 'ambiguous spelling'],
    ['/login%2Ejson', 'ambiguous ending', 'none', 'ambiguous spelling', 'ambiguous spelling'],
    ['/login.json/', 'ambiguous ending', 'none', 'ambiguous spelling', 'ambiguous spelling'],
    ['/login.json;a=b', 'ambiguous ending', 'none', 'ambiguous spelling', 'legacy'],
    ['/login.evil', 'ambiguous ending', 'none', 'none', 'legacy'],
    ['/login.', 'ambiguous ending', 'none', 'none', 'legacy'],
    ['/login.a.b', 'ambiguous ending', 'none', 'none', 'ambiguous ending'],
    ['/a/run.xml', 'ambiguous ending', 'run.xml', 'run.xml', 'write'],
    ['/a/1.json', 'ambiguous ending', '1.json', '1', '1'],
    ['/a/1.x.json', 'ambiguous ending', '1.x.json', '1.x', '1.x'],
    ['/a/1%2Ejson', 'ambiguous ending', '1.json', 'ambiguous spelling', 'ambiguous spelling'],
    ['/a/1.JSON', 'ambiguous ending', '1.JSON', 'ambiguous spelling', '1'],
    ['/a/1.json%FF', 'ambiguous encoding', 'ambiguous encoding', 'ambiguous encoding', '1'],
    // Named by its ending.
    ['/feeds/all.json', 'app', 'app', 'app', 'app'],
    ['/feeds/all', 'write', 'write', 'write', 'write'],
    ['/feeds/all.xml', 'ambiguous ending', 'none', 'none', 'write'],
    // Names, most likely.
    ['/a/ann@example.com', 'ann@example.com', 'ann@example.com', 'ann@example.com', 'ann@example'],
    ['/a/shop.example', 'shop.example', 'shop.example', 'shop.example', 'shop'],
    ['/a/.json', '.json', '.json', '.json', '.json'],
    // It does not stand at the end, or decides nothing.
    ['/a/1.json/notes', '1.json', '1.json', '1.json', '1.json'],
    ['/a/ann/notes.json', 'ann', 'ann', 'ann', 'ann'],
    ['/b/1.json', 'user', 'user', 'user', 'user'],
    ['/other.json', 'none', 'none', 'none', 'none'],
    ['/.login', 'none', 'none', 'none', 'none'],
  ];
  test.each(rows)('%s: %s; where none, .json or any is taken off: %s, %s, %s', (path, ...expected) => {
    const found = [undefined, [], ['json', 'xml2'], ['*']].map((endings) => outcomes(endings)(path));
    expect(found).toEqual(expected);
  });
});
