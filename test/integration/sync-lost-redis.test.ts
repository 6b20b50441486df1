/** Redis loses everything while the copies are made: what is found again, and what nobody may copy meanwhile. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { request } from 'undici';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type Running, startRole } from '../../src/compose.ts';
import { loadConfig } from '../../src/config/load.ts';
import { Backlog, recordQueueName } from '../../src/sync/backlog.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { queueOptions } from '../../src/sync/worker.ts';
import { runCli } from '../support/cli.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { connectorFor, startRestStore, type TestRestStore } from '../support/rest-store.ts';
import { appointment, startSyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

const token = 'admin-token-1';
const servers: TestRedis[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});
async function redisServer(start: Parameters<typeof startRedis>[0] = {}): Promise<TestRedis> {
  const server = await startRedis(start);
  servers.push(server);
  return server;
}

describe('Redis that loses everything while the sync works', () => {
  const losses: [what: string, lose: (server: TestRedis) => Promise<void>][] = [
    [
      'by FLUSHALL',
      async (server) => {
        const redis = new Redis(server.url);
        await redis.flushall();
        redis.disconnect();
      },
    ],
    [
      'by a restart without its files',
      async (server) => {
        await server.kill();
        await redisServer({ port: server.port });
      },
    ],
  ];
  let running: Running | undefined;
  let stores: TestRestStore[] = [];
  let directory = '';
  afterEach(async () => {
    await running?.stop();
    await Promise.all(stores.map((store) => store.stop()));
    rmSync(directory, { recursive: true, force: true });
  });

  async function start(server: TestRedis, legacy: TestRestStore, app: TestRestStore): Promise<Running> {
    directory = mkdtempSync(join(tmpdir(), 'onewriter-lost-'));
    const path = join(directory, 'onewriter.json');
    const config = {
      ...{ proxy: { port: 0 }, admin: { port: 0, tokens: [{ name: 'anna', role: 'admin', token }] } },
      ...{ redis: { url: server.url }, dataDir: join(directory, 'data'), ledger: { leaseMs: 900 } },
      secret: 'a-secret-of-the-loss-tests',
      stores: {
        legacy: { url: legacy.url, settleMs: 0, writeTimeoutMs: 500, connector: connectorFor() },
        app: { url: app.url, guard: false, writeTimeoutMs: 500, connector: connectorFor() },
      },
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
      cohorts: { pilot: { partitions: ['u1'] } },
      sync: { pollMs: 50 },
    };
    writeFileSync(path, JSON.stringify(config));
    const loaded = loadConfig({ path, env: {} });
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
    const role = { config: loaded.config, configHash: loaded.hash, env: process.env, log: () => undefined };
    running = await startRole('up', role);
    return running;
  }

  test.each(losses)(
    '%s: nothing is copied where users have moved, and all else is found again',
    async (_, lose) => {
      const server = await redisServer();
      const mine = Array.from({ length: 5 }, (__, at) => appointment(`mine-${at}`, 'u1'));
      const others = Array.from({ length: 60 }, (__, at) => appointment(`other-${at}`, `u${2 + (at % 6)}`));
      const legacy = await startRestStore({ records: [...mine, ...others] });
      const app = await startRestStore();
      stores = [legacy, app];
      const { addresses } = await start(server, legacy, app);
      const cli = (...argv: string[]) =>
        runCli(['--admin', addresses['admin'] ?? '', '--token', token, ...argv]);
      const flipped = await cli('flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'test', '--yes');
      expect(flipped.exit).toBe(0);
      await until('the first copies', () => app.records.size === 65, 20_000);
      // Where u1 is written now; the old owner still holds what was there before, and a stray besides.
      for (const { id } of mine) app.set(appointment(id, 'u1', 'written in the app'));
      legacy.set(appointment('mine-0', 'u1', 'a stray'));
      const since = app.calls.length;
      let changes = 0;
      const stopped = new AbortController();
      const users = (async () => {
        while (!stopped.signal.aborted) {
          for (let at = 0; at < 5; at += 1) {
            const id = `other-${(changes += 1) % 60}`;
            const owner = others[changes % 60]?.owner_id ?? '';
            if (changes % 7 === 0) legacy.remove(id);
            else legacy.set(appointment(id, owner, `change ${changes}`));
          }
          const copied = app.writes().length;
          await until('copies go on', () => app.writes().length > copied || changes > 300, 200).catch(
            () => undefined,
          );
        }
      })();
      await until('it is busy', () => changes > 30);
      await lose(server);
      const health = async () => {
        const { body } = await request(`${addresses['proxy']}/.well-known/onewriter/health`);
        return body.text();
      };
      await until('it is noticed', async () => (await health()).includes('ledger-regressed'), 20_000);
      // A job from before, or from a process that has heard less than this one, which filters its own.
      const queue = new Queue(recordQueueName, { connection: { url: server.url }, ...queueOptions });
      const jobs = await queue.addBulk(
        [
          { kind: 'appointment', id: 'mine-0' },
          { kind: '', id: '' },
        ].map((key) => ({ name: 'look', data: { partition: 'u1', ...key, epoch: 0 } })),
      );
      for (const job of jobs) {
        await until('it was looked at', async () => (await job.getState()) !== 'waiting');
      }
      await queue.close();
      const looked = legacy.calls.length;
      await until('polls go on', () => legacy.calls.length > looked + 20, 20_000);
      stopped.abort();
      await users;
      const restored = await cli('ledger', 'restore', '--from', 'member', '--reason', 'lost', '--yes');
      expect(restored.stdout).toContain('Restored: 1 to app');
      const titles = (store: TestRestStore) =>
        [...store.records.values()]
          .filter((record) => record['owner_id'] !== 'u1')
          .map((record) => JSON.stringify([record['id'], record['title']]))
          .toSorted();
      await until('all is found again', () => titles(app).join() === titles(legacy).join(), 30_000);
      const astray = app.calls
        .slice(since)
        .filter(({ method, path }) => method !== 'GET' && path.includes('mine'));
      expect(astray).toEqual([]);
      expect(mine.map(({ id }) => app.records.get(id)?.['title'])).toEqual(
        Array(5).fill('written in the app'),
      );
      expect(legacy.writes()).toEqual([]);
    },
    90_000,
  );
});

describe('what Redis keeps for the sync', () => {
  const usedBytes = async (redis: Redis): Promise<number> =>
    Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1]);

  test('does not grow with the number of rings: 100,000 for 1,000 records', async () => {
    const rig = await startSyncRig(await redisServer());
    try {
      const keys = Array.from({ length: 1_000 }, (_, at) => ({
        ...{ partition: `user-${at % 250}`, kind: 'appointment', id: `r${at}` },
      }));
      const last = JSON.stringify(['user-249', 'appointment', 'r999']);
      const ringAll = async (): Promise<void> => {
        const nowMs = await rig.ledger.nowMs();
        for (const key of keys) rig.sync.doorbell.ring(key);
        await until(
          'the last is rung',
          async () => Number(await rig.redis.zscore(syncKeys.dirty, last)) >= nowMs,
        );
      };
      const before = await usedBytes(rig.redis);
      await ringAll();
      const once = await usedBytes(rig.redis);
      for (let time = 1; time < 100; time += 1) await ringAll();
      const often = await usedBytes(rig.redis);
      expect(once - before).toBeLessThan(4_000_000);
      expect(often - once).toBeLessThan(1_000_000);
      const queue = new Queue(recordQueueName, { connection: rig.redis, ...queueOptions });
      expect(await queue.getWaitingCount()).toBeLessThanOrEqual(1_000);
      process.stdout.write(
        `1,000 records: ${once - before} bytes after one ring each, ${often - before} after 100\n`,
      );
      await queue.close();
    } finally {
      await rig.stop();
    }
  }, 60_000);

  test('is bounded however many records are written while nobody copies; the polls find the rest', async () => {
    const records = Array.from({ length: 60 }, (_, at) => appointment(`r${at}`, `user-${at}`));
    const rig = await startSyncRig(await redisServer(), { legacy: { records } });
    try {
      const queue = new Queue(recordQueueName, { connection: rig.redis, ...queueOptions });
      const backlog = new Backlog(rig.redis, queue, { attempts: 3, epochOf: () => 0, rungMax: 20 });
      const keys = records.map(({ id, owner_id: partition }) => ({ partition, kind: 'appointment', id }));
      for (let at = 0; at < 20; at += 5) await backlog.ringWritten(keys.slice(at, at + 5));
      await expect(backlog.ringWritten(keys.slice(20))).rejects.toThrow('20 records wait already');
      expect(await backlog.count()).toBe(20);
      await queue.close();
      await rig.sync.startWorkers();
      await until('all are copied', () => rig.app.records.size === 60);
    } finally {
      await rig.stop();
    }
  });
});
