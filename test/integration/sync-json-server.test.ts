/** json-server as the platform: integer ids, Link headers, hard deletes, no versions. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { startSyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

interface Platform {
  readonly url: string;
  stop(): Promise<void>;
}

let server: TestRedis;
let platform: Platform;

beforeAll(async () => {
  server = await startRedis();
  platform = await startJsonServer();
});
afterAll(async () => {
  await platform.stop();
  await server.stop();
});

async function startJsonServer(): Promise<Platform> {
  const directory = await mkdtemp(join(tmpdir(), 'onewriter-json-server-'));
  const file = join(directory, 'db.json');
  const appointments = Array.from({ length: 7 }, (_, at) => ({
    ...{ id: at + 1, owner_id: at < 4 ? 'ann' : 'bob', title: `t${at}` },
  }));
  await writeFile(file, JSON.stringify({ appointments }));
  const port = await new Promise<number>((resolve) => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port: free } = probe.address() as AddressInfo;
      probe.close(() => resolve(free));
    });
  });
  const script = join(process.cwd(), 'node_modules/json-server/lib/cli/bin.js');
  const options = ['--host', '127.0.0.1', '--port', String(port), '--quiet'];
  const child = spawn(process.execPath, [script, file, ...options], { cwd: directory, stdio: 'ignore' });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = `http://127.0.0.1:${port}`;
  await until('json-server answers', () =>
    fetch(`${url}/appointments/1`).then(
      (answer) => answer.ok,
      () => false,
    ),
  );
  return {
    url,
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

test('records of json-server are copied with their integer ids, and follow changes and deletes', async () => {
  const rig = await startSyncRig(server, {
    legacyUrl: platform.url,
    legacyConnector: {
      records: {
        appointment: {
          list: {
            path: '/appointments',
            query: { owner_id: '{partition}', _page: '{page}', _limit: '2' },
            paging: 'link',
          },
          get: { path: '/appointments/{id}' },
          id: 'id',
          partition: 'owner_id',
        },
      },
    },
  });
  try {
    await rig.sync.startWorkers();
    await until('all are copied', () => rig.app.records.size === 7);
    expect(rig.app.records.get('1')).toEqual({ id: 1, owner_id: 'ann', title: 't0' });
    await fetch(`${platform.url}/appointments/2`, { method: 'DELETE' });
    await fetch(`${platform.url}/appointments/3`, {
      method: 'PATCH',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ title: 'changed' }),
    });
    await until('the delete arrives', () => !rig.app.records.has('2'));
    await until('the change arrives', () => rig.app.records.get('3')?.['title'] === 'changed');
    await rig.order('ann', { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 });
    const proof = await rig.sync.desk.catchUp('ann', 'a', new AbortController().signal);
    expect(proof).toMatchObject({ recordsCompared: 3, recordsCopied: 0, passes: 1 });
  } finally {
    await rig.stop();
  }
});
