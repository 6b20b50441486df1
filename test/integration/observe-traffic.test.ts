/** How connections and bodies behave through an observing proxy: as if it was not there. */
import { createServer, type Server, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Authority, noOpenssl } from '../support/certificates.ts';
import { TestService } from '../support/identity.ts';
import { type ObserveRig, requestsIn, startObserveRig } from '../support/observe.ts';
import { exchange, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

/** A legacy that is nothing but connections. */
interface Bare {
  readonly url: string;
  readonly sockets: Bearing[];
  stop(): Promise<void>;
}

interface Bearing {
  readonly socket: Socket;
  got: string;
  /** The other side has said that it will send no more. */
  ended: boolean;
  closed: boolean;
}

async function startBare(): Promise<Bare> {
  const sockets: Bearing[] = [];
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    const bearing = { socket, got: '', ended: false, closed: false };
    sockets.push(bearing);
    socket.setEncoding('latin1');
    socket.on('data', (text) => (bearing.got += String(text)));
    socket.on('end', () => (bearing.ended = true));
    socket.on('close', () => (bearing.closed = true));
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    sockets,
    stop: async () => {
      for (const { socket } of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

let bare: Bare;
let rig: ObserveRig;
let client: RawClient;
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`;

beforeEach(async () => {
  bare = await startBare();
  rig = await startObserveRig({ legacy: { url: bare.url } });
  client = await RawClient.open(rig.port);
});

afterEach(async () => {
  client.close();
  await rig.stop();
  await bare.stop();
});

async function bearing(at: number): Promise<Bearing> {
  return until(`connection ${at} to legacy`, () => bare.sockets[at]);
}

async function got(at: number, part: string): Promise<Bearing> {
  const there = await bearing(at);
  await until(`legacy got ${part}`, () => there.got.includes(part));
  return there;
}

describe('bodies', () => {
  test('go on as they come: legacy sees the head before the body, and each part before the next', async () => {
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n');
    await got(0, '\r\n\r\n');
    client.send('abc');
    await got(0, 'abc');
    client.send('def');
    (await got(0, 'abcdef')).socket.write(ok);
    expect((await client.answer()).body).toBe('ok');
  });

  test('legacy says whether it wants one: its 100 and its refusal both reach the client', async () => {
    client.send('PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    const { socket } = await got(0, 'Expect: 100-continue');
    expect(client.received).toBe('');
    socket.write('HTTP/1.1 100 Continue\r\n\r\n');
    await client.until(() => client.received === 'HTTP/1.1 100 Continue\r\n\r\n');
    client.received = '';
    client.send('abc');
    (await got(0, 'abc')).socket.write(ok);
    await client.answer();

    client.send('PUT /b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    await got(0, 'PUT /b');
    socket.end('HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(413);
    await client.until(() => client.closed);
    expect(bare.sockets[0]?.got).not.toContain('abcabc');
  });

  test('a client that does not wait for the 100 is not kept waiting for it', async () => {
    client.send('PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc');
    (await got(0, 'abc')).socket.write(ok);
    expect((await client.answer()).body).toBe('ok');
  });

  test('an answer may come before the body has ended, and the body still arrives', async () => {
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc');
    (await got(0, 'abc')).socket.write(ok);
    expect((await client.answer()).body).toBe('ok');
    client.send('def');
    await got(0, 'abcdef');
  });

  test('a side that does not read stops the other, and then all of it arrives', async () => {
    const size = 24 * 1024 * 1024;
    client.send(`PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: ${size}\r\n\r\n`);
    const there = await got(0, '\r\n\r\n');
    there.socket.pause();
    const head = there.got.length;
    let taken = false;
    client.socket.write('x'.repeat(size), () => (taken = true));
    await until('the client is stopped', () => client.socket.writableLength > 0);
    // More turns of the proxy than it would take to read all of it.
    for (let turn = 0; turn < 300; turn += 1) {
      await exchange(rig.port, 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n');
    }
    expect(taken).toBe(false);
    there.socket.resume();
    await until('all has arrived', () => there.got.length === head + size);
    there.socket.write(ok);
    expect((await client.answer()).body).toBe('ok');
  });

  test('the beginning of an answer is passed on at once, as a stream of events needs it', async () => {
    client.send(get('/events'));
    const { socket } = await got(0, '\r\n\r\n');
    socket.write('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n');
    await client.until(() => client.received.endsWith('\r\n\r\n'));
    socket.write('6\r\ndata:1\r\n');
    await client.until(() => client.received.endsWith('6\r\ndata:1\r\n'));
  });
});

describe('a connection of a client has one of its own to legacy', () => {
  test('requests on it go over the same one, those of others over another', async () => {
    for (const path of ['/a', '/b']) {
      client.send(get(path));
      (await got(0, path)).socket.write(ok);
      await client.answer();
    }
    const other = await RawClient.open(rig.port);
    other.send(get('/c'));
    (await got(1, '/c')).socket.write(ok);
    await other.answer();
    other.close();
    expect(bare.sockets[0]?.got).not.toContain('/c');
    await until('its connection to legacy ends, too', () => bare.sockets[1]?.ended);
  });

  test('requests that come at once reach legacy one after the other, in their order', async () => {
    client.send(`POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n1${get('/b')}${get('/c')}`);
    const there = await got(0, '\r\n\r\n1');
    expect(there.got).not.toContain('/b');
    there.socket.write(ok);
    await got(0, '/b');
    expect(there.got).not.toContain('/c');
    there.socket.write(ok);
    (await got(0, '/c')).socket.write(ok);
    for (const _path of ['/a', '/b', '/c']) expect((await client.answer()).body).toBe('ok');
    expect(bare.sockets).toHaveLength(1);
  });

  test('what comes behind an answer that ends the connection reaches nobody, as without a proxy', async () => {
    client.send(`${get('/a')}PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nb`);
    (await got(0, '/a')).socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok');
    expect((await client.answer()).body).toBe('ok');
    await client.until(() => client.closed);
    expect(client.received).toBe('');
    const other = await RawClient.open(rig.port);
    other.send(get('/c'));
    await until('legacy has what came later', () =>
      bare.sockets.some(({ got: bytes }) => bytes.includes('/c')),
    );
    expect(bare.sockets.map(({ got: bytes }) => bytes).join()).not.toContain('/b');
    other.close();
  });

  test('when legacy closes one that is idle, the client’s is closed', async () => {
    client.send(get('/a'));
    const { socket } = await got(0, '/a');
    socket.write(ok);
    await client.answer();
    expect(client.closed).toBe(false);
    socket.end();
    await client.until(() => client.closed);
  });

  test('a client that says it will send no more gets its answer, and legacy hears of it', async () => {
    client.send(get('/a'));
    client.socket.end();
    const there = await got(0, '/a');
    await until('legacy sees the end', () => there.ended);
    there.socket.end(ok);
    expect((await client.answer()).body).toBe('ok');
  });

  test('a client that has sent everything and is gone: legacy has all of it, and the connection ends', async () => {
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc');
    client.close();
    const there = await got(0, 'abc');
    await until('legacy sees the end', () => there.ended);
    there.socket.end();
    expect(await rig.noted(1)).toMatchObject([{ ended: 'client-left', status: null, requestBytes: 3 }]);
  });

  test.each(['', 'Connection: Upgrade\r\nUpgrade: h2c\r\n'])(
    'a client that breaks off its body: legacy sees it broken off %j',
    async (offer) => {
      client.send(`POST /a HTTP/1.1\r\nHost: h\r\n${offer}Content-Length: 6\r\n\r\nabc`);
      const there = await got(0, 'abc');
      client.close();
      await until('legacy sees the end', () => there.closed || there.ended);
      expect(there.got.endsWith('abc')).toBe(true);
      expect(await rig.noted(1)).toMatchObject([{ ended: 'client-left', status: null }]);
    },
  );

  test('legacy ends it without an answer: so does the proxy, and invents none', async () => {
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc');
    (await got(0, 'abc')).socket.destroy();
    await client.until(() => client.closed);
    expect(client.received).toBe('');
    expect(await rig.noted(1)).toMatchObject([{ ended: 'store-broke-off', status: null }]);
    expect(rig.observer.settlesInMs()).toBeGreaterThan(0);
  });

  test('legacy breaks off in the middle of its answer: the client sees half of it', async () => {
    client.send(get('/a'));
    (await got(0, '/a')).socket.end('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok');
    await client.until(() => client.closed);
    expect(client.received.endsWith('ok')).toBe(true);
    expect(await rig.noted(1)).toMatchObject([{ ended: 'store-broke-off', status: 200, answerBytes: 2 }]);
  });

  test('as many requests at a time as there are clients, whatever connections enforcing would have', async () => {
    const clients = await Promise.all(Array.from({ length: 300 }, () => RawClient.open(rig.port)));
    for (const one of clients) one.send(get('/wait'));
    await until(
      'legacy has all of them',
      () => bare.sockets.filter(({ got }) => got.includes('/wait')).length === 300,
    );
    for (const { socket } of bare.sockets) socket.write(ok);
    for (const one of clients) {
      expect(statusOf(await one.answer())).toBe(200);
      one.close();
    }
  });
});

test('legacy cannot be reached: the client is told, and nothing was sent', async () => {
  await bare.stop();
  const answer = await exchange(rig.port, 'PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na');
  expect(statusOf(answer)).toBe(502);
  expect(JSON.parse(answer.body)).toMatchObject({ code: 'upstream-refused', sent: 'no' });
  expect(await rig.noted(1)).toMatchObject([{ ended: 'unreachable', status: null }]);
  expect(rig.observer.settlesInMs()).toBe(0);
});

describe('what is no HTTP', () => {
  test('gets the answer of a server, reaches nobody, and is counted', async () => {
    client.send('what is this?\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(400);
    expect(bare.sockets).toEqual([]);
    expect(rig.observer.state()).toMatchObject({ notHttp: 1, requests: 0 });
  });

  test('CONNECT is not passed on: it names the other end itself', async () => {
    client.send('CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(405);
    expect(bare.sockets).toEqual([]);
    const would = { do: 'refuse', code: 'method-not-allowed' };
    expect(await rig.noted(1)).toMatchObject([{ method: 'CONNECT', ended: 'refused', would }]);
  });
});

describe('another protocol', () => {
  const ask =
    'GET /live?token=1 HTTP/1.1\r\nHost: h\r\nX-User: u1\r\nUPGRADE: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n';
  const taken = 'HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nConnection: Upgrade\r\n\r\n';

  test('both sides get every byte of each other, until both have ended', async () => {
    client.send(`${ask}\x81early`);
    const there = await got(0, '\r\n\r\n');
    expect(there.got).toContain('\r\nUPGRADE: websocket\r\nConnection: Upgrade\r\n');
    there.socket.write(`${taken}\x82first`, 'latin1');
    await client.until(() => client.received === `${taken}\x82first`);
    await got(0, '\r\n\r\n\x81early');
    client.send('\x00\xff');
    await got(0, 'early\x00\xff');
    client.socket.end();
    await until('legacy sees the end', () => there.ended);
    there.socket.end('\x88bye', 'latin1');
    await client.until(() => client.closed);
    expect(client.received).toBe(`${taken}\x82first\x88bye`);
    expect(await rig.noted(1)).toMatchObject([
      {
        ...{
          path: '/live',
          status: 101,
          ended: 'answered',
          access: 'write',
          accessBy: 'upgrade',
          user: 'u1',
        },
        ...{ requestBytes: 8, answerBytes: 10 },
      },
    ]);
  });

  test('a client that goes before it is taken up is noticed, and what it sent meanwhile arrives', async () => {
    client.send(ask);
    const there = await got(0, '\r\n\r\n');
    client.send('\x81early');
    client.socket.end();
    await until('legacy sees the end', () => there.ended);
    there.socket.end(taken);
    await client.until(() => client.closed);
    expect(client.received).toBe(taken);
  });

  test('legacy does not take it up: its answer reaches the client', async () => {
    client.send(ask);
    (await got(0, '\r\n\r\n')).socket.write(
      'HTTP/1.1 403 No\r\nX-Why: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n',
    );
    await client.until(() => client.closed);
    expect(client.received).toBe('HTTP/1.1 403 No\r\nX-Why: 1\r\nConnection: close\r\n\r\nno');
  });

  test('legacy cannot be reached: the client is told', async () => {
    await bare.stop();
    client.send(ask);
    expect(statusOf(await client.answer())).toBe(502);
  });

  test('draining does not wait for it', async () => {
    client.send(ask);
    (await got(0, '\r\n\r\n')).socket.write(taken);
    await client.until(() => client.received === taken);
    expect(await rig.observer.drain(20_000)).toBe(true);
    expect(rig.observer.settlesInMs()).toBeGreaterThan(0);
  });
});

test('draining ends connections with their answers, and loses none', async () => {
  client.send(get('/a'));
  const { socket } = await got(0, '/a');
  const drained = rig.observer.drain(20_000);
  socket.write(ok.replace('\r\n', '\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n'));
  const answer = await client.answer();
  const said = answer.headers.filter((line) => /^(?:connection|keep-alive):/i.test(line));
  expect([answer.body, said]).toEqual(['ok', ['Connection: close']]);
  expect(await drained).toBe(true);
});

test('who somebody is may be asked for ever: nobody waits for the answer', async () => {
  const service = await TestService.start(() => {});
  const patient = await startObserveRig({
    config: { identity: [{ bearer: true, introspect: { url: service.url, user: 'id', timeoutMs: 60_000 } }] },
  });
  const request = 'PUT /a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t1\r\nContent-Length: 0\r\n\r\n';
  expect((await exchange(patient.port, request)).body).toBe('ok');
  await until('it is asked', () => service.asked.length === 1);
  // Ending the process does not wait for it either, and writes down what it has.
  const { directory } = patient;
  await patient.observer.stop();
  expect(requestsIn(directory)).toMatchObject([{ path: '/a', status: 200, identity: 'unavailable' }]);
  await patient.stop();
  await service.stop();
});

(noOpenssl === undefined ? describe : describe.skip)('TLS', () => {
  test('a client that has sent everything and is gone before TLS is agreed on: legacy gets all of it, and its end', async () => {
    const authority = new Authority();
    const { cert, key } = authority.certify('IP:127.0.0.1');
    const waiting: Socket[] = [];
    const front = createServer((socket) => void waiting.push(socket.on('error', () => {})));
    await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve));
    const url = `https://127.0.0.1:${(front.address() as AddressInfo).port}`;
    const patient = await startObserveRig({ legacy: { url, tls: { ca: authority.caFile } } });
    const hurried = await RawClient.open(patient.port);
    hurried.send('POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc');
    await until('legacy is being connected to', () => waiting[0]);
    hurried.socket.resetAndDestroy();
    expect(await patient.noted(1)).toMatchObject([{ ended: 'client-left', requestBytes: 3 }]);
    let got = '';
    let ended = false;
    const secured = createTlsServer({ cert, key }, (socket) => {
      socket.on('error', () => {});
      socket.on('end', () => (ended = true));
      socket.on('data', (chunk: Buffer) => (got += chunk.toString('latin1')));
    });
    secured.emit('connection', waiting[0]);
    await until('legacy has all of it, and its end', () => ended && got.endsWith('\r\n\r\nabc'));
    await patient.stop();
    for (const socket of waiting) socket.destroy();
    await new Promise<void>((resolve) => front.close(() => resolve()));
    authority.remove();
  });

  test('to legacy: agreed on for each client, and a certificate that is not trusted gets nothing', async () => {
    const authority = new Authority();
    const { cert, key } = authority.certify('IP:127.0.0.1');
    const trusting = await startObserveRig({ tls: { cert, key }, legacy: { tls: { ca: authority.caFile } } });
    expect((await exchange(trusting.port, get('/a'))).body).toBe('ok');
    await trusting.stop();
    const doubting = await startObserveRig({ tls: { cert, key } });
    const answer = await exchange(doubting.port, get('/a'));
    expect(JSON.parse(answer.body)).toMatchObject({ code: 'upstream-tls' });
    expect(doubting.legacy.bytes).toBe('');
    await doubting.stop();
    authority.remove();
  });
});
