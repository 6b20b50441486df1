/** Bodies on their way to a store: framed as they are, never more than announced, at the pace of the store. */
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Llhttp } from '../../src/proxy/upstream/llhttp.ts';
import type { Upstream, UpstreamRequest } from '../../src/proxy/upstream.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, RawClient, type RawAnswer, RawUpstream, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';
import { Asked, Body, upstreamTo } from '../support/upstream.ts';

const ends: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
  expect(Llhttp.alive).toBe(0);
});

async function startStore(answer?: RawAnswer): Promise<{ store: RawUpstream; upstream: Upstream }> {
  const store = await RawUpstream.start(answer);
  const upstream = upstreamTo(store.url);
  ends.push(
    async () => store.stop(),
    async () => upstream.close(),
  );
  return { store, upstream };
}

async function proxied(options: Parameters<typeof startRig>[0] = {}): Promise<ProxyRig> {
  const rig = await startRig(options);
  ends.push(async () => rig.stop());
  return rig;
}

const put = (body: Body): Partial<UpstreamRequest> => ({
  ...{ method: 'PUT', headers: ['Host', 'h', 'Content-Length', '9'], body, stream: 'no' },
});
const bytes = (size: number): Buffer => Buffer.alloc(size, 'x');

describe('what the store gets of a head', () => {
  test('is every field in its place, in its letters: those of framing, too', async () => {
    const { port, legacy } = await proxied();
    const before =
      'accept: */*\r\ncontent-LENGTH: 2\r\nx-user: ann\r\nX-A: 1\r\nhost: shop.example\r\nx-a: 2';
    await exchange(port, `DELETE /a?b HTTP/1.1\r\n${before}\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\r\nhi`);
    expect(legacy.bytes).toBe(
      `DELETE /a?b HTTP/1.1\r\naccept: */*\r\ncontent-LENGTH: 2\r\nx-user: ann\r\nX-A: 1\r\nhost: 127.0.0.1:${legacy.port}\r\n` +
        'x-a: 2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop.example\r\n' +
        'Connection: keep-alive\r\n\r\nhi',
    );
  });

  test.each([
    ['GET', 'Content-Length: 2\r\n\r\nhi', 'Content-Length: 2\r\n', 'hi'],
    [
      'GET',
      'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
      'Transfer-Encoding: chunked\r\n',
      '2\r\nhi\r\n0\r\n\r\n',
    ],
    ['DELETE', 'transfer-encoding: Chunked\r\n\r\n0\r\n\r\n', 'transfer-encoding: chunked\r\n', '0\r\n\r\n'],
    ['POST', '\r\n', 'Content-Length: 0\r\n', ''],
    ['POST', 'Content-Length: 0\r\n\r\n', 'Content-Length: 0\r\n', ''],
    ['GET', 'Content-Length: 0\r\n\r\n', 'Content-Length: 0\r\n', ''],
    ['GET', '\r\n', '', ''],
  ])('says how its body is framed: %s, %j', async (method, framed, framing, body) => {
    const { port, legacy } = await proxied();
    await exchange(port, `${method} /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${framed}`);
    const [head = '', ...rest] = legacy.bytes.split('\r\n\r\n');
    const said = `${head}\r\n`.match(/(?:content-length|transfer-encoding):[^\r]*\r\n/gi) ?? [];
    expect([said.join(''), rest.join('\r\n\r\n')]).toEqual([framing, body]);
  });
});

