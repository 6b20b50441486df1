/**
 * A change of the rules while writes are under way on pinned routes: nobody counts those for a partition, so where the
 * new rules give their route to partitions, the change waits for them.
 */
import type { Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { headerOf, type RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';
import { HttpRig, requestText } from './http/rig.ts';

const login = { path: '/login', store: 'legacy', anonymous: true };
const feed = { path: '/feed/*', store: 'legacy' };
const calendar = { path: '/calendars/:owner/*', partition: 'path.owner' };
const settleMs = 6_000;

let rig: HttpRig;
beforeEach(async () => {
  rig = await HttpRig.start({
    config: { routes: [login, feed], flip: { holdMs: 30_000 } },
    // So that the store sees under which partition a write goes.
    legacy: { settleMs, guard: true, writeTimeoutMs: 20_000 },
  });
}, 60_000);
afterEach(() => rig.stop(), 60_000);

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const pathOf = ({ startLine }: RawMessage): string => startLine.split(' ')[1] ?? '';
const post = (path: string): string =>
  requestText(`POST ${path}`, { lines: ['Content-Length: 2'], body: 'hi' });
const says = (text: string): boolean => rig.said.includes(text);
const atStore = (path: string): RawMessage | undefined =>
  rig.legacy.requests.find((request) => pathOf(request) === path);

async function send(path: string): Promise<RawClient> {
  const client = await rig.connect();
  client.send(post(path));
  return client;
}

async function openSocket(path: string): Promise<RawClient> {
  rig.legacy.answer = (request, socket) =>
    void socket.write(
      headerOf(request, 'upgrade') === undefined
        ? ok
        : 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    );
  const client = await rig.connect();
  const lines = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'];
  client.send(requestText(`GET ${path}`, { lines }));
  expect(statusOf(await client.answer())).toBe(101);
  return client;
}

test('waits for those that lose their store, holds new ones, and lets those through that stay pinned', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (request, socket) => {
    if (pathOf(request) === '/feed/1') slow.push(socket);
    else socket.write(ok);
  };
  const first = await send('/feed/1');
  await until('the store has it', () => slow.length === 1);
  rig.reload({ routes: [login] });
  // Writes of partitions wait from the moment on at which the change begins.
  let probe = await send('/a');
  await until('writes wait', async () => {
    if ((await rig.counters())['held_writes'] === 1) return true;
    if (probe.received !== '') probe = await send('/a');
    return false;
  });
  const second = await send('/feed/2');
  await rig.counted('held_writes', 2);
  expect(statusOf(await rig.exchange(post('/login')))).toBe(200);
  expect(atStore('/feed/2')).toBeUndefined();
  expect(says('rules.changed')).toBe(false);
  slow[0]?.write(ok);
  expect(statusOf(await first.answer())).toBe(200);
  for (const client of [probe, second]) expect(statusOf(await client.answer())).toBe(200);
  expect(says('rules.changed')).toBe(true);
  expect(headerOf(atStore('/feed/1') ?? { headers: [] }, 'onewriter-partition')).toBeUndefined();
  expect(headerOf(atStore('/feed/2') ?? { headers: [] }, 'onewriter-partition')).toBe('ann');
}, 60_000);

test('does not wait for those that the new rules leave where they are', async () => {
  const slow: Socket[] = [];
  rig.legacy.answer = (request, socket) => {
    if (pathOf(request) === '/feed/1') slow.push(socket);
    else socket.write(ok);
  };
  const first = await send('/feed/1');
  await until('the store has it', () => slow.length === 1);
  rig.reload({ routes: [calendar, login, feed] });
  await until('it has changed', () => says('rules.changed'), 20_000);
  expect(statusOf(await rig.exchange(post('/calendars/bob/1')))).toBe(200);
  slow[0]?.write(ok);
  expect(statusOf(await first.answer())).toBe(200);
}, 60_000);

test('a WebSocket on a route that loses its store stands in the way, and on any other it does not', async () => {
  const client = await openSocket('/feed/live');
  rig.reload({ routes: [login] });
  await until('it says why', () => says('WebSockets are open on routes that would lose'));
  expect(statusOf(await rig.exchange(post('/feed/2')))).toBe(200);
  expect(headerOf(atStore('/feed/2') ?? { headers: [] }, 'onewriter-partition')).toBeUndefined();
  rig.reload({ routes: [calendar, login, feed] });
  await until('it has changed', () => says('rules.changed'), 20_000);
  expect(client.closed).toBe(false);
}, 60_000);

test('one whose outcome is unknown counts until it has settled, also for a process that ends', async () => {
  rig.legacy.answer = (request, socket) => {
    if (pathOf(request) === '/feed/1') socket.destroy();
    else socket.write(ok);
  };
  const beganMs = performance.now();
  expect(statusOf(await rig.exchange(post('/feed/1')))).toBe(502);
  rig.reload({ routes: [login] });
  await until('it says why', () => says('a write is in doubt'));
  expect(statusOf(await rig.exchange(post('/feed/2')))).toBe(200);
  expect(headerOf(atStore('/feed/2') ?? { headers: [] }, 'onewriter-partition')).toBeUndefined();
  // Its rule, and those before it, are as they were.
  rig.reload({ routes: [login, feed, calendar] });
  await until('it has changed', () => says('rules.changed'), 20_000);
  const listed = async (): Promise<number> => (await rig.books.ledger.members()).length;
  rig.process.child.kill('SIGTERM');
  await until('it has left', async () => (await listed()) === 0, 20_000);
  expect(performance.now() - beganMs).toBeGreaterThan(settleMs);
}, 60_000);
