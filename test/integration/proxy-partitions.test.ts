/** Requests that touch several partitions, on real sockets: all owners agree, or nothing is sent (I4). */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import { WebSocket, WebSocketServer } from 'ws';
import { type LinkNotes, LinkShareSpent } from '../../src/core/links.ts';
import { verifyGuard } from '../../src/guard/signature.ts';
import { openKeys } from '../support/idempotency.ts';
import { type ProxyRig, rigSecret, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, type RawMessage, statusOf } from '../support/raw-http.ts';
import { startRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig;
afterEach(async () => rig.stop());

const routes = [
  { path: '/batch', partitions: 'body.requests[*].owner' },
  { path: '/invite', partition: 'user', partitions: 'body.guests[*]' },
  { path: '/open', partitions: 'body.requests[*].owner', anonymous: true },
  { path: '/live', partitions: 'query.ids[*]' },
  { path: '/free-busy', partitions: 'query.ids[*]' },
  { path: '/dav/:owner/*', partition: 'path.owner' },
  {
    path: '/events/:id',
    partition: 'user',
    partitions: 'body.guests[*]',
    record: { kind: 'event', id: 'path.id' },
  },
  { path: '/shared/:id', partitions: 'body.owners[*]', record: { kind: 'event', id: 'path.id' } },
];
const config = { routes, flip: { holdMs: 20_000 } };

function bytesOf(path: string, body: unknown, headers: readonly string[] = ['x-user: ann']): string {
  const text = JSON.stringify(body);
  const lines = [`POST ${path} HTTP/1.1`, 'Host: h', ...headers, 'Content-Type: application/json'];
  return [...lines, `Content-Length: ${text.length}`, '', text].join('\r\n');
}
const batch = (...owners: string[]): unknown => ({ requests: owners.map((owner) => ({ owner })) });
const send = (path: string, body: unknown, headers?: readonly string[]): Promise<RawMessage> =>
  exchange(rig.port, bytesOf(path, body, headers));
const problemOf = (message: RawMessage): Record<string, unknown> =>
  JSON.parse(message.body) as Record<string, unknown>;
const release = (partition: string): void => {
  rig.gate.order(partition, { kind: 'commit', attempt: 'a' });
  rig.gate.order(partition, { kind: 'release', attempt: 'a' });
};

describe('a write over several partitions', () => {
  test('goes to the store where all of them live, once, and is counted for each while it is there', async () => {
    rig = await startRig({ config });
    rig.legacy.answer = () => undefined;
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3', 'u2')));
    await until('the store has it', () => rig.legacy.requests.length === 1);
    expect([rig.gate.member.inFlight('u2'), rig.gate.member.inFlight('u3')]).toEqual([1, 1]);
    expect(rig.gate.member.inFlight('ann')).toBe(0);
    for (const socket of rig.legacy.sockets) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.gate.endings).toEqual([
      { partition: 'u2', outcome: 'ended' },
      { partition: 'u3', outcome: 'ended' },
    ]);
    expect([...rig.gate.noticed].toSorted()).toEqual(['u2', 'u3']);
    client.close();
  });

  test('is refused where they live in different stores: 409 names them with their owners, and nothing is sent', async () => {
    rig = await startRig({ config });
    rig.gate.move('u3', 'app');
    const answer = await send('/batch', batch('u2', 'u3'));
    expect(statusOf(answer)).toBe(409);
    expect(problemOf(answer)).toMatchObject({
      code: 'cross-partition-write',
      sent: 'no',
      partitions: [
        { partition: 'u2', owner: 'legacy' },
        { partition: 'u3', owner: 'app' },
      ],
    });
    expect([rig.legacy.requests, rig.app.requests]).toEqual([[], []]);
    rig.gate.move('u2', 'app');
    expect(statusOf(await send('/batch', batch('u2', 'u3')))).toBe(200);
    expect([rig.legacy.requests.length, rig.app.requests.length]).toEqual([0, 1]);
  });

  test('counts the acting user\u2019s own partition where the route names it, and only there', async () => {
    rig = await startRig({ config });
    rig.gate.move('ann', 'app');
    expect(statusOf(await send('/batch', batch('u2')))).toBe(200);
    expect(statusOf(await send('/invite', { guests: ['u2'] }))).toBe(409);
    expect(statusOf(await send('/invite', { guests: [] }))).toBe(200);
    expect([rig.legacy.requests.length, rig.app.requests.length]).toEqual([1, 1]);
  });

  test('waits while any of them is being moved, holds no other, and is planned anew when it is open', async () => {
    rig = await startRig({ config });
    rig.gate.move('u2', 'app');
    rig.gate.fence('u3', 'app');
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is held', () => rig.proxy.counters().holding === 1);
    expect(rig.gate.member.totals({ monotonicMs: 0, wallMs: 0 })).toEqual({ inFlight: 0, inDoubt: 0 });
    // What it waits with is not in anybody\u2019s way.
    rig.gate.fence('u2', 'legacy');
    expect(rig.proxy.counters().holding).toBe(1);
    release('u3');
    expect(rig.proxy.counters().holding).toBe(1);
    rig.gate.order('u2', { kind: 'abort', attempt: 'a' });
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.app.requests.length).toBe(1);
    expect(rig.gate.listening()).toBe(0);
    client.close();
  });

  test('that waited is refused where they turn out to live apart', async () => {
    rig = await startRig({ config });
    rig.gate.fence('u3', 'app');
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is held', () => rig.proxy.counters().holding === 1);
    release('u3');
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([409, 'cross-partition-write']);
    expect([rig.legacy.requests, rig.app.requests]).toEqual([[], []]);
    client.close();
  });

  test('is held only as long and as often as its partitions allow, each of them', async () => {
    rig = await startRig({
      config: { routes, flip: { holdMs: 300, fenceMs: 200, drainMs: 100 } },
      limits: { heldPerPartition: 1 },
    });
    rig.gate.fence('u2', 'app');
    rig.gate.fence('u3', 'app');
    const first = await RawClient.open(rig.port);
    first.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is held', () => rig.proxy.counters().holding === 1);
    for (const owners of [['u2'], ['u3', 'u4'], ['u4', 'u2']]) {
      expect(problemOf(await send('/batch', batch(...owners)))['code']).toBe('hold-full');
    }
    const late = await first.answer();
    expect([statusOf(late), problemOf(late)['code'], problemOf(late)['sent']]).toEqual([503, 'fenced', 'no']);
    first.close();
  });

  test('whose outcome is unknown is in doubt for each of them', async () => {
    rig = await startRig({ config });
    rig.legacy.answer = (_request, socket) => void socket.resetAndDestroy();
    expect(statusOf(await send('/batch', batch('u2', 'u3')))).toBe(502);
    expect(rig.doubted.map(({ partition, path }) => [partition, path])).toEqual([
      ['u2', '/batch'],
      ['u3', '/batch'],
    ]);
    const now = { monotonicMs: 0, wallMs: 0 };
    expect([rig.gate.member.inDoubt('u2', now), rig.gate.member.inDoubt('u3', now)]).toEqual([1, 1]);
  });

  test('rings for the record of the partition that the route names as its own, else for that of each', async () => {
    rig = await startRig({ config });
    await send('/events/e1', { guests: ['u2'] });
    await send('/shared/e2', { owners: ['u2', 'u3'] });
    expect(rig.rung.map(({ partition, id }) => `${partition} ${id}`)).toEqual(['ann e1', 'u2 e2', 'u3 e2']);
  });

  test('is sent once for its Idempotency-Key, in whatever order it names them', async () => {
    const server = await startRedis();
    const keys = await openKeys(server);
    try {
      rig = await startRig({ config, keys: keys.keys });
      const headers = ['x-user: ann', 'Idempotency-Key: k1'];
      expect(statusOf(await send('/batch', batch('u3', 'u2'), headers))).toBe(200);
      const again = await send('/batch', batch('u3', 'u2'), headers);
      expect([statusOf(again), headerOf(again, 'idempotency-replayed')]).toEqual([200, 'true']);
      // Another body under the same key, but the same record of the key.
      expect(problemOf(await send('/batch', batch('u2', 'u3'), headers))['code']).toBe(
        'idempotency-key-reused',
      );
      expect(rig.legacy.requests.length).toBe(1);
      expect(await keys.redis.keys('*in-use*')).toEqual([expect.stringMatching(/:u2$/)]);
    } finally {
      keys.close();
      await server.stop();
    }
  });

  test('without an identity begins no partition', async () => {
    rig = await startRig({ config });
    const answer = await send('/open', batch('u2', 'u3'), []);
    expect(statusOf(answer)).toBe(200);
    expect([...rig.gate.noticed].toSorted()).toEqual(['u2', 'u3']);
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n');
    await send('/open', batch('u4', 'u5'), []);
    expect([...rig.gate.noticed].toSorted()).toEqual(['u2', 'u3']);
  });

  test('never crashes the proxy, whatever stands where the partitions should', async () => {
    rig = await startRig({ config });
    const many = batch(...Array.from({ length: 101 }, (_, at) => `u${at}`));
    const bodies = [[], {}, null, 7, batch('') as object, { requests: [[]] }, { requests: [{ owner: {} }] }];
    for (const body of bodies) expect(problemOf(await send('/batch', body))['code']).toBe('no-partition');
    expect(problemOf(await send('/batch', many))).toMatchObject({ code: 'too-many-partitions', sent: 'no' });
    expect(rig.legacy.requests).toEqual([]);
  });
});

