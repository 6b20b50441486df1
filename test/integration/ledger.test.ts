/** The ledger's own rules, on a real Redis: what it refuses after it lost data, and who may change the rules. */
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { MemberRecord } from '../../src/core/ports.ts';
import type { RedisLedger } from '../../src/ledger/ledger.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: TestLedger;
let ledger: RedisLedger;
let raw: Redis;

const record = (id: string, hash = 'same'): MemberRecord => ({
  ...{ id, host: 'here', pid: 1, sequence: 0, appliedVersion: 0, configHash: hash, leaseMs: 1_000 },
  ...{ writeTimeoutMs: 500, settleMs: 0, inFlight: 0, inDoubt: 0 },
});
const start = { version: 0, id: '' };

beforeEach(async () => {
  server = await startRedis();
  rig = await openLedger(server);
  ({ ledger } = rig);
  raw = new Redis(server.url);
});
afterEach(async () => {
  raw.disconnect();
  await rig.close();
  await server.stop();
});

async function fence(partition: string, attempt = 'a', fenceMs = 60_000) {
  const order = { kind: 'fence', to: 'app', attempt, fenceMs } as const;
  const result = await ledger.order({ partition, order, by: 'test', reason: 'test' });
  if (result.result !== 'done') throw new Error(JSON.stringify(result));
  return { version: result.record.version, id: result.record.transitionId };
}

describe('a ledger that went back', () => {
  test('behind what was confirmed refuses heartbeats and every transition from then on (I5)', async () => {
    await ledger.register(record('m'));
    const confirmed = await fence('u');
    await raw.del('{onewriter}:meta', '{onewriter}:partitions');
    await raw.del('{onewriter}:changes');
    const answer = await ledger.heartbeat(record('m'), { confirmed, applied: confirmed });
    expect(answer).toMatchObject({ answer: 'ledger-regressed' });
    await ledger.register(record('n'));
    expect(await ledger.heartbeat(record('n'), { confirmed: start, applied: start })).toEqual(answer);
    const order = { kind: 'fence', to: 'app', attempt: 'b', fenceMs: 1_000 } as const;
    const refused = await ledger.order({ partition: 'v', order, by: 'test', reason: 'test' });
    expect(refused).toMatchObject({ result: 'refused', refusal: { refused: 'ledger-regressed' } });
    expect(await ledger.claim('w', { hash: 'same', newPartitions: 'app' }, 'test')).toMatchObject({
      result: 'refused',
    });
  });

  test('to the same version with another change is told by the random id', async () => {
    await ledger.register(record('m'));
    await fence('u');
    const other = { version: 1, id: 'another' };
    expect(await ledger.heartbeat(record('m'), { confirmed: other, applied: other })).toMatchObject({
      answer: 'ledger-regressed',
    });
  });

  test('only behind what was never confirmed asks the member to load a snapshot, and nothing more', async () => {
    await ledger.register(record('m'));
    const confirmed = await fence('u');
    const lost = { version: 2, id: 'lost-in-a-failover' };
    expect(await ledger.heartbeat(record('m'), { confirmed, applied: lost })).toEqual({
      answer: 'view-ahead',
    });
    await fence('v');
    expect(await ledger.heartbeat(record('m'), { confirmed, applied: lost })).toEqual({
      answer: 'view-ahead',
    });
    const now = (await ledger.snapshot()).position;
    expect(await ledger.heartbeat(record('m'), { confirmed, applied: now })).toEqual({
      answer: 'ok',
      version: 2,
    });
  });
});

