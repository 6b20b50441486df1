/** What the proxy takes for an answer, and what it refuses: no message may mean one thing here and another there. */
import { describe, expect, test } from '@jest/globals';
import { exportsNeeded, Llhttp, mustFit } from '../../../src/proxy/upstream/llhttp.ts';
import { ResponseParser } from '../../../src/proxy/upstream/response-parser.ts';
import { limits, parse, type Parsed } from '../../support/answers.ts';

const ok = 'HTTP/1.1 200 OK\r\n';
const always = Number.POSITIVE_INFINITY;

/** Cut at every place, and byte by byte: where packets begin must never matter. */
function everyCut(answer: string): string[][] {
  const cuts = Array.from({ length: answer.length - 1 }, (_, at) => [
    answer.slice(0, at + 1),
    answer.slice(at + 1),
  ]);
  return [[answer], answer.split(''), ...cuts];
}

describe('answers that are taken, wherever they are cut', () => {
  const cases: readonly [
    name: string,
    answer: string,
    found: { fields?: string[]; body?: string; trailers?: string[]; keepMs?: number; reason?: string },
    how?: { method?: string; ends?: boolean },
  ][] = [
    ['a length', `${ok}Content-Length: 2\r\n\r\nhi`, { fields: ['Content-Length', '2'], body: 'hi' }],
    ['a length of 0', `${ok}Content-Length: 0\r\n\r\n`, { fields: ['Content-Length', '0'] }],
    ['zeros before a length', `${ok}Content-Length: 0002\r\n\r\nhi`, { body: 'hi' }],
    [
      'chunks',
      `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\n you\r\n0\r\n\r\n`.replace('3', '4'),
      { body: 'hi you' },
    ],
    [
      'chunks in capitals',
      `${ok}TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n`,
      { body: '0123456789' },
    ],
    [
      'extensions of chunks',
      `${ok}Transfer-Encoding: chunked\r\n\r\n2;a=b;c="d"\r\nhi\r\n0;x\r\n\r\n`,
      { body: 'hi' },
    ],
    [
      'trailers',
      `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7 \r\nx-sum:\r\n\r\n`,
      { body: 'hi', trailers: ['X-Sum', '7', 'x-sum', ''] },
    ],
    ['an end without length', `${ok}\r\nhi`, { body: 'hi', keepMs: 0 }, { ends: true }],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\n\r\nhi', { body: 'hi', keepMs: 0 }, { ends: true }],
    ['HTTP/1.0 with a length', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi', { body: 'hi', keepMs: 0 }],
    [
      'HTTP/1.0 that stays open',
      'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi',
      { body: 'hi', keepMs: always },
    ],
    ['Connection: close', `${ok}Connection: X, Close\r\nContent-Length: 0\r\n\r\n`, { keepMs: 0 }],
    ['close before a tab', `${ok}Connection: close\t\r\nContent-Length: 0\r\n\r\n`, { keepMs: 0 }],
    ['a hint', `${ok}Keep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n`, { keepMs: 5_000 }],
    ['a hint that says nothing', `${ok}Keep-Alive: max=9\r\nContent-Length: 0\r\n\r\n`, { keepMs: always }],
    ['the answer to HEAD with a length', `${ok}Content-Length: 5\r\n\r\n`, {}, { method: 'HEAD' }],
    ['the answer to HEAD with chunks', `${ok}Transfer-Encoding: chunked\r\n\r\n`, {}, { method: 'HEAD' }],
    ['the answer to HEAD with neither', `${ok}\r\n`, {}, { method: 'HEAD' }],
    ['204', 'HTTP/1.1 204 No Content\r\n\r\n', { reason: 'No Content' }],
    [
      '304',
      'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n',
      { fields: ['ETag', '"1"'], reason: 'Not Modified' },
    ],
    // The body that it announces may follow, against the rules, and would be taken for the next answer.
    ['204 with a length', 'HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\n', { keepMs: 0, reason: 'N' }],
    ['304 with chunks', 'HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n', { keepMs: 0, reason: 'N' }],
    ['no reason', 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n', { reason: '' }],
    ['an empty reason', 'HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n', { reason: '' }],
    [
      'a reason of any letters',
      'HTTP/1.1 200 \xe9t\xe9 ok\r\nContent-Length: 0\r\n\r\n',
      { reason: '\xe9t\xe9 ok' },
    ],
    [
      'order, case, number and emptiness of fields',
      `${ok}B: 2\r\nSet-Cookie: a=1\r\na:\t 1 \t \r\nSET-cookie: b=2\r\nEmpty:\r\nblank:   \r\nHigh: \xff\r\nContent-Length: 0\r\n\r\n`,
      {
        fields: [
          ...[
            'B',
            '2',
            'Set-Cookie',
            'a=1',
            'a',
            '1',
            'SET-cookie',
            'b=2',
            'Empty',
            '',
            'blank',
            '',
            'High',
            '\xff',
          ],
          ...['Content-Length', '0'],
        ],
      },
    ],
    ['lines before the status line', `\r\n\r\n${ok}Content-Length: 0\r\n\r\n`, {}],
    [
      'an offer to upgrade',
      `${ok}Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\na`,
      { body: 'a' },
    ],
    ['a strange status', 'HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n', {}],
  ];

  test.each(cases)('%s', (_name, answer, found, how = {}) => {
    for (const pieces of everyCut(answer)) {
      const { head, body, end, refusal } = parse(pieces, how);
      expect(refusal).toBeUndefined();
      expect(body).toBe(found.body ?? '');
      expect(end).toEqual({ rawTrailers: found.trailers ?? [], keepMs: found.keepMs ?? always });
      expect(head?.reason).toBe(found.reason ?? 'OK');
      if (found.fields !== undefined) expect(head?.rawHeaders).toEqual(found.fields);
    }
  });

  test('interim answers come before the final one, each with its own fields', () => {
    const answer = `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 150 X\r\nContent-Length: 4\r\n\r\n${ok}Content-Length: 2\r\n\r\nhi`;
    for (const pieces of everyCut(answer)) {
      const { interim, head, body, refusal } = parse(pieces);
      expect(refusal).toBeUndefined();
      expect(interim.map(({ status, rawHeaders }) => [status, rawHeaders])).toEqual([
        [100, []],
        [103, ['Link', '</a>']],
        [150, ['Content-Length', '4']],
      ]);
      expect([head?.status, head?.rawHeaders, body]).toEqual([200, ['Content-Length', '2'], 'hi']);
    }
  });

  test('an event stream is seen by its type, and by nothing that only looks like it', () => {
    const typed = (type: string): boolean | undefined =>
      parse([`${ok}content-TYPE: ${type}\r\nContent-Length: 0\r\n\r\n`]).head?.eventStream;
    expect(
      ['text/event-stream', 'Text/Event-Stream; charset=utf-8', 'text/event-stream ;x'].map(typed),
    ).toEqual([true, true, true]);
    expect(['text/event-streams', 'application/json', 'x text/event-stream'].map(typed)).toEqual([
      false,
      false,
      false,
    ]);
  });

  test('pieces of any size, also longer than what is parsed at once', () => {
    const body = 'x'.repeat(300_000);
    const whole = parse([`${ok}Content-Length: ${body.length}\r\n\r\n${body}`]);
    expect(whole.body.length).toBe(body.length);
    expect(whole.end?.keepMs).toBe(always);
    expect(parse([`${ok}Content-Length: ${body.length}\r\n\r\n${body}HTTP/1.1`]).end?.keepMs).toBe(0);
  });

  test('one parser takes one answer after the other', () => {
    const parser = new ResponseParser(limits);
    for (const [method, answer, body] of [
      ['GET', `${ok}Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi`, 'hi'],
      ['HEAD', `${ok}Content-Length: 2\r\n\r\n`, ''],
      [
        'GET',
        `HTTP/1.1 103 E\r\n\r\n${ok}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: 1\r\n\r\n`,
        'a',
      ],
      ['GET', 'HTTP/1.1 204 N\r\nContent-Length: 1\r\n\r\n', ''],
      ['GET', `${ok}Content-Length: 1\r\n\r\nb`, 'b'],
    ] as const) {
      parser.expect(method);
      const taken = parser.take(Buffer.from(answer));
      expect(Buffer.concat(taken.body).toString()).toBe(body);
      expect(taken.refusal).toBeUndefined();
      expect(taken.end).toBeDefined();
    }
    parser.expect('GET');
    expect(parser.take(Buffer.from(`${ok}Content-Length: 0\r\n\r\n`)).end?.keepMs).toBe(always);
    parser.free();
  });
});

describe('answers that are refused, wherever they are cut', () => {
  test.each([
    [
      'a length and a coding',
      `${ok}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n`,
      /can't be present with/,
    ],
    [
      'a coding and a length',
      `${ok}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n`,
      /can't be present with/,
    ],
    ['two lengths', `${ok}Content-Length: 2\r\nContent-Length: 3\r\n\r\n`, /Duplicate Content-Length/],
    [
      'the same length twice',
      `${ok}Content-Length: 2\r\nContent-Length: 2\r\n\r\n`,
      /Duplicate Content-Length/,
    ],
    ['a list of lengths', `${ok}Content-Length: 2, 2\r\n\r\n`, /Content-Length/],
    ['a length with a sign', `${ok}Content-Length: +2\r\n\r\n`, /Content-Length/],
    ['a negative length', `${ok}Content-Length: -2\r\n\r\n`, /Content-Length/],
    ['a length in hex', `${ok}Content-Length: 0x2\r\n\r\n`, /Content-Length/],
    ['a length with a point', `${ok}Content-Length: 2.0\r\n\r\n`, /Content-Length/],
    ['an empty length', `${ok}Content-Length:\r\n\r\n`, /Empty Content-Length/],
    ['too large a length', `${ok}Content-Length: 99999999999999999999\r\n\r\n`, /Content-Length/],
    [
      'a length among trailers',
      `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 2\r\n\r\n`,
      /Content-Length/,
    ],
    ['another coding', `${ok}Transfer-Encoding: gzip\r\n\r\n`, /"gzip" is not taken/],
    [
      'another coding before chunks',
      `${ok}Transfer-Encoding: gzip, chunked\r\n\r\n`,
      /"gzip, chunked" is not taken/,
    ],
    [
      'another coding behind chunks',
      `${ok}Transfer-Encoding: chunked, gzip\r\n\r\n`,
      /"chunked, gzip" is not taken/,
    ],
    [
      'chunks twice',
      `${ok}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`,
      /"chunked, chunked" is not taken/,
    ],
    ['an empty coding', `${ok}Transfer-Encoding:\r\n\r\n`, /"" is not taken/],
    [
      'a coding that looks like chunks',
      `${ok}Transfer-Encoding: xchunked\r\n\r\n`,
      /"xchunked" is not taken/,
    ],
    ['a coding with a parameter', `${ok}Transfer-Encoding: chunked;q=1\r\n\r\n`, /is not taken/],
    ['identity', `${ok}Transfer-Encoding: identity\r\n\r\n`, /"identity" is not taken/],
    [
      'chunks in HTTP/1.0',
      'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
      /is not taken from HTTP\/1\.0/,
    ],
    [
      'a space before the colon',
      `${ok}Transfer-Encoding : chunked\r\n\r\n`,
      /Invalid header (token|field char)/,
    ],
    ['a nameless field', `${ok}: x\r\n\r\n`, /Invalid header token/],
    ['a line that is no field', `${ok}nonsense\r\n\r\n`, /Invalid header token/],
    ['a NUL in a name', `${ok}A\0: x\r\n\r\n`, /Invalid header token/],
    ['a NUL in a value', `${ok}A: x\0y\r\n\r\n`, /Invalid header value/],
    ['a CR in a value', `${ok}A: x\ry\r\n\r\n`, /LF/],
    ['a bare LF', `${ok}A: x\nB: y\r\n\r\n`, /CR/],
    ['a bare LF behind the status line', 'HTTP/1.1 200 OK\nA: x\r\n\r\n', /CR/],
    ['CR CR behind the status line', 'HTTP/1.1 200 OK\r\rA: x\r\n\r\n', /Expected LF/],
    ['CR CR behind a bare status line', 'HTTP/1.1 200\r\r\r\n', /Expected LF/],
    ['a folded field', `${ok}A: x\r\n y\r\n\r\n`, /whitespace/],
    ['a chunk size with a sign', `${ok}Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n`, /chunk size/],
    ['a chunk size in hex with 0x', `${ok}Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n`, /chunk size/],
    ['a space behind a chunk size', `${ok}Transfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n`, /chunk size/],
    ['too large a chunk', `${ok}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n`, /[Cc]hunk size/],
    ['a chunk that ends with LF', `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n`, /chunk/],
    [
      'a chunk that is longer than its size',
      `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhix\r\n0\r\n\r\n`,
      /chunk/,
    ],
    ['HTTP/0.9', 'HTTP/0.9 200 OK\r\n\r\n', /HTTP\/0\.9 is not spoken/],
    ['HTTP/2.0', 'HTTP/2.0 200 OK\r\n\r\n', /HTTP\/2\.0 is not spoken/],
    ['HTTP/1.2', 'HTTP/1.2 200 OK\r\n\r\n', /version/],
    ['RTSP', 'RTSP/1.1 200 OK\r\n\r\n', /Expected HTTP/],
    ['ICE', 'ICE/1.0 200 OK\r\n\r\n', /Expected HTTP/],
    ['ICY', 'ICY 200 OK\r\n\r\n', /Expected HTTP/],
    ['a request', 'GET / HTTP/1.1\r\n\r\n', /Expected HTTP/],
    ['TLS', '\x15\x03\x01\x00\x02\x02\x0a', /Expected HTTP/],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n', /status/],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n', /status/],
    ['a status below 100', 'HTTP/1.1 042 OK\r\n\r\n', /below 100/],
    [
      'a switch of protocols',
      'HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
      /switch protocols/,
    ],
    ['a switch of protocols without their name', 'HTTP/1.1 101 S\r\n\r\n', /switch protocols/],
    [
      'another protocol behind an interim answer',
      'HTTP/1.1 103 E\r\n\r\nRTSP/1.0 200 OK\r\n\r\n',
      /Expected HTTP/,
    ],
    ['an interim answer that closes', `HTTP/1.1 103 E\r\nConnection: close\r\n\r\n${ok}`, /Data after/],
  ])('%s', (_name, answer, why) => {
    for (const pieces of everyCut(answer)) {
      const { refusal, end } = parse(pieces);
      expect(refusal).toMatch(why);
      expect(end).toBeUndefined();
    }
  });

  test.each([
    ['in its status line', 'HTTP/1.1 20'],
    ['in its head', `${ok}Content-Le`],
    ['in its body', `${ok}Content-Length: 3\r\n\r\nhi`],
    ['in a chunk', `${ok}Transfer-Encoding: chunked\r\n\r\n3\r\nhi`],
    ['between chunks', `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n`],
    ['in its trailers', `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n`],
  ])('one that ends %s', (_name, answer) => {
    const { refusal, end } = parse([answer], { ends: true });
    expect([refusal, end]).toEqual(['Invalid EOF state', undefined]);
  });

  test('the end of a connection before any answer is no answer', () => {
    expect(parse([], { ends: true })).toMatchObject({ head: undefined, end: undefined });
    expect(parse(['HTTP/1.1 100 C\r\n\r\n'], { ends: true })).toMatchObject({
      head: undefined,
      end: undefined,
    });
  });

  test('what was whole before it is still passed on', () => {
    const { head, body, refusal } = parse([`${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nnonsense`]);
    expect([head?.status, body]).toEqual([200, 'hi']);
    expect(refusal).toMatch(/chunk size/);
  });
});

describe('bounds', () => {
  const cut = (answer: string, bytes: number): string[] =>
    Array.from({ length: Math.ceil(answer.length / bytes) }, (_, at) =>
      answer.slice(at * bytes, (at + 1) * bytes),
    );
  const small = { headBytesMax: 1_000, fieldsMax: 20, interimMax: 3 };
  const heads: readonly [string, string][] = [
    ['a long value', `${ok}A: ${'x'.repeat(1_000)}\r\nContent-Length: 0\r\n\r\n`],
    ['a long name', `${ok}${'x'.repeat(1_000)}: a\r\nContent-Length: 0\r\n\r\n`],
    ['a long reason', `HTTP/1.1 200 ${'x'.repeat(1_000)}\r\nContent-Length: 0\r\n\r\n`],
    [
      'many long fields',
      `${ok}${'a: 12345678901234567890123456789012345678901234567890123456789\r\n'.repeat(19)}\r\n`,
    ],
    ['many fields', `${ok}${'a:b\r\n'.repeat(21)}\r\n`],
    ['white space before a value', `${ok}A:${' '.repeat(1_000)}b\r\nContent-Length: 0\r\n\r\n`],
    ['lines before the status line', `${'\r\n'.repeat(600)}${ok}\r\n`],
    ['trailers', `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: ${'x'.repeat(1_000)}\r\n\r\n`],
    ['many trailers', `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\n${'a:b\r\n'.repeat(21)}\r\n`],
    ['interim answers', `${'HTTP/1.1 103 E\r\n\r\n'.repeat(4)}${ok}Content-Length: 0\r\n\r\n`],
    ['an interim answer', `HTTP/1.1 103 E\r\nA: ${'x'.repeat(1_000)}\r\n\r\n${ok}Content-Length: 0\r\n\r\n`],
  ];
  test.each(heads)('%s: refused, at once and in small pieces', (_name, answer) => {
    for (const bytes of [answer.length, 100, 7]) {
      expect(parse(cut(answer, bytes), small).refusal).toMatch(/^Too (many|long)/);
    }
    expect(
      parse([answer], { ...small, headBytesMax: 5_000, fieldsMax: 100, interimMax: 9 }).refusal,
    ).toBeUndefined();
  });

  test('a head that never ends is refused before it is kept', () => {
    const endless = cut(`${ok}A: ${'x'.repeat(100_000)}`, 500);
    expect(parse(endless.slice(0, 3), small).refusal).toMatch(/^Too many bytes/);
  });

  test('an extension of a chunk that never ends is refused, long bodies of small chunks are not', () => {
    const chunks = `${ok}Transfer-Encoding: chunked\r\n\r\n`;
    expect(parse(cut(`${chunks}2;${'x'.repeat(2_000)}`, 100), small).refusal).toMatch(/^Too many bytes/);
    const body = parse(cut(`${chunks}${'1\r\nx\r\n'.repeat(5_000)}0\r\n\r\n`, 50), small);
    expect([body.body.length, body.end?.keepMs, body.refusal]).toEqual([5_000, always, undefined]);
  });

  test('a body without length is not bounded', () => {
    expect(parse(cut(`${ok}\r\n${'x'.repeat(50_000)}`, 999), { ...small, ends: true }).body.length).toBe(
      50_000,
    );
  });
});

describe('bytes behind the end of an answer', () => {
  test.each([
    ['another answer', `${ok}Content-Length: 2\r\n\r\nhi${ok}Content-Length: 4\r\n\r\nevil`],
    ['an empty line', `${ok}Content-Length: 2\r\n\r\nhi\r\n`],
    ['behind chunks', `${ok}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx`],
    ['behind Connection: close', `${ok}Connection: close\r\nContent-Length: 2\r\n\r\nhix`],
  ])('%s: the connection is of no more use, the answer is whole', (_name, answer) => {
    const { body, end, refusal }: Parsed = parse([answer]);
    expect([body, end?.keepMs, refusal]).toEqual(['hi', 0, undefined]);
  });
});

describe('the build of llhttp', () => {
  const called = [
    ...['message_begin', 'url', 'status', 'header_field', 'header_value', 'headers_complete', 'body'],
    'message_complete',
  ].map((name) => `env.wasm_on_${name}`);

  test('has what is called here, and calls what is offered: it was loaded', () => {
    expect(() => mustFit(exportsNeeded, called)).not.toThrow();
    expect(parse([`${ok}Content-Length: 0\r\n\r\n`]).end).toBeDefined();
  });

  test('is named in a sentence where it does not', () => {
    const sentence = (what: string): RegExp =>
      new RegExp(
        `^The llhttp that the installed undici ships ${what}\\. Install the version of undici that package`,
      );
    expect(() => mustFit(exportsNeeded.slice(1), called)).toThrow(sentence('does not export memory'));
    expect(() => mustFit(exportsNeeded, [...called, 'env.wasm_on_reset'])).toThrow(
      sentence('calls env\\.wasm_on_reset'),
    );
    expect(() => mustFit(exportsNeeded, called.slice(1))).toThrow(
      sentence('does not call wasm_on_message_begin'),
    );
  });

  test('gives memory back', () => {
    const before = Llhttp.alive;
    const parsers = Array.from({ length: 1_000 }, () => new ResponseParser(limits));
    expect(Llhttp.alive).toBe(before + 1_000);
    for (const parser of parsers) parser.free();
    expect(Llhttp.alive).toBe(before);
    expect(() => parsers[0]?.free()).toThrow('freed twice');
    expect(() => parsers[0]?.take(Buffer.from(ok))).toThrow('used after it was freed');
  });
});