describe('partitions that a write joins', () => {
  interface Notes extends LinkNotes {
    readonly noted: { readonly partitions: readonly string[]; readonly route: string }[];
    readonly settle: (error?: Error) => void;
    forget: () => void;
  }

  function notes(): Notes {
    const noted: Notes['noted'] = [];
    const known = new Set<string>();
    let settle: (error?: Error) => void = () => undefined;
    return {
      noted,
      settle: (error) => settle(error),
      forget: () => known.clear(),
      known: (partitions) => known.has(partitions.join()),
      note: (partitions, route) =>
        new Promise((resolve, reject) => {
          noted.push({ partitions, route });
          settle = (error) => {
            if (error !== undefined) return reject(error);
            known.add(partitions.join());
            return resolve();
          };
        }),
    };
  }

  test('are noted before the first such write is admitted, and not again', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is being noted', () => links.noted.length === 1);
    // Nothing is in flight meanwhile: a fence does not wait for the note.
    expect(rig.gate.member.inFlight('u2')).toBe(0);
    expect(rig.legacy.requests).toEqual([]);
    links.settle();
    expect(statusOf(await client.answer())).toBe(200);
    expect(statusOf(await send('/batch', batch('u2', 'u3')))).toBe(200);
    expect(links.noted).toEqual([{ partitions: ['u2', 'u3'], route: '/batch' }]);
    expect(statusOf(await send('/batch', batch('u4')))).toBe(200);
    expect(links.noted.length).toBe(1);
    client.close();
  });

  test('are looked at anew when the note is made: what was fenced meanwhile is waited for', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is being noted', () => links.noted.length === 1);
    rig.gate.fence('u3', 'app');
    links.settle();
    await until('it is held', () => rig.proxy.counters().holding === 1);
    release('u3');
    expect(statusOf(await client.answer())).toBe(409);
    expect([rig.legacy.requests, rig.app.requests]).toEqual([[], []]);
    client.close();
  });

  test('are noted again for a write that was held while the note was forgotten', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    rig.gate.fence('u3', 'app');
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is held', () => rig.proxy.counters().holding === 1);
    expect(links.noted).toEqual([]);
    rig.gate.order('u3', { kind: 'abort', attempt: 'a' });
    await until('it is being noted', () => links.noted.length === 1);
    expect(rig.legacy.requests).toEqual([]);
    links.settle();
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.gate.listening()).toBe(0);
    client.close();
  });

  test('beyond the share of their user are not written: 429, nothing was sent', async () => {
    const users: (string | undefined)[] = [];
    const links: LinkNotes = {
      known: () => false,
      note: async (_partitions, _route, user) => {
        users.push(user);
        throw new LinkShareSpent(17);
      },
    };
    rig = await startRig({ config, links });
    const answer = await send('/batch', batch('u2', 'u3'));
    expect([statusOf(answer), problemOf(answer)['code'], problemOf(answer)['sent']]).toEqual([
      ...[429, 'link-share-spent', 'no'],
    ]);
    expect(headerOf(answer, 'retry-after')).toBe('17');
    expect(statusOf(await send('/open', batch('u2', 'u3'), []))).toBe(429);
    expect(users).toEqual(['ann', undefined]);
    expect(rig.legacy.requests).toEqual([]);
  });

  test('that cannot be noted are not written: 503, nothing was sent', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is being noted', () => links.noted.length === 1);
    links.settle(new Error('Redis is away'));
    const answer = await client.answer();
    expect([statusOf(answer), problemOf(answer)['code'], problemOf(answer)['sent']]).toEqual([
      ...[503, 'link-unavailable', 'no'],
    ]);
    expect(headerOf(answer, 'retry-after')).toBe('1');
    expect(rig.legacy.requests).toEqual([]);
    client.close();
  });

  test('are not noted for a write that is refused, nor for a read', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    rig.gate.move('u3', 'app');
    expect(statusOf(await send('/batch', batch('u2', 'u3')))).toBe(409);
    const read = 'GET /free-busy?ids=u4&ids=u5 HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n';
    expect(statusOf(await exchange(rig.port, read))).toBe(200);
    expect(links.noted).toEqual([]);
  });

  test('of a client that goes away while they are being noted leave nothing behind', async () => {
    const links = notes();
    rig = await startRig({ config, links });
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('it is being noted', () => links.noted.length === 1);
    client.close();
    // Who comes after it is answered after the proxy has heard of its end.
    expect(statusOf(await send('/batch', batch('u4')))).toBe(200);
    links.settle();
    expect(statusOf(await send('/batch', batch('u4')))).toBe(200);
    expect(rig.legacy.requests.map(({ body }) => body)).not.toContain(JSON.stringify(batch('u2', 'u3')));
    expect(rig.gate.member.inFlight('u2')).toBe(0);
  });
});

