/** Fields behind the body, on their way to the client and to the store. */
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { headerOf, statusOf } from '../../support/raw-http.ts';
import { HttpRig, requestText } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start({ legacy: { answerHeaders: { remove: ['X-Secret'] } } });
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const chunked = (fields: readonly string[], body: string, trailers: readonly string[]): string =>
  [
    ...['HTTP/1.1 200 OK', 'Transfer-Encoding: chunked', ...fields, ''],
    ...(body === '' ? [] : [body.length.toString(16), body]),
    ...['0', ...trailers, '', ''],
  ].join('\r\n');

const answering = (bytes: string): void => {
  rig.legacy.answer = (_request, socket) => void socket.write(bytes, 'latin1');
};

test.each([
  ['one that was announced', ['Trailer: X-Sum'], ['X-Sum: 1']],
  ['one that was not', [], ['X-Sum: 1']],
  ['several, in their order and letters', ['Trailer: X-B, x-a'], ['X-B: 1', 'x-a: 2', 'X-C: 3']],
  ['the same name twice', [], ['X-A: 1', 'X-B: 2', 'X-A: 3']],
  ['one with an empty value', [], ['X-A: ']],
  ['one beyond ASCII', [], ['X-A: caf\xe9']],
  ['those of gRPC', ['Trailer: grpc-status'], ['grpc-status: 0', 'grpc-message: ok']],
  ['a timing', ['Trailer: Server-Timing'], ['Server-Timing: db;dur=53']],
])('row 10: trailers of an answer are passed on: %s', async (_what, fields, trailers) => {
  answering(chunked(fields, 'hello', trailers));
  const client = await rig.connect();
  client.send(requestText('GET /a', { lines: ['TE: trailers'] }));
  const answer = await client.answer();
  expect([answer.body, answer.trailers]).toEqual(['hello', trailers]);
  expect(answer.headers.filter((line) => line.startsWith('Trailer:'))).toEqual(fields);
  client.send(requestText('GET /b'));
  expect(statusOf(await client.answer())).toBe(200);
});

test.each(['', 'x'.repeat(200_000)])('row 10: behind a body of any length', async (body) => {
  answering(chunked([], body, ['X-Sum: 1']));
  const answer = await rig.exchange(requestText('GET /a'));
  expect([answer.body === body, answer.trailers]).toEqual([true, ['X-Sum: 1']]);
});

test('row 10: of an answer to a write, and with the debug fields of a store', async () => {
  answering(chunked([], 'hello', ['X-Sum: 1']));
  const write = requestText('POST /a', { lines: ['Content-Length: 2'], body: 'hi' });
  expect((await rig.exchange(write)).trailers).toEqual(['X-Sum: 1']);
});

test('row 10: what ends at the proxy does not stand in trailers either', async () => {
  const hidden = ['Onewriter-Epoch: 7', 'X-Secret: a', 'Connection: close', 'Keep-Alive: timeout=1', 'TE: x'];
  answering(chunked([], 'hello', [...hidden, 'X-Sum: 1']));
  expect((await rig.exchange(requestText('GET /a'))).trailers).toEqual(['X-Sum: 1']);
});

test('row 10: a trailer that would frame the next message is not passed on', async () => {
  answering(chunked([], 'hello', ['Content-Length: 5', 'X-Sum: 1']));
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  const received = await client.toTheEnd().catch(() => client.received);
  expect(received).not.toMatch(/0\r\n(.*\r\n)*content-length/i);
});

test('row 10: HTTP/1.0 has none, and its body ends with the connection', async () => {
  answering(chunked(['Trailer: X-Sum'], 'hello', ['X-Sum: 1']));
  const client = await rig.connect();
  client.send('GET /a HTTP/1.0\r\nx-user: ann\r\n\r\n');
  const received = await client.toTheEnd();
  expect(received).toMatch(/\r\n\r\nhello$/);
  expect(headerOf({ headers: received.split('\r\n') }, 'transfer-encoding')).toBeUndefined();
  expect(client.ending).toBe('fin');
});

test('row 10: an answer of a known length stays without trailers', async () => {
  answering('HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 5\r\n\r\nhello');
  const client = await rig.connect();
  client.send(requestText('GET /a'));
  const answer = await client.answer();
  expect([answer.body, answer.trailers, client.received]).toEqual(['hello', [], '']);
});

