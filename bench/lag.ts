/**
 * How late a copy is while records change all the time: from the moment legacy has a change until the app has it, or a
 * later one of the same record. The changes are told by signed webhooks, or are made through the proxy, whose receipts
 * ring. The polls are switched off for the time, so that nothing else can copy.
 *
 *   node bench/lag.ts [--by webhooks|receipts] [--rate 500] [--seconds 60] [--records 5000] [--partitions 1000] [--json FILE]
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Agent, request } from 'undici';
import { connectRedis } from '../src/ledger/connection.ts';
import { startRedis } from '../test/support/redis.ts';
import { judge, sayJudgement } from './asked.ts';
import { ended, usageOf } from './copy-rig.ts';
import { machine } from './machine.ts';
import { quantile, slope } from './statistics.ts';

const { values } = parseArgs({
  options: {
    by: { type: 'string', default: 'webhooks' },
    rate: { type: 'string', default: '500' },
    seconds: { type: 'string', default: '60' },
    records: { type: 'string', default: '5000' },
    partitions: { type: 'string', default: '1000' },
    json: { type: 'string' },
  },
});
const [rate, seconds, records, partitions] = [
  ...[values.rate, values.seconds, values.records, values.partitions],
].map(Number) as [number, number, number, number];
const byReceipts = values.by === 'receipts';
const secret = 'the-secret-of-the-bench';
const tickMs = 20;
const sampleMs = 5_000;
/** Changes before this, of a process that is still warming up, do not count. */
const warmUpMs = 5_000;

interface Change {
  readonly count: number;
  readonly atMs: number;
}

/** Changes that legacy has and the app has not, by record; and how late the others were. */
const pending = new Map<string, Change[]>();
const lags: number[] = [];
let measuredFromMs = Number.POSITIVE_INFINITY;

const directory = mkdtempSync(join(tmpdir(), 'onewriter-lag-'));
const server = await startRedis();
const redis = await connectRedis({ url: server.url });
const agent = new Agent({ connections: 64, pipelining: 1 });
const children: ChildProcess[] = [];
const app = await startApp();
try {
  const result = { machine, ...(await measure()) };
  process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  for (const judgement of result.judgements) {
    process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
  if (result.neverCopied > 0) process.exitCode = 1;
} finally {
  for (const child of children) child.kill('SIGKILL');
  await Promise.all(children.map(ended));
  await agent.close();
  app.server.closeAllConnections();
  app.server.close();
  redis.disconnect();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}

function start(script: string, args: readonly string[], ready: RegExp): Promise<[ChildProcess, string]> {
  const child = spawn(process.execPath, [resolve(import.meta.dirname, script), ...args], {
    stdio: ['ignore', 'pipe', process.env['BENCH_LOG'] === undefined ? 'ignore' : 'inherit', 'ipc'],
  });
  children.push(child);
  return new Promise((done, failed) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text = `${text}${chunk.toString()}`.slice(-4_000);
      const found = ready.exec(text)?.[1];
      if (found !== undefined) done([child, found]);
    });
    child.once('exit', (code) => failed(new Error(`${script} ended with ${code}: ${text}`)));
  });
}

