/** A store that dies in mid-answer: its client must see a broken transfer, never one that looks complete. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { type RawAnswer, type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

type Death = 'an end' | 'a reset';
const deaths: readonly Death[] = ['an end', 'a reset'];

function die(socket: Socket, how: Death): void {
  if (how === 'an end') socket.end();
  else socket.resetAndDestroy();
}

/** Sends the beginning, and dies once the client has what it can have of it. */
async function breakOff(request: string, beginning: string, how: Death): Promise<RawClient> {
  let store: Socket | undefined;
  rig.legacy.answer = (_request, socket) => {
    store ??= socket;
    socket.write(beginning, 'latin1');
  };
  const client = await rig.connect();
  client.send(request);
  await client.until(() => client.received.includes('\r\n\r\n'));
  if (store !== undefined) die(store, how);
  await client.toTheEnd();
  return client;
}

const head = (fields: string): string => `HTTP/1.1 200 OK\r\n${fields}\r\n\r\n`;
const withLength = head('Content-Length: 10');
const inChunks = head('Transfer-Encoding: chunked');

const beginnings: readonly (readonly [where: string, beginning: string])[] = [
  ['before the first byte of a body with a length', withLength],
  ['within a body with a length', `${withLength}hello`],
  ['one byte before the end of a body with a length', `${withLength}helloworl`],
  ['before the first chunk', inChunks],
  ['behind the size of a chunk', `${inChunks}5\r\n`],
  ['within a chunk', `${inChunks}a\r\nhello`],
  ['behind the data of a chunk', `${inChunks}5\r\nhello`],
  ['between two chunks', `${inChunks}5\r\nhello\r\n`],
  ['within the size of the last chunk', `${inChunks}5\r\nhello\r\n0`],
  ['behind the size of the last chunk', `${inChunks}5\r\nhello\r\n0\r\n`],
  ['within the trailers', `${inChunks}5\r\nhello\r\n0\r\nX-Sum: 1\r\n`],
];

const broken = deaths.flatMap((how) => beginnings.map(([where, bytes]) => [how, where, bytes] as const));

