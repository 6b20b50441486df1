/** Bounds of time, size and number: slow clients, silent ones, greedy ones, and those that only have to wait. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

/** Sends `piece` again and again, slowly, until the connection ends. Returns the way out. */
function trickle(client: RawClient, piece: string, everyMs = 40): void {
  const timer = setInterval(() => {
    if (client.closed || !client.socket.writable) clearInterval(timer);
    else client.send(piece);
  }, everyMs);
  client.socket.once('close', () => clearInterval(timer));
}

describe('row 24: a client that takes its time', () => {
  const limits = {
    headersTimeoutMs: 500,
    requestTimeoutMs: 1_200,
    keepAliveMs: 600,
    stalledMs: 800,
    answerSilenceMs: 1_500,
    inspectMs: 600,
  };
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: {
        proxy: { limits },
        flip: { drainMs: 100, fenceMs: 200, holdMs: 400 },
        routes: [{ methods: ['POST'], path: '/search', access: 'read' }],
      },
      legacy: { writeTimeoutMs: 6_000 },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const late = { code: 'request-timeout', status: 408 };

  test('to say anything at all is let go', async () => {
    const client = await rig.connect();
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([408, expect.objectContaining(late)]);
    await client.toTheEnd();
  });

  const heads: Record<string, readonly [beginning: string, piece: string]> = {
    'to send the first line': ['GE', ''],
    'to send its target': ['GET /a', 'a'],
    'to send a header': ['GET /a HTTP/1.1\r\nHost: h\r\nX-Slow: ', 'x'],
    'to send many headers': ['GET /a HTTP/1.1\r\nHost: h\r\n', 'X: y\r\n'],
    'to end the head': ['GET /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n', ''],
  };
  test.each(Object.keys(heads))('%s gets 408 and is let go, also where it looks busy', async (what) => {
    const [beginning = '', piece = ''] = heads[what] ?? [];
    const client = await rig.connect();
    client.send(beginning);
    if (piece !== '') trickle(client, piece);
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([408, expect.objectContaining(late)]);
    await client.toTheEnd();
    expect(rig.legacy.bytes).toBe('');
  });

  test('does not keep others from being served, however many there are', async () => {
    const slow = await Promise.all(Array.from({ length: 200 }, () => rig.connect()));
    for (const client of slow) client.send('GET /a HTTP/1.1\r\nHost: h\r\nX-Slow: ');
    for (let round = 0; round < 20; round += 1) {
      expect(statusOf(await rig.exchange(requestText('GET /a')))).toBe(200);
    }
    for (const client of slow) expect(statusOf(await client.answer())).toBe(408);
  });

  test('to send a small body gets 408: nothing was sent', async () => {
    const client = await rig.connect();
    client.send(requestText('PUT /a', { lines: ['Content-Length: 5000'], body: 'x' }));
    trickle(client, 'x');
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([
      408,
      expect.objectContaining({ ...late, sent: 'no' }),
    ]);
    await client.toTheEnd();
    expect(rig.legacy.bytes).toBe('');
  });

  test.each([
    ['with a length', ['Content-Length: 500000'], 'xxx'],
    ['in chunks', ['Transfer-Encoding: chunked'], '3\r\nxxx\r\n'],
  ])('to send a body %s that is passed on gets 408: nobody knows', async (_, lines, piece) => {
    const client = await rig.connect();
    client.send(requestText('PUT /a', { lines, body: piece }));
    trickle(client, piece);
    await until('the store has a part', () => rig.legacy.bytes.includes('xxx'));
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([
      408,
      expect.objectContaining({ ...late, sent: 'unknown' }),
    ]);
    await client.toTheEnd();
    await until('the store is not left waiting', () => rig.legacy.sockets.size === 0);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('to send the body of a read gets 408', async () => {
    const client = await rig.connect();
    client.send(requestText('SEARCH /a', { lines: ['Content-Length: 500000'], body: 'xxx' }));
    trickle(client, 'xxx');
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([408, expect.objectContaining(late)]);
    expect(problemOf(answer)).not.toHaveProperty('sent');
  });

  test('to send a body that must be read first gets 408', async () => {
    const client = await rig.connect();
    const lines = ['Content-Type: application/json', 'Content-Length: 5000'];
    client.send(requestText('POST /search', { lines, body: '{' }));
    trickle(client, ' ');
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([
      408,
      expect.objectContaining({ ...late, sent: 'no' }),
    ]);
    expect(rig.legacy.bytes).toBe('');
  });

  test('to send its next request is let go without a word', async () => {
    const client = await rig.connect();
    client.send(requestText('GET /a'));
    expect(statusOf(await client.answer())).toBe(200);
    await client.toTheEnd();
    expect(client.received).toBe('');
    expect(client.ending).toBe('fin');
  });

  test('between requests, but not more than it may, is served on the same connection', async () => {
    const client = await rig.connect();
    for (let round = 0; round < 5; round += 1) {
      client.send(requestText('GET /a'));
      expect(statusOf(await client.answer())).toBe(200);
      const aThird = performance.now() + limits.keepAliveMs / 3;
      await until('a third of the time has passed', () => performance.now() > aThird);
    }
    expect(client.closed).toBe(false);
  });

  test.each(['GET', 'POST'])(
    'to read the answer to its %s is broken off, and the store is free again',
    async (method) => {
      let given: Socket | undefined;
      let gotRid = false;
      const body = Buffer.alloc(64 * 1_024 * 1_024, 'x');
      rig.legacy.answer = (_request, socket) => {
        given = socket;
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`);
        socket.write(body, () => (gotRid = true));
      };
      const client = await rig.connect();
      client.socket.pause();
      client.send(requestText(`${method} /a`, { lines: ['Content-Length: 0'] }));
      // A read is given up; of a write the answer is taken to its end.
      await until('the store is free', () => (method === 'GET' ? given?.destroyed : gotRid), 20_000);
      client.socket.resume();
      await client.until(() => client.closed);
      expect(client.received.length).toBeLessThan(body.length);
      await rig.counted('requests_under_way', 0);
    },
  );
});

describe('row 24: a client that reads slowly, but reads', () => {
  // A kernel says that a client has taken something once a third of its send buffer is free: up to 1.3 MiB.
  const stalledMs = 3_000;
  const sipEveryMs = 25;
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({ config: { proxy: { limits: { stalledMs } } } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test('gets its whole answer, over more than the time in which it must have taken something', async () => {
    const body = 'x'.repeat(32 * 1_024 * 1_024);
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    const client = await rig.connect();
    let taken = 0;
    client.socket.pause();
    const untilMs = performance.now() + 2 * stalledMs;
    const sip = setInterval(() => {
      if (performance.now() > untilMs) {
        clearInterval(sip);
        client.socket.resume();
        return;
      }
      taken += String(client.socket.read() ?? '').length;
    }, sipEveryMs);
    client.send(requestText('GET /a'));
    await until('it has sipped', () => performance.now() > untilMs, 20_000);
    expect(taken).toBeLessThan(body.length);
    await client.until(() => taken + client.received.length >= body.length, 30_000);
    expect(client.ending).toBeUndefined();
  }, 60_000);
});

describe('row 24: who only has to wait', () => {
  const limits = { headersTimeoutMs: 400, requestTimeoutMs: 500, keepAliveMs: 300, stalledMs: 300 };
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: { proxy: { limits }, flip: { drainMs: 1_000, fenceMs: 2_000, holdMs: 20_000 } },
      legacy: { writeTimeoutMs: 20_000 },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  /** Far more than each of the times above, and than the looks at them. */
  const longMs = 3_500;
  const pass = async (): Promise<void> => {
    const untilMs = performance.now() + longMs;
    await until('the times have passed', () => performance.now() > untilMs);
  };

  const uploads: Record<string, { lines: string[]; body: string }> = {
    'without a body': { lines: ['Content-Length: 0'], body: '' },
    'with a small body': { lines: ['Content-Length: 2'], body: 'hi' },
    'with a large body': { lines: ['Content-Length: 300000'], body: 'x'.repeat(300_000) },
    'in chunks': { lines: ['Transfer-Encoding: chunked'], body: `2\r\nhi\r\n0\r\n\r\n` },
    'of which a part is to come': { lines: ['Content-Length: 300000'], body: 'x'.repeat(100_000) },
  };
  test('a held write trips no time of the listening side, whatever its body', async () => {
    const fence = await rig.fence('ann');
    const clients = new Map<string, RawClient>();
    for (const [kind, upload] of Object.entries(uploads)) {
      const client = await rig.connect();
      clients.set(kind, client);
      client.send(requestText('PUT /a', upload));
    }
    await rig.counted('held_writes', clients.size);
    await pass();
    // A client that is asked whether it is still there may have got an interim answer.
    for (const client of clients.values())
      expect(client.received.replaceAll('HTTP/1.1 100 Continue\r\n\r\n', '')).toBe('');
    expect(rig.legacy.bytes).toBe('');
    await fence.reopen();
    clients.get('of which a part is to come')?.send('x'.repeat(200_000));
    for (const client of clients.values()) {
      let answer = await client.answer();
      while (statusOf(answer) === 100) answer = await client.answer();
      expect(statusOf(answer)).toBe(200);
    }
    expect(rig.legacy.requests).toHaveLength(clients.size);
  }, 60_000);

  test('a read whose store is slow is not cut off, nor a write, nor a silent event stream', async () => {
    const sockets: Socket[] = [];
    rig.legacy.answer = (request, socket) => {
      sockets.push(socket);
      if (!request.startLine.includes('/events')) return;
      socket.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 12\r\n\r\n');
    };
    const clients = [await rig.connect(), await rig.connect(), await rig.connect()];
    clients[0]?.send(requestText('GET /a'));
    clients[1]?.send(requestText('POST /a', { lines: ['Content-Length: 2'], body: 'hi' }));
    clients[2]?.send(requestText('GET /events'));
    await until('all have arrived', () => sockets.length === 3);
    await pass();
    for (const [at, socket] of sockets.entries()) {
      const events = rig.legacy.requests[at]?.startLine.includes('/events');
      socket.write(events ? 'data: hello\n' : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    }
    for (const client of clients) expect(statusOf(await client.answer())).toBe(200);
  });
});

describe('row 24: a store that falls silent in the middle of its answer', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({ config: { proxy: { limits: { answerSilenceMs: 400 } } } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test.each(['GET', 'POST'])('leaves %s with a broken transfer after a bounded time', async (method) => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
    const client = await rig.connect();
    client.send(requestText(`${method} /a`, { lines: ['Content-Length: 0'] }));
    const text = await client.toTheEnd();
    expect(text).toContain('abc');
    expect(text).not.toContain('\r\n0\r\n');
  });
});

describe('row 24: the size of a body', () => {
  const bodyBytes = 100_000;
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: {
        proxy: { limits: { bodyBytes } },
        routes: [{ methods: ['POST'], path: '/search', access: 'read' }],
      },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const chunked = (bytes: number): { lines: string[]; body: string } => ({
    lines: ['Transfer-Encoding: chunked'],
    body: `${(10_000).toString(16)}\r\n${'x'.repeat(10_000)}\r\n`.repeat(bytes / 10_000) + '0\r\n\r\n',
  });
  const sized = (bytes: number): { lines: string[]; body: string } => ({
    lines: [`Content-Length: ${bytes}`],
    body: 'x'.repeat(bytes),
  });

  test.each([
    ['a length', sized(bodyBytes)],
    ['chunks', chunked(bodyBytes)],
  ])('up to the bound is forwarded whole, with %s', async (_, upload) => {
    expect(statusOf(await rig.exchange(requestText('PUT /a', upload)))).toBe(200);
    expect(rig.legacy.requests[0]?.body.length).toBe(bodyBytes);
  });

  test('over the bound is refused by its head: nothing was sent', async () => {
    const client = await rig.connect();
    client.send(requestText('PUT /a', { lines: [`Content-Length: ${bodyBytes + 1}`] }));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(413);
    expect(problemOf(answer)).toMatchObject({ code: 'body-too-large', status: 413, sent: 'no' });
    expect(rig.legacy.bytes).toBe('');
  });

  test('over the bound is not asked for: no 100, only the 413', async () => {
    const lines = [`Content-Length: ${bodyBytes + 1}`, 'Expect: 100-continue'];
    expect(statusOf(await rig.exchange(requestText('PUT /a', { lines })))).toBe(413);
  });

  test('over the bound is no way around a fence or an identity either: the first thing that is looked at', async () => {
    const answer = await rig.exchange(requestText('PUT /a', { user: null, ...sized(bodyBytes + 1) }));
    expect(statusOf(answer)).toBe(413);
  });

  test('over the bound in chunks is broken off, and the client learns that a part was sent', async () => {
    const answer = await rig.exchange(requestText('PUT /a', chunked(bodyBytes + 20_000)));
    expect(statusOf(answer)).toBe(413);
    expect(problemOf(answer)).toMatchObject({ code: 'body-too-large', store: 'legacy', sent: 'unknown' });
    await until('the store is not left waiting', () => rig.legacy.sockets.size === 0);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('over the bound in chunks, where the body is read before anything is sent, is refused: nothing was sent', async () => {
    const { lines, body } = chunked(bodyBytes + 20_000);
    const key = [...lines, 'Content-Type: application/json', 'Idempotency-Key: "k"'];
    const answer = await rig.exchange(requestText('PUT /a', { lines: key, body }));
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([413, 'body-too-large']);
    await until('nothing is under way', async () => (await rig.counters())['requests_under_way'] === 0);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('over the bound of a read is 413 without a word about sending', async () => {
    const answer = await rig.exchange(requestText('SEARCH /a', chunked(bodyBytes + 20_000)));
    expect(statusOf(answer)).toBe(413);
    expect(problemOf(answer)).not.toHaveProperty('sent');
  });

  test('of an answer has no bound', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(
        `HTTP/1.1 200 OK\r\nContent-Length: ${4 * bodyBytes}\r\n\r\n${'x'.repeat(4 * bodyBytes)}`,
      );
    expect((await rig.exchange(requestText('GET /a'))).body.length).toBe(4 * bodyBytes);
  });
});

describe('row 24: the number of connections', () => {
  const connections = 20;
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: { proxy: { limits: { connections, heldTotal: 10, heldPerPartition: 10 } } },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  /** How a new connection fares: the status of its answer, or 0 where it is cut off. */
  async function newcomer(): Promise<number> {
    const client = await rig.connect();
    client.send(requestText('GET /a'));
    await client.until(() => client.received.includes('\r\n\r\n'));
    return client.received === '' ? 0 : Number(client.received.split(' ')[1]);
  }

  test('is bounded: some more are told so, the others are cut off, those that are open go on, and room is taken again', async () => {
    const clients = await Promise.all(Array.from({ length: connections }, () => rig.connect()));
    for (const client of clients) client.send(requestText('GET /a'));
    for (const client of clients) expect(statusOf(await client.answer())).toBe(200);
    const told = await rig.exchange(requestText('POST /a', { lines: ['Content-Length: 0'] }));
    expect([statusOf(told), problemOf(told)]).toEqual([
      503,
      expect.objectContaining({ code: 'too-many-connections', sent: 'no' }),
    ]);
    const silent = await Promise.all(Array.from({ length: 10 }, () => rig.connect()));
    await until('most are cut off', () => silent.filter(({ closed }) => closed).length >= 8);
    for (const client of clients) {
      client.send(requestText('GET /b'));
      expect(statusOf(await client.answer())).toBe(200);
    }
    for (const client of [...silent, ...clients.slice(0, 3)]) client.close();
    await until('there is room again', async () => (await newcomer()) === 200);
    expect(rig.legacy.requests.filter(({ startLine }) => startLine.startsWith('POST'))).toEqual([]);
  });

  test('of which all are held leaves room for others', async () => {
    const fence = await rig.fence('ann');
    const held = await Promise.all(Array.from({ length: 10 }, () => rig.connect()));
    for (const client of held) client.send(requestText('PUT /a', { lines: ['Content-Length: 0'] }));
    await rig.counted('held_writes', 10);
    const refused = await rig.exchange(requestText('PUT /a', { lines: ['Content-Length: 0'] }));
    expect(problemOf(refused)).toMatchObject({ code: 'hold-full', sent: 'no' });
    expect(headerOf(refused, 'retry-after')).toBe('1');
    expect(
      statusOf(await rig.exchange(requestText('PUT /a', { user: 'bob', lines: ['Content-Length: 0'] }))),
    ).toBe(200);
    await fence.reopen();
    for (const client of held) expect(statusOf(await client.answer())).toBe(200);
  });
});
