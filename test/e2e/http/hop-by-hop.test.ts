/** Fields that are meant for the next hop alone end at the proxy, both ways; so does nothing that a decision rests on. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { headerOf, statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({
    config: {
      partition: [{ header: 'x-org' }, { by: 'user' }],
      routes: [{ path: '/kinds/*', headers: { 'x-kind': 'search' }, access: 'read' }],
    },
    legacy: { guard: true },
  });
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

/** What reached the store, but for the fields that the proxy writes in any case. */
async function arrivesWith(lines: readonly string[], body = ''): Promise<string[]> {
  expect(statusOf(await rig.exchange(requestText('POST /a', { lines, body })))).toBe(200);
  const own = /^(host|x-forwarded-[a-z]+|onewriter-[a-z]+|connection: keep-alive$|x-user: ann$)/i;
  return (rig.legacy.requests.at(-1)?.headers ?? []).filter((line) => !own.test(line));
}

test.each([
  [['Connection: keep-alive']],
  [['Connection: close']],
  [['Keep-Alive: timeout=5, max=100']],
  [['Connection: keep-alive', 'Keep-Alive: timeout=5']],
  [['Proxy-Connection: keep-alive']],
  [['Proxy-Authenticate: Basic realm="a"']],
  [['Proxy-Authorization: Basic YTpi']],
  [['TE: gzip, deflate;q=0.5']],
  [['Connection: TE', 'TE: trailers']],
  [['Upgrade: foo/2']],
  [['Connection: Upgrade', 'Upgrade: foo/2']],
  [['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__']],
  [['PROXY-CONNECTION: close', 'kEEP-aLIVE: a']],
  [['Keep_Alive: a', 'Proxy_Authorization: b']],
])('row 13: %j ends at the proxy', async (lines) => {
  expect(await arrivesWith([...lines, 'X-Kept: 1', 'Content-Length: 2'], 'hi')).toEqual([
    'X-Kept: 1',
    expect.stringMatching(/^content-length: 2$/i),
  ]);
});

test.each([
  ['one', ['Connection: X-Hop', 'X-Hop: 1'], []],
  ['in other letters', ['Connection: x-HOP', 'X-hop: 1'], []],
  ['each of its name', ['Connection: X-Hop', 'X-Hop: 1', 'x-hop: 2'], []],
  ['several', ['Connection: close, X-A ,\tX-B', 'X-A: 1', 'X-B: 2', 'X-C: 3'], ['X-C: 3']],
  ['in several fields', ['Connection: X-A', 'X-A: 1', 'Connection: X-B', 'X-B: 2'], []],
  ['with empty elements', ['Connection: ,, X-A,,', 'X-A: 1', 'X-B: 2'], ['X-B: 2']],
  ['before it was named', ['X-A: 1', 'Connection: X-A'], []],
  ['that is not there', ['Connection: X-A', 'X-B: 1'], ['X-B: 1']],
  ['by a part of its name only', ['Connection: X', 'X-A: 1'], ['X-A: 1']],
  ['that is empty', ['Connection:', 'X-A: 1'], ['X-A: 1']],
])('row 13: what Connection names ends at the proxy: %s', async (_what, lines, kept) => {
  const arrived = await arrivesWith([...lines, 'Content-Length: 0']);
  expect(arrived.filter((line) => !/^content-length/i.test(line))).toEqual(kept);
});

test.each([
  ['the identity', 'x-user', 'x-user: ann'],
  ['the partition', 'x-org', 'X-Org: org1'],
  ['what a route looks at', 'x-kind', 'X-Kind: other'],
  ['the type of the body', 'content-type', 'Content-Type: text/xml'],
  ['the coding of the body', 'content-encoding', 'Content-Encoding: gzip'],
  ['the length of the body', 'content-length', 'Content-Length: 2'],
  ['the key', 'idempotency-key', 'Idempotency-Key: "hop"'],
])('row 13: Connection cannot take away %s', async (_what, name, line) => {
  const others = ['X-Org: org1', 'X-Kind: other', 'Content-Type: text/xml', 'Content-Encoding: gzip'];
  const lines = [...others, 'Idempotency-Key: "hop"', 'Content-Length: 2', `Connection: ${name}`, 'X-Hop: 1'];
  const unique = lines.map((text) => text.replace('"hop"', `"hop-${name}"`));
  const answer = await rig.exchange(requestText('POST /a', { lines: unique, body: 'hi' }));
  expect(statusOf(answer)).toBe(200);
  const [sent] = rig.legacy.requests;
  const value = line.slice(line.indexOf(':') + 2).replace('"hop"', `"hop-${name}"`);
  expect(headerOf(sent ?? { headers: [] }, name)).toBe(value);
  expect(sent?.body).toBe('hi');
});

