/** Users and their partitions: looked up once, remembered as long as it is true, changed under a fence of both. */
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { DirectoryRefusal, DirectoryReport } from '../../src/core/homes.ts';
import { DirectoryMoves, type DirectorySettings } from '../../src/handoff/directory.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { DirectoryMemory } from '../../src/ledger/directory.ts';
import {
  type NewcomerRig,
  partitionOf,
  type ProxyOptions,
  rulesOf,
  startNewcomerRig,
  type TestProxy,
} from '../support/newcomers.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: NewcomerRig;
let raw: Redis;
/** Every write at legacy: its user and partition when it came, and again when it ended. */
let log: string[];
/** Writes at legacy wait here, by user. */
let waiting: Map<string, Promise<void>>;

beforeEach(async () => {
  server = await startRedis();
  rig = await startNewcomerRig(server);
  raw = new Redis(server.url);
  log = [];
  waiting = new Map();
  rig.legacy.intercept = async (call) => {
    const user = String(call.headers['x-user']);
    log.push(`${user} in ${partitionOf(call)}`);
    await waiting.get(user);
    log.push(`${user} in ${partitionOf(call)} ended`);
    return { status: 200 };
  };
});
afterEach(async () => {
  raw.disconnect();
  await rig.stop();
  await server.stop();
});

const start = (
  partition: unknown[] = [{ directory: true }],
  options: ProxyOptions = {},
): Promise<TestProxy> =>
  rig.start({ newPartitions: 'legacy', config: { partition, anonymousReads: 'refuse' }, ...options });

function moves(settings: Partial<DirectorySettings> = {}): DirectoryMoves {
  const { ledger, feed, registry } = rig.parts;
  return new DirectoryMoves({
    ...{ ledger, feed, registry, book: rig.book, guards: rig.guards, log: () => undefined },
    members: new MemberWatch(ledger, 1_000, () => undefined),
    guarded: { legacy: false, app: true },
    settings: () => ({
      ...{ fenceMs: 2_000, drainMs: 1_000, newPartitions: 'legacy', withoutEntry: 'nowhere' },
      rules: rulesOf(settings.newPartitions ?? 'legacy'),
      ...settings,
    }),
  });
}

const set = (
  user: string,
  partition: string,
  settings: Partial<DirectorySettings> = {},
): Promise<DirectoryReport | DirectoryRefusal> =>
  moves(settings).set({ user, partition, by: 'ops', reason: 'test' });

const epochOf = async (partition: string): Promise<number> =>
  (await rig.parts.ledger.read(partition)).ownership.epoch;

async function moveToApp(partition: string): Promise<void> {
  const attempt = `attempt of ${partition}`;
  const steps = [
    { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 },
    { kind: 'commit', attempt },
    { kind: 'release', attempt },
  ] as const;
  for (const order of steps) await rig.parts.ledger.order({ partition, order, by: 'ops', reason: 'test' });
}

describe('the partition of a user', () => {
  test('is looked up once; who has no entry is refused, until there is one', async () => {
    const { send } = await start();
    expect(await send('ann')).toMatchObject({ status: 400, code: 'no-partition' });
    expect(await send('ann', 'GET')).toMatchObject({ status: 400, code: 'no-partition' });
    expect(await set('ann', 'org1')).toEqual({ user: 'ann', partition: 'org1', pauseMs: 0 });
    await until('the proxy has heard of it', async () => (await send('ann')).status === 200);
    expect(log.at(-1)).toBe('ann in org1 ended');
    // A second look-up would find nothing.
    await raw.del('{onewriter}:directory');
    expect(await send('ann')).toMatchObject({ status: 200 });
    expect(await epochOf('org1')).toBe(1);
  });

  test('is left to the next rule where there is no entry', async () => {
    await set('bob', 'org1');
    const { send } = await start([{ directory: true }, { by: 'user' }]);
    await send('ann');
    await send('bob');
    expect(log.filter((line) => line.endsWith('ended'))).toEqual(['ann in ann ended', 'bob in org1 ended']);
  });

  test('is what it was while Redis is away; who was never looked up gets 503', async () => {
    await set('ann', 'org1');
    const { send } = await start();
    await send('ann');
    process.kill(server.pid, 'SIGSTOP');
    try {
      const unknown = send('bob');
      expect(await send('ann')).toMatchObject({ status: 200 });
      expect(await unknown).toMatchObject({ status: 503, code: 'directory-unavailable' });
    } finally {
      process.kill(server.pid, 'SIGCONT');
    }
  });

  test('is looked up anew when the member has loaded a snapshot', async () => {
    await set('ann', 'org1');
    const { send, member } = await start();
    await send('ann');
    await raw.hset('{onewriter}:directory', 'ann', 'org2');
    await send('ann');
    expect(log.at(-1)).toBe('ann in org1 ended');
    await rig.parts.ledger.removeMember(member.id);
    const before = member.id;
    await until('it is a member again', () => member.id !== before && member.leaseLeftMs() > 0);
    expect(await send('ann')).toMatchObject({ status: 200 });
    expect(log.at(-1)).toBe('ann in org2 ended');
  });
});

