/** Every kind of identity through the proxy: what passes, what is refused, and what reaches the store. */
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type ServiceAnswer, answering, knowing, signingKey, TestService } from '../support/identity.ts';
import { openKeys } from '../support/idempotency.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: ProxyRig;
let service: TestService;
const ends: (() => Promise<unknown> | void)[] = [];

beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => server.stop());
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

type Rules = (url: string) => Record<string, unknown>[];

async function start(
  answer: ServiceAnswer,
  identity: Rules,
  options: Parameters<typeof startRig>[0] = {},
): Promise<void> {
  const started = await TestService.start(answer);
  service = started;
  ends.push(async () => started.stop());
  const config = { identity: identity(service.url), flip: { holdMs: 20_000 }, ...options.config };
  rig = await startRig({ legacy: { guard: true }, ...options, config });
  ends.push(async () => rig.stop());
}

const asked = (url: string): object => ({ introspect: { url, user: 'data.id' } });

/** In bytes as characters: the raw client sends Latin-1. */
function request(headers: readonly string[], body?: string, method = 'POST'): string {
  const length = body === undefined ? [] : [`Content-Length: ${body.length}`];
  const lines = [`${method} /a HTTP/1.1`, 'Host: h', ...headers, ...length];
  return `${lines.join('\r\n')}\r\n\r\n${body ?? ''}`;
}

const send = async (headers: readonly string[], body?: string, method = 'POST'): Promise<RawMessage> =>
  exchange(rig.port, request(headers, body, method));

const codeOf = (message: RawMessage): unknown => (JSON.parse(message.body) as { code: unknown }).code;

/** As whom the store was told that the request acts. */
const usersSeen = (): (string | undefined)[] =>
  rig.legacy.requests.map((seen) => headerOf(seen, 'onewriter-user'));

describe('an opaque bearer token', () => {
  const bearer: Rules = (url) => [{ bearer: true, ...asked(url) }];

  test('acts for the user that its service names, and reaches the store as it was', async () => {
    await start(knowing({ 'Bearer t0ken': 'ann' }), bearer);
    expect(statusOf(await send(['Authorization: Bearer t0ken'], 'x'))).toBe(200);
    expect(usersSeen()).toEqual(['ann']);
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'authorization')).toBe('Bearer t0ken');
    expect(service.asked).toMatchObject([{ method: 'GET', url: '/me', body: '' }]);
  });

  test('that its service does not know is 401, with a challenge; one it cannot judge now is 503', async () => {
    await start(knowing({}), bearer);
    const wrong = await send(['Authorization: Bearer t0ken'], 'x');
    expect([statusOf(wrong), codeOf(wrong)]).toEqual([401, 'bad-credential']);
    expect(headerOf(wrong, 'www-authenticate')).toBe('Bearer realm="onewriter", error="invalid_token"');
    service.answer = answering(500, {});
    const unclear = await send(['Authorization: Bearer other'], 'x');
    expect([statusOf(unclear), codeOf(unclear)]).toEqual([503, 'identity-unavailable']);
    expect(headerOf(unclear, 'retry-after')).toBe('1');
    expect(JSON.parse(unclear.body)).toMatchObject({ sent: 'no' });
    expect(rig.legacy.requests).toEqual([]);
  });

  test('cannot be taken off by naming its header in Connection', async () => {
    await start(knowing({ 'Bearer t0ken': 'ann' }), bearer);
    await send(['Authorization: Bearer t0ken', 'Connection: Authorization'], 'x');
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'authorization')).toBe('Bearer t0ken');
  });
});

