/** The ledger on a master with a replica: what waits for the replica, and what a promotion may lose (I5). */
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { CopyDesk, GuardCalls } from '../../src/core/ports.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { attemptHandoff } from '../../src/handoff/attempt.ts';
import { LinkMemory } from '../../src/ledger/links.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { SwitchRelay } from '../support/switch-relay.ts';
import { until } from '../support/until.ts';

let master: TestRedis;
let replica: TestRedis;
let relay: SwitchRelay;
let toReplica: Redis;
const rigs: TestLedger[] = [];
const servers: TestRedis[] = [];

/** A master waits seconds for further replicas before it serves the first. */
const atOnce = ['--repl-diskless-sync-delay', '0'];

beforeEach(async () => {
  master = await startRedis({ args: atOnce });
  replica = await replicaOf(master);
  servers.push(master);
  relay = await SwitchRelay.open(master.port);
  toReplica = new Redis(replica.url);
});
afterEach(async () => {
  process.kill(replica.pid, 'SIGCONT');
  for (const rig of rigs.splice(0)) await rig.close();
  toReplica.disconnect();
  await relay.close();
  for (const server of servers.splice(0)) await server.stop();
});

async function replicaOf(server: TestRedis): Promise<TestRedis> {
  const started = await startRedis({
    args: [...atOnce, '--replicaof', '127.0.0.1', String(server.port)],
  });
  servers.push(started);
  const asked = new Redis(server.url);
  await until('the replica is in step', async () => {
    const online = (await asked.info('replication')).includes('state=online');
    // WAIT is for what this connection has written.
    await asked.set('in-step', '1');
    return online && (await asked.wait(1, 500)) === 1;
  });
  asked.disconnect();
  return started;
}

async function open(minReplicas: number): Promise<TestLedger> {
  const rig = await openLedger(relay, { minReplicas });
  rigs.push(rig);
  return rig;
}

async function order(rig: TestLedger, partition: string, kind: 'fence' | 'commit' | 'release') {
  const orders = {
    fence: { kind: 'fence', to: 'app', attempt: partition, fenceMs: 60_000 },
    commit: { kind: 'commit', attempt: partition },
    release: { kind: 'release', attempt: partition },
  } as const;
  const result = await rig.ledger.order({ partition, order: orders[kind], by: 'test', reason: 'test' });
  if (result.result !== 'done') throw new Error(JSON.stringify(result));
  return result;
}

async function flip(rig: TestLedger, partition: string): Promise<void> {
  for (const kind of ['fence', 'commit', 'release'] as const) await order(rig, partition, kind);
}

/** The replica stops following and knows nothing of what comes. */
async function loseTouch(): Promise<void> {
  await toReplica.replicaof('NO', 'ONE');
}

/** The master is gone for good, and the replica takes its place with a replica of its own. */
async function promote(): Promise<void> {
  await master.kill();
  await toReplica.replicaof('NO', 'ONE');
  await replicaOf(replica);
  relay.switchTo(replica.port);
}

/** These flips wait for no acknowledgement, so the member may still be behind. */
function seen(member: Membership, partition: string): Promise<unknown> {
  return until('the member saw the flip', () => member.ownershipOf(partition).epoch === 4);
}

function ownerWhenAdmitted(member: Membership, partition: string): Promise<string> {
  return until(`${partition} is admitted`, () => {
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') return false;
    member.end(admission.ticket, 'ended');
    return admission.ticket.owner;
  });
}

