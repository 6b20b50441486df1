import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { checkRedis } from '../../src/cli/doctor/redis.ts';
import { connectRedis, keys } from '../../src/ledger/connection.ts';
import { attachEmbeddedRedis, type EmbeddedRedis, startEmbeddedRedis } from '../../src/ledger/embedded.ts';
import { durabilityGaps } from '../../src/ledger/durability.ts';
import { loadedWith } from '../support/config.ts';

const directories: string[] = [];
let running: EmbeddedRedis | undefined;

function dataDir(): string {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-embedded-'));
  directories.push(directory);
  return directory;
}

afterEach(async () => {
  await running?.stop();
  running = undefined;
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

test('the embedded Redis is durable, has no port, and keeps its data over a restart', async () => {
  const directory = dataDir();
  running = await startEmbeddedRedis(directory, process.env);
  const redis = await connectRedis(running.address);
  expect(await durabilityGaps(redis, 0)).toEqual([]);
  expect(await redis.config('GET', 'port')).toEqual(['port', '0']);
  await redis.set('kept', 'yes');
  redis.disconnect();
  await running.stop();
  running = await startEmbeddedRedis(directory, process.env);
  const again = await connectRedis(running.address);
  expect(await again.get('kept')).toBe('yes');
  again.disconnect();
});

test('another process attaches to the one that runs, and is refused where none does', async () => {
  const directory = dataDir();
  await expect(attachEmbeddedRedis(directory)).rejects.toThrow('Start "onewriter up"');
  running = await startEmbeddedRedis(directory, process.env);
  expect(await attachEmbeddedRedis(directory)).toEqual(running.address);
});

test('doctor looks into the one that runs, and says when its ledger has lost data', async () => {
  const directory = dataDir();
  const { config } = loadedWith({ dataDir: directory, 'redis.url': 'embedded' });
  const ledger = async () =>
    (await checkRedis(config, process.env)).filter(({ check }) => check === 'ledger');
  expect(await ledger()).toEqual([]);
  running = await startEmbeddedRedis(directory, process.env);
  expect(await ledger()).toEqual([]);
  const redis = await connectRedis(running.address);
  await redis.hset(keys.meta, 'regressed', 'version 7 is missing', 'regressedAtMs', '1', 'regressedBy', '');
  redis.disconnect();
  expect(await ledger()).toMatchObject([
    { level: 'fail', detail: expect.stringContaining('version 7 is missing') as unknown },
  ]);
});

test('a path too long for a socket is no obstacle', async () => {
  running = await startEmbeddedRedis(join(dataDir(), 'x'.repeat(120)), process.env);
  const redis = await connectRedis(running.address);
  expect(await redis.ping()).toBe('PONG');
  redis.disconnect();
});

test.each(['/proc/onewriter/data', '/dev/null/data'])(
  '%s, which cannot be made, is refused in a sentence',
  async (path) => {
    await expect(startEmbeddedRedis(path, process.env)).rejects.toThrow('Set dataDir to a place');
  },
);

test('without a binary it says how to install one', async () => {
  await expect(startEmbeddedRedis(dataDir(), { PATH: '/nowhere' })).rejects.toThrow(
    /apt-get install redis-server.*brew install redis.*docker run/,
  );
});

test('its unexpected end is told', async () => {
  running = await startEmbeddedRedis(dataDir(), process.env);
  const redis = await connectRedis(running.address);
  const { died } = running;
  await redis.call('SHUTDOWN', 'NOSAVE').catch(() => undefined);
  redis.disconnect();
  expect((await died).message).toContain('embedded Redis ended');
});
