/** Writes with an Idempotency-Key: a client may repeat them, and the store sees each once. */
import { createServer, type AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import type { StoreName } from '../../src/core/ownership.ts';
import type { CopyDesk, GuardCalls } from '../../src/core/ports.ts';
import { attemptHandoff } from '../../src/handoff/attempt.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import type { IdempotencySettings } from '../../src/ledger/idempotency.ts';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { gate, openKeys, type TestKeys } from '../support/idempotency.ts';
import { openLedger } from '../support/ledger.ts';
import { configOf, type ProxyRig, startRig } from '../support/proxy.ts';
import {
  exchange,
  headerOf,
  type RawAnswer,
  RawClient,
  type RawMessage,
  RawUpstream,
  statusOf,
} from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: ProxyRig;
let keys: TestKeys;
const ends: (() => Promise<unknown> | void)[] = [];

beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => server.stop());
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

async function start(
  options: Parameters<typeof startRig>[0] = {},
  settings: Partial<IdempotencySettings> = {},
): Promise<void> {
  keys = await openKeys(server, settings);
  ends.push(() => keys.close());
  rig = await startRig({ answer: answerNumbered(), ...options, keys: keys.keys });
  ends.push(() => rig.stop());
}

/** Every write that reaches the store makes another record, so a second one shows. */
function answerNumbered(): RawAnswer {
  let records = 0;
  return (_request, socket) => {
    records += 1;
    const body = `{"record":${records}}`;
    socket.write(
      `HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-Trace: t${records}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
  };
}

const answerWith =
  (head: string, body = ''): RawAnswer =>
  (_request, socket) =>
    void socket.write(`HTTP/1.1 ${head}\r\nContent-Length: ${body.length}\r\n\r\n${body}`, 'latin1');

interface Write {
  readonly key?: string;
  readonly user?: string;
  readonly body?: string;
  readonly target?: string;
  readonly method?: string;
  readonly headers?: readonly string[];
}

function write({ key, user, body = 'hi', target = '/a', method = 'POST', headers = [] }: Write): string {
  const lines = [
    `${method} ${target} HTTP/1.1`,
    'Host: h',
    ...(user === '' ? [] : [`x-user: ${user ?? 'ann'}`]),
    ...(key === undefined ? [] : [`Idempotency-Key: ${key}`]),
    `Content-Length: ${body.length}`,
    ...headers,
  ];
  return `${lines.join('\r\n')}\r\n\r\n${body}`;
}

const send = async (fields: Write): Promise<RawMessage> => exchange(rig.port, write(fields));
const problem = (message: RawMessage): Record<string, unknown> =>
  JSON.parse(message.body) as Record<string, unknown>;
const outcomes = (): string[] => rig.gate.endings.map(({ outcome }) => outcome);
const replayed = (message: RawMessage): boolean => headerOf(message, 'idempotency-replayed') === 'true';

async function closedPort(): Promise<number> {
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  await new Promise<void>((resolve) => listener.close(() => resolve()));
  return port;
}

describe('a repetition', () => {
  test('gets the answer of the first write, which alone reached the store', async () => {
    await start();
    const first = await send({ key: 'k1' });
    expect(replayed(first)).toBe(false);
    const again = await send({ key: 'k1' });
    expect(replayed(again)).toBe(true);
    expect(statusOf(again)).toBe(201);
    expect(again.body).toBe(first.body);
    expect(headerOf(again, 'x-trace')).toBe('t1');
    expect(headerOf(again, 'content-type')).toBe('application/json');
    expect(rig.legacy.requests.length).toBe(1);
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'idempotency-key')).toBe('k1');
    expect(outcomes()).toEqual(['ended', 'not-sent']);
    expect(rig.proxy.counters().replayed).toBe(1);
    expect(statusOf(await send({ key: 'k2' }))).toBe(201);
    expect(rig.legacy.requests.length).toBe(2);
  });

  test('on the same connection, and with 100-continue, is answered too', async () => {
    await start();
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await client.answer();
    client.send(write({ key: 'k1', headers: ['Expect: 100-continue'] }));
    expect((await client.answer()).startLine).toContain('100');
    expect(replayed(await client.answer())).toBe(true);
    client.close();
  });

  test('gets no cookie, no old date, and bytes as they were', async () => {
    const body = '\x00\xff\x80 bytes';
    await start({
      answer: answerWith('200 OK\r\nSet-Cookie: session=s3cret\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT', body),
    });
    expect((await send({ key: 'k1' })).headers.join()).toContain('s3cret');
    const again = await send({ key: 'k1' });
    expect(again.body).toBe(body);
    expect(again.headers.join()).not.toMatch(/s3cret|1970/);
    expect(JSON.stringify(await keys.redis.hgetall((await keys.records())[0] ?? ''))).not.toContain('s3cret');
  });

  test('of an answer without a body is answered without one', async () => {
    await start({ answer: (_request, socket) => void socket.write('HTTP/1.1 204 No Content\r\n\r\n') });
    expect(statusOf(await send({ key: 'k1', method: 'DELETE' }))).toBe(204);
    const again = await send({ key: 'k1', method: 'DELETE' });
    expect(statusOf(again)).toBe(204);
    expect(headerOf(again, 'content-length')).toBeUndefined();
    expect(replayed(again)).toBe(true);
  });

  test('50 at once: exactly one reaches the store, and nobody gets another answer than its own', async () => {
    await start();
    const clients = await Promise.all(Array.from({ length: 50 }, async () => RawClient.open(rig.port)));
    for (const client of clients) client.send(write({ key: 'k1' }));
    const answers = await Promise.all(clients.map(async (client) => client.answer()));
    for (const client of clients) client.close();
    expect(rig.legacy.requests.length).toBe(1);
    const firsts = answers.filter((answer) => statusOf(answer) === 201 && !replayed(answer));
    expect(firsts.length).toBe(1);
    for (const answer of answers) {
      if (statusOf(answer) === 201) expect(answer.body).toBe('{"record":1}');
      else expect(problem(answer)).toMatchObject({ status: 409, code: 'idempotency-pending', sent: 'no' });
    }
  });

  test('while the first is under way is 409 with Retry-After', async () => {
    const replies: (() => void)[] = [];
    await start({
      answer: (_request, socket) => {
        replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
      },
    });
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('the first is at the store', () => replies.length === 1);
    const again = await send({ key: 'k1' });
    expect(problem(again)).toMatchObject({
      code: 'idempotency-pending',
      sent: 'no',
      store: 'legacy',
      epoch: 1,
    });
    expect(headerOf(again, 'retry-after')).toBe('1');
    replies[0]?.();
    expect(statusOf(await client.answer())).toBe(200);
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
    expect(replies.length).toBe(1);
    client.close();
  });

  test.each<[string, Write]>([
    ['body', { body: 'ho' }],
    ['method', { method: 'PUT' }],
    ['target', { target: '/a?x=1' }],
    ['content type', { headers: ['Content-Type: text/plain'] }],
  ])('with another %s is 422', async (_what, change) => {
    await start();
    await send({ key: 'k1' });
    expect(problem(await send({ key: 'k1', ...change }))).toMatchObject({
      status: 422,
      code: 'idempotency-key-reused',
      sent: 'no',
    });
    expect(rig.legacy.requests.length).toBe(1);
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
  });
});

describe('a key', () => {
  test('means something only to who chose it, and only in its partition', async () => {
    await start({ config: { routes: [{ path: '/calendars/:owner/*', partition: 'path.owner' }] } });
    const target = '/calendars/team/x';
    for (const user of ['ann', 'bob']) {
      expect(replayed(await send({ key: 'k1', user, target }))).toBe(false);
      expect(replayed(await send({ key: 'k1', user, target }))).toBe(true);
    }
    expect(replayed(await send({ key: 'k1', target: '/calendars/other/x' }))).toBe(false);
    expect(rig.legacy.requests.length).toBe(3);
  });

  test.each<[string, readonly string[]]>([
    ['longer than 255 bytes', [`Idempotency-Key: ${'k'.repeat(256)}`]],
    ['empty', ['Idempotency-Key: ']],
    ['there twice', ['Idempotency-Key: k1', 'Idempotency-Key: k1']],
  ])('%s is 400, and nothing is sent or stored', async (_what, headers) => {
    await start();
    expect(problem(await send({ headers }))).toMatchObject({
      status: 400,
      code: 'idempotency-key-invalid',
      sent: 'no',
    });
    expect(rig.legacy.requests.length).toBe(0);
    expect(outcomes()).toEqual(['not-sent']);
    expect(await keys.records()).toEqual([]);
    expect(statusOf(await send({ key: 'k'.repeat(255) }))).toBe(201);
  });

  test('is only passed on by pinned routes, reads, anonymous writes, and a proxy without a memory of keys', async () => {
    await start({
      config: {
        routes: [
          { path: '/login', store: 'legacy', anonymous: true },
          { path: '/open/:owner', anonymous: true, partition: 'path.owner' },
        ],
      },
    });
    const plain = await startRig();
    ends.push(() => plain.stop());
    for (let round = 0; round < 2; round += 1) {
      await send({ key: 'k1', target: '/login' });
      await send({ key: 'k1', target: '/open/team', user: '' });
      await send({ key: 'k1', method: 'GET' });
      await exchange(plain.port, write({ key: 'k1' }));
    }
    expect(rig.legacy.requests.length).toBe(6);
    expect(plain.legacy.requests.length).toBe(2);
    for (const request of [...rig.legacy.requests, ...plain.legacy.requests]) {
      expect(headerOf(request, 'idempotency-key')).toBe('k1');
    }
    expect(await keys.records()).toEqual([]);
  });

  test('is free again after its time', async () => {
    await start({}, { keepMs: 300 });
    await send({ key: 'k1' });
    const later = await until('the key is free', async () => {
      const answer = await send({ key: 'k1' });
      return !replayed(answer) && answer;
    });
    expect(later.body).toBe('{"record":2}');
  });

  test('beyond the bound of its partition is 429; other partitions go on', async () => {
    await start({}, { keysPerPartition: 3 });
    for (const key of ['k1', 'k2', 'k3']) expect(statusOf(await send({ key }))).toBe(201);
    const over = await send({ key: 'k4' });
    expect(problem(over)).toMatchObject({ status: 429, code: 'idempotency-too-many-keys', sent: 'no' });
    expect(Number(headerOf(over, 'retry-after'))).toBeGreaterThan(500);
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
    expect(statusOf(await send({ key: 'k4', user: 'bob' }))).toBe(201);
    expect(statusOf(await send({}))).toBe(201);
    expect(rig.legacy.requests.length).toBe(5);
  });
});

describe('a first write that was not sent', () => {
  test('frees its key before the client learns of it', async () => {
    await start({ legacy: { url: `http://127.0.0.1:${await closedPort()}` } });
    const ending = gate();
    keys.interference.end = async (go) => {
      await ending.opened;
      await go();
    };
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('the write has ended', () => outcomes().length === 1);
    expect(client.received).toBe('');
    ending.open();
    expect(problem(await client.answer())).toMatchObject({ code: 'upstream-refused', sent: 'no' });
    expect(await keys.records()).toEqual([]);
    rig.gate.move('ann', 'app');
    expect(statusOf(await send({ key: 'k1' }))).toBe(201);
    expect(rig.app.requests.length).toBe(1);
    client.close();
  });

  test('because it was held takes no key, also when its client goes away', async () => {
    await start();
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('it is held', () => rig.proxy.counters().holding === 1);
    expect(await keys.records()).toEqual([]);
    client.close();
    await until('it is forgotten', () => rig.proxy.counters().holding === 0);
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    expect(replayed(await send({ key: 'k1' }))).toBe(false);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('because its client went away while the key was asked for frees it', async () => {
    await start();
    const claiming = gate();
    keys.interference.claim = async (go) => {
      await claiming.opened;
      return go();
    };
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('it is admitted', () => rig.gate.member.inFlight('ann') === 1);
    client.close();
    await until('it has ended', () => outcomes().length === 1);
    claiming.open();
    await until('its key is free', () => keys.endings.length === 1);
    expect(outcomes()).toEqual(['not-sent']);
    expect(keys.endings).toEqual(['not-done']);
    expect(await keys.records()).toEqual([]);
    expect(rig.legacy.connections).toBe(0);
  });

  test('because the lease lapsed while the key was asked for frees it', async () => {
    await start();
    keys.interference.claim = async (go) => {
      rig.gate.loseLease();
      return go();
    };
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'lease-lapsed', sent: 'no' });
    expect(rig.legacy.requests.length).toBe(0);
    expect(await keys.records()).toEqual([]);
  });
});