describe('a session cookie', () => {
  const cookie: Rules = (url) => [{ cookie: 'sid', ...asked(url) }];

  test('is shown to its service alone and as it was sent', async () => {
    await start(knowing({ 'sid="s3ssion"': 'ann' }, 'cookie'), cookie);
    expect(statusOf(await send(['Cookie: theme=dark; sid="s3ssion"; a=b'], 'x'))).toBe(200);
    expect(usersSeen()).toEqual(['ann']);
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'cookie')).toBe(
      'theme=dark; sid="s3ssion"; a=b',
    );
  });

  test('that is there twice is 401, and nobody is asked', async () => {
    await start(knowing({ 'sid=a': 'ann' }, 'cookie'), cookie);
    for (const headers of [['Cookie: sid=a; sid=a'], ['Cookie: sid=a', 'Cookie: sid=a']]) {
      const answer = await send(headers, 'x');
      expect([statusOf(answer), codeOf(answer)]).toEqual([401, 'bad-credential']);
    }
    expect(service.asked).toEqual([]);
  });

  test('that is absent leaves a read to the anonymous and refuses a write', async () => {
    await start(knowing({}, 'cookie'), cookie);
    expect(statusOf(await send(['Cookie: other=a'], undefined, 'GET'))).toBe(200);
    expect(codeOf(await send(['Cookie: other=a'], 'x'))).toBe('no-identity');
  });

  test('may hold a signed token', async () => {
    const key = await signingKey('one');
    const rule: Rules = (url) => [{ cookie: 'sid', jwt: { jwksUrl: url } }];
    await start(answering(200, { keys: [key.jwk] }), rule);
    const token = await key.sign({ sub: 'ann' });
    expect(statusOf(await send([`Cookie: sid=${token}`], 'x'))).toBe(200);
    expect(statusOf(await send([`Cookie: sid=${token.slice(0, -4)}AAAA`], 'x'))).toBe(401);
    expect(usersSeen()).toEqual(['ann']);
  });

  test('names the user by itself only from a peer that has verified it', async () => {
    await start(answering(500, {}), () => [{ cookie: 'user', from: ['127.0.0.1'] }]);
    expect(statusOf(await send(['Cookie: user=ann'], 'x'))).toBe(200);
    expect(usersSeen()).toEqual(['ann']);
    await rig.stop();
    ends.pop();
    await start(answering(500, {}), () => [{ cookie: 'user', from: ['10.0.0.0/8'] }]);
    expect(codeOf(await send(['Cookie: user=ann'], 'x'))).toBe('untrusted-peer');
    expect(rig.legacy.requests).toEqual([]);
  });

  test('opens a WebSocket for its user, and none for nobody', async () => {
    await start(knowing({ 'sid=a': 'ann' }, 'cookie'), cookie);
    rig.legacy.answer = (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
    };
    const upgrade = [
      'Connection: Upgrade',
      'Upgrade: websocket',
      'Sec-WebSocket-Key: a',
      'Sec-WebSocket-Version: 13',
    ];
    const client = await RawClient.open(rig.port);
    client.send(request([...upgrade, 'Cookie: sid=a'], undefined, 'GET'));
    await client.until(() => client.received.startsWith('HTTP/1.1 101'));
    client.close();
    expect(statusOf(await send([...upgrade, 'Cookie: sid=b'], undefined, 'GET'))).toBe(401);
    expect(usersSeen()).toEqual(['ann']);
  });
});

describe('a name with a password', () => {
  const encoded = Buffer.from('ann@old:pa:ss wörd').toString('base64');
  const basic: Rules = (url) => [{ basic: true, ...asked(url) }];

  test('acts for the user that its service names, not for the name', async () => {
    await start(knowing({ [`Basic ${encoded}`]: 'user-7' }), basic);
    expect(statusOf(await send([`Authorization: basic ${encoded}`], 'x'))).toBe(200);
    expect(statusOf(await send([`Authorization: Basic ${encoded}`], 'x'))).toBe(200);
    expect(usersSeen()).toEqual(['user-7', 'user-7']);
    expect(service.asked.length).toBe(1);
  });

  test('is asked for by a challenge, without which some clients send none', async () => {
    await start(knowing({}), basic);
    const answer = await send([], 'x');
    expect([statusOf(answer), codeOf(answer)]).toEqual([401, 'no-identity']);
    expect(headerOf(answer, 'www-authenticate')).toBe('Basic realm="onewriter", charset="UTF-8"');
    const wrong = await send([`Authorization: Basic ${encoded}`], 'x');
    expect(headerOf(wrong, 'www-authenticate')).toBe('Basic realm="onewriter", charset="UTF-8"');
  });
});

