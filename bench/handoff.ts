/**
 * How long a handoff pauses the writes of an idle user: real Redis, real proxies and coordinator as
 * processes, two stores that answer from memory, partitions one after the other.
 *
 *   node bench/handoff.ts [--members 3] [--partitions 300] [--batch 1] [--json FILE]
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { startEmbeddedRedis } from '../src/ledger/embedded.ts';

const { values } = parseArgs({
  options: {
    members: { type: 'string', default: '3' },
    partitions: { type: 'string', default: '300' },
    batch: { type: 'string', default: '1' },
    json: { type: 'string' },
  },
});
const members = Number(values.members);
const partitions = Array.from({ length: Number(values.partitions) }, (_, at) => `u${at}`);
const token = 'bench-operator-token';
const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
const children: ChildProcess[] = [];

/** Each user has two notes; copies are kept. */
async function startStore(seeded: boolean): Promise<{ server: Server; url: string }> {
  type Note = { readonly id: string; readonly owner: string; readonly text: string };
  const notes = new Map<string, Map<string, Note>>();
  const keep = (note: Note): void => {
    const own = notes.get(note.owner) ?? new Map<string, Note>();
    notes.set(note.owner, own.set(note.id, note));
  };
  if (seeded) {
    for (const owner of partitions) {
      for (const id of [`${owner}-1`, `${owner}-2`]) keep({ id, owner, text: 'a note' });
    }
  }
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://store');
    const id = decodeURIComponent(url.pathname.split('/')[2] ?? '');
    const owner = url.searchParams.get('owner') ?? id.split('-', 1)[0] ?? '';
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      if (request.method === 'PUT') keep(JSON.parse(body) as Note);
      const own = notes.get(owner) ?? new Map<string, Note>();
      if (request.method === 'DELETE') own.delete(id);
      const found = id === '' ? [...own.values()] : own.get(id);
      const status = found === undefined && request.method === 'GET' ? 404 : 200;
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(found ?? {}));
    });
  });
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

function start(role: string, config: string): Promise<string> {
  const child = spawn(process.execPath, [resolve('src/cli/main.ts'), role, '--config', config], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  children.push(child);
  return new Promise((ready, failed) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const found = new RegExp(`${role}\\s+(http://\\S+)`).exec(text);
      if (found?.[1] !== undefined) ready(found[1]);
    });
    child.once('exit', (code) => failed(new Error(`${role} ended with ${code}: ${text}`)));
  });
}

function configFor(legacy: string, app: string): string {
  const connector = {
    kind: 'rest',
    records: {
      note: {
        list: { path: '/notes', query: { owner: '{partition}' } },
        get: { path: '/notes/{id}' },
        put: { path: '/notes/{id}' },
        delete: { path: '/notes/{id}' },
        id: 'id',
        partition: 'owner',
      },
    },
  };
  const path = join(directory, 'config.json');
  const config = {
    proxy: { port: 0 },
    admin: { port: 0, tokens: [{ name: 'bench', role: 'operator', token }] },
    redis: { url: 'embedded' },
    dataDir: directory,
    secret: 'a-secret-for-the-bench',
    stores: { legacy: { url: legacy, connector }, app: { url: app, guard: false, connector } },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    cohorts: { all: { partitions } },
    flip: { batch: Number(values.batch), waves: ['100%'] },
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

interface Flip {
  readonly id: string;
  readonly state: string;
  readonly committed: number;
  readonly pauseMs: { readonly p50: number; readonly p99: number; readonly max: number };
}

async function ask<Answer>(url: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(url, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as Answer;
}

const redis = await startEmbeddedRedis(directory, process.env);
const [legacy, app] = await Promise.all([startStore(true), startStore(false)]);
try {
  const config = configFor(legacy.url, app.url);
  await Promise.all(Array.from({ length: members }, () => start('proxy', config)));
  const admin = await start('admin', config);
  const started = performance.now();
  let flip = await ask<Flip>(`${admin}/v1/flips`, { cohort: 'all', to: 'app', reason: 'bench' });
  while (!['completed', 'failed', 'aborted'].includes(flip.state)) {
    await new Promise((wait) => setTimeout(wait, 100));
    flip = await ask<Flip>(`${admin}/v1/flips/${flip.id}`);
  }
  const seconds = (performance.now() - started) / 1000;
  const { pauseMs, committed, state } = flip;
  process.stdout.write(
    `write pause of an idle partition, ${members} members, ${values.batch} at a time: ` +
      `p50 ${pauseMs.p50} ms, p99 ${pauseMs.p99} ms, max ${pauseMs.max} ms ` +
      `(${committed} of ${partitions.length} moved, ${state}, ${seconds.toFixed(1)} s)\n`,
  );
  if (values.json !== undefined) {
    writeFileSync(
      values.json,
      `${JSON.stringify({ members, committed, state, pauseMs, seconds }, null, 2)}\n`,
    );
  }
} finally {
  for (const child of children) child.kill('SIGKILL');
  for (const { server } of [legacy, app]) {
    server.close();
    server.closeAllConnections();
  }
  await redis.stop();
  rmSync(directory, { recursive: true, force: true });
}
