/** In which form requests reach a store and its answers leave it, byte for byte, between raw sockets. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { openKeys } from '../support/idempotency.ts';
import { startRedis } from '../support/redis.ts';
import { exchange, headerOf, type RawAnswer, RawClient, type RawMessage } from '../support/raw-http.ts';

let rig: ProxyRig | undefined;
afterEach(async () => rig?.stop());

const get = (target = '/a', ...headers: readonly string[]): string =>
  [`GET ${target} HTTP/1.1`, 'Host: shop.example', 'x-user: ann', ...headers, '', ''].join('\r\n');

function answering(...headers: readonly string[]): RawAnswer {
  return (_request, socket) =>
    void socket.write(['HTTP/1.1 200 OK', ...headers, 'Content-Length: 2', '', 'ok'].join('\r\n'), 'latin1');
}

async function sentBy(request: string): Promise<readonly string[]> {
  if (rig === undefined) throw new Error('no rig');
  await exchange(rig.port, request);
  return rig.legacy.requests[0]?.headers ?? [];
}

const without = (message: Pick<RawMessage, 'headers'>, names: RegExp): readonly string[] =>
  message.headers.filter((line) => !names.test(line));

describe('headers of requests', () => {
  test('are set and removed, and all others keep order, case and number', async () => {
    rig = await startRig({
      legacy: { headers: { set: { Authorization: 'Bearer ours' }, remove: ['X-Tracking'] } },
    });
    const sent = await sentBy(
      get('/a', 'B-Field: 1', 'authorization: Bearer theirs', 'a-FIELD: x', 'X-tracking: 7', 'B-Field: 2'),
    );
    expect(without({ headers: sent }, /^(host|connection|x-forwarded)/i)).toEqual([
      'x-user: ann',
      'B-Field: 1',
      'a-FIELD: x',
      'B-Field: 2',
      'Authorization: Bearer ours',
    ]);
  });

  test('a header in another spelling, which gateways take for the same, is replaced with it', async () => {
    rig = await startRig({ legacy: { headers: { set: { 'X-Api-Key': 'ours' } } } });
    const sent = await sentBy(get('/a', 'X_Api_Key: theirs', 'x-api-key: theirs', 'x-API-key: theirs'));
    expect(sent.filter((line) => /api.key/i.test(line))).toEqual(['X-Api-Key: ours']);
  });

  test('are changed for the one store only', async () => {
    rig = await startRig({ legacy: { headers: { set: { 'X-Api-Key': 'ours' } } } });
    rig.gate.move('ann', 'app');
    await exchange(rig.port, get('/a', 'X-Api-Key: theirs'));
    expect(headerOf(rig.app.requests[0] ?? { headers: [] }, 'x-api-key')).toBe('theirs');
  });
});

describe('headers of answers', () => {
  test('are set and removed, and all others keep order, case and number', async () => {
    rig = await startRig({
      answer: answering('Server: secret/1.2', 'x-ONE: 1', 'Set-Cookie: a=1', 'Strict: no', 'Set-Cookie: b=2'),
      legacy: { answerHeaders: { set: { strict: 'yes' }, remove: ['server'] } },
    });
    const answer = await exchange(rig.port, get());
    expect(without(answer, /^(connection|keep-alive)/i)).toEqual([
      'x-ONE: 1',
      'Set-Cookie: a=1',
      'Set-Cookie: b=2',
      'Content-Length: 2',
      'strict: yes',
    ]);
  });

  test('what is removed is not said in early hints or trailers either', async () => {
    rig = await startRig({
      legacy: { answerHeaders: { remove: ['X-Secret'] } },
      answer: (_request, socket) =>
        void socket.write(
          'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Secret: 1\r\n\r\n' +
            'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Secret\r\n\r\n2\r\nok\r\n0\r\nX-Secret: 1\r\nX-End: 1\r\n\r\n',
        ),
    });
    const client = await RawClient.open(rig.port);
    client.send(get());
    await client.until(() => client.received.includes('X-End: 1'));
    expect(client.received).toContain('103 Early Hints');
    expect(client.received).not.toMatch(/^x-secret/im);
    client.close();
  });
});

describe('Host', () => {
  test.each([
    ['store', undefined],
    ['preserve', 'shop.example'],
    ['platform.example:8443', 'platform.example:8443'],
  ])('with host %s the store sees its own, the same, or that one', async (host, expected) => {
    rig = await startRig({ legacy: { host } });
    const sent = await sentBy(get());
    expect(sent.filter((line) => /^host:/i.test(line)).map((line) => line.slice(6))).toEqual([
      expected ?? `127.0.0.1:${rig.legacy.port}`,
    ]);
    expect(headerOf({ headers: sent }, 'x-forwarded-host')).toBe('shop.example');
  });

  test('a preserved one does not decide where the connection goes', async () => {
    rig = await startRig({ legacy: { host: 'preserve' } });
    const elsewhere = `[::ffff:127.0.0.1]:${rig.app.port}`;
    const { startLine } = await exchange(rig.port, get().replace('shop.example', elsewhere));
    expect([startLine, rig.legacy.connections, rig.app.connections]).toEqual(['HTTP/1.1 200 OK', 1, 0]);
  });
});

describe('Location, Content-Location and Refresh', () => {
  const naming: RawAnswer = (request, socket, upstream) => {
    const { url } = upstream;
    answering(
      `Location: ${url}/api/made/1?x=%2f`,
      `content-LOCATION: /api/made/1`,
      `Refresh: 3; url="${url}/api/wait"`,
      `Link: <${url}/api/x>; rel=next`,
    )(request, socket, upstream);
  };

  test("of a store with a path become the client's, which has none", async () => {
    rig = await startRig({ answer: naming, prefix: '/api' });
    const answer = await exchange(rig.port, get('/x'));
    expect(rig.legacy.requests[0]?.startLine).toBe('GET /api/x HTTP/1.1');
    expect(answer.headers.slice(0, 4)).toEqual([
      'Location: http://shop.example/made/1?x=%2f',
      'content-LOCATION: /made/1',
      'Refresh: 3; url="http://shop.example/wait"',
      `Link: <${rig.legacy.url}/api/x>; rel=next`,
    ]);
  });

  test('stay as they are where the store does not ask for it', async () => {
    rig = await startRig({ answer: naming, prefix: '/api', legacy: { rewrite: { location: false } } });
    const answer = await exchange(rig.port, get('/x'));
    expect(headerOf(answer, 'location')).toBe(`${rig.legacy.url}/api/made/1?x=%2f`);
  });

  test('name the client by what a trusted proxy before says, and by nobody else', async () => {
    const told = get('/x', 'X-Forwarded-Proto: https', 'X-Forwarded-Host: public.example');
    rig = await startRig({ answer: naming, prefix: '/api' });
    expect(headerOf(await exchange(rig.port, told), 'location')).toMatch(/^http:\/\/shop\.example\//);
    await rig.stop();
    rig = await startRig({
      answer: naming,
      prefix: '/api',
      config: { proxy: { port: 0, trustedProxies: ['127.0.0.0/8'] } },
    });
    expect(headerOf(await exchange(rig.port, told), 'location')).toMatch(/^https:\/\/public\.example\//);
  });

  test('a store that sees another name for itself is known by it, too', async () => {
    rig = await startRig({
      answer: answering('Location: http://platform.example/made'),
      legacy: { host: 'platform.example', rewrite: { location: true } },
    });
    expect(headerOf(await exchange(rig.port, get()), 'location')).toBe('http://shop.example/made');
  });

  test('of an answer that is given again follow the client that repeats the write', async () => {
    const redis = await startRedis();
    const opened = await openKeys(redis);
    rig = await startRig({ answer: naming, prefix: '/api', keys: opened.keys });
    const write = (host: string): string =>
      `POST /x HTTP/1.1\r\nHost: ${host}\r\nx-user: ann\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\nhi`;
    expect(headerOf(await exchange(rig.port, write('one.example')), 'location')).toMatch(/one\.example/);
    const again = await exchange(rig.port, write('two.example'));
    expect(headerOf(again, 'idempotency-replayed')).toBe('true');
    expect(headerOf(again, 'location')).toBe('http://two.example/made/1?x=%2f');
    opened.close();
    await redis.stop();
  });
});

describe('cookies', () => {
  test('get the domain and path of the client, each for itself and in order', async () => {
    rig = await startRig({
      answer: answering(
        'Set-Cookie: a=1; Domain=.Platform.example; Path=/api/x; Secure',
        'X-Between: 1',
        'set-cookie: b=2;domain=other.example;HttpOnly',
        'Set-Cookie: c=3; Path=/apix',
        'Set-Cookie: d="platform.example; Domain"; Max-Age=1',
      ),
      legacy: {
        rewrite: {
          cookieDomain: { 'platform.example': 'shop.example', '*': '' },
          cookiePath: { '/api': '/' },
        },
      },
    });
    const answer = await exchange(rig.port, get());
    expect(answer.headers.slice(0, 5)).toEqual([
      'Set-Cookie: a=1; Domain=shop.example; Path=/x; Secure',
      'X-Between: 1',
      'set-cookie: b=2;HttpOnly',
      'Set-Cookie: c=3; Path=/apix',
      'Set-Cookie: d="platform.example; Domain"; Max-Age=1',
    ]);
  });
});

test('an upgrade and its answer take the same form as a request and its answer', async () => {
  rig = await startRig({
    answer: (_request, socket) =>
      void socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nServer: secret/1.2\r\nSet-Cookie: a=1; Domain=old.example\r\nSet-Cookie: b=2\r\n\r\n',
      ),
    legacy: {
      headers: { set: { 'X-Api-Key': 'ours' } },
      answerHeaders: { remove: ['Server'] },
      host: 'preserve',
      rewrite: { cookieDomain: { 'old.example': 'shop.example' } },
    },
  });
  const client = await RawClient.open(rig.port);
  client.send(
    get('/live', 'X-Api-Key: theirs', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x'),
  );
  await client.until(() => client.received.includes('\r\n\r\n'));
  const sent = rig.legacy.requests[0] ?? { headers: [] };
  expect([headerOf(sent, 'host'), headerOf(sent, 'x-api-key')]).toEqual(['shop.example', 'ours']);
  expect(client.received).not.toMatch(/^server:/im);
  expect(client.received.match(/^set-cookie: .*$/gim)).toEqual([
    'Set-Cookie: a=1; Domain=shop.example',
    'Set-Cookie: b=2',
  ]);
  client.close();
});

test('an upgrade that the store sends elsewhere is sent there as the client knows it', async () => {
  rig = await startRig({
    answer: (_request, socket, { url }) =>
      void socket.write(`HTTP/1.1 302 Found\r\nLocation: ${url}/api/other\r\nContent-Length: 0\r\n\r\n`),
    prefix: '/api',
  });
  const answer = await exchange(
    rig.port,
    get('/live', 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x'),
  );
  expect(headerOf(answer, 'location')).toBe('http://shop.example/other');
});