describe('a session in a JSON body', () => {
  const rule: Rules = (url) => [{ body: '_SessionToken', ...asked(url) }];
  const json = 'Content-Type: application/json';
  const shown = '{"_SessionToken":"r:abc"}';
  const parse = '{"title":"caf\u00c3\u00a9", "_SessionToken" : "r:abc" , "n":1.0}';

  test('is shown to its service alone, and the body reaches the store byte for byte', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule);
    const raw = await RawClient.open(rig.port);
    raw.send(`POST /a HTTP/1.1\r\nHost: h\r\n${json}\r\nContent-Length: ${parse.length}\r\n\r\n${parse}`);
    expect(statusOf(await raw.answer())).toBe(200);
    const chunked = `${(10).toString(16)}\r\n${parse.slice(0, 10)}\r\n${(parse.length - 10).toString(16)}\r\n${parse.slice(10)}\r\n0\r\n\r\n`;
    raw.send(
      `POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`,
    );
    expect(statusOf(await raw.answer())).toBe(200);
    raw.close();
    expect(rig.legacy.requests.map(({ body }) => body)).toEqual([parse, parse]);
    expect(usersSeen()).toEqual(['ann', 'ann']);
    expect(service.asked).toMatchObject([
      { method: 'POST', body: shown, headers: { 'content-type': 'application/json' } },
    ]);
  });

  test('is no identity in a body of another type, and wrong where it is there twice', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule);
    expect(codeOf(await send(['Content-Type: text/html'], '<p>{</p>'))).toBe('no-identity');
    expect(codeOf(await send(['Content-Type: text/html'], '{"a":"_SessionToken"}'))).toBe('no-identity');
    expect(codeOf(await send([json], '{"_SessionToken":'))).toBe('bad-credential');
    expect(codeOf(await send([json], '{}'))).toBe('no-identity');
    expect(codeOf(await send([json]))).toBe('no-identity');
    expect(codeOf(await send([json], '{"_SessionToken":"r:abc","_SessionToken":"r:abc"}'))).toBe(
      'bad-credential',
    );
    expect(rig.legacy.requests).toEqual([]);
  });

  describe('behind which another credential stands', () => {
    const before: Rules = (url) => [...rule(url), { cookie: 'sid', ...asked(url) }];
    const users: ServiceAnswer = (question, response) => {
      const where = question.body === '' ? 'cookie' : 'body';
      knowing({ [shown]: 'bob', 'sid=a': 'ann' }, where)(question, response);
    };
    const cookie = 'Cookie: sid=a';
    const latin1 = (bytes: Buffer): string => bytes.toString('latin1');
    const withNote = '{"_SessionToken":"r:abc","n":"\u00ff"}';

    test('decides, or is 401 where it cannot be read: the other never decides in its place', async () => {
      await start(users, before);
      expect(statusOf(await send([cookie, json], shown))).toBe(200);
      const unreadable: [headers: string[], body: string][] = [
        [[json], latin1(Buffer.from(`\ufeff${shown}`))],
        [[json, 'Content-Encoding: gzip'], latin1(gzipSync(shown))],
        [[`${json}; charset=utf-16le`], latin1(Buffer.from(shown, 'utf16le'))],
        [[json], withNote],
        [[json, json], shown],
        [['Content-Type: text/html', json], shown],
        // Servers that decode JSON whatever its type says would find the session.
        [['Content-Type: text/html'], shown],
        [['Content-Type: image/png'], ` ${shown}`],
        [['Content-Type: application/x-www-form-urlencoded'], '{_SessionToken:"r:abc"}'],
        [[], shown],
        [['Content-Type: text/html', 'Content-Encoding: gzip'], latin1(gzipSync(shown))],
      ];
      for (const [headers, body] of unreadable) {
        for (const method of ['POST', 'GET']) {
          expect([headers, codeOf(await send([cookie, ...headers], body, method))]).toEqual([
            headers,
            'bad-credential',
          ]);
        }
      }
      expect(usersSeen()).toEqual(['bob']);
    });

    test('leaves an empty body, and one of another type, to it', async () => {
      await start(users, before);
      expect(statusOf(await send([cookie, json], ''))).toBe(200);
      const chunked = `POST /a HTTP/1.1\r\nHost: h\r\n${cookie}\r\n${json}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`;
      expect(statusOf(await exchange(rig.port, chunked))).toBe(200);
      expect(statusOf(await send([cookie, 'Content-Type: text/html'], `<p>${shown}`))).toBe(200);
      expect(usersSeen()).toEqual(['ann', 'ann', 'ann']);
    });

    test('cannot be hidden from the store by naming the header of its body in Connection', async () => {
      await start(users, before);
      const named = 'Connection: close, content-type, content-encoding';
      expect(statusOf(await send([cookie, json, 'Content-Encoding: identity', named], shown))).toBe(200);
      const [seen] = rig.legacy.requests;
      if (seen === undefined) throw new Error('nothing reached the store');
      expect(usersSeen()).toEqual(['bob']);
      expect(headerOf(seen, 'content-type')).toBe('application/json');
      expect(headerOf(seen, 'content-encoding')).toBe('identity');
    });
  });

  test('is read up to the limit: a larger body is 413 and reaches nobody', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), (url) => [{ ...rule(url)[0], bodyBytesMax: 100_000 }]);
    const large = `{"_SessionToken":"r:abc","x":"${'x'.repeat(100_000)}"}`;
    const declared = await send([json], large);
    expect([statusOf(declared), codeOf(declared)]).toEqual([413, 'body-too-large']);
    // Whoever asks first is told before they send it.
    const waits = request([json, 'Expect: 100-continue', `Content-Length: ${large.length}`]);
    expect(statusOf(await exchange(rig.port, waits))).toBe(413);
    const chunked = await RawClient.open(rig.port);
    chunked.send(
      `POST /a HTTP/1.1\r\nHost: h\r\n${json}\r\nTransfer-Encoding: chunked\r\n\r\n${large.length.toString(16)}\r\n${large}\r\n`,
    );
    expect(statusOf(await chunked.answer())).toBe(413);
    chunked.close();
    const fits = `{"_SessionToken":"r:abc","x":"${'x'.repeat(90_000)}"}`;
    expect(statusOf(await send([json], fits))).toBe(200);
    expect(rig.legacy.requests.map(({ body }) => body.length)).toEqual([fits.length]);
  });

  test('is held with its request, and goes to the new owner', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule);
    rig.gate.fence('ann', 'app');
    const client = await RawClient.open(rig.port);
    client.send(request([json], parse));
    await until('the write is held', () => rig.proxy.counters().holding === 1);
    rig.gate.order('ann', { kind: 'commit', attempt: 'a' });
    rig.gate.order('ann', { kind: 'release', attempt: 'a' });
    expect(statusOf(await client.answer())).toBe(200);
    client.close();
    expect(rig.app.requests.map(({ body }) => body)).toEqual([parse]);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('is bounded in all requests together: beyond that 503, until one is over', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule, { limits: { inspectedBytes: 1_500 } });
    const body = `{"_SessionToken":"r:abc","x":"${'x'.repeat(900)}"}`;
    rig.gate.fence('ann', 'app');
    const first = await RawClient.open(rig.port);
    first.send(request([json], body));
    await until('the write is held', () => rig.proxy.counters().holding === 1);
    const second = await send([json], body);
    expect([statusOf(second), codeOf(second)]).toEqual([503, 'identity-unavailable']);
    first.close();
    await until('the write is gone', () => rig.proxy.counters().holding === 0);
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    expect(statusOf(await send([json], body))).toBe(200);
    expect(statusOf(await send([json], body))).toBe(200);
  });

  test('that does not arrive in time is 408', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule, { limits: { inspectMs: 50 } });
    const client = await RawClient.open(rig.port);
    client.send(`POST /a HTTP/1.1\r\nHost: h\r\n${json}\r\nContent-Length: 50\r\n\r\n{"_Sess`);
    expect(codeOf(await client.answer())).toBe('request-timeout');
    client.close();
  });

  test('is asked for once by a client that waits for "100 Continue"', async () => {
    await start(knowing({ [shown]: 'ann' }, 'body'), rule);
    const client = await RawClient.open(rig.port);
    const head = request([json, 'Expect: 100-continue', `Content-Length: ${shown.length}`]);
    client.send(head);
    await client.until(() => client.received.endsWith('100 Continue\r\n\r\n'));
    client.received = '';
    client.send(shown);
    expect(statusOf(await client.answer())).toBe(200);
    client.close();
    expect(rig.legacy.requests.map(({ body }) => body)).toEqual([shown]);
  });

  test('goes with an Idempotency-Key: the write is sent once', async () => {
    const keys = await openKeys(server);
    ends.push(() => keys.close());
    await start(knowing({ [shown]: 'ann' }, 'body'), rule, { keys: keys.keys });
    const keyed = [json, 'Idempotency-Key: k1'];
    expect(statusOf(await send(keyed, parse))).toBe(200);
    const again = await send(keyed, parse);
    expect([statusOf(again), headerOf(again, 'idempotency-replayed')]).toEqual([200, 'true']);
    expect(codeOf(await send(keyed, parse.replace('1.0', '2.0')))).toBe('idempotency-key-reused');
    expect(rig.legacy.requests.length).toBe(1);
    const stored = await Promise.all((await keys.records()).map(async (name) => keys.redis.hgetall(name)));
    expect(stored.length).toBe(1);
    expect(JSON.stringify(stored)).not.toContain('r:abc');
  });
});

