/** TLS towards clients: what is spoken, what the store learns of it, and how the certificate is renewed. */
import { copyFileSync, writeFileSync } from 'node:fs';
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Authority, type Certified, noOpenssl } from '../support/certificates.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let authority: Authority;
let first: Certified;
let second: Certified;
/** What the proxy reads. */
let used: Certified;
let rig: ProxyRig;
let trust: ConnectionOptions;

const suite = noOpenssl === undefined ? describe : describe.skip;
beforeAll(() => {
  if (noOpenssl !== undefined) return;
  authority = new Authority();
  [first, second] = [authority.certify('DNS:shop.example'), authority.certify('DNS:shop.example')];
  used = authority.certify('DNS:shop.example');
  trust = { ca: authority.ca, servername: 'shop.example' };
});
beforeEach(async () => {
  if (noOpenssl !== undefined) return;
  put(first);
  const tls = { cert: used.certFile, key: used.keyFile };
  rig = await startRig({
    config: { proxy: { port: 0, tls }, flip: { holdMs: 20_000 } },
    certificateLookMs: 20,
    legacy: { rewrite: { location: true } },
  });
});
afterEach(async () => rig?.stop());
afterAll(() => authority?.remove());

function put({ certFile, keyFile }: Certified): void {
  copyFileSync(certFile, used.certFile);
  copyFileSync(keyFile, used.keyFile);
}

async function shown(): Promise<string> {
  const client = await RawClient.open(rig.port, trust);
  const { fingerprint256 } = (client.socket as TLSSocket).getPeerCertificate();
  client.close();
  return fingerprint256;
}

const events = (): string[] =>
  rig.logged.map(({ event }) => event).filter((event) => /certificate/.test(event));
const read = 'GET /a HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\n\r\n';

suite(`the listening side (${noOpenssl ?? 'with openssl'})`, () => {
  test('speaks TLS, tells the store so, and names itself so', async () => {
    rig.legacy.answer = (_request, socket, { url }) =>
      void socket.write(`HTTP/1.1 302 Found\r\nLocation: ${url}/b\r\nContent-Length: 0\r\n\r\n`);
    const answer = await exchange(rig.port, read, trust);
    expect(headerOf(answer, 'location')).toBe('https://shop.example/b');
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'x-forwarded-proto')).toBe('https');
    await expect(exchange(rig.port, read)).rejects.toThrow(/connection ended/);
  });

  test('agrees on HTTP/1.1 and on nothing else', async () => {
    const client = await RawClient.open(rig.port, { ...trust, ALPNProtocols: ['h2', 'http/1.1'] });
    expect((client.socket as TLSSocket).alpnProtocol).toBe('http/1.1');
    client.close();
    const only = connect({ ...trust, port: rig.port, host: '127.0.0.1', ALPNProtocols: ['h2'] });
    const [error] = (await once(only, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toMatch(/NO_APPLICATION_PROTOCOL/);
  });

  test('carries a WebSocket, and closes it at a fence', async () => {
    rig.legacy.answer = (request, socket) => {
      expect(headerOf(request, 'x-forwarded-proto')).toBe('https');
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n');
      socket.write('Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n');
    };
    const client = await RawClient.open(rig.port, trust);
    client.send(
      'GET /live HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await client.until(() => client.received.includes('101 Switching'));
    client.socket.pause();
    rig.gate.fence('ann', 'app');
    client.socket.resume();
    await client.until(() => client.closed);
    expect([client.closed, rig.gate.endings.length]).toEqual([true, 1]);
  });

  test('breaks off an answer to a client of HTTP/1.0 without ending the process', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf');
      setImmediate(() => socket.destroy());
    };
    const client = await RawClient.open(rig.port, trust);
    client.send('GET /a HTTP/1.0\r\nHost: shop.example\r\nx-user: ann\r\n\r\n');
    await client.until(() => client.closed);
    rig.legacy.answer = (_request, socket) => void socket.write('HTTP/1.1 204 OK\r\n\r\n');
    expect(statusOf(await exchange(rig.port, read, trust))).toBe(204);
  });

  test('notices a client that goes away while its write is held', async () => {
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port, trust);
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 100000\r\n\r\nhi');
    await until('the write is held', () => rig.proxy.counters().holding === 1);
    client.close();
    await until('nothing is held', () => rig.proxy.counters().holding === 0);
    expect(rig.legacy.requests).toEqual([]);
  });
});

suite(`the certificate (${noOpenssl ?? 'with openssl'})`, () => {
  test('is taken from its files when they change, while connections go on', async () => {
    const before = await shown();
    const client = await RawClient.open(rig.port, trust);
    put(second);
    await until('it is renewed', () => events().includes('certificate.renewed'));
    expect(await shown()).not.toBe(before);
    client.send(read);
    expect(statusOf(await client.answer())).toBe(200);
    client.close();
  });

  test.each([
    ['do not fit each other', () => copyFileSync(second.certFile, used.certFile)],
    ['are not certificates', () => writeFileSync(used.certFile, 'nothing')],
  ])(
    'stays where new files %s: one sentence says so, and the next good ones are taken',
    async (_how, spoil) => {
      const before = await shown();
      spoil();
      await until('it is refused', () => events().length > 0);
      expect(await shown()).toBe(before);
      const [refused] = rig.logged.filter(({ event }) => event === 'certificate.not-renewed');
      expect(refused?.fields['detail']).toMatch(/^The (file|key) of proxy\.tls\.\w+, .*before\.$/);
      put(second);
      await until('it is renewed', () => events().includes('certificate.renewed'));
      expect(events()).toEqual(['certificate.not-renewed', 'certificate.renewed']);
      expect(await shown()).not.toBe(before);
    },
  );

  test('is read again at once when an operator asks for it', async () => {
    await rig.stop();
    const tls = { cert: used.certFile, key: used.keyFile };
    rig = await startRig({ config: { proxy: { port: 0, tls } }, certificateLookMs: 1e6 });
    const before = await shown();
    put(second);
    rig.proxy.renewCertificate();
    expect(await shown()).not.toBe(before);
  });

  test('that cannot be read stops the start, with the name of the setting', async () => {
    const tls = { cert: '/nowhere.pem', key: used.keyFile };
    await expect(startRig({ config: { proxy: { port: 0, tls } } })).rejects.toThrow(
      /proxy\.tls\.cert, \/nowhere\.pem, cannot be read \(ENOENT\)/,
    );
  });
});
