/** Header fields on their way through: separate, in order, in their letters; and heads that are too long. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText, type StoreName, storeNames } from './rig.ts';

const headerBytes = 16_384;
let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({ config: { proxy: { limits: { headerBytes } } } });
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const userOf = (store: StoreName): string => (store === 'app' ? 'app-user' : 'ann');
const ways = storeNames.flatMap((store) => ['GET', 'POST'].map((method) => ({ store, method })));

/** What the store got of `lines`, and nothing else: our own fields are not about this. */
async function sentOn(store: StoreName, method: string, lines: readonly string[]): Promise<string[]> {
  const body = method === 'GET' ? [] : ['Content-Length: 0'];
  const text = requestText(`${method} /a`, { user: userOf(store), lines: [...lines, ...body] });
  expect(statusOf(await rig.exchange(text))).toBe(200);
  const [request] = rig.store(store).requests;
  const ours = /^(host|connection|x-user|x-forwarded-\w+|content-length):/i;
  return (request?.headers ?? []).filter((line) => !ours.test(line));
}

/** The client's view of an answer with these header lines. */
async function received(
  store: StoreName,
  method: string,
  lines: readonly string[],
): Promise<readonly string[]> {
  rig.store(store).answer = (_request, socket) =>
    void socket.write(['HTTP/1.1 200 OK', ...lines, 'Content-Length: 0', '', ''].join('\r\n'), 'latin1');
  const body = method === 'GET' ? [] : ['Content-Length: 0'];
  const answer = await rig.exchange(requestText(`${method} /a`, { user: userOf(store), lines: body }));
  const ours = /^(connection|keep-alive|content-length):/i;
  return answer.headers.filter((line) => !ours.test(line));
}

describe.each(ways)('row 16: $method at $store', ({ store, method }) => {
  const kept: Record<string, readonly string[]> = {
    'names in their letters': ['X-lower-UPPER: 1', 'ACCEPT: */*', 'user-agent: t', 'eTag: "x"'],
    'a name that is there several times, between others': ['A: 1', 'B: 2', 'a: 3', 'A: 1', 'C: 4'],
    'several Cookie lines': ['Cookie: a=1', 'Cookie: b=2; c=3'],
    'several of what must be there once': [
      'If-Match: "a"',
      'If-Match: "b"',
      'User-Agent: x',
      'User-Agent: y',
    ],
    'values with commas, quotes and spaces inside': ['Accept: a, b;q="c, d"', 'X: a  b\t c'],
    'empty values': ['X-Empty:', 'X-Also: ', 'X-Last: 1'].map((line) => line.trim()),
    'bytes beyond ASCII': ['X-Latin: caf\xe9', 'X-Utf: \xc3\xa9'],
    'every sign that a name may hold': ["!#$%&'*+-.^_`|~09azAZ: 1"],
    'no User-Agent, no Accept and nothing else where the client sent none': [],
    'names that look like ours, or like one of an object': ['X-Host: a', '__proto__: 1', 'constructor: 2'],
  };
  test.each(Object.keys(kept))('a request keeps %s', async (name) => {
    const lines = kept[name] ?? [];
    expect((await sentOn(store, method, lines)).map((line) => line.trim())).toEqual(lines);
  });

  const answered: Record<string, readonly string[]> = {
    'Set-Cookie in order, between others': ['Set-Cookie: a=1', 'X: 1', 'set-cookie: b=2', 'Set-Cookie: a=3'],
    'names in their letters': ['x-LOWER: 1', 'DATE: Thu, 01 Jan 1970 00:00:00 GMT', 'eTag: "x"'],
    'a name that is there several times': ['Vary: a', 'WWW-Authenticate: Basic', 'Vary: b', 'Vary: a'],
    'several of what must be there once': ['Location: /a', 'Location: /b', 'ETag: "a"', 'ETag: "b"'],
    'empty values, and values with commas': ['X-Empty:', 'X: a, b', 'Server:'],
    'bytes beyond ASCII': ['X-Latin: caf\xe9', 'X-Utf: \xc3\xa9'],
    'no Date and no Server where the store sent none': [],
  };
  test.each(Object.keys(answered))('an answer keeps %s', async (name) => {
    const lines = answered[name] ?? [];
    expect((await received(store, method, lines)).map((line) => line.trim())).toEqual(lines);
  });
});

test('row 16: the two thousandth header of a request reaches the store, and one behind it is seen by the proxy', async () => {
  const many = Array.from({ length: 2_000 }, (_, at) => `n:${at}`);
  const text = ['GET /a HTTP/1.1', 'Host: h', ...many, 'x-user: app-user', '', ''].join('\r\n');
  expect(statusOf(await rig.exchange(text))).toBe(200);
  // Whoever stopped counting would take the request for one of nobody, and send it to legacy.
  const sent = rig.app.requests[0]?.headers ?? [];
  expect(sent.filter((line) => line.startsWith('n:')).map((line) => line.replace(': ', ':'))).toEqual(many);
});

test('row 16: the nine hundredth header of an answer reaches the client; with too many none is left out in silence', async () => {
  const many = Array.from({ length: 900 }, (_, at) => `n: ${at}`);
  expect((await received('legacy', 'GET', many)).filter((line) => line.startsWith('n:'))).toEqual(many);
  rig.legacy.answer = (_request, socket) =>
    void socket.write(['HTTP/1.1 200 OK', ...many, ...many, 'Content-Length: 0', '', ''].join('\r\n'));
  const answer = await rig.exchange(requestText('GET /a'));
  expect([statusOf(answer), problemOf(answer)['code']]).toEqual([502, 'upstream-failed']);
});

