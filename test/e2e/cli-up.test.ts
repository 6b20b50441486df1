import { createServer as createHttpServer } from 'node:http';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type CliProcess, runCli, startCli } from '../support/cli.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

const partitions = ['u1', 'u2', 'u3', 'u4'];
const token = 'operator-token-1';
let directory: string;
let legacy: TestRestStore;
let app: TestRestStore;
let up: CliProcess;
let config: string;
let adminUrl: string;

function configured(name: string, changes: Record<string, unknown> = {}): string {
  const path = join(directory, name);
  const whole = {
    proxy: { port: 0 },
    admin: { port: 0, tokens: [{ name: 'ops', role: 'operator', token }] },
    dataDir: join(directory, 'data'),
    secret: 'a-secret-of-the-cli-tests',
    stores: {
      legacy: { url: legacy.url, settleMs: 0, connector: connectorFor() },
      app: { url: app.url, guard: false, connector: connectorFor() },
    },
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    cohorts: { pilot: { partitions }, nobody: { partitions: [] } },
    sync: { pollMs: 100 },
    ...changes,
  };
  writeFileSync(path, JSON.stringify(whole));
  return path;
}

function cli(...argv: string[]) {
  return runCli(['--config', config, '--admin', adminUrl, ...argv]);
}

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'onewriter-up-'));
  const records = partitions.map((partition) => ({
    id: `a-${partition}`,
    owner_id: partition,
    title: 'one',
  }));
  legacy = await startRestStore({ records });
  app = await startRestStore();
  config = configured('onewriter.json');
  up = startCli(['up', '--config', config]);
  let failed: string | undefined;
  void up.ended.then(({ stderr }) => (failed = stderr));
  adminUrl = await until(
    'the addresses are printed',
    () => {
      if (failed !== undefined) throw new Error(failed);
      return /proxy +http/.test(up.stdout()) && /admin +(http:\S+)/.exec(up.stdout())?.[1];
    },
    20_000,
  );
});

afterAll(async () => {
  up.child.kill('SIGTERM');
  await up.ended;
  await legacy.stop();
  await app.stop();
  rmSync(directory, { recursive: true });
});

describe('one whole deployment, driven from the command line', () => {
  test('a cohort is planned, flipped and verified, and explained by who moved it and why', async () => {
    const before = await cli('status', 'pilot');
    expect(before.stdout.split('\n')[0]).toBe('Writes: 0/4 app, 0 fenced, 4 legacy');
    const planned = await cli('plan', '--cohort', 'pilot', '--to', 'app');
    expect(planned.stdout).toContain('Plan: 4 to flip, 0 blocked, 0 to reverse');
    expect(planned.exit).toBe(2);

    const flipped = await cli(
      ...['flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'first users', '--yes', '--json'],
      ...['--timeout', '25s'],
    );
    expect(flipped.events.at(-1)).toMatchObject({ type: 'flip', state: 'completed', committed: 4 });
    expect(flipped.exit).toBe(0);
    expect([...app.records.keys()].toSorted()).toEqual(partitions.map((partition) => `a-${partition}`));

    const after = await cli('status', 'pilot');
    expect(after.stdout.split('\n')[0]).toBe('Writes: 4/4 app, 0 fenced, 0 legacy');
    expect(await cli('verify', 'pilot')).toMatchObject({ exit: 0 });
    const explained = await cli('explain', 'u1');
    expect(explained.stdout).toContain('u1: writes go to app');
    expect(explained.stdout).toContain('first users');

    const again = await cli('plan', '--cohort', 'pilot', '--to', 'app');
    expect(again.stdout).toContain('Plan: 0 to flip, 0 blocked, 0 to reverse');
    expect(again.exit).toBe(0);
  });

  test('a move back is refused where no guard can prove that it would lose nothing: exit 8', async () => {
    const back = await cli('plan', '--cohort', 'pilot', '--to', 'legacy');
    expect(back.exit).toBe(8);
    expect(back.stdout).toContain('no-clean-way-back');
    expect(await cli('rollback', 'pilot', '--reason', 'x', '--yes')).toMatchObject({ exit: 8 });
    const answer = await fetch(`${adminUrl}/v1/rollbacks`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ cohort: 'pilot', reason: 'x' }),
    });
    expect(answer.status).toBe(422);
    expect(await answer.json()).toMatchObject({
      code: 'no-clean-way-back',
      blockers: [{ code: 'no-clean-way-back', detail: expect.stringContaining('sync.rollbackWindow') }],
    });
    const after = await cli('status', 'pilot');
    expect(after.stdout.split('\n')[0]).toBe('Writes: 4/4 app, 0 fenced, 0 legacy');
  });

  test('what an operator did is in the audit log', async () => {
    const answer = await fetch(`${adminUrl}/v1/audit`, { headers: { authorization: `Bearer ${token}` } });
    const { entries } = (await answer.json()) as { entries: unknown[] };
    expect(entries).toMatchObject([{ actor: 'ops', action: 'flip.start', reason: 'first users' }]);
  });
});

