/** Requests that come without waiting for answers: taken up one after the other, answered in their order. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { answerOk, type RawMessage, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: {
      flip: { drainMs: 100, fenceMs: 200, holdMs: 3_000 },
      proxy: { limits: { headersTimeoutMs: 1_000, requestTimeoutMs: 2_000 } },
    },
  });
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const pathOf = ({ startLine }: RawMessage): string => startLine.split(' ')[1] ?? '';
const ok = (body: string): string => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const echo = (request: RawMessage, socket: Socket): void => void socket.write(ok(pathOf(request)));
const put = (path: string, user = 'ann', body = 'hi'): string =>
  requestText(`PUT ${path}`, { user, lines: [`Content-Length: ${body.length}`], body });
const get = (path: string, user = 'ann'): string => requestText(`GET ${path}`, { user });

test('row 30: many requests in one piece are answered in order', async () => {
  rig.legacy.answer = echo;
  const paths = Array.from({ length: 50 }, (_, at) => `/${at}`);
  const client = await rig.connect();
  client.send(paths.map((path) => get(path)).join(''));
  for (const path of paths) expect((await client.answer()).body).toBe(path);
  expect(rig.legacy.requests.map(pathOf)).toEqual(paths);
});

test('row 30: a client that resets while its upgrade waits for its turn ends nothing but its connection', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  const lines = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
  client.send(get('/slow') + requestText('GET /socket', { user: 'ann', lines }));
  await until('the first has arrived', () => slow.length === 1);
  client.socket.resetAndDestroy();
  await until('the read was given up', () => slow[0]?.destroyed);
  rig.legacy.answer = echo;
  expect((await rig.exchange(get('/other'))).body).toBe('/other');
});

test('row 30: so are requests that arrive byte by byte', async () => {
  rig.legacy.answer = echo;
  const client = await rig.connect();
  for (const byte of [get('/1'), put('/2'), get('/3')].join('')) client.send(byte);
  for (const path of ['/1', '/2', '/3']) expect((await client.answer()).body).toBe(path);
});

test('row 30: a slow one holds up those behind it, also where they go to the other store', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  rig.app.answer = echo;
  const client = await rig.connect();
  client.send(get('/slow') + get('/app', 'app-user') + put('/app-write', 'app-user'));
  await until('the first has arrived', () => slow.length === 1);
  // Somebody else's request is answered meanwhile; theirs are not even begun.
  expect((await rig.exchange(get('/other', 'app-user'))).body).toBe('/other');
  expect(rig.app.requests.map(pathOf)).toEqual(['/other']);
  slow[0]?.write(ok('slow'));
  for (const body of ['slow', '/app', '/app-write']) expect((await client.answer()).body).toBe(body);
});

test('row 30: writes reach the store in their order, each after the answer to the one before', async () => {
  const paths = Array.from({ length: 30 }, (_, at) => `/${at}`);
  let open = 0;
  let most = 0;
  rig.legacy.answer = (request, socket) => {
    open += 1;
    most = Math.max(most, open);
    setImmediate(() => {
      open -= 1;
      socket.write(ok(pathOf(request)));
    });
  };
  const client = await rig.connect();
  client.send(paths.map((path) => put(path)).join(''));
  for (const path of paths) expect((await client.answer()).body).toBe(path);
  expect(rig.legacy.requests.map(pathOf)).toEqual(paths);
  expect(most).toBe(1);
});

test('row 30: one that is held in the middle holds up those behind it, and all are answered in order', async () => {
  rig.legacy.answer = echo;
  const fence = await rig.fence('held-user');
  const client = await rig.connect();
  client.send(get('/1') + put('/2', 'held-user') + get('/3') + put('/4'));
  expect((await client.answer()).body).toBe('/1');
  await rig.counted('held_writes', 1);
  expect(client.received).toBe('');
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/1']);
  await fence.reopen();
  for (const path of ['/2', '/3', '/4']) expect((await client.answer()).body).toBe(path);
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/1', '/2', '/3', '/4']);
});

test('row 30: one whose hold is over is refused in its turn, and those behind it go on', async () => {
  rig.legacy.answer = echo;
  const fence = await rig.fence('held-user-2');
  const client = await rig.connect();
  client.send(get('/1') + put('/2', 'held-user-2') + put('/3'));
  expect((await client.answer()).body).toBe('/1');
  expect(problemOf(await client.answer())).toMatchObject({ code: 'fenced', sent: 'no' });
  expect((await client.answer()).body).toBe('/3');
  await fence.reopen();
});

test('row 30: those that are refused are answered in their turn: identity, target, method, health', async () => {
  rig.legacy.answer = echo;
  const client = await rig.connect();
  client.send(
    [
      put('/1'),
      requestText('PUT /nobody', { user: null, lines: ['Content-Length: 4'], body: 'body' }),
      get('/2'),
      get('/a/../b'),
      requestText('TRACE /'),
      requestText('OPTIONS *'),
      requestText('GET /.well-known/onewriter/health', { user: null }),
      put('/3'),
    ].join(''),
  );
  const answers = [];
  for (let at = 0; at < 8; at += 1) answers.push(await client.answer());
  expect(answers.map(statusOf)).toEqual([200, 401, 200, 400, 405, 204, 200, 200]);
  expect([answers[0]?.body, answers[2]?.body, answers[7]?.body]).toEqual(['/1', '/2', '/3']);
});

test('row 30: a store that fails one leaves the others alone', async () => {
  rig.legacy.answer = (request, socket) => {
    if (pathOf(request) === '/2') socket.destroy();
    else echo(request, socket);
  };
  const client = await rig.connect();
  client.send(get('/1') + put('/2') + get('/3'));
  expect((await client.answer()).body).toBe('/1');
  expect(problemOf(await client.answer())).toMatchObject({ code: 'outcome-unknown', sent: 'unknown' });
  expect((await client.answer()).body).toBe('/3');
});

test('row 30: behind one that asks for the end of the connection nothing is taken up', async () => {
  rig.legacy.answer = echo;
  const client = await rig.connect();
  client.send(requestText('GET /1', { lines: ['Connection: close'] }) + put('/2'));
  expect((await client.toTheEnd()).endsWith('/1')).toBe(true);
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/1']);
});

test('row 30: answers without bodies do not shift those behind them', async () => {
  rig.legacy.answer = (request, socket) => {
    const path = pathOf(request);
    if (path === '/head') socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n');
    else if (path === '/204') socket.write('HTTP/1.1 204 No Content\r\n\r\n');
    else if (path === '/304') socket.write('HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n');
    else echo(request, socket);
  };
  const client = await rig.connect();
  client.send(requestText('HEAD /head') + get('/204') + get('/304') + get('/last'));
  expect(statusOf(await client.answer({ bodyless: true }))).toBe(200);
  expect(statusOf(await client.answer())).toBe(204);
  expect(statusOf(await client.answer())).toBe(304);
  expect((await client.answer()).body).toBe('/last');
});

test('row 30: large bodies in a row stay apart', async () => {
  rig.legacy.answer = (request, socket) => void socket.write(ok(String(request.body.length)));
  const chunked = requestText('PUT /b', {
    lines: ['Transfer-Encoding: chunked'],
    body: `${(150_000).toString(16)}\r\n${'y'.repeat(150_000)}\r\n0\r\n\r\n`,
  });
  const client = await rig.connect();
  client.send(put('/a', 'ann', 'x'.repeat(200_000)) + chunked + put('/c', 'ann', 'z'.repeat(70_000)));
  for (const length of ['200000', '150000', '70000']) expect((await client.answer()).body).toBe(length);
});

test('row 30: an unread body behind a refusal is not taken for a request', async () => {
  rig.legacy.answer = echo;
  const hidden = put('/hidden');
  const client = await rig.connect();
  client.send(
    requestText('PUT /1', { user: null, lines: [`Content-Length: ${hidden.length}`], body: hidden }) +
      get('/2'),
  );
  expect(statusOf(await client.answer())).toBe(401);
  expect((await client.answer()).body).toBe('/2');
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/2']);
});

test('row 30: what is no HTTP behind a write is answered after the write, which runs to its end', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  client.send(`${put('/1')}this is no HTTP\r\n\r\n`);
  await until('the write has arrived', () => slow.length === 1);
  // A 400 now would be taken for the answer to the write.
  await rig.counted('requests_under_way', 1);
  expect(client.received).toBe('');
  slow[0]?.write(ok('written'));
  expect((await client.answer()).body).toBe('written');
  const last = await client.answer();
  expect([statusOf(last), problemOf(last)['code']]).toEqual([400, 'bad-request']);
  await client.toTheEnd();
});

test('row 30: a head that never comes behind a write that waits does not harm the write', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  client.send(`${put('/1')}GET /2 HTTP/1.1\r\nHost: h\r\n`);
  await until('the write has arrived', () => slow.length === 1);
  // Longer than the head may take.
  const untilMs = performance.now() + 2_500;
  await until('the time of the second is up', () => performance.now() > untilMs);
  expect(client.received).toBe('');
  slow[0]?.write(ok('written'));
  expect((await client.answer()).body).toBe('written');
  expect(statusOf(await client.answer())).toBe(408);
});

test('row 30: a body that breaks HTTP is answered behind the request before it, and was not sent', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  const broken = requestText('PUT /2', { lines: ['Transfer-Encoding: chunked'], body: 'no size\r\n' });
  client.send(put('/1') + broken);
  await until('the write has arrived', () => slow.length === 1);
  await rig.counted('requests_under_way', 1);
  expect(client.received).toBe('');
  slow[0]?.write(ok('written'));
  expect((await client.answer()).body).toBe('written');
  const last = await client.answer();
  expect([statusOf(last), problemOf(last)]).toEqual([
    400,
    expect.objectContaining({ code: 'bad-request', sent: 'no' }),
  ]);
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/1']);
});

test('row 30: a client that goes away takes with it what was not begun', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  client.send(put('/1') + put('/2') + get('/3'));
  await until('the first has arrived', () => slow.length === 1);
  client.close();
  rig.legacy.answer = answerOk;
  slow[0]?.write(ok('written'));
  await rig.counted('requests_under_way', 0);
  await rig.exchange(get('/later'));
  expect(rig.legacy.requests.map(pathOf)).toEqual(['/1', '/later']);
});

test('row 30: five hundred in one piece are all answered, in order', async () => {
  rig.legacy.answer = echo;
  const paths = Array.from({ length: 500 }, (_, at) => `/${at}`);
  const client = await rig.connect();
  client.send(paths.map((path) => get(path)).join(''));
  for (const path of paths) expect((await client.answer()).body).toBe(path);
  expect(rig.legacy.requests.map(pathOf)).toEqual(paths);
}, 30_000);

test('row 30: also where a connection that was not read comes to an upgrade, with what stands behind it', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (_request, socket) => void slow.push(socket);
  const client = await rig.connect();
  const paths = Array.from({ length: 40 }, (_, at) => `/${at}`);
  const lines = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
  client.send(get('/slow') + paths.map((path) => get(path)).join(''));
  await until('the first has arrived', () => slow.length === 1);
  await rig.settled();
  client.send(`${requestText('GET /socket', { lines })}early`);
  let early = '';
  rig.legacy.answer = (request, socket) => {
    if (pathOf(request) !== '/socket') {
      echo(request, socket);
      return;
    }
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    rig.legacy.onBytes = (bytes) => void (early += bytes);
  };
  slow[0]?.write(ok('slow'));
  for (const body of ['slow', ...paths]) expect((await client.answer()).body).toBe(body);
  expect(statusOf(await client.answer())).toBe(101);
  await until('what stood behind it has come', () => early.includes('early'));
}, 30_000);

test('row 30: so many that they fit into one piece only with the shortest heads end the connection', async () => {
  rig.legacy.answer = () => {};
  const client = await rig.connect();
  client.send('GET / HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n'.repeat(4_000));
  await client.toTheEnd();
  expect(client.received).toBe('');
  rig.legacy.answer = answerOk;
  expect(statusOf(await rig.exchange(get('/2')))).toBe(200);
});