/** The app, in this process, because it must be known when a copy arrives. */
async function startApp() {
  const held = new Map<string, { readonly owner: string; readonly text: string }>();
  const listener = createServer((call, response) => {
    const url = new URL(call.url ?? '/', 'http://app');
    const id = url.pathname.split('/')[2] ?? '';
    void bodyOf(call).then((text) => {
      const owner = url.searchParams.get('owner');
      const all = (): string =>
        [...held.values()]
          .filter((one) => owner === null || one.owner === owner)
          .map((one) => one.text)
          .join(',');
      if (call.method === 'PUT') {
        const record = JSON.parse(text) as { owner: string; count: number };
        held.set(id, { owner: record.owner, text });
        arrived(id, record.count);
      } else if (call.method === 'DELETE') held.delete(id);
      const body = id === '' ? `{"data":[${all()}],"next":null}` : (held.get(id)?.text ?? '{}');
      response.writeHead(id === '' || held.has(id) ? 200 : 404, { 'content-type': 'application/json' });
      response.end(body);
    });
  });
  await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`, held, server: listener };
}

async function bodyOf(call: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of call) text += String(chunk);
  return text;
}

function arrived(id: string, count: number): void {
  const nowMs = performance.now();
  const waiting = pending.get(id) ?? [];
  for (const change of waiting) {
    if (change.count <= count && change.atMs >= measuredFromMs) lags.push(nowMs - change.atMs);
  }
  const left = waiting.filter((change) => change.count > count);
  if (left.length > 0) pending.set(id, left);
  else pending.delete(id);
}

async function startPlaces() {
  const [, legacy] = await start('record-store.ts', [], /store (\S+)/);
  const kind = {
    list: { path: '/records', query: { owner: '{partition}' }, items: 'data' },
    ...{ get: { path: '/records/{id}' }, put: { path: '/records/{id}' }, delete: { path: '/records/{id}' } },
    ...{ id: 'id', partition: 'owner' },
  };
  const connector = { kind: 'rest', records: { record: kind } };
  const webhook = {
    signatures: [{ scheme: 'github', secrets: [secret] }],
    events: [{ kind: 'record', id: 'id', partition: 'owner' }],
  };
  const config = {
    proxy: { port: 0 },
    admin: { port: 0, tokens: [{ name: 'bench', role: 'operator', token: 'bench-operator-token' }] },
    ...{ redis: { url: server.url }, dataDir: directory, secret: 'a-secret-for-the-bench' },
    ...{ webhooks: { port: 0 }, sync: { pollMs: 86_400_000 } },
    stores: {
      legacy: { url: legacy, settleMs: 0, connector: { ...connector, webhook } },
      app: { url: app.url, guard: false, settleMs: 0, connector },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    routes: [{ methods: ['PUT'], path: '/records/:id', record: { kind: 'record', id: 'path.id' } }],
  };
  const file = join(directory, 'lag.json');
  writeFileSync(file, JSON.stringify(config));
  const place = byReceipts ? /proxy\s+(http\S+)/ : /webhooks\s+(http\S+)/;
  const role = byReceipts ? 'up' : 'worker';
  const [worker, url] = await start('../src/cli/main.ts', [role, '--config', file], place);
  return { legacy, worker, url };
}

async function measure() {
  const { legacy, worker, url } = await startPlaces();
  const pid = worker.pid ?? 0;
  const counts = new Map<string, number>();
  let sent = 0;
  let refused = 0;
  const change = async (): Promise<void> => {
    const number = Math.floor(Math.random() * records);
    const id = `r${number}`;
    const owner = `user-${number % partitions}`;
    const count = (counts.get(id) ?? 0) + 1;
    counts.set(id, count);
    sent += 1;
    const body = JSON.stringify({
      id,
      owner,
      title: `appointment ${number}`,
      note: 'bring the papers',
      count,
    });
    const headers = { 'content-type': 'application/json', 'x-user': owner };
    const path = `${byReceipts ? url : legacy}/records/${id}`;
    const written = await request(path, { method: 'PUT', headers, body, dispatcher: agent });
    await written.body.dump();
    const atMs = performance.now();
    if (written.statusCode >= 300) refused += 1;
    else pending.set(id, [...(pending.get(id) ?? []), { count, atMs }]);
    if (!byReceipts) refused += (await tell(url, { id, owner })) ? 0 : 1;
  };
  const samples: { readonly x: number; readonly redisMib: number; readonly workerMib: number }[] = [];
  const startedMs = performance.now();
  const cpuBefore = usageOf(pid).cpuSeconds;
  measuredFromMs = startedMs + warmUpMs;
  const endMs = measuredFromMs + seconds * 1_000;
  const running = new Set<Promise<void>>();
  let nextSampleMs = measuredFromMs;
  while (performance.now() < endMs) {
    const due = Math.floor(((performance.now() - startedMs) * rate) / 1_000) - sent;
    for (let at = 0; at < due; at += 1) {
      const one = change().catch(() => void (refused += 1));
      running.add(one);
      void one.then(() => running.delete(one));
    }
    if (performance.now() >= nextSampleMs) {
      nextSampleMs += sampleMs;
      samples.push(await sample((performance.now() - startedMs) / 1_000, pid));
    }
    await new Promise((wait) => setTimeout(wait, tickMs));
  }
  await Promise.all(running);
  const cpuSeconds = usageOf(pid).cpuSeconds - cpuBefore;
  await untilCopied();
  const sorted = lags.toSorted((a, b) => a - b);
  const perMinute = (of: 'redisMib' | 'workerMib') =>
    60 * slope(samples.map(({ x, ...one }) => ({ x, y: one[of] })));
  return {
    ...{ by: values.by, rate, seconds, records, partitions, changes: sent, refused },
    ...{ measured: sorted.length, neverCopied: pending.size },
    lagMs: {
      ...{ p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) },
    },
    cpuSecondsPerThousand: (1_000 * cpuSeconds) / sent,
    ...{ samples, redisMibPerMinute: perMinute('redisMib'), workerMibPerMinute: perMinute('workerMib') },
    judgements: rate < 500 ? [] : [judge('copy-lag', quantile(sorted, 0.99))],
  };
}

async function tell(url: string, body: object): Promise<boolean> {
  const text = JSON.stringify(body);
  const signature = createHmac('sha256', secret).update(text).digest('hex');
  const headers = { 'x-hub-signature-256': `sha256=${signature}`, 'x-github-delivery': crypto.randomUUID() };
  const answer = await request(`${url}/webhooks/legacy`, {
    method: 'POST',
    headers,
    body: text,
    dispatcher: agent,
  });
  await answer.body.dump();
  return answer.statusCode === 204;
}

async function sample(x: number, pid: number) {
  const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1] ?? 0);
  const round = (value: number): number => Math.round(10 * value) / 10;
  const taken = { x: round(x), redisMib: round(used / 2 ** 20), workerMib: round(usageOf(pid).rssMib) };
  process.stdout.write(
    `${taken.x} s: ${lags.length} copied, ${pending.size} records wait, Redis ${taken.redisMib} MiB, worker ${taken.workerMib} MiB\n`,
  );
  return taken;
}

async function untilCopied(): Promise<void> {
  const untilMs = performance.now() + 30_000;
  while (pending.size > 0 && performance.now() < untilMs) await new Promise((wait) => setTimeout(wait, 50));
}
