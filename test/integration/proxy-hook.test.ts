/** A store with an API of its own behind a hook, byte for byte, between raw sockets. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { verifyGuard } from '../../src/guard/signature.ts';
import { loadHooks, type StoreHook } from '../../src/proxy/hook.ts';
import { type ProxyRig, rigSecret, startRig } from '../support/proxy.ts';
import { exchange, headerOf, type RawAnswer, RawClient, type RawMessage } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig | undefined;
afterEach(async () => rig?.stop());

type RigOptions = NonNullable<Parameters<typeof startRig>[0]>;

async function startHooked(
  hook: StoreHook,
  options: RigOptions & { readonly settings?: Record<string, unknown> } = {},
): Promise<ProxyRig> {
  const { settings, ...rest } = options;
  rig = await startRig({
    ...rest,
    hooks: { legacy: hook },
    legacy: { ...options.legacy, hook: { file: 'as-given.ts', ...settings } },
  });
  return rig;
}

const request = (method: string, target: string, body = '', ...headers: readonly string[]): string =>
  [
    `${method} ${target} HTTP/1.1`,
    'Host: shop.example',
    'x-user: ann',
    ...headers,
    ...(body === '' ? [] : [`Content-Length: ${body.length}`]),
    '',
    body,
  ].join('\r\n');

const answering =
  (status: string, body: string, ...headers: readonly string[]): RawAnswer =>
  (_request, socket) =>
    void socket.write(
      [`HTTP/1.1 ${status}`, ...headers, `Content-Length: ${body.length}`, '', body].join('\r\n'),
      'latin1',
    );

const problemIn = (answer: RawMessage): Record<string, unknown> =>
  JSON.parse(answer.body) as Record<string, unknown>;

/** An API of old: everything is a POST to one path, and errors come with status 200. */
const rpc: StoreHook = {
  readsBody: () => true,
  request: ({ method, target, body, user }) => ({
    method: 'POST',
    target: '/rpc',
    headers: [['Content-Type', 'application/json']],
    body: Buffer.from(JSON.stringify({ call: `${method} ${target}`, as: user, with: String(body ?? '') })),
  }),
  readsAnswerBody: () => true,
  answer: ({ body }) => {
    const { error, result } = JSON.parse(String(body)) as { error?: string; result?: unknown };
    return error === undefined
      ? { body: Buffer.from(JSON.stringify(result)) }
      : { status: 422, body: Buffer.from(JSON.stringify({ title: error })) };
  },
};

describe('trailers of a request', () => {
  const chunked =
    'POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n';

  test.each([
    [
      'go on with the body that was looked at',
      { readsBody: () => true, request: () => ({}) },
      '2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n',
    ],
    ['go on with the body that was not', { request: () => ({}) }, '2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n'],
    [
      'end with the body that was replaced',
      { readsBody: () => true, request: () => ({ body: Buffer.from('yo!') }) },
      'yo!',
    ],
  ] as [string, StoreHook, string][])('%s', async (_name, hook, sent) => {
    const { port, legacy } = await startHooked(hook);
    expect((await exchange(port, chunked)).body).toBe('ok');
    expect(legacy.bytes.slice(legacy.bytes.indexOf('\r\n\r\n') + 4)).toBe(sent);
  });
});

