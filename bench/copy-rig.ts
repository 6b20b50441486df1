/** Two stores of records and copy workers, all as processes of their own, for the first copy's bench and test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

export interface RigSettings {
  readonly directory: string;
  readonly redisUrl: string;
  readonly records: number;
  readonly partitions: number;
  readonly bulkMax: number;
  readonly guard?: boolean;
}

export interface CopyRig {
  readonly legacy: string;
  readonly app: string;
  /** For a worker, or anything else that reads the configuration. */
  readonly configFile: string;
  readonly stores: readonly ChildProcess[];
  startWorker(): Promise<ChildProcess>;
  /** The last that workers and stores wrote to their standard errors. */
  complaints(): string;
  stop(): Promise<void>;
}

const kind = {
  list: {
    path: '/records',
    query: { owner: '{partition}', cursor: '{cursor}' },
    items: 'data',
    next: 'next',
  },
  get: { path: '/records/{id}' },
  put: { path: '/records/{id}' },
  delete: { path: '/records/{id}' },
  id: 'id',
  partition: 'owner',
};

const complaintsKept = 4_000;

export async function startCopyRig(settings: RigSettings): Promise<CopyRig> {
  const { directory, redisUrl, records, partitions, bulkMax, guard = false } = settings;
  const children: ChildProcess[] = [];
  let complaints = '';
  const start = async (script: string, args: readonly string[], ready: RegExp) => {
    const child = spawn(process.execPath, [resolve(import.meta.dirname, script), ...args], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      if (process.env['BENCH_LOG'] !== undefined) process.stderr.write(chunk);
      complaints = (complaints + chunk.toString()).slice(-complaintsKept);
    });
    children.push(child);
    return { child, said: await waitFor(child, ready) };
  };
  const store = (args: readonly string[]) => start('record-store.ts', args, /store (\S+)/);
  const [legacy, app] = await Promise.all([
    store(['--records', String(records), '--partitions', String(partitions)]),
    store([]),
  ]);
  const configFile = join(directory, 'copy-rig.json');
  const connector = (more: object) => ({ kind: 'rest', records: { record: { ...kind, ...more } } });
  const bulk = { method: 'PUT', path: '/records', max: bulkMax };
  const config = {
    proxy: { port: 0 },
    admin: { port: 0, tokens: [{ name: 'bench', role: 'operator', token: 'bench-operator-token' }] },
    ...{ redis: { url: redisUrl }, dataDir: directory, secret: 'a-secret-for-the-bench' },
    stores: {
      legacy: { url: legacy.said, connector: connector({}) },
      app: { url: app.said, guard, settleMs: 0, connector: connector({ bulk }) },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
  };
  writeFileSync(configFile, JSON.stringify(config));
  return {
    ...{ legacy: legacy.said, app: app.said, configFile, stores: [legacy.child, app.child] },
    startWorker: async () =>
      (await start('../src/cli/main.ts', ['worker', '--config', configFile], /()/)).child,
    complaints: () => complaints,
    stop: async () => {
      for (const child of children) child.kill('SIGKILL');
      await Promise.all(children.map(ended));
    },
  };
}

function waitFor(child: ChildProcess, ready: RegExp): Promise<string> {
  return new Promise((done, failed) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      const found = ready.exec(text)?.[1];
      if (found !== undefined) done(found);
    });
    child.once('spawn', () => {
      if (ready.source === '()') done('');
    });
    child.once('exit', (code) => failed(new Error(`a process ended with ${code}: ${text}`)));
  });
}

export function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((done) => child.once('exit', () => done()));
}

/** Every record of a store, page by page, as its own list shows them; without any part of the program. */
export async function* recordsOf(
  url: string,
): AsyncGenerator<{ readonly id: string; readonly text: string }> {
  let cursor: number | null = 0;
  while (cursor !== null) {
    const answer = await fetch(`${url}/records?cursor=${cursor}`);
    const body = (await answer.json()) as { data: { id: string }[]; next: number | null };
    for (const record of body.data) yield { id: record.id, text: sorted(record) };
    cursor = body.next;
  }
}

function sorted(record: object): string {
  return JSON.stringify(Object.entries(record).toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

/** How two stores differ: ids that only one of them has, and ids whose records are not the same. */
export async function differencesBetween(left: string, right: string) {
  const expected = new Map<string, string>();
  for await (const { id, text } of recordsOf(left)) expected.set(id, text);
  const compared = expected.size;
  const different: string[] = [];
  const extra: string[] = [];
  for await (const { id, text } of recordsOf(right)) {
    const wanted = expected.get(id);
    if (wanted === undefined) extra.push(id);
    else if (wanted !== text) different.push(id);
    expected.delete(id);
  }
  return { compared, missing: [...expected.keys()], different, extra };
}

/** From /proc: memory in MiB and CPU time in seconds. */
export function usageOf(pid: number): { readonly rssMib: number; readonly cpuSeconds: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const rssMib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
  return { rssMib, cpuSeconds: (Number(fields[11]) + Number(fields[12])) / 100 };
}
