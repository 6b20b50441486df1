import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { StoreFreezes } from '../../src/core/freeze.ts';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import { type CopyDesk, type GuardCalls, StoreFailure } from '../../src/core/ports.ts';
import { attemptHandoff, type AttemptReport } from '../../src/handoff/attempt.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { sendAcknowledgement } from '../../src/ledger/acknowledge.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let ledger: TestLedger;
let partitions = 0;
let partition = '';
let steps: string[] = [];

const settings: HandoffSettings = {
  drainMs: 400,
  fenceMs: 1_500,
  feedDelayMs: 0,
  guarded: { legacy: false, app: true },
};

/** Notes the order of the steps; the real sync and guard have tests of their own. */
const copies: Pick<CopyDesk, 'catchUp'> = {
  catchUp: async () => {
    steps.push('catch-up');
    return { recordsCompared: 1, recordsCopied: 0, passes: 1 };
  },
};
const guards: GuardCalls = {
  verdict: async (_store, stamp) => ({ epoch: stamp.epoch }),
  advance: async (store, stamp) => void steps.push(`advance ${store} ${stamp.epoch}`),
  seal: async (store, stamp) => void steps.push(`seal ${store} ${stamp.epoch}`),
};

beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  ledger = await openLedger(server);
  partitions += 1;
  partition = `user-${partitions}`;
  steps = [];
});
afterEach(async () => {
  await ledger.close();
  for (const member of await membersListed()) await dropMember(member);
});

async function membersListed(): Promise<string[]> {
  const again = await openLedger(server);
  const ids = (await again.ledger.members()).map((member) => member.id);
  await again.close();
  return ids;
}

async function dropMember(id: string): Promise<void> {
  const again = await openLedger(server);
  await again.ledger.removeMember(id);
  await again.close();
}

function attempt(
  over: Partial<HandoffSettings> = {},
  stop = new AbortController(),
  freezes?: StoreFreezes,
): Promise<AttemptReport> {
  return attemptHandoff(
    {
      ledger: ledger.ledger,
      feed: ledger.feed,
      copies: copies as CopyDesk,
      guards,
      freezes,
      members: new MemberWatch(ledger.ledger, 1_000, () => undefined),
      settings: { ...settings, ...over },
    },
    { partition, from: 'legacy', by: 'test', reason: 'test', stop: stop.signal },
  );
}