describe('a hook that changes everything', () => {
  test('gives request and answer another form, framed rightly', async () => {
    const { port, legacy } = await startHooked(rpc, {
      answer: answering('200 Fine', '{"result":{"id":7}}', 'X-Kept: 1'),
    });
    const answer = await exchange(port, request('PUT', '/notes/7?x=%2f', 'hello', 'X-Dropped: 1'));
    const sent = JSON.stringify({ call: 'PUT /notes/7?x=%2f', as: 'ann', with: 'hello' });
    expect(legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
      ['POST /rpc HTTP/1.1', sent],
    ]);
    const headers = (legacy.requests[0]?.headers ?? []).map((line) => line.toLowerCase());
    expect(headers.filter((line) => /^(content|x-dropped)/.test(line)).toSorted()).toEqual([
      `content-length: ${sent.length}`,
      'content-type: application/json',
    ]);
    expect([
      answer.startLine,
      answer.body,
      headerOf(answer, 'x-kept'),
      headerOf(answer, 'content-length'),
    ]).toEqual(['HTTP/1.1 200 Fine', '{"id":7}', '1', '8']);
  });

  test('an answer may get another status', async () => {
    const { port } = await startHooked(rpc, { answer: answering('200 OK', '{"error":"taken"}') });
    const answer = await exchange(port, request('PUT', '/notes/7', 'hello'));
    expect([answer.startLine, answer.body]).toEqual([
      'HTTP/1.1 422 Unprocessable Entity',
      '{"title":"taken"}',
    ]);
  });

  test('a new body has its own length, where the headers stay those of the client', async () => {
    const { port, legacy } = await startHooked({
      readsBody: () => true,
      request: ({ body }) => ({ body: Buffer.from(`${String(body)}, and more`) }),
    });
    await exchange(port, request('PUT', '/a', 'hello'));
    const [sent] = legacy.requests;
    expect([sent?.body, sent?.headers.filter((line) => /^content-length/i.test(line)).length]).toEqual([
      'hello, and more',
      1,
    ]);
  });

  test('an answer may lose its body', async () => {
    const { port } = await startHooked(
      { readsAnswerBody: () => true, answer: () => ({ status: 204 }) },
      { answer: answering('200 OK', '{"done":true}') },
    );
    const client = await RawClient.open(port);
    client.send(request('DELETE', '/notes/7') + request('DELETE', '/notes/8'));
    for (const answer of [await client.answer(), await client.answer()]) {
      expect([answer.startLine, headerOf(answer, 'content-length')]).toEqual([
        'HTTP/1.1 204 No Content',
        undefined,
      ]);
    }
    client.close();
  });

  test('concerns its own store only', async () => {
    const { port, gate, app } = await startHooked(rpc);
    gate.move('ann', 'app');
    await exchange(port, request('PUT', '/notes/7', 'hello'));
    expect(app.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
      ['PUT /notes/7 HTTP/1.1', 'hello'],
    ]);
  });

  test("the store's own header changes come after it, and it never sees a credential they set", async () => {
    const seen: string[] = [];
    const { port, legacy } = await startHooked(
      { request: ({ headers }) => void seen.push(...headers.map(([name]) => name.toLowerCase())) },
      { legacy: { headers: { set: { Authorization: 'Bearer ours' }, remove: ['X-Tracking'] } } },
    );
    await exchange(port, request('GET', '/a', '', 'X-Tracking: 1', 'Connection: keep-alive'));
    expect(seen).toContain('x-tracking');
    expect(seen.filter((name) => /^(authorization|connection|host)$/.test(name))).toEqual([]);
    expect(headerOf(legacy.requests[0] ?? { headers: [] }, 'authorization')).toBe('Bearer ours');
    expect(headerOf(legacy.requests[0] ?? { headers: [] }, 'x-tracking')).toBeUndefined();
  });

  test('the guard gets a signature over the request that it sees', async () => {
    const { port, legacy } = await startHooked(rpc, {
      legacy: { guard: true },
      prefix: '/base',
      answer: answering('200 OK', '{"result":1}'),
    });
    await exchange(port, request('PUT', '/notes/7', 'hello', 'Onewriter-Epoch: 99'));
    const { headers = [], startLine = '' } = legacy.requests[0] ?? {};
    expect(startLine).toBe('POST /base/rpc HTTP/1.1');
    const fields = Object.fromEntries(
      headers.map((line) => [
        line.slice(0, line.indexOf(':')).toLowerCase(),
        line.slice(line.indexOf(':') + 2),
      ]),
    );
    const verdict = (method: string, target: string): unknown =>
      verifyGuard({
        ...{ method, target },
        headers: fields,
        secret: rigSecret,
        nowSeconds: Date.now() / 1000,
      }).ok;
    expect([verdict('POST', '/base/rpc'), verdict('PUT', '/notes/7')]).toEqual([true, false]);
  });
});

