/** A change of the rules without a restart: real proxies, real signals, traffic all the time. */
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type CliProcess, startCli } from '../support/cli.ts';
import { partitionOf } from '../support/newcomers.ts';
import { openLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

const byOrg = [{ header: 'x-org' }, { by: 'user' }];
const byUser = [{ by: 'user' }];

let directory: string;
let config: string;
let server: TestRedis;
let legacy: TestRestStore;
let app: TestRestStore;
let proxies: Proxy[];
/** Partitions of the writes at legacy, as they came and as they ended. */
let log: string[];

interface Proxy {
  readonly process: CliProcess;
  readonly stderr: () => string;
  readonly write: () => Promise<number>;
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'onewriter-reload-'));
  config = join(directory, 'onewriter.json');
  server = await startRedis();
  log = [];
  legacy = await startRestStore({
    intercept: async (call) => {
      if (call.method !== 'POST') return undefined;
      log.push(partitionOf(call));
      await new Promise((resolve) => setImmediate(resolve));
      log.push(`${partitionOf(call)} ended`);
      return { status: 200 };
    },
  });
  app = await startRestStore();
  configure({ partition: byOrg });
  proxies = [await startProxy(), await startProxy()];
}, 60_000);
afterEach(async () => {
  for (const { process } of proxies) process.child.kill('SIGTERM');
  for (const { process } of proxies) await process.ended;
  await Promise.all([legacy.stop(), app.stop()]);
  await server.stop();
  rmSync(directory, { recursive: true });
}, 60_000);