describe('a first write in doubt', () => {
  const hang: RawAnswer = () => {};

  test('stays in doubt for its repetitions, also after a move, until somebody resolves it', async () => {
    await start({ legacy: { writeTimeoutMs: 600 } });
    rig.legacy.answer = hang;
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'outcome-unknown-timeout' });
    const refused = { status: 409, code: 'idempotency-in-doubt', sent: 'no', store: 'legacy', epoch: 1 };
    expect(problem(await send({ key: 'k1' }))).toMatchObject(refused);
    rig.gate.move('ann', 'app');
    expect(problem(await send({ key: 'k1' }))).toMatchObject(refused);
    expect(rig.legacy.requests.length).toBe(1);
    expect(rig.app.requests.length).toBe(0);
    expect(await keys.keys.resolve('ann')).toMatchObject([
      { key: 'k1', method: 'POST', owner: 'legacy', epoch: 1 },
    ]);
    expect(statusOf(await send({ key: 'k1' }))).toBe(201);
    expect(rig.app.requests.length).toBe(1);
  });

  test.each<[string, RawAnswer]>([
    ['the store broke off', (_request, socket) => void socket.destroy()],
    [
      'the store broke off in its answer',
      (_request, socket) => void socket.end('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab'),
    ],
    ['502', answerWith('502 Bad Gateway')],
    ['504', answerWith('504 Gateway Timeout')],
    ['524', answerWith('524 Timeout')],
  ])('because of %s gets 409', async (_why, answer) => {
    await start({ answer });
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await client.until(() => client.received.includes('\r\n\r\n'));
    await until('the key knows', () => keys.endings.length === 1);
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'idempotency-in-doubt' });
    expect(rig.legacy.requests.length).toBe(1);
    client.close();
  });

  test('because its proxy died is in doubt once its time has passed', async () => {
    await start({ legacy: { writeTimeoutMs: 800, settleMs: 100 } });
    rig.legacy.answer = hang;
    // As if the process ended here: no ending ever reaches Redis.
    keys.interference.end = async () => new Promise(() => {});
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('the first is at the store', () => rig.legacy.requests.length === 1);
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'idempotency-pending' });
    await until(
      'it is in doubt',
      async () => problem(await send({ key: 'k1' }))['code'] === 'idempotency-in-doubt',
    );
    expect(rig.legacy.requests.length).toBe(1);
    client.close();
  });
});

