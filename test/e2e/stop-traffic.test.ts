/** SIGTERM under traffic: nothing new is taken, what is under way ends in order, and the process ends within a bound. */
import { connect, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { close1012, frame, maskedClose1012 } from '../support/frames.ts';
import { answerOk, headerOf, type RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';
import { HttpRig, problemOf, requestText } from './http/rig.ts';

let rig: HttpRig;
afterEach(() => rig.stop(), 60_000);

const offer = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
const pathOf = ({ startLine }: RawMessage): string => startLine.split(' ')[1] ?? '';

/** Keeps the connection of every request by its path; whatever comes on an upgraded one is in `frames`. */
function keepSockets(): { sockets: Map<string, Socket>; frames: () => string } {
  const sockets = new Map<string, Socket>();
  let frames = '';
  rig.legacy.answer = (request, socket, upstream) => {
    const path = pathOf(request);
    sockets.set(path, socket);
    if (path === '/quick') answerOk(request, socket, upstream);
    if (path === '/live') {
      socket.removeAllListeners('data');
      socket.on('data', (text) => (frames += String(text)));
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    }
  };
  // An upload is seen before it is whole.
  rig.legacy.onBytes = (bytes, socket) => {
    const path = /^PUT (\S+)/.exec(bytes)?.[1];
    if (path !== undefined) sockets.set(path, socket);
  };
  return { sockets, frames: () => frames };
}

async function begin(text: string): Promise<RawClient> {
  const client = await rig.connect();
  client.send(text);
  return client;
}

/** How a new connection fares. */
async function newcomer(): Promise<string> {
  const socket = connect(rig.port, '127.0.0.1');
  return new Promise((resolve) => {
    socket.once('connect', () => {
      socket.destroy();
      resolve('taken');
    });
    socket.once('error', (error: Error & { code?: string }) => resolve(error.code ?? ''));
  });
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const eventStream =
  'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n';
const half = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n';

test('what is under way ends in order: writes, uploads, answers, event streams, WebSockets, held writes', async () => {
  rig = await HttpRig.start({ config: { flip: { drainMs: 5_000, fenceMs: 20_000, holdMs: 60_000 } } });
  const { sockets, frames } = keepSockets();
  const fence = await rig.fence('held');
  const write = await begin(requestText('POST /write', { lines: ['Content-Length: 2'], body: 'hi' }));
  const upload = await begin(
    requestText('PUT /upload', { lines: ['Content-Length: 200000'], body: 'x'.repeat(100_000) }),
  );
  const download = await begin(requestText('GET /download'));
  const events = await begin(requestText('GET /events'));
  const socket = await begin(requestText('GET /live', { lines: offer }));
  const asking = await begin(requestText('GET /asked', { lines: offer }));
  const idle = await begin(requestText('GET /quick'));
  const held = await begin(
    requestText('POST /held', { user: 'held', lines: ['Content-Length: 2'], body: 'hi' }),
  );
  const heldUpgrade = await begin(requestText('GET /held', { user: 'held', lines: offer }));
  const late = await begin('POST /held HTTP/1.1\r\nHost: h\r\nx-user: held\r\nContent-Length: 2\r\n');
  await until('all but the held ones have arrived', () => sockets.size === 7);
  sockets.get('/download')?.write(half);
  sockets.get('/events')?.write(eventStream);
  await download.until(() => download.received.includes('half'));
  await events.until(() => events.received.includes('data: 1'));
  expect(statusOf(await socket.answer())).toBe(101);
  expect(statusOf(await idle.answer())).toBe(200);
  await rig.counted('held_writes', 2);

  rig.process.child.kill('SIGTERM');
  await until('nobody new is taken', async () => (await newcomer()) === 'ECONNREFUSED');
  late.send('\r\nhi');
  // Those that wait, would have to wait, or would never end, end now.
  for (const client of [held, heldUpgrade, late]) {
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(503);
    expect(problemOf(answer)).toMatchObject({ code: 'shutting-down', sent: 'no' });
    expect(headerOf(answer, 'retry-after')).toBe('1');
  }
  const asked = await asking.answer();
  expect(statusOf(asked)).toBe(502);
  expect(problemOf(asked)).toMatchObject({
    code: 'outcome-unknown',
    stage: 'shutting-down',
    sent: 'unknown',
  });
  await socket.until(() => socket.closed);
  expect(socket.received).toBe(close1012);
  await until('the store sees it, too', () => frames() === maskedClose1012);
  await events.until(() => events.closed);
  expect(events.received.endsWith('data: 1\n\n\r\n0\r\n\r\n')).toBe(true);
  await idle.until(() => idle.closed);
  expect(idle.ending).toBe('fin');
  // The others are waited for.
  expect([write.received, upload.received, download.closed]).toEqual(['', '', false]);
  sockets.get('/write')?.write(ok);
  upload.send('x'.repeat(100_000));
  await until('the upload has arrived', () =>
    rig.legacy.requests.some((request) => pathOf(request) === '/upload'),
  );
  sockets.get('/upload')?.write(ok);
  sockets.get('/download')?.write('4\r\nrest\r\n0\r\n\r\n');
  for (const client of [write, upload]) expect(statusOf(await client.answer())).toBe(200);
  await download.until(() => download.received.endsWith('0\r\n\r\n'));
  const { exit } = await rig.process.ended;
  expect(exit).toBe(0);
  for (const client of [write, upload, download]) await client.until(() => client.closed);
  // It has left the list, so nobody waits for it; and it did not touch what it held.
  expect(await rig.books.ledger.members()).toEqual([]);
  expect(rig.legacy.requests.map(pathOf)).not.toContain('/held');
  await fence.reopen();
}, 60_000);

test('answers that begin after it say that the connection ends, and it does', async () => {
  rig = await HttpRig.start();
  const { sockets } = keepSockets();
  const client = await begin(requestText('GET /slow') + requestText('GET /behind'));
  await until('it has arrived', () => sockets.size === 1);
  rig.process.child.kill('SIGTERM');
  await until('nobody new is taken', async () => (await newcomer()) === 'ECONNREFUSED');
  sockets.get('/slow')?.write(ok);
  const answer = await client.answer();
  expect([statusOf(answer), headerOf(answer, 'connection')]).toEqual([200, 'close']);
  expect(await client.toTheEnd()).toBe('');
  expect((await rig.process.ended).exit).toBe(0);
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/slow']);
}, 60_000);

test('what never ends is broken off after the longest write, and nothing then passes for whole', async () => {
  const writeTimeoutMs = 1_500;
  const times = { writeTimeoutMs, readTimeoutMs: 60_000, settleMs: 200 };
  rig = await HttpRig.start({ legacy: times, app: times });
  const { sockets } = keepSockets();
  const write = await begin(requestText('POST /write', { lines: ['Content-Length: 2'], body: 'hi' }));
  const upload = await begin(
    requestText('PUT /upload', { lines: ['Transfer-Encoding: chunked'], body: '2\r\nhi\r\n' }),
  );
  const read = await begin(requestText('GET /read'));
  const download = await begin(requestText('GET /download'));
  const head = await begin('GET /never-sent HTTP/1.1\r\nHost: h\r\n');
  await until('they have arrived', () => sockets.size === 4);
  sockets.get('/download')?.write(half);
  await download.until(() => download.received.includes('half'));
  const sinceMs = performance.now();
  rig.process.child.kill('SIGTERM');
  for (const client of [write, upload]) {
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([
      504,
      expect.objectContaining({ code: 'outcome-unknown-timeout', sent: 'unknown' }),
    ]);
  }
  expect((await rig.process.ended).exit).toBe(0);
  // The longest write, a second for the answers, the settle time, and what a busy machine adds.
  expect(performance.now() - sinceMs).toBeLessThan(15_000);
  for (const client of [read, download, head]) await client.until(() => client.closed);
  expect(download.received).not.toMatch(/\r\n0\r\n/);
  expect(await rig.books.ledger.members()).toEqual([]);
}, 60_000);

test('a WebSocket in the middle of a frame, and one whose peers do not read, do not hold it up', async () => {
  rig = await HttpRig.start();
  const { sockets } = keepSockets();
  const client = await begin(requestText('GET /live', { lines: offer }));
  expect(statusOf(await client.answer())).toBe(101);
  client.socket.pause();
  sockets.get('/live')?.pause();
  sockets.get('/live')?.write(frame('x'.repeat(30_000_000)), 'latin1');
  client.send(frame('y'.repeat(30_000_000), { masked: true }));
  const sinceMs = performance.now();
  rig.process.child.kill('SIGTERM');
  expect((await rig.process.ended).exit).toBe(0);
  expect(performance.now() - sinceMs).toBeLessThan(10_000);
}, 60_000);
