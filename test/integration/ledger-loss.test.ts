/** A deployment whose ledger is lost: who notices, what users see, what operators are told, the way back (I5). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Role } from '../../src/base.ts';
import { type Running, startRole } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import { runCli } from '../support/cli.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { SwitchRelay } from '../support/switch-relay.ts';
import { until } from '../support/until.ts';

const token = 'admin-token-1';
const leaseMs = 900;
let redis: TestRedis;
let raw: Redis;
let legacy: TestRestStore;
let app: TestRestStore;
let directory: string;
let config: string;
let logged: string[];
const started: Running[] = [];

beforeEach(async () => {
  redis = await startRedis();
  raw = new Redis(redis.url);
  directory = mkdtempSync(join(tmpdir(), 'onewriter-loss-'));
  const records = ['u1', 'u2', 'u3'].map((user) => ({ id: `a-${user}`, owner_id: user, title: 'one' }));
  legacy = await startRestStore({ records });
  app = await startRestStore();
  logged = [];
  config = configured({});
});
afterEach(async () => {
  for (const running of started.splice(0)) await running.stop();
  raw.disconnect();
  await redis.stop();
  await Promise.all([legacy.stop(), app.stop()]);
  rmSync(directory, { recursive: true });
});

function configured(
  ledger: Record<string, unknown>,
  url = redis.url,
  more: Record<string, unknown> = {},
): string {
  const path = join(directory, `${started.length}-onewriter.json`);
  const whole = {
    proxy: { port: 0 },
    admin: { port: 0, tokens: [{ name: 'anna', role: 'admin', token }] },
    redis: { url },
    dataDir: join(directory, 'data'),
    secret: 'a-secret-of-the-loss-tests',
    ledger: { leaseMs, ...ledger },
    stores: {
      legacy: { url: legacy.url, settleMs: 0, writeTimeoutMs: 500, connector: connectorFor() },
      app: { url: app.url, guard: false, writeTimeoutMs: 500, connector: connectorFor() },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    cohorts: { pilot: { partitions: ['u1', 'u2'] }, rest: { partitions: ['u3'] } },
    sync: { pollMs: 100 },
    ...more,
  };
  writeFileSync(path, JSON.stringify(whole));
  return path;
}

async function start(role: Role = 'up'): Promise<Running> {
  const loaded = loadConfig({ path: config, env: {} });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const running = await startRole(role, {
    ...{ config: loaded.config, configHash: loaded.hash, env: process.env },
    log: (level, event) => logged.push(`${level} ${event}`),
  });
  started.push(running);
  return running;
}

async function stop(running: Running): Promise<void> {
  started.splice(started.indexOf(running), 1);
  await running.stop();
}

function cli({ addresses }: Running, ...argv: string[]) {
  return runCli(['--admin', addresses['admin'] ?? '', '--token', token, ...argv]);
}

async function get(url: string) {
  const { statusCode, body } = await request(url);
  return { status: statusCode, text: await body.text() };
}

const health = ({ addresses }: Running) => get(`${addresses['proxy']}/.well-known/onewriter/health`);

async function write({ addresses }: Running, user: string) {
  const { statusCode, body } = await request(`${addresses['proxy']}/appointments/a-${user}`, {
    method: 'PUT',
    headers: { 'x-user': user, 'content-type': 'application/json' },
    body: JSON.stringify({ id: `a-${user}`, owner_id: user, title: 'two' }),
  });
  return { status: statusCode, text: await body.text() };
}

async function flip(running: Running, cohort: string) {
  return cli(running, 'flip', '--cohort', cohort, '--to', 'app', '--reason', 'test', '--yes');
}

async function lose(running: Running): Promise<void> {
  await raw.flushall();
  await until('it is noticed', async () => (await health(running)).text.includes('ledger-regressed'));
}

describe('a ledger that was emptied', () => {
  test('is told by the proxy, the admin, the log, the metrics and the first lines of status', async () => {
    const up = await start();
    expect((await flip(up, 'pilot')).exit).toBe(0);
    expect(await health(up)).toMatchObject({ status: 200 });
    expect((await get(`${up.addresses['admin']}/metrics`)).text).toContain('onewriter_ledger_regressed 0');
    await lose(up);
    expect(await health(up)).toMatchObject({ status: 503, text: expect.stringContaining('lost data') });
    expect(await write(up, 'u1')).toMatchObject({
      status: 503,
      text: expect.stringContaining('"sent":"no"'),
    });
    expect(await get(`${up.addresses['admin']}/readyz`)).toMatchObject({
      status: 503,
      text: expect.stringContaining('ledger-regressed'),
    });
    await until('the metrics say so', async () =>
      (await get(`${up.addresses['admin']}/metrics`)).text.includes('onewriter_ledger_regressed 1'),
    );
    const status = await cli(up, 'status');
    expect(status.stdout.split('\n')[0]).toContain('LEDGER LOST DATA: version');
    expect(status.stdout).toContain('Writes: refused. Do not trust');
    expect(status.stdout).not.toContain('plan --cohort');
    const sync = await cli(up, 'sync', 'status');
    expect(sync.stdout.split('\n')[0]).toContain('LEDGER LOST DATA: version');
    expect(sync.stdout).toMatch(/copies +STOPPED: nothing is copied until the ledger is restored/);
    expect((await write(up, 'u1')).text).toContain('until an operator has restored it');
    const doctor = await runCli(['doctor', '--config', config]);
    expect(doctor.stdout).toMatch(/fail +ledger +the ledger lost data: version/);
    expect(logged.filter((line) => line === 'error ledger.regressed')).toHaveLength(1);
    const blocked = await flip(up, 'rest');
    expect(blocked.exit).toBe(8);
    expect(blocked.stdout).toContain('ledger-regressed');
  }, 90_000);

  test('is restored by one command, and users and flips go on where they were', async () => {
    const up = await start();
    await flip(up, 'pilot');
    await lose(up);
    const plan = await cli(up, 'ledger', 'restore', '--from', 'member', '--plan', '--reason', 'looking');
    expect(plan.exit).toBe(2);
    expect(plan.stdout).toContain('Plan: 2 to app, 0 to legacy');
    expect((await health(up)).status).toBe(503);
    const done = await cli(up, 'ledger', 'restore', '--from', 'member', '--reason', 'flushed', '--yes');
    expect(done.stderr + done.stdout).toContain('Restored: 2 to app');
    expect(done.exit).toBe(0);
    await until('healthy again', async () => (await health(up)).status === 200);
    expect((await write(up, 'u1')).status).toBeLessThan(300);
    expect(app.records.get('a-u1')).toMatchObject({ title: 'two' });
    expect(legacy.records.get('a-u1')).toMatchObject({ title: 'one' });
    // The copies go on by themselves.
    legacy.set({ id: 'a-u3', owner_id: 'u3', title: 'three' });
    await until('it is copied', () => app.records.get('a-u3')?.['title'] === 'three', 20_000);
    expect((await flip(up, 'rest')).exit).toBe(0);
    const again = await cli(up, 'ledger', 'restore', '--from', 'member', '--reason', 'again', '--yes');
    expect(again).toMatchObject({ exit: 8, stderr: expect.stringContaining('--even-though-healthy') });
  });

  test('while nothing ran is told by whoever starts first, and restored from its file', async () => {
    const first = await start();
    await flip(first, 'pilot');
    await write(first, 'u1');
    await stop(first);
    await raw.flushall();
    const worker = await start('worker');
    expect(worker.warnings).toEqual([expect.stringContaining('The ledger has lost data')]);
    expect(worker.warnings[0]).toContain(join(directory, 'data', 'ledger-views'));
    await stop(worker);
    const up = await start();
    expect(up.warnings).toHaveLength(1);
    expect((await health(up)).status).toBe(503);
    // It takes u1 for an account of legacy, whose record is older: nothing is copied on the word of such a ledger.
    const seen = legacy.calls.length;
    await until('the copies were compared', () => legacy.calls.length > seen + 20);
    expect(app.records.get('a-u1')).toMatchObject({ title: 'two' });
    const done = await cli(up, 'ledger', 'restore', '--from', 'member', '--reason', 'flushed', '--yes');
    expect(done.stdout).toContain('Restored: 2 to app');
    await until('healthy again', async () => (await health(up)).status === 200);
    expect((await write(up, 'u2')).status).toBeLessThan(300);
    expect(app.records.get('a-u2')).toMatchObject({ title: 'two' });
    expect(legacy.records.get('a-u2')).toMatchObject({ title: 'one' });
  });

  test('sends nobody astray in the moments before a heartbeat finds out', async () => {
    await raw.hset('{onewriter}:directory', 'newbie', 'u1');
    config = configured({ leaseMs: 9_000 }, redis.url, { partition: [{ directory: true }, { by: 'user' }] });
    const up = await start();
    await flip(up, 'pilot');
    await raw.flushall();
    // Without its entry this user would count for an account of legacy.
    const answer = await request(`${up.addresses['proxy']}/appointments/a-u1`, {
      method: 'PUT',
      headers: { 'x-user': 'newbie', 'content-type': 'application/json' },
      body: JSON.stringify({ id: 'a-u1', owner_id: 'u1', title: 'astray' }),
    });
    expect({ status: answer.statusCode, text: await answer.body.text() }).toMatchObject({
      status: 503,
      text: expect.stringContaining('"sent":"no"'),
    });
    expect(legacy.records.get('a-u1')).toMatchObject({ title: 'one' });
  });

  test('is restored from an export', async () => {
    const up = await start();
    await flip(up, 'pilot');
    const file = join(directory, 'ledger.ndjson');
    const exported = await cli(up, 'ledger', 'export', '--out', file);
    expect(exported).toMatchObject({ exit: 0, stdout: expect.stringContaining('Wrote 2 partitions') });
    await lose(up);
    const done = await cli(up, 'ledger', 'restore', '--from', file, '--reason', 'flushed', '--yes');
    expect(done.stdout).toContain('Restored: 2 to app');
    await until('healthy again', async () => (await health(up)).status === 200);
  });
});

describe('an erasure', () => {
  const erasing = ['erase', 'u3', '--reason', 'asked for by letter', '--yes'];

  test('is refused at once, and says what comes first', async () => {
    const up = await start();
    await lose(up);
    for (const order of [erasing, ['erase', 'u3', '--plan']]) {
      const refused = await cli(up, ...order);
      expect(refused.exit).toBe(1);
      expect(refused.stderr).toContain('Nothing was done. The ledger lost data');
      expect(refused.stderr).toContain('onewriter ledger restore --from member');
    }
    expect(await raw.exists('{onewriter}:erasures')).toBe(0);
  });

  test('that runs waits for the restore, however long that takes, and goes on', async () => {
    const up = await start();
    await until('it is copied', () => app.records.size === 3);
    legacy.intercept = ({ method }) => (method === 'DELETE' ? { status: 500 } : undefined);
    const begun = await cli(up, ...erasing, '--no-wait');
    const id = /e-\S+/.exec(begun.stdout)?.[0] ?? '';
    const before = await raw.hgetall('{onewriter}:meta');
    expect((await flip(up, 'pilot')).exit).toBe(0);
    // An older copy of the ledger, in which the erasure stands all the same.
    await raw.hset('{onewriter}:meta', before);
    const show = async () => (await cli(up, 'erase', 'show', id)).stdout;
    await until('it says so', async () => (await show()).includes('goes on by itself afterwards'), 20_000);
    expect(await show()).toMatch(/state +running/);
    legacy.intercept = undefined;
    expect([...legacy.records.keys()]).toContain('a-u3');
    const restored = await cli(up, 'ledger', 'restore', '--from', 'member', '--reason', 'older', '--yes');
    expect(restored.exit).toBe(0);
    await until('it is done', async () => /state +done/.test(await show()), 60_000);
    expect([...legacy.records.keys(), ...app.records.keys()]).not.toContain('a-u3');
  }, 180_000);
});

describe('a rollback window', () => {
  test('that was closed does not open again with a restore; whoever is to go back is opened by name', async () => {
    config = configured({}, redis.url, { sync: { pollMs: 100, rollbackWindow: 'on' } });
    const up = await start();
    expect((await flip(up, 'pilot')).exit).toBe(0);
    expect((await flip(up, 'rest')).exit).toBe(0);
    const closing = ['window', 'close', 'pilot', '--reason', 'we stay', '--yes'];
    expect(await cli(up, ...closing)).toMatchObject({ exit: 0 });
    await lose(up);
    for (const refused of [
      closing,
      ['window', 'status'],
      ['window', 'open', 'rest', '--reason', 'x', '--yes'],
    ]) {
      const asked = await cli(up, ...refused);
      expect(asked.exit).not.toBe(0);
      expect(asked.stderr).toContain('onewriter ledger restore --from member');
    }
    const restored = await cli(up, 'ledger', 'restore', '--from', 'member', '--reason', 'lost', '--yes');
    expect(restored.stdout).toContain('The rollback windows of the 3 in the app are closed');
    expect(restored.stdout).toContain('onewriter window open COHORT --reason TEXT');
    expect(logged).toContain('warn sync.windows-closed');
    const legacyWrites = () => legacy.writes().filter(({ path }) => path.startsWith('/appointments')).length;
    const before = legacyWrites();
    await until('writes go on', async () => (await write(up, 'u1')).status === 200);
    await write(up, 'u3');
    expect((await cli(up, 'status')).stdout).toMatch(/rollback window +closed by a restore for 3 partitions/);
    expect((await cli(up, 'window', 'status')).stdout).toContain('3 of these were closed by a restore');
    const plan = await cli(up, 'plan', '--cohort', 'rest', '--to', 'legacy');
    expect(plan.stdout).toContain('onewriter window open COHORT');
    const opened = await cli(up, 'window', 'open', 'rest', '--reason', 'was open', '--yes');
    expect(opened.stdout).toContain('Opened for 1 partitions');
    await until('u3 is copied back', () => legacy.records.get('a-u3')?.['title'] === 'two');
    expect(legacy.records.get('a-u1')?.['title']).toBe('one');
    expect(legacyWrites()).toBe(before + 1);
  }, 120_000);
});

describe('a proxy that serves what it knows last', () => {
  test('goes on without Redis, is never taken for gone, and stands in the way until it is removed', async () => {
    const going = { onLedgerLoss: 'serve-last-known' };
    const relay = await SwitchRelay.open(redis.port);
    try {
      config = configured(going, relay.url);
      const proxy = await start('proxy');
      config = configured(going);
      const admin = await start('admin');
      expect((await flip(admin, 'pilot')).exit).toBe(0);
      await redis.kill();
      relay.cut();
      await until('the lease would be over', async () => (await health(proxy)).text.includes('degraded'));
      expect(await health(proxy)).toMatchObject({
        status: 200,
        text: expect.stringContaining('ledger-silent'),
      });
      expect((await write(proxy, 'u1')).status).toBeLessThan(300);
      expect(app.records.get('a-u1')).toMatchObject({ title: 'two' });

      const again = await startRedis({ directory: redis.directory, port: redis.port });
      redis = again;
      const other = await start('proxy');
      const [silent] = await until('it is silent for long enough to be gone', async () => {
        const listed = await cli(admin, 'members', 'list', '--json');
        const silentFor = listed.events.filter(({ silentMs }) => Number(silentMs) > 2 * leaseMs + 500);
        return silentFor.length > 0 && silentFor;
      });
      expect(silent).toMatchObject({ unexpirable: true });
      const ordered = ['flip', '--cohort', 'rest', '--to', 'app', '--reason', 'test', '--yes', '--no-wait'];
      expect((await cli(admin, ...ordered)).exit).toBe(0);
      await until('the flip waits for it', async () =>
        (await cli(admin, 'status')).stdout.includes(
          `stale-member: no heartbeat from ${String(silent?.['id'])}`,
        ),
      );
      expect((await write(proxy, 'u3')).status).toBeLessThan(300);
      expect(legacy.records.get('a-u3')).toMatchObject({ title: 'two' });

      const alive = (await cli(admin, 'members', 'list', '--json')).events.find(
        ({ id, type }) => type === 'member' && id !== silent?.['id'],
      );
      const refused = await cli(admin, 'members', 'remove', String(alive?.['id']), '--reason', 'a mistake');
      expect(refused).toMatchObject({ exit: 8, stderr: expect.stringContaining('may be alive') });

      await stop(proxy);
      const removed = await cli(
        admin,
        'members',
        'remove',
        String(silent?.['id']),
        '--reason',
        'it was stopped',
      );
      expect(removed.exit).toBe(0);
      await until('the flip went on', async () => (await cli(admin, 'status')).stdout.includes('completed'));
      expect((await write(other, 'u3')).status).toBeLessThan(300);
      expect(app.records.get('a-u3')).toMatchObject({ title: 'two' });
    } finally {
      await relay.close();
    }
  }, 60_000);
});