test.each(broken)('row 1: %s %s is a broken transfer', async (how, _where, beginning) => {
  const client = await breakOff(requestText('GET /a'), beginning, how);
  expect(client.received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  const [, body = ''] = client.received.split('\r\n\r\n', 2);
  if (/content-length: 10/i.test(client.received)) expect(body.length).toBeLessThan(10);
  else expect(client.received).not.toMatch(/\r\n0\r\n(.*\r\n)*\r\n$/);
  // Nothing that the store did not say: an error text would be taken for data.
  expect('helloworl'.startsWith(body.replaceAll(/(^|\r\n)[0-9a-f]*\r\n/g, '').replace('\r\n', ''))).toBe(
    true,
  );
});

test.each(broken)('row 1: %s %s is a broken transfer for HTTP/1.0', async (how, _where, beginning) => {
  const client = await breakOff('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n', beginning, how);
  expect(client.received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  const length = /content-length: 10/i.test(client.received);
  if (length) expect(client.received.split('\r\n\r\n')[1]?.length).toBeLessThan(10);
  // Without a length only a reset tells it from an end.
  else expect(client.ending).toBe('reset');
});

test.each(['1.1', '1.0'])(
  'row 1: a reset in a body that ends with the connection is a broken transfer (HTTP/%s)',
  async (version) => {
    const request = `GET /a HTTP/${version}\r\nHost: shop.example\r\nx-user: ann\r\n\r\n`;
    const client = await breakOff(request, `${head('X-A: b')}hello`, 'a reset');
    expect(client.received).toContain('hello');
    if (version === '1.0') expect(client.ending).toBe('reset');
    else expect(client.received).not.toMatch(/0\r\n\r\n$/);
  },
);

test.each(['1.1', '1.0'])(
  'row 1: the end of a body that ends with the connection is the end (HTTP/%s)',
  async (version) => {
    rig.legacy.answer = (_request, socket) => void socket.end(`${head('X-A: b')}hello`);
    const client = await rig.connect();
    client.send(`GET /a HTTP/${version}\r\nHost: shop.example\r\nx-user: ann\r\nConnection: close\r\n\r\n`);
    const received = await client.toTheEnd();
    if (version === '1.0') expect(received).toMatch(/\r\n\r\nhello$/);
    else expect(received).toMatch(/5\r\nhello\r\n0\r\n\r\n$/);
    expect(client.ending).toBe('fin');
  },
);

test('row 1: what the store has sent reaches the client before the transfer breaks', async () => {
  const sent = 'x'.repeat(40_000);
  rig.legacy.answer = (_request, socket) => void socket.end(`${head('Content-Length: 100000')}${sent}`);
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  const received = await client.toTheEnd();
  expect(received.split('\r\n\r\n')[1] === sent).toBe(true);
});

test('row 1: a client that reads late sees the break as well', async () => {
  const part = 'x'.repeat(4_000_000);
  rig.legacy.answer = (_request, socket) => void socket.end(`${head('Content-Length: 8000000')}${part}`);
  const client = await rig.connect();
  client.socket.pause();
  client.send(requestText('GET /a'));
  await until('the store has ended', () =>
    [...rig.legacy.sockets].every((socket) => socket.writableFinished),
  );
  client.socket.resume();
  const received = await client.toTheEnd();
  expect(received.split('\r\n\r\n')[1]?.length).toBeLessThan(8_000_000);
});

test('row 1: a request behind a broken answer gets none, for its place in the order is lost', async () => {
  const client = await breakOff(
    requestText('GET /a') + requestText('GET /b') + requestText('GET /c'),
    `${inChunks}5\r\nhello\r\n`,
    'an end',
  );
  expect(client.received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200']);
});

// --- before there is a head ------------------------------------------------------------------------------

const heads: readonly (readonly [where: string, beginning: string])[] = [
  ['before the first byte', ''],
  ['within the status line', 'HTTP/1.1 20'],
  ['behind the status line', 'HTTP/1.1 200 OK\r\n'],
  ['within a field', 'HTTP/1.1 200 OK\r\nContent-Le'],
  ['before the empty line', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n'],
  ['behind a 100', 'HTTP/1.1 100 Continue\r\n\r\n'],
];
const headless = deaths.flatMap((how) => heads.map(([where, bytes]) => [how, where, bytes] as const));

const dying =
  (beginning: string, how: Death): RawAnswer =>
  (_request, socket) => {
    if (beginning === '') die(socket, how);
    else socket.write(beginning, () => die(socket, how));
  };

test.each(headless)(
  'row 1: %s %s of the head is 502, which says what became of a write',
  async (how, _where, beginning) => {
    rig.legacy.answer = dying(beginning, how);
    const read = await rig.exchange(requestText('GET /a'));
    expect(statusOf(read)).toBe(502);
    expect(problemOf(read)).toMatchObject({ code: 'upstream-failed', store: 'legacy', stage: 'broken' });
    const write = await rig.exchange(requestText('POST /a', { lines: ['Content-Length: 2'], body: 'hi' }));
    expect(statusOf(write)).toBe(502);
    expect(problemOf(write)).toMatchObject({ code: 'outcome-unknown', sent: 'unknown', store: 'legacy' });
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual([
      'GET /a HTTP/1.1',
      'POST /a HTTP/1.1',
    ]);
  },
);

test('row 1: broken answers are counted, and a write among them is in doubt', async () => {
  const name = (access: string): string =>
    `requests_total{store="legacy",access="${access}",status="broken"}`;
  const before = await rig.counters();
  for (const request of [requestText('GET /a'), requestText('POST /a', { lines: ['Content-Length: 0'] })]) {
    await breakOff(request, `${withLength}hello`, 'an end');
  }
  const more = (counter: string): [string, number] => [counter, Number(before[counter]) + 1];
  await rig.countedAll({
    ...Object.fromEntries([name('read'), name('write'), 'in_doubt_writes_total'].map(more)),
    requests_under_way: 0,
  });
});
