/**
 * The response parser beside Node's own client on the same bytes, made at random, damaged at random and cut at
 * random. Both must find the same answer and the same end, or refuse it; where we are stricter, it is said here how.
 * A failure prints its seed; FUZZ_SEED and FUZZ_RUNS run it again, or longer.
 */
import { Agent, type ClientRequest, type IncomingMessage, request as nodeRequest } from 'node:http';
import { Duplex } from 'node:stream';
import { expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { limits, parse, type Parsed } from '../../support/answers.ts';

type Outcome = 'complete' | 'refused' | 'incomplete';

interface Seen {
  outcome: Outcome;
  readonly interim: { status: number; rawHeaders: string[] }[];
  head: { status: number; reason: string; rawHeaders: string[]; version: string } | undefined;
  body: string;
  trailers: string[];
  kept: boolean;
  /** Node takes a switch of protocols. */
  switched: boolean;
}

class OneConnection extends Agent {
  readonly #socket: Duplex;
  readonly #seen: Seen;

  constructor(socket: Duplex, seen: Seen) {
    super({ keepAlive: true });
    this.#socket = socket;
    this.#seen = seen;
  }

  override createConnection(): Duplex {
    return this.#socket;
  }

  override keepSocketAlive(): boolean {
    this.#seen.kept = true;
    return false;
  }
}

const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

async function nodeSees(pieces: readonly string[], method: string, ends: boolean): Promise<Seen> {
  const seen: Seen = {
    outcome: 'incomplete',
    ...{ interim: [], head: undefined, body: '', trailers: [], kept: false, switched: false },
  };
  const socket = new Duplex({ read() {}, write: (_bytes, _encoding, done) => done() });
  socket.on('error', () => {});
  const asked: ClientRequest = nodeRequest({
    agent: new OneConnection(socket, seen),
    method,
    maxHeaderSize: limits.headBytesMax,
  });
  asked.on('information', ({ statusCode, rawHeaders }) => {
    seen.interim.push({ status: statusCode, rawHeaders });
  });
  asked.on('upgrade', () => (seen.switched = true));
  const onError = (error: Error & { readonly code?: string }): void => {
    if (error.code?.startsWith('HPE_') === true && error.code !== 'HPE_INVALID_EOF_STATE')
      seen.outcome = 'refused';
  };
  asked.on('error', onError);
  asked.on('response', (answer: IncomingMessage) => {
    const { statusCode = 0, statusMessage = '', rawHeaders, httpVersion } = answer;
    seen.head = { status: statusCode, reason: statusMessage, rawHeaders, version: httpVersion };
    answer.setEncoding('latin1');
    answer.on('data', (text: string) => (seen.body += text));
    answer.on('error', onError);
    answer.on('end', () => {
      seen.outcome = 'complete';
      seen.trailers = answer.rawTrailers;
    });
  });
  asked.end();
  await turn();
  for (const piece of pieces) socket.push(piece, 'latin1');
  if (ends) socket.push(null);
  await turn();
  await turn();
  asked.destroy();
  socket.destroy();
  return seen;
}

// --- answers at random -------------------------------------------------------------------------------

const weighted = <Value>(...values: readonly [weight: number, value: Value][]): fc.Arbitrary<Value> =>
  fc.oneof(...values.map(([weight, value]) => ({ weight, arbitrary: fc.constant(value) })));

const field = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.constantFrom(
      ...[
        'A: b',
        'Content-Type: text/html',
        'X-A:',
        'x-a:  b \t',
        'Set-Cookie: a=1',
        'Date: x',
        'High: \xe9\xff',
      ],
      ...[
        'Connection: close',
        'Connection: keep-alive',
        'connection: X, Close',
        'Keep-Alive: timeout=5',
        'TE: x',
      ],
      ...[
        'Upgrade: h2c',
        'Connection: Upgrade',
        'Proxy-Connection: close',
        'Trailer: T',
        `Long: ${'x'.repeat(300)}`,
      ],
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      ...[
        ' folded',
        ': nameless',
        'nonsense',
        'X: \0',
        'Content-Length : 3',
        'Content_Length: 9',
        'Transfer-Encoding : chunked',
      ],
    ),
  },
);
const version = weighted(
  [30, 'HTTP/1.1'],
  [5, 'HTTP/1.0'],
  [1, 'HTTP/2.0'],
  [1, 'HTTP/0.9'],
  [1, 'RTSP/1.1'],
  [1, 'http/1.1'],
  [1, 'HTTP/1.2'],
  [1, 'ICE/1.1'],
);
const status = weighted(
  [20, '200'],
  [4, '204'],
  [4, '304'],
  [4, '404'],
  [2, '500'],
  [1, '042'],
  [1, '101'],
  [1, '199'],
  [1, '999'],
  [1, '20'],
  [1, '1000'],
  [1, '000'],
);
const reason = weighted([8, ' OK'], [1, ''], [1, ' '], [1, ' \xe9t\xe9'], [1, '  two  words ']);
const text = fc.string({
  unit: fc.constantFrom('a', 'b', '0', '\r', '\n', '\xff', '\0', 'H'),
  maxLength: 40,
});

