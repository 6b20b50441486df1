/** What an observing proxy writes down: the same judgement that an enforcing proxy would make of the same request. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Observation } from '../../src/core/observation.ts';
import { type ObserveRig, startObserveRig } from '../support/observe.ts';
import { startRig } from '../support/proxy.ts';
import { exchange, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

const config = {
  identity: [
    { header: 'x-user', from: ['127.0.0.0/8'] },
    { header: 'x-gate', from: ['10.0.0.0/8'] },
    { body: '_session', bodyBytesMax: 2_000_000, from: ['127.0.0.0/8'] },
  ],
  partition: [{ header: 'x-org' }, { by: 'user' }],
  routes: [
    { path: '/login', store: 'app', anonymous: true },
    { path: '/status', store: 'legacy' },
    { methods: ['POST'], path: '/search', access: 'read' },
    { path: '/calendars/:owner/*', partition: 'path.owner' },
    { path: '/graphql', graphql: true },
    { path: '/rpc', body: { method: 'list' }, access: 'read' },
    { path: '/rpc' },
    { path: '/one', query: { a: '1' }, access: 'read' },
    { path: '/bulk', partition: 'body.owner' },
    { path: '/batch', partitions: ['body.requests[*].owner'] },
  ],
};

const lines = (...all: string[]): string => `${all.join('\r\n')}\r\n\r\n`;
const post = (path: string, body: string, ...headers: string[]): string =>
  lines(`POST ${path} HTTP/1.1`, 'Host: h', ...headers, `Content-Length: ${Buffer.byteLength(body)}`) + body;
const json = 'Content-Type: application/json';
const u1 = 'X-User: u1';
const owner = { do: 'forward', store: 'legacy', because: 'owner' } as const;
const refuse = (code: string): unknown => ({ do: 'refuse', code });

const kinds: readonly (readonly [request: string, seen: Partial<Record<keyof Observation, unknown>>])[] = [
  [
    lines('GET /api/items/7 HTTP/1.1', 'Host: h', u1),
    {
      access: 'read',
      accessBy: 'method',
      would: owner,
      user: 'u1',
      identity: 'header',
      partitions: ['u1'],
      partitionBy: 'user',
      route: null,
      path: '/api/items/:id',
    },
  ],
  [
    lines('DELETE /api/orgs/acme HTTP/1.1', 'Host: h', u1, 'X-Org: acme'),
    { access: 'write', partitions: ['acme'], partitionBy: 'header.x-org', path: '/api/orgs/:partition' },
  ],
  [
    lines('PUT /calendars/anna/work/1 HTTP/1.1', 'Host: h', u1),
    {
      partitions: ['anna'],
      partitionBy: 'path.owner',
      route: { index: 3, path: '/calendars/:owner/*' },
      path: '/calendars/:owner/work/:id',
    },
  ],
  [post('/search', '{}', u1, json), { access: 'read', accessBy: 'route', would: owner }],
  [
    post('/search?_method=DELETE', '{}', u1, json),
    { access: 'write', accessBy: 'override', path: '/search' },
  ],
  [post('/graphql', '{"query":"{ a }"}', u1, json), { access: 'read', accessBy: 'graphql' }],
  [post('/graphql', '{"query":"mutation { a }"}', u1, json), { access: 'write', accessBy: 'graphql' }],
  [
    post('/rpc', '{"method":"list"}', u1, json),
    { access: 'read', accessBy: 'route', route: { index: 5, path: '/rpc' } },
  ],
  [
    post('/rpc', '{"method":', u1, json),
    { access: 'write', accessBy: 'unread', route: { index: 6, path: '/rpc' } },
  ],
  [post('/bulk', '{"owner":"o1"}', u1, json), { partitions: ['o1'], partitionBy: 'body.owner' }],
  [post('/bulk', '{"owner":"o1"}', u1, 'Content-Type: image/png'), { would: refuse('no-partition') }],
  [post('/bulk', '{"owner":"o1","owner":"o2"}', u1, json), { partitions: [], would: refuse('no-partition') }],
  [
    post('/batch', '{"requests":[{"owner":"o1"},{"owner":"o2"}]}', u1, json),
    { partitions: ['o1', 'o2'], partitionBy: 'body.requests[*].owner', access: 'write' },
  ],
  [post('/api/items', '{"_session":"s9"}', json), { identity: 'body', user: 's9', would: owner }],
  [
    post('/api/items', `{"_session":"s9","x":"${'x'.repeat(2_000_000)}"}`, json),
    { identity: 'unavailable', would: refuse('body-too-large') },
  ],
  [
    post('/login', 'a=1', 'X-Gate: forged'),
    { identity: 'not-asked', would: { do: 'forward', store: 'app', because: 'pinned' } },
  ],
  [
    lines('GET /status HTTP/1.1', 'Host: h', u1),
    { identity: 'header', partitions: [], would: { do: 'forward', store: 'legacy', because: 'pinned' } },
  ],
  [
    lines('GET /api/items HTTP/1.1', 'Host: h'),
    { identity: 'none', user: null, would: { do: 'forward', store: 'legacy', because: 'anonymous-read' } },
  ],
  [post('/api/items', ''), { identity: 'none', would: refuse('no-identity') }],
  [post('/api/items', '', 'X-Gate: u1'), { identity: 'wrong', would: refuse('untrusted-peer') }],
  [post('/api/items', '', u1, 'X-User: u2'), { identity: 'wrong', would: refuse('bad-credential') }],
  [
    post('/api/items', '', u1, 'Idempotency-Key: a', 'Idempotency-Key: b'),
    { would: refuse('idempotency-key-invalid') },
  ],
  [lines('GET /one?a=1&a=2 HTTP/1.1', 'Host: h', u1), { access: null, would: refuse('ambiguous-route') }],
  [
    lines('GET /a/../b HTTP/1.1', 'Host: h', u1),
    { identity: 'not-asked', access: null, would: refuse('bad-target') },
  ],
  [lines('GET /.well-known/onewriter/guard/verdict HTTP/1.1', 'Host: h', u1), { would: refuse('no-route') }],
  [lines('TRACE /a HTTP/1.1', 'Host: h', u1), { would: refuse('method-not-allowed') }],
  [
    lines('POST /a HTTP/1.1', 'Host: h', u1, 'Transfer-Encoding: gzip, chunked') + '0\r\n\r\n',
    { would: refuse('bad-framing') },
  ],
  [lines('OPTIONS * HTTP/1.1', 'Host: h'), { would: { do: 'answer' } }],
];

let observing: ObserveRig;

beforeAll(async () => {
  observing = await startObserveRig({ config });
});

afterAll(async () => observing.stop());

test.each(
  kinds.map(
    ([request, seen], at) => [request.slice(0, 70).replaceAll('\r\n', ' | '), request, seen, at] as const,
  ),
)('%s', async (_what, request, seen, at) => {
  expect(statusOf(await exchange(observing.port, request))).toBe(200);
  const noted = (await observing.noted(at + 1))[at];
  expect(noted).toMatchObject(seen);
  expect(noted).toMatchObject({ ended: 'answered', status: 200, tooSlow: false });
});

test('an enforcing proxy under the same rules does what was written down', async () => {
  const enforcing = await startRig({ config });
  const noted = await observing.noted(kinds.length);
  for (const [at, [request]] of kinds.entries()) {
    const would = noted[at]?.would;
    // Without Redis, an enforcing proxy does not look at keys.
    if (would?.do === 'refuse' && would.code === 'idempotency-key-invalid') continue;
    const before = { legacy: enforcing.legacy.requests.length, app: enforcing.app.requests.length };
    const answer = await exchange(enforcing.port, request);
    const sent = {
      legacy: enforcing.legacy.requests.length - before.legacy,
      app: enforcing.app.requests.length - before.app,
    };
    if (would?.do === 'refuse') {
      expect([at, sent, (JSON.parse(answer.body) as { code: string }).code]).toEqual([
        at,
        { legacy: 0, app: 0 },
        would.code,
      ]);
    } else if (would?.do === 'forward') {
      const { store } = would;
      expect([at, sent]).toEqual([at, { legacy: store === 'legacy' ? 1 : 0, app: store === 'app' ? 1 : 0 }]);
    } else expect([at, sent, statusOf(answer)]).toEqual([at, { legacy: 0, app: 0 }, 204]);
  }
  await enforcing.stop();
});

test('the app was sent nothing by the observing proxy, and legacy everything once', () => {
  expect(observing.app.bytes).toBe('');
  expect(observing.legacy.requests).toHaveLength(kinds.length);
});

describe('beside the judgement', () => {
  test('users and partitions stand as hashes of one key, and the path does not give them away', async () => {
    const rig = await startObserveRig({ config, proxy: { observe: { users: 'hash' } } });
    for (const path of ['/users/anna', '/calendars/anna/x']) {
      await exchange(rig.port, lines(`GET ${path} HTTP/1.1`, 'Host: h', 'X-User: anna'));
    }
    const [first, second] = await rig.noted(2);
    expect(first?.user).toMatch(/^h:[0-9a-f]{16}$/);
    expect([first?.partitions, second?.partitions]).toEqual([[first?.user], [first?.user]]);
    expect([first?.path, second?.path]).toEqual(['/users/:user', '/calendars/:owner/x']);
    await rig.stop();
  });

  test('a partition that stands in the directory is looked up by enforcing; here Redis is not asked', async () => {
    const rig = await startObserveRig({ config: { partition: [{ directory: true }, { by: 'user' }] } });
    await exchange(rig.port, lines('GET /a HTTP/1.1', 'Host: h', u1));
    expect(await rig.noted(1)).toMatchObject([
      { would: { do: 'look-up' }, partitions: [], partitionBy: null },
    ]);
    await rig.stop();
  });

  test('what took longer than enforcing gives it is marked', async () => {
    const rig = await startObserveRig({
      legacy: { writeTimeoutMs: 1, readTimeoutMs: 1 },
      answer: (request, socket) => {
        const answer = (): void => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
        if (request.startLine.includes('/slow')) setTimeout(answer, 20);
        else answer();
      },
      limits: { bodyMs: 0 },
      config,
    });
    await exchange(rig.port, lines('PUT /slow HTTP/1.1', 'Host: h', u1));
    await exchange(rig.port, lines('GET /slow HTTP/1.1', 'Host: h', u1));
    const client = await RawClient.open(rig.port);
    client.send(lines('POST /bulk HTTP/1.1', 'Host: h', u1, json, 'Content-Length: 2'));
    await until('legacy has its head', () => rig.legacy.bytes.includes('/bulk'));
    client.send('{}');
    await client.answer();
    client.close();
    const noted = await rig.noted(3);
    expect(noted.map(({ tooSlow }) => tooSlow)).toEqual([true, true, false]);
    expect(noted[2]?.would).toEqual({ do: 'refuse', code: 'request-timeout' });
    await rig.stop();
  });

  test('bodies that are looked into at a time are bounded together: the others are passed on unseen', async () => {
    const rig = await startObserveRig({ config, limits: { bodyBytes: 10 } });
    const body = '{"owner":"o1"}';
    expect((await exchange(rig.port, post('/bulk', body, u1, json))).body).toBe('ok');
    expect(rig.legacy.requests[0]?.body).toBe(body);
    expect(await rig.noted(1)).toMatchObject([{ would: { do: 'refuse', code: 'body-unavailable' } }]);
    await rig.stop();
  });

  test('rules that changed count from the next request on', async () => {
    const rig = await startObserveRig({ config: { routes: [] } });
    await exchange(rig.port, post('/search', '', u1));
    rig.observer.judgeUnder({ ...rig.config, routes: [{ path: '/search', access: 'read' }] });
    await exchange(rig.port, post('/search', '', u1));
    expect((await rig.noted(2)).map(({ access }) => access)).toEqual(['write', 'read']);
    await rig.stop();
  });
});
