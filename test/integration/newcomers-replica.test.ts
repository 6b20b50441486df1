/** Who is new and who is old, on a ledger whose replica hangs: nothing is built on what a failover could lose. */
import { Redis } from 'ioredis';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const rules = { hash: 'same', newPartitions: 'app' } as const;

let master: TestRedis;
let replica: TestRedis;
let rig: TestLedger;

beforeEach(async () => {
  // A master waits seconds for further replicas before it serves the first.
  const atOnce = ['--repl-diskless-sync-delay', '0'];
  master = await startRedis({ args: atOnce });
  replica = await startRedis({ args: [...atOnce, '--replicaof', '127.0.0.1', String(master.port)] });
  const asked = new Redis(master.url);
  await until('the replica is in step', async () =>
    (await asked.info('replication')).includes('state=online'),
  );
  asked.disconnect();
  rig = await openLedger(master, { minReplicas: 1 });
});
afterEach(async () => {
  process.kill(replica.pid, 'SIGCONT');
  await rig.close();
  await replica.stop();
  await master.stop();
});

test('an entry of the registry that the replica has not got yet makes nobody at home', async () => {
  await rig.ledger.activateRules(undefined, rules, 'm', 'first');
  await rig.registry.declareComplete('ops');
  expect(await rig.ledger.claim('ann', rules, 'm')).toMatchObject({ result: 'claimed' });
  process.kill(replica.pid, 'SIGSTOP');
  await rig.registry.note([{ partition: 'old' }]);
  await expect(rig.ledger.claim('old', rules, 'm')).rejects.toThrow('fewer than 1 replicas');
  await expect(rig.ledger.claim('bob', rules, 'm')).rejects.toThrow('fewer than 1 replicas');
  process.kill(replica.pid, 'SIGCONT');
  expect(await rig.ledger.claim('old', rules, 'm')).toEqual({ result: 'at-home', sealed: false });
  expect(await rig.ledger.claim('bob', rules, 'm')).toMatchObject({ result: 'touched' });
});

test('a member does not leave while the replica has not got whom it let write', async () => {
  const member = await rig.join();
  await until('it admits', () => member.admit('ann').verdict === 'admit');
  process.kill(replica.pid, 'SIGSTOP');
  member.notice('ann');
  await member.leave(10);
  expect((await rig.ledger.members()).map(({ id }) => id)).toEqual([member.id]);
});
