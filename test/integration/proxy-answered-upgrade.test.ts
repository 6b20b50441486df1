/** Upgrades that a store answers like any other request: nobody's write stays in flight for them for ever. */
import type { Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { RawClient } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

const upgrade =
  'GET /events HTTP/1.1\r\nHost: h\r\nX-User: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';
const page = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n';
const eventStream = page.replace('\r\n', '\r\nContent-Type: text/event-stream\r\n');
const inDoubt = [{ partition: 'ann', outcome: 'in-doubt' }];

let rig: ProxyRig | undefined;
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
});

/** The client has the beginning of the answer. */
async function answered(
  text: string,
  settings: { readonly writeTimeoutMs: number; readonly stalledMs?: number },
): Promise<[ProxyRig, RawClient, Socket]> {
  const { writeTimeoutMs, stalledMs = 60_000 } = settings;
  const made = await startRig({ legacy: { writeTimeoutMs }, limits: { stalledMs } });
  rig = made;
  let store: Socket | undefined;
  made.legacy.answer = (_request, socket) => {
    store = socket;
    socket.write(text, 'latin1');
  };
  const client = await RawClient.open(made.port);
  client.send(upgrade);
  await client.until(() => client.received.includes('hello'));
  if (store === undefined) throw new Error('no store was asked');
  return [made, client, store];
}

async function letGo(made: ProxyRig): Promise<void> {
  await until('its ticket has ended', () => made.gate.endings.length === 1);
  await until('the store is let go', () => made.legacy.sockets.size === 0);
  expect(made.gate.endings).toEqual(inDoubt);
  expect(made.gate.member.inFlight('ann')).toBe(0);
  expect(made.gate.listening()).toBe(0);
  expect(made.proxy.counters().upgraded).toBe(0);
}

test.each(['ends', 'resets'])('a client that %s its connection takes the answer with it', async (how) => {
  const [made, client] = await answered(eventStream, { writeTimeoutMs: 600_000 });
  expect(made.gate.member.inFlight('ann')).toBe(1);
  client.send('nobody reads this');
  if (how === 'ends') client.socket.end();
  else client.socket.resetAndDestroy();
  await letGo(made);
});

test('an answer without an end is broken off when the time of the write is over', async () => {
  const [made, client] = await answered(page, { writeTimeoutMs: 400 });
  await client.toTheEnd();
  expect(client.received.endsWith('5\r\nhello\r\n')).toBe(true);
  await letGo(made);
});

test('an event stream is ended when its partition is fenced, any other answer goes on', async () => {
  const [made, client] = await answered(eventStream, { writeTimeoutMs: 600_000 });
  made.gate.fence('ann', 'app');
  await client.toTheEnd();
  await letGo(made);
  expect(made.proxy.counters().closedAtFence).toBe(1);
  await made.stop();
  const [other, reader, store] = await answered(page, { writeTimeoutMs: 600_000 });
  other.gate.fence('ann', 'app');
  store.write('3\r\nall\r\n0\r\n\r\n');
  expect((await reader.answer()).body).toBe('helloall');
  await until('its ticket has ended', () => other.gate.endings.length === 1);
  expect(other.gate.endings[0]?.outcome).toBe('ended');
});

test('a client that takes nothing of the answer is let go', async () => {
  const [made, client, store] = await answered(page, { writeTimeoutMs: 600_000, stalledMs: 400 });
  client.socket.pause();
  const block = `10000\r\n${'x'.repeat(65_536)}\r\n`;
  const more = (): void => {
    while (store.writable && store.write(block));
  };
  store.on('drain', more);
  more();
  await letGo(made);
});
