/** A ledger that lists so many partitions that reading all of them is no command like others. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { readAllPartitions } from '../../src/ledger/all-partitions.ts';
import { keys } from '../../src/ledger/connection.ts';
import { startCli } from '../support/cli.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: TestLedger;

beforeAll(async () => {
  server = await startRedis();
  rig = await openLedger(server);
});
beforeEach(async () => {
  await rig.redis.flushall();
});
afterAll(async () => {
  await rig.close();
  await server.stop();
});

const textOf = (number: number): string =>
  JSON.stringify({
    ...{ phase: 'open', owner: number % 2 === 0 ? 'app' : 'legacy', epoch: 4 },
    ...{ version: number + 1, transitionId: `t${number}`, changedAtMs: 1 },
  });

async function fill(count: number): Promise<void> {
  const numbers = Array.from({ length: count }, (_, number) => number);
  await rig.redis.hset(keys.partitions, ...numbers.flatMap((number) => [`u${number}`, textOf(number)]));
  await rig.redis.hset(keys.meta, { version: count, id: `t${count - 1}` });
}

describe('all partitions', () => {
  test('are read with the position of the same moment', async () => {
    await fill(3);
    const { position, partitions, rules } = await rig.ledger.snapshot();
    expect(position).toEqual({ version: 3, id: 't2' });
    expect(rules).toBeUndefined();
    expect(new Map(partitions)).toEqual(
      new Map([
        ['u0', { phase: 'open', owner: 'app', epoch: 4 }],
        ['u1', { phase: 'open', owner: 'legacy', epoch: 4 }],
        ['u2', { phase: 'open', owner: 'app', epoch: 4 }],
      ]),
    );
    expect(await rig.ledger.position()).toEqual(position);
  });

  test('may take longer than any other answer', async () => {
    await fill(3);
    await rig.redis.call('CLIENT', 'PAUSE', '3500', 'ALL');
    const [read, all] = await Promise.allSettled([rig.ledger.read('u0'), rig.ledger.snapshot()]);
    expect(read.status).toBe('rejected');
    expect(all).toMatchObject({ status: 'fulfilled', value: { position: { version: 3 } } });
  });

  test('are read a few at a time, and others have their turn in between', async () => {
    await fill(20_000);
    let turn = 0;
    let going = true;
    const next = (): void => {
      turn += 1;
      if (going) setImmediate(next);
    };
    next();
    const turns = new Map<number, number>();
    await readAllPartitions(rig.redis, () => turns.set(turn, (turns.get(turn) ?? 0) + 1));
    going = false;
    expect(Math.max(...turns.values())).toBeLessThanOrEqual(1_000);
    expect([...turns.values()].reduce((sum, read) => sum + read, 0)).toBe(20_000);
  });

  test('that are alike share one object each, so that a million of them need little memory', async () => {
    await fill(1_000);
    const { partitions } = await rig.ledger.snapshot();
    expect(new Set([...partitions].map(([, ownership]) => ownership)).size).toBe(2);
  });
});

test('a proxy that cannot read the ledger says so and ends', async () => {
  await rig.redis.hset(keys.partitions, 'u1', 'no record');
  const directory = await mkdtemp(join(tmpdir(), 'onewriter-large-'));
  let stop: () => void = () => undefined;
  try {
    const config = join(directory, 'config.json');
    const stores = { legacy: { url: 'http://127.0.0.1:9' }, app: { url: 'http://127.0.0.1:10' } };
    await writeFile(
      config,
      JSON.stringify({
        ...{ secret: 'a-secret-of-this-test', proxy: { port: 0 }, dataDir: directory, stores },
        ...{ redis: { url: server.url }, identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }] },
      }),
    );
    const proxy = startCli(['proxy', '--config', config]);
    stop = () => proxy.child.kill('SIGKILL');
    await until('the process has ended', () => proxy.child.exitCode !== null, 20_000);
    const { exit, stderr } = await proxy.ended;
    expect(exit).toBe(1);
    expect(stderr).toContain('could not start');
  } finally {
    stop();
    await rm(directory, { recursive: true });
  }
});