describe('a read over several partitions', () => {
  const read = (...ids: string[]): Promise<RawMessage> =>
    exchange(
      rig.port,
      `GET /free-busy?${ids.map((id) => `ids=${id}`).join('&')} HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n`,
    );

  test('goes to where all of them live, also through a fence; else it is 409', async () => {
    rig = await startRig({ config });
    rig.gate.fence('u2', 'app');
    expect(statusOf(await read('u2', 'u3'))).toBe(200);
    expect(rig.legacy.requests.length).toBe(1);
    release('u2');
    const answer = await read('u2', 'u3');
    expect([statusOf(answer), problemOf(answer)]).toMatchObject([
      409,
      { code: 'cross-partition-read', partitions: [{ owner: 'app' }, { owner: 'legacy' }] },
    ]);
    expect(problemOf(answer)['sent']).toBeUndefined();
    rig.gate.move('u3', 'app');
    expect(statusOf(await read('u2', 'u3'))).toBe(200);
    expect(rig.app.requests.length).toBe(1);
  });
});

describe('what a guarded store is told', () => {
  test('of every partition, under which epoch, signed so that a guard of before refuses it', async () => {
    rig = await startRig({ config });
    rig.gate.move('u2', 'app');
    rig.gate.move('t m,1', 'app');
    expect(
      statusOf(await send('/batch', batch('u2', 't m,1'), ['x-user: ann', 'Onewriter-Also: u9 1'])),
    ).toBe(200);
    const [seen] = rig.app.requests;
    const headers: Record<string, string[]> = {};
    for (const line of seen?.headers ?? []) {
      const [name = '', value = ''] = line.split(': ');
      (headers[name.toLowerCase()] ??= []).push(value);
    }
    const asked = {
      ...{ secret: rigSecret, nowSeconds: Math.floor(Date.now() / 1_000), method: 'POST', target: '/batch' },
      headers,
    };
    expect(verifyGuard({ ...asked, severalPartitions: true })).toEqual({
      ok: true,
      claims: {
        ...{ user: 'ann', partition: 'u2', epoch: 4, access: 'write' },
        also: [{ partition: 't m,1', epoch: 4 }],
      },
    });
    expect(headers['onewriter-signature']?.[0]).toMatch(/^v2,/);
    expect(statusOf(await send('/batch', batch('u2')))).toBe(200);
    expect(rig.app.requests[1]?.headers.join()).toMatch(/onewriter-signature: v1,/i);
    expect(headerOf(rig.app.requests[1] ?? { headers: [] }, 'onewriter-also')).toBeUndefined();
  });
});