describe('a handoff', () => {
  test('moves a partition, and every member then admits its writes for the new owner', async () => {
    const members = [await ledger.join(), await ledger.join(), await ledger.join()];
    const report = await attempt();
    expect(report).toMatchObject({ outcome: 'moved' });
    expect((await ledger.ledger.read(partition)).ownership).toEqual({
      phase: 'open',
      owner: 'app',
      epoch: 4,
    });
    for (const member of members) {
      const admission = await until('the member admits', () => {
        const answer = member.admit(partition);
        return answer.verdict === 'admit' && answer;
      });
      expect(admission.ticket).toMatchObject({ owner: 'app', epoch: 4 });
    }
    expect(steps).toEqual(['advance app 1', 'catch-up', 'seal app 2']);
  });

  test('reads the old position only after every write in flight has ended (Vitess #16563)', async () => {
    const member = await ledger.join();
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const running = attempt({ drainMs: 1_200 });
    await until('the member sees the fence', () => member.ownershipOf(partition).phase === 'fenced');
    // A round trip through the ledger gives a coordinator that does not wait every chance to go on.
    for (let round = 0; round < 20; round += 1) await ledger.ledger.read(partition);
    expect(steps).toEqual([]);
    steps.push('write ended');
    member.end(admission.ticket, 'ended');
    expect(await running).toMatchObject({ outcome: 'moved' });
    expect(steps).toEqual(['write ended', 'advance app 1', 'catch-up', 'seal app 2']);
  });

  test('does not count an acknowledgement that names another attempt', async () => {
    const member = await ledger.join();
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const heard: string[] = [];
    ledger.feed.onAcknowledgement((acknowledgement) => heard.push(acknowledgement.attempt));
    const running = attempt({ drainMs: 1_200 });
    await until('the member sees the fence', () => member.ownershipOf(partition).phase === 'fenced');
    const late = { partition, attempt: 'an attempt of before', epoch: 2, answer: 'drained' } as const;
    await sendAcknowledgement(ledger.redis, member.id, { ...late, lastWriteAgeMs: 0, settlesInMs: 0 });
    await until('the coordinator has heard it', () => heard.includes(late.attempt));
    for (let round = 0; round < 20; round += 1) await ledger.ledger.read(partition);
    expect(steps).toEqual([]);
    member.end(admission.ticket, 'ended');
    expect(await running).toMatchObject({ outcome: 'moved' });
  });

  test('asks a ledger that refuses everything with pauses, and ends when it is sound again', async () => {
    const member = await ledger.join();
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const running = attempt({ drainMs: 150 });
    await until('the member sees the fence', () => member.ownershipOf(partition).phase === 'fenced');
    await ledger.redis.hset('{onewriter}:meta', 'regressed', 'said by the test');
    const calls = async (): Promise<number> =>
      Number(/cmdstat_evalsha:calls=(\d+)/.exec(await ledger.redis.info('commandstats'))?.[1] ?? 0);
    const startedMs = performance.now();
    const before = await calls();
    await until('half a second has gone by', () => performance.now() - startedMs > 500);
    expect((await calls()) - before).toBeLessThan(60);
    await ledger.redis.hdel('{onewriter}:meta', 'regressed');
    expect(await running).toMatchObject({ outcome: 'aborted', code: 'drain-timeout' });
  });

  test('holds writes from the fence on', async () => {
    const member = await ledger.join();
    const first = member.admit(partition);
    if (first.verdict !== 'admit') throw new Error('not admitted');
    const running = attempt();
    await until('the fence', () => member.ownershipOf(partition).phase === 'fenced');
    expect(member.admit(partition)).toEqual({ verdict: 'hold', because: 'fenced' });
    member.end(first.ticket, 'ended');
    await running;
  });

  test('aborts at once, and reopens at the old owner, when a write is in doubt', async () => {
    const member = await ledger.join({ settleMs: 60_000 });
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    member.end(admission.ticket, 'in-doubt');
    expect(await attempt()).toMatchObject({ outcome: 'aborted', code: 'write-in-doubt' });
    expect((await ledger.ledger.read(partition)).ownership).toEqual({
      phase: 'open',
      owner: 'legacy',
      epoch: 3,
    });
    expect(steps).toEqual([]);
  });

  test('aborts when a member does not acknowledge, and the old owner goes on taking writes', async () => {
    const silent = await ledger.join();
    const alive = await ledger.join();
    await silent.stop();
    const report = await attempt();
    expect(report).toMatchObject({ outcome: 'aborted', code: 'drain-timeout' });
    expect(report.pauseMs).toBeLessThan(settings.fenceMs);
    expect(steps).toEqual([]);
    const admission = await until('the living member admits', () => {
      const answer = alive.admit(partition);
      return answer.verdict === 'admit' && answer;
    });
    expect(admission.ticket.owner).toBe('legacy');
  });

  test('does not wait for a member that is not listed any more', async () => {
    const leaving = await ledger.join();
    await ledger.join();
    await leaving.stop();
    const running = attempt({ drainMs: 5_000, fenceMs: 8_000 });
    await until('the fence', async () => (await ledger.ledger.read(partition)).ownership.phase === 'fenced');
    for (let round = 0; round < 20; round += 1) await ledger.ledger.read(partition);
    expect(steps).toEqual([]);
    await ledger.ledger.removeMember(leaving.id);
    const report = await running;
    expect(report).toMatchObject({ outcome: 'moved' });
    expect(report.pauseMs).toBeLessThan(4_000);
  });

  test('waits for a member that registered after the fence was looked at, where it is listed', async () => {
    const silent = await ledger.join();
    await silent.stop();
    const watch = new MemberWatch(ledger.ledger, 1_000, () => undefined);
    // What was read before the member was listed says nothing about it.
    await dropMember(silent.id);
    await watch.look();
    const late = await ledger.join();
    await late.stop();
    const sinceMs = performance.now();
    expect((await watch.listedSince(sinceMs)).has(late.id)).toBe(true);
  });

  test('waits until the old list shows the last write, or aborts when that is after the deadline', async () => {
    const member = await ledger.join();
    const write = (): void => {
      const admission = member.admit(partition);
      if (admission.verdict !== 'admit') throw new Error('not admitted');
      member.end(admission.ticket, 'ended');
    };
    write();
    const ended = performance.now();
    const report = await attempt({ feedDelayMs: 300 });
    expect(report).toMatchObject({ outcome: 'moved' });
    expect(performance.now() - ended).toBeGreaterThanOrEqual(295);
    partition = `${partition}-slow`;
    write();
    expect(await attempt({ feedDelayMs: 60_000 })).toMatchObject({ code: 'feed-delay-exceeds-fence' });
  });

  test('advances the guard of an old owner after the drain and before the position is read', async () => {
    await ledger.join();
    await attempt({ guarded: { legacy: true, app: true } });
    expect(steps).toEqual(['advance legacy 2', 'advance app 1', 'catch-up', 'seal app 2']);
  });

  test('stops on order before the commit, and reopens at the old owner', async () => {
    const member = await ledger.join();
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const stop = new AbortController();
    const running = attempt({ drainMs: 1_200 }, stop);
    await until('the fence', () => member.ownershipOf(partition).phase === 'fenced');
    stop.abort();
    expect(await running).toMatchObject({ outcome: 'aborted', code: 'stopped-by-operator' });
    expect((await ledger.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
    member.end(admission.ticket, 'ended');
  });

  test('of two coordinators at once, exactly one moves the partition', async () => {
    await ledger.join();
    const reports = await Promise.all([attempt(), attempt()]);
    expect(reports.map((report) => report.outcome).toSorted()).toEqual(['aborted', 'moved']);
    expect((await ledger.ledger.read(partition)).ownership).toEqual({
      phase: 'open',
      owner: 'app',
      epoch: 4,
    });
  });
});

describe('a coordinator that dies', () => {
  const by = 'test';
  const reason = 'test';

  test('in the fence cannot stop a user: a member reopens the partition after the deadline (I7)', async () => {
    const member = await ledger.join();
    const order = { kind: 'fence', to: 'app', attempt: 'dead', fenceMs: 300 } as const;
    await ledger.ledger.order({ partition, order, by, reason });
    await until('the fence', () => member.ownershipOf(partition).phase === 'fenced');
    await until('reopened', () => member.admit(partition).verdict === 'admit');
    expect((await ledger.ledger.read(partition)).ownership).toEqual({
      phase: 'open',
      owner: 'legacy',
      epoch: 3,
    });
  });

  test('after the commit leaves a partition that a member releases forward', async () => {
    const member = await ledger.join();
    const fence = { kind: 'fence', to: 'app', attempt: 'dead', fenceMs: 300 } as const;
    await ledger.ledger.order({ partition, order: fence, by, reason });
    await ledger.ledger.order({ partition, order: { kind: 'commit', attempt: 'dead' }, by, reason });
    await until('the commit', () => member.ownershipOf(partition).phase === 'committed');
    await until('released', () => member.admit(partition).verdict === 'admit');
    expect((await ledger.ledger.read(partition)).ownership).toEqual({
      phase: 'open',
      owner: 'app',
      epoch: 4,
    });
  });
});

describe('a member', () => {
  test('that lost its lease closes what stays open and writes', async () => {
    const own = await startRedis();
    const cut = await openLedger(own);
    const member = await cut.join({ leaseMs: 600 });
    let closed = 0;
    member.onEndLongLived(partition, () => (closed += 1));
    await own.stop();
    await until('the lease lapsed', () => member.admit(partition).verdict === 'refuse');
    await until('it is closed', () => closed > 0);
    await cut.close();
  });

  test('that sent a heartbeat since it was seen silent is not taken off the list', async () => {
    const member = await ledger.join({ leaseMs: 300 });
    const [seen] = await ledger.ledger.members();
    await until(
      'another heartbeat',
      async () => (await ledger.ledger.members())[0]?.sequence !== seen?.sequence,
    );
    expect(await ledger.ledger.removeMember(member.id, seen?.sequence)).toBe(false);
    expect((await ledger.ledger.members()).map(({ id }) => id)).toEqual([member.id]);
  });
});

test('a coordinator that saw nothing of an outage takes nobody off the list for the silence in it', async () => {
  const own = await startRedis();
  const rig = await openLedger(own);
  const gone: string[] = [];
  const watch = new MemberWatch(rig.ledger, 400, ({ id }) => gone.push(id));
  const record = {
    ...{ id: 'm1', sequence: 1, host: 'here', pid: 1, appliedVersion: 0, inFlight: 0, inDoubt: 0 },
    ...{ configHash: 'same', leaseMs: 400, writeTimeoutMs: 100, settleMs: 100 },
  };
  await rig.ledger.register(record);
  await watch.look();
  await watch.look();
  process.kill(own.pid, 'SIGSTOP');
  const asked = watch.look();
  const sinceMs = performance.now();
  await until('the outage outlasts every deadline', () => performance.now() - sinceMs > 1_500);
  process.kill(own.pid, 'SIGCONT');
  await asked;
  expect(gone).toEqual([]);
  expect((await rig.ledger.members()).map(({ id }) => id)).toEqual(['m1']);
  const { position } = await rig.ledger.snapshot();
  await rig.ledger.heartbeat({ ...record, sequence: 2 }, { confirmed: position, applied: position });
  await watch.look();
  expect(watch.health().fresh.map(({ id }) => id)).toEqual(['m1']);
  // While it could be heard, its silence counts.
  await until('it is taken off', async () => {
    await watch.look();
    return gone.length > 0;
  });
  await rig.close();
  await own.stop();
});

describe('the ledger', () => {
  const by = 'test';
  const reason = 'test';

  test('refuses a commit after the deadline by its own clock', async () => {
    const fence = { kind: 'fence', to: 'app', attempt: 'late', fenceMs: 1 } as const;
    await ledger.ledger.order({ partition, order: fence, by, reason });
    await until('the deadline', async () => {
      const { ownership } = await ledger.ledger.read(partition);
      return ownership.phase === 'fenced' && (await ledger.ledger.nowMs()) > ownership.deadlineMs;
    });
    const result = await ledger.ledger.order({
      partition,
      order: { kind: 'commit', attempt: 'late' },
      by,
      reason,
    });
    expect(result).toMatchObject({ result: 'refused', refusal: { refused: 'deadline-passed' } });
  });

  test('refuses another attempt than the one that holds the fence', async () => {
    const fence = { kind: 'fence', to: 'app', attempt: 'first', fenceMs: 5_000 } as const;
    await ledger.ledger.order({ partition, order: fence, by, reason });
    for (const kind of ['commit', 'abort'] as const) {
      const result = await ledger.ledger.order({ partition, order: { kind, attempt: 'second' }, by, reason });
      expect(result).toMatchObject({ result: 'refused', refusal: { refused: 'other-attempt' } });
    }
  });

  test('refuses to reopen before the deadline', async () => {
    const fence = { kind: 'fence', to: 'app', attempt: 'first', fenceMs: 5_000 } as const;
    await ledger.ledger.order({ partition, order: fence, by, reason });
    const result = await ledger.ledger.order({ partition, order: { kind: 'expire' }, by, reason });
    expect(result).toMatchObject({ result: 'refused', refusal: { refused: 'deadline-not-passed' } });
  });

  test('lets exactly one of many racing fences in', async () => {
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        ledger.ledger.order({
          partition,
          order: { kind: 'fence', to: 'app', attempt: `racer-${at}`, fenceMs: 5_000 },
          by,
          reason,
        }),
      ),
    );
    expect(results.filter((result) => result.result === 'done')).toHaveLength(1);
  });

  test('that lost its data is noticed by a member, which admits nothing more (I5)', async () => {
    const own = await startRedis();
    const lost = await openLedger(own);
    const member = await lost.join({ leaseMs: 600 });
    const fence = { kind: 'fence', to: 'app', attempt: 'x', fenceMs: 100 } as const;
    await lost.ledger.order({ partition, order: fence, by, reason });
    await until('the fence', () => member.ownershipOf(partition).phase === 'fenced');
    await until('reopened', () => member.admit(partition).verdict === 'admit');
    const { connectRedis } = await import('../../src/ledger/connection.ts');
    const redis = await connectRedis({ url: own.url });
    await redis.flushall();
    redis.disconnect();
    await until('regression', () => member.trouble()?.startsWith('ledger-regressed'));
    expect(member.admit(partition)).toEqual({ verdict: 'refuse', code: 'lease-lapsed' });
    await lost.close();
    await own.stop();
  });
});