describe('a look-up', () => {
  test('that was under way when a change of the user came is repeated', async () => {
    const answers = [Promise.withResolvers<string>(), Promise.withResolvers<string>()];
    let reads = 0;
    const memory = new DirectoryMemory(() => answers[reads++]?.promise ?? Promise.reject(new Error()));
    const looked = memory.look('ann');
    memory.changed('bob');
    memory.changed('ann');
    answers[0]?.resolve('org1');
    answers[1]?.resolve('org2');
    await looked;
    expect([reads, memory.cached('ann')]).toEqual([2, 'org2']);
    memory.clear();
    expect(memory.cached('ann')).toBeUndefined();
  });

  test('is one for all who ask at the same time, and remembers that there is nothing', async () => {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    let reads = 0;
    const memory = new DirectoryMemory(() => ((reads += 1), promise));
    const all = Promise.all([memory.look('ann'), memory.look('ann')]);
    resolve(undefined);
    await all;
    expect([reads, memory.cached('ann')]).toEqual([1, null]);
  });
});

describe('a change of partition', () => {
  beforeEach(async () => {
    await set('ann', 'org1');
    await set('bob', 'org1');
    await set('cat', 'org2');
  });

  test('waits for what is under way in both, holds what comes, and sends it on under the new partition', async () => {
    const proxies = [await start(), await start()];
    for (const { send } of proxies) expect(await send('ann')).toMatchObject({ status: 200 });
    const ends = new Map(['bob', 'cat'].map((user) => [user, Promise.withResolvers<void>()] as const));
    for (const [user, { promise }] of ends) waiting.set(user, promise);
    const running = [proxies[0]?.send('bob'), proxies[1]?.send('cat')];
    await until('both are at the store', () => log.includes('bob in org1') && log.includes('cat in org2'));
    log.length = 0;
    const moved = set('ann', 'org2');
    await until('org1 is fenced', () =>
      proxies.every(({ member }) => member.ownershipOf('org1').phase === 'fenced'),
    );
    const held = proxies.map(({ send }) => send('ann'));
    await until('both hold', () => proxies.every(({ proxy }) => proxy.counters().holding === 1));
    expect(log).toEqual([]);
    for (const user of ['bob', 'cat']) ends.get(user)?.resolve();
    expect(await moved).toMatchObject({ user: 'ann', partition: 'org2', before: 'org1' });
    expect(await Promise.all([...held, ...running])).toEqual(
      Array.from({ length: 4 }, () => ({ status: 200, store: 'legacy', code: undefined })),
    );
    expect(log.slice(0, 2).toSorted()).toEqual(['bob in org1 ended', 'cat in org2 ended']);
    expect(log.filter((line) => line.startsWith('ann'))).toEqual(
      expect.arrayContaining(['ann in org2', 'ann in org2 ended']),
    );
    expect(log.some((line) => line.startsWith('ann in org1'))).toBe(false);
    expect([await epochOf('org1'), await epochOf('org2')]).toEqual([3, 3]);
  });

  test('never lets writes of one user run in two partitions at once, however often it changes', async () => {
    const proxies = [await start(), await start()];
    const stopping = new AbortController();
    const refused: unknown[] = [];
    const traffic = proxies.map(async ({ send }) => {
      while (!stopping.signal.aborted) {
        const answer = await send('ann');
        if (answer.status !== 200) refused.push(answer);
      }
    });
    for (const partition of ['org2', 'org1', 'org2', 'org1']) {
      expect(await set('ann', partition)).toMatchObject({ partition });
    }
    stopping.abort();
    await Promise.all(traffic);
    const running = new Map<string, number>();
    const both: string[] = [];
    for (const line of log.filter((one) => one.startsWith('ann'))) {
      const partition = line.split(' ')[2] ?? '';
      running.set(partition, (running.get(partition) ?? 0) + (line.endsWith('ended') ? -1 : 1));
      if ([...running.values()].filter((count) => count > 0).length > 1) both.push(line);
    }
    expect(both).toEqual([]);
    expect(refused).toEqual([]);
    expect(new Set(running.keys())).toEqual(new Set(['org1', 'org2']));
  });

  test('is given up where a write does not end in time, and both are open again', async () => {
    const { send } = await start();
    const end = Promise.withResolvers<void>();
    waiting.set('bob', end.promise);
    const running = send('bob');
    await until('it is at the store', () => log.includes('bob in org1'));
    expect(await set('ann', 'org2', { drainMs: 100 })).toMatchObject({ refused: 'drain-timeout' });
    expect(await rig.book.partitionOf('ann')).toBe('org1');
    for (const partition of ['org1', 'org2']) {
      expect((await rig.parts.ledger.read(partition)).ownership).toMatchObject({ phase: 'open', epoch: 3 });
    }
    end.resolve();
    expect(await running).toMatchObject({ status: 200 });
    expect(await send('ann')).toMatchObject({ status: 200 });
    expect(log.at(-1)).toBe('ann in org1 ended');
  });

  test('is refused while a write of one of them is in doubt', async () => {
    const { member } = await start();
    const admission = member.admit('org2');
    if (admission.verdict !== 'admit') throw new Error(admission.verdict);
    member.end(admission.ticket, 'in-doubt');
    expect(await set('ann', 'org2')).toMatchObject({ refused: 'write-in-doubt' });
    expect(await rig.book.partitionOf('ann')).toBe('org1');
    expect((await rig.parts.ledger.read('org2')).ownership.phase).toBe('open');
  });

  test('is refused between partitions of different stores, without a fence', async () => {
    await moveToApp('org2');
    expect(await set('ann', 'org2')).toMatchObject({ refused: 'other-owner' });
    expect([await epochOf('org1'), await epochOf('org2')]).toEqual([1, 4]);
  });

  test('advances the guard of the app, where both live there', async () => {
    await moveToApp('org1');
    await moveToApp('org2');
    expect(await set('ann', 'org2')).toMatchObject({ partition: 'org2', before: 'org1' });
    expect(rig.guard.get('org1')).toMatchObject({ epoch: 5, closed: true });
    expect(rig.guard.get('org2')).toMatchObject({ epoch: 5, closed: true });
  });

  test('is given up where the guard does not answer', async () => {
    await moveToApp('org1');
    await moveToApp('org2');
    await rig.app.stop();
    expect(await set('ann', 'org2')).toMatchObject({ refused: 'not-settled' });
    expect(await rig.book.partitionOf('ann')).toBe('org1');
    expect((await rig.parts.ledger.read('org1')).ownership.phase).toBe('open');
  });

  test('is not made once a fence was lifted, whoever lifted it', async () => {
    const fence = { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 } as const;
    const change = {
      entries: [{ user: 'ann', partition: 'org2', expected: 'org1' }],
      conditions: ['org1', 'org2'].map((partition) => ({ partition, attempt: 'a' })),
      ...{ rules: '', by: 'ops', reason: 'late' },
    };
    for (const partition of ['org1', 'org2']) {
      await rig.parts.ledger.order({ partition, order: fence, by: 'ops', reason: 'test' });
    }
    await rig.parts.ledger.order({
      ...{ partition: 'org2', by: 'member', reason: 'test' },
      order: { kind: 'abort', attempt: 'a' },
    });
    expect(await rig.book.change(change)).toEqual({ result: 'not-fenced', partition: 'org2' });
    const other = { ...change, conditions: [{ partition: 'org1', attempt: 'b' }] };
    expect(await rig.book.change(other)).toEqual({ result: 'not-fenced', partition: 'org1' });
    expect(await rig.book.partitionOf('ann')).toBe('org1');
  });

  test('is refused where the proxies run other rules, and where somebody else was faster', async () => {
    await start();
    expect(await set('ann', 'org2', { rules: 'mine' })).toMatchObject({ refused: 'rules-differ' });
    expect((await rig.parts.ledger.read('org1')).ownership.phase).toBe('open');
    const late = { entries: [{ user: 'ann', partition: 'org3', expected: 'org9' }], conditions: [] };
    expect(await rig.book.change({ ...late, rules: rulesOf('legacy'), by: 'ops', reason: 'late' })).toEqual({
      result: 'changed',
      user: 'ann',
      partition: 'org1',
    });
  });

  test('of a user without an entry fences the partition that they have by the rule behind', async () => {
    await start([{ directory: true }, { by: 'user' }]);
    expect(await set('dan', 'org2', { withoutEntry: 'own-name' })).toMatchObject({ partition: 'org2' });
    expect([await epochOf('dan'), await epochOf('org2')]).toEqual([3, 3]);
    expect(await set('eve', 'org2', { withoutEntry: 'in-request' })).toMatchObject({
      refused: 'partition-in-request',
    });
    expect(await moves({ withoutEntry: 'own-name' }).fill([], 'ops', 'x')).toMatchObject({
      refused: 'partition-in-request',
    });
  });
});