describe('MOVE', () => {
  const move = (destination: string, ...headers: string[]): Promise<RawMessage> =>
    exchange(
      rig.port,
      [
        ...['MOVE /dav/u1/a.ics HTTP/1.1', 'Host: shop.example', 'x-user: ann'],
        ...[`Destination: ${destination}`, 'Overwrite: F', ...headers, '', ''],
      ].join('\r\n'),
    );
  const seen = (): (string | undefined)[] =>
    rig.legacy.requests.map((request) => headerOf(request, 'destination'));

  test('names its destination as the store knows it: by the store\u2019s host and below its path', async () => {
    rig = await startRig({ config, prefix: '/platform' });
    const host = `127.0.0.1:${rig.legacy.port}`;
    expect(statusOf(await move('https://shop.example/dav/u1/b%20c.ics?x=%2f'))).toBe(200);
    expect(statusOf(await move('/dav/u1/b.ics'))).toBe(200);
    expect(seen()).toEqual([`http://${host}/platform/dav/u1/b%20c.ics?x=%2f`, '/platform/dav/u1/b.ics']);
    expect(rig.legacy.requests[0]?.startLine).toBe('MOVE /platform/dav/u1/a.ics HTTP/1.1');
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'overwrite')).toBe('F');
  });

  test('names it by the host that the store is told', async () => {
    rig = await startRig({ config, legacy: { host: 'preserve' } });
    await move('http://SHOP.example/dav/u1/b.ics');
    expect(seen()).toEqual(['http://shop.example/dav/u1/b.ics']);
  });

  test('between partitions of different stores is refused, and joins those of one', async () => {
    const noted: (readonly string[])[] = [];
    const links: LinkNotes = { known: () => false, note: async (all) => void noted.push(all) };
    rig = await startRig({ config, links: { ...links, known: () => noted.length > 0 } });
    expect(statusOf(await move('/dav/u2/a.ics'))).toBe(200);
    expect(noted).toEqual([['u1', 'u2']]);
    rig.gate.move('u2', 'app');
    const answer = await move('/dav/u2/a.ics');
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([409, 'cross-partition-write']);
    expect(rig.legacy.requests.length).toBe(1);
  });

  test('to another host is refused, and Connection cannot take the destination away', async () => {
    rig = await startRig({ config });
    const answer = await move('http://other.example/dav/u2/a.ics');
    expect([statusOf(answer), problemOf(answer)['code']]).toEqual([400, 'bad-target']);
    expect(statusOf(await move('/dav/u1/b.ics', 'Connection: close, destination'))).toBe(200);
    expect(seen()).toEqual(['/dav/u1/b.ics']);
  });
});