describe('while the replica hangs', () => {
  test('a release is not admitted under before the replica has it', async () => {
    const rig = await open(1);
    const member = await rig.join({ leaseMs: 20_000 });
    await order(rig, 'u', 'fence');
    await order(rig, 'u', 'commit');
    process.kill(replica.pid, 'SIGSTOP');
    const released = await order(rig, 'u', 'release');
    expect(released).toMatchObject({ durable: false });
    await until('the member saw it', () => member.ownershipOf('u').phase === 'open');
    expect(member.admit('u')).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    // Others are admitted under the lease as before: nothing about them has changed.
    expect(await ownerWhenAdmitted(member, 'v')).toBe('legacy');
    expect(member.admit('u')).toEqual({ verdict: 'hold', because: 'not-yet-durable' });
    process.kill(replica.pid, 'SIGCONT');
    expect(await ownerWhenAdmitted(member, 'u')).toBe('app');
  });

  test('a commit is not released before the replica has it, and then the handoff goes on', async () => {
    const rig = await open(1);
    const member = await rig.join({ leaseMs: 20_000 });
    const copies: Pick<CopyDesk, 'catchUp'> = {
      catchUp: async () => {
        process.kill(replica.pid, 'SIGSTOP');
        return { recordsCompared: 1, recordsCopied: 0, passes: 1 };
      },
    };
    const settings = {
      drainMs: 2_000,
      fenceMs: 5_000,
      feedDelayMs: 0,
      guarded: { legacy: false, app: false },
    };
    const members = new MemberWatch(rig.ledger, 20_000, () => undefined);
    const parts = { ledger: rig.ledger, feed: rig.feed, members, settings, copies: copies as CopyDesk };
    const stop = new AbortController().signal;
    const moving = attemptHandoff(
      { ...parts, guards: {} as GuardCalls },
      { partition: 'u', from: 'legacy', by: 'test', reason: 'test', stop },
    );
    await until('it is committed', () => member.ownershipOf('u').phase === 'committed');
    expect(await rig.ledger.confirmDurable()).toBe(false);
    expect((await rig.ledger.read('u')).ownership.phase).toBe('committed');
    expect(member.admit('u')).toEqual({ verdict: 'hold', because: 'committed' });
    process.kill(replica.pid, 'SIGCONT');
    expect(await moving).toMatchObject({ outcome: 'moved' });
    expect(await ownerWhenAdmitted(member, 'u')).toBe('app');
  });

  test('no guard and no copy hears of a fence that a failover could take back', async () => {
    const rig = await open(1);
    await rig.join({ leaseMs: 20_000 });
    const done: string[] = [];
    const guards = { advance: async () => void done.push('advance') } as unknown as GuardCalls;
    const copies = { catchUp: async () => done.push('catch-up') } as unknown as CopyDesk;
    const members = new MemberWatch(rig.ledger, 20_000, () => undefined);
    const guarded = { legacy: false, app: true };
    const settings = { drainMs: 3_000, fenceMs: 6_000, feedDelayMs: 0, guarded };
    process.kill(replica.pid, 'SIGSTOP');
    const report = await attemptHandoff(
      { ledger: rig.ledger, feed: rig.feed, members, settings, copies, guards },
      { partition: 'u', from: 'legacy', by: 'test', reason: 'test', stop: new AbortController().signal },
    );
    process.kill(replica.pid, 'SIGCONT');
    expect(report).toMatchObject({ outcome: 'aborted', detail: expect.stringContaining('replicas') });
    expect(done).toEqual([]);
  });

  test('a process that cannot enter durably leaves no member behind that a handoff would wait for', async () => {
    const rig = await open(1);
    process.kill(replica.pid, 'SIGSTOP');
    await expect(rig.join()).rejects.toThrow('replicas confirmed');
    process.kill(replica.pid, 'SIGCONT');
    expect(await rig.ledger.members()).toEqual([]);
  });

  test('partitions count as joined only once the replica has the link', async () => {
    const rig = await open(1);
    const memory = new LinkMemory((pairs, route) => rig.links.note(pairs, route));
    await memory.note(['u1', 'u2'], '/batch');
    process.kill(replica.pid, 'SIGSTOP');
    await expect(memory.note(['u1', 'u3'], '/batch')).rejects.toThrow(/replicas confirmed|did not note/);
    expect([memory.known(['u1', 'u2']), memory.known(['u1', 'u3'])]).toEqual([true, false]);
    process.kill(replica.pid, 'SIGCONT');
    // It stands there since the first try; what counts is that the replica has it, too.
    await until('it is noted', async () => {
      await memory.note(['u1', 'u3'], '/batch').catch(() => undefined);
      return memory.known(['u1', 'u3']);
    });
    expect(await toReplica.hlen('{onewriter}:links')).toBe(2);
  });

  test('what is only read does not wait behind a write', async () => {
    const rig = await open(1);
    process.kill(replica.pid, 'SIGSTOP');
    let written = false;
    const writing = order(rig, 'u', 'fence').finally(() => (written = true));
    await until('it is under way', async () => (await rig.redis.hlen('{onewriter}:partitions')) === 1);
    await rig.ledger.nowMs();
    await rig.ledger.read('v');
    expect(written).toBe(false);
    expect(await writing).toMatchObject({ durable: false });
  });

  test('writes that are asked for meanwhile wait together, not one behind the other', async () => {
    const rig = await open(1);
    process.kill(replica.pid, 'SIGSTOP');
    const startedMs = performance.now();
    const names = Array.from({ length: 30 }, (_, at) => `user-${at}`);
    const fenced = await Promise.all(names.map((name) => order(rig, name, 'fence')));
    expect(fenced.every(({ durable }) => !durable)).toBe(true);
    expect(performance.now() - startedMs).toBeLessThan(15_000);
  });
});

