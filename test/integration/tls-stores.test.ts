/** TLS to the stores: always verified, always against the configured name, and told apart where it fails. */
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { createServer as createTlsServer, type TlsOptions, type TLSSocket } from 'node:tls';
import { writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { unlimited } from '../../src/stores/budget.ts';
import { RestGuardCalls } from '../../src/stores/rest/guard-calls.ts';
import { createRestStore } from '../../src/stores/rest/store.ts';
import { Authority, type Certified, noOpenssl } from '../support/certificates.ts';
import { configOf, type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, type RawAnswer, RawClient, RawUpstream, statusOf } from '../support/raw-http.ts';
import { connectorFor } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

let authority: Authority;
let stranger: Authority;
/** Of the address under which the stores are reached, of a name, and of this proxy as a client. */
let ofAddress: Certified;
let ofName: Certified;
let ofProxy: Certified;
let rig: ProxyRig | undefined;
const ends: (() => Promise<void>)[] = [];

const suite = noOpenssl === undefined ? describe : describe.skip;
beforeAll(() => {
  if (noOpenssl !== undefined) return;
  [authority, stranger] = [new Authority(), new Authority('stranger')];
  ofAddress = authority.certify('IP:127.0.0.1');
  ofName = authority.certify('DNS:store.example');
  ofProxy = authority.certify('DNS:proxy.example');
});
afterEach(async () => {
  await rig?.stop();
  rig = undefined;
  for (const end of ends.splice(0)) await end();
});
afterAll(() => {
  authority?.remove();
  stranger?.remove();
});

const read = 'GET /a HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\n\r\n';
const write = 'POST /a HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\nContent-Length: 2\r\n\r\nhi';

async function rigWith(store: TlsOptions, tls: Record<string, unknown>, more = {}): Promise<ProxyRig> {
  rig = await startRig({ tls: store, legacy: { tls, ...more }, app: { tls } });
  return rig;
}

async function problemFrom(request: string): Promise<Record<string, unknown>> {
  const { body } = await exchange(rig?.port ?? 0, request);
  return JSON.parse(body) as Record<string, unknown>;
}

suite(`a store behind TLS (${noOpenssl ?? 'with openssl'})`, () => {
  test('is reached where its certificate is signed by the authority that is configured', async () => {
    const { port, legacy } = await rigWith(ofAddress, { ca: authority.caFile });
    expect(statusOf(await exchange(port, write))).toBe(200);
    expect(legacy.requests[0]?.body).toBe('hi');
  });

  test.each([
    ['of another authority', () => [ofAddress, { ca: stranger.caFile }], /^(SELF_SIGNED|UNABLE_TO)/],
    ['of no known authority', () => [ofAddress, {}], /^(SELF_SIGNED|UNABLE_TO)/],
    ['of another name', () => [ofName, { ca: authority.caFile }], /^ERR_TLS_CERT_ALTNAME_INVALID$/],
    [
      'with a version that is too old',
      () => [
        { ...ofAddress, maxVersion: 'TLSv1.2' },
        { ca: authority.caFile, minVersion: 'TLSv1.3' },
      ],
      /^ERR_SSL_/,
    ],
    [
      'that wants to know who asks',
      () => [
        { ...ofAddress, requestCert: true, maxVersion: 'TLSv1.2', ca: authority.ca },
        { ca: authority.caFile },
      ],
      /^(ERR_SSL_|EPROTO|ECONNRESET)/,
    ],
  ] as [string, () => [TlsOptions, Record<string, unknown>], RegExp][])(
    'one %s is told apart, and nothing is sent to it',
    async (_case, make, reason) => {
      const { port, gate, legacy } = await rigWith(...make());
      const answer = await exchange(port, write);
      expect(statusOf(answer)).toBe(502);
      expect(JSON.parse(answer.body)).toMatchObject({
        code: 'upstream-tls',
        stage: 'tls',
        store: 'legacy',
        sent: 'no',
        reason: expect.stringMatching(reason),
      });
      expect(gate.endings.map(({ outcome }) => outcome)).toEqual(['not-sent']);
      expect(await problemFrom(read)).not.toHaveProperty('sent');
      expect(legacy.requests).toEqual([]);
    },
  );

  test('one that is not there, or never begins with TLS, is another failure', async () => {
    const { legacy } = await rigWith(ofAddress, { ca: authority.caFile }, { connectTimeoutMs: 200 });
    await legacy.stop();
    expect(await problemFrom(read)).toMatchObject({ code: 'upstream-refused', stage: 'refused' });
    await rig?.stop();
    const silent = await RawUpstream.start();
    ends.push(() => silent.stop());
    const url = silent.url.replace('http:', 'https:');
    rig = await startRig({ legacy: { url, connectTimeoutMs: 200 } });
    expect(await problemFrom(read)).toMatchObject({ code: 'upstream-connect-timeout' });
  });

  test('shows its certificate for the configured name, whatever Host the clients send', async () => {
    const seen: unknown[] = [];
    const { port, legacy } = await rigWith(
      ofName,
      { ca: authority.caFile, servername: 'store.example' },
      { host: 'preserve' },
    );
    legacy.answer = (request, socket) => {
      seen.push([headerOf(request, 'host'), (socket as TLSSocket & { servername: string }).servername]);
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    };
    await exchange(port, read);
    await exchange(port, read.replace('shop.example', 'evil.example'));
    expect(seen).toEqual([
      ['shop.example', 'store.example'],
      ['evil.example', 'store.example'],
    ]);
    expect(legacy.connections).toBe(1);
  });

  test('learns who asks from the certificate that is configured', async () => {
    const { port, legacy } = await rigWith(
      { ...ofAddress, requestCert: true, rejectUnauthorized: true, ca: authority.ca },
      { ca: authority.caFile, cert: ofProxy.certFile, key: ofProxy.keyFile },
    );
    let subject: unknown;
    legacy.answer = (_request, socket) => {
      subject = (socket as TLSSocket).getPeerCertificate().subject;
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    };
    expect(statusOf(await exchange(port, read))).toBe(200);
    expect(subject).toMatchObject({ CN: 'proxy.example' });
  });

  test('gets nothing more of a write that was broken off, and cannot take it for whole', async () => {
    const store = createTlsServer(ofAddress);
    const seen = { bytes: 0, ends: 0, errors: [] as (string | undefined)[] };
    const accepted = once(store, 'secureConnection');
    store.listen(0, '127.0.0.1');
    await once(store, 'listening');
    ends.push(() => new Promise((resolve) => store.close(() => resolve())));
    const url = `https://127.0.0.1:${(store.address() as AddressInfo).port}`;
    rig = await startRig({ legacy: { url, tls: { ca: authority.caFile }, writeTimeoutMs: 500 } });
    const size = 3_000_000;
    const answer = exchange(rig.port, write.replace('Length: 2', `Length: ${size}`) + 'x'.repeat(size - 2));
    const [socket] = (await accepted) as [TLSSocket];
    socket.pause();
    expect(JSON.parse((await answer).body)).toMatchObject({ code: 'outcome-unknown-timeout' });
    socket.on('data', (data: Buffer) => (seen.bytes += data.byteLength));
    socket.on('end', () => (seen.ends += 1));
    socket.on('error', (error: NodeJS.ErrnoException) => seen.errors.push(error.code));
    const closed = once(socket, 'close').catch(() => undefined);
    socket.resume();
    await closed;
    await until('it is closed', () => socket.destroyed);
    expect([seen.ends, seen.errors]).toEqual([0, ['ECONNRESET']]);
    expect(seen.bytes).toBeLessThan(1_000_000);
  });

  test('with files that cannot be used stops the start, with the name of the setting', async () => {
    const notPem = `${ofName.certFile}.text`;
    writeFileSync(notPem, 'nothing');
    const starting = async (tls: Record<string, unknown>): Promise<unknown> => rigWith(ofAddress, tls);
    await expect(starting({ ca: '/nowhere.pem' })).rejects.toThrow(
      /legacy\.tls\.ca, \/nowhere\.pem, .*ENOENT/,
    );
    await expect(starting({ ca: notPem })).rejects.toThrow(/legacy\.tls\.ca holds no PEM certificate/);
    await expect(starting({ cert: ofName.certFile, key: ofProxy.keyFile })).rejects.toThrow(
      /legacy\.tls\.key, \S+, does not belong to the certificate/,
    );
  });
});

suite(`a WebSocket to a store behind TLS (${noOpenssl ?? 'with openssl'})`, () => {
  const echoing = async (certified: Certified): Promise<{ url: string; hosts: unknown[] }> => {
    const server = createServer(certified);
    const sockets = new WebSocketServer({ server });
    const hosts: unknown[] = [];
    sockets.on('connection', (socket, request) => {
      hosts.push(request.headers.host);
      socket.on('message', (data) => socket.send(data));
      socket.on('error', () => {});
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    ends.push(async () => {
      for (const socket of sockets.clients) socket.terminate();
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    });
    return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, hosts };
  };
  const open = (): WebSocket =>
    new WebSocket(`ws://127.0.0.1:${rig?.port}/live`, {
      headers: { 'x-user': 'ann', host: 'shop.example' },
    });

  test('is carried, verified by the configured name, and closed at a fence', async () => {
    const { url, hosts } = await echoing(ofName);
    const tls = { ca: authority.caFile, servername: 'store.example' };
    rig = await startRig({ legacy: { url, tls, host: 'preserve' } });
    const socket = open();
    await once(socket, 'open');
    const answer = once(socket, 'message');
    socket.send('hello');
    expect(String(((await answer) as [Buffer])[0])).toBe('hello');
    expect(hosts).toEqual(['shop.example']);
    const closed = once(socket, 'close');
    rig.gate.fence('ann', 'app');
    expect((await closed)[0]).toBe(1012);
  });

  test('is ended within bounds where neither side reads any more', async () => {
    const { url } = await echoing(ofAddress);
    rig = await startRig({ legacy: { url, tls: { ca: authority.caFile } } });
    const client = await RawClient.open(rig.port);
    client.send(
      'GET /live HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await client.until(() => client.received.includes('101 Switching'));
    client.socket.pause();
    rig.gate.fence('ann', 'app');
    client.socket.resume();
    await client.until(() => client.closed);
    expect(client.closed).toBe(true);
  });

  test('to one that is not trusted gets the same problem as a request, and counts as not sent', async () => {
    const { url, hosts } = await echoing(ofName);
    rig = await startRig({ legacy: { url, tls: { ca: authority.caFile } } });
    const socket = open();
    socket.on('error', () => {});
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, AsyncIterable<Buffer>];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    expect(JSON.parse(Buffer.concat(chunks).toString())).toMatchObject({
      ...{ code: 'upstream-tls', stage: 'tls', store: 'legacy', sent: 'no' },
      reason: 'ERR_TLS_CERT_ALTNAME_INVALID',
    });
    const { gate } = rig;
    await until('its ticket has ended', () => gate.endings.length === 1);
    expect(gate.endings[0]?.outcome).toBe('not-sent');
    expect(hosts).toEqual([]);
  });
});

suite(`calls of our own to a store behind TLS (${noOpenssl ?? 'with openssl'})`, () => {
  const never = new AbortController().signal;
  const answering: RawAnswer = (_request, socket) => {
    const body = JSON.stringify({ data: [], epoch: 7 });
    socket.write(
      `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
  };
  const storeWith = async (
    certified: Certified,
    settings: Record<string, unknown>,
  ): Promise<{ store: ReturnType<typeof createRestStore>; upstream: RawUpstream }> => {
    const upstream = await RawUpstream.start(answering, certified);
    const app = { url: upstream.url, connector: connectorFor(), ...settings };
    const store = createRestStore(
      'app',
      configOf({ stores: { legacy: { url: 'http://127.0.0.1:1' }, app } }),
      unlimited,
    );
    ends.push(async () => {
      await store.reader.close();
      await upstream.stop();
    });
    return { store, upstream };
  };
  const stamp = { partition: 'ann', epoch: 7 };

  test('are verified by the configured name, and name the store as requests do', async () => {
    const tls = { ca: authority.caFile, servername: 'store.example' };
    const { store, upstream } = await storeWith(ofName, { tls, host: 'named.example' });
    await store.reader.probe(never);
    const guard = new RestGuardCalls(new Map([['app', store.client]]));
    expect(await guard.advance('app', stamp, never)).toMatchObject({ epoch: 7 });
    expect(upstream.requests.map((request) => headerOf(request, 'host'))).toEqual([
      'named.example',
      'named.example',
    ]);
  });

  test('fail with the reason where the store is not trusted, and send nothing', async () => {
    const { store, upstream } = await storeWith(ofName, { tls: { ca: authority.caFile } });
    const guard = new RestGuardCalls(new Map([['app', store.client]]));
    await expect(store.reader.probe(never)).rejects.toThrow(/not trusted \(ERR_TLS_CERT_ALTNAME_INVALID\)/);
    await expect(guard.seal('app', stamp, never)).rejects.toThrow(/look at stores\.app\.tls/);
    expect(upstream.requests).toEqual([]);
  });
});