test('a record that the app will not take is listed with its reason, and is copied once it was mended', async () => {
  app.intercept = ({ method, path }) =>
    method === 'PUT' && path.endsWith('/a-u9')
      ? { status: 422, body: { detail: 'title too long' } }
      : undefined;
  legacy.set({ id: 'a-u9', owner_id: 'u9', title: 'far too long' });
  const listed = await until('the dead letter is listed', async () => {
    const { stdout } = await cli('sync', 'status');
    return stdout.includes('a-u9') && stdout;
  });
  expect(listed).toContain('title too long');
  expect(await cli('sync', 'retry', 'no-such-letter', '--reason', 'x')).toMatchObject({ exit: 1 });
  expect(await cli('sync', 'retry', '--all')).toMatchObject({ exit: 1 });
  app.intercept = undefined;
  const retried = await cli('sync', 'retry', '--all', '--reason', 'the app takes long titles now');
  expect(retried).toMatchObject({ exit: 0 });
  await until('it is copied', () => app.records.has('a-u9'));
  await until('no letter is left', async () => !(await cli('sync', 'status')).stdout.includes('a-u9'));
});

test('retry --all passes over a letter whose record was copied between the listing and its turn', async () => {
  app.intercept = ({ method, path }) =>
    method === 'PUT' && path.endsWith('/a-u8') ? { status: 422, body: {} } : undefined;
  legacy.set({ id: 'a-u8', owner_id: 'u8', title: 'one' });
  await until('the dead letter is listed', async () => (await cli('sync', 'status')).stdout.includes('a-u8'));
  // Between the CLI and the admin API: what was listed is told only when it is no longer true.
  const between = createHttpServer((request, response) => {
    void (async () => {
      const { method = '', url = '' } = request;
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const body = method === 'POST' ? await text(request) : undefined;
      const answer = await fetch(`${adminUrl}${url}`, {
        method,
        headers,
        ...(body !== undefined && { body }),
      });
      const listed = await answer.text();
      if (method === 'GET') {
        app.intercept = undefined;
        expect(await cli('sync', 'retry', '--all', '--reason', 'mended')).toMatchObject({ exit: 0 });
        const gone = async (): Promise<boolean> => !(await cli('sync', 'status')).stdout.includes('a-u8');
        await until('its letter is gone', gone);
      }
      response.writeHead(answer.status, { 'content-type': 'application/json' }).end(listed);
    })();
  });
  await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
  const { port } = between.address() as AddressInfo;
  const late = [
    '--config',
    config,
    '--admin',
    `http://127.0.0.1:${port}`,
    'sync',
    'retry',
    '--reason',
    'late',
  ];
  const retried = await runCli([...late, '--all']);
  expect(retried).toMatchObject({ exit: 0 });
  expect(retried.stdout).toContain('0 records are looked at again');
  await until('it is copied', () => app.records.has('a-u8'));
  await until('no letter is left', async () => !(await cli('sync', 'status')).stdout.includes('a-u8'));
  between.closeAllConnections();
  between.close();
});