test('row 13: nor the Host, nor the coding of a chunked body', async () => {
  const lines = ['Connection: Host, Transfer-Encoding', 'Transfer-Encoding: chunked'];
  await rig.exchange(requestText('POST /a', { lines, body: '2\r\nhi\r\n0\r\n\r\n' }));
  const [sent] = rig.legacy.requests;
  expect(sent?.body).toBe('hi');
  expect(headerOf(sent ?? { headers: [] }, 'host')).toBe(`127.0.0.1:${rig.legacy.port}`);
});

test('row 13: nor what the proxy itself says to the store', async () => {
  const names = ['Onewriter-Partition', 'Onewriter-Epoch', 'Onewriter-Access', 'Onewriter-Signature'];
  const way = ['X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host'];
  await rig.exchange(
    requestText('POST /a', { lines: [`Connection: ${[...names, ...way].join(', ')}`, 'Content-Length: 0'] }),
  );
  const [sent] = rig.legacy.requests;
  expect(headerOf(sent ?? { headers: [] }, 'onewriter-partition')).toBe('ann');
  expect(headerOf(sent ?? { headers: [] }, 'onewriter-access')).toBe('write');
  for (const name of way) expect(headerOf(sent ?? { headers: [] }, name)).toBeDefined();
});

test('row 13: a request is judged with the fields that Connection names', async () => {
  // Held: by the partition that it names, although the field is named for removal.
  const fence = await rig.fence('org1');
  const client = await rig.connect();
  client.send(requestText('POST /a', { lines: ['X-Org: org1', 'Connection: X-Org', 'Content-Length: 0'] }));
  await rig.settled();
  expect([client.received, rig.legacy.bytes]).toEqual(['', '']);
  await fence.reopen();
  expect(statusOf(await client.answer())).toBe(200);
  expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'onewriter-partition')).toBe('org1');
});

// --- answers -------------------------------------------------------------------------------------------

test.each([
  [['Connection: keep-alive', 'Keep-Alive: timeout=5']],
  [['Connection: X-Hop', 'X-Hop: 1']],
  [['Connection: close, X-A ,X-B', 'x-a: 1', 'X-B: 2']],
  [['Connection: X-A', 'X-A: 1', 'Connection: X-B', 'X-B: 2']],
  [['Proxy-Authenticate: Basic realm="a"']],
  [['Proxy-Connection: keep-alive']],
  [['Upgrade: h2c']],
  [['Connection: upgrade', 'Upgrade: h2, h2c']],
  [['TE: trailers']],
  [['Onewriter-Store: app', 'oneWRITER-Epoch: 9']],
])('row 13: %j of an answer ends at the proxy', async (lines) => {
  rig.legacy.answer = (_request, socket) =>
    void socket.write(['HTTP/1.1 200 OK', ...lines, 'X-Kept: 1', 'Content-Length: 2', '', 'ok'].join('\r\n'));
  const answer = await rig.exchange(requestText('GET /a'));
  expect(answer.body).toBe('ok');
  expect(
    answer.headers.filter((line) => !/^(connection: keep-alive|keep-alive: timeout=65)$/i.test(line)),
  ).toEqual(['X-Kept: 1', 'Content-Length: 2']);
});

test('row 13: an answer cannot have its length taken away by Connection', async () => {
  rig.legacy.answer = (_request, socket) =>
    void socket.write('HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok');
  const answer = await rig.exchange(requestText('GET /a'));
  expect([answer.body, headerOf(answer, 'content-length')]).toEqual(['ok', '2']);
});

// --- connections ---------------------------------------------------------------------------------------

test.each(['1.1', '1.0'])(
  'row 13: clients that close (HTTP/%s) share one connection to the store',
  async (version) => {
    for (const path of ['/1', '/2', '/3', '/4', '/5']) {
      const client = await rig.connect();
      client.send(`GET ${path} HTTP/${version}\r\nHost: h\r\nx-user: ann\r\nConnection: close\r\n\r\n`);
      const received = await client.toTheEnd();
      expect(received).toMatch(/^HTTP\/1\.1 200 [^]*\r\nConnection: close\r\n\r\nok$/);
    }
    expect(rig.legacy.requests).toHaveLength(5);
    expect(rig.legacy.connections).toBe(1);
  },
);

test('row 13: a store that closes does not end the connection of its client', async () => {
  rig.legacy.answer = (_request, socket) =>
    void socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok');
  const client = await rig.connect();
  for (const path of ['/1', '/2', '/3']) {
    client.send(requestText(`POST ${path}`, { lines: ['Content-Length: 0'] }));
    const answer = await client.answer();
    expect([answer.body, headerOf(answer, 'connection')]).toEqual(['ok', 'keep-alive']);
  }
  expect(rig.legacy.connections).toBe(3);
});

test('row 13: HTTP/1.0 keeps its connection where it asks for it', async () => {
  const client = await rig.connect();
  for (const path of ['/1', '/2']) {
    client.send(`GET ${path} HTTP/1.0\r\nx-user: ann\r\nConnection: keep-alive\r\n\r\n`);
    const answer = await client.answer();
    expect([answer.body, headerOf(answer, 'connection')]).toEqual(['ok', 'keep-alive']);
  }
});
