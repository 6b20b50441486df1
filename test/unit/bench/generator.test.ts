/** The load generator, as the process that it is, before servers that misbehave. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { GeneratorReport } from '../../../bench/generator.ts';
import { fullLoad, type Load, ratedLoad } from '../../../bench/load.ts';

const servers: Server[] = [];
const sockets = new Set<Socket>();

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  await Promise.all(servers.splice(0).map((server) => new Promise((closed) => server.close(closed))));
});

/** `answer`: called for each request, which is small enough to come whole. */
async function serverWith(answer: (socket: Socket, number: number) => void): Promise<number> {
  let number = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy());
    socket.on('data', () => answer(socket, (number += 1)));
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const request = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
const loadOn = (port: number): Load => ({ port, requests: [request], connections: 4, seconds: 1 });

/** Of the first and the last, one may fall out of the counted time by a rounding. */
function expectAnswered({ answered, errors }: GeneratorReport, count: number): void {
  expect(errors).toBe(0);
  expect(answered).toBeGreaterThanOrEqual(count - 1);
  expect(answered).toBeLessThanOrEqual(count + 1);
}

describe('a constant rate', () => {
  test('is kept, and everything answered is counted', async () => {
    const port = await serverWith((socket) => socket.write(ok));
    const report = await ratedLoad(loadOn(port), 200);
    expectAnswered(report, 200);
    expect(report.latencyMs.p50).toBeGreaterThan(0);
  });

  test('goes on while a server stalls: who could not even send waits all the same', async () => {
    const stallMs = 500;
    let stalledUntilMs = 0;
    const port = await serverWith((socket, number) => {
      if (number === 100) stalledUntilMs = performance.now() + stallMs;
      setTimeout(() => socket.write(ok), Math.max(0, stalledUntilMs - performance.now()));
    });
    const report = await ratedLoad({ ...loadOn(port), connections: 1 }, 200);
    expectAnswered(report, 200);
    // Only one request was under way meanwhile; a hundred were due.
    expect(report.latencyMs.p99).toBeGreaterThan(stallMs / 2);
  });

  const wrong: Readonly<Record<string, string | undefined>> = {
    'another status': 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n',
    'no length': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'no answer, but the end of its connection': undefined,
  };
  test.each(Object.entries(wrong))('counts as an error what has %s', async (_what, answer) => {
    const port = await serverWith((socket, number) => {
      if (number % 4 !== 0) socket.write(ok);
      else if (answer === undefined) socket.destroy();
      else socket.write(answer);
    });
    const report = await ratedLoad(loadOn(port), 100);
    // Of 125 with the warm-up a quarter.
    expect(report.errors).toBe(31);
    expect(report.answered).toBeLessThan(100);
  });
});

describe('as much as a server takes', () => {
  test('is asked again as soon as it was answered, in pieces too', async () => {
    const port = await serverWith((socket) => {
      socket.write(ok.slice(0, 10));
      setImmediate(() => socket.write(ok.slice(10)));
    });
    const report = await fullLoad(loadOn(port), false);
    expect(report.errors).toBe(0);
    expect(report.perSecond).toBeGreaterThan(4);
  });
});