describe('several rules', () => {
  const all: Rules = (url) => [
    { header: 'x-user', from: ['10.0.0.0/8'] },
    { bearer: true, ...asked(url) },
    { cookie: 'sid', ...asked(url) },
    { body: 't', ...asked(url) },
  ];
  const both: ServiceAnswer = (question, response) => {
    const where = question.headers.authorization === undefined ? 'cookie' : 'authorization';
    const users = { 'Bearer a': 'ann', 'sid=b': 'bob', '{"t":"c"}': 'cy' };
    knowing(users, question.body === '' ? where : 'body')(question, response);
  };

  test('decide in their order: the first credential that is there, right or wrong', async () => {
    await start(both, all);
    const json = 'Content-Type: application/json';
    const sent: [headers: string[], body: string, status: number][] = [
      [['Authorization: Bearer a', 'Cookie: sid=b', json], '{"t":"c"}', 200],
      [['Cookie: sid=b', json], '{"t":"c"}', 200],
      [[json], '{"t":"c"}', 200],
      // A wrong one is not made good by a right one behind it.
      [['Authorization: Bearer x', 'Cookie: sid=b', json], '{"t":"c"}', 401],
      [['Cookie: sid=x', json], '{"t":"c"}', 401],
      // Another scheme is no bearer token, so the next rule decides.
      [['Authorization: Negotiate x', 'Cookie: sid=b', json], '{"t":"c"}', 200],
    ];
    for (const [headers, body, status] of sent) {
      expect([headers, statusOf(await send(headers, body))]).toEqual([headers, status]);
    }
    expect(usersSeen()).toEqual(['ann', 'bob', 'cy', 'bob']);
  });

  test('refuse an identity header from a peer that may not set it, whatever else is there', async () => {
    await start(both, all);
    expect(codeOf(await send(['x-user: root', 'Authorization: Bearer a'], 'x'))).toBe('untrusted-peer');
    expect(rig.legacy.requests).toEqual([]);
  });
});

