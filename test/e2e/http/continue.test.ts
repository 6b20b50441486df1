/** Expect: 100-continue. A body that is not wanted yet, or not at all, is not asked for. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { headerOf, type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, problemOf, requestText, type StoreName } from './rig.ts';

let rig: HttpRig;
const large = 'x'.repeat(200_000);
const expects = 'Expect: 100-continue';

/** The fields that frame a body, and the body so framed. */
const bodies: readonly (readonly [what: string, fields: readonly string[], sent: string, body: string])[] = [
  ['a small body', ['Content-Length: 5'], 'hello', 'hello'],
  ['a large body', [`Content-Length: ${large.length}`], large, large],
  ['chunks', ['Transfer-Encoding: chunked'], '5\r\nhello\r\n0\r\n\r\n', 'hello'],
  ['a key', ['Content-Length: 5', 'Idempotency-Key: "KEY"'], 'hello', 'hello'],
];

async function ask(
  lines: readonly string[],
  startLine = 'POST /a',
  user: string | null = 'ann',
): Promise<RawClient> {
  const client = await rig.connect();
  client.send(requestText(startLine, { user, lines: [expects, ...lines] }));
  return client;
}

/** A 100 comes and the store has no body before; with the body comes the answer. */
async function goesOn(client: RawClient, sent: string, body: string, store: StoreName): Promise<void> {
  expect((await client.answer()).startLine).toBe('HTTP/1.1 100 Continue');
  client.send(sent);
  expect(statusOf(await client.answer())).toBe(200);
  expect(client.received).toBe('');
  const { requests } = rig.store(store);
  expect(requests.map((request) => request.body === body)).toEqual([true]);
}