const chunks = fc
  .record({
    parts: fc.array(
      fc.record({
        data: text,
        extension: weighted([6, ''], [1, ';a'], [1, ';a=b'], [1, ';a="b"'], [1, ' ']),
      }),
      { maxLength: 4 },
    ),
    size: weighted(
      [6, (bytes: number) => bytes.toString(16)],
      [1, (bytes: number) => bytes.toString(16).toUpperCase()],
      [1, (bytes: number) => `000${bytes.toString(16)}`],
    ),
    trailers: fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.constantFrom('T: 1', 'U:', 't:  2 ') },
        { weight: 1, arbitrary: field },
        { weight: 1, arbitrary: fc.constantFrom('Content-Length: 1', 'Transfer-Encoding: chunked') },
      ),
      { maxLength: 2 },
    ),
    last: weighted([9, '0\r\n'], [1, '0;x\r\n'], [1, '00\r\n'], [1, '']),
  })
  .map(({ parts, size, trailers, last }) => {
    const sent = parts.filter(({ data }) => data !== '');
    const body = sent
      .map(({ data, extension }) => `${size(data.length)}${extension}\r\n${data}\r\n`)
      .join('');
    return `${body}${last}${trailers.map((line) => `${line}\r\n`).join('')}\r\n`;
  });

const framed = fc.oneof(
  { weight: 5, arbitrary: text.map((body) => ({ fields: [`Content-Length: ${body.length}`], body })) },
  { weight: 6, arbitrary: chunks.map((body) => ({ fields: ['Transfer-Encoding: chunked'], body })) },
  { weight: 3, arbitrary: text.map((body) => ({ fields: [] as string[], body })) },
  { weight: 1, arbitrary: chunks.map((body) => ({ fields: ['transfer-encoding: CHUNKED'], body })) },
  {
    weight: 1,
    arbitrary: fc.record({
      fields: fc.subarray([
        'Content-Length: 3',
        'Content-Length: 3',
        'Content-Length: 4',
        'Transfer-Encoding: chunked',
        'Transfer-Encoding: gzip',
      ]),
      body: text,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      fields: fc.constantFrom(
        ['Transfer-Encoding: gzip, chunked'],
        ['Transfer-Encoding: chunked, gzip'],
        ['Transfer-Encoding: identity'],
        ['Transfer-Encoding:'],
        ['Content-Length:'],
        ['Content-Length: 3, 3'],
        ['Content-Length: +3'],
        ['Content-Length: 99999999999999999999'],
        ['Content-Length: 3 '],
      ),
      body: fc.oneof(text, chunks),
    }),
  },
);

const message = fc
  .record({
    version,
    status,
    reason,
    before: fc.array(field, { maxLength: 4 }),
    framed,
    after: fc.array(field, { maxLength: 2 }),
  })
  .map(({ version, status, reason, before, framed: { fields, body }, after }) => {
    const lines = [...before, ...fields, ...after].map((line) => `${line}\r\n`);
    return `${version} ${status}${reason}\r\n${lines.join('')}\r\n${body}`;
  });
const interim = fc.constantFrom(
  'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 103 Early\r\nLink: <a>\r\n\r\n',
  'HTTP/1.0 102 P\r\n\r\n',
  'HTTP/1.1 103 E\r\nConnection: close\r\n\r\n',
);
const damage = fc.record({
  at: fc.nat(),
  kind: fc.constantFrom('replace', 'insert', 'remove'),
  by: fc.constantFrom('\r', '\n', ' ', '\t', '\0', ':', ';', '0', '9', 'f', '\xff', '\r\n', ',', 'H'),
});

const trial = fc.record({
  interims: fc.oneof({ weight: 5, arbitrary: fc.constant([]) }, fc.array(interim, { maxLength: 3 })),
  message,
  behind: weighted(
    [8, ''],
    [1, '\r\n'],
    [1, 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
    [1, 'x'],
    [1, 'HTTP/1'],
  ),
  damages: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, fc.array(damage, { maxLength: 3 })),
  cuts: fc.array(fc.nat(), { maxLength: 6 }),
  method: weighted([6, 'GET'], [2, 'POST'], [2, 'HEAD']),
  ends: fc.boolean(),
});

type Trial = typeof trial extends fc.Arbitrary<infer Value> ? Value : never;

function bytesOf({ interims, message, behind, damages }: Trial): string {
  let bytes = interims.join('') + message + behind;
  for (const { at, kind, by } of damages) {
    const where = at % (bytes.length + 1);
    bytes =
      bytes.slice(0, where) +
      (kind === 'remove' ? '' : by) +
      bytes.slice(where + (kind === 'insert' ? 0 : 1));
  }
  return bytes;
}

function cutAt(bytes: string, cuts: readonly number[]): string[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...places].map((from, at) => bytes.slice(from, places[at])).filter((piece) => piece !== '');
}

// --- the comparison ----------------------------------------------------------------------------------

function outcomeOf({ end, refusal }: Parsed): Outcome {
  if (end !== undefined) return 'complete';
  return refusal === undefined || refusal === 'Invalid EOF state' ? 'incomplete' : 'refused';
}

