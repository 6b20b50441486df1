import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type ObserveRig, startObserveRig } from '../support/observe.ts';
import { answerOk, exchange, RawClient } from '../support/raw-http.ts';
import { closedPort } from '../support/unreachable.ts';
import { until } from '../support/until.ts';

let rig: ObserveRig;

beforeAll(async () => {
  rig = await startObserveRig({
    legacy: { host: 'preserve' },
    config: {
      identity: [
        { header: 'x-user', from: ['127.0.0.0/8'] },
        { body: '_session', from: ['127.0.0.0/8'] },
      ],
      routes: [
        { path: '/graphql', graphql: true },
        { path: '/calendars/:owner/*', partition: 'path.owner' },
      ],
    },
  });
});

afterAll(async () => rig.stop());

beforeEach(() => {
  rig.legacy.bytes = '';
  rig.legacy.answer = answerOk;
});

const lines = (...all: string[]): string => `${all.join('\r\n')}\r\n\r\n`;

/** What legacy is sent: the client's bytes, and three lines at the end of the head. */
function passed(bytes: string, host: string | undefined): string {
  const end = bytes.indexOf('\r\n\r\n');
  const added = ['X-Forwarded-For: 127.0.0.1', 'X-Forwarded-Proto: http'];
  if (host !== undefined) added.push(`X-Forwarded-Host: ${host}`);
  return `${bytes.slice(0, end)}\r\n${added.join('\r\n')}${bytes.slice(end)}`;
}

/** Sends the bytes, and waits until legacy has so many. */
async function sent(bytes: string, wanted: string): Promise<string> {
  const client = await RawClient.open(rig.port);
  client.send(bytes);
  await until('legacy has it', () => rig.legacy.bytes.length >= wanted.length, 3_000).catch(() => undefined);
  client.close();
  return rig.legacy.bytes;
}

const odd: readonly (readonly [what: string, bytes: string])[] = [
  [
    'headers in an order, case and number of their own',
    lines(
      'GET /a HTTP/1.1',
      'x-FIRST: 1',
      'HOST: h',
      'Cookie: a=1',
      'x-first: 2',
      'Cookie: b=2',
      'X-Empty: ',
      'X-High: \xe9\xff',
    ),
  ],
  [
    'a path that no proxy should judge',
    lines('GET /a/../b//c;v=1/%2f%2e%2e/%00?q=%zz&q=[{}]| HTTP/1.1', 'Host: h'),
  ],
  [
    'a path of the guard',
    lines('POST /.well-known/onewriter/guard/advance HTTP/1.1', 'Host: h', 'Content-Length: 0'),
  ],
  [
    'what only onewriter says',
    lines('GET /a HTTP/1.1', 'Host: h', 'Onewriter-User: u9', 'Onewriter-Epoch: 7'),
  ],
  [
    'what counts for one hop',
    lines(
      'GET /a HTTP/1.1',
      'Host: h',
      'Connection: keep-alive, X-Own',
      'X-Own: 1',
      'Keep-Alive: timeout=5',
      'TE: trailers',
      'Proxy-Authorization: x',
    ),
  ],
  ['two hosts', lines('GET /a HTTP/1.1', 'Host: h', 'Host: other')],
  ['a target with a scheme', lines('GET http://other/a HTTP/1.1', 'Host: h')],
  ['OPTIONS *', lines('OPTIONS * HTTP/1.1', 'Host: h')],
  [
    'bytes beyond ASCII before a body that is waited for',
    `${lines('PUT /a HTTP/1.1', 'Host: h', 'X-High: \xe9', 'Expect: 100-continue', 'Content-Length: 1')}a`,
  ],
  ['TRACE', lines('TRACE /a HTTP/1.1', 'Host: h')],
  ['a method of WebDAV', lines('MKCALENDAR /a HTTP/1.1', 'Host: h', 'Content-Length: 0')],
  ['QUERY with a body', `${lines('QUERY /a HTTP/1.1', 'Host: h', 'Content-Length: 3')}abc`],
  ['GET with a body', `${lines('GET /a HTTP/1.1', 'Host: h', 'Content-Length: 3')}abc`],
  ['POST that says nothing of a body', lines('POST /a HTTP/1.1', 'Host: h')],
  [
    'a body in a chunk, with trailers',
    `${lines('DELETE /a HTTP/1.1', 'Host: h', 'Trailer: X-Sum', 'Transfer-Encoding: chunked')}4\r\nwiki\r\n0\r\nX-Sum: 1\r\n\r\n`,
  ],
  [
    'a coded body',
    `${lines('PUT /a HTTP/1.1', 'Host: h', 'Transfer-Encoding: gzip, chunked')}2\r\n\x1f\x8b\r\n0\r\n\r\n`,
  ],
  [
    'a trailer that is announced without chunks',
    `${lines('PUT /a HTTP/1.1', 'Host: h', 'Content-Length: 1')}a`,
  ],
  [
    'a body that is no JSON, where JSON is looked for',
    `${lines('POST /graphql HTTP/1.1', 'Host: h', 'X-User: u1', 'Content-Type: application/json', 'Content-Length: 5')}{"a":`,
  ],
  [
    'a body that names nobody, where somebody is looked for',
    `${lines('POST /a HTTP/1.1', 'Host: h', 'Content-Type: application/json', 'Content-Length: 2')}{}`,
  ],
  [
    'a credential twice',
    lines('PUT /a HTTP/1.1', 'Host: h', 'X-User: u1', 'X-User: u2', 'Content-Length: 0'),
  ],
  [
    'a bad Idempotency-Key',
    lines('PUT /a HTTP/1.1', 'Host: h', 'X-User: u1', 'Idempotency-Key: ', 'Content-Length: 0'),
  ],
  ['nobody’s write', lines('PUT /a HTTP/1.1', 'Host: h', 'Content-Length: 0')],
  ['a very long header', lines('GET /a HTTP/1.1', 'Host: h', `X-Long: ${'x'.repeat(100_000)}`)],
  ['a very long target', lines(`GET /a?${'x'.repeat(60_000)} HTTP/1.1`, 'Host: h')],
];

