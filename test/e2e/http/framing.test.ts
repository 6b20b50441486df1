/**
 * Where a message ends: whoever sees another end than the next server sees other requests, too. What is not
 * framed beyond doubt is refused, and nothing of it, or behind it, reaches a store.
 */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { answerOk, headerOf, type RawAnswer, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const head = 'POST /a HTTP/1.1\r\nHost: shop.example\r\nx-user: ann\r\n';
/** What a server that sees the end elsewhere would take for the next request. */
const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: shop.example\r\nx-user: eve\r\n\r\n';
const chunked = 'Transfer-Encoding: chunked\r\n';

/** Everything that came back before the connection ended. */
async function refusedWith(bytes: string): Promise<string> {
  const client = await rig.connect();
  client.send(bytes);
  return client.toTheEnd();
}

const badHeads: readonly (readonly [what: string, bytes: string])[] = [
  // --- more than one length ---
  [
    'Content-Length before Transfer-Encoding',
    `${head}Content-Length: 5\r\n${chunked}\r\n0\r\n\r\n${smuggled}`,
  ],
  [
    'Transfer-Encoding before Content-Length',
    `${head}${chunked}Content-Length: 5\r\n\r\n0\r\n\r\n${smuggled}`,
  ],
  ['Content-Length: 0 beside Transfer-Encoding', `${head}Content-Length: 0\r\n${chunked}\r\n0\r\n\r\n`],
  ['two lengths that differ', `${head}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello${smuggled}`],
  ['two lengths that are equal', `${head}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello`],
  ['a list of equal lengths', `${head}Content-Length: 5, 5\r\n\r\nhello`],
  ['a list of different lengths', `${head}Content-Length: 0, 5\r\n\r\nhello`],
  // --- a length that is none ---
  ['a length with a plus sign', `${head}Content-Length: +5\r\n\r\nhello`],
  ['a negative length', `${head}Content-Length: -5\r\n\r\nhello`],
  ['a length in hexadecimal', `${head}Content-Length: 0x5\r\n\r\nhello`],
  ['a length with an exponent', `${head}Content-Length: 1e1\r\n\r\nhellohello`],
  ['a length with a fraction', `${head}Content-Length: 5.0\r\n\r\nhello`],
  ['a length with a space in it', `${head}Content-Length: 4 2\r\n\r\n${'x'.repeat(42)}`],
  ['a length with something behind it', `${head}Content-Length: 5abc\r\n\r\nhello`],
  ['an empty length', `${head}Content-Length:\r\n\r\n${smuggled}`],
  ['a length beyond 64 bits', `${head}Content-Length: 18446744073709551621\r\n\r\nhello`],
  ['a length folded over two lines', `${head}Content-Length: 1\r\n 0\r\n\r\nhellohello`],
  // --- a transfer coding that is none, or not the last ---
  ['Transfer-Encoding: identity', `${head}Transfer-Encoding: identity\r\n\r\n${smuggled}`],
  [
    'Transfer-Encoding: identity beside a length',
    `${head}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello`,
  ],
  ['an unknown coding', `${head}Transfer-Encoding: pigeons\r\n\r\n0\r\n\r\n`],
  ['a coding that only begins with chunked', `${head}Transfer-Encoding: chunkedchunked\r\n\r\n0\r\n\r\n`],
  ['a coding that only ends with chunked', `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
  ['chunked in quotes', `${head}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n`],
  ['chunked with a parameter', `${head}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n`],
  ['chunked behind a vertical tab', `${head}Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n`],
  ['chunked and then another coding', `${head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`],
  [
    'chunked and then identity, in two fields',
    `${head}${chunked}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n`,
  ],
  [
    'identity and then chunked, in two fields',
    `${head}Transfer-Encoding: identity\r\n${chunked}\r\n0\r\n\r\n`,
  ],
  ['chunked twice', `${head}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`],
  ['chunked in two fields', `${head}${chunked}${chunked}\r\n0\r\n\r\n`],
  ['another coding before chunked', `${head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
  ['an empty coding', `${head}Transfer-Encoding:\r\n\r\n0\r\n\r\n`],
  ['an empty coding beside a length', `${head}Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello`],
  ['a coding folded over two lines', `${head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n`],
  ['a coding folded behind its value', `${head}Transfer-Encoding: chunked\r\n , identity\r\n\r\n0\r\n\r\n`],
  ['Transfer-Encoding from HTTP/1.0', `${head.replace('1.1', '1.0')}${chunked}\r\n0\r\n\r\n${smuggled}`],
  // --- fields that only some would read ---
  ['a space before the colon', `${head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`],
  ['a tab before the colon', `${head}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n`],
  ['a space before the colon of a length', `${head}Content-Length : 5\r\n\r\nhello`],
  [
    'a space before the field',
    `POST /a HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: h\r\nx-user: ann\r\n\r\n0\r\n\r\n`,
  ],
  ['a folded field', `${head}X-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n`],
  ['a NUL in a name', `${head}Transfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n`],
  ['a NUL in a value', `${head}X-A: a\0b\r\nContent-Length: 0\r\n\r\n`],
  ['a field without a colon', `${head}Content-Length\r\n\r\n`],
  ['a field without a name', `${head}: x\r\nContent-Length: 0\r\n\r\n`],
  ['a name in brackets', `${head}[x]: y\r\nContent-Length: 0\r\n\r\n`],
  ['a name with a byte beyond ASCII', `${head}Content-L\xe9ngth: 5\r\n\r\nhello`],
  // --- line ends ---
  ['only line feeds', `${head}Content-Length: 5\r\n\r\nhello`.replaceAll('\r\n', '\n')],
  [
    'a line feed behind the request line',
    `POST /a HTTP/1.1\nHost: h\r\nx-user: ann\r\nContent-Length: 0\r\n\r\n`,
  ],
  ['a line feed that hides a coding', `${head}X-A: a\n${chunked}\r\n0\r\n\r\n`],
  ['a line feed behind a coding', `${head}Transfer-Encoding: chunked\nX-A: a\r\n\r\n0\r\n\r\n`],
  ['a carriage return that hides a coding', `${head}X-A: a\r${chunked}\r\n0\r\n\r\n`],
  ['a carriage return within a value', `${head}X-A: a\rb\r\nContent-Length: 0\r\n\r\n`],
  ['an empty line of a line feed alone', `${head}Content-Length: 5\r\n\nhello`],
  // --- the request line ---
  ['a space behind the version', 'POST /a HTTP/1.1 \r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['a space in the target', 'POST /a b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['a tab in the request line', 'POST\t/a\tHTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['no version', 'GET /a\r\nHost: h\r\n\r\n'],
  ['HTTP/2.0 as text', 'POST /a HTTP/2.0\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['HTTP/1.2', 'POST /a HTTP/1.2\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['HTTP/1.10', 'POST /a HTTP/1.10\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['http in small letters', 'POST /a http/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['a method in small letters', 'post /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['an unknown method', 'P@ST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  // --- Host ---
  ['no Host', 'POST /a HTTP/1.1\r\nx-user: ann\r\nContent-Length: 0\r\n\r\n'],
  ['two Hosts', `${head}Host: other.example\r\nContent-Length: 0\r\n\r\n`],
  ['the same Host twice', `${head}Host: shop.example\r\nContent-Length: 0\r\n\r\n`],
];

test.each(badHeads)(
  'row 7: a request with %s is 400, and nothing of it reaches a store',
  async (_what, bytes) => {
    const client = await rig.connect();
    client.send(bytes);
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(400);
    client.close();
    // A request behind it would have come by now: this one comes by another way, and comes alone.
    await rig.exchange(requestText('GET /after'));
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /after HTTP/1.1']);
    expect(rig.app.bytes).toBe('');
  },
);

/** Behind a good head, so that the request may be under way already. */
const badChunks: readonly (readonly [what: string, body: string])[] = [
  ['a size that is no number', `x\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['an empty size', `\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a negative size', `-1\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a size with a plus sign', `+5\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a size with 0x', `0x5\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a space before the size', ` 5\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a space behind the size', `5 \r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['an underscore in the size', `1_0\r\n${'x'.repeat(16)}\r\n0\r\n\r\n${smuggled}`],
  ['a size beyond 64 bits', `10000000000000005\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a line feed behind the size', `5\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a line feed in an extension', `5;a\nb\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a carriage return in an extension', `5;a\rb\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['carriage returns behind the size', `5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n${smuggled}`],
  ['an extension without a semicolon', `5 ext\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['a quote in an extension that does not end', `5;a="b\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['data longer than its size', `5\r\nhello!\r\n0\r\n\r\n${smuggled}`],
  ['data shorter than its size', `6\r\nhello\r\n0\r\n\r\n${smuggled}`],
  ['no line end behind the data', `5\r\nhello0\r\n\r\n${smuggled}`],
  ['a line feed behind the data', `5\r\nhello\n0\r\n\r\n${smuggled}`],
  ['a line feed behind the last chunk', `5\r\nhello\r\n0\n\n${smuggled}`],
  ['a request in the place of trailers', `5\r\nhello\r\n0\r\n${smuggled}`],
  ['a trailer with a space before its colon', `5\r\nhello\r\n0\r\nX-A : b\r\n\r\n${smuggled}`],
  ['a folded trailer', `5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n${smuggled}`],
  ['a length in the trailers', `5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n${smuggled}`],
  ['a coding in the trailers', `5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n${smuggled}`],
];

test.each(badChunks)(
  'row 7: a body with %s ends with its connection, and no store takes it for complete',
  async (_what, body) => {
    const received = await refusedWith(`${head}${chunked}\r\n${body}`);
    expect(received).not.toContain('HTTP/1.1 200');
    await rig.exchange(requestText('GET /after', { user: 'bob' }));
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /after HTTP/1.1']);
    expect(rig.legacy.bytes).not.toContain('smuggled');
  },
);

test.each(badChunks)('row 7: the same while the store receives the body already: %s', async (_what, body) => {
  const client = await rig.connect();
  client.send(`${head}${chunked}\r\n4\r\ngood\r\n`);
  await until('the store has the beginning', () => rig.legacy.bytes.includes('good'));
  const [upload] = rig.legacy.sockets;
  client.send(body);
  expect(await client.toTheEnd()).not.toContain('HTTP/1.1 200');
  await until('the upload is cut off', () => upload?.destroyed === true);
  expect(rig.legacy.requests).toEqual([]);
  expect(rig.legacy.bytes).not.toContain('smuggled');
});

// --- what is framed well ---------------------------------------------------------------------------------

const good: readonly (readonly [what: string, fields: string, sent: string, body: string])[] = [
  ['a length', 'Content-Length: 5\r\n', 'hello', 'hello'],
  ['a length with zeros before it', 'Content-Length: 0005\r\n', 'hello', 'hello'],
  ['spaces around a length', 'Content-Length:  \t 5 \t \r\n', 'hello', 'hello'],
  ['a length without a space before it', 'Content-Length:5\r\n', 'hello', 'hello'],
  ['the name of the length in capitals', 'CONTENT-LENGTH: 5\r\n', 'hello', 'hello'],
  ['no length at all', '', '', ''],
  ['a length of 0', 'Content-Length: 0\r\n', '', ''],
  ['one chunk', chunked, '5\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['several chunks', chunked, '1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n', 'hello'],
  ['an empty chunked body', chunked, '0\r\n\r\n', ''],
  ['sizes in small letters', chunked, `a\r\n${'x'.repeat(10)}\r\n0\r\n\r\n`, 'x'.repeat(10)],
  ['sizes in capitals', chunked, `1A\r\n${'x'.repeat(26)}\r\n0\r\n\r\n`, 'x'.repeat(26)],
  ['zeros before a size', chunked, '0005\r\nhello\r\n000\r\n\r\n', 'hello'],
  ['an extension, which is not passed on', chunked, '5;a;b=c;d="e\\"f"\r\nhello\r\n0;g\r\n\r\n', 'hello'],
  [
    'Transfer-Encoding in other letters',
    'tRANSFER-eNCODING: CHUNKed\r\n',
    '5\r\nhello\r\n0\r\n\r\n',
    'hello',
  ],
  ['line ends within the body', chunked, `9\r\na\r\n0\r\n\r\nb\r\n0\r\n\r\n`, 'a\r\n0\r\n\r\nb'],
  ['a request within the body', `Content-Length: ${smuggled.length}\r\n`, smuggled, smuggled],
  ['bytes of every kind', 'Content-Length: 256\r\n', allBytes(), allBytes()],
];

function allBytes(): string {
  return String.fromCharCode(...Array.from({ length: 256 }, (_, at) => at));
}

test.each(good)(
  'row 7: a request with %s is forwarded whole, framed once',
  async (_what, fields, sent, body) => {
    const client = await rig.connect();
    // All in one write, and with another behind it: the end must be found, not guessed.
    client.send(`${head}${fields}\r\n${sent}${requestText('GET /next')}`);
    expect(statusOf(await client.answer())).toBe(200);
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.requests.map(({ startLine }) => startLine).toSorted()).toEqual([
      'GET /next HTTP/1.1',
      'POST /a HTTP/1.1',
    ]);
    const post = rig.legacy.requests.find(({ startLine }) => startLine.startsWith('POST'));
    expect(post?.body).toBe(body);
    expect(framesOf(post?.headers ?? [])).toBeLessThanOrEqual(1);
  },
);

/** Content-Length and Transfer-Encoding lines. */
function framesOf(headers: readonly string[]): number {
  return headers.filter((line) => /^(content-length|transfer-encoding):/i.test(line)).length;
}

test('row 7: an empty line before a request is skipped, and two requests in one write are two', async () => {
  const client = await rig.connect();
  client.send(`\r\n${requestText('GET /one')}\r\n${requestText('GET /two')}`);
  expect(statusOf(await client.answer())).toBe(200);
  expect(statusOf(await client.answer())).toBe(200);
  expect(rig.legacy.requests.map(({ startLine }) => startLine).toSorted()).toEqual([
    'GET /one HTTP/1.1',
    'GET /two HTTP/1.1',
  ]);
});

test('row 7: a field that gateways would read as a framing field does not reach the store', async () => {
  const lines = ['Transfer_Encoding: chunked', 'Content_Length: 3', 'Content-Length: 2'];
  await rig.exchange(requestText('POST /a', { lines, body: 'hi' }));
  const [sent] = rig.legacy.requests;
  expect(sent?.body).toBe('hi');
  expect(sent?.headers.filter((line) => /length|encoding/i.test(line))).toEqual([
    expect.stringMatching(/^content-length: 2$/i),
  ]);
});

test.each(['1.0', '1.1'])(
  'row 7: what stands behind a request that ends its connection (HTTP/%s) is no request',
  async (version) => {
    const client = await rig.connect();
    const lines = ['Host: shop.example', 'x-user: ann', 'Connection: close', 'Content-Length: 2'];
    client.send(`POST /a HTTP/${version}\r\n${lines.join('\r\n')}\r\n\r\nhi${smuggled}`);
    expect((await client.toTheEnd()).match(/HTTP\/1\.1 \d+/g)).toHaveLength(1);
    await rig.exchange(requestText('GET /after'));
    expect(rig.legacy.bytes).not.toContain('smuggled');
  },
);

// --- answers of a store ----------------------------------------------------------------------------------

const badAnswers: readonly (readonly [what: string, bytes: string])[] = [
  ['two lengths that differ', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok'],
  ['a list of lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok'],
  ['a negative length', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok'],
  ['a length with a plus sign', 'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok'],
  ['a length beyond 64 bits', 'HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok'],
  [
    'a length and a coding',
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  [
    'a coding and a length',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  ],
  ['a space before the colon', 'HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n'],
  ['a NUL in a value', 'HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok'],
  ['a carriage return in a value', 'HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\nok'],
  ['no status', 'HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok'],
  ['a status of four digits', 'HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok'],
  ['another protocol', 'ICY 200 OK\r\nContent-Length: 2\r\n\r\nok'],
  ['no HTTP at all', '220 mail.example ESMTP\r\n\r\n'],
];

const answering =
  (bytes: string): RawAnswer =>
  (_request, socket) =>
    void socket.write(bytes, 'latin1');

test.each(badAnswers)(
  'row 7: an answer with %s is 502, and nothing of it reaches a client',
  async (_what, bytes) => {
    rig.legacy.answer = answering(bytes);
    const client = await rig.connect();
    client.send(requestText('GET /a'));
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(502);
    expect(problemOf(answer)['code']).toBe('upstream-failed');
    rig.legacy.answer = answerOk;
    // Neither on this connection nor on the one to the store.
    client.send(requestText('GET /b'));
    expect((await client.answer()).body).toBe('ok');
    expect(client.received).toBe('');
  },
);

const badAnswerChunks: readonly (readonly [what: string, body: string])[] = [
  ['a size that is no number', 'x\r\nhello\r\n0\r\n\r\n'],
  ['a negative size', '-1\r\nhello\r\n0\r\n\r\n'],
  ['a size beyond 64 bits', '10000000000000005\r\nhello\r\n0\r\n\r\n'],
  ['data longer than its size', '5\r\nhello!\r\n0\r\n\r\n'],
  ['no line end behind the data', '5\r\nhello0\r\n\r\n'],
  ['a line feed behind the size', '5\nhello\r\n0\r\n\r\n'],
];

test.each(badAnswerChunks)(
  'row 7: an answer whose body has %s is broken at the client',
  async (_what, body) => {
    rig.legacy.answer = answering(`HTTP/1.1 200 OK\r\n${chunked}\r\n2\r\nok\r\n${body}`);
    const client = await rig.connect();
    client.send(requestText('GET /a'));
    const received = await client.toTheEnd();
    expect(received).not.toMatch(/\r\n0\r\n\r\n$/);
    rig.legacy.answer = answerOk;
    expect((await rig.exchange(requestText('GET /b'))).body).toBe('ok');
  },
);

// --- bodies of all methods -------------------------------------------------------------------------------

const bodied = [
  'DELETE',
  'GET',
  'OPTIONS',
  'PUT',
  'PATCH',
  'PROPFIND',
  'REPORT',
  'SEARCH',
  'MOVE',
  'LOCK',
  'QUERY',
];

test.each(bodied)('row 8: %s with a chunked body keeps its framing', async (method) => {
  const client = await rig.connect();
  client.send(
    `${requestText(`${method} /a`, { lines: ['Transfer-Encoding: chunked'] })}5\r\nhello\r\n0\r\n\r\n`,
  );
  expect(statusOf(await client.answer())).toBe(200);
  client.send(requestText('GET /next'));
  expect(statusOf(await client.answer())).toBe(200);
  expect(rig.legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
    [`${method} /a HTTP/1.1`, 'hello'],
    ['GET /next HTTP/1.1', ''],
  ]);
  expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'transfer-encoding')).toBe('chunked');
  expect(framesOf(rig.legacy.requests[0]?.headers ?? [])).toBe(1);
});

test.each(bodied)('row 8: %s with a length keeps its framing', async (method) => {
  const client = await rig.connect();
  client.send(requestText(`${method} /a`, { lines: ['Content-Length: 5'], body: 'hello' }));
  expect(statusOf(await client.answer())).toBe(200);
  client.send(requestText('GET /next'));
  expect(statusOf(await client.answer())).toBe(200);
  expect(rig.legacy.requests.map(({ startLine, body }) => [startLine, body])).toEqual([
    [`${method} /a HTTP/1.1`, 'hello'],
    ['GET /next HTTP/1.1', ''],
  ]);
  expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'content-length')).toBe('5');
  expect(framesOf(rig.legacy.requests[0]?.headers ?? [])).toBe(1);
});

test.each(['chunked', 'a length'])(
  'row 8: a body beyond all buffers, framed with %s, arrives whole',
  async (how) => {
    const body = 'x'.repeat(300_000);
    const client = await rig.connect();
    client.send(
      how === 'chunked'
        ? `${requestText('DELETE /a', { lines: ['Transfer-Encoding: chunked'] })}${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
        : requestText('DELETE /a', { lines: [`Content-Length: ${body.length}`], body }),
    );
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.requests[0]?.body === body).toBe(true);
    expect(framesOf(rig.legacy.requests[0]?.headers ?? [])).toBe(1);
  },
);

test.each(['GET', 'DELETE', 'HEAD', 'OPTIONS'])('row 8: %s without a body gets none', async (method) => {
  await rig.exchange(requestText(`${method} /a`));
  const [sent] = rig.legacy.requests;
  expect(sent?.body).toBe('');
  expect(headerOf(sent ?? { headers: [] }, 'transfer-encoding')).toBeUndefined();
  expect(headerOf(sent ?? { headers: [] }, 'content-length') ?? '0').toBe('0');
});
