/** What the handoff benchmarks run on: real Redis, proxies and coordinators as processes, two stores in memory. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { RedisAddress } from '../src/ledger/connection.ts';
import { startEmbeddedRedis } from '../src/ledger/embedded.ts';
import { startNoteStore, type NoteStore } from './note-store.ts';

export interface StageSettings {
  readonly members: number;
  readonly partitions: readonly string[];
  readonly batch: number;
  /** The copies exist before. */
  readonly copied: boolean;
  /** Where each process leaves its CPU profile. */
  readonly profile?: string | undefined;
}

export interface Flip {
  readonly id: string;
  readonly state: string;
  readonly detail: string;
  readonly committed: number;
  readonly aborted: number;
  readonly pauseMs?: { readonly p50: number; readonly p99: number; readonly max: number };
}

export interface Stage {
  readonly legacy: NoteStore;
  readonly app: NoteStore;
  readonly proxies: readonly string[];
  readonly redis: RedisAddress;
  /** CPU time so far of every process of the stage, this one with the stores and the users included, s. */
  cpuSeconds(): Record<string, number>;
  startAdmin(): Promise<{ readonly url: string; readonly process: ChildProcess }>;
  stop(): Promise<void>;
}

const token = 'bench-operator-token';

export async function openStage(settings: StageSettings): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
  const children: ChildProcess[] = [];
  const redis = await startEmbeddedRedis(directory, process.env);
  const [legacy, app] = await Promise.all([
    startNoteStore(settings.partitions),
    startNoteStore(settings.copied ? settings.partitions : []),
  ]);
  const config = writeConfig(directory, settings, legacy.url, app.url);
  const start = async (role: string): Promise<{ url: string; process: ChildProcess }> => {
    const child = spawn(
      process.execPath,
      [...profiling(settings, role), resolve('src/cli/main.ts'), role, '--config', config],
      { stdio: ['ignore', 'pipe', process.env['BENCH_LOG'] === undefined ? 'ignore' : 'inherit'] },
    );
    children.push(child);
    return { url: await addressOf(child, role), process: child };
  };
  const proxies = await Promise.all(Array.from({ length: settings.members }, () => start('proxy')));
  return {
    ...{ legacy, app },
    proxies: proxies.map(({ url }) => url),
    redis: redis.address,
    startAdmin: () => start('admin'),
    cpuSeconds,
    stop: async () => {
      for (const child of children) child.kill(settings.profile === undefined ? 'SIGKILL' : 'SIGTERM');
      await Promise.all(children.map((child) => ended(child)));
      await Promise.all([legacy.stop(), app.stop()]);
      await redis.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function profiling({ profile }: StageSettings, role: string): string[] {
  if (profile === undefined) return [];
  return [
    '--cpu-prof',
    '--cpu-prof-dir',
    profile,
    '--cpu-prof-name',
    `${role}-${process.hrtime.bigint()}.cpuprofile`,
  ];
}

export function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((done) => child.once('exit', () => done()));
}

function addressOf(child: ChildProcess, role: string): Promise<string> {
  return new Promise((ready, failed) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const found = new RegExp(`${role}\\s+(http://\\S+)`).exec(text);
      if (found?.[1] !== undefined) ready(found[1]);
    });
    child.once('exit', (code) => failed(new Error(`${role} ended with ${code}: ${text}`)));
  });
}

function writeConfig(directory: string, settings: StageSettings, legacy: string, app: string): string {
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
    cohorts: { all: { partitions: settings.partitions } },
    flip: { batch: settings.batch, waves: ['100%'] },
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

export async function ask<Answer>(url: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(url, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as Answer;
}

/** Orders the flip of everybody, and resolves when it has ended. */
export async function flipAll(admin: string): Promise<{ flip: Flip; seconds: number }> {
  const startedMs = performance.now();
  let flip = await ask<Flip>(`${admin}/v1/flips`, { cohort: 'all', to: 'app', reason: 'bench' });
  while (!['completed', 'failed', 'aborted'].includes(flip.state)) {
    await new Promise((wait) => setTimeout(wait, 100));
    flip = await ask<Flip>(`${admin}/v1/flips/${flip.id}`);
  }
  return { flip, seconds: (performance.now() - startedMs) / 1_000 };
}

const ticksPerSecond = 100;

/** From /proc; empty where there is none. */
function cpuSeconds(): Record<string, number> {
  const seconds: Record<string, number> = {};
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const own = Number(pid) === process.pid;
      if (!own && Number(fields[1]) !== process.pid) continue;
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      const role = command.find((word) => word === 'proxy' || word === 'admin');
      const name = own ? 'stores and users' : (role ?? 'redis');
      seconds[name] = (seconds[name] ?? 0) + (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
    } catch {
      // It ended just now.
    }
  }
  return seconds;
}