describe('legacy gets what the client sent, byte for byte', () => {
  test.each(odd)('%s', async (_what, bytes) => {
    expect(await sent(bytes, passed(bytes, 'h'))).toBe(passed(bytes, 'h'));
  });

  test('a client of HTTP/1.0 that names no host is passed on under the store’s name', async () => {
    const bytes = lines('GET /a HTTP/1.0', 'X-One: 1');
    const named = lines('GET /a HTTP/1.1', `Host: 127.0.0.1:${rig.legacy.port}`, 'X-One: 1');
    expect(await sent(bytes, passed(named, undefined))).toBe(passed(named, undefined));
  });

  test('so is one of HTTP/1.1 that breaks the rule to name one', async () => {
    const bytes = lines('GET /a HTTP/1.1', 'X-One: 1');
    const named = lines('GET /a HTTP/1.1', `Host: 127.0.0.1:${rig.legacy.port}`, 'X-One: 1');
    expect(await sent(bytes, passed(named, undefined))).toBe(passed(named, undefined));
  });

  test('an offer of HTTP/2 ends here, and its request goes on', async () => {
    const bytes = `${lines('POST /a HTTP/1.1', 'Host: h', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk', 'Content-Length: 2')}ab`;
    const without = `${lines('POST /a HTTP/1.1', 'Host: h', 'Content-Length: 2')}ab`;
    expect(await sent(bytes, passed(without, 'h'))).toBe(passed(without, 'h'));
  });
});

const answers: readonly (readonly [what: string, bytes: string, request?: string])[] = [
  [
    'with a length',
    'HTTP/1.1 200 Fine Thing\r\nserver: x\r\nSERVER: y\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok',
  ],
  [
    'in a chunk with a trailer',
    'HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n',
  ],
  [
    'that counts for one hop, too',
    'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=7\r\nOnewriter-Epoch: 3\r\nContent-Length: 0\r\n\r\n',
  ],
  ['to HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n', lines('HEAD /a HTTP/1.1', 'Host: h')],
  ['without a body', 'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n'],
  ['that nobody knows', 'HTTP/1.1 799 \xe9\r\nContent-Length: 0\r\n\r\n'],
];

