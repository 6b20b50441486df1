/**
 * What a second and a third process on one port bring: the real program with a real Redis in front of a store, the
 * same load on each number of processes in turn; what counts are the ratios within a round. Load and store need cores,
 * too: where there are too few for all, the CPU time that a request costs says more than the requests per second.
 *
 *   node bench/processes.ts [--processes 1,2] [--seconds 3] [--rounds 5] [--json FILE]
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const connections = 64;
/** Of sysconf(_SC_CLK_TCK), which is 100 on Linux. */
const tickMs = 10;
const answer = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 150\r\n\r\n${'x'.repeat(150)}`;

/** Answers every request alike, as fast as sockets go. */
async function store(): Promise<void> {
  const server = createServer({ noDelay: true }, (socket) => {
    let rest = '';
    socket.setEncoding('latin1');
    socket.on('error', () => {});
    socket.on('data', (text: string) => {
      const heads = (rest + text).split('\r\n\r\n');
      rest = heads.pop() ?? '';
      if (heads.length > 0) socket.write(answer.repeat(heads.length));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  console.log((server.address() as AddressInfo).port);
}

interface Deployment {
  readonly process: ChildProcess;
  readonly url: string;
}

async function start(processes: number, storeUrl: string, directory: string): Promise<Deployment> {
  const config = join(directory, `${processes}.json`);
  const whole = {
    proxy: { port: 0, processes },
    admin: { port: 0 },
    dataDir: join(directory, `data-${processes}`),
    secret: 'a-secret-for-the-benchmark',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    stores: { legacy: { url: storeUrl, guard: true }, app: { url: 'http://127.0.0.1:1' } },
  };
  writeFileSync(config, JSON.stringify(whole));
  const program = resolve(import.meta.dirname, '../src/cli/main.ts');
  const child = spawn(process.execPath, [program, 'up', '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    if (/admin +http/.test(text)) break;
  }
  child.stdout.resume();
  return { process: child, url: /proxy +(http:\S+)/.exec(text)?.[1] ?? '' };
}

/** CPU time of a process and of those that it has started, Redis excepted, ms (Linux: proc_pid_stat(5)). */
function cpuMs(pid: number): number {
  const stats = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => statOf(name))
    .filter((stat) => stat !== undefined);
  const ours = stats.filter(
    (stat) => stat.pid === pid || (stat.parent === pid && stat.name !== 'redis-server'),
  );
  return ours.reduce((sum, { ticks }) => sum + ticks * tickMs, 0);
}

function statOf(name: string) {
  try {
    const text = readFileSync(`/proc/${name}/stat`, 'latin1');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const ticks = Number(fields[11]) + Number(fields[12]);
    return { pid: Number(name), name: /\((.*)\)/.exec(text)?.[1], parent: Number(fields[1]), ticks };
  } catch {
    // It has ended meanwhile.
    return undefined;
  }
}

function measure(url: string, seconds: number): number {
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '-H', 'x-user: u1', `${url}/r1`];
  const out = execFileSync('wrk', args, { encoding: 'utf8' });
  if (/Non-2xx|Socket errors/.test(out)) throw new Error(`${url} failed under load:\n${out}`);
  return Number(/Requests\/sec: *([\d.]+)/.exec(out)?.[1] ?? Number.NaN);
}

function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}

async function run(counts: readonly number[], seconds: number, rounds: number): Promise<object[]> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
  const children: ChildProcess[] = [];
  try {
    const part = spawn(process.execPath, [fileURLToPath(import.meta.url), '--store'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(part);
    const [line] = (await once(part.stdout, 'data')) as [Buffer];
    const deployments = new Map<number, Deployment>();
    const rates = new Map<number, number[]>();
    const costs = new Map<number, number[]>();
    for (const count of counts) {
      const deployment = await start(count, `http://127.0.0.1:${Number(line.toString())}`, directory);
      children.push(deployment.process);
      deployments.set(count, deployment);
      measure(deployment.url, 1);
    }
    for (let round = 0; round < rounds; round += 1) {
      for (const count of round % 2 === 0 ? counts : counts.toReversed()) {
        const { process, url = '' } = deployments.get(count) ?? {};
        const beforeMs = cpuMs(process?.pid ?? 0);
        const rate = measure(url, seconds);
        const microseconds = (1_000 * (cpuMs(process?.pid ?? 0) - beforeMs)) / (rate * seconds);
        rates.set(count, [...(rates.get(count) ?? []), rate]);
        costs.set(count, [...(costs.get(count) ?? []), microseconds]);
      }
    }
    const first = rates.get(counts[0] ?? 1) ?? [];
    return counts.map((processes) => {
      const mine = rates.get(processes) ?? [];
      const ratio = median(mine.map((rate, round) => rate / (first[round] ?? Number.NaN)));
      const perSecond = Math.round(median(mine));
      const cpuMicroseconds = Math.round(median(costs.get(processes) ?? []));
      const cores = availableParallelism();
      return { processes, perSecond, ratio: Number(ratio.toFixed(2)), cpuMicroseconds, cores };
    });
  } finally {
    const ended = children.filter(({ exitCode }) => exitCode === null).map((child) => once(child, 'exit'));
    for (const child of children) child.kill('SIGTERM');
    await Promise.all(ended);
    rmSync(directory, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    store: { type: 'boolean', default: false },
    processes: { type: 'string', default: '1,2' },
    seconds: { type: 'string', default: '3' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
if (values.store) {
  await store();
} else {
  const counts = values.processes.split(',').map(Number);
  const rows = await run(counts, Number(values.seconds), Number(values.rounds));
  console.table(rows);
  console.log(`ratio: to ${counts[0]} in the same round, median; ${connections} connections`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ rows }, undefined, 2)}\n`);
}
