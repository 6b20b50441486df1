/** Answers that come while the client is still sending its body. */
import type { Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type RawClient, statusOf } from '../../support/raw-http.ts';
import { until } from '../../support/until.ts';
import { HttpRig, requestText, storeNames } from './rig.ts';

let rig: HttpRig;
beforeAll(async () => {
  rig = await HttpRig.start();
  await rig.moveToApp('app-user');
}, 60_000);
afterEach(() => rig.tidy());
afterAll(() => rig.stop(), 60_000);

const whole = 20_000_000;
const framings: Record<string, { lines: string[]; piece: (text: string) => string }> = {
  'with a length': { lines: [`Content-Length: ${whole}`], piece: (text) => text },
  'in chunks': {
    lines: ['Transfer-Encoding: chunked'],
    piece: (text) => `${text.length.toString(16)}\r\n${text}\r\n`,
  },
};
const refusal = 'HTTP/1.1 413 Content Too Large\r\nX-Limit: 1\r\nContent-Length: 8\r\n\r\ntoo big!';
const ways = storeNames.flatMap((store) => Object.keys(framings).map((framing) => ({ store, framing })));

/** Sends pieces until the client is answered, or the proxy takes no more. */
function keepSending(client: RawClient, piece: string): void {
  const more = (): void => {
    while (client.received === '' && client.socket.writable) {
      if (client.socket.write(piece, 'latin1')) continue;
      client.socket.once('drain', more);
      return;
    }
  };
  more();
}

describe.each(ways)('row 22: during an upload $framing to $store', ({ store, framing }) => {
  const user = store === 'app' ? 'app-user' : 'ann';
  const { lines, piece } = framings[framing] ?? { lines: [], piece: String };
  const block = piece('x'.repeat(10_000));

  /** Begins the upload; the store answers by `reply` once it has got a part. */
  async function upload(
    reply: (socket: Socket) => void,
    then?: (client: RawClient) => void,
  ): Promise<RawClient> {
    let replied = false;
    rig.store(store).onBytes = (_bytes, socket) => {
      if (replied || rig.store(store).bytes.length < 1_000) return;
      replied = true;
      reply(socket);
    };
    const client = await rig.connect();
    client.send(requestText('PUT /a', { user, lines, body: block }));
    then?.(client);
    return client;
  }

  test('an early 413 reaches the client, whole', async () => {
    const client = await upload((socket) => void socket.write(refusal));
    const answer = await client.answer();
    expect([statusOf(answer), answer.body]).toEqual([413, 'too big!']);
    expect(answer.headers).toContain('X-Limit: 1');
  });

  test('it does so while the client goes on sending', async () => {
    const client = await upload(
      (socket) => void socket.write(refusal),
      (client) => keepSending(client, block),
    );
    const answer = await client.answer();
    expect([statusOf(answer), answer.body]).toEqual([413, 'too big!']);
  });

  test('it does so where the store reads no further', async () => {
    const client = await upload(
      (socket) => {
        socket.pause();
        socket.write(refusal);
      },
      (client) => keepSending(client, block),
    );
    expect(statusOf(await client.answer())).toBe(413);
  });

  test('it does so where the store ends the connection behind it', async () => {
    const client = await upload(
      (socket) => void socket.end(refusal.replace('\r\n', '\r\nConnection: close\r\n')),
      (client) => keepSending(client, block),
    );
    expect(statusOf(await client.answer())).toBe(413);
  });

  test('an early 200 is passed on, too, and the upload is never completed behind it', async () => {
    const client = await upload(
      (socket) => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'),
    );
    expect((await client.answer()).body).toBe('ok');
    await client.toTheEnd();
    expect(rig.store(store).requests).toEqual([]);
  });

  test('the store is not left with half a request on a connection that others get', async () => {
    const seen: Socket[] = [];
    const client = await upload((socket) => {
      seen.push(socket);
      socket.write(refusal);
    });
    await client.answer();
    await until('the half request is broken off', () => seen[0]?.destroyed === true);
    rig.store(store).onBytes = undefined;
    const after = await rig.exchange(requestText('GET /b', { user }));
    expect([statusOf(after), after.body]).toEqual([200, 'ok']);
    expect(rig.store(store).requests.map(({ startLine }) => startLine)).toEqual(['GET /b HTTP/1.1']);
  });

  test('an answer in pieces goes on while the upload does', async () => {
    const client = await upload((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n');
    });
    await client.until(() => client.received.includes('first'));
    const before = rig.store(store).bytes.length;
    client.send(piece('more'.repeat(1_000)));
    await until('the store gets more', () => rig.store(store).bytes.length >= before + 4_000);
    for (const socket of rig.store(store).sockets) socket.write('6\r\nsecond\r\n');
    await client.until(() => client.received.includes('second'));
    client.close();
  });
});

test('row 22: a refusal of our own reaches a client that goes on sending, and the connection ends', async () => {
  const client = await rig.connect();
  client.send(requestText('PUT /a', { user: null, lines: [`Content-Length: ${whole}`] }));
  keepSending(client, 'x'.repeat(10_000));
  expect(statusOf(await client.answer())).toBe(401);
  await client.toTheEnd();
  expect(rig.legacy.bytes + rig.app.bytes).toBe('');
});