function configure(changes: Record<string, unknown>): void {
  const whole = {
    proxy: { port: 0 },
    admin: { port: 0 },
    redis: { url: server.url },
    dataDir: join(directory, 'data'),
    secret: 'a-secret-of-the-reload-tests',
    ledger: { leaseMs: 3_000 },
    stores: {
      // So that the store sees under which partition a write goes.
      legacy: { url: legacy.url, settleMs: 10_000, guard: true, connector: connectorFor() },
      app: { url: app.url, guard: false, connector: connectorFor() },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    ...changes,
  };
  writeFileSync(config, JSON.stringify(whole));
}

async function startProxy(): Promise<Proxy> {
  const process = startCli(['proxy', '--config', config]);
  let stderr = '';
  process.child.stderr?.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  let ended = false;
  void process.ended.then(() => (ended = true));
  const url = await until(
    'it listens',
    () => {
      if (ended) throw new Error(stderr);
      return /proxy +(http:\S+)/.exec(process.stdout())?.[1];
    },
    20_000,
  );
  const write = async (): Promise<number> => {
    const headers = { 'x-user': 'ann', 'x-org': 'org1' };
    return (await fetch(`${url}/a`, { method: 'POST', headers, body: '{}' })).status;
  };
  await until('it takes writes', async () => (await write()) === 200, 20_000);
  return { process, stderr: () => stderr, write };
}

/** Writes at every proxy, one after the other, until it is stopped; says which were refused. */
function traffic(): { stop: () => Promise<{ refused: number[]; longestMs: number }[]> } {
  const stopping = new AbortController();
  const running = proxies.map(async ({ write }) => {
    const refused: number[] = [];
    let longestMs = 0;
    while (!stopping.signal.aborted) {
      const sinceMs = performance.now();
      const status = await write();
      longestMs = Math.max(longestMs, performance.now() - sinceMs);
      if (status !== 200) refused.push(status);
    }
    return { refused, longestMs };
  });
  return {
    stop: () => {
      stopping.abort();
      return Promise.all(running);
    },
  };
}

const hangUp = (proxy: Proxy | undefined): void => void proxy?.process.child.kill('SIGHUP');
const says = (proxy: Proxy | undefined, event: string): boolean => proxy?.stderr().includes(event) === true;

test('both proxies switch at a signal, no write is refused, and none runs under the old rules beside the new', async () => {
  const writing = traffic();
  await until('traffic flows', () => log.length > 100);
  configure({ partition: byUser });
  for (const proxy of proxies) hangUp(proxy);
  await until('both have switched', () => proxies.every((proxy) => says(proxy, 'rules.changed')), 20_000);
  const switchedAt = log.length;
  await until('traffic flows again', () => log.length > switchedAt + 100);
  for (const { refused, longestMs } of await writing.stop()) {
    expect(refused).toEqual([]);
    expect(longestMs).toBeLessThan(5_000);
  }
  const first = log.indexOf('ann');
  expect(first).toBeGreaterThan(100);
  expect(log.slice(first).filter((line) => line.startsWith('org1'))).toEqual([]);
  expect(log.slice(0, first).filter((line) => line === 'org1').length).toBe(
    log.slice(0, first).filter((line) => line === 'org1 ended').length,
  );
}, 60_000);

test('a proxy whose others do not follow goes back, says so, and writes again under the old rules', async () => {
  const writing = traffic();
  await until('traffic flows', () => log.length > 50);
  configure({ partition: byUser });
  hangUp(proxies[0]);
  await until('it gives up', () => says(proxies[0], 'rules.not-changed'), 30_000);
  expect(says(proxies[0], 'rules.not-followed')).toBe(true);
  const backAt = log.length;
  await until('traffic flows again', () => log.length > backAt + 50);
  const [first, second] = await writing.stop();
  expect(new Set(first?.refused)).toEqual(new Set([503]));
  expect(second?.refused).toEqual([]);
  expect(new Set(log)).toEqual(new Set(['org1', 'org1 ended']));
  expect(await proxies[0]?.write()).toBe(200);
}, 60_000);

test('while a write is in doubt nothing changes, and writes go on', async () => {
  const { intercept } = legacy;
  // What a gateway says that does not know what became of it.
  legacy.intercept = () => ({ status: 502 });
  expect(await proxies[0]?.write()).toBe(502);
  legacy.intercept = intercept;
  configure({ partition: byUser });
  hangUp(proxies[0]);
  await until('it says why', () => says(proxies[0], 'a write is in doubt'));
  expect(await proxies[0]?.write()).toBe(200);
  expect(new Set(log)).toEqual(new Set(['org1', 'org1 ended']));
}, 60_000);

test('a file with problems, or a change that needs a restart, changes nothing and is told in one sentence', async () => {
  writeFileSync(config, '{"stores": 1}');
  hangUp(proxies[0]);
  await until('the problems are told', () => says(proxies[0], 'the configuration has problems'));
  configure({ partition: byUser, flip: { holdMs: 7_000 } });
  hangUp(proxies[0]);
  await until('the restart is told', () => says(proxies[0], 'a change of flip needs a restart'));
  configure({ partition: byOrg });
  hangUp(proxies[0]);
  await until('that nothing differs is told', () => says(proxies[0], 'the file says the same as before'));
  expect(await proxies[0]?.write()).toBe(200);
  expect(new Set(log)).toEqual(new Set(['org1', 'org1 ended']));
}, 60_000);

test('a ledger that loses its data at that moment does not pass for whole', async () => {
  const [proxy] = proxies;
  const rig = await openLedger(server);
  const orders = [
    { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 },
    { kind: 'commit', attempt: 'a' },
    { kind: 'release', attempt: 'a' },
  ] as const;
  for (const order of orders)
    await rig.ledger.order({ partition: 'org1', order, by: 'test', reason: 'test' });
  await until('the app takes the writes', async () => {
    const before = log.length;
    const status = await proxy?.write();
    return status !== 503 && log.length === before;
  });
  configure({ partition: byOrg, anonymousReads: 'refuse' });
  const before = log.length;
  await rig.redis.flushall();
  hangUp(proxy);
  await until(
    'it has decided',
    () => says(proxy, 'rules.not-changed') || says(proxy, 'rules.changed'),
    20_000,
  );
  // Until its next heartbeat it goes by what it knows, which is right.
  await proxy?.write();
  expect(log.length).toBe(before);
  await until('it knows of the loss', () => says(proxy, 'ledger.regressed'), 20_000);
  expect(await proxy?.write()).toBe(503);
  expect(log.length).toBe(before);
  await rig.close();
}, 60_000);

test('a signal that comes while the process ends breaks nothing off', async () => {
  const [proxy] = proxies;
  const answer = new AbortController();
  const before = legacy.intercept;
  let has = false;
  legacy.intercept = async (call) => {
    has = true;
    await once(answer.signal, 'abort');
    return before?.(call);
  };
  const writing = proxy?.write();
  await until('the store has the write', () => has);
  proxy?.process.child.kill('SIGTERM');
  await until('it ends', () => proxy?.stderr().includes('Stopping'));
  hangUp(proxy);
  await until('it says what it makes of it', () => says(proxy, 'this process is stopping'));
  answer.abort();
  expect(await writing).toBe(200);
  expect((await proxy?.process.ended)?.exit).toBe(0);
}, 60_000);

test('a signal that comes before the start is over ends nothing', async () => {
  const process = startCli(['proxy', '--config', config], {
    env: { NODE_OPTIONS: `--import=${hangUpEarly()}` },
  });
  await until('it listens', () => process.stdout().includes('proxy'), 20_000);
  process.child.kill('SIGTERM');
  const { exit, stderr } = await process.ended;
  expect(exit).toBe(0);
  expect(stderr).toContain('this process is just starting');
}, 60_000);

/** A module that sends the signal to its own process as soon as somebody listens for it. */
function hangUpEarly(): string {
  const file = join(directory, 'hang-up.mjs');
  const code = `process.on('newListener', (event) => event === 'SIGHUP' && setImmediate(() => process.kill(process.pid, 'SIGHUP')));`;
  writeFileSync(file, code);
  return file;
}
