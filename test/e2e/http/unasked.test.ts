/** What a store says unasked is nobody's answer: neither that of the client before nor that of the next. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { type RawAnswer, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const answer = (body: string): string => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const stray = answer('SECRET');
const chunks = (body: string): string =>
  `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;

/** Says `first` to /first, and to every other request its path. */
const firstThen =
  (first: string): RawAnswer =>
  ({ startLine }, socket) => {
    const path = startLine.split(' ')[1] ?? '';
    socket.write(path === '/first' ? first : answer(path), 'latin1');
  };

/** Everybody after gets what they asked for, on old connections and new ones, one by one and at once. */
async function othersGetTheirOwn(): Promise<void> {
  const [one, other] = [await rig.connect(), await rig.connect()];
  for (const path of ['/1', '/2', '/3']) {
    one.send(requestText(`GET ${path}`, { user: 'bob' }));
    expect((await one.answer()).body).toBe(path);
  }
  const paths = ['/4', '/5', '/6', '/7'];
  const bodies = await Promise.all(
    paths.map(async (path) => (await rig.exchange(requestText(`GET ${path}`))).body),
  );
  expect(bodies).toEqual(paths);
  other.send(requestText('POST /8', { user: 'eve', lines: ['Content-Length: 0'] }));
  expect((await other.answer()).body).toBe('/8');
  expect([one.received, other.received]).toEqual(['', '']);
}

const firsts: readonly (readonly [what: string, startLine: string, bytes: string, body: string])[] = [
  ['a second answer behind a length', 'GET /first', answer('ok') + stray, 'ok'],
  ['a second answer behind chunks', 'GET /first', chunks('ok') + stray, 'ok'],
  ['three more', 'GET /first', answer('ok') + stray + stray + stray, 'ok'],
  ['half an answer', 'GET /first', `${answer('ok')}HTTP/1.1 200 OK\r\nContent-Le`, 'ok'],
  [
    'more bytes than the length says',
    'GET /first',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSECRET',
    'ok',
  ],
  ['bytes behind the last chunk', 'GET /first', `${chunks('ok')}SECRET`, 'ok'],
  ['line ends behind the length', 'GET /first', `${answer('ok')}\r\n\r\n`, 'ok'],
  ['an answer behind a 204', 'GET /first', `HTTP/1.1 204 No Content\r\n\r\n${stray}`, ''],
  ['an answer behind a 304', 'GET /first', `HTTP/1.1 304 Not Modified\r\n\r\n${stray}`, ''],
  [
    'an answer behind that to HEAD',
    'HEAD /first',
    `HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n${stray}`,
    '',
  ],
  [
    'hints behind an answer',
    'GET /first',
    `${answer('ok')}HTTP/1.1 103 Early Hints\r\nLink: <SECRET>\r\n\r\n`,
    'ok',
  ],
  ['a 100 behind an answer', 'GET /first', `${answer('ok')}HTTP/1.1 100 Continue\r\n\r\n`, 'ok'],
  ['a second answer to a write', 'POST /first', answer('ok') + stray, 'ok'],
];

test.each(firsts)('row 9: %s reaches nobody', async (_what, startLine, bytes, body) => {
  rig.legacy.answer = firstThen(bytes);
  const client = await rig.connect();
  client.send(requestText(startLine, { lines: startLine.startsWith('POST') ? ['Content-Length: 0'] : [] }));
  expect((await client.answer({ bodyless: body === '' })).body).toBe(body);
  await rig.settled();
  await othersGetTheirOwn();
  expect(client.received).toBe('');
  client.send(requestText('GET /9'));
  expect((await client.answer()).body).toBe('/9');
});

test.each([
  ['an answer', stray],
  ['hints', 'HTTP/1.1 103 Early Hints\r\nLink: <SECRET>\r\n\r\n'],
  ['a timeout', 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 6\r\n\r\nSECRET'],
  ['a line end', '\r\n'],
  ['noise', '\x15\x03\x01\x00\x02\x02\x16'],
])('row 9: %s on a connection that lies idle ends it, and reaches nobody', async (_what, bytes) => {
  rig.legacy.answer = firstThen(answer('ok'));
  const client = await rig.connect();
  client.send(requestText('GET /first'));
  expect((await client.answer()).body).toBe('ok');
  const [idle] = rig.legacy.sockets;
  idle?.write(bytes, 'latin1');
  await until('the connection is ended', () => idle?.destroyed);
  await othersGetTheirOwn();
  expect(client.received).toBe('');
});

test('row 9: a store that answers before it is asked has said nothing to the one after', async () => {
  rig.legacy.onConnection = (socket) => void socket.write(stray);
  rig.legacy.answer = firstThen(answer('ok'));
  const early = await rig.exchange(requestText('GET /first'));
  // It came on the connection of this request, so it may have been taken for its answer, but then for no other's.
  expect([200, 502]).toContain(statusOf(early));
  rig.legacy.onConnection = undefined;
  await rig.settled();
  await othersGetTheirOwn();
});

test('row 9: an answer that comes after its client has gone reaches nobody', async () => {
  let late = (): void => undefined;
  rig.legacy.answer = ({ startLine }, socket) => {
    if (startLine.includes('/first')) late = () => void socket.write(stray);
    else firstThen('')({ startLine, headers: [], body: '', trailers: [] }, socket, rig.legacy);
  };
  const client = await rig.connect();
  client.send(requestText('POST /first', { lines: ['Content-Length: 0'] }));
  await until('the store has it', () => rig.legacy.requests.length === 1);
  client.close();
  await rig.settled();
  late();
  await rig.settled();
  await othersGetTheirOwn();
});

test('row 9: answers that come as their clients go reach nobody', async () => {
  const sockets: { write: (text: string) => unknown }[] = [];
  rig.legacy.answer = ({ startLine }, socket) => {
    const path = startLine.split(' ')[1] ?? '';
    if (path === '/first') sockets.push(socket);
    else socket.write(answer(path));
  };
  const clients = await Promise.all([1, 2, 3].map(() => rig.connect()));
  for (const client of clients) client.send(requestText('GET /first'));
  await until('the store has them', () => sockets.length === 3);
  for (const client of clients) client.close();
  for (const socket of sockets) socket.write(stray);
  await rig.settled();
  await othersGetTheirOwn();
});

test('row 9: what has arrived on an idle connection before a request is not taken for its answer', async () => {
  rig.legacy.answer = firstThen(answer('ok'));
  const [one, other] = [await rig.connect(), await rig.connect()];
  for (let round = 0; round < 50; round += 1) {
    one.send(requestText('GET /first'));
    expect((await one.answer()).body).toBe('ok');
    await rig.settled();
    for (const socket of rig.legacy.sockets) await new Promise((resolve) => socket.write(stray, resolve));
    other.send(requestText(`POST /${round}`, { user: 'bob', lines: ['Content-Length: 0'] }));
    expect((await other.answer()).body).toBe(`/${round}`);
  }
  expect([one.received, other.received]).toEqual(['', '']);
});

test('row 9: a connection is given up before its store would end it, where the store says when', async () => {
  rig.legacy.answer = (_request, socket) =>
    void socket.write('HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2\r\nContent-Length: 2\r\n\r\nok');
  await rig.exchange(requestText('GET /a'));
  const [idle] = rig.legacy.sockets;
  await until('it is given up', () => idle?.destroyed);
});