/** Where we refuse what Node takes: the sentence that we say, and what must be true of the answer then. */
const stricter: readonly [name: string, says: RegExp, holds: (node: Seen, bytes: string) => boolean][] = [
  [
    'a status below 100',
    /below 100/,
    ({ head }, bytes) => (head?.status ?? 0) < 100 || /\/1\.\d 0/.test(bytes),
  ],
  ['another version', /is not spoken/, (_node, bytes) => /HTTP\/(?:2\.0|0\.9)/.test(bytes)],
  ['another protocol', /^Expected HTTP\/$/, (_node, bytes) => /RTSP\/|ICE\//.test(bytes)],
  ['a switch of protocols', /switch protocols/, (_node, bytes) => / 101/.test(bytes)],
  [
    'another coding',
    /^Transfer-Encoding ".*" is not taken/,
    ({ head }, bytes) =>
      head === undefined || codingsOf(head.rawHeaders).join() !== 'chunked' || /HTTP\/1\.0/.test(bytes),
  ],
  ['a tab in a length', /Content-Length/, (_node, bytes) => /content-length:.*\t/i.test(bytes)],
];

function codingsOf(rawHeaders: readonly string[]): string[] {
  return rawHeaders
    .filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === 'transfer-encoding')
    .map((value) => value.toLowerCase());
}

/** Seconds for which the store keeps an idle connection, as it says. */
function hintOf(bytes: string): number | undefined {
  const hint = /^keep-alive:.*timeout=(\d+)/im.exec(bytes)?.[1];
  return hint === undefined ? undefined : Number(hint);
}

/** Why a connection that Node keeps is not used again here. */
function reasonNotToKeep(bytes: string, node: Seen, parse1: (bytes: string) => Parsed): string | undefined {
  const names = node.head?.rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase()) ?? [];
  const trailers = node.trailers.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
  if (trailers.some((name) => /^(?:(?:proxy-)?connection|transfer-encoding)$/.test(name)))
    return 'a trailer that closes';
  if (/^(?:proxy-)?connection:.*close.*\r$/im.test(bytes)) return 'close beside keep-alive';
  if (hintOf(bytes) === 0) return 'a hint to keep it for no time';
  const bodyless = node.head?.status === 204 || node.head?.status === 304;
  if (bodyless && (names.includes('content-length') || names.includes('transfer-encoding')))
    return 'a forbidden body';
  // It is whole without its last byte: that one belongs to nothing.
  if (parse1(bytes.slice(0, -1)).end !== undefined) return 'bytes behind the end';
  return undefined;
}

const runs = Number(process.env['FUZZ_RUNS'] ?? 8_000);
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

test(`Node and we see the same in ${runs} answers at random (FUZZ_SEED=${seed})`, async () => {
  const counted = new Map<string, number>();
  const count = (what: string): void => void counted.set(what, (counted.get(what) ?? 0) + 1);
  const property = fc.asyncProperty(trial, async (made) => {
    const { method, ends, cuts } = made;
    const bytes = bytesOf(made);
    const pieces = cutAt(bytes, cuts);
    const ours = parse(pieces, { method, ends });
    const node = await nodeSees(pieces, method, ends);
    const strict = stricter.find(([, says]) => says.test(ours.refusal ?? ''));
    if (strict?.[2](node, bytes) === true) {
      count(strict[0]);
      return;
    }
    const outcome = outcomeOf(ours);
    count(outcome);
    const oursKept = outcome === 'complete' && ours.end?.keepMs !== 0;
    expect({
      outcome,
      interim: ours.interim.map(({ status, rawHeaders }) => ({ status, rawHeaders })),
    }).toEqual({
      outcome: node.outcome,
      interim: node.interim,
    });
    expect(ours.head && [ours.head.status, ours.head.reason, ours.head.rawHeaders]).toEqual(
      node.head && [node.head.status, node.head.reason, node.head.rawHeaders],
    );
    if (outcome !== 'complete') {
      // What came before the fault may be lost in Node's buffers.
      expect(ours.body.startsWith(node.body)).toBe(true);
      return;
    }
    expect([ours.body, ours.end?.rawTrailers]).toEqual([node.body, node.trailers]);
    if (oursKept === node.kept) return;
    const why = node.kept
      ? reasonNotToKeep(bytes, node, (shorter) => parse([shorter], { method, ends }))
      : method === 'HEAD'
        ? 'the answer to HEAD needs no length'
        : hintOf(bytes) === 1
          ? 'Node takes a second off the hint'
          : undefined;
    if (why === undefined)
      throw new Error(`kept by ${oursKept ? 'us' : 'Node'} alone: ${JSON.stringify(bytes)}`);
    count(why);
  });
  await fc.assert(property, { numRuns: runs, seed, interruptAfterTimeLimit: 25_000 });
  // Nothing of it was in vain.
  for (const outcome of ['complete', 'refused', 'incomplete']) {
    expect([outcome, (counted.get(outcome) ?? 0) > runs / 100]).toEqual([outcome, true]);
  }
  for (const [name] of stricter.slice(0, 5)) expect([name, counted.has(name)]).toEqual([name, true]);
}, 60_000);