describe('the client gets what legacy answered, byte for byte', () => {
  test.each(answers)('%s', async (_what, bytes, request = lines('GET /a HTTP/1.1', 'Host: h')) => {
    rig.legacy.answer = (_request, socket) => void socket.write(bytes, 'latin1');
    const client = await RawClient.open(rig.port);
    client.send(request);
    await client.until(() => client.received.length >= bytes.length);
    expect(client.received).toBe(bytes);
    client.close();
  });

  test.each([
    ['that ends with the connection', 'HTTP/1.1 200 OK\r\n\r\nuntil the end'],
    ['that announces the end', 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'],
    ['of an older server', 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nold'],
  ])('%s, and then the client’s connection ends, too', async (_what, bytes) => {
    rig.legacy.answer = (_request, socket) => void socket.end(bytes);
    const client = await RawClient.open(rig.port);
    client.send(lines('GET /a HTTP/1.1', 'Host: h'));
    await client.until(() => client.closed);
    expect(client.received).toBe(bytes);
  });

  test('interim answers come before it', async () => {
    const bytes =
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
    rig.legacy.answer = (_request, socket) => void socket.write(bytes);
    const client = await RawClient.open(rig.port);
    client.send(lines('GET /a HTTP/1.1', 'Host: h'));
    await client.until(() => client.received.toLowerCase() === bytes.toLowerCase());
    client.close();
  });

  test('lines that end without CR, and two lengths, as clients have put up with so far', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(
        'HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 9\n\n2\r\nok\r\n0\r\n\r\n',
      );
    const client = await RawClient.open(rig.port);
    client.send(lines('GET /a HTTP/1.1', 'Host: h'));
    await client.until(() => client.received.endsWith('0\r\n\r\n'));
    expect(client.received).toBe('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n');
    client.close();
  });
});

describe('what legacy would believe because of who it comes from', () => {
  const told = [
    ...[
      'X-User: admin',
      'X_User: admin',
      'X-Forwarded-For: 10.9.9.9',
      'X-Forwarded-Port: 1',
      'X_Forwarded_Host: evil',
    ],
    ...['Forwarded: for=10.9.9.9', 'X-Real-IP: 10.9.9.9', 'X-Original-URL: /admin', 'X-Rewrite-URL: /admin'],
  ];

  async function gotFrom(
    config: Record<string, unknown>,
    proxy: Record<string, unknown>,
  ): Promise<readonly string[]> {
    const one = await startObserveRig({ config, proxy, legacy: { host: 'preserve' } });
    await exchange(one.port, lines('GET /a HTTP/1.1', 'Host: h', ...told, 'X-Other: 1'));
    const headers = one.legacy.requests[0]?.headers ?? [];
    await one.stop();
    return headers;
  }

  test('ends here, where it was said by somebody else', async () => {
    const elsewhere = ['10.0.0.0/8'];
    expect(await gotFrom({ identity: [{ header: 'x-user', from: elsewhere }] }, {})).toEqual([
      ...[
        'Host: h',
        'X-Other: 1',
        'X-Forwarded-For: 127.0.0.1',
        'X-Forwarded-Proto: http',
        'X-Forwarded-Host: h',
      ],
    ]);
  });

  test('is passed on from those who may say it', async () => {
    const here = ['127.0.0.0/8'];
    const proxy = { trustedProxies: here };
    expect(await gotFrom({ identity: [{ header: 'x-user', from: here }] }, proxy)).toEqual([
      ...['Host: h', 'X-User: admin', 'X_User: admin', 'X-Forwarded-Port: 1', 'Forwarded: for=10.9.9.9'],
      ...['X-Real-IP: 10.9.9.9', 'X-Original-URL: /admin', 'X-Rewrite-URL: /admin', 'X-Other: 1'],
      ...['X-Forwarded-For: 10.9.9.9, 127.0.0.1', 'X-Forwarded-Proto: http', 'X-Forwarded-Host: h'],
    ]);
  });

  test('a legacy that nobody can reach is told of once, however many requests it costs', async () => {
    const one = await startObserveRig({ legacy: { url: `http://127.0.0.1:${await closedPort()}` } });
    for (const path of ['/a', '/b', '/c']) await exchange(one.port, lines(`GET ${path} HTTP/1.1`, 'Host: h'));
    const told = one.logged.filter(({ event }) => event === 'upstream.failing');
    expect(told.map(({ fields }) => [fields['store'], fields['stage']])).toEqual([['legacy', 'unreachable']]);
    expect(told[0]?.fields['error']).toContain('ECONNREFUSED');
    await one.stop();
  });

  test('what the configuration sets and removes counts as always', async () => {
    const one = await startObserveRig({
      legacy: {
        headers: { set: { 'X-Key': 'k' }, remove: ['x-other'] },
        answerHeaders: { remove: ['x-secret'] },
      },
      answer: (_request, socket) =>
        void socket.write('HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Length: 0\r\n\r\n'),
      prefix: '/v1',
    });
    const answer = await exchange(one.port, lines('GET /a HTTP/1.1', 'Host: h', 'X-Other: 1', 'X-Key: mine'));
    expect(one.legacy.requests[0]?.startLine).toBe('GET /v1/a HTTP/1.1');
    expect(one.legacy.requests[0]?.headers).toEqual([
      ...[`Host: 127.0.0.1:${one.legacy.port}`, 'X-Forwarded-For: 127.0.0.1', 'X-Forwarded-Proto: http'],
      ...['X-Forwarded-Host: h', 'X-Key: k'],
    ]);
    expect(answer.headers).toEqual(['Content-Length: 0']);
    await one.stop();
  });
});
