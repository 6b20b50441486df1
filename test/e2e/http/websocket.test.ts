/** WebSockets between raw sockets: asked for, passed on byte for byte, and closed when their partition moves. */
import { createHash, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { close1012, frame, maskedClose1012, opcodes } from '../../support/frames.ts';
import { headerOf, type RawClient, type RawMessage, statusOf, takeMessage } from '../../support/raw-http.ts';
import { closedPort, silentPort } from '../../support/unreachable.ts';
import { until } from '../../support/until.ts';
import { HttpRig, type HttpRigOptions, problemOf, requestText, type StoreName, storeNames } from './rig.ts';

const offer = [
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
];
const upgradeText = (user: string | null, lines: readonly string[] = [], path = '/live'): string =>
  requestText(`GET ${path}`, { user, lines: [...offer, ...lines] });
const accepted = [
  'HTTP/1.1 101 Switching Protocols',
  'Upgrade: websocket',
  'Connection: Upgrade',
  'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzhZRbK+xOo=',
].join('\r\n');
const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');

/** A store's end of an upgraded connection. */
interface StoreEnd {
  readonly socket: Socket;
  readonly send: (bytes: string) => void;
  received: string;
  closed: boolean;
  ending: 'fin' | 'reset' | undefined;
}

/** From now on every upgrade is answered with `answer`, and what follows is kept. */
function takeUpgrades(rig: HttpRig, answer = `${accepted}\r\n\r\n`): StoreEnd[] {
  const ends: StoreEnd[] = [];
  for (const name of storeNames) {
    rig.store(name).answer = (request, socket) => {
      if (headerOf(request, 'upgrade') === undefined) {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
        return;
      }
      const send = (bytes: string): void => void socket.write(bytes, 'latin1');
      const end: StoreEnd = { socket, send, received: '', closed: false, ending: undefined };
      ends.push(end);
      // What follows is no HTTP any more.
      socket.removeAllListeners('data');
      socket.on('data', (text) => (end.received += String(text)));
      socket.on('end', () => (end.ending ??= 'fin'));
      socket.on('error', () => (end.ending ??= 'reset'));
      socket.on('close', () => (end.closed = true));
      if (answer !== '') socket.write(answer, 'latin1');
    };
  }
  return ends;
}

/** An open WebSocket: the client has its 101, the store its request. */
async function open(
  rig: HttpRig,
  user: string,
  lines: readonly string[] = [],
): Promise<[RawClient, StoreEnd]> {
  const ends = takeUpgrades(rig);
  const client = await rig.connect();
  client.send(upgradeText(user, lines));
  expect(statusOf(await client.answer())).toBe(101);
  const [end] = ends;
  if (end === undefined) throw new Error('no store was asked');
  return [client, end];
}

let rig: HttpRig;
async function started(options: HttpRigOptions = {}): Promise<HttpRig> {
  const made = await HttpRig.start({
    ...options,
    config: {
      flip: { drainMs: 500, fenceMs: 1_000, holdMs: 8_000 },
      routes: [
        { path: '/pinned/*', store: 'legacy', anonymous: true },
        { path: '/reads/*', access: 'read' },
      ],
      ...options.config,
    },
  });
  await made.moveToApp('app-user');
  return made;
}

describe('row 27: an upgrade', () => {
  beforeAll(async () => {
    rig = await started({ app: { guard: true }, legacy: { writeTimeoutMs: 3_000 } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test.each(storeNames)(
    'reaches %s with its headers as they were, and the 101 comes back as it was',
    async (store) => {
      const ends = takeUpgrades(
        rig,
        `${accepted}\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nx-ODD: caf\xe9\r\nSet-Cookie: b=2\r\nOnewriter-Store: app\r\n\r\n`,
      );
      const client = await rig.connect();
      const lines = [
        'Sec-WebSocket-Protocol: chat, x',
        'X-One: 1',
        'cookie: a',
        'X-ONE: 2',
        'Cookie: b',
        'Onewriter-Epoch: nine',
      ];
      client.send(upgradeText(userOf(store), lines, '//live%2Fa?b&&c'));
      const answer = await client.answer();
      expect(answer.startLine).toBe('HTTP/1.1 101 Switching Protocols');
      expect(answer.headers.toSorted()).toEqual(
        [
          ...accepted.split('\r\n').slice(1),
          'Sec-WebSocket-Protocol: chat',
          'Set-Cookie: a=1',
          'x-ODD: caf\xe9',
          'Set-Cookie: b=2',
        ].toSorted(),
      );
      expect(answer.headers.filter((line) => line.startsWith('Set-Cookie'))).toEqual([
        'Set-Cookie: a=1',
        'Set-Cookie: b=2',
      ]);
      const [request] = rig.store(store).requests;
      expect(request?.startLine).toBe('GET //live%2Fa?b&&c HTTP/1.1');
      const sent = request?.headers ?? [];
      for (const line of offer) expect(sent).toContain(line);
      expect(sent.filter((line) => /^(x-one|cookie|sec-websocket-protocol):/i.test(line))).toEqual(
        lines.slice(0, 5),
      );
      expect(sent.filter((line) => /^host:/i.test(line))).toEqual([
        `Host: 127.0.0.1:${rig.store(store).port}`,
      ]);
      expect(headerOf({ headers: sent }, 'x-forwarded-for')).toBe('127.0.0.1');
      expect(headerOf({ headers: sent }, 'onewriter-access')).toBe(store === 'app' ? 'write' : undefined);
      expect(headerOf({ headers: sent }, 'onewriter-epoch')).toBe(store === 'app' ? '4' : undefined);
      expect(ends).toHaveLength(1);
    },
  );

  const spellings = ['WebSocket', 'WEBSOCKET', 'websocket'];
  test.each(spellings)('may be spelled %s', async (spelling) => {
    takeUpgrades(rig);
    const client = await rig.connect();
    client.send(
      upgradeText('ann')
        .replace('Upgrade: websocket', `upgrade: ${spelling}`)
        .replace('Connection: Upgrade', 'connection: keep-alive, UPGRADE'),
    );
    expect(statusOf(await client.answer())).toBe(101);
  });

  const failures: Record<string, string> = {
    '400 with a length':
      'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nbad',
    '401 with a challenge':
      'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="a"\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n',
    '403 in chunks':
      'HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnot\r\n4\r\nhere\r\n0\r\n\r\n',
    '404':
      'HTTP/1.1 404 Not Found\r\nSet-Cookie: a=1\r\nX-Mid: x\r\nSet-Cookie: b=2\r\nContent-Length: 4\r\n\r\nnone',
    '426 with what it wants':
      'HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n',
    '302': 'HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n',
    '200': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain',
    '204': 'HTTP/1.1 204 No Content\r\nX-Some: thing\r\n\r\n',
    '500 without a length': 'HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\noops',
    '503': 'HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy',
  };
  const cases = storeNames.flatMap((store) => Object.keys(failures).map((kind) => [kind, store] as const));
  test.each(cases)(
    'that fails with %s at %s: that answer is the client’s, whole, and the connection ends',
    async (kind, store) => {
      const text = failures[kind] ?? '';
      rig.store(store).answer = (_request, socket) => {
        if (kind.includes('without a length')) socket.end(text);
        else socket.write(text);
      };
      const client = await rig.connect();
      client.send(upgradeText(userOf(store)));
      const taken = takeMessage(await client.toTheEnd());
      const wanted = takeMessage(text.replace('Connection: close', `Content-Length: 4`));
      expect([taken?.message.startLine, taken?.message.body]).toEqual([
        wanted?.message.startLine,
        wanted?.message.body,
      ]);
      expect(taken?.rest).toBe('');
      const kept = (message: RawMessage | undefined): string[] =>
        message?.headers.filter((line) => !/^(connection|transfer-encoding|content-length):/i.test(line)) ??
        [];
      expect(kept(taken?.message)).toEqual(kept(wanted?.message));
      expect(taken && headerOf(taken.message, 'connection')).toBe('close');
      expect(client.ending).toBe('fin');
    },
  );

  test('that fails with a large answer is passed on whole, no faster than it is read', async () => {
    const body = randomBytes(12 * 1_048_576).toString('latin1');
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 404 Not Found\r\nContent-Length: ${body.length}\r\n\r\n${body}`, 'latin1');
    const client = await rig.connect();
    client.send(upgradeText('ann'));
    await client.toTheEnd();
    expect(takeMessage(client.received)?.message.body === body).toBe(true);
  });

  test.each(['Content-Length: 10', 'Transfer-Encoding: chunked', 'Connection: close'])(
    'that fails with an answer (%s) which breaks off is a broken transfer for the client, too',
    async (framing) => {
      rig.legacy.answer = (_request, socket) =>
        void socket.write(`HTTP/1.1 404 Not Found\r\n${framing}\r\n\r\n3\r\nabc\r\n`);
      const client = await rig.connect();
      client.send(upgradeText('ann'));
      await client.until(() => client.received.includes('abc'));
      for (const socket of rig.legacy.sockets) socket.resetAndDestroy();
      await client.toTheEnd();
      expect(takeMessage(client.received)).toBeUndefined();
    },
  );

  test('whose store answers nothing: 504 when its time is over, and nobody knows', async () => {
    takeUpgrades(rig, '');
    const client = await rig.connect();
    client.send(upgradeText('ann'));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(504);
    expect(problemOf(answer)).toMatchObject({
      code: 'outcome-unknown-timeout',
      store: 'legacy',
      stage: 'timeout',
      sent: 'unknown',
    });
    await client.toTheEnd();
    await until('the store is let go', () => rig.legacy.sockets.size === 0);
  });

  const breaks: Record<string, (socket: Socket) => void> = {
    'ends the connection': (socket) => void socket.end(),
    'resets the connection': (socket) => void socket.resetAndDestroy(),
    'answers what is no HTTP': (socket) => void socket.write('nonsense\r\n\r\n'),
    'breaks off in its 101': (socket) => void socket.end('HTTP/1.1 101 Switching'),
    'switches to something else': (socket) =>
      void socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n'),
    'switches to nothing in particular': (socket) =>
      void socket.write('HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n'),
    'answers with too long a head': (socket) =>
      void socket.write(`${accepted}\r\nX-Long: ${'x'.repeat(70_000)}\r\n\r\n`),
  };
  test.each(Object.keys(breaks))('whose store %s: 502, and nobody knows', async (how) => {
    rig.app.answer = (_request, socket) => breaks[how]?.(socket);
    const client = await rig.connect();
    client.send(upgradeText('app-user'));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)).toMatchObject({
      code: 'outcome-unknown',
      store: 'app',
      stage: 'broken',
      sent: 'unknown',
    });
    await client.toTheEnd();
    expect(rig.app.requests).toHaveLength(1);
    await until('the store is let go', () => rig.app.sockets.size === 0);
  });

  const refusals: readonly (readonly [what: string, text: string, status: number, code: string])[] = [
    ['without an identity', upgradeText(null), 401, 'no-identity'],
    ['without an identity, where reads need none', upgradeText(null, [], '/reads/a'), 401, 'no-identity'],
    ['at a target with dot segments', upgradeText('ann', [], '/a/../live'), 400, 'bad-target'],
    [
      'at the area of the guard',
      upgradeText('ann', [], '/.well-known/onewriter/guard/advance'),
      404,
      'no-route',
    ],
    ['at the health of the proxy', upgradeText('ann', [], '/.well-known/onewriter/health'), 404, 'no-route'],
  ];
  test.each(refusals)(
    '%s is refused as a problem, and its connection ends',
    async (_, text, status, code) => {
      const client = await rig.connect();
      // Frames that came along are nobody's.
      client.send(text + frame('early', { masked: true }));
      const taken = takeMessage(await client.toTheEnd());
      expect(taken && [statusOf(taken.message), problemOf(taken.message)['code']]).toEqual([status, code]);
      expect(taken && headerOf(taken.message, 'content-type')).toBe('application/problem+json');
      expect(taken?.rest).toBe('');
      expect(rig.legacy.connections + rig.app.connections).toBe(0);
    },
  );

  test.each(['closes', 'resets', 'ends'])(
    'whose client %s its connection before the 101 is given up at the store',
    async (how) => {
      const ends = takeUpgrades(rig, '');
      const client = await rig.connect();
      client.send(upgradeText('ann') + frame('early', { masked: true }));
      await until('the store is asked', () => ends.length === 1);
      if (how === 'closes') client.close();
      else if (how === 'resets') client.socket.resetAndDestroy();
      else client.socket.end();
      await until('the store is let go', () => ends[0]?.closed === true, 700);
    },
  );

  test('behind a request that is not answered yet waits for its turn', async () => {
    const ends = takeUpgrades(rig);
    const upgrades = rig.legacy.answer;
    let slow: Socket | undefined;
    rig.legacy.answer = (request, socket, upstream) => {
      if (request.startLine.includes('/slow')) slow = socket;
      else upgrades(request, socket, upstream);
    };
    const client = await rig.connect();
    client.send(requestText('GET /slow') + upgradeText('ann') + frame('early', { masked: true }));
    await until('the first has arrived', () => slow !== undefined);
    expect(ends).toHaveLength(0);
    slow?.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst');
    expect((await client.answer()).body).toBe('first');
    expect(statusOf(await client.answer())).toBe(101);
    await until('the early frame has arrived', () => ends[0]?.received === frame('early', { masked: true }));
    ends[0]?.send(frame('hello'));
    await client.until(() => client.received === frame('hello'));
  });

  test('is counted while it is open, and by what came of it', async () => {
    const before = (await rig.counters())['requests_total{store="legacy",access="write",status="1xx"}'] ?? 0;
    const [client] = await open(rig, 'counted');
    await rig.counted('upgraded_connections', 1);
    client.close();
    await rig.counted('upgraded_connections', 0);
    await rig.counted('requests_total{store="legacy",access="write",status="1xx"}', before + 1);
  });
});

describe('row 27: an upgrade whose store cannot be reached', () => {
  test('502 where it refuses, 504 where it takes no connection; nothing was sent', async () => {
    const silent = await silentPort();
    const refusing = await started({ app: { url: `http://127.0.0.1:${await closedPort()}` } });
    const deaf = await started({ app: { url: `http://127.0.0.1:${silent.port}`, connectTimeoutMs: 300 } });
    for (const [at, status, code] of [
      [refusing, 502, 'upstream-refused'],
      [deaf, 504, 'upstream-connect-timeout'],
    ] as const) {
      const client = await at.connect();
      client.send(upgradeText('app-user'));
      const answer = await client.answer();
      expect(statusOf(answer)).toBe(status);
      expect(problemOf(answer)).toMatchObject({ code, store: 'app', sent: 'no' });
      await client.toTheEnd();
    }
    await Promise.all([refusing.stop(), deaf.stop()]);
    await silent.stop();
  }, 60_000);
});

test('row 27: an upgrade that is not connected to its store yet when its partition is fenced is held like every write', async () => {
  const silent = await silentPort();
  const app = { url: `http://127.0.0.1:${silent.port}`, connectTimeoutMs: 5_000 };
  const deaf = await started({ app });
  const client = await deaf.connect();
  client.send(upgradeText('app-user'));
  await deaf.counted('upgraded_connections', 1);
  const fence = await deaf.fence('app-user');
  await deaf.counted('held_writes', 1);
  await fence.reopen();
  await deaf.counted('held_writes', 0);
  const answer = await client.answer();
  expect([statusOf(answer), problemOf(answer)['sent']]).toEqual([504, 'no']);
  expect((await deaf.counters())['in_doubt_writes_total']).toBe(0);
  await deaf.stop();
  await silent.stop();
}, 60_000);

describe('row 27: an open WebSocket', () => {
  beforeAll(async () => {
    rig = await started({
      // Times of requests are none of its business.
      config: {
        proxy: {
          limits: {
            headersTimeoutMs: 300,
            requestTimeoutMs: 400,
            keepAliveMs: 300,
            stalledMs: 1_500,
            answerSilenceMs: 300,
          },
        },
      },
      legacy: { readTimeoutMs: 300, writeTimeoutMs: 1_000 },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000];
  test.each(sizes)('passes frames of %i bytes both ways, byte for byte', async (size) => {
    const [client, end] = await open(rig, 'ann');
    const payload = randomBytes(size).toString('latin1');
    const up = frame(payload, { masked: true, opcode: opcodes.binary });
    const down = frame(payload, { opcode: opcodes.binary });
    client.send(up);
    await until('it is at the store', () => end.received.length >= up.length);
    expect(end.received === up).toBe(true);
    end.send(down);
    await client.until(() => client.received.length >= down.length);
    expect(client.received === down).toBe(true);
  });

  test('passes pings, pongs, pieces and closing frames as they are, and answers none of them itself', async () => {
    const [client, end] = await open(rig, 'ann');
    const frames = (masked: boolean): string =>
      [
        frame('are you there', { masked, opcode: opcodes.ping }),
        frame('yes', { masked, opcode: opcodes.pong }),
        frame('fir', { masked, fin: false }),
        frame('in between', { masked, opcode: opcodes.ping }),
        frame('st', { masked, opcode: opcodes.continuation }),
        frame('\x03\xe8bye', { masked, opcode: opcodes.close }),
      ].join('');
    client.send(frames(true));
    await until('all are at the store', () => end.received === frames(true));
    expect(client.received).toBe('');
    end.send(frames(false));
    await client.until(() => client.received === frames(false));
    expect(end.received).toBe(frames(true));
    // Who said goodbye ends the connection, and the proxy does not get ahead of them.
    expect([client.closed, end.closed]).toEqual([false, false]);
    end.socket.end();
    await client.until(() => client.closed);
    await until('both are gone', () => end.closed);
  });

  test('passes what is no frame at all, too', async () => {
    const [client, end] = await open(rig, 'ann');
    const bytes = randomBytes(300_000).toString('latin1');
    client.send(bytes);
    await until('all is at the store', () => end.received.length >= bytes.length);
    expect(end.received === bytes).toBe(true);
    end.send(bytes);
    await client.until(() => client.received.length >= bytes.length);
    expect(client.received === bytes).toBe(true);
  });

  test('passes much at the same time in both directions', async () => {
    const [client, end] = await open(rig, 'ann');
    const bytes = randomBytes(8 * 1_048_576).toString('latin1');
    client.send(bytes);
    end.send(bytes);
    await client.until(() => client.received.length >= bytes.length, 30_000);
    await until('all is at the store', () => end.received.length >= bytes.length, 30_000);
    const hash = (text: string): string => createHash('sha256').update(text, 'latin1').digest('hex');
    expect([hash(client.received), hash(end.received)]).toEqual([hash(bytes), hash(bytes)]);
  });

  test('passes each frame at once', async () => {
    const [client, end] = await open(rig, 'ann');
    for (let round = 0; round < 100; round += 1) {
      client.send(frame(`ask ${round}`, { masked: true }));
      await until('it is at the store', () => end.received.endsWith(`ask ${round}`));
      end.send(frame(`answer ${round}`));
      await client.until(() => client.received.endsWith(`answer ${round}`));
    }
  });

  test('gets what the store says in one breath with its 101, and the store what came behind the request', async () => {
    const ends = takeUpgrades(rig, `${accepted}\r\n\r\n${frame('hello')}${frame('x'.repeat(200_000))}`);
    const client = await rig.connect();
    const early = frame('early', { masked: true }) + frame('y'.repeat(60_000), { masked: true });
    client.send(upgradeText('ann') + early);
    expect(statusOf(await client.answer())).toBe(101);
    await client.until(() => client.received === frame('hello') + frame('x'.repeat(200_000)));
    await until('the early frames are at the store', () => ends[0]?.received === early);
  });

  test('passes what its client sends before the 101, once that is there, in one piece or in many', async () => {
    const ends = takeUpgrades(rig, '');
    const client = await rig.connect();
    client.send(upgradeText('ann'));
    await until('the store is asked', () => ends.length === 1);
    const early = frame('early', { masked: true }) + frame('y'.repeat(500_000), { masked: true });
    client.send(early);
    expect(ends[0]?.received).toBe('');
    ends[0]?.send(`${accepted}\r\n\r\n`);
    expect(statusOf(await client.answer())).toBe(101);
    await until('all of it is at the store', () => (ends[0]?.received.length ?? 0) >= early.length);
    expect(ends[0]?.received === early).toBe(true);
  });

  test.each([
    ['a client that does not read', true],
    ['a store that does not read', false],
  ])('%s holds the other side up, and is let go after a bounded time', async (_, clientIsDeaf) => {
    const [client, end] = await open(rig, 'ann');
    const [deaf, busy] = clientIsDeaf ? [client.socket, end.socket] : [end.socket, client.socket];
    deaf.pause();
    let taken = 0;
    const block = 'z'.repeat(1_048_576);
    for (let at = 0; at < 200; at += 1) busy.write(block, 'latin1', (error) => (taken += error ? 0 : 1));
    await until('the busy side is let go', () => (clientIsDeaf ? end.closed : client.closed), 20_000);
    expect(taken).toBeLessThan(100);
  });

  test('may be silent for longer than any request may take', async () => {
    const [client, end] = await open(rig, 'ann');
    const untilMs = performance.now() + 3_500;
    await until('all times have passed', () => performance.now() > untilMs);
    client.send(frame('still here', { masked: true }));
    await until('the store hears it', () => end.received.endsWith('still here'));
    end.send(frame('so am I'));
    await client.until(() => client.received.endsWith('so am I'));
  });

  test('whose client ends its side goes on in the other direction', async () => {
    const [client, end] = await open(rig, 'ann');
    client.socket.allowHalfOpen = true;
    client.socket.end(frame('my last', { masked: true }), 'latin1');
    await until('the store sees the end', () => end.received.endsWith('my last') && end.ending === 'fin');
    end.send(frame('and mine'));
    await client.until(() => client.received.endsWith('and mine'));
    end.socket.end();
    await until('all is over', () => end.closed);
  });

  test('whose store ends its side goes on in the other direction', async () => {
    const ends = takeUpgrades(rig);
    rig.legacy.onConnection = (socket) => (socket.allowHalfOpen = true);
    const client = await rig.connect();
    client.socket.allowHalfOpen = true;
    client.send(upgradeText('ann'));
    await client.answer();
    ends[0]?.socket.end(frame('my last'), 'latin1');
    await until(
      'the client sees the end',
      () => client.received.endsWith('my last') && client.ending === 'fin',
    );
    client.send(frame('and mine', { masked: true }));
    await until('the store hears it', () => ends[0]?.received.endsWith('and mine') === true);
    client.socket.end();
    await until('all is over', () => ends[0]?.closed === true);
  });

  test.each(['resetAndDestroy', 'destroy'] as const)(
    'whose client is gone (%s) is ended at the store',
    async (how) => {
      const [client, end] = await open(rig, 'ann');
      client.socket[how]();
      await until('the store sees it', () => end.closed);
    },
  );

  test.each(['resetAndDestroy', 'destroy'] as const)(
    'whose store is gone (%s) is ended at the client',
    async (how) => {
      const [client, end] = await open(rig, 'ann');
      end.socket[how]();
      await client.until(() => client.closed);
      expect(client.closed).toBe(true);
    },
  );

  test('takes no connection of the pool: however many are open, requests pass', async () => {
    takeUpgrades(rig);
    const clients = await Promise.all(Array.from({ length: 300 }, () => rig.connect()));
    for (const client of clients) client.send(upgradeText('ann'));
    for (const client of clients) expect(statusOf(await client.answer())).toBe(101);
    expect(statusOf(await rig.exchange(requestText('GET /a')))).toBe(200);
  });
});

describe('row 27: a WebSocket whose partition is fenced', () => {
  beforeAll(async () => {
    rig = await started({ config: { ledger: { leaseMs: 2_000 } } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test('is in doubt afterwards, and one that was refused is not', async () => {
    const [client] = await open(rig, 'doubted');
    const fence = await rig.fence('doubted');
    await client.until(() => client.closed);
    await rig.counted('in_doubt_writes_total', 1);
    await fence.reopen();
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n');
    const refused = await rig.connect();
    refused.send(upgradeText('doubted'));
    expect(statusOf(await refused.answer())).toBe(404);
    await rig.counted('requests_total{store="legacy",access="write",status="4xx"}', 1);
    expect((await rig.counters())['in_doubt_writes_total']).toBe(1);
  });

  test('is closed on both sides, 1012 and then the connection, and comes back to the new owner', async () => {
    const [client, end] = await open(rig, 'mover');
    client.send(frame('hello', { masked: true }));
    await until('it works', () => end.received.endsWith('hello'));
    const closed = (await rig.counters())['closed_at_fence_total'] ?? 0;
    const fence = await rig.fence('mover');
    await client.until(() => client.closed);
    await until('the store sees it', () => end.closed);
    expect([client.received, client.ending]).toEqual([close1012, 'fin']);
    expect([end.received, end.ending]).toEqual([frame('hello', { masked: true }) + maskedClose1012, 'fin']);
    await rig.counted('closed_at_fence_total', closed + 1);
    const ends = takeUpgrades(rig);
    const again = await rig.connect();
    again.send(upgradeText('mover') + frame('early', { masked: true }));
    await rig.counted('held_writes', 1);
    expect([again.received, ends.length]).toEqual(['', 0]);
    await fence.commit();
    expect(statusOf(await again.answer())).toBe(101);
    expect(rig.app.requests).toHaveLength(1);
    await until('what was sent early is there', () => ends[0]?.received === frame('early', { masked: true }));
  });

  test('is closed between two frames, or without a word in the middle of one', async () => {
    const [client, end] = await open(rig, 'halves');
    const whole = frame('whole');
    const half = frame('x'.repeat(5_000)).slice(0, 1_000);
    end.send(whole + half);
    client.send(frame('whole', { masked: true }));
    await client.until(() => client.received.length === whole.length + half.length);
    await until('the store has its frame', () => end.received.endsWith('whole'));
    const fence = await rig.fence('halves');
    await client.until(() => client.closed);
    await until('the store sees it', () => end.closed);
    // A closing frame there would be taken for a part of the other one.
    expect(client.received).toBe(whole + half);
    expect(end.received).toBe(frame('whole', { masked: true }) + maskedClose1012);
    await fence.reopen();
  });

  test('is closed in a bounded time where nobody reads, and nothing comes behind', async () => {
    const [client, end] = await open(rig, 'deaf');
    client.socket.pause();
    end.socket.pause();
    end.send(frame('x'.repeat(40_000_000)));
    client.send(frame('y'.repeat(40_000_000), { masked: true }));
    await rig.counted('upgraded_connections', 1);
    const fence = await rig.fence('deaf');
    await rig.counted('upgraded_connections', 0);
    end.socket.resume();
    client.socket.resume();
    await client.until(() => client.closed);
    await until('the store sees it', () => end.closed);
    expect(end.received.length).toBeLessThan(40_000_000);
    await fence.reopen();
  });

  test('while the store is still asked is answered 502, which says that nobody knows, and the store is let go', async () => {
    const ends = takeUpgrades(rig, '');
    const client = await rig.connect();
    client.send(upgradeText('asking'));
    await until('the store is asked', () => ends.length === 1);
    const fence = await rig.fence('asking');
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)).toMatchObject({
      code: 'outcome-unknown',
      store: 'legacy',
      stage: 'fenced',
      sent: 'unknown',
    });
    await until('the store is let go', () => ends[0]?.closed === true);
    await fence.reopen();
  });

  test('leaves those of others alone, and those of pinned routes', async () => {
    const [other, otherEnd] = await open(rig, 'other');
    const ends = takeUpgrades(rig);
    const pinned = await rig.connect();
    pinned.send(upgradeText('quiet', [], '/pinned/live'));
    expect(statusOf(await pinned.answer())).toBe(101);
    const fence = await rig.fence('quiet');
    otherEnd.send(frame('still'));
    ends[0]?.send(frame('here'));
    await other.until(() => other.received.endsWith('still'));
    await pinned.until(() => pinned.received.endsWith('here'));
    await fence.reopen();
  });

  test('is a writer whatever its route says: also what reads is held, and closed', async () => {
    const ends = takeUpgrades(rig);
    const fence = await rig.fence('reader');
    const client = await rig.connect();
    client.send(upgradeText('reader', [], '/reads/live'));
    await rig.counted('held_writes', 1);
    expect(ends).toHaveLength(0);
    await fence.reopen();
    expect(statusOf(await client.answer())).toBe(101);
    const again = await rig.fence('reader');
    await client.until(() => client.closed);
    expect(client.received).toBe(close1012);
    await again.reopen();
  });

  test.each(['closes', 'resets', 'ends'])(
    'while it is held, and whose client %s its connection, asks no store',
    async (how) => {
      const ends = takeUpgrades(rig);
      const fence = await rig.fence('leaver');
      const client = await rig.connect();
      client.send(upgradeText('leaver') + frame('early', { masked: true }));
      await rig.counted('held_writes', 1);
      if (how === 'closes') client.close();
      else if (how === 'resets') client.socket.resetAndDestroy();
      else client.socket.end();
      await rig.counted('held_writes', 0);
      await fence.reopen();
      await rig.exchange(requestText('PUT /after', { user: 'leaver', lines: ['Content-Length: 0'] }));
      expect(ends).toHaveLength(0);
    },
  );

  test('is closed, too, when the proxy loses touch with the ledger', async () => {
    const [client, end] = await open(rig, 'lapsed');
    await rig.books.redis.call('CLIENT', 'PAUSE', '6000', 'ALL');
    await client.until(() => client.closed);
    expect(client.received).toBe(close1012);
    await until('the store sees it', () => end.closed);
    const refused = await rig.connect();
    refused.send(upgradeText('lapsed'));
    const answer = await refused.answer();
    expect([statusOf(answer), problemOf(answer)]).toEqual([
      503,
      expect.objectContaining({ code: 'lease-lapsed', sent: 'no', store: 'legacy' }),
    ]);
    const write = requestText('PUT /a', { user: 'lapsed', lines: ['Content-Length: 0'] });
    await until('it is back', async () => statusOf(await rig.exchange(write)) === 200, 20_000);
  }, 60_000);
});

test('row 27: a WebSocket that is silent for longer than it may is closed, where a bound is set', async () => {
  const bounded = await started({ config: { proxy: { limits: { upgradedSilenceMs: 700 } } } });
  const [client, end] = await open(bounded, 'ann');
  for (let round = 0; round < 5; round += 1) {
    const untilMs = performance.now() + 300;
    await until('a part of the time has passed', () => performance.now() > untilMs);
    if (round % 2 === 0) client.send(frame('ping', { masked: true }));
    else end.send(frame('pong'));
  }
  expect([client.closed, end.closed]).toEqual([false, false]);
  await client.until(() => client.closed);
  await until('the store sees it', () => end.closed);
  await bounded.stop();
}, 60_000);

test('row 27: what many clients send before their 101 has one bound; who goes beyond it is let go', async () => {
  const bounded = await started({ config: { proxy: { limits: { inspectedBytes: 100_000 } } } });
  try {
    const early = frame('y'.repeat(60_000), { masked: true });
    const ends = takeUpgrades(bounded, '');
    const [first, second] = [await bounded.connect(), await bounded.connect()];
    first.send(upgradeText('ann'));
    second.send(upgradeText('ann'));
    await until('the store is asked for both', () => ends.length === 2);
    first.send(early);
    second.send(early);
    await until('one is let go', () => first.closed || second.closed);
    const [kept, gone] = first.closed ? [second, first] : [first, second];
    expect([gone.received, kept.closed]).toEqual(['', false]);
    // The bytes that come in one piece with the request count, too.
    const third = await bounded.connect();
    third.send(upgradeText('ann') + early);
    await third.toTheEnd();
    await bounded.counted('refused_total{code="body-unavailable"}', 2);
    for (const end of ends.filter(({ closed }) => !closed)) end.send(`${accepted}\r\n\r\n`);
    expect(statusOf(await kept.answer())).toBe(101);
    await until('it got all of it', () => ends.some(({ received }) => received === early));
    // What has been passed on, or went with its client, makes room again.
    takeUpgrades(bounded);
    const fourth = await bounded.connect();
    fourth.send(upgradeText('ann') + early);
    expect(statusOf(await fourth.answer())).toBe(101);
  } finally {
    await bounded.stop();
  }
}, 60_000);