describe('a promoted replica', () => {
  test('that has everything goes on as if nothing had been, with the same member and no alarm', async () => {
    const rig = await open(1);
    const alarms: string[] = [];
    const member = await rig.join({ log: (_level, event) => alarms.push(event) });
    await flip(rig, 'u');
    await seen(member, 'u');
    expect(await ownerWhenAdmitted(member, 'u')).toBe('app');
    const { id } = member;
    await promote();
    await until('the ledger answers', () => rig.ledger.confirmDurable().catch(() => false));
    await flip(rig, 'v');
    await seen(member, 'v');
    expect(await ownerWhenAdmitted(member, 'v')).toBe('app');
    expect(await ownerWhenAdmitted(member, 'u')).toBe('app');
    expect(member.id).toBe(id);
    expect(alarms).not.toContain('ledger.regressed');
    expect(await rig.ledger.regression()).toBeUndefined();
  });

  test('that lacks what was confirmed is refused: no write, no transition, an alarm', async () => {
    // Nobody waits for the replica, as the operator has accepted by name.
    const rig = await open(0);
    const alarms: string[] = [];
    const member = await rig.join({ log: (level, event) => alarms.push(`${level} ${event}`) });
    await loseTouch();
    await flip(rig, 'u');
    await seen(member, 'u');
    expect(await ownerWhenAdmitted(member, 'u')).toBe('app');
    await promote();
    await until('it is noticed', () => member.trouble()?.startsWith('ledger-regressed'));
    expect(member.admit('u')).toEqual({ verdict: 'refuse', code: 'lease-lapsed' });
    expect(alarms).toContain('error ledger.regressed');
    expect(await rig.ledger.regression()).toMatchObject({ by: '' });
    await expect(order(rig, 'v', 'fence')).rejects.toThrow('ledger-regressed');
    // Reads still go where the partition was last known to be.
    expect(member.ownershipOf('u')).toMatchObject({ phase: 'open', owner: 'app' });
  });

  test('that lacks only what was never confirmed is followed: the member reloads and goes on', async () => {
    const rig = await open(1);
    const events: string[] = [];
    const member = await rig.join({ leaseMs: 6_000, log: (_level, event) => events.push(event) });
    expect(await ownerWhenAdmitted(member, 'v')).toBe('legacy');
    await loseTouch();
    expect(await order(rig, 'u', 'fence')).toMatchObject({ durable: false });
    await until('the member saw it', () => member.ownershipOf('u').phase === 'fenced');
    await promote();
    await until('it has reloaded', () => member.ownershipOf('u').phase === 'open', 20_000);
    expect(await ownerWhenAdmitted(member, 'u')).toBe('legacy');
    expect(events).toContain('ledger.lost-unconfirmed');
    expect(await rig.ledger.regression()).toBeUndefined();
  });
});

describe('what could lose a transition is said before a flip', () => {
  test('where a replica is not waited for, or one that must confirm is missing', async () => {
    const none = await open(0);
    expect(await none.ledger.durabilityGaps()).toEqual([expect.stringContaining('Redis has 1 replicas')]);
    const one = await open(1);
    expect(await one.ledger.durabilityGaps()).toEqual([]);
    const two = await open(2);
    expect(await two.ledger.durabilityGaps()).toEqual([
      expect.stringContaining('Start the missing replicas'),
    ]);
  });

  test('where the address is a replica, or nothing is kept on disk', async () => {
    const gaps = await openLedger(replica, { minReplicas: 0 });
    rigs.push(gaps);
    expect(await gaps.ledger.durabilityGaps()).toEqual([expect.stringContaining('is a replica')]);
    const asked = new Redis(master.url);
    await asked.config('SET', 'appendonly', 'no');
    const one = await open(1);
    expect(await one.ledger.durabilityGaps()).toEqual([expect.stringContaining('keeps nothing on disk')]);
    const lone = await open(0);
    await asked.config('SET', 'appendonly', 'yes');
    await asked.config('SET', 'appendfsync', 'everysec');
    expect((await lone.ledger.durabilityGaps()).join()).toContain('appendfsync everysec');
    asked.disconnect();
  });
});
