/**
 * Whatever bytes clients send: the proxy goes on, forwards only what it has judged itself, and never gives one client
 * what belongs to another. The stores are guarded, so that every request on their side must carry a signature of the
 * proxy over exactly this request: one that was smuggled past its parser has none.
 *
 * FUZZ_RUNS says how many rounds of eight clients are played; a failure prints the seed.
 */
import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { verifyGuard } from '../../src/guard/signature.ts';
import { conversation, tokenMark, userMark } from '../support/fuzz-requests.ts';
import { type ProxyRig, rigSecret, startRig } from '../support/proxy.ts';
import { exchange, headerOf, type RawAnswer, type RawMessage } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

const rounds = Number(process.env['FUZZ_RUNS'] ?? 120);
/** A client that got nothing for so long takes the proxy to be waiting for more. */
const quietMs = 40;

let rig: ProxyRig;
beforeAll(async () => {
  rig = await startRig({
    config: {
      anonymousReads: 'refuse',
      routes: [
        { path: '/search', access: 'read' },
        { path: '/graphql', graphql: true },
        { path: '/notes/:id', methods: ['PUT'], record: { kind: 'note', id: 'path.id' } },
      ],
    },
    legacy: { guard: true, readTimeoutMs: 3_000, writeTimeoutMs: 3_000 },
    app: { guard: true },
    answer: echo,
  });
});
afterAll(async () => rig.stop());

/** Says whose request it answers; in several forms, told by the request. */
const echo: RawAnswer = (request, socket) => {
  const token = headerOf(request, 'x-token') ?? 'none';
  const body = `answer-to:${token}:${request.startLine.length}`;
  const form = createHash('sha1').update(request.startLine).digest()[0] ?? 0;
  if (form % 7 === 0) socket.write('HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n');
  if (form % 3 === 0) {
    socket.write(
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    );
  } else if (form % 11 === 0) {
    socket.end(`HTTP/1.0 200 OK\r\n\r\n${body}`);
  } else {
    const bytes = request.startLine.startsWith('HEAD ') ? '' : body;
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${bytes}`);
  }
};

interface Client {
  readonly token: string;
  readonly received: string;
}

let clients = 0;

/** Sends everything, waits until nothing more comes, and ends; the proxy must end then, too. */
async function converse(pieces: readonly string[]): Promise<Client> {
  clients += 1;
  const token = `token-${createHash('sha256').update(String(clients)).digest('hex').slice(0, 24)}`;
  const socket = connect({ port: rig.port, host: '127.0.0.1', noDelay: true });
  let received = '';
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.setEncoding('latin1');
  socket.on('error', () => undefined);
  socket.on('data', (text) => (received += String(text)));
  for (const piece of pieces) {
    const own = piece.replaceAll(userMark, `user-${clients}`).replaceAll(tokenMark, token);
    if (socket.destroyed || socket.writableEnded) break;
    await new Promise<void>((resolve) => void socket.write(own, 'latin1', () => resolve()));
  }
  await quiet(socket, () => received.length);
  socket.end();
  await within(closed, `the connection of client ${clients} is closed`);
  return { token, received };
}

async function quiet(socket: Socket, bytes: () => number): Promise<void> {
  for (let seen = -1; seen !== bytes() && !socket.destroyed && !socket.readableEnded;) {
    seen = bytes();
    await new Promise((resolve) => setTimeout(resolve, quietMs));
  }
}

async function within(done: Promise<void>, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within 10 s: ${what}`)), 10_000);
  });
  await Promise.race([done, late]);
  clearTimeout(timer);
}

/** What is wrong with a request that reached a store, if anything is. */
function faultOf(request: RawMessage): string | undefined {
  const [method = '', target = ''] = request.startLine.split(' ');
  const headers: Record<string, string> = {};
  for (const line of request.headers) {
    const name = line.slice(0, line.indexOf(':')).toLowerCase();
    if (/^(?:onewriter|x-forwarded)/.test(name) && headers[name] !== undefined)
      return `${name} is there twice`;
    if (name === 'x-original-url' || name === 'x-forwarded-prefix') return `${name} moves it to another path`;
    headers[name] = line.slice(line.indexOf(':') + 1).trim();
  }
  const nowSeconds = Date.now() / 1000;
  const verdict = verifyGuard({ secret: rigSecret, nowSeconds, method, target, headers });
  if (!verdict.ok) return `it is ${verdict.code}`;
  if (verdict.claims.user !== headers['x-user']) return `it is signed for ${verdict.claims.user}`;
  if (headers['content-length'] !== undefined && headers['transfer-encoding'] !== undefined)
    return 'it is framed twice';
  if (headers['x-forwarded-for'] !== '127.0.0.1') return 'it says that it came from elsewhere';
  return undefined;
}

test('eight clients at a time send whatever they like', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(conversation, { minLength: 8, maxLength: 8 }), async (conversations) => {
      const before = rig.legacy.requests.length;
      const all = await Promise.all(conversations.map(converse));
      const arrived = rig.legacy.requests.slice(before);
      for (const request of arrived) {
        const fault = faultOf(request);
        if (fault !== undefined) throw new Error(`${fault}: ${JSON.stringify(request)}`);
      }
      for (const { token, received } of all) {
        const answers = received.match(/answer-to:token-[0-9a-f]+/g) ?? [];
        expect(answers.filter((answer) => answer !== `answer-to:${token}`)).toEqual([]);
        const sent = arrived.filter((request) => headerOf(request, 'x-token') === token).length;
        expect(answers.length).toBeLessThanOrEqual(sent);
      }
      const alive = await exchange(rig.port, 'GET /alive HTTP/1.1\r\nHost: a\r\nx-user: ann\r\n\r\n');
      expect(alive.startLine).toBe('HTTP/1.1 200 OK');
    }),
    { numRuns: rounds, endOnFailure: true },
  );
}, 600_000);

test('afterwards nothing is left behind, and the app was never asked', async () => {
  await until('nothing is under way', () => rig.proxy.counters().underWay === 0);
  expect(rig.logged.filter(({ event }) => event === 'proxy.bug')).toEqual([]);
  expect(rig.proxy.counters().holding).toBe(0);
  expect(rig.gate.listening()).toBe(0);
  expect(rig.app.connections).toBe(0);
  // The fuzz is worth something only if much of it got through.
  expect(rig.legacy.requests.length).toBeGreaterThan(rounds * 2);
});
