/** What a client learns when a store fails, by how far the exchange had come; for a write also whether it was sent. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, type RawMessage, statusOf } from '../../support/raw-http.ts';
import { closedPort, type SilentPort, silentPort } from '../../support/unreachable.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText, type StoreName, storeNames } from './rig.ts';

const get = (user = 'ann'): string => requestText('GET /a', { user });
const post = (user = 'ann'): string =>
  requestText('POST /a', { user, lines: ['Content-Length: 2'], body: 'hi' });
const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');

/** The whole of a refusal, which every client can read. */
function expectProblem(answer: RawMessage, status: number, members: Record<string, unknown>): void {
  expect(statusOf(answer)).toBe(status);
  expect(headerOf(answer, 'content-type')).toBe('application/problem+json');
  expect(headerOf(answer, 'cache-control')).toBe('no-store');
  const problem = problemOf(answer);
  const { code } = members;
  expect(problem).toMatchObject({ ...members, status, type: `urn:onewriter:problem:${String(code)}` });
  expect(problem['title']).toEqual(expect.any(String));
  // What happened, and what to do next.
  expect(String(problem['detail']).split('. ').length).toBeGreaterThanOrEqual(2);
  if (!('sent' in members)) expect(problem).not.toHaveProperty('sent');
}

describe('row 20: a store that fails', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    const times = { readTimeoutMs: 300, writeTimeoutMs: 500 };
    rig = await HttpRig.start({ legacy: times, app: times });
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const breaks: Record<string, (socket: Socket) => void> = {
    'ends the connection': (socket) => void socket.end(),
    'resets the connection': (socket) => void socket.resetAndDestroy(),
    'ends within the status line': (socket) => void socket.end('HTTP/1.1 20'),
    'resets within the status line': (socket) =>
      void socket.write('HTTP/1.1 20', () => socket.resetAndDestroy()),
    'ends within the head': (socket) => void socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n'),
    'ends after an interim answer': (socket) => void socket.end('HTTP/1.1 102 Processing\r\n\r\n'),
    'answers what is no HTTP': (socket) => void socket.write('SSH-2.0-OpenSSH_9.6\r\n\r\n'),
    'answers nothing but line ends': (socket) => void socket.end('\r\n\r\n\r\n'),
    'answers an alert of TLS': (socket) => void socket.write(Buffer.from([21, 3, 3, 0, 2, 2, 40])),
    'answers zeros': (socket) => void socket.write(Buffer.alloc(2_000)),
    'answers HTTP/2': (socket) => void socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])),
    'answers another version': (socket) => void socket.write('HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n'),
    'answers without a status': (socket) => void socket.write('HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n'),
    'answers a request': (socket) => void socket.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n'),
    'answers a length that is none': (socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi'),
    'answers two lengths': (socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!'),
    'answers a field without a name': (socket) =>
      void socket.write('HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n'),
    'answers a NUL in a field': (socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n'),
    'switches protocols unasked': (socket) =>
      void socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nx'),
  };

  describe.each(storeNames)('(%s)', (store) => {
    test.each(Object.keys(breaks))('and %s: 502, and for a write that nobody knows', async (how) => {
      rig.store(store).answer = (_request, socket) => breaks[how]?.(socket);
      const read = await rig.exchange(get(userOf(store)));
      expectProblem(read, 502, { code: 'upstream-failed', store, stage: 'broken' });
      const write = await rig.exchange(post(userOf(store)));
      expectProblem(write, 502, { code: 'outcome-unknown', store, stage: 'broken', sent: 'unknown' });
      // Not once more, not anywhere else.
      expect(rig.store(store).requests).toHaveLength(2);
      expect(rig.store(store === 'app' ? 'legacy' : 'app').requests).toHaveLength(0);
    });

    const silences: Record<string, (socket: Socket) => void> = {
      'says nothing': () => {},
      'says something, and no head comes of it': (socket) => void socket.write('HTTP/1.1 200 OK\r\nX: '),
      'sends only interim answers': (socket) =>
        void socket.write('HTTP/1.1 102 Processing\r\n\r\n'.repeat(3)),
    };
    test.each(Object.keys(silences))('and %s: 504, and for a write that nobody knows', async (how) => {
      rig.store(store).answer = (_request, socket) => silences[how]?.(socket);
      const read = await rig.exchange(get(userOf(store)));
      expectProblem(read, 504, { code: 'upstream-timeout', store, stage: 'timeout' });
      const write = await rig.exchange(post(userOf(store)));
      const unknown = { code: 'outcome-unknown-timeout', store, stage: 'timeout', sent: 'unknown' };
      expectProblem(write, 504, unknown);
      expect(rig.store(store).requests).toHaveLength(2);
    });
  });

  test('and goes on sending its head byte by byte: the time counts all the same', async () => {
    const timers: NodeJS.Timeout[] = [];
    rig.legacy.answer = (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nX: ');
      const timer = setInterval(() => socket.write('x'), 20);
      timers.push(timer);
      socket.once('close', () => clearInterval(timer));
    };
    expectProblem(await rig.exchange(get()), 504, { code: 'upstream-timeout', store: 'legacy' });
    expectProblem(await rig.exchange(post()), 504, { code: 'outcome-unknown-timeout', sent: 'unknown' });
    for (const timer of timers) clearInterval(timer);
  });

  test('leaves the connection of the client, and the next request, alone', async () => {
    const client = await rig.connect();
    for (const how of Object.values(breaks)) {
      rig.legacy.answer = (_request, socket) => how(socket);
      client.send(get());
      expect(statusOf(await client.answer())).toBe(502);
    }
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    client.send(get());
    expect((await client.answer()).body).toBe('ok');
  });

  test('in mid-answer is no problem document any more, but a broken transfer', async () => {
    const sockets: Socket[] = [];
    rig.legacy.answer = (_request, socket) => {
      sockets.push(socket);
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n');
    };
    for (const request of [get(), post()]) {
      const client = await rig.connect();
      client.send(request);
      await client.until(() => client.received.includes('abc'));
      sockets.at(-1)?.write('no chunk size\r\n');
      expect(await client.toTheEnd()).not.toMatch(/\r\n0\r\n|problem/);
    }
  });

  test('is counted, and its writes are in doubt', async () => {
    const before = await rig.counters();
    rig.legacy.answer = (_request, socket) => void socket.resetAndDestroy();
    await rig.exchange(get());
    await rig.exchange(post());
    const after = (name: string): number => (before[name] ?? 0) + 1;
    await rig.counted('in_doubt_writes_total', after('in_doubt_writes_total'));
    for (const code of ['upstream-failed', 'outcome-unknown']) {
      const name = `refused_total{code="${code}"}`;
      expect((await rig.counters())[name]).toBe(after(name));
    }
  });

  test('a gateway that says itself that it does not know is believed: the answer passes, the write is in doubt', async () => {
    for (const status of [502, 504]) {
      const before = (await rig.counters())['in_doubt_writes_total'] ?? 0;
      rig.legacy.answer = (_request, socket) =>
        void socket.write(
          `HTTP/1.1 ${status} Bad\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>`,
        );
      const answer = await rig.exchange(post());
      expect([statusOf(answer), answer.body]).toEqual([status, '<p/>']);
      await rig.counted('in_doubt_writes_total', before + 1);
    }
  });
});

