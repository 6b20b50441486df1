/** What a client and the member learn when a store, the network or the client itself fails. */
import { createServer, type AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig;
afterEach(async () => rig.stop());

const write = 'POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\nhi';
const read = 'GET /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n';
const problem = (body: string): Record<string, unknown> => JSON.parse(body) as Record<string, unknown>;
const outcomes = (): string[] => rig.gate.endings.map(({ outcome }) => outcome);

async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

describe('the store cannot be reached', () => {
  test('upstream refused is 502 and says that nothing was sent', async () => {
    rig = await startRig({ legacy: { url: `http://127.0.0.1:${await closedPort()}` } });
    const answer = await exchange(rig.port, write);
    expect(statusOf(answer)).toBe(502);
    expect(problem(answer.body)).toMatchObject({ code: 'upstream-refused', sent: 'no', store: 'legacy' });
    expect(outcomes()).toEqual(['not-sent']);
    const again = await exchange(rig.port, read);
    expect(problem(again.body)).toMatchObject({ code: 'upstream-refused', status: 502 });
    expect(problem(again.body)['sent']).toBeUndefined();
    const failing = rig.logged.filter(({ event }) => event === 'upstream.failing');
    expect(failing.map(({ fields }) => [fields['store'], fields['stage']])).toEqual([['legacy', 'refused']]);
  });

  test('many waiting requests of a store that refuses all get their 502, and the proxy lives on', async () => {
    const url = `http://127.0.0.1:${await closedPort()}`;
    rig = await startRig({ legacy: { url, connections: 1 } });
    const clients = await Promise.all(Array.from({ length: 40 }, () => RawClient.open(rig.port)));
    // At the same moment, so that many wait for the one connection when it is refused.
    for (const client of clients) client.send(write);
    for (const client of clients) expect(statusOf(await client.answer())).toBe(502);
    expect(outcomes()).toEqual(Array.from({ length: 40 }, () => 'not-sent'));
    for (const client of clients) client.close();
  });

  test.each([502, 504, 524])('a write that a gateway answers with %i is in doubt', async (status) => {
    rig = await startRig({
      answer: (_request, socket) =>
        void socket.write(`HTTP/1.1 ${status} Gateway\r\nContent-Length: 0\r\n\r\n`),
    });
    expect(statusOf(await exchange(rig.port, write))).toBe(status);
    await until('the write ended', () => outcomes().length === 1);
    expect(outcomes()).toEqual(['in-doubt']);
  });

  test('a full pool is 503 after a bounded wait, and nothing was sent', async () => {
    rig = await startRig({ legacy: { connections: 1, connectTimeoutMs: 50 }, answer: () => {} });
    const first = await RawClient.open(rig.port);
    first.send(read);
    await until('the connection is taken', () => rig.legacy.requests.length === 1);
    const answer = await exchange(rig.port, write);
    expect(statusOf(answer)).toBe(503);
    expect(problem(answer.body)).toMatchObject({ code: 'pool-full', sent: 'no' });
    expect(outcomes()).toEqual(['not-sent']);
    expect(rig.legacy.requests.length).toBe(1);
    first.close();
  });

  test('whoever waits for a connection gets it when it becomes free', async () => {
    const replies: (() => void)[] = [];
    rig = await startRig({
      legacy: { connections: 1 },
      answer: (_request, socket) => {
        replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
      },
    });
    const clients = await Promise.all([1, 2].map(async () => RawClient.open(rig.port)));
    for (const client of clients) client.send(write);
    for (const at of [0, 1]) {
      await until('the next write arrives', () => replies.length === at + 1);
      replies[at]?.();
    }
    for (const client of clients) expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.connections).toBe(1);
    for (const client of clients) client.close();
  });
});

describe('the lease lapses before the first byte', () => {
  test('a write that waits for a connection is not sent, and says so', async () => {
    const replies: (() => void)[] = [];
    rig = await startRig({
      legacy: { connections: 1 },
      answer: (_request, socket) => {
        replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'));
      },
    });
    const reader = await RawClient.open(rig.port);
    reader.send(read);
    await until('the connection is taken', () => replies.length === 1);
    const writer = await RawClient.open(rig.port);
    writer.send(write);
    await until('the write is admitted', () => rig.proxy.counters().underWay === 2);
    rig.gate.loseLease();
    replies[0]?.();
    expect(problem((await writer.answer()).body)).toMatchObject({ code: 'lease-lapsed', sent: 'no' });
    expect(outcomes()).toEqual(['not-sent']);
    expect(rig.legacy.bytes).not.toContain('POST');
    reader.close();
    writer.close();
  });
});

