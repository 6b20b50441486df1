/** The demo's stage: every part as a process of its own, on free ports, in a directory of its own. */
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually, freePort, Processes, type Started } from './processes.ts';

export interface SceneOptions {
  readonly platform: 'calendar' | 'json-server';
  /** Requests per second of all users together. */
  readonly rate: number;
  readonly say: (line: string) => void;
}

export interface Scene {
  readonly directory: string;
  readonly journal: string;
  readonly redisUrl: string;
  /** Where to ask for `/_dump` and `/_log`. */
  readonly witnesses: { readonly legacy: string; readonly app: string };
  readonly killedProxy: () => string | undefined;
  /** Runs the command line; its output goes to the terminal. Returns the exit code. */
  onewriter(...parameters: string[]): Promise<number>;
  admin<Answer>(method: string, path: string, body?: unknown): Promise<Answer>;
  workFor(milliseconds: number): Promise<void>;
  /** SIGKILL; returns its URL. */
  killProxy(): string;
  stopTraffic(): Promise<void>;
  /** Resolves when the copies lag by less than two polls. */
  caughtUp(): Promise<void>;
  hints(): string[];
  stop(): Promise<void>;
}

const here = import.meta.dirname;
const root = resolve(here, '../..');
/** u1 to u60 work; u61 to u80 have records, but are away. */
const workingUsers = 60;
const allUsers = 80;
const operatorToken = randomBytes(16).toString('hex');

export async function startScene(options: SceneOptions): Promise<Scene> {
  const { say } = options;
  const directory = await mkdtemp(join(tmpdir(), 'onewriter-demo-'));
  const processes = new Processes(directory);
  try {
    return await build(options, directory, processes);
  } catch (error) {
    say(`the demo could not be set up; logs are in ${directory}`);
    await processes.stop();
    throw error;
  }
}

async function build(options: SceneOptions, directory: string, processes: Processes): Promise<Scene> {
  const { say } = options;
  say('starting Redis, the platform and the new application');
  const secret = randomBytes(24).toString('hex');
  const redisUrl = await startRedis(processes, directory);
  const [legacy, app] = await Promise.all([
    startPlatform(processes, directory, options),
    script(processes, 'app', 'app.ts', [], { ONEWRITER_SECRET: secret }).listening,
  ]);
  const [adminPort, ...proxyPorts] = await Promise.all([freePort(), freePort(), freePort()]);
  const env = {
    ONEWRITER_SECRET: secret,
    OPS_TOKEN: operatorToken,
    REDIS_URL: redisUrl,
    LEGACY_URL: legacy,
    APP_URL: app,
    ADMIN_PORT: String(adminPort),
    // Short, so that the killed proxy is proven gone within seconds; and a batch of one, to show the waves.
    ...{ LEASE_MS: '2000', WRITE_TIMEOUT_MS: '2000', SETTLE_MS: '500', BATCH: '1' },
  };
  const config = join(here, options.platform === 'calendar' ? 'onewriter.yaml' : 'json-server.yaml');
  say('starting two proxies, a worker and the admin API');
  const start = (name: string, role: string, more: NodeJS.ProcessEnv = {}): Started =>
    processes.start(name, process.execPath, [join(root, 'src/cli/main.ts'), role, '--config', config], {
      ...env,
      ...more,
    });
  start('worker', 'worker');
  start('admin', 'admin');
  const proxies = proxyPorts.map((port, at) => ({
    url: `http://127.0.0.1:${port}`,
    process: start(`proxy-${at + 1}`, 'proxy', { PROXY_PORT: String(port) }),
  }));
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  await untilUp('the admin API', `${adminUrl}/readyz`);
  for (const { url } of proxies) await untilUp('a proxy', `${url}/.well-known/onewriter/health`);
  const admin = <Answer>(method: string, path: string, body?: unknown): Promise<Answer> =>
    askAdmin(adminUrl, method, path, body);
  const caughtUp = (): Promise<void> =>
    eventually(
      'the copies are caught up',
      async () => {
        const { lagMs } = await admin<{ lagMs?: number | null }>('GET', '/v1/sync');
        return typeof lagMs === 'number' && lagMs < 2_000;
      },
      60_000,
    ).then(() => undefined);
  await caughtUp();
  say(`${workingUsers} users begin to work, ${options.rate} requests per second`);
  const journal = join(directory, 'journal.ndjson');
  await writeFile(journal, '');
  const traffic = script(processes, 'traffic', 'traffic.ts', [
    ...['--proxy', proxies.map(({ url }) => url).join(','), '--users', String(workingUsers)],
    ...['--rate', String(options.rate), '--journal', journal],
  ]);
  let killed: string | undefined;
  return {
    ...{ directory, journal, redisUrl, admin, caughtUp },
    witnesses: { legacy, app },
    killedProxy: () => killed,
    onewriter: (...parameters) => runCommand(parameters, adminUrl),
    workFor: async (milliseconds) => {
      await Promise.race([
        delay(milliseconds),
        traffic.exited.then((how) => {
          throw new Error(`the traffic ended by itself (${how}); see ${directory}/traffic.log`);
        }),
      ]);
    },
    killProxy: () => {
      const victim = proxies.at(-1);
      if (victim === undefined) throw new Error('there is no proxy to kill');
      victim.process.kill('SIGKILL');
      killed = victim.url;
      return `${victim.process.name} (pid ${victim.process.pid})`;
    },
    stopTraffic: async () => {
      traffic.kill('SIGTERM');
      await traffic.exited;
    },
    hints: () => [
      `export ONEWRITER_ADMIN=${adminUrl} ONEWRITER_TOKEN=${operatorToken}`,
      'scripts/onewriter status',
      'scripts/onewriter explain u1',
      'scripts/onewriter plan --cohort third --to app',
      `curl -i -H 'x-user: u1' '${proxies[0]?.url}/api/appointments?limit=2'`,
      `${inShell({ ...env, PROXY_PORT: new URL(proxies[0]?.url ?? '').port })} scripts/onewriter doctor --config ${config}`,
      `logs and journal: ${directory}`,
    ],
    stop: () => processes.stop(),
  };
}

