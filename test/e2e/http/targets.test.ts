/** The target: what decides on the store is, byte for byte, what the store gets; else the request is refused. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { statusOf } from '../../support/raw-http.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: {
      routes: [
        { path: '/admin/*', store: 'app' },
        { path: '/people/:who/*', partition: 'path.who' },
      ],
    },
  });
  await rig.moveToApp('mia');
  await rig.moveToApp('mia@shop.example');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const startLines = (): Record<'legacy' | 'app', string[]> => ({
  legacy: rig.legacy.requests.map(({ startLine }) => startLine),
  app: rig.app.requests.map(({ startLine }) => startLine),
});

const passes = [
  '/',
  '/a',
  '/a/',
  '/a//b',
  '//a',
  '//other.example/a',
  '/a?b',
  '/?',
  '/a??b=c?d',
  '/a?b&&c=&=d&',
  '/a;b=c;d/e;f',
  '/a%20b+c',
  '/%61%41',
  '/%zz%',
  '/%',
  '/a%e2%82%ac',
  '/a%E2%82%AC',
  '/a?next=/../b%2f..%5c',
  '/a?u=http://other.example/../b',
  '/...',
  '/a..b/.hidden/..c',
  "/~a/!$&'()*+,;=:@-._",
  '/"<>^`{|}',
  '/a?"<>^`{|}[]',
  '/:80/a',
  '/http://other.example/a',
  '/a@b:c',
  '/*',
  `/${'long/'.repeat(1_000)}`,
] as const;

test.each(passes)('row 5: %s reaches the store byte for byte, read and write', async (target) => {
  expect(statusOf(await rig.exchange(requestText(`GET ${target}`)))).toBe(200);
  const write = requestText(`POST ${target}`, { lines: ['Content-Length: 2'], body: 'hi' });
  expect(statusOf(await rig.exchange(write))).toBe(200);
  expect(startLines()).toEqual({ legacy: [`GET ${target} HTTP/1.1`, `POST ${target} HTTP/1.1`], app: [] });
});

const refused: readonly (readonly [target: string, why: string])[] = [
  // --- segments that a server would resolve ---
  ['/..', 'a dot segment alone'],
  ['/.', 'one dot alone'],
  ['/admin/../api', 'out of a route'],
  ['/api/../admin/x', 'into a route'],
  ['/a/./b', 'one dot'],
  ['/a/..', 'at the end'],
  ['/../../etc/passwd', 'above the root'],
  ['/%2e%2e/admin/x', 'encoded'],
  ['/%2E%2e/admin/x', 'encoded in two ways'],
  ['/.%2e/admin/x', 'encoded by half'],
  ['/%252e%252e/admin/x', 'encoded twice'],
  ['/a/..%3B/admin/x', 'with a parameter whose semicolon is encoded'],
  ['/a/%2e/b', 'one dot, encoded'],
  ['/a/..;/admin/x', 'with an empty parameter'],
  ['/a/..;x=y/admin/x', 'with a parameter'],
  ['/a/%2e%2e;x/admin/x', 'encoded, with a parameter'],
  ['/a/%c0%ae%c0%ae/admin/x', 'in overlong letters'],
  ['/a%c0%af..%c0%afadmin/x', 'between overlong slashes'],
  ['/a/../b?c', 'before a query'],
  // --- what some take for a slash ---
  ['/admin%2fx', 'an encoded slash in a route'],
  ['/admin%2Fx', 'the same in capitals'],
  ['/people/bob%2f..%2fmia/x', 'encoded slashes in a partition'],
  ['/admin\\x', 'a backslash'],
  ['/a\\..\\admin\\x', 'backslashes around dots'],
  ['/admin%5cx', 'an encoded backslash'],
  // --- what ends a string, or a line, for some ---
  ['/admin%00/x', 'an encoded NUL'],
  ['/a%0d%0aX-A:%20b', 'encoded line ends'],
  ['/a%09b', 'an encoded tab'],
  ['/a%7fb', 'an encoded delete'],
  ['/a#b', 'a fragment'],
  ['/a?b#c', 'a fragment behind a query'],
  // --- bytes that no target may hold ---
  ['/caf\xe9', 'a byte beyond ASCII'],
  ['/caf\xc3\xa9', 'UTF-8 that is not encoded'],
  ['/a?\xff', 'a byte beyond ASCII in the query'],
  ['/a\x01b', 'a control character'],
  ['/a\x7fb', 'a delete'],
  // --- other forms ---
  ['http://other.example/a', 'an absolute URL of another host'],
  ['http://shop.example:81/a', 'the same host on another port'],
  ['http://shop.example@other.example/a', 'the host as a user name'],
  ['http://user@shop.example/a', 'a user name before the host'],
  ['http:///a', 'an absolute URL without a host'],
  ['http:/a', 'a URL with one slash'],
  ['https://other.example/a', 'another host over https'],
  ['ftp://shop.example/a', 'another scheme'],
  ['http://shop.example/../admin/x', 'a dot segment in an absolute URL'],
  ['http://shop.example\\@other.example/a', 'a backslash in an authority'],
  ['a', 'a path without a slash'],
  ['admin/x', 'a route without a slash'],
  ['?a', 'a query alone'],
  ['shop.example:80', 'an authority'],
  ['*', 'an asterisk, but for OPTIONS'],
  ['*/a', 'an asterisk and a path'],
];

