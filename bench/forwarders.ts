/**
 * Compares ways to forward a request, side by side in one run: the proxy with everything on, a bare undici
 * forwarder, and express with http-proxy-middleware, before the same upstream. Each runs in a process of its
 * own and must echo rightly before it is timed. Load comes from wrk; what counts are the ratios within a
 * round, because the machine may be busy with other things.
 *
 *   node bench/forwarders.ts [--seconds 3] [--rounds 5] [--json FILE]
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createSocketServer, type Server as SocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import express from 'express';
import { createProxyMiddleware } from 'http-proxy-middleware';
import { Pool } from 'undici';
import { configSchema } from '../src/config/schema.ts';
import { Member } from '../src/core/member.ts';
import type { WriteGate } from '../src/core/ports.ts';
import { createProxy } from '../src/proxy/proxy.ts';

const connections = 64;
const forwarders = ['onewriter', 'undici', 'express-hpm'] as const;
type Forwarder = (typeof forwarders)[number];
const baseline: Forwarder = 'express-hpm';
const loads = ['GET', 'POST'] as const;
type Load = (typeof loads)[number];

const getAnswer = Buffer.from(JSON.stringify({ id: 'r1', text: 'x'.repeat(127) }));

// --- the parts, each in its own process --------------------------------------------------------------

/** Answers GET with about 150 bytes and echoes every body. Plain sockets, so that it is never the bottleneck. */
function upstream(): SocketServer {
  return createSocketServer({ noDelay: true }, (socket) => {
    let pending: Buffer = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      for (;;) {
        const headEnd = pending.indexOf('\r\n\r\n');
        if (headEnd === -1) return;
        const length = /content-length: *(\d+)/i.exec(pending.toString('latin1', 0, headEnd))?.[1];
        const end = headEnd + 4 + Number(length ?? 0);
        if (pending.length < end) return;
        const body = length === undefined ? getAnswer : pending.subarray(headEnd + 4, end);
        const head = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
        socket.write(Buffer.concat([Buffer.from(head), body]));
        pending = pending.subarray(end);
      }
    });
  });
}

async function onewriter(url: string): Promise<number> {
  const now = (): { monotonicMs: number; wallMs: number } => ({
    monotonicMs: performance.now(),
    wallMs: Date.now(),
  });
  const settleMs = { legacy: 0, app: 0 };
  const member = new Member({ leaseMs: 10_000, marginMs: 500, settleMs, defaultOwner: 'legacy' }, now());
  const beat = (): void => void member.heartbeatConfirmed(member.heartbeat(now()), 0);
  beat();
  setInterval(beat, 3_000);
  const none = (): void => {};
  const gate: WriteGate = {
    ownershipOf: (partition) => member.ownershipOf(partition),
    admit: (partition) => member.admit(partition, now()),
    mayContinue: (ticket) => member.mayContinue(ticket, now()),
    end: (ticket, outcome) => void member.end(ticket, outcome, now()),
    onWake: () => none,
    onEndLongLived: () => none,
    trouble: () => undefined,
    leaseLeftMs: () => member.leaseLeftMs(now()),
    notice: none,
  };
  const config = configSchema.parse({
    secret: 'a-secret-for-the-benchmark',
    proxy: { port: 0 },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: { legacy: { url, guard: true }, app: { url } },
    routes: [{ path: '/login', store: 'legacy', anonymous: true }],
  });
  const doorbell = { ring: none, flush: async () => {} };
  return (await createProxy({ config, gate, doorbell, doubts: { note: none }, log: none }).listen()).port;
}

function bareUndici(url: string): Server {
  const pool = new Pool(url, { connections: 256, pipelining: 1, allowH2: false });
  const dropped = new Set(['connection', 'keep-alive', 'transfer-encoding', 'host', 'expect', 'upgrade']);
  return createServer((request, response) => {
    const headers: string[] = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      const name = request.rawHeaders[at] ?? '';
      if (!dropped.has(name.toLowerCase())) headers.push(name, request.rawHeaders[at + 1] ?? '');
    }
    const { method = 'GET', url: path = '/' } = request;
    const body = request.headers['content-length'] === undefined ? null : request;
    pool.dispatch(
      { method, path, headers, body },
      {
        onRequestStart: () => {},
        onResponseStart: (controller, status) => {
          const raw = (controller.rawHeaders as Buffer[]).map((value) => value.toString('latin1'));
          response.writeHead(status, raw);
        },
        onResponseData: (_controller, chunk) => void response.write(chunk),
        onResponseEnd: () => void response.end(),
        onResponseError: () => void response.destroy(),
      },
    );
  });
}