describe('trailers of a request', () => {
  const chunked = (trailers: string): string =>
    `POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\n${trailers}\r\n`;

  test('reach the store, announced as they were', async () => {
    const { port, legacy } = await proxied();
    await exchange(port, chunked('X-Sum: 7\r\nx-SUM: \xe9\r\n'));
    expect(legacy.bytes).toContain('\r\nTrailer: X-Sum\r\n');
    expect(legacy.bytes.endsWith('\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nx-SUM: \xe9\r\n\r\n')).toBe(true);
  });

  test('never say what only a head may: framing, routing, who asks, who we are', async () => {
    const { port, legacy } = await proxied({ legacy: { headers: { remove: ['X-Secret'] } } });
    const never = [
      ...['Host: evil', 'Connection: close', 'TE: x', 'Trailer: X', 'Expect: 100-continue'],
      ...['X-User: bob', 'X_User: bob', 'Authorization: Bearer x', 'Cookie: a=b', 'Set-Cookie: a=b'],
      ...[
        'Onewriter-User: bob',
        'onewriter_epoch: 9',
        'X-Forwarded-For: 1.2.3.4',
        'Forwarded: for=x',
        'X-Original-URL: /b',
      ],
      ...[
        'X-HTTP-Method-Override: GET',
        'X_Http_Method: GET',
        'Idempotency-Key: k',
        'Content-Type: text/html',
        'X-Secret: 1',
      ],
      ...['If-Match: "1"', 'Cache-Control: no-cache', 'Content_Length: 3', 'Upgrade: x'],
    ];
    const answer = await exchange(port, chunked(`${never.join('\r\n')}\r\nX-Sum: 7\r\n`));
    expect(statusOf(answer)).toBe(200);
    expect(legacy.bytes.slice(legacy.bytes.indexOf('\r\n\r\n'))).toBe(
      '\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n',
    );
  });

  test('are dropped where the store gets the body with a length', async () => {
    const { port, legacy } = await proxied();
    const head =
      'POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi';
    await exchange(port, head);
    expect(legacy.bytes).not.toContain('Trailer');
  });

  test('of an answer reach the client, and what it must not say is not said there', async () => {
    const { port } = await proxied({
      answer: (_request, socket) => {
        const trailers = 'X-Sum: 7\r\nOnewriter-Epoch: 9\r\nConnection: close\r\n';
        socket.write(
          `HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${trailers}\r\n`,
        );
      },
    });
    const client = await RawClient.open(port);
    client.send('GET /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n');
    await client.until(() => client.received.includes('\r\n0\r\n'));
    await client.until(() => client.received.endsWith('\r\n\r\n'));
    expect(client.received.endsWith('\r\n0\r\nX-Sum: 7\r\n\r\n')).toBe(true);
    client.close();
  });
});

describe('a body that comes in pieces', () => {
  test('that is longer or shorter than was said never makes a whole request', async () => {
    const { store, upstream } = await startStore();
    for (const [pieces, why] of [
      [['12345', '67890'], /longer than its Content-Length/],
      [['12345'], /shorter than its Content-Length/],
    ] as const) {
      const body = new Body(9);
      const asked = new Asked(upstream, put(body));
      await until('it is being sent', () => body.sink !== undefined);
      for (const piece of pieces) body.sink?.piece(Buffer.from(piece));
      body.sink?.end([]);
      expect([(await asked.done()).stage, body.stopped]).toEqual(['broken', true]);
      expect(asked.cause?.message).toMatch(why);
      await until('its connection is reset', () => store.sockets.size === 0);
    }
    expect(store.requests).toEqual([]);
    expect(store.bytes).not.toContain('6');
  });

  test('that breaks off resets its connection, so that nothing more is delivered', async () => {
    const errors: unknown[] = [];
    const { store, upstream } = await startStore();
    const body = new Body();
    const asked = new Asked(upstream, put(body));
    await until('it is being sent', () => body.sink !== undefined);
    body.sink?.piece(Buffer.from('12345'));
    await until('it has begun', () => store.bytes.includes('12345'));
    for (const socket of store.sockets) socket.on('error', (error) => errors.push(error));
    const cause = new Error('the client is gone');
    body.sink?.broken(cause);
    expect([asked.stage, asked.cause]).toEqual(['broken', cause]);
    await until('the store sees the reset', () => errors.length === 1);
    expect(errors).toMatchObject([{ code: 'ECONNRESET' }]);
    expect(store.requests).toEqual([]);
  });

  test('stops where the store answers before its end: the answer counts, the connection does not', async () => {
    const { store, upstream } = await startStore();
    const body = new Body(1_000_000);
    const asked = new Asked(upstream, put(body));
    await until('it is being sent', () => body.sink !== undefined);
    body.sink?.piece(bytes(1_000));
    await until('it has begun', () => store.bytes.length > 1_000);
    for (const socket of store.sockets)
      socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig');
    expect([(await asked.done()).status, asked.body, body.stopped]).toEqual([413, 'big', true]);
    body.sink?.piece(bytes(1_000));
    body.sink?.end([]);
    await until('its connection is closed', () => store.sockets.size === 0);
    expect((await new Asked(upstream).done()).body).toBe('ok');
    expect([store.connections, store.requests.length]).toEqual([2, 1]);
  });

  test('through the proxy: a store that answers 413 and hangs up is heard', async () => {
    const { port, legacy, gate } = await proxied();
    const client = await RawClient.open(port);
    client.send('PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 900000\r\n\r\nxxx');
    await until('the upload has begun', () => legacy.bytes.endsWith('xxx'));
    for (const socket of legacy.sockets)
      socket.end('HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig');
    expect((await client.answer()).body).toBe('big');
    expect(gate.endings.map(({ outcome }) => outcome)).toEqual(['ended']);
    client.close();
  });

  test('waits for a store that does not read, and goes on when it does', async () => {
    const { port: from, socketOf, server } = await slowStore();
    ends.push(() => void server.close());
    const upstream = upstreamTo(`http://127.0.0.1:${from}`);
    ends.push(async () => upstream.close());
    const body = new Body();
    const asked = new Asked(upstream, put(body));
    const socket = await socketOf;
    socket.pause();
    await until('it is being sent', () => body.sink !== undefined);
    let sent = 0;
    while (body.sink?.piece(bytes(65_536)) === true && sent < 100_000_000) sent += 65_536;
    expect(sent).toBeLessThan(20_000_000);
    const resumed = body.resumed;
    socket.resume();
    await until('it may go on', () => body.resumed > resumed);
    body.sink?.end([]);
    asked.exchange.cancel(new Error('enough'));
    socket.destroy();
  });

  test('a store that stops reading is too late, however long the client goes on', async () => {
    const { port: from, socketOf, server } = await slowStore();
    ends.push(() => void server.close());
    const upstream = upstreamTo(`http://127.0.0.1:${from}`);
    ends.push(async () => upstream.close());
    const body = new Body();
    const asked = new Asked(upstream, { ...put(body), headTimeoutMs: 150 });
    const socket = await socketOf;
    await until('it is being sent', () => body.sink !== undefined);
    for (let piece = 0; piece < 6; piece += 1) {
      body.sink?.piece(bytes(10));
      await new Promise((wait) => setTimeout(wait, 60));
    }
    expect(asked.over).toBe(false);
    expect((await asked.done()).stage).toBe('timeout');
    socket.destroy();
  });
});

