/** Who may pass, where to, and who waits: the proxy against a member that the test drives. */
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig;
beforeEach(async () => {
  rig = await startRig({
    config: {
      anonymousReads: 'app',
      flip: { holdMs: 20_000 },
      routes: [
        { path: '/login', store: 'legacy', anonymous: true },
        { path: '/calendars/:owner/*', partition: 'path.owner' },
      ],
    },
    limits: { heldPerPartition: 2, heldTotal: 3 },
  });
});
afterEach(async () => rig.stop());

const write = (user: string, body = 'hi', target = '/a'): string =>
  `POST ${target} HTTP/1.1\r\nHost: h\r\nx-user: ${user}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const read = (user: string, target = '/a'): string =>
  `GET ${target} HTTP/1.1\r\nHost: h\r\nx-user: ${user}\r\n\r\n`;
const problem = (body: string): Record<string, unknown> => JSON.parse(body) as Record<string, unknown>;
const held = async (count: number): Promise<unknown> =>
  until(`${count} writes are held`, () => rig.proxy.counters().holding === count);

describe('a fence', () => {
  test('a write during a fence is held and then goes to the new owner', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(write('ann'));
    await held(1);
    expect(rig.legacy.requests.length + rig.app.requests.length).toBe(0);
    rig.gate.order('ann', { kind: 'commit', attempt: 'a' });
    rig.gate.order('ann', { kind: 'release', attempt: 'a' }, false);
    expect(rig.proxy.counters().holding).toBe(1);
    rig.gate.confirm();
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.app.requests.map(({ body }) => body)).toEqual(['hi']);
    expect(rig.legacy.requests).toEqual([]);
    expect(headerOf(rig.app.requests[0] ?? { headers: [] }, 'onewriter-epoch')).toBe('4');
    expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'ended' }]);
    client.close();
  });

  test('reads go on at the old owner', async () => {
    rig.gate.fence('ann', 'app');
    expect(statusOf(await exchange(rig.port, read('ann')))).toBe(200);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('a held client that goes away leaves nothing behind', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(write('ann'));
    await held(1);
    client.close();
    await held(0);
    expect(rig.gate.listening()).toBe(0);
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    expect(rig.gate.member.inFlight('ann')).toBe(0);
    expect(rig.legacy.connections + rig.app.connections).toBe(0);
    expect(rig.proxy.counters().abandonedHolds).toBe(1);
  });

  test('a held client that goes away behind a large unread body is noticed too', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(
      'PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 9000000\r\n\r\n' + 'x'.repeat(900_000),
    );
    await held(1);
    client.close();
    await held(0);
    expect(rig.gate.listening()).toBe(0);
    expect(rig.legacy.connections).toBe(0);
  });

  test('the body of a held write is not read beyond what one buffer takes', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    const body = 'x'.repeat(32_000_000);
    client.send(write('ann', body));
    await held(1);
    let before = -1;
    let still = 0;
    await until('the client is held back', () => {
      const { bytesWritten, writableLength } = client.socket;
      still = bytesWritten - writableLength === before ? still + 1 : 0;
      before = bytesWritten - writableLength;
      return still > 20;
    });
    expect(client.socket.writableLength).toBeGreaterThan(0);
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    await client.until(() => client.received.includes('HTTP/1.1 200 OK'));
    expect(rig.legacy.requests[0]?.body.length).toBe(body.length);
    client.close();
  });

  test('beyond the bound of a partition and in total, writes are refused at once', async () => {
    rig.gate.fence('ann', 'app');
    rig.gate.fence('bob', 'app');
    const clients = await Promise.all([1, 2, 3].map(async () => RawClient.open(rig.port)));
    clients[0]?.send(write('ann'));
    clients[1]?.send(write('ann'));
    await held(2);
    const perPartition = await exchange(rig.port, write('ann'));
    expect(statusOf(perPartition)).toBe(503);
    expect(headerOf(perPartition, 'retry-after')).toBe('1');
    expect(headerOf(perPartition, 'content-type')).toBe('application/problem+json');
    expect(problem(perPartition.body)).toMatchObject({ code: 'hold-full', sent: 'no', status: 503 });
    clients[2]?.send(write('bob'));
    await held(3);
    expect(problem((await exchange(rig.port, write('bob'))).body)['code']).toBe('hold-full');
    for (const client of clients) client.close();
  });

  test('an abort lets every held write go on at the old owner', async () => {
    rig.gate.fence('ann', 'app');
    const clients: RawClient[] = [];
    for (const body of ['first', 'second']) {
      const client = await RawClient.open(rig.port);
      client.send(write('ann', body));
      clients.push(client);
      await held(clients.length);
    }
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    await Promise.all(clients.map(async (client) => client.answer()));
    expect(rig.legacy.requests.map(({ body }) => body).toSorted()).toEqual(['first', 'second']);
    for (const client of clients) client.close();
  });

  test('a write that waited as long as it may gets 503, and one behind a commit is told so', async () => {
    await rig.stop();
    rig = await startRig({ config: { flip: { holdMs: 30 } } });
    rig.gate.fence('ann', 'app');
    expect(problem((await exchange(rig.port, write('ann'))).body)).toMatchObject({
      code: 'fenced',
      sent: 'no',
    });
    rig.gate.order('ann', { kind: 'commit', attempt: 'a' });
    expect(problem((await exchange(rig.port, write('ann'))).body)['code']).toBe('commit-not-durable');
    expect(rig.gate.listening()).toBe(0);
  });
});

describe('a lapsed lease', () => {
  test('refuses writes and serves reads', async () => {
    rig.gate.loseLease();
    const refused = await exchange(rig.port, write('ann'));
    expect(statusOf(refused)).toBe(503);
    expect(problem(refused.body)).toMatchObject({ code: 'lease-lapsed', sent: 'no' });
    expect(headerOf(refused, 'retry-after')).toBe('1');
    expect(statusOf(await exchange(rig.port, read('ann')))).toBe(200);
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /a HTTP/1.1']);
  });

  test('shows in the health answer', async () => {
    const health = 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n';
    const good = await exchange(rig.port, health);
    expect(statusOf(good)).toBe(200);
    expect(problem(good.body)['status']).toBe('ok');
    rig.gate.loseLease();
    const lapsed = await exchange(rig.port, health);
    expect(statusOf(lapsed)).toBe(503);
    expect(problem(lapsed.body)['status']).toBe('lease-lapsed');
  });

  test('during an upload resets it, and the write is in doubt', async () => {
    const client = await RawClient.open(rig.port);
    client.send(
      'PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 200000\r\n\r\n' + 'x'.repeat(1_000),
    );
    await until('the upload has begun', () => rig.legacy.bytes.length > 1_000);
    rig.gate.loseLease();
    client.send('x'.repeat(1_000));
    const answer = await client.answer();
    expect(problem(answer.body)).toMatchObject({ code: 'outcome-unknown', sent: 'unknown' });
    await until('the upload is reset', () => rig.legacy.sockets.size === 0);
    expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
    client.close();
  });
});

describe('identity and places', () => {
  test('a missing identity is 401 for a write', async () => {
    const answer = await exchange(rig.port, 'POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n');
    expect(statusOf(answer)).toBe(401);
    expect(problem(answer.body)).toMatchObject({ code: 'no-identity', sent: 'no' });
    expect(headerOf(answer, 'www-authenticate')).toBeDefined();
    expect(rig.legacy.connections + rig.app.connections).toBe(0);
  });

  test('a read without identity follows anonymousReads', async () => {
    expect(statusOf(await exchange(rig.port, 'GET /a HTTP/1.1\r\nHost: h\r\n\r\n'))).toBe(200);
    expect(rig.app.requests.length).toBe(1);
  });

  test('a pinned anonymous route goes to its store in every state', async () => {
    rig.gate.loseLease();
    const answer = await exchange(rig.port, 'POST /login HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi');
    expect(statusOf(answer)).toBe(200);
    expect(rig.legacy.requests[0]?.body).toBe('hi');
  });

  test("the partition is that of the record in the path, not the caller's", async () => {
    rig.gate.move('bob', 'app');
    await exchange(rig.port, write('ann', 'hi', '/calendars/bob/events'));
    expect(rig.app.requests.length).toBe(1);
    expect(headerOf(rig.app.requests[0] ?? { headers: [] }, 'onewriter-user')).toBe('ann');
    expect(headerOf(rig.app.requests[0] ?? { headers: [] }, 'onewriter-partition')).toBe('bob');
    expect([...rig.gate.noticed]).toEqual(['bob']);
  });

  test("the guard's control calls cannot be reached from outside", async () => {
    rig.gate.move('ann', 'app');
    for (const target of [
      '/.well-known/onewriter/guard/advance',
      '/.well-known/%6fnewriter/guard/advance',
      '/.Well-Known/OneWriter/guard/advance',
      '//.well-known//onewriter/guard/advance',
      '/%2ewell-known/onewriter/guard/seal',
      '/.well-known/%256fnewriter/guard/advance',
      '/.well-known/onewriter;x=1/guard/advance',
      '/.well-known/onewriter',
    ]) {
      const answer = await exchange(rig.port, write('ann', 'hi', target));
      expect(statusOf(answer)).toBe(404);
      expect(problem(answer.body)['code']).toBe('no-route');
    }
    expect(rig.app.connections + rig.legacy.connections).toBe(0);
  });

  test('targets that cannot be matched safely, and methods that are not forwarded, are refused', async () => {
    const climbing = ['/a/../b', '/a/%2e%2e/b', '/a%2F..%2fb', '/a\\..\\b', '/a%5C%2e%2e%5cb'];
    const perhapsAnn = [
      '/calendars%2Fann/x',
      '/calendars/ann%2Fx',
      '/calendars\\ann/x',
      '/calendars/ann%5Cx',
    ];
    for (const target of [...climbing, ...perhapsAnn, 'http://elsewhere/a']) {
      expect(statusOf(await exchange(rig.port, read('ann', target)))).toBe(400);
    }
    expect(statusOf(await exchange(rig.port, read('ann', 'http://h/a?b')))).toBe(200);
    expect(rig.legacy.requests[0]?.startLine).toBe('GET /a?b HTTP/1.1');
    const trace = await exchange(rig.port, 'TRACE /a HTTP/1.1\r\nHost: h\r\n\r\n');
    expect(statusOf(trace)).toBe(405);
    const connect = await exchange(rig.port, 'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n');
    expect(statusOf(connect)).toBe(405);
    const options = await exchange(rig.port, 'OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n');
    expect(statusOf(options)).toBe(204);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('a refused small body leaves the connection usable', async () => {
    const client = await RawClient.open(rig.port);
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello');
    expect(statusOf(await client.answer())).toBe(401);
    client.send(read('ann'));
    expect(statusOf(await client.answer())).toBe(200);
    client.close();
  });
});

describe('the end', () => {
  test('drain lets what is in flight end, and answers held writes with 503', async () => {
    const replies: (() => void)[] = [];
    rig.legacy.answer = (_request, socket) => {
      replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
    };
    const inFlight = await RawClient.open(rig.port);
    inFlight.send(write('ann'));
    await until('the write is at the store', () => replies.length === 1);
    rig.gate.fence('bob', 'app');
    const waiting = await RawClient.open(rig.port);
    waiting.send(write('bob'));
    await held(1);
    const drained = rig.proxy.drain(10_000);
    expect(statusOf(await waiting.answer())).toBe(503);
    replies[0]?.();
    expect(statusOf(await inFlight.answer())).toBe(200);
    expect(await drained).toBe(true);
    expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'ended' }]);
    await expect(RawClient.open(rig.port)).rejects.toThrow('ECONNREFUSED');
  });

  test('stop breaks off what is left, and a write under way ends in doubt', async () => {
    rig.legacy.answer = () => {};
    const client = await RawClient.open(rig.port);
    client.send(write('ann'));
    await until('the write is at the store', () => rig.legacy.requests.length === 1);
    expect(await rig.proxy.drain(10)).toBe(false);
    await rig.proxy.stop();
    expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
  });
});

describe('a write whose body turns out to be no HTTP before it is taken up', () => {
  const begins = (more = ''): string =>
    `POST /bad HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\n${more}\r\n5\r\nhello\r\n`;
  const goesWrong = 'no chunk\r\n';
  const refused = async (client: RawClient): Promise<void> => {
    let answer = await client.answer();
    // A client that waits is probed with 100.
    while (statusOf(answer) === 100) answer = await client.answer();
    expect([statusOf(answer), problem(answer.body)['sent']]).toEqual([400, 'no']);
    await client.toTheEnd();
    await until('nothing is under way', () => rig.proxy.counters().underWay === 0);
    expect(rig.logged.filter(({ event }) => event === 'proxy.bug')).toEqual([]);
  };

  test.each(['', 'Expect: 100-continue\r\n'])('is not sent when its turn comes (%j)', async (more) => {
    const slow: Socket[] = [];
    rig.legacy.answer = (_request, socket) => void slow.push(socket);
    const client = await RawClient.open(rig.port);
    client.send(read('bob', '/slow') + begins(more) + goesWrong);
    await until('the first has arrived', () => slow.length === 1);
    slow[0]?.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(200);
    await refused(client);
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /slow HTTP/1.1']);
    expect(rig.legacy.bytes).not.toContain('/bad');
  });

  test('is not sent when its fence is lifted', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(begins());
    await held(1);
    client.send(goesWrong);
    await refused(client);
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    expect(rig.legacy.bytes + rig.app.bytes).toBe('');
  });
});
