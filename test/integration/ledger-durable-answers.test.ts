/**
 * Answers that somebody relies on as durable come from a script that has written. Since Redis 7.2 WAIT covers only
 * what its connection has written and Redis has sent on: behind a script that wrote nothing it answers at once,
 * whatever the replica lacks. Older versions wait all the same, so what is looked at here is the write itself.
 */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const rules = { hash: 'same', newPartitions: 'app' } as const;
const nothing = { version: 0, id: '' };
const known = { confirmed: nothing, applied: nothing };

let master: TestRedis;
let replica: TestRedis;
const rigs: TestLedger[] = [];

beforeEach(async () => {
  // A master waits seconds for further replicas before it serves the first.
  const atOnce = ['--repl-diskless-sync-delay', '0'];
  master = await startRedis({ args: atOnce });
  replica = await startRedis({ args: [...atOnce, '--replicaof', '127.0.0.1', String(master.port)] });
});
afterEach(async () => {
  for (const rig of rigs.splice(0)) await rig.close();
  await replica.stop();
  await master.stop();
});

async function open(minReplicas: number): Promise<TestLedger> {
  const rig = await openLedger(master, { minReplicas });
  rigs.push(rig);
  await until('the replica is in step', () => rig.ledger.confirmDurable(), 20_000);
  return rig;
}

const confirmOf = ({ redis }: TestLedger): Promise<string | null> =>
  redis.hget('{onewriter}:meta', 'confirm');

/** Grows with every write, also with one that changes nothing. */
async function writesOf({ redis }: TestLedger): Promise<number> {
  return Number(/^rdb_changes_since_last_save:(\d+)/m.exec(await redis.info('persistence'))?.[1]);
}

test('a process that is no member is confirmed a version only by a script that has written', async () => {
  const rig = await open(1);
  const seen = new Set<string | null>([await confirmOf(rig)]);
  for (let asked = 0; asked < 2; asked += 1) {
    expect(await rig.ledger.testify(known)).toMatchObject({ answer: 'ok' });
    seen.add(await confirmOf(rig));
  }
  expect(seen.size).toBe(3);
});

test('who only wants to know what is lost, or waits for no replica, writes nothing', async () => {
  const asking = await open(1);
  const alone = await open(0);
  const before = await writesOf(alone);
  expect(await asking.ledger.lost(known)).toBeUndefined();
  expect(await alone.ledger.testify(known)).toMatchObject({ answer: 'ok' });
  expect(await writesOf(alone)).toBe(before);
});

test('whoever asks is told that a partition is at home only by a script that has written', async () => {
  const rig = await open(1);
  await rig.ledger.activateRules(undefined, rules, 'm', 'first');
  await rig.registry.note([{ partition: 'old', attributes: { seats: 5 } }]);
  await rig.registry.declareComplete('ops');
  for (const step of ['ask', 'seal', 'claim'] as const) {
    const before = await writesOf(rig);
    expect(await rig.ledger.claim('old', rules, 'm', step)).toEqual({ result: 'at-home', sealed: false });
    expect(await writesOf(rig)).toBe(before + 1);
  }
  expect(await rig.registry.all()).toEqual([{ partition: 'old', attributes: { seats: 5 } }]);
});
