/** What the proxy tells of users' requests, for the rate limit that they share with the sync. */
import { afterEach, expect, test } from '@jest/globals';
import { connect } from 'node:net';
import { createProxy, type Proxy } from '../../src/proxy/proxy.ts';
import { createTestGate } from '../support/gate.ts';
import { configOf } from '../support/proxy.ts';
import { startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

let proxy: Proxy;
let store: TestRestStore;
afterEach(async () => {
  await proxy.stop();
  await store.stop();
});

test('each request that is sent on is told once, and every answer that says to wait', async () => {
  store = await startRestStore();
  const told: (readonly (string | undefined)[])[] = [];
  proxy = createProxy({
    config: configOf({ stores: { legacy: { url: store.url }, app: { url: store.url } } }),
    gate: createTestGate(),
    doubts: { note: () => undefined },
    doorbell: { ring: () => undefined },
    userCalls: {
      sent: (call) => void told.push(['sent', call.store, call.partition]),
      limited: (call, retryAfter) => void told.push(['limited', call.store, call.partition, retryAfter]),
    },
    log: () => undefined,
  });
  const { port } = await proxy.listen();
  const ask = async (status: number, headers: Record<string, string> = {}): Promise<void> => {
    store.intercept = () => ({ status, headers });
    const response = await fetch(`http://127.0.0.1:${port}/x`, { headers: { 'x-user': 'ann' } });
    await response.arrayBuffer();
    // It is nobody's but the user's: nothing is done about it here.
    expect(response.status).toBe(status);
  };
  await ask(200);
  await ask(429, { 'Retry-After': '7' });
  await ask(429);
  await ask(503, { 'retry-after': '2' });
  await ask(503);
  // Refused here: it never reached the store.
  await fetch(`http://127.0.0.1:${port}/x`, { method: 'POST' }).then((response) => response.arrayBuffer());
  const sent = ['sent', 'legacy', 'ann'];
  const limited = (retryAfter?: string) => ['limited', 'legacy', 'ann', retryAfter];
  expect(told).toEqual([sent, sent, limited('7'), sent, limited(), sent, limited('2'), sent]);

  // A WebSocket is one call, whatever goes through it.
  told.length = 0;
  store.intercept = () => ({ status: 200 });
  const socket = connect(port, '127.0.0.1');
  socket.end(
    'GET /x HTTP/1.1\r\nHost: x\r\nX-User: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  await until('it is told', () => told.length > 0);
  socket.destroy();
  expect(told).toEqual([sent]);
});
