/** Connections to a store: what is sent on them and when, how exchanges fail, and what is never taken for an answer. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { Llhttp } from '../../src/proxy/upstream/llhttp.ts';
import type { Upstream, UpstreamSettings } from '../../src/proxy/upstream.ts';
import { type RawAnswer, RawUpstream } from '../support/raw-http.ts';
import { until } from '../support/until.ts';
import { Asked, upstreamTo } from '../support/upstream.ts';

let store: RawUpstream;
let upstream: Upstream;
afterEach(async () => {
  await upstream.close();
  await store.stop();
  expect(Llhttp.alive).toBe(0);
});

async function start(answer?: RawAnswer, changes: Partial<UpstreamSettings> = {}): Promise<void> {
  store = await RawUpstream.start(answer);
  upstream = upstreamTo(store.url, changes);
}

const answering =
  (head: string, body = ''): RawAnswer =>
  (_request, socket) =>
    void socket.write(`${head}\r\n\r\n${body}`, 'latin1');
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2';
const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((done) => setImmediate(done));
};
/** Nothing is read meanwhile, so that what was written has arrived when the loop goes on. */
const blockLoop = (): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
const ask = (changes = {}): Asked => new Asked(upstream, changes);

describe('a connection is used again', () => {
  test('for one exchange after the other', async () => {
    await start();
    for (const body of ['ok', 'ok', 'ok']) {
      const asked = await ask().done();
      expect([asked.status, asked.body, asked.told]).toEqual([200, body, ['sending', 'head', 'data', 'end']]);
      await turns(2);
    }
    expect(store.connections).toBe(1);
  });

  test.each([
    ['after a hint that it stays', `${ok}\r\nKeep-Alive: timeout=60`, 1],
    ['not after a hint that it is about to be closed', `${ok}\r\nKeep-Alive: timeout=1`, 2],
    ['not after Connection: close', `${ok}\r\nConnection: close`, 2],
    ['not after HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2', 2],
    ['after HTTP/1.0 that stays open', 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2', 1],
  ])('%s', async (_name, head, connections) => {
    await start(answering(head, 'ok'));
    for (let round = 0; round < 2; round += 1) {
      expect((await ask().done()).body).toBe('ok');
      await turns(2);
    }
    expect(store.connections).toBe(connections);
  });

  test('not after an answer without body that announced one', async () => {
    await start(answering('HTTP/1.1 204 N\r\nContent-Length: 4'));
    for (let round = 0; round < 2; round += 1) {
      expect((await ask().done()).status).toBe(204);
      await turns(2);
    }
    expect(store.connections).toBe(2);
  });

  test('no longer when it was idle for too long, and is closed then', async () => {
    await start(answering(`${ok}\r\nKeep-Alive: timeout=2`, 'ok'));
    await ask().done();
    expect(store.sockets.size).toBe(1);
    await until('it is closed', () => store.sockets.size === 0);
  });
});

describe('bytes that nobody asked for', () => {
  const evil = `${ok}\r\n\r\nNO`;

  test('behind an answer, in the same packet', async () => {
    await start((_request, socket) => void socket.write(`${ok}\r\n\r\nok${evil}`));
    for (let round = 0; round < 3; round += 1) {
      expect((await ask().done()).body).toBe('ok');
      await turns(2);
    }
    expect(store.connections).toBe(3);
  });

  test('on an idle connection: it is closed', async () => {
    await start();
    await ask().done();
    for (const socket of store.sockets) socket.write(evil);
    await until('it is closed', () => store.sockets.size === 0);
    expect((await ask().done()).body).toBe('ok');
    expect(store.connections).toBe(2);
  });

  test('that arrive together with the next request are not its answer', async () => {
    await start();
    for (let round = 1; round <= 10; round += 1) {
      expect((await ask().done()).body).toBe('ok');
      await turns(2);
      for (const socket of store.sockets) socket.write(evil);
      const next = ask();
      blockLoop();
      const asked = await next.done();
      expect([asked.body, asked.stage]).toEqual(['ok', undefined]);
      expect(store.requests.length).toBe(2 * round);
      await turns(2);
    }
  });

  test('an end that arrives together with the next request costs nothing', async () => {
    await start();
    for (let round = 1; round <= 10; round += 1) {
      await ask().done();
      await turns(2);
      for (const socket of store.sockets) {
        if (round % 2 === 0) socket.resetAndDestroy();
        else socket.end();
      }
      // A socket ends in the next tick.
      await Promise.resolve();
      const next = ask();
      blockLoop();
      const asked = await next.done();
      expect([asked.body, asked.stage]).toEqual(['ok', undefined]);
      await turns(2);
    }
    expect(store.requests.length).toBe(20);
  });
});

describe('answers that are not passed on', () => {
  test.each([
    ['a length and a coding', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked', ''],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3', ''],
    ['another coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked', ''],
    ['a switch of protocols', 'HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade', ''],
    ['too long a head', `HTTP/1.1 200 OK\r\nA: ${'x'.repeat(33_000)}`, ''],
    ['too many fields', `HTTP/1.1 200 OK\r\n${'a:b\r\n'.repeat(1_001)}a:b`, ''],
    ['too many interim answers', 'HTTP/1.1 103 E\r\n\r\n'.repeat(33) + ok, 'ok'],
    ['another protocol', 'SIP/2.0 200 OK', ''],
  ])('%s', async (_name, head, body) => {
    await start(answering(head, body));
    const asked = await ask().done();
    expect([asked.stage, asked.told.includes('head')]).toEqual(['broken', false]);
    expect(asked.cause?.message).toMatch(/^the answer is not HTTP: /);
    await until('the connection is closed', () => store.sockets.size === 0);
  });

  test('too long trailers leave a broken answer', async () => {
    const trailers = `0\r\nA: ${'x'.repeat(33_000)}\r\n\r\n`;
    await start(answering('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked', `2\r\nok\r\n${trailers}`));
    const asked = await ask().done();
    expect([asked.body, asked.stage]).toEqual(['ok', 'broken']);
  });

  test('interim answers in any number that is bearable come first', async () => {
    await start(answering('HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n'.repeat(10) + ok, 'ok'));
    const asked = await ask().done();
    expect(asked.told.filter((what) => what.startsWith('information')).length).toBe(20);
    expect(asked.body).toBe('ok');
  });
});

describe('an answer without length', () => {
  test('is whole when the store ends the connection, and broken when it resets it', async () => {
    await start((_request, socket) => void socket.end('HTTP/1.0 200 OK\r\n\r\nabc'));
    const whole = await ask().done();
    expect([whole.body, whole.stage]).toEqual(['abc', undefined]);
    store.answer = (_request, socket) =>
      void socket.write('HTTP/1.0 200 OK\r\n\r\nabc', () => setImmediate(() => socket.resetAndDestroy()));
    const broken = await ask().done();
    expect(broken.stage).toBe('broken');
  });

  test.each([
    ['in its head', 'HTTP/1.1 200 OK\r\nContent-'],
    ['before its head', ''],
    ['behind an interim answer', 'HTTP/1.1 103 E\r\n\r\n'],
    ['in its length', `${ok}\r\n\r\no`],
    ['in its chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n'],
  ])('one that ends %s is broken', async (_name, bytes) => {
    await start((_request, socket) => void socket.end(bytes));
    expect((await ask().done()).stage).toBe('broken');
  });
});

describe('an exchange that must not be sent any more', () => {
  test('is not, and its connection is used for the next one', async () => {
    await start();
    await ask().done();
    await turns(2);
    const refused = ask();
    refused.maySend = false;
    expect((await refused.done()).stage).toBe('cancelled');
    expect(refused.told).toEqual(['sending', 'failed']);
    await turns(2);
    expect((await ask().done()).body).toBe('ok');
    expect([store.connections, store.requests.length]).toEqual([1, 2]);
  });

  test('that is cancelled while its connection is opened is never sent', async () => {
    await start();
    const asked = ask();
    await turns(1);
    asked.exchange.cancel(new Error('gone'));
    expect([asked.stage, asked.told]).toEqual(['cancelled', ['failed']]);
    expect((await ask().done()).body).toBe('ok');
    expect(store.requests.length).toBe(1);
  });

  test('that is cancelled at once is told so after it was sent, and only once', async () => {
    await start();
    const asked = ask();
    asked.exchange.cancel(new Error('gone'));
    asked.exchange.cancel(new Error('again'));
    await turns(4);
    expect(asked.told).toEqual(['failed']);
    expect(store.connections).toBe(0);
  });
});

describe('cancelled, or with a listener that throws, in any of its calls', () => {
  const moments = ['sending', 'information', 'head', 'data', 'end', 'failed'] as const;

  test.each(moments)('%s', async (moment) => {
    const bugs: unknown[] = [];
    await start(undefined, { bug: (error) => bugs.push(error) });
    store.answer = (_request, socket) => {
      socket.write(
        'HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n',
      );
      socket.write(moment === 'failed' ? 'nonsense' : '0\r\n\r\n');
    };
    const cancelled = ask();
    cancelled.on[moment] = () => cancelled.exchange.cancel(new Error('enough'));
    await cancelled.done();
    const last = moment === 'end' || moment === 'failed' ? moment : 'failed';
    expect(cancelled.told.at(-1)).toBe(last);
    if (last === 'failed' && moment !== 'failed') expect(cancelled.stage).toBe('cancelled');

    const thrown = ask();
    thrown.on[moment] = () => {
      throw new Error(`thrown in ${moment}`);
    };
    await thrown.done();
    expect(bugs.map(String)).toEqual([`Error: thrown in ${moment}`]);
    expect(thrown.told.at(-1)).toBe(last);

    // Nobody else is harmed.
    store.answer = answering(ok, 'ok');
    await turns(2);
    expect((await ask().done()).body).toBe('ok');
  });

  test('a paused one that is cancelled gives its connection up', async () => {
    await start(answering('HTTP/1.1 200 OK\r\nContent-Length: 10', 'abc'));
    const asked = ask();
    asked.on.data = () => asked.exchange.pause();
    await until('it has begun', () => asked.body === 'abc');
    asked.exchange.cancel(new Error('enough'));
    asked.exchange.resume();
    await until('its connection is closed', () => store.sockets.size === 0);
  });

  test('one that is paused as its answer ends leaves a connection that is read', async () => {
    await start();
    const asked = ask();
    asked.on.data = () => asked.exchange.pause();
    await asked.done();
    asked.exchange.resume();
    for (const socket of store.sockets) socket.end();
    await until('the end is noticed', () => store.sockets.size === 0);
    expect((await ask().done()).body).toBe('ok');
  });
});

describe('time', () => {
  test('a head that does not come in time', async () => {
    await start(() => {});
    const asked = await ask({ headTimeoutMs: 60 }).done();
    expect([asked.stage, asked.cause?.message]).toEqual(['timeout', 'the store did not answer in time']);
    await until('its connection is closed', () => store.sockets.size === 0);
    store.answer = answering(ok, 'ok');
    expect((await ask().done()).body).toBe('ok');
  });

  test('the limit of one exchange is not that of the next on the same connection', async () => {
    await start();
    await ask({ headTimeoutMs: 60_000 }).done();
    await turns(2);
    store.answer = () => {};
    expect((await ask({ headTimeoutMs: 60 }).done()).stage).toBe('timeout');
    store.answer = answering(ok, 'ok');
    await ask({ headTimeoutMs: 60 }).done();
    await turns(2);
    store.answer = (_request, socket) => void setTimeout(() => socket.write(`${ok}\r\n\r\nok`), 150);
    expect((await ask({ headTimeoutMs: 0 }).done()).body).toBe('ok');
  });

  test('a store that falls silent in its answer, but not one that goes on slowly', async () => {
    await start(undefined, { bodyTimeoutMs: 250 });
    store.answer = (_request, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n');
      let sent = 0;
      const drip = setInterval(() => {
        socket.write('x');
        sent += 1;
        if (sent === 4) clearInterval(drip);
      }, 100);
    };
    const slow = await ask().done();
    expect([slow.body, slow.stage]).toEqual(['xxxx', undefined]);
    store.answer = answering('HTTP/1.1 200 OK\r\nContent-Length: 4', 'xx');
    const silent = await ask().done();
    expect([silent.body, silent.stage, silent.cause?.message]).toEqual([
      'xx',
      'timeout',
      'the store fell silent in its answer',
    ]);
  });

  test('whoever pauses an answer does not make its store silent', async () => {
    await start(answering('HTTP/1.1 200 OK\r\nContent-Length: 4', 'xx'), { bodyTimeoutMs: 60 });
    const asked = ask();
    asked.on.data = () => asked.exchange.pause();
    await until('it has begun', () => asked.body === 'xx');
    await new Promise((wait) => setTimeout(wait, 200));
    expect(asked.over).toBe(false);
    asked.exchange.resume();
    expect((await asked.done()).stage).toBe('timeout');
  });

  test('nobody listens behind the address, or nobody answers there', async () => {
    await start();
    const closed = await RawUpstream.start();
    const { url } = closed;
    await closed.stop();
    const nobody = upstreamTo(url);
    expect((await new Asked(nobody).done()).stage).toBe('refused');
    await nobody.close();
    // TEST-NET-1 (RFC 5737): packets to it are answered by nobody, or refused at once where there is no way to it.
    const silent = upstreamTo('http://192.0.2.1:9', { connectTimeoutMs: 100 });
    const asked = await new Asked(silent).done();
    expect(['connect-timeout', 'refused']).toContain(asked.stage);
    await silent.close();
  });
});
