/** Routes by what stands in the body, on real sockets: where a request goes, and that its bytes stay what they are. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { openKeys } from '../support/idempotency.ts';
import { knowing, TestService } from '../support/identity.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: ProxyRig;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => server.stop());
afterEach(async () => rig.stop());

const limit = 1_048_576;
const json = 'Content-Type: application/json';
const routes = [
  { path: '/pinned', body: { kind: 'session' }, store: 'app', anonymous: true },
  { path: '/search', methods: ['POST'], access: 'read' },
  { path: '/parse/*', body: { _method: 'GET' }, access: 'read' },
  { path: '/graphql', graphql: true },
  { path: '/owned', partition: 'body.owner' },
  { path: '/by-query', partition: 'query.owner' },
  { path: '/tagged', headers: { 'X-Tag': 'blue' }, store: 'app' },
  { path: '/named', host: '*.example.org', store: 'app' },
];

interface Sent {
  readonly target: string;
  readonly headers?: readonly string[];
  readonly method?: string;
  readonly body?: string;
  /** Sizes of the chunks; left out: by length. */
  readonly chunks?: readonly number[];
}

function bytesOf({ target, headers = [json], method = 'POST', body = '', chunks }: Sent): string {
  const framing = chunks === undefined ? `Content-Length: ${body.length}` : 'Transfer-Encoding: chunked';
  const lines = [`${method} ${target} HTTP/1.1`, 'Host: h', 'x-user: ann', ...headers, framing];
  return `${lines.join('\r\n')}\r\n\r\n${chunks === undefined ? body : chunked(body, chunks)}`;
}

function chunked(body: string, sizes: readonly number[]): string {
  const parts: string[] = [];
  let at = 0;
  for (let turn = 0; at < body.length; turn += 1) {
    const part = body.slice(at, at + (sizes[turn % sizes.length] ?? 1));
    parts.push(`${part.length.toString(16)}\r\n${part}\r\n`);
    at += part.length;
  }
  return `${parts.join('')}0\r\n\r\n`;
}

const send = async (sent: Sent): Promise<RawMessage> => exchange(rig.port, bytesOf(sent));
const codeOf = (message: RawMessage): unknown => (JSON.parse(message.body) as { code: unknown }).code;
const accessSeen = (): unknown[] => rig.app.requests.map((request) => headerOf(request, 'onewriter-access'));
/** Everything of ann's lives in the app, which is told how each request was taken. */
async function startInApp(more: Parameters<typeof startRig>[0] = {}): Promise<void> {
  rig = await startRig({ ...more, config: { routes, flip: { holdMs: 20_000 }, ...more.config } });
  for (const partition of ['ann', 'bob']) {
    rig.gate.fence(partition, 'app');
    rig.gate.order(partition, { kind: 'commit', attempt: 'a' });
    rig.gate.order(partition, { kind: 'release', attempt: 'a' });
  }
}

