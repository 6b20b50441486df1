/** Early hints on their way to the client, and what else comes before the answer. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { type RawMessage, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({ legacy: { answerHeaders: { remove: ['X-Secret'] } } });
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const style = 'Link: </style.css>; rel=preload; as=style';
const script = 'Link: </script.js>; rel=preload; as=script';
const hints = (...lines: string[]): string => ['HTTP/1.1 103 Early Hints', ...lines, '', ''].join('\r\n');

/** The interim answers and the final one. */
async function answersTo(request: string, ...bytes: readonly string[]): Promise<RawMessage[]> {
  rig.legacy.answer = (_request, socket) => {
    for (const part of bytes) socket.write(part, 'latin1');
  };
  const client = await rig.connect();
  client.send(request);
  const answers: RawMessage[] = [];
  do answers.push(await client.answer({ bodyless: request.startsWith('HEAD') }));
  while (statusOf(answers.at(-1) ?? { startLine: '', headers: [], body: '', trailers: [] }) < 200);
  expect(client.received).toBe('');
  return answers;
}

const finals: readonly (readonly [what: string, bytes: string, status: number, body: string])[] = [
  ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', 200, 'ok'],
  ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n', 200, 'ok'],
  ['no body', 'HTTP/1.1 204 No Content\r\n\r\n', 204, ''],
  ['nothing new', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', 304, ''],
  [
    'the end of the connection',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok',
    200,
    'ok',
  ],
  ['an error', 'HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno', 500, 'no'],
];

test.each(finals)('row 11: hints come before an answer with %s', async (_what, final, status, body) => {
  const [first, last, ...more] = await answersTo(requestText('GET /a'), hints(style), final);
  expect(first?.startLine).toBe('HTTP/1.1 103 Early Hints');
  expect(first?.headers).toEqual([style]);
  expect([last && statusOf(last), last?.body]).toEqual([status, body]);
  expect(last?.headers.filter((line) => /^link:/i.test(line))).toEqual([]);
  expect(more).toEqual([]);
});

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

test('row 11: several come one by one, in their order', async () => {
  const answers = await answersTo(
    requestText('GET /a'),
    hints(style),
    hints(script),
    hints(style, script),
    ok,
  );
  expect(answers.map(({ headers }) => headers.filter((line) => /^link:/i.test(line)))).toEqual([
    [style],
    [script],
    [style, script],
    [],
  ]);
  expect(answers.map(statusOf)).toEqual([103, 103, 103, 200]);
});

test('row 11: they come in the same write as the answer, too', async () => {
  const answers = await answersTo(requestText('GET /a'), hints(style) + hints(script) + ok);
  expect(answers.map(statusOf)).toEqual([103, 103, 200]);
});

test('row 11: they come at once, long before the answer', async () => {
  let finish = (): void => undefined;
  rig.legacy.answer = (_request, socket) => {
    socket.write(hints(style));
    finish = () => void socket.write(ok);
  };
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  expect(statusOf(await client.answer())).toBe(103);
  expect(client.received).toBe('');
  finish();
  expect((await client.answer()).body).toBe('ok');
});

test.each([
  ['a name in other letters', ['lINK: </a>; rel=preload']],
  ['fields in their order, each for itself', ['X-B: 1', style, 'X-A: 2', script, 'X-B: 3']],
  ['no link at all', ["Content-Security-Policy: default-src 'self'"]],
  ['several links in one field', ['Link: </a>; rel=preload, </b>; rel="preload stylesheet"; title="a, b"']],
  ['a link in a form that is not usual', ['Link: /a']],
  ['a value beyond ASCII', ['X-Name: caf\xe9', style]],
  ['an empty value', ['X-Empty: ', style]],
  ['no field', []],
])('row 11: hints with %s stay as they are', async (_what, lines) => {
  const [first] = await answersTo(requestText('GET /a'), hints(...lines), ok);
  expect(first?.startLine).toBe('HTTP/1.1 103 Early Hints');
  expect(first?.headers).toEqual(lines);
});

test('row 11: what ends at the proxy is not said in hints either', async () => {
  const [first] = await answersTo(
    requestText('GET /a'),
    hints(
      'Connection: X-Hop',
      'X-Hop: a',
      'Keep-Alive: timeout=5',
      'Onewriter-Epoch: 7',
      'X-Secret: b',
      style,
    ),
    ok,
  );
  expect(first?.headers).toEqual([style]);
});

test.each(['HEAD /a', 'POST /a', 'DELETE /a', 'OPTIONS /a'])('row 11: hints to %s', async (startLine) => {
  const final = startLine.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n' : ok;
  const answers = await answersTo(
    requestText(startLine, { lines: ['Content-Length: 0'] }),
    hints(style),
    final,
  );
  expect(answers.map(statusOf)).toEqual([103, 200]);
});

test('row 11: hints to a write that was held', async () => {
  const fence = await rig.fence('ann');
  rig.legacy.answer = (_request, socket) => void socket.write(hints(style) + ok);
  const client = await rig.connect();
  client.send(requestText('POST /a', { lines: ['Content-Length: 0'] }));
  await rig.settled();
  await fence.reopen();
  expect((await client.answer()).headers).toEqual([style]);
  expect((await client.answer()).body).toBe('ok');
});

test('row 11: hints to requests that did not wait for one another come each before their own answer', async () => {
  // Whoever has come by then is answered the last one first.
  let waiting: (() => void)[] | undefined = [];
  rig.legacy.answer = ({ startLine }, socket) => {
    const name = startLine.split(' ')[1] ?? '';
    const say = (): void =>
      void socket.write(`${hints(`Link: <${name}>`)}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${name}`);
    if (waiting === undefined) say();
    else waiting.unshift(say);
  };
  const client = await rig.connect();
  client.send(requestText('GET /1') + requestText('GET /2') + requestText('GET /3'));
  await until('the first is at the store', () => rig.legacy.requests.length > 0);
  await rig.settled();
  const come = waiting;
  waiting = undefined;
  for (const say of come) {
    say();
    await rig.settled();
  }
  const seen: string[] = [];
  while (seen.filter((line) => line.startsWith('/')).length < 3) {
    const { headers, body, startLine } = await client.answer();
    seen.push(startLine.includes('103') ? `hint ${headers[0]}` : body);
  }
  // Hints that came before it was their turn may be left out, but none may stand before another's answer.
  for (const [at, line] of seen.entries()) {
    if (line.startsWith('hint')) expect(line).toBe(`hint Link: <${seen[at + 1]}>`);
  }
  expect(seen.filter((line) => line.startsWith('/'))).toEqual(['/1', '/2', '/3']);
});

test('row 11: HTTP/1.0 knows none, and gets none', async () => {
  rig.legacy.answer = (_request, socket) => void socket.write(hints(style) + ok);
  const client = await rig.connect();
  client.send('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n');
  expect(await client.toTheEnd()).toMatch(/^HTTP\/1\.1 200 OK\r\n(?!.*103).*\r\n\r\nok$/s);
});

test('row 11: hints from a store that then dies do not make an answer', async () => {
  rig.legacy.answer = (_request, socket) => void socket.end(hints(style));
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  expect(statusOf(await client.answer())).toBe(103);
  expect(statusOf(await client.answer())).toBe(502);
});

test('row 11: a client that goes after the hints ends the read at the store', async () => {
  rig.legacy.answer = (_request, socket) => void socket.write(hints(style));
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  await client.answer();
  const [socket] = rig.legacy.sockets;
  client.close();
  await until('the store sees it', () => socket?.destroyed);
});

test.each([
  ['a 100 that nobody asked for', 'HTTP/1.1 100 Continue\r\n\r\n'],
  ['several of them', 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n'],
  ['a 102', 'HTTP/1.1 102 Processing\r\n\r\n'],
])('row 11: %s does no harm', async (_what, bytes) => {
  const answers = await answersTo(requestText('GET /a'), bytes, ok);
  expect(answers.at(-1)?.body).toBe('ok');
  expect((await answersTo(requestText('GET /b'), ok)).map(statusOf)).toEqual([200]);
});

test.each(['\0', '\r', '\n', '\r\n\n'])(
  'row 11: hints with %j in a value are no hints',
  async (character) => {
    rig.legacy.answer = (_request, socket) => void socket.write(hints(`X-A: a${character}b`) + ok, 'latin1');
    const answer = await rig.exchange(requestText('GET /a'));
    expect(statusOf(answer)).toBe(502);
  },
);

test('row 11: a 101 that nobody asked for is no answer', async () => {
  rig.legacy.answer = (_request, socket) =>
    void socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n');
  expect(statusOf(await rig.exchange(requestText('GET /a')))).toBe(502);
});
