/** Reads that a copy may answer, and writes that wait to be known: the proxy, with the sync's answers given by the test. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { CopyReads, CopyState } from '../../src/core/copy-reads.ts';
import type { WriteTicket } from '../../src/core/ticket.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig;
let states: Map<string, CopyState>;
let asked: string[];
let told: string[];
/** Lets the clients of writes know; undefined: they may know at once. */
let known: { readonly promise: Promise<void>; readonly resolve: () => void } | undefined;
const fresh: CopyState = { lagMs: 12, holdsWrites: true };

const copies: CopyReads = {
  targets: ['app'],
  begin: ({ partition }: WriteTicket) => void told.push(`begin ${partition}`),
  end: ({ partition }, outcome) => void told.push(`end ${partition} ${outcome}`),
  mayAnswer: () => known?.promise,
  look: (partition) => {
    asked.push(partition);
    return states.get(partition) ?? fresh;
  },
  lagOfAllMs: () => 12,
};

beforeEach(async () => {
  [states, asked, told, known] = [new Map(), [], [], undefined];
  rig = await startRig({
    copies,
    config: {
      proxy: { port: 0, debugHeaders: true },
      routes: [
        { path: '/team', reads: 'app' },
        { path: '/several', partitions: 'query.of[*]', reads: 'copy', maxStalenessMs: 100 },
        { path: '/calendar', methods: ['GET', 'POST'], reads: 'copy', maxStalenessMs: 100 },
      ],
    },
  });
});
afterEach(async () => {
  known?.resolve();
  await rig.stop();
});

const get = (target: string, more = '', user = 'ann') =>
  exchange(rig.port, `GET ${target} HTTP/1.1\r\nHost: h\r\nx-user: ${user}\r\n${more}\r\n`);
const storeOf = (answer: Awaited<ReturnType<typeof get>>) => headerOf(answer, 'onewriter-store');
const post = 'POST /calendar HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\nhi';

describe('a read with reads: copy', () => {
  test('goes to the copy, which says how old it is; to no other store for a route that says nothing', async () => {
    const answer = await get('/calendar');
    expect([storeOf(answer), headerOf(answer, 'onewriter-lag-ms')]).toEqual(['app', '12']);
    const other = await get('/other');
    expect([storeOf(other), headerOf(other, 'onewriter-lag-ms')]).toEqual(['legacy', undefined]);
  });

  test('is the owner’s for a member that has lost touch with the ledger', async () => {
    rig.gate.loseLease();
    expect(storeOf(await get('/calendar'))).toBe('legacy');
    expect(asked).toEqual([]);
    expect(rig.proxy.counters().copyReads.byOwner.unknown).toBe(1);
  });

  test('is the owner’s where a client asks for a stream of events', async () => {
    expect(storeOf(await get('/calendar', 'Accept: text/event-stream\r\n'))).toBe('legacy');
  });

  test('of several partitions needs all of their copies', async () => {
    expect(storeOf(await get('/several?of=u1&of=u2'))).toBe('app');
    states.set('u2', { lagMs: 101, holdsWrites: true });
    expect(storeOf(await get('/several?of=u1&of=u2'))).toBe('legacy');
    states.set('u2', { lagMs: 5, holdsWrites: false });
    expect(storeOf(await get('/several?of=u1&of=u2'))).toBe('legacy');
    const { late, written } = rig.proxy.counters().copyReads.byOwner;
    expect([late, written]).toEqual([1, 1]);
    rig.gate.move('u2', 'app');
    expect(statusOf(await get('/several?of=u1&of=u2'))).toBe(409);
  });
});

test('reads: app shows partitions of both stores together', async () => {
  rig.gate.move('ann', 'app');
  expect(storeOf(await get('/team'))).toBe('app');
  expect(storeOf(await get('/team', '', 'bob'))).toBe('app');
});

describe('a write', () => {
  const hold = (): void => {
    known = Promise.withResolvers<void>();
  };

  test('is told before it is sent, and its end after it', async () => {
    expect(statusOf(await exchange(rig.port, post))).toBe(200);
    expect(told).toEqual(['begin ann', 'end ann ended']);
  });

  test('is answered when it is known, from the head of the answer on', async () => {
    hold();
    const client = await RawClient.open(rig.port);
    client.send(post);
    await until('the store has it', () => rig.legacy.requests.length === 1);
    // A read on another connection is answered; nothing of the write's answer has come by then.
    expect(storeOf(await get('/other'))).toBe('legacy');
    expect(client.received).toBe('');
    expect(told).toEqual(['begin ann']);
    known?.resolve();
    expect(statusOf(await client.answer())).toBe(200);
    client.close();
  });

  test('that changed nothing is answered at once', async () => {
    hold();
    rig.legacy.answer = (_request, socket) =>
      socket.write('HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n');
    expect(statusOf(await exchange(rig.port, post))).toBe(409);
  });

  test('whose client has gone away ends all the same', async () => {
    hold();
    const client = await RawClient.open(rig.port);
    client.send(post);
    await until('the store has it', () => rig.legacy.requests.length === 1);
    client.close();
    known?.resolve();
    await until('it has ended', () => told.includes('end ann ended'));
  });

  test('with a long answer loses nothing of it', async () => {
    hold();
    const body = 'x'.repeat(3_000_000);
    rig.legacy.answer = (_request, socket) =>
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    const client = await RawClient.open(rig.port);
    client.send(post);
    await until('the store has it', () => rig.legacy.requests.length === 1);
    known?.resolve();
    expect((await client.answer()).body).toHaveLength(body.length);
    client.close();
  });

  test('through a WebSocket is known before the store is asked for it', async () => {
    hold();
    const client = await RawClient.open(rig.port);
    client.send(
      'GET /calendar HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await until('it is told', () => told.includes('begin ann'));
    expect(storeOf(await get('/other'))).toBe('legacy');
    expect(rig.legacy.requests.map(({ startLine }) => startLine)).toEqual(['GET /other HTTP/1.1']);
    known?.resolve();
    await until('the store is asked', () => rig.legacy.requests.length === 2);
    client.close();
  });
});