async function slowStore(): Promise<{ port: number; socketOf: Promise<Socket>; server: Server }> {
  const server = createServer();
  const socketOf = once(server, 'connection').then(([socket]) => {
    (socket as Socket).on('error', () => {});
    return socket as Socket;
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port, socketOf, server };
}

describe('a gibibyte', () => {
  const whole = 1_073_741_824;
  const piece = Buffer.alloc(1_048_576, 'x');
  /** Bytes that may be held on the way: socket buffers and what was not collected yet. */
  const heldMax = 200_000_000;

  async function sizes(): Promise<{ rig: ProxyRig; url: URL }> {
    const server = createHttpServer((request, response) => {
      if (request.method === 'GET') {
        response.writeHead(200, { 'content-length': whole });
        let left = whole;
        const more = (): void => {
          while (left > 0) {
            left -= piece.length;
            if (!response.write(piece)) {
              response.once('drain', more);
              return;
            }
          }
          response.end();
        };
        more();
        return;
      }
      let size = 0;
      request.on('data', (data: Buffer) => (size += data.length));
      request.on('end', () => response.end(String(size)));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    ends.push(() => void server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const rig = await proxied({ legacy: { url, writeTimeoutMs: 120_000 } });
    return { rig, url: new URL(`http://127.0.0.1:${rig.port}/big`) };
  }

  function watchMemory(): () => number {
    const before = process.memoryUsage().rss;
    let most = before;
    const look = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
    return () => {
      clearInterval(look);
      return most - before;
    };
  }

  test('passes to the client without being kept', async () => {
    const { rig } = await sizes();
    const most = watchMemory();
    const socket = connect(rig.port, '127.0.0.1');
    socket.write('GET /big HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n');
    let received = 0;
    socket.on('data', (data) => (received += data.length));
    await until('it has passed', () => received > whole, 100_000);
    expect(most()).toBeLessThan(heldMax);
    socket.destroy();
  }, 120_000);

  test('passes to the store without being kept', async () => {
    const { rig } = await sizes();
    const most = watchMemory();
    const socket = connect(rig.port, '127.0.0.1');
    let answer = '';
    socket.on('data', (data) => (answer += data.toString('latin1')));
    socket.write('PUT /big HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\n\r\n');
    for (let left = whole; left > 0; left -= piece.length) {
      socket.write(`${piece.length.toString(16)}\r\n`);
      socket.write(piece);
      if (!socket.write('\r\n')) await once(socket, 'drain');
    }
    socket.write('0\r\n\r\n');
    await until('it has passed', () => answer.includes(String(whole)), 100_000);
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(most()).toBeLessThan(heldMax);
    socket.destroy();
  }, 120_000);
});