function inShell(variables: Readonly<Record<string, string>>): string {
  return Object.entries(variables)
    .map(([name, value]) => `${name}='${value}'`)
    .join(' ');
}

async function startRedis(processes: Processes, directory: string): Promise<string> {
  const binary = ['redis-server', 'valkey-server'].find((name) =>
    (process.env['PATH'] ?? '').split(delimiter).some((place) => existsSync(join(place, name))),
  );
  if (binary === undefined) throw new Error('neither redis-server nor valkey-server is on PATH');
  const port = await freePort();
  const redis = processes.start('redis', binary, [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', ''],
    ...['--appendonly', 'yes', '--appendfsync', 'always', '--maxmemory-policy', 'noeviction'],
  ]);
  await Promise.race([
    runs(binary.replace('-server', '-cli'), ['-p', String(port), 'ping']),
    redis.exited.then((how) => {
      throw new Error(`Redis ended (${how}); see ${directory}/redis.log`);
    }),
  ]);
  return `redis://127.0.0.1:${port}`;
}

async function runs(command: string, parameters: readonly string[]): Promise<void> {
  await eventually(
    `${command} answers`,
    () =>
      new Promise<boolean>((settle) => {
        const child = spawn(command, parameters, { stdio: 'ignore' });
        child.once('error', () => settle(false));
        child.once('exit', (code) => settle(code === 0));
      }),
    15_000,
  );
}

async function startPlatform(
  processes: Processes,
  directory: string,
  { platform }: SceneOptions,
): Promise<string> {
  if (platform === 'calendar') {
    const habits = ['--users', String(allUsers), '--jitter-ms', '2'];
    return script(processes, 'platform', 'platform.ts', habits).listening;
  }
  const database = join(directory, 'db.json');
  const routes = join(directory, 'routes.json');
  const appointments = Array.from({ length: allUsers * 3 }, (_, at) => ({
    id: at + 1,
    owner_id: `u${Math.floor(at / 3) + 1}`,
    title: `before ${at + 1}`,
    starts_at: new Date(Date.UTC(2020, 0, 1 + (at % 3), 9)).toISOString(),
    ends_at: new Date(Date.UTC(2020, 0, 1 + (at % 3), 10)).toISOString(),
  }));
  await writeFile(database, JSON.stringify({ appointments }));
  await writeFile(routes, JSON.stringify({ '/api/*': '/$1' }));
  const port = await freePort();
  const binary = join(root, 'node_modules/json-server/lib/cli/bin.js');
  processes.start('platform', process.execPath, [
    ...[binary, database, '--routes', routes],
    ...['--host', '127.0.0.1', '--port', String(port), '--quiet'],
  ]);
  const url = `http://127.0.0.1:${port}`;
  await untilUp('json-server', `${url}/api/appointments?_limit=1`);
  // json-server keeps no log: a witness in front of it does.
  return script(processes, 'recorder', 'recorder.ts', ['--target', url]).listening;
}

function script(
  processes: Processes,
  name: string,
  file: string,
  parameters: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Started {
  return processes.start(name, process.execPath, [join(here, file), ...parameters], env);
}

async function untilUp(what: string, url: string): Promise<void> {
  await eventually(`${what} answers at ${url}`, async () => (await fetch(url)).ok, 30_000);
}

async function askAdmin<Answer>(base: string, method: string, path: string, body?: unknown): Promise<Answer> {
  const answer = await fetch(base + path, {
    method,
    headers: { authorization: `Bearer ${operatorToken}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const answered = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path} answered ${answer.status}: ${answered}`);
  return JSON.parse(answered) as Answer;
}

function runCommand(parameters: readonly string[], adminUrl: string): Promise<number> {
  process.stdout.write(`\n$ onewriter ${parameters.join(' ')}\n`);
  return new Promise((settle, reject) => {
    const child = spawn(process.execPath, [join(root, 'src/cli/main.ts'), ...parameters], {
      env: { ...process.env, ONEWRITER_ADMIN: adminUrl, ONEWRITER_TOKEN: operatorToken },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    child.once('error', reject);
    child.once('exit', (code) => {
      process.stdout.write('\n');
      settle(code ?? 1);
    });
  });
}
