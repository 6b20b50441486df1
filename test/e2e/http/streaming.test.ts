/** Bodies on their way: at once, no faster than they are taken, without being kept, and without being touched. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { blocksOf, type ByteStore, hashOf, pour, startByteStore } from '../../support/byte-store.ts';
import { answerOk, headerOf, RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText, type StoreName, storeNames } from './rig.ts';

const MiB = 1_048_576;
const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');

describe('row 23: what comes in pieces', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start();
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;
  const plain = (text: string): string => text;
  const eventStream = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n';
  const answers: Record<string, { head: string; piece: (text: string) => string }> = {
    'an event stream in chunks': { head: `${eventStream}Transfer-Encoding: chunked\r\n\r\n`, piece: chunk },
    'an event stream that ends with the connection': { head: `${eventStream}\r\n`, piece: plain },
    'an answer with a length': { head: 'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n', piece: plain },
    'an answer in chunks': { head: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', piece: chunk },
  };
  const cases = storeNames.flatMap((store) =>
    ['GET', 'POST'].flatMap((method) => Object.keys(answers).map((kind) => ({ store, method, kind }))),
  );
  test.each(cases)(
    'of $kind to $method at $store reaches the client at once',
    async ({ store, method, kind }) => {
      const { head = '', piece = plain } = answers[kind] ?? {};
      let socket: Socket | undefined;
      rig.store(store).answer = (_request, from) => {
        socket = from;
        from.write(head);
      };
      const client = await rig.connect();
      client.send(requestText(`${method} /a`, { user: userOf(store), lines: ['Content-Length: 0'] }));
      // The head alone first: there may not be an event for hours.
      await client.until(() => client.received.includes('\r\n\r\n'));
      for (const event of ['data: 1\n\n', 'data: 2\n\n', 'x', 'y'.repeat(3_000)]) {
        client.received = '';
        socket?.write(piece(event));
        await client.until(() => client.received.includes(event));
      }
      client.close();
    },
  );

  test.each(storeNames)('of an upload in chunks reaches %s at once', async (store) => {
    const client = await rig.connect();
    client.send(requestText('PUT /a', { user: userOf(store), lines: ['Transfer-Encoding: chunked'] }));
    for (const text of ['first', 'second', 'z'.repeat(3_000)]) {
      client.send(chunk(text));
      await until(`${text.slice(0, 9)} has arrived`, () => rig.store(store).bytes.includes(text));
    }
    client.send('0\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(200);
  });

  test.each(storeNames)('of a large upload with a length reaches %s at once', async (store) => {
    const client = await rig.connect();
    const lines = ['Content-Length: 200000'];
    client.send(requestText('PUT /a', { user: userOf(store), lines, body: 'first' }));
    await until('the beginning has arrived', () => rig.store(store).bytes.includes('first'));
    client.send(`second${'x'.repeat(200_000 - 'firstsecond'.length)}`);
    await until('the rest follows', () => rig.store(store).requests.length === 1);
    expect(statusOf(await client.answer())).toBe(200);
  });

  test('both ways at the same time is a conversation', async () => {
    rig.legacy.onBytes = (bytes, socket) => {
      if (bytes.includes('PUT')) socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      const word = /ask-\d+/.exec(bytes)?.[0];
      if (word !== undefined) socket.write(chunk(`answer to ${word}`));
    };
    const client = await rig.connect();
    client.send(requestText('PUT /a', { lines: ['Transfer-Encoding: chunked'] }));
    for (let round = 1; round <= 5; round += 1) {
      client.send(chunk(`ask-${round}`));
      await client.until(() => client.received.includes(`answer to ask-${round}`));
    }
    client.close();
  });

  test('row 30: of requests that do not wait for their answers no more is read while many wait, and all are answered in order', async () => {
    const pathOf = ({ startLine }: { startLine: string }): string => startLine.split(' ')[1] ?? '';
    const echoOf = (request: { startLine: string }): string => {
      const path = pathOf(request);
      return `HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`;
    };
    const slow: Socket[] = [];
    rig.legacy.answer = (_request, socket) => void slow.push(socket);
    const client = await rig.connect();
    const paths = Array.from({ length: 1_500 }, (_, at) => `/${at}`);
    const lines = [`x-long: ${'x'.repeat(16_000)}`];
    client.send(
      requestText('GET /slow') + paths.map((path) => requestText(`GET ${path}`, { lines })).join(''),
    );
    await until('the first has arrived', () => slow.length === 1);
    // What is on its way between two sockets of one machine is far less.
    let unsent = 0;
    await until('no more is taken', async () => {
      const before = unsent;
      await rig.settled();
      unsent = client.socket.writableLength;
      return unsent === before;
    });
    expect(unsent).toBeGreaterThan(8_000_000);
    rig.legacy.answer = (request, socket) => void socket.write(echoOf(request));
    slow[0]?.write(echoOf({ startLine: 'GET slow' }));
    for (const body of ['slow', ...paths]) expect((await client.answer()).body).toBe(body);
    expect(rig.legacy.requests.map(pathOf)).toEqual(['/slow', ...paths]);
  }, 60_000);
});

describe('row 23: an event stream', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({ app: { guard: false } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  async function listen(user: string, type = 'text/event-stream; charset=utf-8'): Promise<RawClient> {
    for (const store of storeNames) {
      rig.store(store).answer = (_request, socket) =>
        void socket.write(
          `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n`,
        );
    }
    const client = await rig.connect();
    client.send(requestText('GET /events', { user }));
    await client.until(() => client.received.includes('data: 1'));
    for (const store of storeNames) rig.store(store).answer = answerOk;
    return client;
  }

  test('goes on during a fence, and after one that was lifted', async () => {
    const client = await listen('ann');
    const fence = await rig.fence('ann');
    for (const socket of rig.legacy.sockets) socket.write('9\r\ndata: 2\n\n\r\n');
    await client.until(() => client.received.includes('data: 2'));
    await fence.reopen();
    await until(
      'writes pass again',
      async () =>
        statusOf(await rig.exchange(requestText('PUT /b', { lines: ['Content-Length: 0'] }))) === 200,
    );
    for (const socket of rig.legacy.sockets) socket.write('9\r\ndata: 3\n\n\r\n');
    await client.until(() => client.received.includes('data: 3'));
    expect(client.closed).toBe(false);
  });

  test('ends, whole, when its partition has moved, and the client that connects again gets the new owner', async () => {
    const client = await listen('mover');
    await rig.moveToApp('mover');
    await client.until(() => client.received.endsWith('0\r\n\r\n'));
    expect(client.received.endsWith('data: 1\n\n\r\n0\r\n\r\n')).toBe(true);
    await until('the old owner is let go', () => rig.legacy.sockets.size === 0);
    client.received = '';
    client.send(requestText('GET /events', { user: 'mover' }));
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.app.requests).toHaveLength(1);
    await rig.counted('closed_at_fence_total', 1);
  });

  test('of somebody else goes on, and so does what is no event stream', async () => {
    const other = await listen('somebody');
    const plain = await listen('mover-2', 'application/json');
    await rig.moveToApp('mover-2');
    await until('the move has arrived', async () => {
      await rig.exchange(requestText('HEAD /b', { user: 'mover-2' }));
      return rig.app.requests.length > 0;
    });
    for (const socket of rig.legacy.sockets) socket.write('9\r\ndata: 2\n\n\r\n');
    for (const client of [other, plain]) await client.until(() => client.received.includes('data: 2'));
  });
});

describe('row 23: large bodies', () => {
  let rig: HttpRig;
  let store: ByteStore;
  beforeAll(async () => {
    store = await startByteStore();
    rig = await HttpRig.start({ legacy: { url: store.url, writeTimeoutMs: 40_000 } });
  }, 60_000);
  afterEach(async () => {
    // Also because a proxy that may not read does not notice that its client has gone.
    store.beDeaf(false);
    await rig.tidy();
  });
  afterAll(async () => {
    await rig.stop();
    await store.stop();
  }, 60_000);

  /** Highest number of bytes of memory that the proxy ever had, as the kernel says. */
  function peakBytes(): number {
    const status = readFileSync(`/proc/${rig.process.child.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1_024;
  }

  async function download(bytes: number): Promise<string> {
    const client = await RawClient.open(rig.port);
    const hash = createHash('sha256');
    let left = bytes;
    client.socket.removeAllListeners('data');
    let head = '';
    client.socket.on('data', (text) => {
      let body = Buffer.from(String(text), 'latin1');
      if (!head.includes('\r\n\r\n')) {
        head += String(text);
        body = Buffer.from(head.split('\r\n\r\n').slice(1).join('\r\n\r\n'), 'latin1');
      }
      left -= body.byteLength;
      hash.update(body);
    });
    client.send(requestText(`GET /down/${bytes}`));
    await until('it is all there', () => left <= 0, 100_000);
    client.close();
    return hash.digest('hex');
  }

  async function upload(bytes: number): Promise<string> {
    const client = await RawClient.open(rig.port);
    client.send(requestText('PUT /up', { lines: [`Content-Length: ${bytes}`] }));
    pour(client.socket, blocksOf(bytes), () => undefined);
    await client.until(() => client.received.includes('\r\n\r\n') && client.received.length > 64, 100_000);
    const { body } = await client.answer();
    client.close();
    return body;
  }

  test('128 MiB pass each way, byte for byte, and the proxy needs no more memory for them than for 16 MiB', async () => {
    await download(16 * MiB);
    await upload(16 * MiB);
    const before = peakBytes();
    const expected = hashOf(128 * MiB);
    expect(await download(128 * MiB)).toBe(expected);
    expect(await upload(128 * MiB)).toBe(expected);
    // Kept whole, they would need 128 MiB more; the collector has some freedom of its own.
    expect(peakBytes() - before).toBeLessThan(64 * MiB);
  }, 120_000);

  /** Resolves when the number has stood still for a while. */
  async function standstill(what: string, now: () => number): Promise<number> {
    let before = -1;
    let still = 0;
    await until(
      what,
      () => {
        still = now() === before ? still + 1 : 0;
        before = now();
        return still > 60 && before > 0;
      },
      60_000,
    );
    return before;
  }

  test('a client that does not read holds the store up, and memory stays', async () => {
    const before = peakBytes();
    const sentBefore = store.sent();
    const client = await rig.connect();
    client.socket.pause();
    client.send(requestText(`GET /down/${1_024 * MiB}`));
    const taken = (await standstill('the store stops', store.sent)) - sentBefore;
    // What the kernels on the way keep, and not much more.
    expect(taken).toBeLessThan(96 * MiB);
    expect(peakBytes() - before).toBeLessThan(48 * MiB);
    const paused = store.sent();
    client.socket.resume();
    await until('it goes on', () => store.sent() > paused + 8 * MiB, 30_000);
  }, 100_000);

  test('a store that does not read holds the client up, and memory stays', async () => {
    store.beDeaf(true);
    const before = peakBytes();
    let taken = 0;
    const client = await rig.connect();
    client.send(requestText('PUT /up', { lines: [`Content-Length: ${1_024 * MiB}`] }));
    pour(client.socket, blocksOf(1_024 * MiB), (bytes) => (taken += bytes));
    expect(await standstill('the client stops', () => taken)).toBeLessThan(96 * MiB);
    expect(peakBytes() - before).toBeLessThan(48 * MiB);
  }, 100_000);
});

describe('row 25: an encoded answer', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start();
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const text = JSON.stringify({ id: 7, text: 'x'.repeat(2_000) });
  const encodings: Record<string, Buffer> = {
    gzip: gzipSync(text),
    'x-gzip': gzipSync(text),
    deflate: deflateSync(text),
    br: brotliCompressSync(text),
    zstd: zstdCompressSync(text),
    'gzip, gzip': gzipSync(gzipSync(text)),
    'gzip, in fact broken': gzipSync(text).subarray(0, 40),
    unknown: Buffer.from('no encoding at all'),
  };
  const cases = storeNames.flatMap((store) =>
    ['GET', 'POST'].flatMap((method) => Object.keys(encodings).map((name) => ({ store, method, name }))),
  );
  test.each(cases)('by $name to $method at $store passes byte for byte', async ({ store, method, name }) => {
    const body = encodings[name]?.toString('latin1') ?? '';
    const [coding = ''] = name.split(', in fact');
    const lines = [
      `Content-Encoding: ${coding}`,
      'Content-Type: application/json',
      'ETag: "e"',
      'Vary: Accept-Encoding',
    ];
    rig.store(store).answer = (_request, socket) => {
      const head = ['HTTP/1.1 200 OK', ...lines, `Content-Length: ${body.length}`, '', ''].join('\r\n');
      socket.write(head + body, 'latin1');
    };
    const answer = await rig.exchange(
      requestText(`${method} /a`, {
        user: userOf(store),
        lines: ['Accept-Encoding: br;q=1.0, gzip, *;q=0', 'Content-Length: 0'],
      }),
    );
    expect(answer.body).toBe(body);
    expect(answer.headers.slice(0, 4)).toEqual(lines);
    const [request] = rig.store(store).requests;
    expect(request && headerOf(request, 'accept-encoding')).toBe('br;q=1.0, gzip, *;q=0');
  });

  test('an encoded request passes byte for byte, and nothing is asked for that the client did not ask for', async () => {
    const body = (encodings['gzip'] ?? Buffer.alloc(0)).toString('latin1');
    const lines = [
      'Content-Encoding: gzip',
      'Content-Type: application/json',
      `Content-Length: ${body.length}`,
    ];
    expect(statusOf(await rig.exchange(requestText('PUT /b', { lines, body })))).toBe(200);
    const [request] = rig.legacy.requests;
    expect(request?.body).toBe(body);
    expect(request && headerOf(request, 'content-encoding')).toBe('gzip');
    expect(request && headerOf(request, 'accept-encoding')).toBeUndefined();
  });
});
