/** The first step of a migration, as processes: everything to legacy, and a record of what enforcing would do. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { type CliProcess, runCli, startCli } from '../support/cli.ts';
import { answering, TestService } from '../support/identity.ts';
import { openLedger } from '../support/ledger.ts';
import { linesIn, requestsIn } from '../support/observe.ts';
import { exchange, RawClient, RawUpstream, statusOf } from '../support/raw-http.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, startRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

// Each test starts several processes, one after the other.
jest.setTimeout(180_000);

let directory: string;
let dataDir: string;
let legacy: RawUpstream;
let app: RawUpstream;
let running: CliProcess[];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'onewriter-observing-'));
  dataDir = join(directory, 'data');
  [legacy, app] = await Promise.all([RawUpstream.start(), RawUpstream.start()]);
  running = [];
});

afterEach(async () => {
  for (const { child, ended } of running) {
    child.kill('SIGTERM');
    await ended;
  }
  await Promise.all([legacy.stop(), app.stop()]);
  rmSync(directory, { recursive: true });
});

function configured(changes: Record<string, unknown> = {}, name = 'onewriter.json'): string {
  const path = join(directory, name);
  const whole = { proxy: { port: 0, mode: 'observe' }, dataDir, stores: { legacy: { url: legacy.url } } };
  writeFileSync(path, JSON.stringify({ ...whole, ...changes }));
  return path;
}

/** Port of its proxy. */
async function start(config: string, role = 'up', run = startCli): Promise<number> {
  const process = run([role, '--config', config]);
  running.push(process);
  let failed: string | undefined;
  void process.ended.then(({ stderr }) => (failed = stderr));
  const port = await until(
    'it listens',
    () => {
      if (failed !== undefined) throw new Error(failed);
      return /proxy +http:\S+:(\d+)\n/.exec(process.stdout())?.[1];
    },
    20_000,
  );
  return Number(port);
}

/** Of the process that was started first. */
function adminUrl(): Promise<string> {
  return until('its admin API listens', () => /admin +(http:\S+)\n/.exec(running[0]?.stdout() ?? '')?.[1]);
}

async function end(): Promise<string> {
  const process = running.pop();
  process?.child.kill('SIGTERM');
  const result = await process?.ended;
  expect(result?.exit).toBe(0);
  return result?.stderr ?? '';
}

const put = (user: string, path: string): string =>
  `PUT ${path} HTTP/1.1\r\nHost: h\r\nX-User: ${user}\r\nContent-Length: 2\r\n\r\n{}`;
const header = [{ header: 'x-user', from: ['127.0.0.0/8'] }];

