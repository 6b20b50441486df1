/** What in an answer names the store, as the client gets it: only where the store's settings ask for it. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText, type StoreName, storeNames } from './rig.ts';

const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');

/** The header lines of the answer to one request, of these names only. */
async function answerOf(
  rig: HttpRig,
  store: StoreName,
  lines: readonly string[],
  status = 302,
): Promise<readonly string[]> {
  rig.store(store).answer = (_request, socket) =>
    void socket.write(
      [`HTTP/1.1 ${status} Found`, ...lines, 'Content-Length: 0', '', ''].join('\r\n'),
      'latin1',
    );
  const answer = await rig.exchange(requestText('GET /a', { user: userOf(store) }));
  expect(statusOf(answer)).toBe(status);
  return answer.headers.filter((line) =>
    /^(location|content-location|refresh|set-cookie|link|x-\w+):/i.test(line),
  );
}

describe('row 26: a store that asks for nothing', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start();
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test.each(storeNames)('%s: nothing is touched', async (store) => {
    const lines = [
      `Location: ${rig.store(store).url}/made/1`,
      `Content-Location: ${rig.store(store).url}/made/1`,
      `Refresh: 5; url=${rig.store(store).url}/x`,
      'Set-Cookie: a=1; Domain=platform.example; Path=/api; HttpOnly',
      'Set-Cookie: b=2;Secure;SameSite=None',
    ];
    expect(await answerOf(rig, store, lines)).toEqual(lines);
  });
});

describe('row 26: a store behind a path', () => {
  let rig: HttpRig;
  beforeAll(async () => {
    rig = await HttpRig.start({
      prefix: '/api/v2',
      legacy: {
        rewrite: {
          cookieDomain: { 'platform.example': 'shop.example', 'drop.example': '', '*': 'other.example' },
          cookiePath: { '/api/v2': '/', '/api': '/old' },
        },
      },
      app: { rewrite: { location: false, cookieDomain: { 'app.internal': '' } } },
    });
    await rig.moveToApp('app-user');
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  // U stands for the address of the store.
  const references: readonly (readonly [sent: string, got: string])[] = [
    ['U/api/v2/made/1', 'http://shop.example/made/1'],
    ['U/api/v2/made/1?x=%2f&y#z', 'http://shop.example/made/1?x=%2f&y#z'],
    ['U/api/v2', 'http://shop.example/'],
    ['U/api/v2/', 'http://shop.example/'],
    ['/api/v2/made/1', '/made/1'],
    ['/api/v2', '/'],
    ['/api/v2?x', '/?x'],
    ['http://shop.example/api/v2/made', 'http://shop.example/made'],
    // Nothing of ours, or not to be read without doubt.
    ['/api/v20/made', '/api/v20/made'],
    ['/other', '/other'],
    ['made/1', 'made/1'],
    ['../x', '../x'],
    ['?x', '?x'],
    ['U/other', 'U/other'],
    ['U/api/v2/../x', 'U/api/v2/../x'],
    ['https://elsewhere.example/api/v2/x', 'https://elsewhere.example/api/v2/x'],
    ['http://shop.example@elsewhere.example/api/v2/x', 'http://shop.example@elsewhere.example/api/v2/x'],
    ['//elsewhere.example/api/v2', '//elsewhere.example/api/v2'],
    ['mailto:a@b.example', 'mailto:a@b.example'],
    ['/api/v2/a b', '/api/v2/a b'],
    ['', ''],
  ];
  const real = (text: string): string => text.replace(/^U/, rig.legacy.url);
  test.each(references)('Location and Content-Location "%s" become "%s"', async (sent, got) => {
    const lines = [`Location: ${real(sent)}`, `X-Between: ${real(sent)}`, `content-LOCATION: ${real(sent)}`];
    expect((await answerOf(rig, 'legacy', lines)).map((line) => line.trim())).toEqual(
      [`Location: ${real(got)}`, `X-Between: ${real(sent)}`, `content-LOCATION: ${real(got)}`].map((line) =>
        line.trim(),
      ),
    );
  });

  test.each([200, 201, 202, 301, 303, 307, 308, 404])('so it is with status %i', async (status) => {
    expect(await answerOf(rig, 'legacy', ['Location: /api/v2/x'], status)).toEqual(['Location: /x']);
  });

  test('Refresh, too; Link and others are not', async () => {
    const lines = ['Refresh: 5; url=/api/v2/x', 'Link: </api/v2/x>; rel=next', 'X-Link: /api/v2/x'];
    expect(await answerOf(rig, 'legacy', lines)).toEqual(['Refresh: 5; url=/x', lines[1], lines[2]]);
  });

  test('every cookie in its place, domain and path by the map, all else as it was', async () => {
    const lines = [
      'Set-Cookie: a=1; Domain=platform.example; Path=/api/v2/x; HttpOnly',
      'set-cookie: b="2; Path=/; x"; domain=.Platform.Example;secure',
      'X-Between: 1',
      'Set-Cookie: c=3; Domain=drop.example; Path=/api',
      'Set-Cookie: d=4; Domain=else.example; PATH=/api/v2',
      'Set-Cookie: e=5; Path=/apiary; Max-Age=3; Expires=Thu, 01 Jan 1970 00:00:00 GMT',
      'Set-Cookie: f=6; SameSite=Lax',
      'Set-Cookie: g=caf\xe9; Path=/api/v2/',
    ];
    expect(await answerOf(rig, 'legacy', lines)).toEqual([
      'Set-Cookie: a=1; Domain=shop.example; Path=/x; HttpOnly',
      'set-cookie: b="2; Path=/; x"; domain=shop.example;secure',
      'X-Between: 1',
      'Set-Cookie: c=3; Path=/old',
      'Set-Cookie: d=4; Domain=other.example; PATH=/',
      'Set-Cookie: e=5; Path=/apiary; Max-Age=3; Expires=Thu, 01 Jan 1970 00:00:00 GMT',
      'Set-Cookie: f=6; SameSite=Lax',
      'Set-Cookie: g=caf\xe9; Path=/',
    ]);
  });

  test('each store has its own rules: the app’s Location stays, its cookies lose their domain', async () => {
    const lines = [`Location: ${rig.app.url}/api/v2/x`, 'Set-Cookie: a=1; Domain=app.internal; Path=/api/v2'];
    expect(await answerOf(rig, 'app', lines)).toEqual([lines[0], 'Set-Cookie: a=1; Path=/api/v2']);
  });

  test('a client that says no host gets a path: there is no address to turn it into', async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(
        `HTTP/1.1 302 Found\r\nLocation: ${rig.legacy.url}/api/v2/x\r\nContent-Length: 0\r\n\r\n`,
      );
    const client = await rig.connect();
    client.send('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n');
    const text = await client.toTheEnd();
    expect(text).toContain('\r\nLocation: /x\r\n');
  });

  test('the path is put before every target, and is not the client’s to leave out', async () => {
    await rig.exchange(requestText('GET /a?b'));
    expect(rig.legacy.requests[0]?.startLine).toBe('GET /api/v2/a?b HTTP/1.1');
    expect(statusOf(await rig.exchange(requestText('GET /../a')))).toBe(400);
    expect(rig.legacy.requests).toHaveLength(1);
  });
});