test.each([
  ['refuses', 'HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n', []],
  ['breaks off', '', ['u2', 'u3']],
])(
  'a WebSocket that a store %s puts no name into the registry that nobody has taken',
  async (_, said, noticed) => {
    rig = await startRig({ config });
    rig.legacy.answer = (_request, socket) => void socket.end(said);
    const offer = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13';
    const answer = await exchange(
      rig.port,
      `GET /live?ids=u2&ids=u3 HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${offer}\r\n\r\n`,
    );
    expect(statusOf(answer)).toBe(said === '' ? 502 : 403);
    await until('it is over', () => rig.gate.endings.length === 2);
    expect([...rig.gate.noticed]).toEqual(noticed);
  },
);

test('a WebSocket of several partitions is closed at the fence of any of them, and is in doubt for all', async () => {
  const server = createServer();
  const sockets = new WebSocketServer({ server });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    rig = await startRig({ config, legacy: { url } });
    const socket = new WebSocket(`ws://127.0.0.1:${rig.port}/live?ids=u2&ids=u3`, {
      headers: { 'x-user': 'ann' },
    });
    await once(socket, 'open');
    expect([rig.gate.member.inFlight('u2'), rig.gate.member.inFlight('u3')]).toEqual([1, 1]);
    expect([...rig.gate.noticed]).toEqual(['u2', 'u3']);
    const closed = once(socket, 'close');
    rig.gate.fence('u3', 'app');
    expect((await closed)[0]).toBe(1012);
    expect(rig.gate.endings).toEqual([
      { partition: 'u2', outcome: 'in-doubt' },
      { partition: 'u3', outcome: 'in-doubt' },
    ]);
    expect(rig.proxy.counters().closedAtFence).toBe(1);
    expect(rig.gate.listening()).toBe(0);
  } finally {
    sockets.close();
    server.closeAllConnections();
    server.close();
  }
});

