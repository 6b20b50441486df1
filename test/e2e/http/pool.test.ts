/** Connections to a store that are kept: one that turns out dead under a request, and a pool that is full. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { answerOk, headerOf, type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

let rig: HttpRig;
const startLines = (): string[] => rig.legacy.requests.map(({ startLine }) => startLine);
const write = (path: string, method = 'POST'): string =>
  requestText(`${method} ${path}`, { lines: ['Content-Length: 2'], body: 'hi' });

async function send(bytes: string): Promise<RawClient> {
  const client = await rig.connect();
  client.send(bytes);
  return client;
}

describe('a connection that is stale', () => {
  beforeAll(async () => {
    rig = await HttpRig.start();
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  /** One connection that has carried a request, and lies in the pool. */
  async function pooled(): Promise<Socket> {
    expect(statusOf(await rig.exchange(write('/first')))).toBe(200);
    const [socket, ...more] = rig.legacy.sockets;
    if (socket === undefined || more.length > 0) throw new Error('not one connection');
    rig.forget();
    return socket;
  }

  const dying: readonly (readonly [how: string, die: (socket: Socket) => void])[] = [
    ['ends it', (socket) => socket.end()],
    ['resets it', (socket) => socket.resetAndDestroy()],
    ['ends it behind half a head', (socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Le')],
    ['ends it behind a 100', (socket) => socket.end('HTTP/1.1 100 Continue\r\n\r\n')],
  ];
  const methods = ['POST', 'PUT', 'PATCH', 'DELETE', 'MOVE'];

  describe.each(dying)('when the store %s as the request comes', (_how, die) => {
    test.each(methods)('row 4: %s is sent once, and its outcome is called unknown', async (method) => {
      await pooled();
      rig.legacy.answer = (_request, socket) => die(socket);
      const answer = await rig.exchange(write('/stale', method));
      expect(statusOf(answer)).toBe(502);
      expect(problemOf(answer)).toMatchObject({ code: 'outcome-unknown', sent: 'unknown', store: 'legacy' });
      rig.legacy.answer = answerOk;
      expect(statusOf(await rig.exchange(write('/after')))).toBe(200);
      expect(startLines()).toEqual([`${method} /stale HTTP/1.1`, 'POST /after HTTP/1.1']);
    });

    test('row 4: neither a key nor a read makes it come twice', async () => {
      await pooled();
      rig.legacy.answer = (_request, socket) => die(socket);
      const lines = ['Content-Length: 2', `Idempotency-Key: "${Math.random()}"`];
      expect(statusOf(await rig.exchange(requestText('POST /keyed', { lines, body: 'hi' })))).toBe(502);
      expect(statusOf(await rig.exchange(requestText('GET /read')))).toBe(502);
      expect(startLines()).toEqual(['POST /keyed HTTP/1.1', 'GET /read HTTP/1.1']);
    });
  });

  test.each(['an end', 'a reset'])(
    'row 4: %s while it lies idle costs nothing but another connection',
    async (how) => {
      const socket = await pooled();
      if (how === 'an end') socket.end();
      else socket.resetAndDestroy();
      await rig.settled();
      expect(statusOf(await rig.exchange(write('/next')))).toBe(200);
      expect([startLines(), rig.legacy.connections]).toEqual([['POST /next HTTP/1.1'], 1]);
    },
  );

  test.each(['an end', 'a reset'])(
    'row 4: %s at the same moment as a write: it comes once, or not at all',
    async (how) => {
      for (let round = 0; round < 25; round += 1) {
        const socket = await pooled();
        const client = await rig.connect();
        // The two race through the proxy; in each round another way may win.
        client.send(write(`/race/${round}`));
        if (how === 'an end') socket.end();
        else socket.resetAndDestroy();
        const answer = await client.answer();
        const seen = startLines().filter((line) => line.startsWith('POST /race')).length;
        expect(seen).toBeLessThanOrEqual(1);
        const outcome = statusOf(answer) === 200 ? 'done' : problemOf(answer)['sent'];
        expect(['done', 'no', 'unknown']).toContain(outcome);
        if (outcome === 'done') expect(seen).toBe(1);
        if (outcome === 'no') expect(seen).toBe(0);
        client.close();
        await rig.tidy();
      }
    },
  );

  test('row 4: a large body that was under way is not begun again', async () => {
    await pooled();
    const body = 'x'.repeat(300_000);
    rig.legacy.onBytes = (bytes, socket) => {
      if (bytes.includes('POST /large')) socket.resetAndDestroy();
    };
    const answer = await rig.exchange(
      requestText('POST /large', { lines: [`Content-Length: ${body.length}`], body }),
    );
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)).toMatchObject({ code: 'outcome-unknown', sent: 'unknown' });
    await rig.settled();
    expect(rig.legacy.bytes.split('POST /large').length - 1).toBe(1);
  });

  test('row 4: many writes at once over connections that all die are each sent once', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    const paths = Array.from({ length: 20 }, (_, at) => `/many/${at}`);
    await Promise.all(paths.map((path) => rig.exchange(write(path))));
    rig.forget();
    rig.legacy.answer = (_request, socket) => socket.resetAndDestroy();
    const answers = await Promise.all(paths.map((path) => rig.exchange(write(path))));
    expect(answers.map(statusOf)).toEqual(paths.map(() => 502));
    expect(startLines().toSorted()).toEqual(paths.map((path) => `POST ${path} HTTP/1.1`).toSorted());
  });
});

