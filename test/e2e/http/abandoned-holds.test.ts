/** A client that goes away while its write is held leaves nothing: no connection to a store, no count, no place taken. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: { flip: { holdMs: 25_000 } },
    legacy: { connections: 4 },
    app: { connections: 4 },
  });
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const large = 'x'.repeat(1_000_000);

/** Writes at every stage of their body; the path tells which one it was. */
const waiting: readonly (readonly [path: string, bytes: string])[] = [
  ['/no-body', requestText('POST /no-body', { lines: ['Content-Length: 0'] })],
  ['/no-length', requestText('DELETE /no-length')],
  ['/whole', requestText('POST /whole', { lines: ['Content-Length: 2'], body: 'hi' })],
  ['/half', requestText('POST /half', { lines: ['Content-Length: 10'], body: 'hello' })],
  ['/nothing-yet', requestText('PUT /nothing-yet', { lines: ['Content-Length: 10'] })],
  ['/large', requestText('POST /large', { lines: [`Content-Length: ${large.length}`], body: large })],
  ['/large-half', requestText('POST /large-half', { lines: ['Content-Length: 2000000'], body: large })],
  [
    '/chunked',
    requestText('POST /chunked', { lines: ['Transfer-Encoding: chunked'], body: '5\r\nhello\r\n' }),
  ],
  ['/chunks', requestText('POST /chunks', { lines: ['Transfer-Encoding: chunked'], body: '0\r\n\r\n' })],
  ['/expects', requestText('POST /expects', { lines: ['Content-Length: 5', 'Expect: 100-continue'] })],
  ['/keyed', requestText('POST /keyed', { lines: ['Content-Length: 0', 'Idempotency-Key: "a"'] })],
  ['/1.0', 'POST /1.0 HTTP/1.0\r\nx-user: ann\r\nContent-Length: 2\r\n\r\nhi'],
  [
    '/pipelined',
    requestText('POST /pipelined', { lines: ['Content-Length: 0'] }) + requestText('GET /behind'),
  ],
];

const startLines = (): string[] => rig.legacy.requests.map(({ startLine }) => startLine);
const write = (path: string): string => requestText(`POST ${path}`, { lines: ['Content-Length: 0'] });

async function send(bytes: string): Promise<RawClient> {
  const client = await rig.connect();
  client.send(bytes);
  return client;
}

async function abandoned(): Promise<number> {
  return Number((await rig.counters())['abandoned_holds_total']);
}

test.each(['closes', 'resets'])(
  'row 2: a held client that %s its connection has asked for nothing, at whatever stage its body was',
  async (how) => {
    const before = await abandoned();
    const fence = await rig.fence('ann');
    const clients = await Promise.all(waiting.map(([, bytes]) => send(bytes)));
    await rig.counted('held_writes', waiting.length);
    for (const client of clients) {
      if (how === 'closes') client.close();
      else client.socket.resetAndDestroy();
    }
    await rig.countedAll({
      held_writes: 0,
      abandoned_holds_total: before + waiting.length,
      requests_under_way: 0,
    });
    expect(startLines().filter((line) => !line.startsWith('GET'))).toEqual([]);
    rig.forget();
    await fence.reopen();
    expect(statusOf(await rig.exchange(write('/after')))).toBe(200);
    expect(startLines()).toEqual(['POST /after HTTP/1.1']);
    expect(rig.legacy.connections).toBeLessThanOrEqual(1);
  },
  60_000,
);

test('row 2: more of them than there are connections leave all connections free', async () => {
  const fence = await rig.fence('ann');
  const clients = await Promise.all(Array.from({ length: 12 }, (_, at) => send(write(`/gone/${at}`))));
  await rig.settled();
  for (const client of clients) client.close();
  await rig.settled();
  await fence.reopen();
  // All four at once: each answer waits until the others have come.
  rig.legacy.answer = () => {
    if (rig.legacy.requests.length < 4) return;
    for (const socket of rig.legacy.sockets) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  };
  const answers = await Promise.all([1, 2, 3, 4].map((at) => rig.exchange(write(`/stays/${at}`))));
  expect(answers.map(statusOf)).toEqual([200, 200, 200, 200]);
  expect(startLines().every((line) => line.startsWith('POST /stays/'))).toBe(true);
}, 60_000);

test('row 2: their places are free for others', async () => {
  const fence = await rig.fence('ann');
  // As many as one partition may hold, twice.
  for (const round of [1, 2]) {
    const clients = await Promise.all(Array.from({ length: 100 }, () => send(write(`/round/${round}`))));
    await rig.settled();
    expect(statusOf(await rig.exchange(write('/one-more')))).toBe(503);
    for (const client of clients) client.close();
    await rig.settled();
  }
  const stays = await send(write('/stays'));
  await rig.settled();
  await fence.reopen();
  expect(statusOf(await stays.answer())).toBe(200);
  expect(startLines()).toEqual(['POST /stays HTTP/1.1']);
}, 60_000);

test('row 2: the partition moves on without them', async () => {
  const user = 'mover';
  const fence = await rig.fence(user);
  const gone = await send(requestText('POST /gone', { user, lines: ['Content-Length: 0'] }));
  await rig.settled();
  gone.close();
  await rig.settled();
  await fence.commit();
  await rig.exchange(requestText('POST /after', { user, lines: ['Content-Length: 0'] }));
  expect(rig.app.requests.map(({ startLine }) => startLine)).toEqual(['POST /after HTTP/1.1']);
  expect(startLines()).toEqual([]);
}, 60_000);

test('row 2: one that goes in the moment of the release was sent once, or not at all', async () => {
  const fence = await rig.fence('ann');
  const clients = await Promise.all(Array.from({ length: 40 }, (_, at) => send(write(`/race/${at}`))));
  await rig.settled();
  const released = fence.reopen();
  for (const client of clients) {
    client.close();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await released;
  await rig.countedAll({ held_writes: 0, requests_under_way: 0 });
  expect(new Set(startLines()).size).toBe(startLines().length);
  await rig.exchange(write('/after'));
  expect(startLines().at(-1)).toBe('POST /after HTTP/1.1');
}, 60_000);

test('row 2: one that goes before its small body is complete opens no connection either', async () => {
  const client = await send(requestText('POST /half', { lines: ['Content-Length: 10'], body: 'hello' }));
  await rig.counted('requests_under_way', 1);
  client.close();
  await rig.counted('requests_under_way', 0);
  expect([rig.legacy.connections, rig.legacy.bytes]).toEqual([0, '']);
  // Nor is anything in doubt: the partition can be fenced and drained at once.
  const fence = await rig.fence('ann');
  const drained = await until('the heartbeat tells', async () => {
    const [member] = await rig.books.ledger.members();
    return member?.inFlight === 0 && member;
  });
  expect(drained.inDoubt).toBe(0);
  await fence.reopen();
}, 60_000);