describe('a body that decides', () => {
  test('reaches the store byte for byte, whatever its framing and type', async () => {
    await startInApp();
    const body = ' {"_method" : "GET",\r\n "x":"\\u00e9 \u00c3\u00a9", "owner":"ann"}\n';
    for (const target of ['/parse/x', '/search', '/graphql', '/owned']) {
      for (const chunks of [undefined, [1], [7, 3]]) {
        const sent = { target, body, ...(chunks === undefined ? {} : { chunks }) };
        expect([target, chunks, statusOf(await send(sent))]).toEqual([target, chunks, 200]);
      }
    }
    expect(new Set(rig.app.requests.map((request) => request.body))).toEqual(new Set([body]));
    expect(rig.app.requests.length).toBe(12);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('makes the request what it is: a search, a query, somebody else\u2019s record', async () => {
    await startInApp();
    const sent: [target: string, body: string, access: string][] = [
      ['/parse/x', '{"_method":"GET"}', 'read'],
      ['/parse/x', '{"_method":"DELETE"}', 'write'],
      ['/search', '{"q":1}', 'read'],
      ['/search', '{"q":1,"_method":"PUT"}', 'write'],
      ['/graphql', '{"query":"{ a }"}', 'read'],
      ['/graphql', '{"query":"mutation { a }"}', 'write'],
      ['/owned', '{"owner":"bob"}', 'write'],
      ['/by-query?owner=bob', '{}', 'write'],
    ];
    for (const [target, body] of sent) expect(statusOf(await send({ target, body }))).toBe(200);
    expect(accessSeen()).toEqual(sent.map(([, , access]) => access));
    expect(rig.app.requests.map((request) => headerOf(request, 'onewriter-partition'))).toEqual([
      ...Array.from({ length: 6 }, () => 'ann'),
      ...['bob', 'bob'],
    ]);
  });

  test('lets a read through a fence, while the write at the same path is held', async () => {
    rig = await startRig({ config: { routes, flip: { holdMs: 20_000 } } });
    rig.gate.fence('ann', 'app');
    const writer = await RawClient.open(rig.port);
    const write = { target: '/graphql', body: '{"query":"mutation { a }"}' };
    writer.send(bytesOf(write));
    await until('the write is held', () => rig.proxy.counters().holding === 1);
    expect(statusOf(await send({ target: '/graphql', body: '{"query":"{ a }"}' }))).toBe(200);
    rig.gate.order('ann', { kind: 'commit', attempt: 'a' });
    rig.gate.order('ann', { kind: 'release', attempt: 'a' });
    expect(statusOf(await writer.answer())).toBe(200);
    expect(rig.app.requests.map(({ body }) => body)).toEqual([write.body]);
    expect(rig.legacy.requests.map(({ body }) => body)).toEqual(['{"query":"{ a }"}']);
    writer.close();
  });

  test('over the limit does not match and is a write, and not a byte of it is lost', async () => {
    await startInApp();
    const body = `{"_method":"GET","x":"${'0123456789abcdef'.repeat(90_000)}"}`;
    expect(body.length).toBeGreaterThan(limit);
    for (const chunks of [undefined, [100_000], [5_000_000]]) {
      for (const target of ['/parse/x', '/search', '/graphql']) {
        expect(statusOf(await send({ target, body, ...(chunks && { chunks }) }))).toBe(200);
      }
    }
    expect(rig.app.requests.length).toBe(9);
    expect(rig.app.requests.every((request) => request.body === body)).toBe(true);
    expect(new Set(accessSeen())).toEqual(new Set(['write']));
  }, 20_000);

  test('with more members than are looked at does not match and is a write, and names no partition', async () => {
    await startInApp();
    const members = (count: number): string =>
      Array.from({ length: count }, (_, at) => `,"m${at}":1`).join('');
    const pairs = (count: number): string => Array.from({ length: count }, (_, at) => `p${at}=1`).join('&');
    const form = 'Content-Type: application/x-www-form-urlencoded';
    const sent: [target: string, type: string, body: string, access: string][] = [
      ['/parse/x', json, `{"_method":"GET"${members(9_000)}}`, 'read'],
      ['/parse/x', json, `{"_method":"GET"${members(10_001)}}`, 'write'],
      ['/search', json, `{"q":{"a":1${members(30_000)}}}`, 'read'],
      ['/search', json, `{"q":1${members(10_001)}}`, 'write'],
      ['/search', form, pairs(9_000), 'read'],
      ['/search', form, pairs(10_001), 'write'],
      ['/owned', json, `{"owner":"bob"${members(9_000)}}`, 'write'],
    ];
    for (const [target, type, body] of sent) {
      expect(statusOf(await send({ target, headers: [type], body }))).toBe(200);
    }
    expect(accessSeen()).toEqual(sent.map(([, , , access]) => access));
    expect(rig.app.requests.map(({ body }) => body)).toEqual(sent.map(([, , body]) => body));
    const refused = await send({ target: '/owned', body: `{"owner":"bob"${members(10_001)}}` });
    expect([statusOf(refused), codeOf(refused)]).toEqual([400, 'no-partition']);
    expect(rig.app.requests.length).toBe(sent.length);
  }, 20_000);

  test('over the limit still takes its Idempotency-Key to the store with all its bytes', async () => {
    const keys = await openKeys(server);
    try {
      await startInApp({ keys: keys.keys });
      const body = `{"x":"${'y'.repeat(limit)}"}`;
      const sent = { target: '/parse/x', headers: [json, 'Idempotency-Key: k'], body, chunks: [70_000] };
      expect(statusOf(await send(sent))).toBe(200);
      const again = await send(sent);
      expect([statusOf(again), headerOf(again, 'idempotency-replayed')]).toEqual([200, 'true']);
      expect(rig.app.requests.map((request) => request.body === body)).toEqual([true]);
    } finally {
      keys.close();
    }
  });

  test('is asked for once where the client waits to be asked', async () => {
    await startInApp();
    const client = await RawClient.open(rig.port);
    const long = `{"x":"${'y'.repeat(limit)}"}`;
    for (const [body, chunks] of [['{"_method":"GET"}'], [long, [90_000]]] as const) {
      const headers = [json, 'Expect: 100-continue'];
      const whole = bytesOf({ target: '/parse/x', headers, body, ...(chunks && { chunks }) });
      const headEnd = whole.indexOf('\r\n\r\n') + 4;
      client.received = '';
      client.send(whole.slice(0, headEnd));
      await client.until(() => client.received.includes('100 Continue'));
      client.send(whole.slice(headEnd));
      await client.until(() => client.received.endsWith('ok'));
      expect(client.received.match(/100 Continue/g)).toHaveLength(1);
      expect(rig.app.requests.at(-1)?.body === body).toBe(true);
    }
    client.close();
  });

  test('can say what the request is and who it is from, and is asked for once', async () => {
    const service = await TestService.start(knowing({ '{"_SessionToken":"r:abc"}': 'ann' }, 'body'));
    const introspect = { url: service.url, user: 'data.id' };
    await startInApp({ config: { identity: [{ body: '_SessionToken', introspect }] } });
    const body = '{"_method":"GET","_SessionToken":"r:abc"}';
    const client = await RawClient.open(rig.port);
    const whole = bytesOf({ target: '/parse/x', headers: [json, 'Expect: 100-continue'], body });
    client.send(whole.slice(0, -body.length));
    await client.until(() => client.received.includes('100 Continue'));
    client.send(body);
    await client.until(() => client.received.endsWith('ok'));
    client.close();
    await service.stop();
    expect(client.received.match(/100 Continue/g)).toHaveLength(1);
    expect(rig.app.requests.map((request) => request.body)).toEqual([body]);
    expect(accessSeen()).toEqual(['read']);
  });

  test('that does not arrive, or finds no room, is refused and nothing is sent', async () => {
    await startInApp({ limits: { inspectMs: 50, inspectedBytes: 100 } });
    const late = await RawClient.open(rig.port);
    late.send(bytesOf({ target: '/search', body: 'xxxxx' }).slice(0, -1));
    const slow = await late.answer();
    expect([statusOf(slow), codeOf(slow)]).toEqual([408, 'request-timeout']);
    late.close();
    const full = await send({ target: '/search', body: `{"a":"${'x'.repeat(200)}"}` });
    expect([statusOf(full), codeOf(full)]).toEqual([503, 'body-unavailable']);
    expect(headerOf(full, 'retry-after')).toBe('1');
    expect(JSON.parse(full.body)).toMatchObject({ sent: 'no' });
    expect(rig.app.requests.length + rig.legacy.requests.length).toBe(0);
  });

  test('of a client that goes away while it is read leaves nothing behind', async () => {
    await startInApp({ limits: { inspectedBytes: 1_000 } });
    const client = await RawClient.open(rig.port);
    client.send(bytesOf({ target: '/search', body: `{"a":"${'x'.repeat(900)}"}` }).slice(0, -1));
    const fits = { target: '/search', body: `{"a":"${'x'.repeat(800)}"}` };
    await until('the room is taken', async () => statusOf(await send(fits)) === 503);
    client.close();
    await until('the room is free again', async () => statusOf(await send(fits)) === 200);
  });
});

describe('a request that readers take differently', () => {
  test('is refused by name and reaches nobody', async () => {
    await startInApp();
    for (const sent of [
      { target: '/parse/x', body: '{"_method":"GET","_method":"PUT"}' },
      { target: '/tagged', headers: ['X-Tag: blue', 'X-Tag: red'] },
    ]) {
      const answer = await send(sent);
      expect([statusOf(answer), codeOf(answer)]).toEqual([400, 'ambiguous-route']);
    }
    const twice = await send({ target: '/by-query?owner=bob&owner=ann' });
    expect([statusOf(twice), codeOf(twice)]).toEqual([400, 'no-partition']);
    expect(rig.app.requests.length + rig.legacy.requests.length).toBe(0);
  });
});

describe('a route by its head', () => {
  test('is found by header and host', async () => {
    rig = await startRig({ config: { routes } });
    await send({ target: '/tagged', headers: ['x-TAG: blue'] });
    await send({ target: '/tagged', headers: ['X-Tag: red'] });
    const named = bytesOf({ target: '/named' }).replace('Host: h', 'Host: a.example.org:80');
    await exchange(rig.port, named);
    await send({ target: '/named' });
    const targets = (requests: readonly RawMessage[]): string[] =>
      requests.map(({ startLine }) => startLine.split(' ')[1] ?? '');
    expect(targets(rig.app.requests)).toEqual(['/tagged', '/named']);
    expect(targets(rig.legacy.requests)).toEqual(['/tagged', '/named']);
  });

  test('shows the store the header that it was found by, and no second spelling of it', async () => {
    rig = await startRig({ config: { routes } });
    await send({ target: '/tagged', headers: ['X-Tag: blue', 'X_Tag: red', 'Connection: x-tag'] });
    const [request] = rig.app.requests;
    expect(request?.headers.filter((line) => /^x.tag/i.test(line))).toEqual(['X-Tag: blue']);
  });
});

test('whatever body is sent, however it is framed, the store gets the same bytes', async () => {
  await startInApp();
  const text = fc.oneof(
    fc.json(),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc.json().map((value) => `{"_method":"GET","owner":"ann","query":${value}}`),
  );
  const latin1 = text.map((body) => Buffer.from(body).toString('latin1'));
  const sizes = fc.option(fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 4 }));
  const target = fc.constantFrom('/parse/x', '/search', '/graphql', '/plain');
  const type = fc.constantFrom('application/json', 'application/x-www-form-urlencoded', 'a/b', 'text/plain');
  await fc.assert(
    fc.asyncProperty(latin1, sizes, target, type, async (body, chunks, to, kind) => {
      const before = rig.app.requests.length;
      const headers = [`Content-Type: ${kind}`];
      const answer = await send({ target: to, headers, body, ...(chunks && { chunks }) });
      if (statusOf(answer) === 400) expect(codeOf(answer)).toBe('ambiguous-route');
      else expect(rig.app.requests.slice(before).map((request) => request.body)).toEqual([body]);
    }),
    { numRuns: 150 },
  );
});