describe('a pool of two', () => {
  const waitMs = 3_000;

  beforeAll(async () => {
    rig = await HttpRig.start({ legacy: { connections: 2, connectTimeoutMs: waitMs } });
    await rig.moveToApp('mia');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  /** Two requests that get no answer; the way out answers some of them. */
  async function full(): Promise<(many: number) => void> {
    rig.legacy.answer = () => undefined;
    for (const path of ['/slow/1', '/slow/2']) await send(requestText(`GET ${path}`));
    await until('both are at the store', () => rig.legacy.requests.length === 2);
    return (many) => {
      rig.legacy.answer = answerOk;
      for (const socket of [...rig.legacy.sockets].slice(0, many)) {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      }
    };
  }

  test('row 6: full, it answers 503 after a bounded wait, and nothing is sent', async () => {
    await full();
    const methods = ['GET', 'POST', 'DELETE'];
    const sinceMs = performance.now();
    const answers = await Promise.all(
      methods.map((method) => rig.exchange(requestText(`${method} /more`, { lines: ['Content-Length: 0'] }))),
    );
    expect(performance.now() - sinceMs).toBeGreaterThan(waitMs * 0.9);
    for (const [at, answer] of answers.entries()) {
      expect([statusOf(answer), headerOf(answer, 'retry-after')]).toEqual([503, '1']);
      const said = { code: 'pool-full', store: 'legacy', stage: 'pool-full' };
      expect(problemOf(answer)).toMatchObject(methods[at] === 'GET' ? said : { ...said, sent: 'no' });
    }
    expect(startLines()).toEqual(['GET /slow/1 HTTP/1.1', 'GET /slow/2 HTTP/1.1']);
    expect(rig.legacy.connections).toBe(2);
  });

  test('row 6: who waits gets the connection that becomes free, in the order of coming', async () => {
    const free = await full();
    const paths = ['/a', '/b', '/c', '/d'];
    const clients: RawClient[] = [];
    for (const path of paths) {
      clients.push(await send(write(path)));
      await rig.settled();
    }
    free(1);
    for (const client of clients) expect(statusOf(await client.answer())).toBe(200);
    expect(startLines().slice(2)).toEqual(paths.map((path) => `POST ${path} HTTP/1.1`));
    expect(rig.legacy.connections).toBe(2);
  });

  test('row 6: the other store does not notice', async () => {
    await full();
    const answers = await Promise.all(
      [1, 2, 3].map((at) =>
        rig.exchange(requestText(`POST /${at}`, { user: 'mia', lines: ['Content-Length: 0'] })),
      ),
    );
    expect(answers.map(statusOf)).toEqual([200, 200, 200]);
  });

  test('row 6: a client that goes while it waits is not sent for, and takes no place', async () => {
    const free = await full();
    const gone = await Promise.all([1, 2, 3].map((at) => send(write(`/gone/${at}`))));
    const stays = await send(write('/stays'));
    await rig.settled();
    for (const client of gone) client.close();
    await rig.settled();
    free(2);
    expect(statusOf(await stays.answer())).toBe(200);
    expect(startLines().slice(2)).toEqual(['POST /stays HTTP/1.1']);
  });

  test('row 6: a store that dies under all of them frees the pool', async () => {
    await full();
    const waits = await send(write('/waits'));
    await rig.settled();
    rig.legacy.answer = answerOk;
    for (const socket of rig.legacy.sockets) socket.resetAndDestroy();
    expect(statusOf(await waits.answer())).toBe(200);
    const answers = await Promise.all([1, 2].map((at) => rig.exchange(write(`/${at}`))));
    expect(answers.map(statusOf)).toEqual([200, 200]);
  });

  test('row 6: clients that go free the connections of their reads', async () => {
    await full();
    await rig.tidy();
    const answers = await Promise.all([1, 2].map((at) => rig.exchange(requestText(`GET /${at}`))));
    expect(answers.map(statusOf)).toEqual([200, 200]);
  });
});

describe('event streams beside a pool of two', () => {
  beforeAll(async () => {
    rig = await HttpRig.start({ legacy: { connections: 2, streams: 4, connectTimeoutMs: 400 } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const stream =
    'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata: 1\r\n';

  /** Their first event has come, and they stay open. */
  async function streams(many: number, lines: readonly string[]): Promise<RawClient[]> {
    rig.legacy.answer = ({ startLine }, socket) =>
      void socket.write(
        startLine.includes('/events') ? stream : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      );
    const open: RawClient[] = [];
    for (let at = 0; at < many; at += 1) {
      const client = await send(requestText(`GET /events/${at}`, { lines }));
      await client.until(() => client.received.includes('data: 1'));
      open.push(client);
    }
    return open;
  }

  const announced = ['Accept: text/event-stream'];

  test.each([
    ['that were announced', announced],
    ['that show only by their answer', []],
  ])('row 6: event streams %s leave all connections to requests', async (_what, lines) => {
    const open = await streams(4, lines);
    const answers = await Promise.all([1, 2, 3, 4].map((at) => rig.exchange(write(`/${at}`))));
    expect(answers.map(statusOf)).toEqual([200, 200, 200, 200]);
    for (const socket of rig.legacy.sockets) socket.write('7\r\ndata: 2\r\n');
    for (const client of open) await client.until(() => client.received.includes('data: 2'));
    expect(open.every(({ closed }) => !closed)).toBe(true);
  });

  test('row 6: one event stream more than there may be gets 503, and requests go on', async () => {
    await streams(4, announced);
    const more = await rig.exchange(requestText('GET /events/more', { lines: announced }));
    expect(statusOf(more)).toBe(503);
    expect(headerOf(more, 'retry-after')).toBe('1');
    expect(problemOf(more)).toMatchObject({ code: 'pool-full', store: 'legacy' });
    expect(statusOf(await rig.exchange(write('/after')))).toBe(200);
  });

  test('row 6: the place of an event stream is free once its client has gone', async () => {
    const [first] = await streams(4, announced);
    first?.close();
    await until('the store sees it', () => rig.legacy.sockets.size === 3);
    const [again] = await streams(1, announced);
    expect(again?.received).toMatch(/^HTTP\/1\.1 200/);
  });

  test('row 6: requests that get no answer leave the event streams theirs', async () => {
    rig.legacy.answer = () => undefined;
    for (const path of ['/slow/1', '/slow/2']) await send(requestText(`GET ${path}`));
    await until('both are at the store', () => rig.legacy.requests.length === 2);
    expect(await streams(2, announced)).toHaveLength(2);
  });
});