describe('row 20: a store that cannot be reached', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({ app: { url: `http://127.0.0.1:${await closedPort()}` } });
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test('refuses the connection: 502, and a write was not sent', async () => {
    const refused = { code: 'upstream-refused', store: 'app', stage: 'refused' };
    expectProblem(await rig.exchange(get('app-user')), 502, refused);
    expectProblem(await rig.exchange(post('app-user')), 502, { ...refused, sent: 'no' });
    const streamed = requestText('PUT /a', {
      user: 'app-user',
      lines: ['Transfer-Encoding: chunked'],
      body: '2\r\nhi\r\n0\r\n\r\n',
    });
    expectProblem(await rig.exchange(streamed), 502, { ...refused, sent: 'no' });
  });

  test('does not stop the other store, on the same connection', async () => {
    const client = await rig.connect();
    client.send(get('app-user'));
    expect(statusOf(await client.answer())).toBe(502);
    client.send(get('ann'));
    expect(statusOf(await client.answer())).toBe(200);
  });

  test('many at the same time all get their answer', async () => {
    const answers = await Promise.all(Array.from({ length: 60 }, () => rig.exchange(post('app-user'))));
    for (const answer of answers) expect(problemOf(answer)).toMatchObject({ status: 502, sent: 'no' });
  });
});

