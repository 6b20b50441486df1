/** Requests for fuzzing, as bytes (Latin-1 text): well-formed ones of every kind, and what mutations make of them. */
import fc from 'fast-check';

/** Stand for the two names in a request; every client fills in its own. */
export const userMark = '@user@';
export const tokenMark = '@token@';

/** Mostly usual, so that what is odd in one place is seen by more than the first check. */
function mostly<T>(usual: readonly T[], odd: fc.Arbitrary<T>): fc.Arbitrary<T> {
  return fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...usual) }, { weight: 1, arbitrary: odd });
}

const methods = fc.constantFrom(
  ...[
    'GET',
    'GET',
    'HEAD',
    'POST',
    'POST',
    'PUT',
    'PATCH',
    'DELETE',
    'OPTIONS',
    'PROPFIND',
    'REPORT',
    'MOVE',
  ],
  ...['TRACE', 'CONNECT', 'QUERY', 'get', 'M-SEARCH', 'PRI', 'FOO', ''],
);

const targets = fc.constantFrom(
  ...['/', '/a', '/a?b=c&&d', '/notes/7', '/notes/7/', '/NOTES/7', '/notes;x=1/7', '//a', '/a//b', '/%61'],
  ...[
    '/a%2fb',
    '/a/../b',
    '/a/%2e%2e/b',
    '/a\\b',
    '/%zz',
    '/%00',
    '/a#b',
    '/a b',
    '*',
    'a',
    '',
    '?x',
    '/graphql',
  ],
  ...['http://shop.example/a', 'http://elsewhere.example/a', 'HTTP://shop.example/a', 'shop.example:443'],
  ...[
    '/search',
    '/.well-known/onewriter/health',
    '/.well-known/onewriter/guard/seal',
    `/${'x'.repeat(3000)}`,
  ],
  '/\xff\xfe',
);

const versions = fc.constantFrom(
  ...[
    'HTTP/1.1',
    'HTTP/1.1',
    'HTTP/1.1',
    'HTTP/1.1',
    'HTTP/1.0',
    'HTTP/0.9',
    'HTTP/2.0',
    'HTTP/1.10',
    'http/1.1',
    '',
  ],
);

