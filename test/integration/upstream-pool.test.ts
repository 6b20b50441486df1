/** How many connections there are to a store, who waits for them, and that streams of events starve nobody. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { Llhttp } from '../../src/proxy/upstream/llhttp.ts';
import type { Upstream, UpstreamSettings } from '../../src/proxy/upstream.ts';
import { type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, type RawAnswer, RawClient, RawUpstream, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';
import { Asked, upstreamTo } from '../support/upstream.ts';

let store: RawUpstream;
let upstream: Upstream | undefined;
let rig: ProxyRig | undefined;
afterEach(async () => {
  await upstream?.close();
  if (upstream !== undefined) await store.stop();
  await rig?.stop();
  [upstream, rig] = [undefined, undefined];
  expect(Llhttp.alive).toBe(0);
});

async function start(answer: RawAnswer, changes: Partial<UpstreamSettings> = {}): Promise<Upstream> {
  store = await RawUpstream.start(answer);
  upstream = upstreamTo(store.url, changes);
  return upstream;
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const stream = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n';
const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((done) => setImmediate(done));
};

describe('connections', () => {
  test('are never more than the bound, and whoever waits is served in order', async () => {
    const replies: (() => void)[] = [];
    const to = await start(
      (request, socket) => {
        const body = request.startLine.split(' ')[1] ?? '';
        replies.push(
          () => void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
        );
      },
      { connections: 2 },
    );
    const ended: string[] = [];
    const all = Array.from({ length: 8 }, (_, at) => {
      const asked = new Asked(to, { target: `/${at}` });
      asked.on.end = () => ended.push(asked.body);
      return asked;
    });
    for (let at = 0; at < 8; at += 1) {
      await until('the next request arrives', () => replies.length > at);
      expect(replies.length).toBeLessThanOrEqual(ended.length + 2);
      replies[at]?.();
      await until('it is answered', () => ended.length === at + 1);
    }
    expect(all.every(({ body }, at) => body === `/${at}`)).toBe(true);
    expect(ended).toEqual(all.map(({ body }) => body));
    expect(store.connections).toBe(2);
  });

  test('that became free serve who came at the same time: there are no more than needed', async () => {
    const to = await start((_request, socket) => void socket.write(ok), { connections: 50 });
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(Array.from({ length: 5 }, async () => new Asked(to).done()));
    }
    expect(store.connections).toBe(5);
  });

  test('a queue that is full refuses at once, and one that is too slow after its time; nothing was sent', async () => {
    const to = await start(() => {}, { connections: 1, queueMax: 1, queueMs: 100 });
    const first = new Asked(to);
    await until('the connection is taken', () => store.requests.length === 1);
    const [waits, refused] = [new Asked(to), new Asked(to)];
    expect((await refused.done()).cause?.message).toBe('the queue for a connection is full');
    expect(waits.over).toBe(false);
    expect((await waits.done()).cause?.message).toBe('no connection became free within 100 ms');
    expect([waits.stage, refused.stage, waits.told, refused.told]).toEqual([
      ...['pool-full', 'pool-full'],
      ...[['failed'], ['failed']],
    ]);
    expect([first.over, store.requests.length]).toEqual([false, 1]);
  });

  test('whoever leaves the queue leaves room in it', async () => {
    const replies: (() => void)[] = [];
    const to = await start((_request, socket) => replies.push(() => void socket.write(ok)), {
      ...{ connections: 1, queueMax: 1 },
    });
    const first = new Asked(to);
    await until('the connection is taken', () => replies.length === 1);
    const gone = new Asked(to);
    await turns(2);
    gone.exchange.cancel(new Error('gone'));
    const last = new Asked(to);
    await turns(2);
    replies[0]?.();
    await first.done();
    await until('the last one arrives', () => replies.length === 2);
    replies[1]?.();
    expect([(await last.done()).body, gone.told, store.requests.length]).toEqual(['ok', ['failed'], 2]);
  });

  test('a connection that breaks makes room for who waits', async () => {
    const to = await start((_request, socket) => socket.destroy(), { connections: 1 });
    const all = Array.from({ length: 5 }, () => new Asked(to));
    for (const asked of all) expect((await asked.done()).stage).toBe('broken');
    expect([store.requests.length, store.connections]).toEqual([5, 5]);
  });

  test('at the end everything under way fails, and nothing new begins', async () => {
    const to = await start(() => {}, { connections: 1 });
    const sent = new Asked(to);
    await until('it is sent', () => store.requests.length === 1);
    const waits = new Asked(to);
    await turns(2);
    const isNew = new Asked(to);
    await to.close();
    expect([sent.stage, waits.stage, isNew.stage]).toEqual(['broken', 'closed', 'closed']);
    expect((await new Asked(to).done()).stage).toBe('closed');
    await until('its connection is closed', () => store.sockets.size === 0);
    expect(store.requests.length).toBe(1);
  });

  test('one that is being opened at the end is given up', async () => {
    const to = await start(() => {});
    const asked = new Asked(to);
    await turns(1);
    await to.close();
    expect([asked.stage, asked.told]).toEqual(['closed', ['failed']]);
  });
});

describe('streams of events', () => {
  const answer: RawAnswer = (request, socket) => {
    socket.write(request.startLine.includes('/events') ? `${stream}6\r\ndata:1\r\n` : ok);
  };
  const open = (to: Upstream, changes = {}): Asked =>
    new Asked(to, { target: '/events', stream: 'announced', ...changes });

  test.each(['announced', 'possible'] as const)(
    'that are %s are not counted among requests',
    async (kind) => {
      const to = await start(answer, { connections: 1, streams: 5 });
      const streams: Asked[] = [];
      for (let at = 0; at < 5; at += 1) {
        const asked = open(to, { stream: kind });
        streams.push(asked);
        await until('it has begun', () => asked.body === 'data:1');
      }
      for (let round = 0; round < 3; round += 1) expect((await new Asked(to).done()).body).toBe('ok');
      const more = await open(to, { stream: kind }).done();
      expect([more.stage, more.told.includes('head')]).toEqual(['streams-full', false]);
      expect(more.told.includes('sending')).toBe(kind === 'possible');
      streams[0]?.exchange.cancel(new Error('gone'));
      await turns(2);
      const next = open(to, { stream: kind });
      await until('there is room again', () => next.body === 'data:1');
    },
  );

  test('that become known while others wait make room for them', async () => {
    const to = await start(answer, { connections: 1 });
    const all = [open(to, { stream: 'possible' }), new Asked(to)];
    expect((await all[1]?.done())?.body).toBe('ok');
    expect(all[0]?.over).toBe(false);
  });

  test('that answer a write stay among requests: a write is bounded by its own time', async () => {
    const to = await start(answer, { connections: 1, queueMs: 50 });
    const asked = open(to, { method: 'POST', stream: 'no' });
    await until('it has begun', () => asked.body === 'data:1');
    expect((await new Asked(to).done()).stage).toBe('pool-full');
  });

  test('that end leave a connection for requests, where there is room for it', async () => {
    const to = await start((_request, socket) => void socket.write(`${stream}0\r\n\r\n`), { connections: 1 });
    await open(to).done();
    await turns(2);
    store.answer = answer;
    expect((await new Asked(to).done()).body).toBe('ok');
    expect(store.connections).toBe(1);
    const [streaming, holding] = [open(to), new Asked(to, { target: '/hold' })];
    store.answer = (request, socket) => {
      if (request.startLine.includes('/events')) setTimeout(() => socket.write(`${stream}0\r\n\r\n`), 50);
    };
    await streaming.done();
    await turns(2);
    await until('one connection is left', () => store.sockets.size === 1);
    expect(holding.over).toBe(false);
  });

  test('through the proxy: 503 beyond the bound, and other requests go on', async () => {
    rig = await startRig({ legacy: { connections: 1, streams: 2, connectTimeoutMs: 200 }, answer });
    const { port } = rig;
    const head = (target: string, more = ''): string =>
      `GET ${target} HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n${more}\r\n`;
    const watching = await Promise.all([1, 2].map(async () => RawClient.open(port)));
    watching[0]?.send(head('/events', 'Accept: text/event-stream\r\n'));
    watching[1]?.send(head('/events'));
    for (const client of watching) await client.until(() => client.received.includes('data:1'));
    for (let round = 0; round < 3; round += 1) {
      expect((await exchange(port, head('/a'))).body).toBe('ok');
      for (const accept of ['Accept: text/event-stream\r\n', '']) {
        const refused = await exchange(port, head('/events', accept));
        expect([statusOf(refused), headerOf(refused, 'retry-after')]).toEqual([503, '1']);
        expect(JSON.parse(refused.body)).toMatchObject({
          ...{ code: 'pool-full', stage: 'streams-full', store: 'legacy' },
          detail: expect.stringContaining('stores.legacy.streams'),
        });
      }
    }
    for (const client of watching) client.close();
  });
});