describe('a hook that asks for no body', () => {
  test('leaves both bodies streaming: the first bytes of an endless answer arrive at once', async () => {
    const { port } = await startHooked(
      { answer: async ({ headers }) => ({ headers: [...headers, ['X-Shaped', 'yes']] }) },
      {
        answer: (_request, socket) =>
          void socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n'),
      },
    );
    const client = await RawClient.open(port);
    client.send(request('GET', '/events'));
    await client.until(() => client.received.includes('first'));
    expect(client.received).toContain('X-Shaped: yes');
    client.close();
  });

  test('may change the head of a streamed upload', async () => {
    const { port, legacy } = await startHooked({ request: () => ({ target: '/elsewhere' }) });
    const body = 'x'.repeat(200_000);
    expect((await exchange(port, request('PUT', '/a', body))).startLine).toBe('HTTP/1.1 200 OK');
    expect(legacy.requests.map(({ startLine, body: sent }) => [startLine, sent.length])).toEqual([
      ['PUT /elsewhere HTTP/1.1', body.length],
    ]);
  });

  test('cannot replace one', async () => {
    const { port, legacy } = await startHooked({ request: () => ({ body: Buffer.from('mine') }) });
    const answer = await exchange(port, request('PUT', '/a', 'theirs'));
    expect([problemIn(answer)['code'], legacy.requests.length]).toEqual(['hook-failed', 0]);
  });
});

describe('answers without a body', () => {
  test.each([
    ['HEAD', '200 OK', 'Content-Length: 5'],
    ['GET', '204 No Content', 'X-None: 1'],
    ['GET', '304 Not Modified', 'ETag: "a"'],
  ])('to %s with %s stay without one', async (method, status, field) => {
    const { port } = await startHooked(
      { readsAnswerBody: () => true, answer: ({ body }) => ({ headers: [['X-Body', String(body)]] }) },
      { answer: (_request, socket) => void socket.write(`HTTP/1.1 ${status}\r\n${field}\r\n\r\n`) },
    );
    const client = await RawClient.open(port);
    client.send(request(method, '/a') + request(method, '/b'));
    const answers = [await client.answer({ bodyless: true }), await client.answer({ bodyless: true })];
    expect(answers.map((answer) => headerOf(answer, 'x-body'))).toEqual(['undefined', 'undefined']);
    client.close();
  });
});