describe('row 20: a store that takes no connection', () => {
  let rig: HttpRig;
  let silent: SilentPort;
  beforeAll(async () => {
    silent = await silentPort();
    rig = await HttpRig.start({
      app: { url: `http://127.0.0.1:${silent.port}`, connectTimeoutMs: 300, writeTimeoutMs: 20_000 },
    });
    await rig.moveToApp('app-user');
  }, 60_000);
  afterAll(async () => {
    await rig.stop();
    await silent.stop();
  }, 60_000);

  test('504, and a write was not sent', async () => {
    const late = { code: 'upstream-connect-timeout', store: 'app', stage: 'connect-timeout' };
    expectProblem(await rig.exchange(get('app-user')), 504, late);
    expectProblem(await rig.exchange(post('app-user')), 504, { ...late, sent: 'no' });
  });
});

describe('row 20: a store whose connections are all in use', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: { proxy: { limits: { queued: 1 } } },
      legacy: { connections: 2, connectTimeoutMs: waitMs },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const waitMs = 500;
  const full = { code: 'pool-full', store: 'legacy', stage: 'pool-full' };

  test('503 after a bounded wait, 503 at once where too many wait already, and a write was not sent', async () => {
    rig.legacy.answer = () => {};
    const takers = [await rig.connect(), await rig.connect()];
    for (const client of takers) client.send(get());
    await until('both connections are in use', () => rig.legacy.requests.length === 2);
    const sentAt = performance.now();
    const tookMs = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const answer = await rig.exchange(post());
        expectProblem(answer, 503, { ...full, sent: 'no' });
        expect(headerOf(answer, 'retry-after')).toBe('1');
        return performance.now() - sentAt;
      }),
    );
    const [first = 0, second = 0, last = 0] = tookMs.toSorted((left, right) => left - right);
    // One of them was let into the queue, and waited there for its time; the others did not.
    expect(last).toBeGreaterThan(waitMs * 0.9);
    expect(Math.max(first, second)).toBeLessThan(last);
    expectProblem(await rig.exchange(get()), 503, full);
    expect(rig.legacy.requests).toHaveLength(2);
  });

  test('serves whoever waits as soon as one is free', async () => {
    const replies: (() => void)[] = [];
    rig.legacy.answer = (_request, socket) =>
      void replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
    const clients = [await rig.connect(), await rig.connect(), await rig.connect()];
    for (const client of clients) client.send(get());
    await until('both connections are in use', () => rig.legacy.requests.length === 2);
    replies[0]?.();
    await until('the third has arrived', () => rig.legacy.requests.length === 3);
    for (const reply of replies.slice(1)) reply();
    for (const client of clients) expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.connections).toBeLessThanOrEqual(2);
  });
});

describe('row 20: a partition that is fenced', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: {
        flip: { drainMs: 100, fenceMs: 200, holdMs: 3_000 },
        proxy: { limits: { heldPerPartition: 2, heldTotal: 3 } },
      },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test('503 when the hold is over: not sent, with the store and what to do', async () => {
    const fence = await rig.fence('ann');
    const answer = await rig.exchange(post());
    expectProblem(answer, 503, { code: 'fenced', store: 'legacy', stage: 'admission', sent: 'no' });
    expect(headerOf(answer, 'retry-after')).toBe('1');
    expect(statusOf(await rig.exchange(get()))).toBe(200);
    expect(rig.legacy.requests).toHaveLength(1);
    await fence.reopen();
  });

  test('503 at once over the bound of one partition, and over that of all; those that are held are not touched', async () => {
    const fences = [await rig.fence('ann'), await rig.fence('bob')];
    const answers: RawMessage[] = [];
    const send = (user: string): Promise<number> =>
      rig.exchange(post(user)).then((answer) => answers.push(answer));
    const full = { code: 'hold-full', store: 'legacy', stage: 'admission', sent: 'no' };
    const sent = [send('ann'), send('ann'), send('ann')];
    await until('one too many is refused', () => answers.length === 1);
    sent.push(send('bob'), send('bob'));
    await until('one too many of all is refused', () => answers.length === 2);
    for (const answer of answers) expectProblem(answer, 503, full);
    expect(statusOf(await rig.exchange(post('carl')))).toBe(200);
    for (const fence of fences) await fence.reopen();
    await Promise.all(sent);
    expect(answers.map(statusOf)).toEqual([503, 503, 200, 200, 200]);
  });
});