function expressWithMiddleware(url: string): Server {
  const app = express();
  app.disable('x-powered-by');
  const agent = new Agent({ keepAlive: true, maxSockets: 256 });
  app.use(createProxyMiddleware({ target: url, agent, changeOrigin: true, xfwd: true }));
  return createServer(app);
}

async function portOf(server: Server | SocketServer): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function runPart(part: string, url: string): Promise<void> {
  const starts: Record<string, () => Promise<number>> = {
    upstream: async () => portOf(upstream()),
    onewriter: async () => onewriter(url),
    undici: async () => portOf(bareUndici(url)),
    'express-hpm': async () => portOf(expressWithMiddleware(url)),
  };
  const start = starts[part];
  if (start === undefined) throw new Error(`there is no part "${part}"`);
  console.log(await start());
}

// --- the run -----------------------------------------------------------------------------------------

async function startPart(part: string, url: string): Promise<{ child: ChildProcess; url: string }> {
  const script = fileURLToPath(import.meta.url);
  const child = spawn(process.execPath, [script, '--part', part, '--url', url], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, url: `http://127.0.0.1:${Number(line.toString())}` };
}

async function proveEcho(name: string, url: string): Promise<void> {
  const headers = { 'x-user': 'u1' };
  const got = Buffer.from(await (await fetch(`${url}/r1`, { headers })).arrayBuffer());
  if (!got.equals(getAnswer)) throw new Error(`${name} does not pass a GET through rightly`);
  for (const size of [1_024, 300_000]) {
    const body = randomBytes(size);
    const answer = await fetch(`${url}/r1`, { method: 'POST', headers, body });
    const echoed = Buffer.from(await answer.arrayBuffer());
    if (!echoed.equals(body)) throw new Error(`${name} does not echo ${size} bytes rightly`);
  }
}

function measure(url: string, load: Load, postScript: string, seconds: number): number {
  const script = load === 'POST' ? ['-s', postScript] : [];
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '-H', 'x-user: u1', ...script, `${url}/r1`];
  const out = execFileSync('wrk', args, { encoding: 'utf8' });
  if (/Non-2xx|Socket errors/.test(out)) throw new Error(`${url} failed under load:\n${out}`);
  return Number(/Requests\/sec: *([\d.]+)/.exec(out)?.[1] ?? Number.NaN);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((left, right) => left - right);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

type Rates = Record<Load, Record<Forwarder, number[]>>;

async function run(seconds: number, rounds: number): Promise<Rates> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
  const postScript = join(directory, 'post.lua');
  const lua = ['wrk.method = "POST"', 'wrk.body = string.rep("x", 1024)'];
  writeFileSync(postScript, [...lua, 'wrk.headers["Content-Type"] = "text/plain"', ''].join('\n'));
  const children: ChildProcess[] = [];
  const empty = (): Record<Forwarder, number[]> => ({ onewriter: [], undici: [], 'express-hpm': [] });
  const rates: Rates = { GET: empty(), POST: empty() };
  try {
    const store = await startPart('upstream', '');
    children.push(store.child);
    const urls = new Map<Forwarder, string>();
    for (const name of forwarders) {
      const part = await startPart(name, store.url);
      children.push(part.child);
      await proveEcho(name, part.url);
      urls.set(name, part.url);
      for (const load of loads) measure(part.url, load, postScript, 1);
    }
    for (let round = 0; round < rounds; round += 1) {
      const order = round % 2 === 0 ? forwarders : forwarders.toReversed();
      for (const load of loads) {
        for (const name of order) {
          rates[load][name].push(measure(urls.get(name) ?? '', load, postScript, seconds));
        }
      }
    }
    return rates;
  } finally {
    for (const child of children) child.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}

function report(rates: Rates): { load: Load; forwarder: Forwarder; perSecond: number; ratio: number }[] {
  return loads.flatMap((load) =>
    forwarders.map((forwarder) => {
      const mine = rates[load][forwarder];
      const ratios = mine.map((rate, round) => rate / (rates[load][baseline][round] ?? Number.NaN));
      return {
        load,
        forwarder,
        perSecond: Math.round(median(mine)),
        ratio: Number(median(ratios).toFixed(2)),
      };
    }),
  );
}

const { values } = parseArgs({
  options: {
    part: { type: 'string' },
    url: { type: 'string', default: '' },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
if (values.part !== undefined) {
  await runPart(values.part, values.url);
} else if (spawnSync('wrk', ['--version']).error !== undefined) {
  console.error(
    'The benchmark needs wrk, which is not on the PATH. Nothing was measured; install wrk and run again.',
  );
  process.exitCode = 1;
} else {
  const rows = report(await run(Number(values.seconds), Number(values.rounds)));
  console.table(rows);
  console.log(`ratio: to ${baseline} in the same round, median; ${connections} connections`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, undefined, 2)}\n`);
}
