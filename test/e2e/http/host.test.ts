/** The Host that a store sees: its own, the client's, or a name, each store for itself. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type RawMessage, statusOf } from '../../support/raw-http.ts';
import { HttpRig, type StoreName } from './rig.ts';

let rig: HttpRig;

/** Host (its name in any letters), and the host that the store is told the client asked for. */
const hostsIn = ({ headers }: RawMessage): string[] =>
  headers
    .filter((line) => /^(x-forwarded-)?host:/i.test(line))
    .map((line) => line.replace(/^host:/i, 'Host:'));

/** ann's requests go to legacy, mia's to the app. */
const users: Readonly<Record<StoreName, string>> = { legacy: 'ann', app: 'mia' };

async function hostsAt(store: StoreName, request: string): Promise<string[]> {
  const answer = await rig.exchange(request.replace('USER', users[store]));
  expect(statusOf(answer)).toBe(200);
  const [sent] = rig.store(store).requests;
  return sent === undefined ? [] : hostsIn(sent);
}

const asking = (host: string): string => `GET /a HTTP/1.1\r\nHost: ${host}\r\nx-user: USER\r\n\r\n`;
const hosts = [
  'shop.example',
  'SHOP.example:8443',
  '127.0.0.1',
  '[::1]:8080',
  'shop.example.',
  'shop.example:',
];

function runs(config: { legacy?: object; app?: object }): void {
  beforeAll(async () => {
    rig = await HttpRig.start({ legacy: { ...config.legacy }, app: { ...config.app } });
    await rig.moveToApp('mia');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);
}

describe('one store with its own and one with the name of the client', () => {
  runs({ app: { host: 'preserve' } });

  test.each(hosts)('row 15: legacy sees its own address for %s, port included', async (host) => {
    expect(await hostsAt('legacy', asking(host))).toEqual([
      `Host: 127.0.0.1:${rig.legacy.port}`,
      `X-Forwarded-Host: ${host}`,
    ]);
  });

  test.each(hosts)('row 15: the app sees %s, letter for letter', async (host) => {
    expect(await hostsAt('app', asking(host))).toEqual([`Host: ${host}`, `X-Forwarded-Host: ${host}`]);
  });

  test('row 15: a client that names none (HTTP/1.0) has the address of the store, in both', async () => {
    for (const store of ['legacy', 'app'] as const) {
      const [host, ...more] = await hostsAt(store, 'GET /a HTTP/1.0\r\nx-user: USER\r\n\r\n');
      expect([host, more]).toEqual([`Host: 127.0.0.1:${rig.store(store).port}`, []]);
    }
  });

  test('row 15: the name of the client does not decide where the connection goes', async () => {
    expect(await hostsAt('app', asking(`127.0.0.1:${rig.legacy.port}`))).toHaveLength(2);
    expect(rig.legacy.bytes).toBe('');
    expect(rig.app.requests).toHaveLength(1);
  });

  test('row 15: another name does not cost another connection', async () => {
    for (const host of hosts) await rig.exchange(asking(host).replace('USER', 'mia'));
    expect(rig.app.connections).toBe(1);
    expect(rig.app.requests.flatMap(hostsIn).filter((line) => line.startsWith('Host'))).toEqual(
      hosts.map((host) => `Host: ${host}`),
    );
  });

  test('row 15: a partition that moves takes the form of its new store', async () => {
    const request = asking('shop.example').replace('USER', 'mover');
    await rig.exchange(request);
    await rig.moveToApp('mover');
    await rig.exchange(`${request.replace('GET', 'POST').trimEnd()}\r\nContent-Length: 0\r\n\r\n`);
    expect(rig.legacy.requests.flatMap(hostsIn)[0]).toBe(`Host: 127.0.0.1:${rig.legacy.port}`);
    expect(rig.app.requests.flatMap(hostsIn)[0]).toBe('Host: shop.example');
  });
});

describe('one store with a name of its own and one with the name of the client', () => {
  runs({ legacy: { host: 'platform.example:8443' }, app: { host: 'preserve' } });

  test.each(hosts)('row 15: legacy sees its name for %s', async (host) => {
    expect(await hostsAt('legacy', asking(host))).toEqual([
      'Host: platform.example:8443',
      `X-Forwarded-Host: ${host}`,
    ]);
  });

  test('row 15: also for a client that names none, and for a URL as target', async () => {
    expect(await hostsAt('legacy', 'GET /a HTTP/1.0\r\nx-user: USER\r\n\r\n')).toEqual([
      'Host: platform.example:8443',
    ]);
    rig.forget();
    const absolute = asking('shop.example').replace('/a', 'http://shop.example/a');
    expect(await hostsAt('legacy', absolute)).toEqual([
      'Host: platform.example:8443',
      'X-Forwarded-Host: shop.example',
    ]);
    expect(rig.legacy.requests[0]?.startLine).toBe('GET /a HTTP/1.1');
  });

  test('row 15: a URL as target tells the app the host of both', async () => {
    const absolute = asking('shop.example').replace('/a', 'http://shop.example/a');
    expect(await hostsAt('app', absolute)).toEqual(['Host: shop.example', 'X-Forwarded-Host: shop.example']);
  });
});