describe('an answer', () => {
  test.each([200, 202, 302, 400, 404, 409, 422, 500, 503])('%i is kept and given again', async (status) => {
    await start({ answer: answerWith(`${status} Answer`, 'text') });
    expect(statusOf(await send({ key: 'k1' }))).toBe(status);
    const again = await send({ key: 'k1' });
    expect([statusOf(again), again.body, replayed(again)]).toEqual([status, 'text', true]);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test.each([
    '401 Unauthorized',
    '408 Late',
    '421 Misdirected',
    '425 Too Early',
    '429 Slow',
    '503 Busy\r\nRetry-After: 1',
  ])('%j says that nothing was done: the key is free', async (head) => {
    await start({ answer: answerWith(head) });
    await send({ key: 'k1' });
    expect(await keys.records()).toEqual([]);
    rig.legacy.answer = answerWith('200 OK');
    const again = await send({ key: 'k1' });
    expect([statusOf(again), replayed(again)]).toEqual([200, false]);
  });

  test('of a guard that refused frees the key; the same words of a store without one are kept', async () => {
    const refusal = answerWith(
      '409 Conflict\r\nContent-Type: application/problem+json',
      '{"type":"urn:onewriter:problem:stale-epoch","code":"stale-epoch"}',
    );
    await start({ answer: refusal });
    await send({ key: 'k1' });
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
    rig.gate.move('ann', 'app');
    await send({ key: 'k2' });
    expect(replayed(await send({ key: 'k2' }))).toBe(false);
    expect(rig.app.requests.length).toBe(2);
  });

  test('of up to 64 KiB is kept; a larger one reaches its client, and repetitions learn its status', async () => {
    await start();
    rig.legacy.answer = answerWith('200 OK', 'x'.repeat(65_536));
    await send({ key: 'k1' });
    expect((await send({ key: 'k1' })).body).toBe('x'.repeat(65_536));
    rig.legacy.answer = answerWith('200 OK', 'y'.repeat(65_537));
    expect((await send({ key: 'k2' })).body).toBe('y'.repeat(65_537));
    expect(problem(await send({ key: 'k2' }))).toMatchObject({
      status: 409,
      code: 'idempotency-answer-not-kept',
      firstStatus: 200,
      sent: 'no',
    });
    expect(rig.legacy.requests.length).toBe(2);
  });

  test.each<[string, string, string]>([
    ['with a length', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody', 'bod'],
    ['in chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n', '0\r\n\r\n'],
    ['without a body', 'HTTP/1.1 204 No Content\r\n\r\n', '204'],
    ['with an empty body', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', '200'],
  ])('%s is stored before its client has all of it', async (_how, bytes, last) => {
    await start({ answer: (_request, socket) => void socket.write(bytes) });
    const ending = gate();
    keys.interference.end = async (go) => {
      await ending.opened;
      await go();
    };
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('the write has ended', () => outcomes().length === 1);
    // A round trip through the same proxy gives the answer every chance to leave.
    for (let round = 0; round < 5; round += 1) await send({ method: 'GET', user: 'bob' });
    expect(client.received).not.toContain(last);
    ending.open();
    await client.answer();
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
    client.close();
  });

  test('that cannot be stored in time reaches its client all the same, and is stored later', async () => {
    await start();
    let failures = 0;
    const away = gate();
    keys.interference.end = async (go) => {
      failures += 1;
      if (failures < 3) throw new Error('connection lost');
      await away.opened;
      await go();
    };
    expect((await send({ key: 'k1' })).body).toBe('{"record":1}');
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'idempotency-pending' });
    away.open();
    await until('it is stored', () => keys.endings.length === 1);
    expect(replayed(await send({ key: 'k1' }))).toBe(true);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('whose client went away is stored all the same', async () => {
    const replies: (() => void)[] = [];
    await start({
      answer: (_request, socket) => {
        replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
      },
    });
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('it is at the store', () => replies.length === 1);
    client.close();
    replies[0]?.();
    await until('it is stored', () => keys.endings.length === 1);
    const again = await send({ key: 'k1' });
    expect([again.body, replayed(again)]).toEqual(['ok', true]);
  });
});

describe('a body', () => {
  const megabyte = 1_048_576;
  const long = (bytes: number, seed = 'a'): string =>
    `${seed}${'0123456789abcdef'.repeat(Math.ceil(bytes / 16))}`.slice(0, bytes);
  const chunked = (body: string, trailers = ''): string => {
    const half = Math.floor(body.length / 2);
    const chunks = [body.slice(0, half), body.slice(half)]
      .filter((part) => part !== '')
      .map((part) => `${part.length.toString(16)}\r\n${part}\r\n`);
    return `PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nIdempotency-Key: k1\r\nTransfer-Encoding: chunked\r\n\r\n${chunks.join('')}0\r\n${trailers}\r\n`;
  };

  test.each([70_000, megabyte, megabyte + 1, 3 * megabyte])(
    'of %i bytes is forwarded as it came',
    async (bytes) => {
      await start();
      const body = long(bytes);
      expect(statusOf(await send({ key: 'k1', body }))).toBe(201);
      expect(rig.legacy.requests[0]?.body === body).toBe(true);
      expect(replayed(await send({ key: 'k1', body }))).toBe(true);
      expect(rig.legacy.requests.length).toBe(1);
    },
  );

  test.each([0, 5, 70_000, 3 * megabyte])('of %i bytes in chunks is forwarded as it came', async (bytes) => {
    await start();
    const body = long(bytes);
    expect(statusOf(await exchange(rig.port, chunked(body)))).toBe(201);
    expect(rig.legacy.requests[0]?.body === body).toBe(true);
    expect(replayed(await exchange(rig.port, chunked(body)))).toBe(true);
  });

  test.each([0, 5, 70_000, 3 * megabyte])('of %i bytes in chunks keeps its trailers', async (bytes) => {
    await start();
    const body = long(bytes);
    const trailers = 'X-Sum: 7\r\nOnewriter-User: bob\r\n';
    expect(statusOf(await exchange(rig.port, chunked(body, trailers)))).toBe(201);
    expect(rig.legacy.requests[0]?.body === body).toBe(true);
    expect(rig.legacy.bytes.endsWith('\r\n0\r\nX-Sum: 7\r\n\r\n')).toBe(true);
  });

  test('of a repetition is read to its end, for a client that looks for the answer only then', async () => {
    await start();
    const bytes = write({ key: 'k1', body: long(12 * megabyte) });
    for (const again of [false, true]) {
      const client = await RawClient.open(rig.port);
      await new Promise<void>((resolve) => {
        client.socket.pause().write(bytes, 'latin1', () => resolve());
      });
      client.socket.resume();
      expect(replayed(await client.answer())).toBe(again);
      client.close();
    }
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('longer than the fingerprint reads is told apart by its beginning and its length', async () => {
    await start();
    const bytes = 2 * megabyte;
    await send({ key: 'k1', body: long(bytes) });
    for (const body of [long(bytes, 'b'), long(bytes + 1)]) {
      expect(problem(await send({ key: 'k1', body }))).toMatchObject({ code: 'idempotency-key-reused' });
    }
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('that does not fit into the memory for keyed writes is 503, and the memory is given back', async () => {
    await start({ limits: { keyedBytes: 1_000 } });
    for (let round = 0; round < 5; round += 1) {
      expect(problem(await send({ key: `over-${round}`, body: long(2_000) }))).toMatchObject({
        code: 'idempotency-unavailable',
        sent: 'no',
      });
      expect(statusOf(await send({ key: `fits-${round}`, body: long(800) }))).toBe(201);
    }
    expect(rig.legacy.requests.length).toBe(5);
    expect(statusOf(await send({ body: long(2_000) }))).toBe(201);
  });

  test('whose client breaks off before the key was asked for leaves nothing', async () => {
    await start();
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1', body: long(200_000) }).slice(0, 100_000));
    await until('it is admitted', () => rig.gate.member.inFlight('ann') === 1);
    client.close();
    await until('it has ended', () => outcomes().length === 1);
    expect(outcomes()).toEqual(['not-sent']);
    expect(await keys.records()).toEqual([]);
    expect(rig.legacy.connections).toBe(0);
  });

  test('whose client breaks off in the rest leaves a reset upload and a key in doubt', async () => {
    await start();
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1', body: long(3 * megabyte) }).slice(0, 2 * megabyte));
    await until('the upload has begun', () => rig.legacy.bytes.length > megabyte);
    client.close();
    await until('the key knows', () => keys.endings.length === 1);
    expect(keys.endings).toEqual(['in-doubt']);
    await until('the upload is reset', () => rig.legacy.sockets.size === 0);
    expect(rig.legacy.requests.length).toBe(0);
  });
});

describe('Redis', () => {
  test('is away: a keyed write is 503 and not sent, others go on', async () => {
    const gone = await startRedis();
    ends.push(() => gone.stop());
    keys = await openKeys(gone);
    ends.push(() => keys.close());
    rig = await startRig({ keys: keys.keys });
    ends.push(() => rig.stop());
    await gone.stop();
    const answer = await send({ key: 'k1' });
    expect(problem(answer)).toMatchObject({ status: 503, code: 'idempotency-unavailable', sent: 'no' });
    expect(headerOf(answer, 'retry-after')).toBe('1');
    expect(outcomes()).toEqual(['not-sent']);
    expect(rig.legacy.requests.length).toBe(0);
    expect(statusOf(await send({}))).toBe(200);
  });

  test('answers when the time of the write is over: the client was told already, and is told nothing more', async () => {
    await start({ legacy: { writeTimeoutMs: 300 } });
    const claiming = gate();
    keys.interference.claim = async () => {
      await claiming.opened;
      return { verdict: 'reused' };
    };
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    expect(problem(await client.answer())).toMatchObject({ code: 'idempotency-unavailable', sent: 'no' });
    claiming.open();
    client.send(write({ method: 'GET' }));
    expect(statusOf(await client.answer())).toBe(201);
    expect(client.received).toBe('');
    expect(rig.proxy.counters().refused).toEqual({ 'idempotency-unavailable': 1 });
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /a HTTP/1.1']);
    client.close();
  });

  test('does not answer: the ticket is held for a bounded time, and the key is freed if it was taken', async () => {
    await start();
    let claimed = false;
    keys.interference.claim = async (go) => {
      await go();
      claimed = true;
      return new Promise(() => {});
    };
    expect(problem(await send({ key: 'k1' }))).toMatchObject({ code: 'idempotency-unavailable', sent: 'no' });
    expect(claimed).toBe(true);
    expect(outcomes()).toEqual(['not-sent']);
    await until('the key is free', async () => (await keys.records()).length === 0);
    expect(rig.legacy.requests.length).toBe(0);
  });
});

describe('a proxy that stops', () => {
  test('breaks off its keyed writes, and their keys know it before the process ends', async () => {
    await start({ answer: () => {} });
    keys.interference.end = async (go) => {
      for (let round = 0; round < 20; round += 1) await keys.redis.ping();
      await go();
    };
    const client = await RawClient.open(rig.port);
    client.send(write({ key: 'k1' }));
    await until('it is at the store', () => rig.legacy.requests.length === 1);
    await rig.proxy.stop();
    expect(keys.endings).toEqual(['in-doubt']);
    client.close();
  });
});

describe('over a handoff', () => {
  const settings: HandoffSettings = {
    ...{ drainMs: 1_500, fenceMs: 3_000, feedDelayMs: 0 },
    guarded: { legacy: false, app: true },
  };
  const copies: Pick<CopyDesk, 'catchUp'> = {
    catchUp: async () => ({ recordsCompared: 1, recordsCopied: 0, passes: 1 }),
  };
  const guards: GuardCalls = {
    verdict: async () => ({}),
    advance: async () => ({}),
    seal: async () => undefined,
  };

  interface Pair {
    readonly ports: readonly [number, number];
    readonly legacy: RawUpstream;
    readonly app: RawUpstream;
    readonly move: (from: StoreName) => Promise<void>;
  }

  /** Two proxies, each a member of a real ledger, before the same two stores. */
  async function startPair(): Promise<Pair> {
    keys = await openKeys(server);
    ends.push(() => keys.close());
    const ledger = await openLedger(server);
    ends.push(() => ledger.close());
    const answer = answerNumbered();
    const [legacy, app] = await Promise.all([RawUpstream.start(answer), RawUpstream.start(answer)]);
    ends.push(() => Promise.all([legacy.stop(), app.stop()]));
    const config = configOf({
      proxy: { port: 0, debugHeaders: true },
      stores: { legacy: { url: legacy.url, writeTimeoutMs: 600, settleMs: 0 }, app: { url: app.url } },
    });
    const startProxy = async (): Promise<number> => {
      const proxy: Proxy = createProxy({
        ...{ config, keys: keys.keys, gate: await ledger.join({ settleMs: 0 }) },
        doorbell: { ring: () => {} },
        doubts: { note: () => {} },
        log: () => {},
      });
      ends.push(() => proxy.stop());
      return (await proxy.listen()).port;
    };
    const ports = [await startProxy(), await startProxy()] as const;
    const parts = {
      ...{ ledger: ledger.ledger, feed: ledger.feed, copies: copies as CopyDesk, guards, settings },
      members: new MemberWatch(ledger.ledger, 1_000, () => undefined),
    };
    const order = { partition: 'ann', by: 'test', reason: 'test', stop: new AbortController().signal };
    return {
      ...{ ports, legacy, app },
      move: async (from) => {
        const report = await attemptHandoff(parts, { ...order, from });
        expect(report).toMatchObject({ outcome: 'moved' });
      },
    };
  }

  test('a client that repeats its write at another proxy gets the first answer, not a second record', async () => {
    const { ports, legacy, app, move } = await startPair();
    const first = await exchange(ports[0], write({ key: 'k1' }));
    expect(statusOf(first)).toBe(201);
    legacy.answer = () => {};
    expect(statusOf(await exchange(ports[0], write({ key: 'k2' })))).toBe(504);
    await move('legacy');
    for (const port of ports) {
      const again = await exchange(port, write({ key: 'k1' }));
      expect([again.body, replayed(again)]).toEqual([first.body, true]);
      expect(headerOf(again, 'onewriter-store')).toBe('legacy');
      expect(headerOf(again, 'onewriter-epoch')).toBe('1');
      const doubtful = await exchange(port, write({ key: 'k2' }));
      expect(problem(doubtful)).toMatchObject({ code: 'idempotency-in-doubt', store: 'legacy', epoch: 1 });
    }
    expect(app.requests.length).toBe(0);
    const fresh = await exchange(ports[1], write({ key: 'k3' }));
    expect([statusOf(fresh), headerOf(fresh, 'onewriter-store')]).toEqual([201, 'app']);
  });

  test('however often clients repeat and break off, no key reaches the stores twice', async () => {
    const { ports, legacy, app, move } = await startPair();
    const sound = answerNumbered();
    let asked = 0;
    const unreliable: RawAnswer = (request, socket, upstream) => {
      asked += 1;
      if (asked % 7 === 0) socket.destroy();
      else sound(request, socket, upstream);
    };
    legacy.answer = unreliable;
    app.answer = unreliable;
    const final = new Set(['201', 'idempotency-in-doubt']);
    const results = new Map<string, Set<string>>();
    /** Repeats one write until it knows how it ended; every fifth attempt leaves before the answer. */
    const insist = async (key: string, seed: number): Promise<void> => {
      for (let attempt = seed; ; attempt += 1) {
        const client = await RawClient.open(ports[attempt % 2 === 0 ? 0 : 1]);
        client.send(write({ key }));
        if (attempt % 5 === 0) {
          client.close();
          continue;
        }
        const answer = await client.answer();
        client.close();
        const result = statusOf(answer) === 201 ? '201' : String(problem(answer)['code']);
        if (!final.has(result)) continue;
        results.set(key, (results.get(key) ?? new Set()).add(result === '201' ? answer.body : result));
        return;
      }
    };
    const insistAll = async (names: readonly string[]): Promise<unknown> =>
      Promise.all(names.flatMap((key, at) => [0, 1, 2].map(async (client) => insist(key, at + client))));
    const before = Array.from({ length: 60 }, (_, at) => `before-${at}`);
    const after = Array.from({ length: 20 }, (_, at) => `after-${at}`);
    const insisting = insistAll(before);
    await until('some writes were taken', () => legacy.requests.length > 5);
    await move('legacy');
    await Promise.all([insisting, insistAll([...before, ...after])]);
    const sent = [...legacy.requests, ...app.requests].map((request) => headerOf(request, 'idempotency-key'));
    expect(sent.length).toBe(before.length + after.length);
    expect(new Set(sent)).toEqual(new Set([...before, ...after]));
    expect(app.requests.length).toBeGreaterThanOrEqual(after.length);
    // All clients of one key learn the same.
    expect([...results.values()].filter((answers) => answers.size !== 1)).toEqual([]);
  });
});