describe('the store fails after the write was sent', () => {
  test('a write that timed out is reset, so that nothing of it is delivered later', async () => {
    const errors: unknown[] = [];
    rig = await startRig({
      legacy: { writeTimeoutMs: 60 },
      answer: (_request, socket) => void socket.on('error', (error) => errors.push(error)),
    });
    expect(statusOf(await exchange(rig.port, write))).toBe(504);
    await until('the store sees the reset', () => errors.length === 1);
    expect(errors).toMatchObject([{ code: 'ECONNRESET' }]);
  });

  test('a reset in an answer without length leaves a broken transfer', async () => {
    rig = await startRig({
      answer: (_request, socket) => {
        socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc');
      },
    });
    const client = await RawClient.open(rig.port);
    client.send(write);
    await client.until(() => client.received.includes('abc'));
    for (const socket of rig.legacy.sockets) socket.resetAndDestroy();
    await client.until(() => false);
    expect(client.received).not.toContain('0\r\n\r\n');
    expect(outcomes()).toEqual(['in-doubt']);
  });

  test('an upstream that hangs is 504, sent unknown, and the ticket is in doubt', async () => {
    rig = await startRig({ legacy: { writeTimeoutMs: 60 }, answer: () => {} });
    const answer = await exchange(rig.port, write);
    expect(statusOf(answer)).toBe(504);
    expect(problem(answer.body)).toMatchObject({ code: 'outcome-unknown-timeout', sent: 'unknown' });
    expect(outcomes()).toEqual(['in-doubt']);
    await until('its connection is closed', () => rig.legacy.sockets.size === 0);
    expect(rig.legacy.requests.length).toBe(1);
    expect(rig.proxy.counters().inDoubt).toBe(1);
    const path = '/a';
    expect(rig.doubted).toEqual([
      {
        partition: 'ann',
        store: 'legacy',
        epoch: 1,
        method: 'POST',
        path,
        why: 'the total write timeout passed',
      },
    ]);
  });

  test('the total time of a write also ends an answer that never does', async () => {
    rig = await startRig({
      legacy: { writeTimeoutMs: 60 },
      answer: (_request, socket) => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc'),
    });
    const client = await RawClient.open(rig.port);
    client.send(write);
    await client.until(() => false);
    expect(client.received).toContain('abc');
    expect(outcomes()).toEqual(['in-doubt']);
  });

  test('a broken connection is 502, sent unknown; for a read it is a plain 502', async () => {
    rig = await startRig({ answer: (_request, socket) => socket.destroy() });
    expect(problem((await exchange(rig.port, write)).body)).toMatchObject({
      code: 'outcome-unknown',
      status: 502,
      sent: 'unknown',
    });
    expect(problem((await exchange(rig.port, read)).body)).toMatchObject({
      code: 'upstream-failed',
      status: 502,
    });
    expect(outcomes()).toEqual(['in-doubt']);
    expect(rig.legacy.requests.length).toBe(2);
  });

  test('an answer that is not HTTP, or has too long a head, is 502', async () => {
    rig = await startRig({ answer: (_request, socket) => void socket.write('nonsense\r\n\r\n') });
    expect(statusOf(await exchange(rig.port, read))).toBe(502);
    rig.legacy.answer = (_request, socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nX-Long: ${'x'.repeat(70_000)}\r\nContent-Length: 0\r\n\r\n`);
    };
    expect(statusOf(await exchange(rig.port, read))).toBe(502);
  });

  test('a read that gets no answer in time is 504', async () => {
    rig = await startRig({ legacy: { readTimeoutMs: 60 }, answer: () => {} });
    expect(problem((await exchange(rig.port, read)).body)).toMatchObject({
      code: 'upstream-timeout',
      status: 504,
    });
  });

  test('a write answered 202 is in doubt', async () => {
    rig = await startRig({
      answer: (_request, socket) => void socket.write('HTTP/1.1 202 Later\r\nContent-Length: 0\r\n\r\n'),
    });
    expect(statusOf(await exchange(rig.port, write))).toBe(202);
    expect(outcomes()).toEqual(['in-doubt']);
  });

  test('a write is never sent twice when a pooled socket is stale', async () => {
    rig = await startRig();
    for (let round = 0; round < 20; round += 1) {
      expect(statusOf(await exchange(rig.port, read))).toBe(200);
      rig.legacy.requests.length = 0;
      // The store closes the idle connection just as the write arrives, or upon its first bytes.
      if (round % 2 === 0) {
        for (const socket of rig.legacy.sockets) socket.destroy();
      } else {
        for (const socket of rig.legacy.sockets) socket.once('data', () => socket.destroy());
      }
      const answer = await exchange(rig.port, write.replace('hi', String(round).padStart(2, '0')));
      const sent = rig.legacy.requests.length;
      expect(sent).toBeLessThanOrEqual(1);
      if (statusOf(answer) === 200) expect(sent).toBe(1);
      else expect(problem(answer.body)).toMatchObject({ sent: 'unknown' });
    }
    const bodies = [...rig.legacy.bytes.matchAll(/POST \/a[^]*?\r\n\r\n(\d\d)/g)].map((match) => match[1]);
    expect(new Set(bodies).size).toBe(bodies.length);
  });
});

describe('the client fails', () => {
  test('a write runs to its end without its client, and its outcome is known', async () => {
    const replies: (() => void)[] = [];
    rig = await startRig({
      answer: (_request, socket) => {
        replies.push(() => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
      },
    });
    const client = await RawClient.open(rig.port);
    client.send(write);
    await until('the write is at the store', () => replies.length === 1);
    client.close();
    await exchangeHealth();
    expect(outcomes()).toEqual([]);
    expect(rig.legacy.sockets.size).toBe(1);
    replies[0]?.();
    await until('the write has ended', () => outcomes().length === 1);
    expect(outcomes()).toEqual(['ended']);
  });

  test('a client that breaks off a large upload leaves a reset upload and a write in doubt', async () => {
    rig = await startRig();
    const client = await RawClient.open(rig.port);
    client.send(
      'PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 200000\r\n\r\n' + 'x'.repeat(1_000),
    );
    await until('the upload has begun', () => rig.legacy.bytes.length > 1_000);
    client.close();
    await until('the upload is reset', () => rig.legacy.sockets.size === 0);
    expect(outcomes()).toEqual(['in-doubt']);
    expect(rig.legacy.requests.length).toBe(0);
  });

  test('a client that breaks off a small body has written nothing', async () => {
    rig = await startRig();
    const client = await RawClient.open(rig.port);
    client.send('PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2000\r\n\r\nx');
    await until('the write is admitted', () => rig.gate.member.inFlight('ann') === 1);
    client.close();
    await until('it has ended', () => outcomes().length === 1);
    expect(outcomes()).toEqual(['not-sent']);
    expect(rig.legacy.connections).toBe(0);
  });

  test('an early answer during an upload reaches the client', async () => {
    rig = await startRig();
    rig.legacy.answer = () => {};
    const client = await RawClient.open(rig.port);
    client.send(
      'PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 900000\r\n\r\n' + 'x'.repeat(1_000),
    );
    await until('the upload has begun', () => rig.legacy.bytes.length > 1_000);
    for (const socket of rig.legacy.sockets) {
      socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig');
    }
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(413);
    expect(answer.body).toBe('big');
    expect(outcomes()).toEqual(['ended']);
    client.close();
  });

  test('malformed framing is 400, and too long a head 431', async () => {
    rig = await startRig();
    for (const lines of [
      'Content-Length: 2\r\nTransfer-Encoding: chunked',
      'Content-Length: 2\r\nContent-Length: 3',
      'Transfer-Encoding: nonsense',
      'Transfer-Encoding : chunked',
    ]) {
      const answer = await exchange(
        rig.port,
        `POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${lines}\r\n\r\nhi`,
      );
      expect(statusOf(answer)).toBe(400);
    }
    const long = `GET /a HTTP/1.1\r\nHost: h\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`;
    expect(statusOf(await exchange(rig.port, long))).toBe(431);
    expect(rig.legacy.connections).toBe(0);
  });

  async function exchangeHealth(): Promise<void> {
    await exchange(rig.port, 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n');
  }
});