describe('doctor', () => {
  test('a sound deployment has no failed check: exit 0, and no store was changed', async () => {
    const writes = legacy.writes().length + app.writes().length;
    const result = await cli('doctor', '--json');
    const failed = result.events.filter((event) => event['level'] === 'fail');
    expect(failed).toEqual([]);
    expect(result.exit).toBe(0);
    expect(legacy.writes().length + app.writes().length).toBe(writes);
  });

  test('every failure is shown with what to do, not the first: exit 1', async () => {
    const taken = await listening();
    const { port } = taken.address() as AddressInfo;
    const broken = configured('broken.json', {
      proxy: { port },
      admin: { port: 0 },
      redis: { url: 'redis://127.0.0.1:1' },
      identity: [{ header: 'x-user', from: ['0.0.0.0/0'] }],
      stores: {
        legacy: { url: 'http://127.0.0.1:1', connector: connectorFor() },
        app: { url: app.url, connector: connectorFor({}, { id: 'number' }) },
      },
    });
    const result = await runCli(['doctor', '--config', broken, '--json']);
    await new Promise((resolve) => taken.close(resolve));
    const at = (level: string): unknown[] =>
      result.events.filter((event) => event['level'] === level).map((event) => event['check']);
    expect(result.exit).toBe(1);
    expect(at('fail')).toEqual([
      'admin tokens',
      'redis',
      'stores.legacy',
      'stores.app appointment',
      'stores.app.guard',
      'proxy.port',
    ]);
    expect(at('warn')).toContain('identity[0]');
  });

  test('a configuration that does not load shows every problem: exit 1', async () => {
    const bad = configured('bad.json', { secret: 'short', partition: [], extra: 1 });
    const result = await runCli(['doctor', '--config', bad]);
    expect(result.exit).toBe(1);
    for (const key of ['secret', 'partition', 'extra']) expect(result.stdout).toContain(`config ${key}`);
  });
});

test('doctor says which variable to set, and the name of a group helps with all of it', async () => {
  const open = configured('open.json', { secret: '${NEVER_SET_SECRET}' });
  const { stdout } = await runCli(['doctor', '--config', open]);
  expect(stdout).toContain('→ export NEVER_SET_SECRET=…');
  expect(stdout).not.toContain('Correct it in');
  const help = await runCli(['help', 'sync']);
  expect(help).toMatchObject({ exit: 0 });
  expect(help.stdout).toContain('onewriter sync status');
  expect(help.stdout).toContain('onewriter sync retry');
});

describe('a role that cannot start', () => {
  test('an occupied port: exit 1 with the setting to change, and nothing left running', async () => {
    const taken = await listening();
    const { port } = taken.address() as AddressInfo;
    const occupied = configured('occupied.json', {
      dataDir: join(directory, 'other'),
      admin: { port, tokens: [{ name: 'ops', role: 'operator', token }] },
    });
    const result = await runCli(['up', '--config', occupied]);
    await new Promise((resolve) => taken.close(resolve));
    expect(result.exit).toBe(1);
    expect(result.stderr).toContain('Change admin.port');
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });

  test('a bad configuration: exit 1 with all problems', async () => {
    const bad = configured('bad-up.json', { secret: 'short', partition: [] });
    const result = await runCli(['proxy', '--config', bad]);
    expect(result.exit).toBe(1);
    expect(result.stderr).toMatch(/secret: .*\n.*partition: /s);
  });
});

test('a store that has died is named by status', async () => {
  await app.stop();
  const { stdout } = await cli('status');
  expect(stdout).toMatch(/app +UNREACHABLE: http:\S+ cannot be reached \(ECONNREFUSED\)/);
});

function listening(): Promise<Server> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1', () => resolve(server));
  });
}