test('no credential stands in an answer of the proxy or in its log', async () => {
  const secret = 'hunter2-hunter2';
  const encoded = Buffer.from(`ann:${secret}`).toString('base64');
  await start(
    (question, response) => {
      answering(question.headers.cookie === undefined ? 500 : 401, { error: secret })(question, response);
    },
    (url) => [
      { cookie: 'sid', ...asked(url) },
      { basic: true, ...asked(url) },
      { bearer: true, ...asked(url) },
      { body: 't', ...asked(url) },
    ],
  );
  const answers = [
    await send([`Cookie: sid=${secret}`], 'x'),
    await send([`Cookie: sid=${secret}; sid=${secret}`], 'x'),
    await send([`Authorization: Basic ${encoded}`], 'x'),
    await send([`Authorization: Basic ${encoded}!`], 'x'),
    await send([`Authorization: Bearer ${secret}`], 'x'),
    await send(['Content-Type: application/json'], JSON.stringify({ t: secret })),
    await send(['Content-Type: application/json'], JSON.stringify({ t: `${secret} ` })),
  ];
  await service.stop();
  answers.push(await send([`Authorization: Bearer ${secret}2`], 'x'));
  expect(answers.map(statusOf)).toEqual([401, 401, 503, 401, 503, 503, 401, 503]);
  const said = JSON.stringify([answers, rig.logged]);
  expect(said).not.toContain('hunter2');
  expect(said).not.toContain(encoded);
  expect(rig.logged.map(({ event }) => event)).toContain('identity.unavailable');
});