describe('first entries', () => {
  test('are filled in many at once, and leave alone what is there', async () => {
    await set('ann', 'org1');
    const entries = Array.from({ length: 1_200 }, (_, at) => ({ user: `u${at}`, partition: 'org2' }));
    const filled = await moves().fill(
      [...entries, { user: 'ann', partition: 'org2' }, { user: 'u1', partition: 'org3' }],
      ...(['ops', 'crm'] as const),
    );
    expect(filled).toEqual({ added: 1_200, unchanged: 0, others: ['ann', 'u1'] });
    expect(await moves().fill(entries.slice(0, 3), 'ops', 'again')).toMatchObject({ added: 0, unchanged: 3 });
    expect(await rig.book.partitionsOf(['ann', 'u1', 'nobody'])).toEqual(['org1', 'org2', undefined]);
    const { send } = await start();
    expect(await send('u7')).toMatchObject({ status: 200 });
    expect(await epochOf('org2')).toBe(1);
  });
});

describe('where new partitions begin in the app', () => {
  const settings = { newPartitions: 'app' } as const;

  test('a user leaves a partition that nobody has claimed without a fence', async () => {
    await rig.parts.registry.note([{ partition: 'old' }]);
    await rig.parts.registry.declareComplete('ops');
    const { send } = await start([{ directory: true }], { newPartitions: 'app' });
    expect(await set('ann', 'org1', settings)).toMatchObject({ partition: 'org1' });
    expect(await set('ann', 'org2', settings)).toMatchObject({ partition: 'org2', before: 'org1' });
    expect([await epochOf('org1'), await epochOf('org2')]).toEqual([1, 1]);
    await until('the proxy has heard', async () => (await send('ann')).status === 200);
    expect((await rig.parts.ledger.read('org2')).ownership).toMatchObject({ owner: 'app', epoch: 2 });
    expect((await rig.parts.ledger.read('org1')).version).toBe(0);
    expect(await set('ann', 'old', settings)).toMatchObject({ refused: 'other-owner' });
    expect(await set('ann', 'org3', settings)).toMatchObject({ before: 'org2' });
    expect([await epochOf('org2'), await epochOf('org3')]).toEqual([4, 1]);
    const conditions = [{ partition: 'org2', attempt: '' }];
    const change = { conditions, rules: rulesOf('app'), by: 'ops', reason: 'late' };
    const entries = [{ user: 'ann', partition: 'org1', expected: 'org3' }];
    expect(await rig.book.change({ ...change, entries })).toEqual({ result: 'claimed', partition: 'org2' });
  });
});
