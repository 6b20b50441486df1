/** HTTP/1.0 on either side, and offers of HTTP/2 that are not taken. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, statusOf, takeMessage } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText, storeNames } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const old = (startLine: string, lines: readonly string[] = [], body = ''): string =>
  [`${startLine} HTTP/1.0`, 'x-user: ann', ...lines, '', body].join('\r\n');

describe('row 29: an HTTP/1.0 client', () => {
  test.each(['GET /a', 'HEAD /a', 'POST /a'])(
    '%s is served without a Host, and its connection ends',
    async (startLine) => {
      const client = await rig.connect();
      client.send(old(startLine, ['Content-Length: 0']));
      const text = await client.toTheEnd();
      expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
      expect(text.endsWith(startLine.startsWith('HEAD') ? '\r\n\r\n' : '\r\n\r\nok')).toBe(true);
      expect(headerOf({ headers: text.split('\r\n') }, 'connection')).toBe('close');
      // What it speaks with the store is its own affair.
      const [request] = rig.legacy.requests;
      expect(request?.startLine).toBe(`${startLine} HTTP/1.1`);
      expect(request && headerOf(request, 'host')).toBe(`127.0.0.1:${rig.legacy.port}`);
      expect(request && headerOf(request, 'x-forwarded-host')).toBeUndefined();
    },
  );

  test('that asks for it keeps its connection', async () => {
    const client = await rig.connect();
    for (let round = 0; round < 3; round += 1) {
      client.send(old('GET /a', ['Connection: keep-alive']));
      const answer = await client.answer();
      expect([statusOf(answer), answer.body]).toEqual([200, 'ok']);
      expect(headerOf(answer, 'connection')).toBe('keep-alive');
    }
    client.send(old('GET /a'));
    await client.toTheEnd();
    expect(rig.legacy.requests).toHaveLength(4);
  });

  test.each(storeNames)(
    'never gets chunks from %s: an answer without a length ends with the connection',
    async (store) => {
      rig.store(store).answer = (_request, socket) =>
        void socket.write(
          'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n',
        );
      const client = await rig.connect();
      const user = store === 'app' ? 'app-user' : 'ann';
      client.send(`GET /a HTTP/1.0\r\nx-user: ${user}\r\nConnection: keep-alive\r\n\r\n`);
      const text = await client.toTheEnd();
      expect(text).not.toMatch(/transfer-encoding/i);
      expect(text.endsWith('\r\n\r\nabcdef')).toBe(true);
      expect(client.ending).toBe('fin');
    },
  );

  test('sees by a reset that an answer without a length was broken off', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', () =>
        socket.destroy(),
      );
    };
    const client = await rig.connect();
    client.send(old('GET /a'));
    await client.toTheEnd();
    expect(client.ending).toBe('reset');
  });

  test('gets no interim answers', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(
        'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      );
    const client = await rig.connect();
    client.send(old('PUT /a', ['Expect: 100-continue', 'Content-Length: 2'], 'hi'));
    expect((await client.toTheEnd()).startsWith('HTTP/1.1 200 OK\r\n')).toBe(true);
  });

  test.each([
    ['a small body', 'hi'],
    ['a large body', 'x'.repeat(300_000)],
  ])('may send %s with a length', async (_, body) => {
    const client = await rig.connect();
    client.send(old('PUT /a', [`Content-Length: ${body.length}`], body));
    expect(await client.toTheEnd()).toMatch(/^HTTP\/1\.1 200 /);
    expect(rig.legacy.requests[0]?.body).toBe(body);
  });

  test('may not send chunks, which it does not know: 400, and the connection ends', async () => {
    const client = await rig.connect();
    const lines = ['Connection: keep-alive', 'Transfer-Encoding: chunked'];
    client.send(old('PUT /a', lines, '2\r\nhi\r\n0\r\n\r\n'));
    const taken = takeMessage(await client.toTheEnd());
    expect(taken && [statusOf(taken.message), problemOf(taken.message)['code']]).toEqual([
      400,
      'bad-framing',
    ]);
    expect(taken && headerOf(taken.message, 'connection')).toBe('close');
    expect(rig.legacy.bytes).toBe('');
  });

  test('that is held is answered like every other', async () => {
    const fence = await rig.fence('ann');
    const client = await rig.connect();
    client.send(old('PUT /a', ['Content-Length: 2'], 'hi'));
    await rig.counted('held_writes', 1);
    expect(client.received).toBe('');
    await fence.reopen();
    expect(await client.toTheEnd()).toMatch(/^HTTP\/1\.1 200 /);
  });

  test('gets problems in full, and its connection ends', async () => {
    const client = await rig.connect();
    client.send('PUT /a HTTP/1.0\r\nContent-Length: 0\r\n\r\n');
    const taken = takeMessage(await client.toTheEnd());
    expect(taken && statusOf(taken.message)).toBe(401);
    expect(taken && problemOf(taken.message)).toMatchObject({ code: 'no-identity', sent: 'no' });
  });

  test('that offers a WebSocket is not upgraded', async () => {
    const client = await rig.connect();
    client.send(old('GET /a', ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x']));
    expect(await client.toTheEnd()).toMatch(/^HTTP\/1\.1 200 /);
    const [request] = rig.legacy.requests;
    expect(request && headerOf(request, 'upgrade')).toBeUndefined();
  });
});

describe.each(storeNames)('row 29: an HTTP/1.0 store, as %s', (store) => {
  const user = store === 'app' ? 'app-user' : 'ann';
  const answers: Record<string, string> = {
    'with a length': 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    'with a length, and closes': 'HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
    'without a length': 'HTTP/1.0 200 OK\r\n\r\nok',
    'without a length, and says so': 'HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nok',
  };
  const cases = ['GET', 'POST'].flatMap((method) =>
    Object.keys(answers).map((kind) => [method, kind] as const),
  );
  test.each(cases)('that answers %s %s is understood, on a connection for each', async (method, kind) => {
    rig.store(store).answer = (_request, socket) => void socket.end(answers[kind] ?? '');
    const client = await rig.connect();
    for (let round = 0; round < 3; round += 1) {
      client.send(requestText(`${method} /a`, { user, lines: ['Content-Length: 0'] }));
      const answer = await client.answer();
      expect([answer.startLine, answer.body]).toEqual(['HTTP/1.1 200 OK', 'ok']);
    }
    expect(rig.store(store).requests).toHaveLength(3);
    expect(client.closed).toBe(false);
  });

  test('that keeps its connections is asked on the same again', async () => {
    rig.store(store).answer = (_request, socket) =>
      void socket.write('HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok');
    for (let round = 0; round < 3; round += 1) {
      expect((await rig.exchange(requestText('GET /a', { user }))).body).toBe('ok');
    }
    expect(rig.store(store).connections).toBe(1);
  });

  test('that says nothing of keeping is not asked again on the same connection', async () => {
    rig.store(store).answer = (_request, socket) =>
      void socket.write('HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok');
    for (let round = 0; round < 3; round += 1) {
      expect((await rig.exchange(requestText('GET /a', { user }))).body).toBe('ok');
    }
    expect(rig.store(store).connections).toBe(3);
  });

  test('that resets in a body without a length leaves a broken transfer', async () => {
    rig.store(store).answer = (_request, socket) => void socket.write('HTTP/1.0 200 OK\r\n\r\nabc');
    const client = await rig.connect();
    client.send(requestText('GET /a', { user }));
    await client.until(() => client.received.includes('abc'));
    for (const socket of rig.store(store).sockets) socket.resetAndDestroy();
    expect(await client.toTheEnd()).not.toMatch(/\r\n0\r\n/);
  });

  test('whose answer is long and without a length is passed on whole', async () => {
    const body = 'x'.repeat(500_000);
    rig.store(store).answer = (_request, socket) => void socket.end(`HTTP/1.0 200 OK\r\n\r\n${body}`);
    expect((await rig.exchange(requestText('GET /a', { user }))).body).toBe(body);
  });
});

describe('row 28: an offer of HTTP/2', () => {
  const offers: Record<string, readonly string[]> = {
    h2c: ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA'],
    'h2c in other letters': [
      'Connection: upgrade, http2-settings',
      'upgrade: H2C',
      'http2-settings: AAMAAABk',
    ],
    'h2c among others': ['Connection: Upgrade', 'Upgrade: h2c, websocket, TLS/1.0'],
    'h2c without settings': ['Connection: Upgrade', 'Upgrade: h2c'],
    'TLS inside': ['Connection: Upgrade', 'Upgrade: TLS/1.2'],
    'something unknown': ['Connection: Upgrade', 'Upgrade: example/3'],
    'without Connection': ['Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'],
    'a WebSocket without Connection': ['Upgrade: websocket'],
  };
  const cases = ['GET', 'POST', 'OPTIONS'].flatMap((method) =>
    Object.keys(offers).map((kind) => [method, kind] as const),
  );
  test.each(cases)('with %s (%s) is served as HTTP/1.1, and the connection goes on', async (method, kind) => {
    const client = await rig.connect();
    for (let round = 0; round < 2; round += 1) {
      const lines = [...(offers[kind] ?? []), 'Content-Length: 2'];
      client.send(requestText(`${method} /a`, { lines, body: 'hi' }));
      const answer = await client.answer();
      expect([answer.startLine, answer.body]).toEqual(['HTTP/1.1 200 OK', 'ok']);
      expect(headerOf(answer, 'upgrade')).toBeUndefined();
    }
    for (const request of rig.legacy.requests) {
      expect(request.body).toBe('hi');
      expect(request.headers.filter((line) => /^(upgrade|http2-settings):/i.test(line))).toEqual([]);
      expect(headerOf(request, 'connection') ?? 'keep-alive').toBe('keep-alive');
    }
    expect(rig.legacy.requests).toHaveLength(2);
  });

  test.each(['PUT', 'POST', 'DELETE'])(
    'by %s with a WebSocket and a body is served as HTTP/1.1, body and all',
    async (method) => {
      const lines = [
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Content-Length: 2',
      ];
      const client = await rig.connect();
      client.send(requestText(`${method} /a`, { lines, body: 'hi' }));
      expect((await client.answer()).body).toBe('ok');
      client.send(requestText('GET /b'));
      expect((await client.answer()).body).toBe('ok');
      expect(rig.legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
        [`${method} /a HTTP/1.1`, 'hi'],
        ['GET /b HTTP/1.1', ''],
      ]);
    },
  );

  test.each(['POST', 'DELETE', 'OPTIONS', 'PATCH'])(
    'by %s with a WebSocket, and no body, is served as HTTP/1.1: only GET asks for one',
    async (method) => {
      const client = await rig.connect();
      const lines = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
      client.send(requestText(`${method} /a`, { lines }));
      expect((await client.answer()).body).toBe('ok');
      client.send(requestText('GET /b'));
      expect((await client.answer()).body).toBe('ok');
      expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual([
        `${method} /a HTTP/1.1`,
        'GET /b HTTP/1.1',
      ]);
    },
  );

  test('GET with a WebSocket and a body is not upgraded: nobody takes the body for frames, or for a request', async () => {
    const hidden = requestText('DELETE /hidden');
    for (const [lines, body] of [
      [[`Content-Length: ${hidden.length}`], hidden],
      [['Transfer-Encoding: chunked'], `${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`],
    ] as const) {
      rig.forget();
      const offer = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
      const answer = await rig.exchange(requestText('GET /a', { lines: [...offer, ...lines], body }));
      expect(answer.body).toBe('ok');
      expect(rig.legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
        ['GET /a HTTP/1.1', hidden],
      ]);
    }
  });

  test('by its preface gets 400, and nothing is forwarded', async () => {
    const client = await rig.connect();
    client.send('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
    const taken = takeMessage(await client.toTheEnd());
    expect(taken && statusOf(taken.message)).toBe(400);
    expect(rig.legacy.bytes + rig.app.bytes).toBe('');
  });

  test('by a store in its answer is not passed on', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(
        'HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2, h2c\r\nContent-Length: 2\r\n\r\nok',
      );
    const answer = await rig.exchange(requestText('GET /a'));
    expect([statusOf(answer), headerOf(answer, 'upgrade')]).toEqual([200, undefined]);
    await until('nothing is under way', () => rig.legacy.requests.length === 1);
  });
});
