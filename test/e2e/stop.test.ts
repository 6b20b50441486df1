/** The end of a process that was told to end, when what it stands on does not answer. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { startCli } from '../support/cli.ts';
import { startRedis } from '../support/redis.ts';
import { connectorFor, startRestStore } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

test.each([
  ['SIGSTOP', 1],
  ['SIGKILL', 1],
  ['SIGSTOP', 2],
  ['SIGKILL', 2],
] as const)(
  'up ends at the first SIGTERM although Redis had a %s, with %i processes',
  async (signal, processes) => {
    const directory = mkdtempSync(join(tmpdir(), 'onewriter-stop-'));
    const server = await startRedis();
    const [legacy, app] = [await startRestStore(), await startRestStore()];
    const times = { writeTimeoutMs: 500, settleMs: 100, connector: connectorFor() };
    const config = join(directory, 'onewriter.json');
    writeFileSync(
      config,
      JSON.stringify({
        ...{ proxy: { port: 0, processes }, admin: { port: 0 }, redis: { url: server.url } },
        ...{ dataDir: join(directory, 'data'), secret: 'a-secret-of-the-stop-tests' },
        identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
        stores: {
          legacy: { url: legacy.url, ...times },
          app: { url: app.url, guard: false, ...times },
        },
      }),
    );
    const up = startCli(['up', '--config', config]);
    await until('it listens', () => up.stdout().includes('admin'), 20_000);
    process.kill(server.pid, signal);
    up.child.kill('SIGTERM');
    expect(await up.ended).toMatchObject({ exit: 0 });
    if (signal === 'SIGSTOP') process.kill(server.pid, 'SIGCONT');
    await Promise.all([legacy.stop(), app.stop()]);
    await server.stop();
    rmSync(directory, { recursive: true });
  },
  60_000,
);
