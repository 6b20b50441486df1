/**
 * Requests as they are written to a store, read by Node's own server: it must find exactly what was meant, and the
 * next request where this one ends. A failure prints its seed; FUZZ_SEED and FUZZ_RUNS run it again, or longer.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import type { UpstreamBody, UpstreamBodySink, UpstreamRequest } from '../../../src/proxy/upstream.ts';
import { writeRequest } from '../../../src/proxy/upstream/request-writer.ts';

interface Read {
  readonly method: string | undefined;
  readonly target: string | undefined;
  readonly rawHeaders: string[];
  readonly body: string;
  readonly trailers: string[];
}

const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

/** Keeps what is written; its other end is read by a server. */
class Wire extends Duplex {
  written = '';

  override _read(): void {}

  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    this.written += bytes.toString('latin1');
    done();
  }
}

/** A body that comes in pieces. */
function bodyOf(
  pieces: readonly string[],
  trailers: readonly string[],
  length: number | undefined,
): UpstreamBody {
  return {
    length,
    start: (sink: UpstreamBodySink) => {
      for (const piece of pieces) sink.piece(Buffer.from(piece, 'latin1'));
      sink.end(trailers);
    },
    resume: () => {},
    stop: () => {},
  };
}

interface Watched {
  readonly written: string;
  readonly sent: boolean;
  readonly broken: string | undefined;
}

function write(request: UpstreamRequest): Watched {
  const wire = new Wire();
  const watched = { sent: false, broken: undefined as string | undefined };
  const sender = writeRequest(wire as unknown as Socket, request, {
    onProgress: () => {},
    onSent: () => (watched.sent = true),
    onBroken: (cause) => (watched.broken = cause.message),
  });
  sender?.start();
  return { ...watched, written: wire.written };
}

/** All requests that Node finds in the bytes. */
async function nodeReads(bytes: string): Promise<Read[]> {
  const found: Read[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    let body = '';
    request.setEncoding('latin1');
    request.on('data', (text: string) => (body += text));
    request.on('end', () => {
      const { method, url, rawHeaders, rawTrailers } = request;
      found.push({ method, target: url, rawHeaders, body, trailers: rawTrailers });
      response.end();
    });
  });
  server.on('clientError', (error: Error) => {
    found.push({ method: `refused: ${error.message}`, target: '', rawHeaders: [], body: '', trailers: [] });
  });
  const wire = new Wire();
  server.emit('connection', wire);
  wire.push(bytes, 'latin1');
  for (let turns = 0; turns < 6; turns += 1) await turn();
  wire.destroy();
  return found;
}

type Field = readonly [name: string, value: string];
const field = fc.constantFrom<Field[]>(
  ['A', 'b'],
  ['X-Empty', ''],
  ['x-high', '\xe9\xff'],
  ['Cookie', 'a=1; b="2"'],
  ['Accept', '*/*'],
  ['X-Fourteen-Let', '1'],
  ['X-Seventeen-Lette', '2'],
  ['X-Seven', '3'],
  ['A', 'c'],
);
const framingField = fc.constantFrom<Field[]>(
  ['Content-Length', '77'],
  ['content-length', '0'],
  ['Transfer-Encoding', 'chunked'],
  ['TRANSFER-encoding', 'chunked'],
  ['Trailer', 'T'],
);
const text = fc.string({ unit: fc.constantFrom('a', '\r', '\n', '0', '\xff', '\0'), maxLength: 30 });
const trailers = fc
  .array(fc.constantFrom(['T', '1'], ['t', ''], ['U', 'x y']), { maxLength: 2 })
  .map((list) => list.flat());

