/** What a store is told about the way of a request, and whom that is believed. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText } from './rig.ts';

/** A load balancer in front of the proxy; clients come from another address. */
const balancer = '127.0.0.2';
let rig: HttpRig;

/** Fields about the way, as they reached the store. */
async function wayOf(lines: readonly string[], from?: string, startLine = 'GET /a'): Promise<string[]> {
  const answer = await rig.exchange(requestText(startLine, { lines }), from);
  expect(statusOf(answer)).toBe(200);
  const way =
    /^(x[-_]forwarded|forwarded|via|x[-_](real|original|rewrite|script|envoy)|script.name|path.(info|translated))/i;
  return (rig.legacy.requests.at(-1)?.headers ?? []).filter((line) => way.test(line));
}

const own = ['X-Forwarded-For: 127.0.0.1', 'X-Forwarded-Proto: http', 'X-Forwarded-Host: shop.example'];

describe('by default', () => {
  beforeAll(async () => {
    rig = await HttpRig.start({ config: { proxy: { trustedProxies: [balancer] } } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test('row 14: a store is told the client, its scheme and the host that it asked for', async () => {
    expect(await wayOf([])).toEqual(own);
    expect(await wayOf(['Content-Length: 0'], undefined, 'POST /a')).toEqual(own);
  });

  test.each([
    [['X-Forwarded-For: 10.1.1.1']],
    [['X-Forwarded-For: 10.1.1.1, 10.2.2.2', 'x-forwarded-for: 10.3.3.3']],
    [['X-Forwarded-Proto: https']],
    [['X-Forwarded-Host: admin.example']],
    [['x-FORWARDED-hOST: admin.example']],
    [['X-Forwarded-Port: 443', 'X-Forwarded-Prefix: /admin', 'X-Forwarded-Server: a', 'X-Forwarded-Ssl: on']],
    [['X-Forwarded-User: root', 'X-Forwarded-Email: a@b.example', 'X-Forwarded-Uri: /admin']],
    [['Forwarded: for=10.1.1.1;host=admin.example;proto=https']],
    [['X-Real-IP: 10.1.1.1']],
    [['X-Original-URL: /admin', 'X-Rewrite-URL: /admin', 'X-Original-Host: admin.example']],
    [
      [
        'X_Forwarded_For: 10.1.1.1',
        'X_Forwarded-Proto: https',
        'X_Real_IP: 10.1.1.1',
        'X_Original_URL: /admin',
      ],
    ],
    [['SCRIPT_NAME: /x', 'Script-Name: /x', 'X-Script-Name: /x', 'PATH_INFO: /admin', 'Path.Translated: /a']],
    [['X-Original-URI: /admin', 'X-Original-Path: /admin', 'X-Envoy-Original-Path: /admin']],
    [['Connection: X-Forwarded-For', 'X-Forwarded-For: 10.1.1.1']],
  ])('row 14: %j of anybody ends at the proxy', async (lines) => {
    expect(await wayOf(lines)).toEqual(own);
  });

  test.each([
    [
      'a client',
      ['X-Forwarded-For: 10.1.1.1'],
      ['For: 10.1.1.1, 127.0.0.2', 'Proto: http', 'Host: shop.example'],
    ],
    [
      'several hops in one field',
      ['X-Forwarded-For: 10.1.1.1, 10.2.2.2'],
      ['For: 10.1.1.1, 10.2.2.2, 127.0.0.2', 'Proto: http', 'Host: shop.example'],
    ],
    [
      'several hops in several fields, in their order',
      ['X-Forwarded-For: 10.1.1.1', 'X-A: b', 'x-forwarded-for: 10.2.2.2'],
      ['For: 10.1.1.1, 10.2.2.2, 127.0.0.2', 'Proto: http', 'Host: shop.example'],
    ],
    ['an empty list', ['X-Forwarded-For:'], ['For: 127.0.0.2', 'Proto: http', 'Host: shop.example']],
    ['a scheme', ['X-Forwarded-Proto: https'], ['For: 127.0.0.2', 'Proto: https', 'Host: shop.example']],
    ['a host', ['X-Forwarded-Host: www.example'], ['For: 127.0.0.2', 'Proto: http', 'Host: www.example']],
    [
      'all of it',
      ['X-Forwarded-Host: www.example', 'X-Forwarded-Proto: https', 'X-Forwarded-For: 2001:db8::1'],
      ['For: 2001:db8::1, 127.0.0.2', 'Proto: https', 'Host: www.example'],
    ],
    ['nothing', [], ['For: 127.0.0.2', 'Proto: http', 'Host: shop.example']],
  ])(
    'row 14: a trusted proxy is believed when it tells %s, and stands behind it itself',
    async (_what, lines, told) => {
      expect(await wayOf(lines, balancer)).toEqual(told.map((line) => `X-Forwarded-${line}`));
    },
  );

  test('row 14: what else a trusted proxy says passes as it is', async () => {
    const lines = [
      'Forwarded: for=10.1.1.1',
      'X-Forwarded-Port: 443',
      'X-Real-IP: 10.1.1.1',
      'X-Original-URL: /b',
    ];
    expect(await wayOf(lines, balancer)).toEqual([
      ...lines,
      ...own.map((line) => line.replace('127.0.0.1', balancer)),
    ]);
  });

  test('row 14: a client that names no host has none told', async () => {
    const answer = await rig.exchange('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n');
    expect(statusOf(answer)).toBe(200);
    const told = rig.legacy.requests[0]?.headers.filter((line) => /^x-forwarded/i.test(line));
    expect(told).toEqual(own.slice(0, 2));
  });

  test('row 14: Via of others passes, and none is added', async () => {
    expect(await wayOf(['Via: 1.1 edge', 'Via: 1.0 old'])).toEqual(['Via: 1.1 edge', 'Via: 1.0 old', ...own]);
    const answer = await rig.exchange(requestText('GET /a'));
    expect(answer.headers.filter((line) => /^via/i.test(line))).toEqual([]);
  });
});

describe('where it is asked for', () => {
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: { proxy: { trustedProxies: [balancer], forwarded: true, via: 'edge.example:8080' } },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  const via = 'Via: 1.1 edge.example:8080';

  test('row 14: Forwarded and Via are written, too', async () => {
    expect(await wayOf([])).toEqual([...own, 'Forwarded: for=127.0.0.1;host=shop.example;proto=http', via]);
  });

  test('row 14: Forwarded of anybody is replaced', async () => {
    const sent = await wayOf(['Forwarded: for=10.1.1.1;proto=https', 'forwarded: for=10.2.2.2']);
    expect(sent).toEqual([...own, 'Forwarded: for=127.0.0.1;host=shop.example;proto=http', via]);
  });

  test('row 14: Forwarded of a trusted proxy goes on', async () => {
    const sent = await wayOf(
      ['Forwarded: for="[2001:db8::1]";proto=https', 'Forwarded: for=10.2.2.2'],
      balancer,
    );
    expect(sent.filter((line) => line.startsWith('Forwarded'))).toEqual([
      'Forwarded: for="[2001:db8::1]";proto=https, for=10.2.2.2, for=127.0.0.2;host=shop.example;proto=http',
    ]);
  });

  test.each([
    ['shop.example:8080', ';host="shop.example:8080"'],
    ['[::1]:80', ';host="[::1]:80"'],
    ['', ''],
  ])('row 14: the Host "%s" in Forwarded', async (host, told) => {
    await rig.exchange(`GET /a HTTP/1.1\r\nHost: ${host}\r\nx-user: ann\r\n\r\n`);
    const sent = rig.legacy.requests[0]?.headers.filter((line) => line.startsWith('Forwarded'));
    expect(sent).toEqual([`Forwarded: for=127.0.0.1${told};proto=http`]);
  });

  test('row 14: Via of others stands before ours, which names the version that came in', async () => {
    expect(await wayOf(['Via: 1.1 before'])).toContain(via);
    expect((await wayOf(['Via: 1.1 before'])).filter((line) => line.startsWith('Via'))).toEqual([
      'Via: 1.1 before',
      via,
    ]);
    await rig.exchange('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n');
    expect(rig.legacy.requests.at(-1)?.headers).toContain('Via: 1.0 edge.example:8080');
  });
});
