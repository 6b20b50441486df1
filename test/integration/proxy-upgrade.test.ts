/** WebSockets through the proxy: admitted like writes, closed at a fence. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

interface EchoStore {
  readonly server: Server;
  readonly sockets: WebSocketServer;
  readonly url: string;
  readonly requests: IncomingMessage[];
  readonly messages: string[];
  readonly closes: number[];
}

let rig: ProxyRig;
let legacy: EchoStore;
let app: EchoStore;

beforeEach(async () => {
  [legacy, app] = await Promise.all([startEcho(), startEcho()]);
  rig = await startRig({
    config: { flip: { holdMs: 20_000 } },
    legacy: { url: legacy.url },
    app: { url: app.url },
  });
});
afterEach(async () => {
  await rig.stop();
  for (const store of [legacy, app]) {
    for (const socket of store.sockets.clients) socket.terminate();
    store.server.closeAllConnections();
    await new Promise<void>((resolve) => store.server.close(() => resolve()));
  }
});

async function startEcho(): Promise<EchoStore> {
  const server = createServer((_request, response) => response.writeHead(404).end('no'));
  const sockets = new WebSocketServer({ server, path: '/live' });
  const requests: IncomingMessage[] = [];
  const messages: string[] = [];
  const closes: number[] = [];
  sockets.on('connection', (socket, request) => {
    requests.push(request);
    socket.on('message', (data: Buffer) => {
      messages.push(data.toString());
      socket.send(data);
    });
    socket.on('close', (code) => closes.push(code));
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    server,
    sockets,
    requests,
    messages,
    closes,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
  };
}

async function open(user: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${rig.port}/live`, { headers: { 'x-user': user } });
  await once(socket, 'open');
  return socket;
}

async function echo(socket: WebSocket, text: string): Promise<string> {
  const answer = once(socket, 'message');
  socket.send(text);
  const [data] = (await answer) as [Buffer];
  return data.toString();
}

test('a WebSocket reaches the owner, counts as a write, and is in doubt once closed', async () => {
  const socket = await open('ann');
  expect(await echo(socket, 'hello')).toBe('hello');
  expect(legacy.requests[0]?.headers['x-user']).toBe('ann');
  expect(rig.gate.member.inFlight('ann')).toBe(1);
  socket.close();
  await until('its ticket has ended', () => rig.gate.endings.length === 1);
  expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
  expect(rig.gate.listening()).toBe(0);
  expect(rig.proxy.counters().upgraded).toBe(0);
});

test('at a fence a WebSocket is closed on both sides with 1012, and reconnects into the hold', async () => {
  const socket = await open('ann');
  expect(await echo(socket, 'hello')).toBe('hello');
  const closed = once(socket, 'close');
  rig.gate.fence('ann', 'app');
  const [code] = (await closed) as [number];
  expect(code).toBe(1012);
  await until('the store sees it closed', () => legacy.closes.length === 1);
  expect(legacy.closes).toEqual([1012]);
  expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
  const again = open('ann');
  await until('the upgrade is held', () => rig.proxy.counters().holding === 1);
  rig.gate.order('ann', { kind: 'commit', attempt: 'a' });
  rig.gate.order('ann', { kind: 'release', attempt: 'a' });
  expect(await echo(await again, 'moved')).toBe('moved');
  expect(app.requests[0]?.headers['onewriter-partition']).toBe('ann');
  expect(app.requests[0]?.headers['onewriter-access']).toBe('write');
});

test('an upgrade that is refused gets an HTTP answer and the connection is closed', async () => {
  const upgrade =
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n';
  const client = await RawClient.open(rig.port);
  client.send(`GET /live HTTP/1.1\r\nHost: h\r\n${upgrade}\r\n`);
  expect(statusOf(await client.answer())).toBe(401);
  await client.until(() => client.closed);
  expect(client.closed).toBe(true);
  const control = `GET /.well-known/onewriter/guard/advance HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${upgrade}\r\n`;
  expect(statusOf(await exchange(rig.port, control))).toBe(404);
  rig.gate.loseLease();
  const lapsed = `GET /live HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${upgrade}\r\n`;
  expect(statusOf(await exchange(rig.port, lapsed))).toBe(503);
});

test('a store that refuses the upgrade, or the connection, answers through', async () => {
  const key = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n';
  const upgrade = `${key}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n`;
  const wrongPath = await exchange(
    rig.port,
    `GET /other HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${upgrade}\r\n`,
  );
  expect(statusOf(wrongPath)).toBe(400);
  await until('its ticket has ended', () => rig.gate.endings.length === 1);
  expect(rig.gate.endings[0]?.outcome).toBe('ended');
  legacy.server.close();
  const gone = await exchange(rig.port, `GET /live HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${upgrade}\r\n`);
  expect(statusOf(gone)).toBe(502);
  await until('the second ticket has ended', () => rig.gate.endings.length === 2);
  expect(rig.gate.endings[1]?.outcome).toBe('not-sent');
});

test('a client that goes away takes its connection to the store with it', async () => {
  const socket = await open('ann');
  socket.terminate();
  await until('the store sees it closed', () => legacy.closes.length === 1);
  await until('its ticket has ended', () => rig.gate.endings.length === 1);
});

test('no frame is passed to the store once the lease has lapsed, even before anybody says so', async () => {
  const socket = await open('ann');
  expect(await echo(socket, 'hello')).toBe('hello');
  const closed = once(socket, 'close');
  rig.gate.loseLease();
  socket.send('too late');
  await closed;
  await until('the store sees the end', () => legacy.closes.length === 1);
  expect(legacy.messages).toEqual(['hello']);
  expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
});

test('an upgrade whose lease lapses while its store is being connected to is not sent, and says so', async () => {
  const mayContinue = rig.gate.mayContinue.bind(rig.gate);
  Object.assign(rig.gate, { mayContinue: () => false });
  const lines = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n';
  const answer = await exchange(rig.port, `GET /live HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${lines}\r\n`);
  Object.assign(rig.gate, { mayContinue });
  expect(statusOf(answer)).toBe(503);
  expect(JSON.parse(answer.body)).toMatchObject({ code: 'lease-lapsed', sent: 'no', store: 'legacy' });
  expect(rig.gate.endings).toEqual([{ partition: 'ann', outcome: 'not-sent' }]);
  expect(legacy.requests).toEqual([]);
});
