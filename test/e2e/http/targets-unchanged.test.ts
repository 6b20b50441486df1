/** Targets that other proxies tidy up, byte for byte as the client sent them; and the methods that end here. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, statusOf } from '../../support/raw-http.ts';
import { HttpRig, problemOf, requestText, storeNames } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: {
      routes: [
        { path: '/pinned/*', store: 'app' },
        { path: '/people/:who/*', partition: 'path.who' },
      ],
    },
  });
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const odd = [
  '//',
  '///a////b//',
  '//a.example//b',
  '/%2F',
  '/%2f%2F',
  '/a%2Fb',
  '/projects/group%2Fname/x',
  '/a%2fb%2fc?d=%2F',
  '/%5C',
  '/a%5cb',
  '/\\',
  '/a\\b',
  '/a\\\\b\\',
  '/%zz',
  '/%',
  '/%2',
  '/%%41',
  '/%u0041',
  '/a%252Fb%255c',
  '/a%252e%252eb/a',
  '/;',
  '/a;b;c=d',
  '/;/a;',
  '/a;b=c%3Bd/e',
  '/?',
  '/??',
  '/a?',
  '/a?b?c',
  '/?&&',
  '/a?&&b&&c=&&=d',
  '/a?b=1&b=2&b=1',
  '/a?b[]=1&b[x]=2',
  '/a?b=c;d=e',
  '/a?b=%zz&c=%',
  '/a?b=\\&c=/../..',
  '/a?b=http://x.example/y',
  '/a?+b+=+c+',
  '/a+b',
  '/a,b',
  '/a:b@c',
  "/!$&'()*+,;=:@",
  '/"<>^`{|}',
  '/a?"<>^`{|}\\',
  '/~user/.hidden/a..b/...',
  '/%C3%A9/%E9/%c3',
  '/ÿ'.replace('ÿ', '%FF%FE'),
  '/UPPER/lower/MiXeD%aA',
  '/a/',
  '/*',
  '/index.php/a/b?c',
  '/@scope%2Fpackage',
  '/a%20b%20',
  `/${'deep/'.repeat(400)}`,
  `/?${'k=v&'.repeat(1_000)}`,
];

describe.each(storeNames)('row 18: at %s', (store) => {
  const user = store === 'app' ? 'app-user' : 'ann';
  test.each(odd)('%s is what the store gets, read and write', async (target) => {
    expect(statusOf(await rig.exchange(requestText(`GET ${target}`, { user })))).toBe(200);
    const write = requestText(`PUT ${target}`, { user, lines: ['Content-Length: 2'], body: 'hi' });
    expect(statusOf(await rig.exchange(write))).toBe(200);
    const startLines = rig.store(store).requests.map(({ startLine }) => startLine);
    expect(startLines).toEqual([`GET ${target} HTTP/1.1`, `PUT ${target} HTTP/1.1`]);
  });
});

test('row 18: so it is behind the path of the store', async () => {
  const behind = await HttpRig.start({ prefix: '/base%2Fpath' });
  try {
    for (const target of ['//', '/a%2Fb', '/%zz', '/a\\b?', '/;']) {
      behind.forget();
      expect(statusOf(await behind.exchange(requestText(`GET ${target}`)))).toBe(200);
      expect(behind.legacy.requests[0]?.startLine).toBe(`GET /base%2Fpath${target} HTTP/1.1`);
    }
  } finally {
    await behind.stop();
  }
}, 60_000);

describe('row 18: where a route could be meant,', () => {
  test.each([
    '/pinned%2Fa',
    '/PINNED%2fa',
    '/pinned%5Ca',
    '/pinned\\a',
    '/people/ann%2Fx',
    '/people/a%2Fb/x',
    '/people\\ann\\x',
    '/%70inned%2F',
  ])('%s is refused', async (target) => {
    const answer = await rig.exchange(requestText(`GET ${target}`));
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([400, 'bad-target']);
    expect(rig.legacy.bytes + rig.app.bytes).toBe('');
  });

  test.each(['/pinned/a%2Fb', '/pinned/a\\b', '/people/app-user/a%2Fb', '/people/app-user/a%5Cb'])(
    '%s is not: every reading goes to the same place',
    async (target) => {
      expect(statusOf(await rig.exchange(requestText(`GET ${target}`)))).toBe(200);
      expect(rig.app.requests.map(({ startLine }) => startLine)).toEqual([`GET ${target} HTTP/1.1`]);
    },
  );
});

describe('row 19: CONNECT', () => {
  test.each([
    'CONNECT shop.example:443 HTTP/1.1',
    'CONNECT 127.0.0.1:22 HTTP/1.1',
    'CONNECT shop.example HTTP/1.1',
    'CONNECT shop.example:443 HTTP/1.0',
  ])('%s gets 405, and its connection is closed', async (startLine) => {
    const client = await rig.connect();
    client.send(`${startLine}\r\nHost: shop.example\r\nx-user: ann\r\n\r\nmore bytes`);
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(405);
    expect(problemOf(answer)).toMatchObject({ code: 'method-not-allowed', status: 405 });
    expect(headerOf(answer, 'allow')).toContain('GET');
    await client.toTheEnd();
    expect(client.received).toBe('');
    expect(rig.legacy.connections + rig.app.connections).toBe(0);
  });

  test('behind a request that is not answered yet is answered after it', async () => {
    let reply = (): void => {};
    rig.legacy.answer = (_request, socket) => {
      reply = () => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst');
    };
    const client = await rig.connect();
    client.send(requestText('GET /a'));
    client.send('CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    await rig.counted('requests_under_way', 1);
    expect(client.received).toBe('');
    reply();
    expect((await client.answer()).body).toBe('first');
    expect(statusOf(await client.answer())).toBe(405);
  });
});

describe('row 19: TRACE', () => {
  test.each(['/', '/a?b', '*', '/pinned/a', '/.well-known/onewriter/health'])(
    '%s gets 405',
    async (target) => {
      const answer = await rig.exchange(requestText(`TRACE ${target}`, { lines: ['Cookie: secret=1'] }));
      expect(statusOf(answer)).toBe(405);
      expect(problemOf(answer)['code']).toBe('method-not-allowed');
      expect(answer.body).not.toContain('secret');
      expect(rig.legacy.bytes + rig.app.bytes).toBe('');
    },
  );

  test('also in the form of a method override reaches no store as TRACE', async () => {
    const lines = ['X-HTTP-Method-Override: TRACE', 'Content-Length: 0'];
    expect(statusOf(await rig.exchange(requestText('POST /a', { lines })))).toBe(200);
    expect(rig.legacy.requests[0]?.startLine).toBe('POST /a HTTP/1.1');
  });
});

describe('row 19: OPTIONS', () => {
  test('* is answered by the proxy, for everybody, and the connection goes on', async () => {
    const client = await rig.connect();
    client.send(requestText('OPTIONS *', { user: null }));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(204);
    expect(headerOf(answer, 'allow')).toMatch(/GET.*POST.*OPTIONS/);
    expect(headerOf(answer, 'content-length')).toBeUndefined();
    client.send(requestText('GET /a'));
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.requests).toHaveLength(1);
  });

  test('of a path is for the store', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 204 No Content\r\nAllow: GET, MKCALENDAR\r\n\r\n');
    const answer = await rig.exchange(requestText('OPTIONS /a'));
    expect(headerOf(answer, 'allow')).toBe('GET, MKCALENDAR');
    expect(rig.legacy.requests[0]?.startLine).toBe('OPTIONS /a HTTP/1.1');
  });
});

test.each([
  'GET',
  'HEAD',
  'PUT',
  'DELETE',
  'PROPFIND',
  'MKCALENDAR',
  'MOVE',
  'QUERY',
  'PURGE',
  'M-SEARCH',
  'LINK',
])('row 19: %s reaches the store as it is', async (method) => {
  const answer = await rig.exchange(requestText(`${method} /a`, { lines: ['Content-Length: 0'] }));
  expect(statusOf(answer)).toBe(200);
  expect(rig.legacy.requests[0]?.startLine).toBe(`${method} /a HTTP/1.1`);
});

test.each(['BREW', 'get', 'G@T'])('row 19: %s, which is no method of HTTP here, gets 400', async (method) => {
  const answer = await rig.exchange(requestText(`${method} /a`));
  expect([statusOf(answer), problemOf(answer)['code']]).toEqual([400, 'bad-request']);
  expect(rig.legacy.bytes).toBe('');
});