describe('a write that may wait long', () => {
  beforeAll(async () => {
    rig = await HttpRig.start({
      config: { flip: { holdMs: 25_000 }, anonymousReads: 'refuse' },
      legacy: { guard: true },
    });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test.each(bodies)(
    'row 3: with %s it is asked for its body once it is admitted',
    async (what, fields, sent, body) => {
      const client = await ask(fields.map((line) => line.replace('KEY', what)));
      await goesOn(client, sent, body, 'legacy');
      const headers = rig.legacy.requests[0]?.headers ?? [];
      expect(headers.filter((line) => /^expect:/i.test(line))).toEqual([]);
      // What the proxy adds is there as without it.
      expect(headerOf({ headers }, 'onewriter-partition')).toBe('ann');
      expect(headerOf({ headers }, 'x-forwarded-for')).toBe('127.0.0.1');
    },
  );

  test.each(bodies)(
    'row 3: held with %s it is asked only after the release',
    async (what, fields, sent, body) => {
      const fence = await rig.fence('ann');
      const client = await ask(fields.map((line) => line.replace('KEY', `held ${what}`)));
      await rig.settled();
      expect(client.received).toBe('');
      expect(rig.legacy.bytes).toBe('');
      await fence.reopen();
      await goesOn(client, sent, body, 'legacy');
    },
  );

  test('row 3: held until its partition has moved, its body goes to the new owner', async () => {
    const fence = await rig.fence('mover');
    const client = await ask(['Content-Length: 5'], 'POST /a', 'mover');
    await rig.settled();
    expect(client.received).toBe('');
    await fence.commit();
    await goesOn(client, 'hello', 'hello', 'app');
    expect(rig.legacy.requests).toEqual([]);
  });

  test('row 3: a read with a body is not held, and asked at once', async () => {
    const fence = await rig.fence('ann');
    await goesOn(await ask(['Content-Length: 5'], 'SEARCH /a'), 'hello', 'hello', 'legacy');
    await fence.reopen();
  });

  test('row 3: a body that comes unasked is taken as well', async () => {
    const client = await rig.connect();
    client.send(requestText('POST /a', { lines: [expects, 'Content-Length: 5'], body: 'hello' }));
    await client.until(() => client.received.includes('\r\n\r\nok'));
    expect(client.received.match(/HTTP\/1\.1 (100|200)/g)?.at(-1)).toBe('HTTP/1.1 200');
    expect(rig.legacy.requests.map(({ body }) => body)).toEqual(['hello']);
  });

  test.each(['100-continue', '100-Continue', '100-CONTINUE'])('row 3: "%s" is understood', async (value) => {
    const client = await rig.connect();
    client.send(requestText('POST /a', { lines: [`eXPECT: ${value}`, 'Content-Length: 5'] }));
    await goesOn(client, 'hello', 'hello', 'legacy');
  });

  test.each(['200-ok', 'x'])('row 3: "%s", which nobody knows, is 417 in its turn', async (value) => {
    const client = await rig.connect();
    const expecting = requestText('POST /a', { lines: [`Expect: ${value}`, 'Content-Length: 5'] });
    client.send(requestText('GET /first') + expecting);
    expect(statusOf(await client.answer())).toBe(200);
    const answer = await client.answer();
    expect(statusOf(answer)).toBe(417);
    expect(problemOf(answer)).toMatchObject({ code: 'expectation-failed', sent: 'no' });
    await client.toTheEnd();
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /first HTTP/1.1']);
  });

  test('row 3: without a body there is nothing to ask for', async () => {
    const client = await ask(['Content-Length: 0']);
    expect(statusOf(await client.answer())).toBe(200);
  });

  test('row 3: HTTP/1.0 knows no 100', async () => {
    const client = await rig.connect();
    client.send(`POST /a HTTP/1.0\r\nx-user: ann\r\n${expects}\r\nContent-Length: 5\r\n\r\n`);
    client.send('hello');
    expect((await client.toTheEnd()).startsWith('HTTP/1.1 200')).toBe(true);
    expect(rig.legacy.requests.map(({ body }) => body)).toEqual(['hello']);
  });

  test("row 3: a store's own 100 is not passed on beside ours", async () => {
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    const client = await ask(['Content-Length: 5']);
    await goesOn(client, 'hello', 'hello', 'legacy');
  });

  test.each([
    ['without identity', 'POST /a', null, 401],
    ['for an unsafe target', 'POST /a/../b', 'ann', 400],
    ['for a method that is not forwarded', 'TRACE /a', 'ann', 405],
    ['for a path of our own', 'POST /.well-known/onewriter/guard', 'ann', 404],
    ['of an anonymous read', 'SEARCH /a', null, 401],
  ])(
    'row 3: a refusal %s comes without a 100, and ends the connection',
    async (_why, startLine, user, status) => {
      const client = await ask(['Content-Length: 50'], startLine, user);
      // What a client that was refused sends next is no body: the two must not be mixed up.
      const answer = await client.answer();
      expect(statusOf(answer)).toBe(status);
      expect(headerOf(answer, 'connection')).toBe('close');
      client.send(requestText('GET /next'));
      expect(await client.toTheEnd()).toBe('');
      expect(rig.legacy.bytes).toBe('');
    },
  );

  test('row 3: a refused client that sends its body nevertheless gets its answer, and no store the body', async () => {
    const client = await ask(['Content-Length: 5'], 'POST /a', null);
    client.send('hello');
    expect(statusOf(await client.answer())).toBe(401);
    await client.toTheEnd();
    expect(rig.legacy.bytes).toBe('');
  });
});

describe('a write that may not wait', () => {
  beforeAll(async () => {
    rig = await HttpRig.start({ config: { flip: { holdMs: 300, fenceMs: 200, drainMs: 100 } } });
  }, 60_000);
  afterEach(() => rig.tidy());
  afterAll(() => rig.stop(), 60_000);

  test.each(bodies)(
    'row 3: with %s it is refused after its time, and never asked for its body',
    async (what, fields) => {
      const fence = await rig.fence('ann');
      const client = await ask(fields.map((line) => line.replace('KEY', `late ${what}`)));
      const answer = await client.answer();
      expect(statusOf(answer)).toBe(503);
      expect(problemOf(answer)).toMatchObject({ code: 'fenced', sent: 'no' });
      expect(headerOf(answer, 'retry-after')).toBe('1');
      expect(await client.toTheEnd()).toBe('');
      await fence.reopen();
      await until(
        'the store is reached again',
        async () =>
          statusOf(await rig.exchange(requestText('POST /after', { lines: ['Content-Length: 0'] }))) === 200,
      );
      expect(rig.legacy.requests.every(({ startLine }) => startLine === 'POST /after HTTP/1.1')).toBe(true);
    },
  );
});
