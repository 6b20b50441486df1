/** Clients that go away in the middle: a read is given up at the store at once, a write runs to its end. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText, type StoreName, storeNames } from './rig.ts';

const writeTimeoutMs = 3_000;
let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: { routes: [{ methods: ['POST'], path: '/search', access: 'read' }] },
    legacy: { writeTimeoutMs, connections: 3 },
    app: { writeTimeoutMs, connections: 3 },
  });
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

const goings: Record<string, (client: RawClient) => void> = {
  'ends its connection': (client) => void client.socket.end(),
  'closes its connection': (client) => client.close(),
  'resets its connection': (client) => void client.socket.resetAndDestroy(),
};

/** Resolves with how long the other side took to give the connection up, ms. */
function givenUp(socket: Socket): Promise<number> {
  const sinceMs = performance.now();
  return new Promise((resolve) => {
    socket.once('close', () => resolve(performance.now() - sinceMs));
  });
}

/** Sends the request, and waits until the store has seen its head. */
async function begin(store: StoreName, text: string): Promise<{ client: RawClient; socket: Socket }> {
  const arrived = new Promise<Socket>((resolve) => {
    rig.store(store).onBytes = (_bytes, socket) => resolve(socket);
  });
  const client = await rig.connect();
  client.send(text);
  return { client, socket: await arrived };
}