describe('an entry that this version cannot read', () => {
  test('is passed by, and a member that follows learns from a snapshot what it did', async () => {
    const member = await rig.join();
    await until('it admits', () => member.admit('v').verdict === 'admit');
    const { version } = (await ledger.snapshot()).position;
    await raw.hset('{onewriter}:meta', { version: version + 1, id: 'novel' });
    const entry = ['kind', 'of a version to come', 'previous', '', 'id', 'novel', 'by', 'x', 'reason', 'x'];
    await raw.xadd('{onewriter}:changes', `${version + 1}-0`, ...entry);
    await fence('u');
    await until('it knows of the fence behind it', () => member.ownershipOf('u').phase === 'fenced');
  });

  test('takes nothing from the entries that come with it', async () => {
    const heard: string[] = [];
    rig.feed.onAcknowledgement(() => {
      throw new Error('a listener with a fault');
    });
    rig.feed.onAcknowledgement(({ attempt }) => heard.push(attempt));
    const good = { member: 'm', partition: 'u', attempt: 'good', epoch: 2, answer: 'drained' };
    const json = JSON.stringify({ ...good, lastWriteAgeMs: 0, settlesInMs: 0 });
    const stream = '{onewriter}:acknowledgements';
    await raw.multi().xadd(stream, '*', 'json', 'no json').xadd(stream, '*', 'json', json).exec();
    await until('the good one is heard', () => heard.includes('good'));
  });

  test('and behind which nothing comes is made up for by the heartbeat: the lease goes on', async () => {
    const member = await rig.join({ leaseMs: 900 });
    await until('it admits', () => member.admit('v').verdict === 'admit');
    const { version } = (await ledger.snapshot()).position;
    await raw.hset('{onewriter}:meta', { version: version + 1, id: 'novel' });
    await raw.xadd('{onewriter}:changes', `${version + 1}-0`, 'kind', 'of a version to come');
    await until('its view is complete', () => member.holding().position.version === version + 1);
    await until('it admits again', () => member.admit('w').verdict === 'admit');
  });
});

describe('the rules', () => {
  const mine = { hash: 'mine', newPartitions: 'legacy' } as const;

  test('are switched only when every listed member runs the new ones', async () => {
    expect(await ledger.activateRules(undefined, mine, 'm', 'first')).toMatchObject({ result: 'done' });
    await ledger.register(record('m', 'mine'));
    const next = { hash: 'next', newPartitions: 'legacy' } as const;
    await ledger.register(record('n', 'next'));
    expect(await ledger.activateRules(mine, next, 'n', 'new')).toEqual({
      result: 'refused',
      detail: 'members-differ: m',
    });
    await ledger.removeMember('m');
    expect(await ledger.activateRules(mine, next, 'n', 'new')).toMatchObject({ result: 'done' });
    expect((await ledger.snapshot()).rules).toEqual(next);
    expect(await ledger.activateRules(mine, next, 'n', 'new')).toMatchObject({ result: 'refused' });
  });

  test('of a second process are refused while the first runs others, and take over when it has left', async () => {
    const first = await rig.join();
    await until('the first admits', () => first.admit('u').verdict === 'admit');
    const second = await rig.join({ rulesHash: 'next' });
    await until('the second knows', () => second.trouble()?.startsWith('rules-not-active'));
    expect(second.admit('u')).toEqual({ verdict: 'hold', because: 'rules-not-active' });
    await first.stop();
    await ledger.removeMember(first.id);
    await until('the second admits', () => second.admit('v').verdict === 'admit');
  });
});

describe('a claim', () => {
  const rules = { hash: 'same', newPartitions: 'app' } as const;

  test('needs the active rules, a complete registry, and a partition that nobody knows', async () => {
    expect(await ledger.claim('u', rules, 'm')).toEqual({ result: 'refused', detail: 'rules-changed' });
    await ledger.activateRules(undefined, rules, 'm', 'first');
    expect(await ledger.claim('u', rules, 'm', 'ask')).toEqual({ result: 'taken-for-old', sealed: false });
    await rig.registry.note([{ partition: 'old' }]);
    await rig.registry.declareComplete('ops');
    expect(await ledger.claim('old', rules, 'm')).toEqual({ result: 'at-home', sealed: false });
    const claimed = await ledger.claim('u', rules, 'm');
    expect(claimed).toMatchObject({
      result: 'claimed',
      record: { ownership: { phase: 'open', owner: 'app', epoch: 2 } },
    });
    expect(await ledger.claim('u', rules, 'n')).toMatchObject({ ...claimed, result: 'touched' });
    expect((await rig.registry.all()).map(({ partition }) => partition).toSorted()).toEqual(['old', 'u']);
  });

  test('proves nothing any more once a member died that may have seen partitions', async () => {
    await ledger.activateRules(undefined, rules, 'm', 'first');
    await rig.registry.declareComplete('ops');
    await ledger.register(record('dead', 'other rules'));
    expect(await ledger.removeMember('dead', 0)).toBe(true);
    expect(await ledger.claim('u', rules, 'm')).toEqual({ result: 'taken-for-old', sealed: false });
  });
});