test('with nothing but the URL of legacy: traffic passes, is recorded, and leaves nothing else behind', async () => {
  const config = configured();
  const port = await start(config);
  const health = await exchange(port, 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n');
  expect(JSON.parse(health.body)).toMatchObject({ status: 'ok', mode: 'observe', requests: 0 });
  expect((await exchange(port, put('u1', '/api/items/17?secret=1'))).body).toBe('ok');
  const stderr = await end();
  expect(stderr).toContain(`what enforcing would do is written to ${join(dataDir, 'observe')}`);
  expect(existsSync(join(dataDir, 'redis'))).toBe(false);
  const [noted, ...more] = requestsIn(join(dataDir, 'observe'));
  expect(more).toEqual([]);
  expect(noted).toMatchObject({
    method: 'PUT',
    path: '/api/items/:id',
    identity: 'none',
    user: null,
    status: 200,
  });
  expect(noted?.would).toEqual({ do: 'refuse', code: 'no-identity' });
  const key = statSync(join(dataDir, 'observe', 'key'));
  expect([key.mode & 0o777, key.size]).toEqual([0o600, 32]);

  const report = await runCli(['observe', 'report', '--config', config]);
  expect(report.stdout).toContain('1 requests in 1 files');
  expect(report.stdout).toMatch(/PUT \/api\/items\/:id +1 +0 +1 +1 +1 +0 +0 +0 +0 +0 +no-identity 1/);
  expect(report.stdout).toContain('Enforcing would refuse 1 of them (100 %): no-identity 1');
  const doctor = await runCli(['doctor', '--config', config]);
  expect(doctor.stdout).toMatch(/ok +proxy.mode +observe: everything goes to legacy/);
  expect(doctor.exit).toBe(0);
});

test('the numbers of the report are those that an independent count finds', async () => {
  const service = await TestService.start(({ headers }, response) => {
    const token = headers.authorization ?? '';
    if (token.endsWith('slow')) return;
    answering(token.includes('good') ? 200 : 401, { id: token.slice('Bearer good-'.length) })(
      { method: '', url: '', headers, body: '' },
      response,
    );
  });
  const introspect = { url: service.url, user: 'id', timeoutMs: 500 };
  const config = configured({
    proxy: { port: 0, mode: 'observe', observe: { users: 'plain' } },
    identity: [...header, { bearer: true, introspect }],
    routes: [
      { path: '/login', store: 'legacy', anonymous: true },
      { path: '/calendars/:owner/*', partition: 'path.owner' },
      { methods: ['POST'], path: '/search', access: 'read' },
      { path: '/graphql', graphql: true },
    ],
  });
  const port = await start(config);
  const json = 'Content-Type: application/json\r\n';
  /** What is sent, and where and as what it should be counted. */
  const kinds: readonly [request: string, name: string, read: boolean | undefined, refused?: string][] = [
    [`POST /login HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n`, 'routes[0]', false],
    [put('u1', '/calendars/anna/work'), 'routes[1]', false],
    [put('u1', '/calendars/ben/work'), 'routes[1]', false],
    [
      `POST /search HTTP/1.1\r\nHost: h\r\nX-User: u1\r\n${json}Content-Length: 2\r\n\r\n{}`,
      'routes[2]',
      true,
    ],
    [
      `POST /graphql HTTP/1.1\r\nHost: h\r\nX-User: u2\r\n${json}Content-Length: 17\r\n\r\n{"query":"{ a }"}`,
      'routes[3]',
      true,
    ],
    [
      `POST /graphql HTTP/1.1\r\nHost: h\r\nX-User: u2\r\n${json}Content-Length: 26\r\n\r\n{"query":"mutation { a }"}`,
      'routes[3]',
      false,
    ],
    [put('u3', '/api/items/1'), 'PUT /api/items/:id', false],
    [`GET /api/items/2 HTTP/1.1\r\nHost: h\r\n\r\n`, 'GET /api/items/:id', true],
    [`DELETE /api/items/2 HTTP/1.1\r\nHost: h\r\n\r\n`, 'DELETE /api/items/:id', false, 'no-identity'],
    [`GET /me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer good-7\r\n\r\n`, 'GET /me', true],
    [`GET /me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer bad\r\n\r\n`, 'GET /me', true, 'bad-credential'],
    [
      `GET /me HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer slow\r\n\r\n`,
      'GET /me',
      true,
      'identity-unavailable',
    ],
    [`GET /a/../b HTTP/1.1\r\nHost: h\r\nX-User: u1\r\n\r\n`, 'GET /a/../b', undefined, 'bad-target'],
  ];
  const counted = new Map<
    string,
    { requests: number; reads: number; writes: number; refused: Record<string, number> }
  >();
  let all = 0;
  for (let round = 0; round < 7; round += 1) {
    for (const [at, [request, name, read, refused]] of kinds.entries()) {
      for (let again = 0; again <= (at * 7 + round * 3) % 4; again += 1) {
        expect((await exchange(port, request)).body).toBe('ok');
        all += 1;
        const row = counted.get(name) ?? { requests: 0, reads: 0, writes: 0, refused: {} };
        counted.set(name, row);
        row.requests += 1;
        if (read === true) row.reads += 1;
        if (read === false) row.writes += 1;
        if (refused !== undefined) row.refused[refused] = (row.refused[refused] ?? 0) + 1;
      }
    }
  }
  await end();
  await service.stop();
  expect(legacy.requests).toHaveLength(all);
  expect(app.bytes).toBe('');
  const report = await runCli(['observe', 'report', '--config', config, '--json']);
  const rows = report.events.filter(({ type }) => type === 'row');
  const found = new Map(
    rows.map(({ route, method, path, requests, reads, writes, refused }) => [
      route === null ? `${String(method)} ${String(path)}` : `routes[${(route as { index: number }).index}]`,
      { requests, reads, writes, refused },
    ]),
  );
  expect(Object.fromEntries(found)).toEqual(Object.fromEntries(counted));
  expect(report.events.at(-1)).toMatchObject({
    type: 'summary',
    requests: all,
    seen: all,
    dropped: 0,
    unreadable: 0,
  });
  const calendars = rows.find(({ route }) => (route as { index: number } | null)?.index === 1);
  expect(calendars).toMatchObject({ partitions: 2, withoutPartition: 0 });
  // The process's own sums say the same.
  const last = linesIn(join(dataDir, 'observe')).findLast((line) => line.type === 'summary');
  expect(last?.requests).toBe(all);
  expect(last?.rows.reduce((sum, row) => sum + row.requests, 0)).toBe(all);
});

test('the report covers the newest rules, and what older ones judged where that is asked for', async () => {
  const config = configured({ identity: header });
  const port = await start(config);
  for (const user of ['u1', 'u2']) await exchange(port, put(user, '/login'));
  configured({ identity: header, routes: [{ path: '/login', store: 'legacy', anonymous: true }] });
  running[0]?.child.kill('SIGHUP');
  const byRoute = (): boolean => requestsIn(join(dataDir, 'observe')).some(({ route }) => route !== null);
  await until('the new rules judge', async () => {
    await exchange(port, put('u3', '/login'));
    return byRoute();
  });
  await end();
  const own = requestsIn(join(dataDir, 'observe'));
  const newest = own.filter(({ route }) => route !== null).length;
  expect(new Set(own.map(({ rules }) => rules)).size).toBe(2);
  const report = await runCli(['observe', 'report', '--config', config, '--json']);
  expect(report.events.at(-1)).toMatchObject({
    ...{ requests: newest, earlier: own.length - newest, seen: own.length },
    rules: own.at(-1)?.rules,
  });
  expect(report.events.filter(({ type }) => type === 'row')).toHaveLength(1);
  const all = await runCli(['observe', 'report', '--config', config, '--all', '--json']);
  expect(all.events.at(-1)).toMatchObject({ requests: own.length, earlier: 0, rules: null });
  const shown = await runCli(['observe', 'report', '--config', config]);
  expect(shown.stdout).toMatch(/Judged by the newest rules \(\w+\); \d+ requests .* --all adds them/);
  const status = await runCli(['status', '--config', config]);
  expect(status.stderr).toContain('an observing proxy has no admin API');
});

describe('the disk', () => {
  /** Whatever the files do, this traffic passes, and everything is accounted for. */
  async function passes(port: number, count: number): Promise<void> {
    for (let at = 0; at < count; at += 1) {
      expect(statusOf(await exchange(port, put('u1', `/api/items/${at}`)))).toBe(200);
    }
    expect(legacy.requests).toHaveLength(count);
  }

  async function dropped(port: number): Promise<{ requests: number; written: number; dropped: number }> {
    const answer = await exchange(port, 'GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n');
    return JSON.parse(answer.body) as { requests: number; written: number; dropped: number };
  }

  test('takes files of 8 KiB only: what fits is written, and the rest is in further files or counted', async () => {
    const limited = (argv: readonly string[]): CliProcess => limitedCli(argv);
    const port = await start(configured({ identity: header }), 'proxy', limited);
    await passes(port, 120);
    await until('all lines have had their turn', async () => {
      const state = await dropped(port);
      return state.written + state.dropped >= 120;
    });
    const state = await dropped(port);
    expect(state.dropped).toBeGreaterThan(0);
    await end();
    const lines = linesIn(join(dataDir, 'observe'), { torn: true });
    const requests = lines.filter((line) => line.type === 'request').length;
    const lost = lines.filter((line) => line.type === 'dropped');
    expect(lost.every((line) => line.because === 'EFBIG')).toBe(true);
    expect(requests + lost.reduce((sum, { count }) => sum + count, 0)).toBeGreaterThanOrEqual(120);
    expect(requests).toBeGreaterThan(0);
  });

  test('has a file where the directory should be: nothing is written, and everything passes', async () => {
    mkdirSync(dataDir);
    writeFileSync(join(dataDir, 'observe'), 'not a directory');
    const port = await start(configured({ identity: header }));
    await passes(port, 20);
    await until('they are dropped', async () => (await dropped(port)).dropped >= 20);
    expect(await end()).toContain('observe.not-written');
  });
});

describe('the ledger', () => {
  let redis: TestRedis;

  beforeEach(async () => {
    redis = await startRedis();
  });

  afterEach(async () => redis.stop());

  test('dies while requests are on their way: nobody notices, and nothing waits for it', async () => {
    const port = await start(configured({ identity: header, redis: { url: redis.url } }), 'proxy');
    const client = await RawClient.open(port);
    legacy.answer = () => {};
    client.send(put('u1', '/slow'));
    await until('legacy has it', () => legacy.requests.length === 1);
    await redis.kill();
    for (const socket of legacy.sockets) socket.write('HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n');
    expect(statusOf(await client.answer())).toBe(201);
    legacy.answer = (_request, socket) => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    client.send(put('u1', '/after'));
    expect((await client.answer()).body).toBe('ok');
    client.close();
    expect(await end()).toContain('observer.stays-listed');
  });

  test('keeps a proxy on its list until what it passed on has settled, and not any longer', async () => {
    const stores = { legacy: { url: legacy.url, settleMs: 3_000 } };
    const port = await start(configured({ stores, redis: { url: redis.url } }), 'proxy');
    legacy.answer = (_request, socket) => void socket.destroy();
    const client = await RawClient.open(port);
    client.send(put('u1', '/lost'));
    await client.until(() => client.closed);
    const process = running.pop();
    process?.child.kill('SIGTERM');
    await until('it takes no connection any more', () => RawClient.open(port).then(closed, () => true));
    const ledger = await openLedger(redis);
    expect(await ledger.ledger.observers.list()).toHaveLength(1);
    expect((await process?.ended)?.exit).toBe(0);
    expect(await ledger.ledger.observers.list()).toEqual([]);
    await ledger.close();
  });

  test('refuses every flip while a proxy observes, and afterwards no proxy may observe', async () => {
    const records = ['u1', 'u2'].map((owner) => ({ id: `a-${owner}`, owner_id: owner, title: 'one' }));
    const [old, young] = await Promise.all([startRestStore({ records }), startRestStore()]);
    const stores = {
      legacy: { url: old.url, settleMs: 0, connector: connectorFor() },
      app: { url: young.url, guard: false, connector: connectorFor() },
    };
    const token = 'an-admin-token-1';
    const shared = {
      ...{ redis: { url: redis.url }, stores, identity: header, secret: 'a-secret-of-the-test' },
      admin: { port: 0, tokens: [{ name: 'ops', role: 'admin', token }] },
      cohorts: { pilot: { partitions: ['u1', 'u2'] } },
    };
    const own = (name: string): string => join(directory, name);
    const enforcing = configured(
      { ...shared, proxy: { port: 0 }, dataDir: own('enforcing') },
      'enforcing.json',
    );
    const observing = configured({ ...shared, dataDir: own('observing') }, 'observing.json');
    await start(enforcing);
    const admin = await adminUrl();
    const cli = (...argv: string[]) => runCli(['--config', enforcing, '--admin', admin, ...argv]);
    await start(observing, 'proxy');
    const plan = await cli('plan', '--cohort', 'pilot', '--to', 'app');
    expect(plan.exit).toBe(8);
    expect(plan.stdout).toMatch(/observing.*only observes and sends every write to legacy/s);
    const members = await cli('members', 'list');
    expect(members.stdout).toContain('only observes: nothing moves');
    const id = /onewriter members remove (\S+)/.exec(plan.stdout)?.[1] ?? '';
    const alive = await cli('members', 'remove', id, '--reason', 'x');
    expect(alive.exit).toBe(8);
    expect(alive.stderr).toContain('Stop that process');
    expect((await cli('flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'x', '--yes')).exit).toBe(8);

    await end();
    const flip = ['flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'x', '--yes', '--timeout', '25s'];
    expect(await cli(...flip)).toMatchObject({ exit: 0 });
    const refused = await runCli(['proxy', '--config', observing]);
    expect(refused.exit).toBe(1);
    expect(refused.stderr).toMatch(/does not live in legacy.*Set proxy\.mode to enforce/s);
    const doctor = await runCli(['doctor', '--config', observing]);
    expect(doctor.stdout).toMatch(/fail +redis +2 partitions do not live in legacy/);
    await Promise.all([old.stop(), young.stop()]);
  });

  test('is embedded, and something has moved in it: a proxy that would observe does not start', async () => {
    const record = { id: 'a-u1', owner_id: 'u1', title: 'one' };
    const [old, young] = await Promise.all([startRestStore({ records: [record] }), startRestStore()]);
    const token = 'an-admin-token-1';
    const changes = {
      ...{ identity: header, secret: 'a-secret-of-the-test', cohorts: { pilot: { partitions: ['u1'] } } },
      stores: {
        legacy: { url: old.url, settleMs: 0, connector: connectorFor() },
        app: { url: young.url, guard: false, connector: connectorFor() },
      },
      admin: { port: 0, tokens: [{ name: 'ops', role: 'operator', token }] },
    };
    const enforcing = configured({ ...changes, proxy: { port: 0 } }, 'enforcing.json');
    await start(enforcing);
    const admin = await adminUrl();
    const flip = ['flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'x', '--yes', '--timeout', '25s'];
    expect(await runCli(['--config', enforcing, '--admin', admin, ...flip])).toMatchObject({ exit: 0 });
    await end();
    const refused = await runCli(['up', '--config', configured(changes, 'observing.json')]);
    expect(refused.exit).toBe(1);
    expect(refused.stderr).toContain('"u1" does not live in legacy');
    await Promise.all([old.stop(), young.stop()]);
  });
});

function closed(client: RawClient): false {
  client.close();
  return false;
}

/** As `startCli`, in a shell that allows no file to grow beyond 8 KiB. */
function limitedCli(argv: readonly string[]): CliProcess {
  const words = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    resolve('src/cli/main.ts'),
    ...argv,
  ];
  const child: ChildProcess = spawn('bash', ['-c', 'ulimit -f 8; exec "$@"', 'bash', ...words], {
    env: { PATH: process.env['PATH'] ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended: CliProcess['ended'] = new Promise((settle) => {
    child.once('close', (exit) => settle({ exit, stdout, stderr, events: [] }));
  });
  return { child, ended, stdout: () => stdout };
}