const fields = fc.constantFrom(
  ...['Accept: */*', 'Connection: close', 'Connection: keep-alive, X-User', 'Connection: Content-Length'],
  ...[
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Upgrade: h2c',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ],
  ...[
    'Sec-WebSocket-Version: 13',
    'Expect: 100-continue',
    'Expect: nonsense',
    'TE: trailers',
    'Trailer: X-End',
  ],
  ...['Host: elsewhere.example', 'host:', 'Content-Type: application/json', 'Content-Type: text/plain, a/b'],
  ...[
    'Content-Type: application/x-www-form-urlencoded',
    'Content-Encoding: gzip',
    'X-HTTP-Method-Override: GET',
  ],
  ...['X-User: bob', 'x_user: bob', 'x-user:', 'X-Forwarded-For: 1.2.3.4', 'X-Forwarded-Host: evil.example'],
  ...['X-Original-URL: /admin', 'X-Forwarded-Prefix: /admin', 'X_Original_Url: /admin'],
  ...[
    'Onewriter-Epoch: 99',
    'Onewriter_User: bob',
    'Onewriter-Signature: v1,t=1,00',
    'Cookie: a=1',
    'Cookie: b=2',
  ],
  ...['Transfer-Encoding: chunked', 'Transfer-Encoding: identity', 'Transfer-Encoding: gzip, chunked'],
  ...['Transfer-Encoding : chunked', 'Transfer-Encoding:\tchunked', 'Transfer-Encoding: xchunked'],
  ...[
    'Content-Length: 5',
    'Content-Length: +5',
    'Content-Length: 5, 5',
    'Content-Length: 0x5',
    'Content-Length: -1',
  ],
  ...[
    'Content-Length: 99999999999999999999',
    'Content-Length:5',
    'Content_Length: 3',
    'Keep-Alive: timeout=1',
  ],
  ...[
    'Idempotency-Key: k1',
    'Destination: http://shop.example/b',
    'X-Odd: \xe4\xff',
    'X-Empty:',
    ': no name',
  ],
  ...[
    'X-Fold: a\r\n b',
    'no colon',
    `X-Long: ${'y'.repeat(2000)}`,
    'Proxy-Connection: keep-alive',
    'Via: 1.0 x',
  ],
);

const bodies = fc.constantFrom(
  ...['', '', '', 'hello', '{"owner":"ann","_method":"PUT"}', '{"query":"{ a }"}', '_method=DELETE&a=1'],
  ...['GET /smuggled HTTP/1.1\r\nHost: a\r\nx-user: bob\r\n\r\n', '0\r\n\r\n', '{"a":', 'z'.repeat(70_000)],
);

const framings = fc.constantFrom(
  ...(['none', 'both', 'short', 'long'] as const),
  ...(['bad-size', 'extended', 'trailers', 'bare-feeds', 'twice'] as const),
);

interface Parts {
  readonly method: string;
  readonly target: string;
  readonly version: string;
  readonly more: readonly string[];
  readonly body: string;
  readonly framing: string;
}

function chunked(body: string): string {
  const half = Math.ceil(body.length / 2);
  return [body.slice(0, half), body.slice(half)]
    .filter((part) => part !== '')
    .map((part) => `${part.length.toString(16)}\r\n${part}\r\n`)
    .join('');
}

/** Header lines and bytes of the body. */
function framed(
  body: string,
  framing: string,
): { readonly lines: readonly string[]; readonly bytes: string } {
  const coded = 'Transfer-Encoding: chunked';
  switch (framing) {
    case 'none':
      return { lines: [], bytes: body };
    case 'chunked':
      return { lines: [coded], bytes: `${chunked(body)}0\r\n\r\n` };
    case 'both':
      return { lines: [coded, `Content-Length: ${body.length}`], bytes: `${chunked(body)}0\r\n\r\n` };
    case 'short':
      return { lines: [`Content-Length: ${Math.max(0, body.length - 1)}`], bytes: body };
    case 'long':
      return { lines: [`Content-Length: ${body.length + 1}`], bytes: body };
    case 'bad-size':
      return { lines: [coded], bytes: `${body.length.toString(16)}g\r\n${body}\r\n0\r\n\r\n` };
    case 'extended':
      return { lines: [coded], bytes: `${body.length.toString(16)};a="\r\n";b\r\n${body}\r\n0\r\n\r\n` };
    case 'trailers':
      return {
        lines: [coded],
        bytes: `${chunked(body)}0\r\nX-End: 1\r\nx-user: bob\r\nContent-Length: 4\r\n\r\n`,
      };
    case 'bare-feeds':
      return { lines: [coded], bytes: `${body.length.toString(16)}\n${body}\n0\n\n` };
    case 'twice':
      return { lines: [`Content-Length: ${body.length}`, `Content-Length: ${body.length + 1}`], bytes: body };
    default:
      return { lines: [`Content-Length: ${body.length}`], bytes: body };
  }
}

function written({ method, target, version, more, body, framing }: Parts): string {
  const { lines, bytes } = framed(body, framing);
  const start = `${method} ${target} ${version}`.trimEnd();
  const names = ['Host: shop.example', `x-user: ${userMark}`, `x-token: ${tokenMark}`];
  return [start, ...names, ...more, ...lines, '', bytes].join('\r\n');
}

const request = fc
  .record({
    method: mostly(['GET', 'POST', 'PUT', 'DELETE'], methods),
    target: mostly(['/a', '/notes/7', '/search'], targets),
    version: mostly(['HTTP/1.1'], versions),
    body: mostly(['', 'hello'], bodies),
    framing: mostly<string>(['length', 'chunked'], framings),
    more: fc.array(fields, { maxLength: 5 }),
  })
  .map(written);

/** Well-formed, so that the ones around it meet traffic that works. */
const goodRequest = fc
  .record({
    method: fc.constantFrom('GET', 'POST', 'PUT', 'DELETE'),
    target: fc.constantFrom('/a', '/notes/7?x=%2f', '/%C3%A4'),
    body: fc.constantFrom('hello', 'x'.repeat(2_000)),
    framing: fc.constantFrom('length', 'chunked'),
  })
  .map((parts) => written({ ...parts, version: 'HTTP/1.1', more: [] }));

const snippets = fc.constantFrom(
  ...[
    '\r\n',
    '\n',
    '\r',
    '\0',
    ' ',
    '\t',
    ':',
    '\r\n\r\n',
    '0\r\n\r\n',
    ';',
    ',',
    '/',
    '%',
    '\x80',
    'chunked',
    '1',
  ],
  ...[
    '\r\nTransfer-Encoding: chunked',
    '\r\nContent-Length: 0',
    '\r\nHost: b',
    ' HTTP/1.1',
    '\x16\x03\x01',
    '\x0b',
  ],
);

interface Mutation {
  readonly kind: 'insert' | 'remove' | 'repeat' | 'flip' | 'cut';
  /** Where, as a share of the length. */
  readonly at: number;
  readonly length: number;
  readonly text: string;
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom('insert', 'insert', 'remove', 'repeat', 'flip', 'cut'),
  at: fc.double({ min: 0, max: 1, noNaN: true }),
  length: fc.integer({ min: 1, max: 12 }),
  text: snippets,
});

function mutated(bytes: string, { kind, at, length, text }: Mutation): string {
  const from = Math.floor(at * bytes.length);
  const [before, part, after] = [
    bytes.slice(0, from),
    bytes.slice(from, from + length),
    bytes.slice(from + length),
  ];
  switch (kind) {
    case 'insert':
      return before + text + part + after;
    case 'remove':
      return before + after;
    case 'repeat':
      return before + part + part + after;
    case 'flip':
      return (
        before + String.fromCharCode((part.charCodeAt(0) || 0) ^ (1 << (length % 8))) + part.slice(1) + after
      );
    case 'cut':
      return before;
  }
}

const rubbish = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes).toString('latin1'));

/** All that one client sends on its connection, in the pieces in which it sends it. */
export const conversation: fc.Arbitrary<readonly string[]> = fc
  .record({
    requests: fc.array(
      fc.oneof({ weight: 5, arbitrary: request }, { weight: 3, arbitrary: goodRequest }, rubbish),
      {
        minLength: 1,
        maxLength: 3,
      },
    ),
    mutations: mostly<readonly Mutation[]>([[]], fc.array(mutation, { maxLength: 3 })),
    cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
  })
  .map(({ requests, mutations, cuts }) => {
    const bytes = mutations.reduce(mutated, requests.join(''));
    const places = [
      0,
      ...cuts.map((cut) => Math.floor(cut * bytes.length)).toSorted((a, b) => a - b),
      bytes.length,
    ];
    return places
      .slice(1)
      .map((end, at) => bytes.slice(places[at], end))
      .filter((piece) => piece !== '');
  });
