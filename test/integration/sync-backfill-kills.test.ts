/** A first copy whose worker is killed again and again, with every part a process of its own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type CopyRig, differencesBetween, ended, startCopyRig } from '../../bench/copy-rig.ts';
import type { Redis } from 'ioredis';
import { connectRedis } from '../../src/ledger/connection.ts';
import { BackfillStates } from '../../src/sync/backfill-state.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const records = 50_000;
const kills = 10;
let server: TestRedis;
let redis: Redis;
let rig: CopyRig;
const directory = mkdtempSync(join(tmpdir(), 'onewriter-kills-'));

beforeAll(async () => {
  server = await startRedis();
  redis = await connectRedis({ url: server.url });
  rig = await startCopyRig({ directory, redisUrl: server.url, records, partitions: 500, bulkMax: 100 });
}, 30_000);
afterAll(async () => {
  await rig.stop();
  redis.disconnect();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

test('ten times SIGKILL on the way, and a source that changes: the copy is complete and equal', async () => {
  const states = new BackfillStates(redis);
  const state = async () => (await states.all()).get('legacy record');
  const done = async (): Promise<number> => (await state())?.records ?? 0;
  const change = (id: string, body?: object) =>
    fetch(`${rig.legacy}/records/${id}`, {
      method: body === undefined ? 'DELETE' : 'PUT',
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  const places: number[] = [];
  for (let kill = 0; kill < kills; kill += 1) {
    const worker = await rig.startWorker();
    const from = await done();
    const goesOn = async (): Promise<boolean> => {
      if (worker.exitCode !== null) throw new Error(`a worker ended by itself: ${rig.complaints()}`);
      return (await done()) > Math.max(from, kill * 4_000);
    };
    await until('it goes on', goesOn, 120_000).catch((error: unknown) => {
      throw new Error(`${String(error)}; the workers said: ${rig.complaints()}`, { cause: error });
    });
    worker.kill('SIGKILL');
    await ended(worker);
    places.push(await done());
    expect((await state())?.endedMs).toBeUndefined();
    // Some of it lies behind the place where it stands, some before.
    const id = 1 + 4_999 * kill;
    await change(`r${id}`, { id: `r${id}`, owner: `user-${id % 500}`, title: 'changed' });
    await change(`r${id + 1}`, { id: `r${id + 1}`, owner: 'user-0', title: 'moved' });
    await change(`r${id + 2}`);
    await change(`n${id}`, { id: `n${id}`, owner: 'user-1', title: 'new' });
  }
  expect(places).toEqual(places.toSorted((left, right) => left - right));
  await rig.startWorker();
  await until('it has ended', async () => (await state())?.endedMs !== undefined, 120_000);
  expect((await state())?.phase).toBe('done');
  let found = await differencesBetween(rig.legacy, rig.app);
  await until(
    'the full pass has mended what changed',
    async () => {
      if ((await redis.hexists(syncKeys.progress, 'reached')) === 0) return false;
      if ((await redis.zcard(syncKeys.dirty)) > 0) return false;
      found = await differencesBetween(rig.legacy, rig.app);
      return found.missing.length + found.different.length + found.extra.length === 0;
    },
    120_000,
  );
  expect(found).toEqual({ compared: records, missing: [], different: [], extra: [] });
}, 600_000);