describe.each(storeNames)('row 21: a read at %s', (store) => {
  const user = userOf(store);
  const stages: Record<string, { request?: string; answer?: string; lines?: string[]; body?: string }> = {
    'before the answer begins': {},
    'after an early hint': { answer: 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n' },
    'after the head': { answer: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n' },
    'in a body with a length': { answer: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc' },
    'in chunks': { answer: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n' },
    'in a body that ends with the connection': {
      answer: 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc',
    },
    'in an event stream': {
      answer:
        'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n',
    },
    'of a HEAD': { request: 'HEAD /a' },
    'of a REPORT with a body': { request: 'REPORT /a', lines: ['Content-Length: 2'], body: 'hi' },
    'of a search that is a POST': {
      request: 'POST /search',
      lines: ['Content-Type: application/json', 'Content-Length: 2'],
      body: '{}',
    },
    'in its own upload': { request: 'SEARCH /a', lines: ['Transfer-Encoding: chunked'], body: '2\r\nhi\r\n' },
  };
  const cases = Object.keys(stages).flatMap((stage) =>
    Object.keys(goings).map((how) => [how, stage] as const),
  );
  test.each(cases)('whose client %s %s is given up', async (how, stage) => {
    const { request = 'GET /a', answer = '', lines = [], body = '' } = stages[stage] ?? {};
    rig.store(store).answer = () => {};
    const { client, socket } = await begin(store, requestText(request, { user, lines, body }));
    const part = answer.split('\r\n\r\n')[1] ?? '';
    if (answer !== '') {
      socket.write(answer);
      await client.until(() => client.received.includes(part) && client.received.includes('HTTP/1.1'));
    }
    const gone = givenUp(socket);
    goings[how]?.(client);
    expect(await gone).toBeLessThan(2_000);
  });

  test('is given up within 100 ms, in twenty tries', async () => {
    const tookMs: number[] = [];
    rig.store(store).answer = () => {};
    for (let round = 0; round < 20; round += 1) {
      const { client, socket } = await begin(store, requestText('GET /a', { user }));
      const gone = givenUp(socket);
      client.close();
      tookMs.push(await gone);
    }
    // The machine may be busy with other things for a while, but not every time.
    expect(tookMs.toSorted((left, right) => left - right)[2]).toBeLessThan(100);
  });

  test('leaves no connection behind that somebody else could get', async () => {
    rig.store(store).answer = () => {};
    for (let round = 0; round < 6; round += 1) {
      const { client, socket } = await begin(store, requestText('GET /a', { user }));
      const gone = givenUp(socket);
      client.close();
      await gone;
    }
    rig.store(store).onBytes = undefined;
    rig.store(store).answer = (request, socket) =>
      void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${request.startLine.slice(5, 7)}`);
    for (const path of ['b1', 'b2', 'b3', 'b4']) {
      expect((await rig.exchange(requestText(`GET /${path}`, { user }))).body).toBe(path);
    }
  });

  test('that still waits for a connection is never sent', async () => {
    rig.store(store).answer = () => {};
    const takers = [await rig.connect(), await rig.connect(), await rig.connect()];
    for (const client of takers) client.send(requestText('GET /a', { user }));
    await until('all connections are in use', () => rig.store(store).requests.length === 3);
    const waiting = await rig.connect();
    waiting.send(requestText('GET /waiting', { user }));
    await rig.counted('requests_under_way', 4);
    waiting.close();
    await rig.counted('requests_under_way', 3);
    rig.store(store).answer = (_request, socket) => void socket.write(ok);
    for (const socket of rig.store(store).sockets) socket.write(ok);
    for (const client of takers) expect(statusOf(await client.answer())).toBe(200);
    await rig.exchange(requestText('GET /after', { user }));
    expect(rig.store(store).bytes).not.toContain('/waiting');
  });
});

describe.each(storeNames)('row 21: a write at %s', (store) => {
  const user = userOf(store);
  let inDoubtBefore = 0;
  beforeEach(async () => {
    inDoubtBefore = (await rig.counters())['in_doubt_writes_total'] ?? 0;
  });

  const bodies: Record<string, { lines: string[]; body: string }> = {
    'without a body': { lines: ['Content-Length: 0'], body: '' },
    'with a small body': { lines: ['Content-Length: 2'], body: 'hi' },
    'with a large body': { lines: ['Content-Length: 200000'], body: 'x'.repeat(200_000) },
    'with a body in chunks': { lines: ['Transfer-Encoding: chunked'], body: '2\r\nhi\r\n0\r\n\r\n' },
  };
  const cases = Object.keys(bodies).flatMap((body) => Object.keys(goings).map((how) => [body, how] as const));
  test.each(cases)(
    '%s whose client %s runs to its end, and its connection is used again',
    async (kind, how) => {
      const arrived: Socket[] = [];
      rig.store(store).answer = (_request, socket) => void arrived.push(socket);
      const client = await rig.connect();
      client.send(requestText('PUT /a', { user, ...bodies[kind] }));
      await until('it has arrived whole', () => arrived.length === 1);
      goings[how]?.(client);
      await client.until(() => client.closed);
      // The proxy has noticed by now: whoever comes later is served.
      await rig.exchange(requestText('GET /.well-known/onewriter/health'));
      expect(arrived[0]?.destroyed).toBe(false);
      arrived[0]?.write(ok);
      rig.store(store).answer = (_request, socket) => void (arrived.push(socket), socket.write(ok));
      await rig.exchange(requestText('GET /b', { user }));
      // The most recent one that is free is the one on which the write was answered.
      expect(arrived[1]).toBe(arrived[0]);
      expect(rig.store(store).requests.map(({ startLine }) => startLine)).toEqual([
        'PUT /a HTTP/1.1',
        'GET /b HTTP/1.1',
      ]);
    },
  );

  test('whose client goes away in the middle of a large answer is read to its end', async () => {
    const whole = 8 * 1024 * 1024;
    let finished = false;
    rig.store(store).answer = () => {};
    const { client, socket } = await begin(
      store,
      requestText('POST /a', { user, lines: ['Content-Length: 0'] }),
    );
    rig.store(store).onBytes = undefined;
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${whole}\r\n\r\n`);
    client.socket.pause();
    socket.write(Buffer.alloc(whole, 'x'), () => {
      finished = true;
    });
    client.close();
    await until('the store got rid of its answer', () => finished);
    let usedNext: Socket | undefined;
    rig.store(store).answer = (_request, next) => {
      usedNext = next;
      // Where it was not free yet, the other one must not be preferred from then on.
      next.write(next === socket ? ok : ok.replace('\r\n', '\r\nConnection: close\r\n'));
    };
    await until('its connection is used again', async () => {
      await rig.exchange(requestText('GET /b', { user }));
      return usedNext === socket;
    });
  });

  test('is in nobody’s way any more when its answer has come: a fence is acknowledged', async () => {
    const own = `aborter-${store}`;
    if (store === 'app') await rig.moveToApp(own);
    rig.store(store).answer = () => {};
    const { client, socket } = await begin(
      store,
      requestText('POST /a', { user: own, lines: ['Content-Length: 0'] }),
    );
    client.close();
    await rig.counted('requests_under_way', 1);
    socket.write(ok);
    await rig.counted('requests_under_way', 0);
    await (await rig.fence(own)).reopen();
    await rig.counted('in_doubt_writes_total', inDoubtBefore);
  });

  test('that is never answered ends with its time, and is in doubt', async () => {
    rig.store(store).answer = () => {};
    const { client, socket } = await begin(
      store,
      requestText('POST /a', { user, lines: ['Content-Length: 0'] }),
    );
    const gone = givenUp(socket);
    client.close();
    expect(await gone).toBeGreaterThan(writeTimeoutMs / 2);
    await rig.counted('in_doubt_writes_total', inDoubtBefore + 1);
  });

  test('of which only a part came is reset, never completed, and in doubt where it was streamed', async () => {
    const text = requestText('PUT /a', {
      user,
      lines: ['Content-Length: 200000'],
      body: 'x'.repeat(100_000),
    });
    const { client, socket } = await begin(store, text);
    const errors: unknown[] = [];
    socket.on('error', (error: Error & { code?: string }) => errors.push(error.code));
    const gone = givenUp(socket);
    client.close();
    expect(await gone).toBeLessThan(2_000);
    expect(errors).toEqual(['ECONNRESET']);
    expect(rig.store(store).requests).toEqual([]);
    await rig.counted('in_doubt_writes_total', inDoubtBefore + 1);
  });

  test('of which only a part of a small body came was never sent', async () => {
    const client = await rig.connect();
    client.send(requestText('PUT /a', { user, lines: ['Content-Length: 2000'], body: 'half' }));
    await rig.counted('requests_under_way', 1);
    client.close();
    await rig.counted('requests_under_way', 0);
    expect(rig.store(store).bytes).toBe('');
    await rig.counted('in_doubt_writes_total', inDoubtBefore);
  });
});
