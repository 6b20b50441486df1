/** What passes through the proxy, byte for byte, between raw sockets. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createTestGate } from '../support/gate.ts';
import { configOf, type ProxyRig, startRig } from '../support/proxy.ts';
import { exchange, headerOf, RawClient, statusOf } from '../support/raw-http.ts';
import { until } from '../support/until.ts';

let rig: ProxyRig;
beforeEach(async () => {
  rig = await startRig({
    config: {
      proxy: { port: 0, debugHeaders: true },
      routes: [
        { methods: ['PUT'], path: '/records/:id', record: { kind: 'appointment', id: 'path.id' } },
        { methods: ['POST'], path: '/records', record: { kind: 'appointment', id: 'response.data.id' } },
      ],
    },
  });
});
afterEach(async () => rig.stop());

describe('a request on its way to the store', () => {
  test('headers keep order, case and duplicates', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write(
        'HTTP/1.1 201 Made\r\nX-One: 1\r\nSet-Cookie: a=1\r\nx-TWO: 2\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n',
      );
    };
    const answer = await exchange(
      rig.port,
      'POST /a HTTP/1.1\r\nHost: here\r\nX-UsEr: ann\r\nB-Field: 1\r\na-field: x\r\nB-Field: 2\r\nContent-Length: 2\r\n\r\nhi',
    );
    const sent = rig.legacy.requests[0]?.headers ?? [];
    const kept = sent.filter((line) => /^(x-user|a-field|b-field)/i.test(line));
    expect(kept).toEqual(['X-UsEr: ann', 'B-Field: 1', 'a-field: x', 'B-Field: 2']);
    expect(answer.startLine).toBe('HTTP/1.1 201 Made');
    expect(answer.headers.slice(0, 5)).toEqual([
      'X-One: 1',
      'Set-Cookie: a=1',
      'x-TWO: 2',
      'Set-Cookie: b=2',
      'Content-Length: 0',
    ]);
  });

  test('inbound guard headers are stripped, in any spelling, and the app gets its own', async () => {
    rig.gate.move('ann', 'app');
    await exchange(
      rig.port,
      'POST /a HTTP/1.1\r\nHost: here\r\nx-user: ann\r\nOnewriter-User: root\r\nonewriter_partition: other\r\nONEWRITER-Epoch: 99\r\nOnewriter!Access: read\r\nX_User: root\r\nX.User: root\r\nx~user: root\r\nX|USER: root\r\nX.Real!IP: 1.1.1.1\r\nContent.Length: 9\r\nContent-Length: 0\r\n\r\n',
    );
    const sent = rig.app.requests[0]?.headers ?? [];
    expect(sent.filter((line) => /^x.user/i.test(line))).toEqual(['x-user: ann']);
    expect(sent.filter((line) => /^(x.real|content.length)/i.test(line))).toEqual(['Content-Length: 0']);
    const guard = sent.filter((line) => /^onewriter/i.test(line));
    expect(guard.map((line) => line.split(':')[0])).toEqual([
      'Onewriter-User',
      'Onewriter-Partition',
      'Onewriter-Epoch',
      'Onewriter-Access',
      'Onewriter-Signature',
    ]);
    expect(guard.slice(0, 4)).toEqual([
      'Onewriter-User: ann',
      'Onewriter-Partition: ann',
      'Onewriter-Epoch: 4',
      'Onewriter-Access: write',
    ]);
  });

  test.each(['x_org', 'x-org', 'X.Org'])(
    'of the header %s by which a partition is found, no other spelling passes',
    async (name) => {
      await rig.stop();
      rig = await startRig({ config: { partition: [{ header: name }, { by: 'user' }] } });
      const spelled = ['x_org', 'x-org', 'X.Org'].filter((other) => other !== name);
      const lines = ['x-user: ann', ...spelled.map((other) => `${other}: theirs`), 'Content-Length: 0'];
      await exchange(
        rig.port,
        ['POST /a HTTP/1.1', 'Host: h', ...lines, `${name}: ours`, '', ''].join('\r\n'),
      );
      const sent = rig.legacy.requests[0]?.headers ?? [];
      expect(sent.filter((line) => /^x.org/i.test(line))).toEqual([`${name}: ours`]);
    },
  );

  test('a store without a guard gets no guard headers', async () => {
    await exchange(rig.port, 'GET /a HTTP/1.1\r\nHost: here\r\nx-user: ann\r\n\r\n');
    expect(rig.legacy.requests[0]?.headers.filter((line) => /^onewriter/i.test(line))).toEqual([]);
  });

  test('hop-by-hop headers and those that Connection names stay here', async () => {
    await exchange(
      rig.port,
      'GET /a HTTP/1.1\r\nHost: here\r\nx-user: ann\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\nX-End: 1\r\n\r\n',
    );
    const names = rig.legacy.requests[0]?.headers.map((line) => line.split(':')[0]?.toLowerCase()) ?? [];
    expect(names).toContain('x-end');
    for (const name of ['x-hop', 'keep-alive', 'te', 'proxy-authorization'])
      expect(names).not.toContain(name);
    expect(headerOf(rig.legacy.requests[0] ?? { headers: [] }, 'connection')).toBe('keep-alive');
  });

  test('forwarding headers of a peer that is not trusted are replaced', async () => {
    await exchange(
      rig.port,
      'GET /a HTTP/1.1\r\nHost: here\r\nx-user: ann\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nX-Original-URL: /b\r\n\r\n',
    );
    const sent = rig.legacy.requests[0]?.headers ?? [];
    expect(sent.filter((line) => /^(x-forwarded|forwarded|x-original)/i.test(line))).toEqual([
      'X-Forwarded-For: 127.0.0.1',
      'X-Forwarded-Proto: http',
      'X-Forwarded-Host: here',
    ]);
    expect(headerOf({ headers: sent }, 'host')).toBe(`127.0.0.1:${rig.legacy.port}`);
  });

  test('odd targets reach the store unchanged', async () => {
    for (const target of ['//a//b', '/%zz', '/a;b=1', '/a?', '/a?x&&y=%2F%5C', '/a?x=/../b', '/%C3%A9']) {
      rig.legacy.requests.length = 0;
      await exchange(rig.port, `GET ${target} HTTP/1.1\r\nHost: here\r\nx-user: ann\r\n\r\n`);
      expect(rig.legacy.requests[0]?.startLine).toBe(`GET ${target} HTTP/1.1`);
    }
  });

  test('a DELETE with a chunked body keeps its framing', async () => {
    await exchange(
      rig.port,
      'DELETE /a HTTP/1.1\r\nHost: here\r\nx-user: ann\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    );
    const [request] = rig.legacy.requests;
    expect(request?.body).toBe('abc');
    expect(headerOf(request ?? { headers: [] }, 'transfer-encoding')).toBe('chunked');
  });

  test('a large body passes whole, in both framings', async () => {
    const body = 'x'.repeat(300_000);
    for (const framing of ['length', 'chunked']) {
      const framed =
        framing === 'length'
          ? `Content-Length: ${body.length}\r\n\r\n${body}`
          : `Transfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`;
      await exchange(rig.port, `PUT /big HTTP/1.1\r\nHost: here\r\nx-user: ann\r\n${framed}`);
      expect(rig.legacy.requests.at(-1)?.body.length).toBe(body.length);
    }
    expect(rig.gate.endings.map(({ outcome }) => outcome)).toEqual(['ended', 'ended']);
  });

  test('100 Continue is sent after admission, and the body then arrives', async () => {
    const client = await RawClient.open(rig.port);
    rig.gate.fence('ann', 'app');
    client.send(
      'POST /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n',
    );
    await until('the write is held', () => rig.proxy.counters().holding === 1);
    expect(client.received).toBe('');
    rig.gate.order('ann', { kind: 'abort', attempt: 'a' });
    expect(statusOf(await client.answer())).toBe(100);
    client.send('hi');
    expect(statusOf(await client.answer())).toBe(200);
    expect(rig.legacy.requests[0]?.body).toBe('hi');
    client.close();
  });

  test('pipelined requests are answered in order', async () => {
    rig.legacy.answer = (request, socket) => {
      const path = request.startLine.split(' ')[1] ?? '';
      const reply = (): void => void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n${path}`);
      if (path === '/1') setImmediate(() => setImmediate(reply));
      else reply();
    };
    const client = await RawClient.open(rig.port);
    client.send(
      'GET /1 HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n',
    );
    expect((await client.answer()).body).toBe('/1');
    expect((await client.answer()).body).toBe('/2');
    client.close();
  });

  test('a request that offers h2c is served as HTTP/1.1', async () => {
    const answer = await exchange(
      rig.port,
      'GET /a HTTP/1.1\r\nHost: h\r\nx-user: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n',
    );
    expect(statusOf(answer)).toBe(200);
  });
});

describe('an answer on its way to the client', () => {
  test('hop-by-hop and Onewriter headers of the store are removed, and the debug headers are ours', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write(
        'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nOnewriter-Store: app\r\nKeep-Alive: timeout=9\r\nContent-Length: 0\r\n\r\n',
      );
    };
    const answer = await exchange(rig.port, 'GET /a HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    expect(headerOf(answer, 'x-hop')).toBeUndefined();
    expect(answer.headers.filter((line) => /^onewriter/i.test(line))).toEqual([
      'Onewriter-Store: legacy',
      'Onewriter-Epoch: 1',
    ]);
  });

  test('trailers and early hints pass, an unasked 100 does no harm', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write(
        'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n',
      );
      socket.write(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n',
      );
    };
    const client = await RawClient.open(rig.port);
    client.send('POST /a HTTP/1.1\r\nHost: h\r\nx-user: a\r\nContent-Length: 2\r\n\r\nhi');
    const hints = await client.answer();
    expect(statusOf(hints)).toBe(103);
    expect(headerOf(hints, 'link')).toBe('</a.css>; rel=preload');
    await client.until(() => client.received.endsWith('\r\n0\r\nX-Sum: 7\r\n\r\n'));
    expect(client.received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(rig.gate.endings).toEqual([{ partition: 'a', outcome: 'ended' }]);
    client.close();
  });

  test('answers to HEAD, 204 and 304 carry no body, and the connection goes on', async () => {
    const client = await RawClient.open(rig.port);
    rig.legacy.answer = (request, socket) => {
      if (request.startLine.startsWith('HEAD')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n');
      else if (request.startLine.includes('/204')) socket.write('HTTP/1.1 204 No Content\r\n\r\n');
      else socket.write('HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n');
    };
    client.send('HEAD /a HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    expect(headerOf(await client.answer({ bodyless: true }), 'content-length')).toBe('5');
    client.send('GET /204 HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(204);
    client.send('GET /304 HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(304);
    client.close();
  });

  test('a store that dies in mid-answer leaves a broken transfer, with and without a length', async () => {
    for (const framing of ['Content-Length: 10', 'Transfer-Encoding: chunked']) {
      rig.legacy.answer = (_request, socket) => {
        socket.write(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n3\r\nabc\r\n`, () => socket.destroy());
      };
      const client = await RawClient.open(rig.port);
      client.send('GET /a HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
      await client.until(() => false);
      expect(client.closed).toBe(true);
      expect(client.received).not.toContain('0\r\n\r\n');
      expect(client.received.split('\r\n\r\n')[1]?.length ?? 0).toBeLessThan(10);
    }
  });

  test('the first event of a stream comes at once', async () => {
    rig.legacy.answer = (_request, socket) => {
      socket.write(
        'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n',
      );
    };
    const client = await RawClient.open(rig.port);
    client.send('GET /events HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    await client.until(() => client.received.includes('text/event-stream'));
    for (const socket of rig.legacy.sockets) socket.write('6\r\ndata:1\r\n');
    await client.until(() => client.received.includes('data:1'));
    client.close();
    // The client's abort of a read reaches the store.
    await until('the store sees the abort', () => rig.legacy.sockets.size === 0);
  });

  test.each(['open', 'begun'])(
    'an event stream that is %s is ended when other rules apply',
    async (state) => {
      const head =
        'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n';
      rig.legacy.answer = (_request, socket) => void (state === 'open' && socket.write(head));
      const client = await RawClient.open(rig.port);
      client.send('GET /events HTTP/1.1\r\nHost: h\r\nx-user: ann\r\n\r\n');
      await until('the store has it', () => rig.legacy.requests.length === 1);
      if (state === 'open') await client.until(() => client.received.includes('data: 1'));
      // The gate of before hears of no move any more.
      rig.proxy.serveUnder({ config: configOf(), gate: createTestGate('app'), doubts: { note: () => {} } });
      if (state === 'begun') for (const socket of rig.legacy.sockets) socket.write(head);
      await client.until(() => client.received.endsWith('0\r\n\r\n'));
      expect(client.received.endsWith('0\r\n\r\n')).toBe(true);
      await until('the store is let go', () => rig.legacy.sockets.size === 0);
      client.close();
    },
  );

  test('a large answer is not read faster than its client reads', async () => {
    const whole = 64 * 1024 * 1024;
    let written = 0;
    rig.legacy.answer = (_request, socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${whole}\r\n\r\n`);
      const chunk = Buffer.alloc(65_536);
      const fill = (): void => {
        while (written < whole) {
          written += chunk.length;
          if (!socket.write(chunk)) {
            socket.once('drain', fill);
            return;
          }
        }
      };
      fill();
    };
    const client = await RawClient.open(rig.port);
    client.socket.pause();
    client.send('GET /big HTTP/1.1\r\nHost: h\r\nx-user: a\r\n\r\n');
    let before = -1;
    let still = 0;
    await until('the store stops writing', () => {
      still = written === before ? still + 1 : 0;
      before = written;
      return still > 20 && written > 0;
    });
    expect(written).toBeLessThan(whole);
    client.close();
  });
});

describe('the doorbell', () => {
  test('is rung after a successful write, with the id from the path or from the answer', async () => {
    await exchange(
      rig.port,
      'PUT /records/r%201 HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\n{}',
    );
    rig.legacy.answer = (_request, socket) => {
      const body = '{"data":{"id":42}}';
      socket.write(
        `HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    };
    await exchange(
      rig.port,
      'POST /records HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\n{}',
    );
    rig.legacy.answer = (_request, socket) => {
      const body = '{"data":{"id":"half a character: \\ud800"}}';
      socket.write(
        `HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    };
    await exchange(
      rig.port,
      'POST /records HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\n{}',
    );
    rig.legacy.answer = (_request, socket) =>
      void socket.write('HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n');
    await exchange(
      rig.port,
      'PUT /records/r2 HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nContent-Length: 2\r\n\r\n{}',
    );
    expect(rig.rung).toEqual([
      { partition: 'ann', kind: 'appointment', id: 'r 1' },
      { partition: 'ann', kind: 'appointment', id: '42' },
    ]);
  });
});

test('an identity header that its peer may not set is not passed on beside another credential', async () => {
  await rig.stop();
  rig = await startRig({
    config: {
      identity: [
        { header: 'x-user', from: ['127.0.0.0/8'] },
        { header: 'x-victim', from: ['10.9.9.9/32'] },
      ],
    },
  });
  const head =
    'PUT /a HTTP/1.1\r\nHost: h\r\nx-user: ann\r\nX-Victim: bob\r\nConnection: x-user\r\nContent-Length: 0\r\n\r\n';
  expect(statusOf(await exchange(rig.port, head))).toBe(200);
  const sent = rig.legacy.bytes.toLowerCase();
  expect(sent).not.toContain('x-victim');
  expect(sent).toContain('x-user: ann');
});