describe('a write', () => {
  test.each([
    [200, ['u2', 'u3']],
    [302, ['u2', 'u3']],
    [401, []],
    [403, []],
    [404, []],
    [500, ['u2', 'u3']],
  ])('that a store answers with %i puts %j into the registry', async (status, noticed) => {
    rig = await startRig({ config });
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 ${status} X\r\nContent-Length: 0\r\n\r\n`);
    expect(statusOf(await send('/batch', batch('u2', 'u3')))).toBe(status);
    await until('it is over', () => rig.proxy.counters().underWay === 0);
    expect([...rig.gate.noticed]).toEqual(noticed);
  });

  test('puts nobody into the registry before its store has taken it, and somebody where that is not known', async () => {
    rig = await startRig({ config });
    rig.legacy.answer = () => undefined;
    const client = await RawClient.open(rig.port);
    client.send(bytesOf('/batch', batch('u2', 'u3')));
    await until('the store has it', () => rig.legacy.requests.length === 1);
    expect([...rig.gate.noticed]).toEqual([]);
    for (const socket of rig.legacy.sockets) socket.destroy();
    expect(problemOf(await client.answer())['code']).toBe('outcome-unknown');
    expect([...rig.gate.noticed]).toEqual(['u2', 'u3']);
    client.close();
  });
});

describe('a read', () => {
  test.each([
    [200, ['u2', 'u3']],
    [304, ['u2', 'u3']],
    [401, []],
    [404, []],
    [500, []],
  ])('that a store answers with %i puts %j into the registry', async (status, noticed) => {
    rig = await startRig({ config });
    rig.legacy.answer = (_request, socket) =>
      void socket.write(`HTTP/1.1 ${status} X\r\nContent-Length: 0\r\n\r\n`);
    const read = 'GET /free-busy?ids=u2&ids=u3 HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n';
    expect(statusOf(await exchange(rig.port, read))).toBe(status);
    await until('it is over', () => rig.proxy.counters().underWay === 0);
    expect([...rig.gate.noticed]).toEqual(noticed);
  });
});

describe('a rule that finds the partition in a JSON body', () => {
  const rules = { partition: [{ body: 'owner' }, { by: 'user' }] };
  const head = 'POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Type: image/png\r\n';
  const owned = '{"owner":"bob"}';

  test.each(['Content-Length', 'Transfer-Encoding'])(
    'is not dodged by another type (%s)',
    async (framing) => {
      rig = await startRig({ config: rules });
      rig.gate.move('bob', 'app');
      const chunks = [' ', ' ', owned].map((text) => `${text.length.toString(16)}\r\n${text}\r\n`);
      const client = await RawClient.open(rig.port);
      if (framing === 'Content-Length') client.send(`${head}Content-Length: ${owned.length}\r\n\r\n${owned}`);
      else client.send(`${head}Transfer-Encoding: chunked\r\n\r\n${chunks.join('')}0\r\n\r\n`);
      const answer = await client.answer();
      expect([statusOf(answer), problemOf(answer)['code'], problemOf(answer)['sent']]).toEqual([
        ...[400, 'no-partition', 'no'],
      ]);
      expect([rig.legacy.requests, rig.app.requests]).toEqual([[], []]);
      client.close();
    },
  );

  test('waits for no more of a long upload than its first byte, and passes it whole', async () => {
    rig = await startRig({ config: rules });
    let atStore = 0;
    rig.legacy.onBytes = (bytes) => (atStore += bytes.length);
    const upload = `  ${'\u0089PNG'.repeat(700_000)}`;
    const client = await RawClient.open(rig.port);
    client.send(`${head}Content-Length: ${upload.length}\r\n\r\n ${upload.slice(1, 2_000)}`);
    await until('its beginning is at the store', () => atStore > 2_000);
    client.send(upload.slice(2_000));
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.requests[0]?.body).toBe(upload);
    expect([...rig.gate.noticed]).toEqual(['ann']);
    client.close();
  });
});