describe('a hook that fails on a request', () => {
  test.each<[string, StoreHook]>([
    [
      'throws',
      {
        request: () => {
          throw new Error('secret of the hook');
        },
      },
    ],
    [
      'throws while it decides',
      {
        readsBody: () => {
          throw new Error('secret of the hook');
        },
        request: () => ({}),
      },
    ],
    [
      'rejects',
      {
        request: async () => {
          throw new Error('secret of the hook');
        },
      },
    ],
    ['never answers', { request: async () => new Promise<never>(() => {}) }],
    ['names a target of another host', { request: () => ({ target: 'http://elsewhere.example/' }) }],
    ['names a target with a line break', { request: () => ({ target: '/a\r\nX: 1' }) }],
    ['refuses with a status of its own', { request: () => ({ refuse: 500, detail: 'no' }) as object }],
    ['refuses without a word', { request: () => ({ refuse: 400 }) as object }],
    ['returns what is no change', { request: () => 'no' as unknown as object }],
    ['names no method', { request: () => ({ method: 'GET /' }) }],
    ['asks for an answer without its body', { request: () => ({ method: 'HEAD' }) }],
    ['frames the message', { request: () => ({ headers: [['Transfer-Encoding', 'chunked']] }) }],
    ['says what only onewriter says', { request: () => ({ headers: [['Onewriter_Epoch', '9']] }) }],
    ['splits a header', { request: () => ({ headers: [['X-A', '1\r\nX-B: 2']] }) }],
    [
      'gives text for a body',
      { readsBody: () => true, request: () => ({ body: 'text' as unknown as Buffer }) },
    ],
  ])('because it %s: nothing is sent, and the write is told so', async (_why, hook) => {
    const { port, legacy, gate, logged } = await startHooked(hook, { settings: { timeoutMs: 50 } });
    const answer = await exchange(port, request('PUT', '/a', 'hello'));
    expect(answer.startLine).toBe('HTTP/1.1 502 Bad Gateway');
    expect(problemIn(answer)).toMatchObject({
      code: 'hook-failed',
      sent: 'no',
      store: 'legacy',
      stage: 'hook',
    });
    expect(answer.body).not.toContain('secret of the hook');
    expect([legacy.connections, gate.endings]).toEqual([0, [{ partition: 'ann', outcome: 'not-sent' }]]);
    const [failed, ...more] = logged.filter(({ event }) => event === 'hook.failed');
    expect(more).toEqual([]);
    expect(failed?.fields).toMatchObject({ method: 'PUT', partition: 'ann', part: 'request' });
    // The proxy goes on.
    expect(
      (await exchange(port, 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: a\r\n\r\n')).startLine,
    ).toBe('HTTP/1.1 200 OK');
  });

  test('a body over the limit of all is refused with its number, and is no failure of the hook', async () => {
    const { port, legacy, logged } = await startHooked(rpc, { limits: { bodyBytes: 1_000 } });
    const head = 'PUT /a HTTP/1.1\r\nHost: a\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\n\r\n';
    const answer = await exchange(port, `${head}7d0\r\n${'x'.repeat(2_000)}\r\n0\r\n\r\n`);
    expect(answer.startLine).toBe('HTTP/1.1 413 Payload Too Large');
    expect(problemIn(answer)['detail']).toContain('proxy.limits.bodyBytes (1000)');
    expect([legacy.connections, logged.filter(({ event }) => event === 'hook.failed')]).toEqual([0, []]);
  });

  test.each([
    [400, 'HTTP/1.1 400 Bad Request', 'hook-cannot-read'],
    [422, 'HTTP/1.1 422 Unprocessable Entity', 'hook-refused'],
  ] as const)('may refuse with %i instead, in its own words', async (refuse, startLine, code) => {
    const hook: StoreHook = {
      readsBody: () => true,
      request: ({ body }) =>
        String(body) === 'good' ? undefined : { refuse, detail: 'The body is no JSON.' },
    };
    const { port, legacy, gate, logged } = await startHooked(hook);
    const answer = await exchange(port, request('PUT', '/a', 'nonsense'));
    expect(answer.startLine).toBe(startLine);
    expect(problemIn(answer)).toMatchObject({ code, detail: 'The body is no JSON.', sent: 'no' });
    expect([legacy.connections, gate.endings]).toEqual([0, [{ partition: 'ann', outcome: 'not-sent' }]]);
    expect(logged.filter(({ event }) => event === 'hook.failed')).toEqual([]);
    expect((await exchange(port, request('PUT', '/a', 'good'))).startLine).toBe('HTTP/1.1 200 OK');
  });

  test('a key that means nothing is named in the log', async () => {
    const routes = [{ path: '/:file' }];
    const { port, logged } = await startHooked(
      { request: () => ({ headerz: [] }) as object },
      { config: { routes } },
    );
    await exchange(port, request('PUT', '/a', 'hello'));
    const [failed] = logged.filter(({ event }) => event === 'hook.failed');
    expect(failed?.fields['error']).toMatch(/the key headerz, which means nothing/);
    expect(failed?.fields['route']).toBe('/:file');
  });

  test('a body over the limit is refused, and nothing is sent', async () => {
    const { port, legacy } = await startHooked(rpc, { settings: { bodyBytes: 100_000 } });
    const answer = await exchange(port, request('PUT', '/a', 'x'.repeat(200_000)));
    expect(answer.startLine).toBe('HTTP/1.1 413 Payload Too Large');
    expect(problemIn(answer)).toMatchObject({ code: 'body-too-large', sent: 'no' });
    expect(legacy.connections).toBe(0);
  });

  test('what all bodies together may take is given back', async () => {
    const { port } = await startHooked(rpc, {
      limits: { hookedBytes: 150_000 },
      answer: answering('200 OK', '{"result":1}'),
    });
    for (let round = 0; round < 4; round += 1) {
      const answer = await exchange(port, request('PUT', '/a', 'x'.repeat(100_000)));
      expect([answer.startLine, answer.body]).toEqual(['HTTP/1.1 200 OK', '1']);
    }
  });

  test('a client that goes away while its hook waits leaves nothing behind', async () => {
    let asked = 0;
    const { port, legacy, gate, proxy } = await startHooked(
      { request: async () => new Promise<never>(() => void (asked += 1)) },
      { settings: { timeoutMs: 60_000 } },
    );
    const client = await RawClient.open(port);
    client.send(request('PUT', '/a', 'hello'));
    await until('the hook is asked', () => asked === 1);
    client.close();
    await until('the write has ended', () => gate.endings.length === 1);
    expect(gate.endings).toEqual([{ partition: 'ann', outcome: 'not-sent' }]);
    expect([legacy.connections, proxy.counters().underWay]).toEqual([0, 0]);
  });
});

describe('a hook that fails on an answer', () => {
  test.each<[string, StoreHook]>([
    [
      'throws',
      {
        answer: () => {
          throw new Error('secret of the hook');
        },
      },
    ],
    [
      'throws while it decides',
      {
        readsAnswerBody: () => {
          throw new Error('no');
        },
        answer: () => ({}),
      },
    ],
    ['never answers', { answer: async () => new Promise<never>(() => {}) }],
    ['returns a key that means nothing', { answer: () => ({ headerz: [] }) as object }],
    ['makes an interim answer of it', { answer: () => ({ status: 100 }) }],
    ['splits a header', { answer: () => ({ headers: [['X-A', '1\r\n\r\nbody']] }) }],
    ['replaces a body that it did not ask for', { answer: () => ({ body: Buffer.from('b') }) }],
  ])(
    'because it %s: a write was sent and is in doubt, and the next answer is its own',
    async (_why, hook) => {
      const { port, gate, doubted } = await startHooked(hook, { settings: { timeoutMs: 50 } });
      const answer = await exchange(port, request('PUT', '/a', 'hello'));
      expect(problemIn(answer)).toMatchObject({
        ...{ code: 'hook-failed', sent: 'yes', store: 'legacy' },
        title: 'The request or its answer could not be given the form of the other side',
      });
      expect(answer.body).not.toContain('secret of the hook');
      expect(gate.endings).toEqual([{ partition: 'ann', outcome: 'in-doubt' }]);
      expect(doubted).toHaveLength(1);
    },
  );

  test('an answer longer than the limit is not given on in part', async () => {
    const { port } = await startHooked(
      { readsAnswerBody: () => true, answer: () => ({}) },
      { settings: { bodyBytes: 1_000 }, answer: answering('200 OK', 'x'.repeat(5_000)) },
    );
    const answer = await exchange(port, request('GET', '/a'));
    expect([answer.startLine, problemIn(answer)['code']]).toEqual([
      'HTTP/1.1 502 Bad Gateway',
      'hook-failed',
    ]);
  });

  test('the store is not left sending what nobody reads', async () => {
    const { port, legacy } = await startHooked(
      {
        answer: () => {
          throw new Error('no');
        },
      },
      {
        answer: (_request, socket) =>
          void socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n'),
      },
    );
    await exchange(port, request('GET', '/events'));
    await until('its connection is closed', () => legacy.sockets.size === 0);
    expect(legacy.connections).toBe(1);
  });

  test('a store that breaks off while its answer is read breaks off at the client, too', async () => {
    const { port } = await startHooked(
      { readsAnswerBody: () => true, answer: () => ({}) },
      {
        answer: (_request, socket) => {
          socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf', () => socket.destroy());
        },
      },
    );
    const answer = await exchange(port, request('GET', '/a'));
    expect([answer.startLine, problemIn(answer)['code']]).toEqual([
      'HTTP/1.1 502 Bad Gateway',
      'upstream-failed',
    ]);
  });
});

describe('the module of a hook', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'onewriter-hook-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const load = async (text: string): Promise<unknown> => {
    const file = join(directory, 'shape.ts');
    writeFileSync(file, text);
    const { config } = await import('../support/proxy.ts').then(({ configOf }) => ({
      config: configOf({
        stores: { legacy: { url: 'http://127.0.0.1:1', hook: { file } }, app: { url: 'http://127.0.0.1:1' } },
      }),
    }));
    return loadHooks(config);
  };

  test('may be TypeScript', async () => {
    const hooks = await load(
      'export const hook = { request: (asked: { target: string }) => ({ target: asked.target }) };',
    );
    expect(hooks).toEqual({ legacy: { request: expect.any(Function) } });
  });

  test.each([
    ['export const shape = {};', 'exports no object of the name hook'],
    ['export const hook = {};', 'neither request nor answer'],
    ['export const hook = { request: 1 };', 'request is not a function'],
    ['export const hook = { requests: () => ({}) };', 'no part requests'],
    ['export const hook = { request( };', 'cannot be used'],
    ['throw new Error("not today");', 'not today'],
  ])('%s is refused with the setting and the reason', async (text, why) => {
    await expect(load(text)).rejects.toThrow(/stores\.legacy\.hook\.file/);
    await expect(load(text)).rejects.toThrow(why);
  });

  test('a file that is not there is refused by name', async () => {
    const { configOf } = await import('../support/proxy.ts');
    const config = configOf({
      stores: {
        legacy: { url: 'http://127.0.0.1:1', hook: { file: join(directory, 'nowhere.ts') } },
        app: { url: 'http://127.0.0.1:1' },
      },
    });
    await expect(loadHooks(config)).rejects.toThrow(/nowhere\.ts cannot be used/);
  });
});