const meant = fc.record({
  method: fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND'),
  target: fc.constantFrom('/', '//a//b', '/%zz?x&&y=%2F', '/a;b=1?', '/%C3%A9'),
  before: fc.array(field, { maxLength: 4 }),
  framing: fc.array(framingField, { maxLength: 2 }),
  after: fc.array(field, { maxLength: 3 }),
  body: fc.oneof(
    fc.constant({ kind: 'none' as const, pieces: [] as string[], trailers: [] as string[] }),
    fc.record({
      kind: fc.constantFrom('whole' as const, 'length' as const),
      pieces: fc.array(text, { minLength: 1, maxLength: 1 }),
      trailers: fc.constant([] as string[]),
    }),
    fc.record({
      kind: fc.constant('whole' as const),
      pieces: fc.constant(['x'.repeat(8_193)]),
      trailers,
    }),
    fc.record({
      kind: fc.constantFrom('whole' as const),
      pieces: fc.array(text, { minLength: 1, maxLength: 1 }),
      trailers,
    }),
    fc.record({
      kind: fc.constantFrom('chunked' as const, 'length' as const),
      pieces: fc.array(text, { maxLength: 5 }),
      trailers,
    }),
  ),
});
type Meant = typeof meant extends fc.Arbitrary<infer Value> ? Value : never;

function requestOf({ method, target, before, framing, after, body }: Meant): UpstreamRequest {
  const all = body.pieces.join('');
  const request = {
    ...{ method, target, headers: [['Host', 'h'], ...before, ...framing, ...after].flat() },
    ...{ headTimeoutMs: 0, stream: 'no' as const },
  };
  if (body.kind === 'none') return { ...request, body: null };
  if (body.kind === 'whole') return { ...request, body: Buffer.from(all, 'latin1'), trailers: body.trailers };
  return {
    ...request,
    body: bodyOf(body.pieces, body.trailers, body.kind === 'length' ? all.length : undefined),
  };
}

/** What the server must see, said in another way than the writer says it. */
function expected({ method, target, before, framing, after, body }: Meant): Read {
  const all = body.pieces.join('');
  const chunked = body.kind === 'chunked' || (body.kind === 'whole' && body.trailers.length > 0);
  const [name, value] = chunked ? ['Transfer-Encoding', 'chunked'] : ['Content-Length', String(all.length)];
  const first = framing.findIndex(([said]) => said !== 'Trailer');
  const middle = framing.flatMap(([said, means], at): Field[] => {
    if (said === 'Trailer') return chunked ? [[said, means]] : [];
    if (at !== first) return [];
    return [[said.toLowerCase() === name.toLowerCase() ? said : name, value]];
  });
  const implied = body.kind !== 'none' || ['POST', 'PUT', 'PATCH'].includes(method);
  const last: Field[] = first === -1 && implied ? [[name, value]] : [];
  const fields: Field[] = [
    ['Host', 'h'],
    ...before,
    ...middle,
    ...after,
    ...last,
    ['Connection', 'keep-alive'],
  ];
  return {
    method,
    target,
    body: all,
    trailers: chunked ? [...body.trailers] : [],
    rawHeaders: fields.flat(),
  };
}

const runs = Number(process.env['FUZZ_RUNS'] ?? 3_000);
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

test(`Node reads what was meant in ${runs} pairs of requests at random (FUZZ_SEED=${seed})`, async () => {
  const property = fc.asyncProperty(meant, meant, async (first, second) => {
    const written = [first, second].map((each) => write(requestOf(each)).written);
    expect(await nodeReads(written.join(''))).toEqual([expected(first), expected(second)]);
  });
  await fc.assert(property, { numRuns: runs, seed, interruptAfterTimeLimit: 25_000 });
}, 60_000);

describe('a body with a length', () => {
  const put = (length: number, pieces: readonly string[]): Watched =>
    write({
      ...{ method: 'PUT', target: '/', headers: ['Host', 'h', 'Content-Length', String(length)] },
      ...{ body: bodyOf(pieces, [], length), headTimeoutMs: 0, stream: 'no' },
    });

  test('is sent whole, and then it is sent', () => {
    expect(put(4, ['ab', 'cd'])).toMatchObject({ sent: true, broken: undefined });
  });

  test('is broken off where less comes, and nothing beyond it is sent where more comes', () => {
    expect(put(5, ['ab', 'cd'])).toMatchObject({ sent: false, broken: expect.stringMatching(/shorter/) });
    const more = put(3, ['ab', 'cd']);
    expect(more).toMatchObject({ sent: false, broken: expect.stringMatching(/longer/) });
    expect(more.written.endsWith('\r\n\r\nab')).toBe(true);
  });
});