describe('a store that can take the right to write away', () => {
  /** Notes each call, and in which phase of the partition it came. */
  const noting = (failing: 'freeze' | 'unfreeze' | 'nothing' = 'nothing'): StoreFreezes => {
    const note = async (what: 'freeze' | 'unfreeze', store: string, of: string): Promise<void> => {
      const { phase } = (await ledger.ledger.read(of)).ownership;
      steps.push(`${what} ${store}, ${phase}`);
      if (what === failing && !(what === 'unfreeze' && store === 'legacy')) {
        throw new StoreFailure('rejected', `${store} does not do it`);
      }
    };
    return {
      has: () => true,
      freeze: (store, of) => note('freeze', store, of),
      unfreeze: (store, of) => note('unfreeze', store, of),
    };
  };

  test('does so once all writes have ended and before anything is read; the other one gives it back before the commit', async () => {
    const member = await ledger.join();
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const running = attempt({ drainMs: 1_200 }, undefined, noting());
    await until('the member sees the fence', () => member.ownershipOf(partition).phase === 'fenced');
    for (let round = 0; round < 20; round += 1) await ledger.ledger.read(partition);
    expect(steps).toEqual([]);
    member.end(admission.ticket, 'ended');
    expect(await running).toMatchObject({ outcome: 'moved' });
    expect(steps).toEqual([
      'freeze legacy, fenced',
      'advance app 1',
      'catch-up',
      'seal app 2',
      'unfreeze app, fenced',
    ]);
  });

  test('and does not, stops the attempt, and gets it undone before users write again', async () => {
    await ledger.join();
    expect(await attempt({}, undefined, noting('freeze'))).toMatchObject({
      outcome: 'aborted',
      code: 'freeze-failed',
      detail: 'legacy does not do it',
    });
    expect(steps).toEqual(['freeze legacy, fenced', 'unfreeze legacy, fenced']);
    expect((await ledger.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
  });

  test('and does not give it back, keeps nobody: the partition stays where it can be written', async () => {
    await ledger.join();
    expect(await attempt({}, undefined, noting('unfreeze'))).toMatchObject({
      outcome: 'aborted',
      code: 'unfreeze-failed',
    });
    expect(steps.slice(-2)).toEqual(['unfreeze app, fenced', 'unfreeze legacy, fenced']);
    expect((await ledger.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
  });

  test('and never answers, holds nobody beyond the fence', async () => {
    await ledger.join();
    const never = { ...noting(), unfreeze: () => new Promise<void>(() => undefined) };
    const report = await attempt({ fenceMs: 600 }, undefined, never);
    expect(report).toMatchObject({ outcome: 'aborted', code: 'unfreeze-failed' });
    expect((await ledger.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
  });
});
