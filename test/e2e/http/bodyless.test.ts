/** Answers without a body: what a store says about one is passed on, and no byte of one is. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { answerOk, statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const wrong = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong';

const answers: readonly (readonly [
  what: string,
  method: string,
  bytes: string,
  framing: readonly string[],
])[] = [
  ['HEAD with a length', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n', ['Content-Length: 500']],
  ['HEAD with a length of 0', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', ['Content-Length: 0']],
  ['HEAD without a length', 'HEAD', 'HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n', []],
  ['HEAD of a missing page', 'HEAD', 'HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n', ['Content-Length: 9']],
  ['HEAD that announces trailers', 'HEAD', 'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n\r\n', []],
  ['204 that announces trailers', 'GET', 'HTTP/1.1 204 No Content\r\nTrailer: X-Sum\r\n\r\n', []],
  ['204', 'GET', 'HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n', []],
  ['204 to DELETE', 'DELETE', 'HTTP/1.1 204 No Content\r\n\r\n', []],
  ['304', 'GET', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', []],
  [
    '304 with a length',
    'GET',
    'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n',
    ['Content-Length: 500'],
  ],
  ['304 to HEAD', 'HEAD', 'HTTP/1.1 304 Not Modified\r\n\r\n', []],
  [
    '205 with a length of 0',
    'POST',
    'HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n',
    ['Content-Length: 0'],
  ],
  ['200 with a length of 0', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', ['Content-Length: 0']],
];

test.each(answers)(
  'row 12: %s carries no body, and the connection goes on',
  async (_what, method, bytes, framing) => {
    rig.legacy.answer = (_request, socket) => void socket.write(bytes);
    const client = await rig.connect();
    client.send(requestText(`${method} /a`, { lines: method === 'POST' ? ['Content-Length: 0'] : [] }));
    const answer = await client.answer({ bodyless: true });
    expect(answer.startLine).toBe(bytes.split('\r\n')[0]);
    expect(answer.headers.filter((line) => /^content-length:/i.test(line))).toEqual(framing);
    if (method !== 'HEAD')
      expect(answer.headers.filter((line) => /^transfer-encoding:/i.test(line))).toEqual([]);
    rig.legacy.answer = answerOk;
    client.send(requestText('GET /b'));
    const next = await client.answer();
    expect([statusOf(next), next.body, client.received]).toEqual([200, 'ok', '']);
  },
);

/** A server that sends a body where none can be: whoever reads on takes it for the next answer. */
const bodied: readonly (readonly [what: string, method: string, head: string])[] = [
  ['HEAD', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'],
  ['HEAD in chunks', 'HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n'],
  ['204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n'],
  ['204 with a length', 'GET', 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n'],
  ['204 in chunks', 'GET', 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n'],
  ['304', 'GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n'],
  ['304 in chunks', 'GET', 'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n'],
];

test.each(bodied)(
  'row 12: %s with a body reaches its client without it, and nobody else gets it',
  async (_what, method, head) => {
    rig.legacy.answer = (_request, socket) => void socket.write(head + wrong);
    const client = await rig.connect();
    client.send(requestText(`${method} /a`));
    const answer = await client.answer({ bodyless: true });
    expect(answer.startLine).toBe(head.split('\r\n')[0]);
    // RFC 9110, 8.6: no length in a 204.
    if (head.includes(' 204 '))
      expect(answer.headers.filter((line) => /^(content-length|transfer)/i.test(line))).toEqual([]);
    rig.legacy.answer = answerOk;
    for (const path of ['/b', '/c']) {
      client.send(requestText(`GET ${path}`));
      const next = await client.answer();
      expect([statusOf(next), next.body]).toEqual([200, 'ok']);
    }
    const [other] = await Promise.all([rig.exchange(requestText('GET /d', { user: 'bob' }))]);
    expect(other.body).toBe('ok');
    expect(client.received).toBe('');
  },
);

test.each([
  [
    'HTTP/1.0 to HEAD',
    'HEAD /a HTTP/1.0\r\nx-user: ann\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n',
  ],
  ['HTTP/1.0 to GET', 'GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n', 'HTTP/1.1 204 No Content\r\n\r\n'],
  [
    'a client that closes',
    requestText('GET /a', { lines: ['Connection: close'] }),
    'HTTP/1.1 304 Not Modified\r\n\r\n',
  ],
])('row 12: without a body ends in order for %s', async (_what, request, bytes) => {
  rig.legacy.answer = (_request, socket) => void socket.write(bytes);
  const client = await rig.connect();
  client.send(request);
  expect(await client.toTheEnd()).toMatch(/^HTTP\/1\.1 (200|204|304) [^]*\r\n\r\n$/);
  expect(client.ending).toBe('fin');
});

test('row 12: our own answers to HEAD have no body either', async () => {
  const client = await rig.connect();
  client.send(requestText('HEAD /a/../b'));
  const answer = await client.answer({ bodyless: true });
  expect(statusOf(answer)).toBe(400);
  client.send(requestText('GET /b'));
  expect((await client.answer()).body).toBe('ok');
});