test('row 10: answers that follow one another keep their own', async () => {
  rig.legacy.answer = ({ startLine }, socket) =>
    void socket.write(chunked([], 'hello', [`X-Path: ${startLine.split(' ')[1]}`]));
  const client = await rig.connect();
  client.send(requestText('GET /1') + requestText('GET /2') + requestText('GET /3'));
  const trailers = [await client.answer(), await client.answer(), await client.answer()].map(
    (a) => a.trailers,
  );
  expect(trailers).toEqual([['X-Path: /1'], ['X-Path: /2'], ['X-Path: /3']]);
});

test('row 10: an answer that is given again for its key comes whole, without them', async () => {
  answering(chunked(['Trailer: X-Sum'], 'hello', ['X-Sum: 1']));
  const write = requestText('POST /a', { lines: ['Content-Length: 2', 'Idempotency-Key: "a"'], body: 'hi' });
  expect((await rig.exchange(write)).trailers).toEqual(['X-Sum: 1']);
  const again = await rig.exchange(write);
  expect([statusOf(again), again.body, again.trailers]).toEqual([200, 'hello', []]);
  expect(headerOf(again, 'idempotency-replayed')).toBe('true');
  expect(rig.legacy.requests).toHaveLength(1);
});

// --- requests ------------------------------------------------------------------------------------------

const upload = (fields: readonly string[], body: string, trailers: readonly string[]): string =>
  requestText('POST /a', { lines: ['Transfer-Encoding: chunked', ...fields] }) +
  [...(body === '' ? [] : [body.length.toString(16), body]), '0', ...trailers, '', ''].join('\r\n');

/** The trailers as they reached the store, which got the whole body. */
async function trailersOf(request: string, body: string): Promise<readonly string[]> {
  const client = await rig.connect();
  client.send(request);
  expect(statusOf(await client.answer())).toBe(200);
  const [sent] = rig.legacy.requests;
  expect(sent?.body === body).toBe(true);
  client.send(requestText('GET /next'));
  expect(statusOf(await client.answer())).toBe(200);
  return sent?.trailers ?? [];
}

test.each([
  ['one that was announced', ['Trailer: X-Sum'], ['X-Sum: 1']],
  ['one that was not', [], ['X-Sum: 1']],
  ['several, in their order and letters', ['Trailer: X-B, x-a'], ['X-B: 1', 'x-a: 2', 'X-C: 3']],
  ['the same name twice', [], ['X-A: 1', 'X-B: 2', 'X-A: 3']],
  ['a digest', ['Trailer: Digest'], ['Digest: sha-256=abc']],
])('row 10: trailers of a request are passed on: %s', async (_what, fields, trailers) => {
  expect(await trailersOf(upload(fields, 'hello', trailers), 'hello')).toEqual(trailers);
  const announced = rig.legacy.requests[0]?.headers.filter((line) => line.startsWith('Trailer:'));
  expect(announced).toEqual(fields);
});

test.each(['', 'x'.repeat(300_000)])(
  'row 10: trailers of a request behind a body of any length',
  async (body) => {
    expect(await trailersOf(upload([], body, ['X-Sum: 1']), body)).toEqual(['X-Sum: 1']);
  },
);

test('row 10: trailers of a request that was held', async () => {
  const fence = await rig.fence('ann');
  const client = await rig.connect();
  client.send(upload([], 'hello', ['X-Sum: 1']));
  await rig.settled();
  await fence.reopen();
  expect(statusOf(await client.answer())).toBe(200);
  expect(rig.legacy.requests[0]?.trailers).toEqual(['X-Sum: 1']);
});

test('row 10: a request without trailers has none added', async () => {
  expect(await trailersOf(upload([], 'hello', []), 'hello')).toEqual([]);
});

test.each([
  ['an identity', ['x-user: eve']],
  ['a credential', ['Authorization: Bearer a', 'Cookie: session=b']],
  ['what only the proxy says', ['Onewriter-User: eve', 'Onewriter-Epoch: 9', 'onewriter_partition: eve']],
  ['where it came from', ['X-Forwarded-For: 10.1.1.1', 'Forwarded: for=10.1.1.1', 'X-Original-URL: /admin']],
  ['another method', ['X-HTTP-Method-Override: DELETE']],
  ['another host', ['Host: other.example']],
  ['a field of this hop', ['Connection: X-A', 'Keep-Alive: a', 'TE: b', 'Proxy-Authorization: c']],
  ['what the body is', ['Content-Type: text/html', 'Content-Encoding: gzip']],
])('row 10: a trailer of a request never says %s', async (_what, hidden) => {
  expect(await trailersOf(upload([], 'hello', [...hidden, 'X-Sum: 1']), 'hello')).toEqual(['X-Sum: 1']);
});