test.each(['Fine', '', 'Not at all OK', 'caf\xe9', 'caf\xc3\xa9'])(
  'row 16: the reason "%s" stays',
  async (reason) => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 299 ${reason}\r\nContent-Length: 0\r\n\r\n`, 'latin1');
    const answer = await rig.exchange(requestText('GET /a'));
    expect(answer.startLine.trimEnd()).toBe(`HTTP/1.1 299 ${reason}`.trimEnd());
  },
);

test.each([200, 201, 203, 207, 226, 299, 308, 418, 429, 451, 499, 599])(
  'row 16: the status %i stays',
  async (status) => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 ${status} X\r\nContent-Length: 1\r\n\r\n!`);
    const answer = await rig.exchange(requestText('GET /a'));
    expect([statusOf(answer), answer.body]).toEqual([status, '!']);
  },
);

describe('row 17: the head of a request', () => {
  const long: Record<string, string> = {
    'one long value': `X-Long: ${'x'.repeat(headerBytes)}`,
    'one long name': `${'x'.repeat(headerBytes)}: 1`,
    'many short fields': Array.from({ length: headerBytes / 5 }, () => 'x-n: 12').join('\r\n'),
    'a value without end': `X-Long: ${'x'.repeat(500 * headerBytes)}`,
  };
  test.each(Object.keys(long))('that is too long for %s gets 431, and nothing is forwarded', async (name) => {
    const client = await rig.connect();
    const errors: unknown[] = [];
    client.socket.on('error', (error) => errors.push(error));
    client.send(requestText('POST /a', { lines: [long[name] ?? '', 'Content-Length: 2'], body: 'hi' }));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(431);
    expect(headerOf(answer, 'content-type')).toBe('application/problem+json');
    expect(problemOf(answer)).toMatchObject({ code: 'head-too-large', status: 431 });
    expect(headerOf(answer, 'connection')).toBe('close');
    await client.toTheEnd();
    // Not a reset, in which a client that is still sending could lose its answer.
    expect([client.ending, errors]).toEqual(['fin', []]);
    expect(rig.legacy.bytes + rig.app.bytes).toBe('');
  });

  test('that is too long because of its target gets 431', async () => {
    const answer = await rig.exchange(requestText(`GET /${'x'.repeat(headerBytes)}`));
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([431, 'head-too-large']);
    expect(rig.legacy.bytes).toBe('');
  });

  test('just below the limit is forwarded whole', async () => {
    const value = 'x'.repeat(headerBytes - 200);
    expect(await sentOn('legacy', 'POST', [`X-Long: ${value}`])).toEqual([`X-Long: ${value}`]);
  });

  test('in the trailers of a body counts, too, and the client learns that a part was sent', async () => {
    const client = await rig.connect();
    client.send(requestText('POST /a', { lines: ['Transfer-Encoding: chunked'], body: '2\r\nhi\r\n' }));
    await until('a part has arrived', () => rig.legacy.bytes.includes('hi'));
    client.send(`0\r\nX-Long: ${'x'.repeat(2 * headerBytes)}\r\n\r\n`);
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(431);
    expect(problemOf(answer)).toMatchObject({ code: 'head-too-large', sent: 'unknown' });
    await client.toTheEnd();
    expect(rig.legacy.requests).toEqual([]);
  });

  test('leaves other connections alone', async () => {
    const other = await rig.connect();
    other.send(requestText('GET /a'));
    await other.answer();
    await rig.exchange(requestText('GET /a', { lines: [long['one long value'] ?? ''] }));
    other.send(requestText('GET /b'));
    expect(statusOf(await other.answer())).toBe(200);
  });
});

describe('row 17: the head of an answer', () => {
  const answerWith = (lines: readonly string[]): void => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write(['HTTP/1.1 200 OK', ...lines, 'Content-Length: 0', '', ''].join('\r\n'));
  };
  const long: Record<string, readonly string[]> = {
    'one long value': [`X-Long: ${'x'.repeat(headerBytes)}`],
    'many short fields': Array.from({ length: headerBytes / 5 }, () => 'x-n: 12'),
    'many cookies': Array.from({ length: 200 }, (_, at) => `Set-Cookie: c${at}=${'x'.repeat(100)}`),
  };
  test.each(Object.keys(long))('that is too long for %s gets 502 for a read', async (name) => {
    answerWith(long[name] ?? []);
    const answer = await rig.exchange(requestText('GET /a'));
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)).toMatchObject({ code: 'upstream-failed', store: 'legacy', stage: 'broken' });
    expect(problemOf(answer)).not.toHaveProperty('sent');
  });

  test('that is too long gets 502 for a write, which says that it was sent', async () => {
    answerWith(long['one long value'] ?? []);
    const answer = await rig.exchange(requestText('POST /a', { lines: ['Content-Length: 0'] }));
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)).toMatchObject({ code: 'outcome-unknown', store: 'legacy', sent: 'unknown' });
    expect(rig.legacy.requests).toHaveLength(1);
  });

  test('just below the limit reaches the client whole', async () => {
    const line = `X-Long: ${'x'.repeat(headerBytes - 200)}`;
    answerWith([line]);
    const answer = await rig.exchange(requestText('GET /a'));
    expect([statusOf(answer), answer.headers[0]]).toEqual([200, line]);
  });

  test('does not harm who comes next', async () => {
    answerWith(long['one long value'] ?? []);
    const client: RawClient = await rig.connect();
    client.send(requestText('GET /a'));
    expect(statusOf(await client.answer())).toBe(502);
    answerWith([]);
    client.send(requestText('GET /b'));
    expect(statusOf(await client.answer())).toBe(200);
  });
});
