/** Whom a change of partition waits for, and what it must know before it tells anybody of its fences. */
import { afterEach, expect, test } from '@jest/globals';
import type { DirectoryRefusal, DirectoryReport } from '../../src/core/homes.ts';
import type { MemberRecord } from '../../src/core/ports.ts';
import { DirectoryMoves } from '../../src/handoff/directory.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { RedisDirectory } from '../../src/ledger/directory.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const servers: TestRedis[] = [];
const rigs: TestLedger[] = [];
/** What the guard was told. */
let advanced: string[] = [];
/** How often it was looked who is listed. */
let looks = 0;

afterEach(async () => {
  advanced = [];
  looks = 0;
  for (const rig of rigs.splice(0)) await rig.close();
  for (const server of servers.splice(0)) await server.stop();
});

async function start(...args: string[]): Promise<TestRedis> {
  // A master waits seconds for further replicas before it serves the first.
  const server = await startRedis({ args: ['--repl-diskless-sync-delay', '0', ...args] });
  servers.push(server);
  return server;
}

async function open(minReplicas = 0): Promise<{
  readonly rig: TestLedger;
  readonly watch: MemberWatch;
  readonly replica: TestRedis | undefined;
  readonly set: (user: string, partition: string) => Promise<DirectoryReport | DirectoryRefusal>;
}> {
  const master = await start();
  const replica =
    minReplicas === 0 ? undefined : await start('--replicaof', '127.0.0.1', String(master.port));
  const rig = await openLedger(master, { minReplicas });
  rigs.push(rig);
  if (replica !== undefined) {
    await until('the replica is in step', () => rig.ledger.confirmDurable(), 20_000);
  }
  const { ledger, feed, registry, redis } = rig;
  const watch = new MemberWatch(ledger, 1_000, () => undefined);
  const moves = new DirectoryMoves({
    ...{ ledger, feed, registry, log: () => undefined },
    members: {
      health: () => watch.health(),
      listedSince: (sinceMs) => {
        looks += 1;
        return watch.listedSince(sinceMs);
      },
    },
    book: new RedisDirectory(redis, ledger.writes),
    guards: { advance: async (_store, { partition }) => void advanced.push(partition) },
    guarded: { legacy: true, app: true },
    settings: () => ({
      ...{ fenceMs: 60_000, drainMs: 5_000, rules: '' },
      ...({ newPartitions: 'legacy', withoutEntry: 'nowhere' } as const),
    }),
  });
  const set = (user: string, partition: string) => moves.set({ user, partition, by: 'ops', reason: 'test' });
  return { rig, watch, replica, set };
}

/** A member that is listed and says nothing: its process hangs. */
const hanging = (id: string, leaseMs: number): MemberRecord => ({
  ...{ id, host: 'here', pid: 1, sequence: 1, appliedVersion: 0, configHash: 'same', leaseMs },
  ...{ writeTimeoutMs: 60_000, settleMs: 0, inFlight: 0, inDoubt: 0 },
});

test('a guard hears of no fence that a failover can take back', async () => {
  const { rig, replica, set } = await open(1);
  await set('ann', 'org1');
  if (replica !== undefined) process.kill(replica.pid, 'SIGSTOP');
  expect(await set('ann', 'org2')).toMatchObject({
    refused: 'not-settled',
    detail: expect.stringContaining('the fence is not confirmed'),
  });
  expect(advanced).toEqual([]);
  for (const partition of ['org1', 'org2']) {
    expect((await rig.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
  }
  // Nor is an operator told that an entry stands, which it may not for long.
  expect(await set('ann', 'org1')).toMatchObject({ refused: 'not-settled' });
  if (replica !== undefined) process.kill(replica.pid, 'SIGCONT');
  await until('the replica is in step again', () => rig.ledger.confirmDurable());
  await until('it is confirmed', async () => 'partition' in (await set('ann', 'org2')));
  expect(new Set(advanced)).toEqual(new Set(['org1', 'org2']));
});

test('a member that leaves in the fence is not waited for any longer', async () => {
  const { rig, set } = await open();
  await set('ann', 'org1');
  await rig.ledger.register(hanging('m1', 60_000));
  const moved = set('ann', 'org2');
  // Before the fences, and again while it waits.
  await until('it looks who is listed', () => looks >= 2);
  expect(await rig.ledger.removeMember('m1')).toBe(true);
  expect(await moved).toMatchObject({ partition: 'org2', before: 'org1' });
});

test('nobody is paused for a member that is silent', async () => {
  const { rig, watch, set } = await open();
  await set('ann', 'org1');
  await rig.ledger.register(hanging('m1', 100));
  await until('it counts as silent', async () => {
    await watch.look();
    return watch.health().stale.length === 1;
  });
  expect(await set('ann', 'org2')).toMatchObject({
    refused: 'drain-timeout',
    detail: expect.stringContaining('no heartbeat from m1 (pid 1 on here)'),
  });
  expect((await rig.ledger.read('org1')).ownership.epoch).toBe(1);
});