test.each(refused)('row 5: %s is 400 and reaches no store (%s)', async (target) => {
  for (const method of ['GET', 'POST']) {
    const answer = await rig.exchange(requestText(`${method} ${target}`, { lines: ['Content-Length: 0'] }));
    expect([method, statusOf(answer)]).toEqual([method, 400]);
  }
  expect(startLines()).toEqual({ legacy: [], app: [] });
});

test('row 5: the refusal says what is wrong, and that nothing was changed', async () => {
  const answer = await rig.exchange(requestText('POST /admin/../api', { lines: ['Content-Length: 0'] }));
  expect(problemOf(answer)).toMatchObject({
    code: 'bad-target',
    sent: 'no',
    detail: expect.stringContaining('it contains a dot segment'),
  });
});

test.each([
  ['http://shop.example/a/b?c', '/a/b?c'],
  ['HTTP://shop.example/a', '/a'],
  ['https://shop.example/a', '/a'],
  ['http://SHOP.example/a', '/a'],
  ['http://shop.example', '/'],
  ['http://shop.example?a=b', '/?a=b'],
  ['http://shop.example//a', '//a'],
  ['http://shop.example/admin/x', '/admin/x'],
])('row 5: %s, whose host is that of Host, is %s in the form of a path', async (target, path) => {
  expect(statusOf(await rig.exchange(requestText(`GET ${target}`)))).toBe(200);
  const store = path.startsWith('/admin/') ? 'app' : 'legacy';
  expect(startLines()).toEqual({ legacy: [], app: [], [store]: [`GET ${path} HTTP/1.1`] });
});

test.each([
  ['/admin/x', 'app'],
  ['/%61dmin/x', 'app'],
  ['/admin/x?/legacy/', 'app'],
  ['/admin//x', 'app'],
  ['/administrators', 'legacy'],
  ['/x/admin/x', 'legacy'],
  ['/x?/admin/x', 'legacy'],
  ['/people/mia/x', 'app'],
  ['/people/%6dia/x', 'app'],
  ['/people/mia/%zz', 'app'],
  ['/people/mia/notes.json', 'app'],
  ['/people/mia@shop.example', 'app'],
  ['/people/mia/%FF%C0%AF', 'app'],
  ['/people/bob/mia', 'legacy'],
  ['/people/bob/x?who=mia', 'legacy'],
] as const)('row 5: %s is judged and sent as the same bytes, to %s', async (target, store) => {
  const write = requestText(`POST ${target}`, { lines: ['Content-Length: 0'] });
  expect(statusOf(await rig.exchange(write))).toBe(200);
  expect(startLines()).toEqual({ legacy: [], app: [], [store]: [`POST ${target} HTTP/1.1`] });
});

test.each([
  '/ADMIN/x',
  '/Admin/x',
  '//admin/x',
  '/admin;x/x',
  '/people//mia/x',
  '/people/mia;x/x',
  '/PEOPLE/mia/x',
  '/admin.json',
  '/people/mia.json',
  '/people/mi%FFa/x',
  '/%FFadmin/x',
  '/people/mi%C1%A1/x',
])(
  'row 5: %s, which only some servers take for a path of that route or partition, is 400',
  async (target) => {
    const write = requestText(`POST ${target}`, { lines: ['Content-Length: 0'] });
    expect(statusOf(await rig.exchange(write))).toBe(400);
    expect(startLines()).toEqual({ legacy: [], app: [] });
  },
);

test.each([
  'shop.example/../admin',
  'shop.example/admin',
  'a b',
  'user@shop.example',
  'shop.example#a',
  'shop.example?a',
  'shop.example\\admin',
  'shop.example, other.example',
  'shop.example:80:80',
  'shop.example:80a',
  '[::1',
  '<shop>',
])('row 5: the Host "%s", which is none, is 400 and reaches no store', async (host) => {
  const answer = await rig.exchange(
    `POST /a HTTP/1.1\r\nHost: ${host}\r\nx-user: ann\r\nContent-Length: 0\r\n\r\n`,
  );
  expect(statusOf(answer)).toBe(400);
  expect(startLines()).toEqual({ legacy: [], app: [] });
});

test.each([
  'shop.example',
  'SHOP.example:8080',
  'shop.example.',
  'shop_internal',
  '127.0.0.1:80',
  '[::1]',
  '[::1]:8080',
  'xn--bcher-kva.example',
  'shop.example:',
  '',
])('row 5: the Host "%s" is taken', async (host) => {
  const answer = await rig.exchange(
    `POST /a HTTP/1.1\r\nHost: ${host}\r\nx-user: ann\r\nContent-Length: 0\r\n\r\n`,
  );
  expect(statusOf(answer)).toBe(200);
  expect(startLines()).toEqual({ legacy: ['POST /a HTTP/1.1'], app: [] });
});
