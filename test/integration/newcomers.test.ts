/** New partitions begin in the app: claimed before their first write, on a real ledger, through real proxies. */
import { Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { guardVerdict } from '../../src/core/guard.ts';
import { Claims } from '../../src/ledger/claims.ts';
import { type NewcomerRig, rulesOf, startNewcomerRig } from '../support/newcomers.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: NewcomerRig;
let raw: Redis;

beforeEach(async () => {
  server = await startRedis();
  rig = await startNewcomerRig(server);
  raw = new Redis(server.url);
});
afterEach(async () => {
  raw.disconnect();
  await rig.stop();
  await server.stop();
});

const ok = (store: string) => ({ status: 200, store, code: undefined });
/** The app's guard takes seals, but does not answer them until the end. */
function hangSeals(): { end: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  rig.beforeSeal = () => promise;
  return { end: resolve };
}

const registered = async (): Promise<string[]> =>
  (await rig.parts.registry.all()).map(({ partition }) => partition).toSorted();

describe('where the registry names everybody in legacy', () => {
  beforeEach(async () => {
    await rig.parts.registry.note([{ partition: 'old' }]);
    await rig.parts.registry.declareComplete('ops');
  });

  test('the first write of a newcomer claims it for the app, whose guard was sealed before', async () => {
    const { send } = await rig.start();
    expect(await send('ann')).toEqual(ok('app'));
    expect(rig.took).toEqual({ legacy: new Map(), app: new Map([['ann', 1]]) });
    expect(await rig.parts.ledger.read('ann')).toMatchObject({
      ownership: { phase: 'open', owner: 'app', epoch: 2 },
    });
    expect(rig.guard.get('ann')).toEqual({ epoch: 2, owner: 'app', closed: false, written: true });
    expect(await raw.hlen('{onewriter}:sealing')).toBe(0);
    expect(await registered()).toEqual(['ann', 'old']);
  });

  test('whom the registry knows lives in legacy, is asked for once, and no guard is sealed', async () => {
    const { send } = await rig.start();
    expect(await send('old')).toEqual(ok('legacy'));
    expect(rig.guard.size).toBe(0);
    await raw.hdel('{onewriter}:registry', 'old');
    expect(await send('old')).toEqual(ok('legacy'));
  });

  test('a newcomer reads from the app, without being registered or claimed', async () => {
    const reading = await rig.start();
    expect(await reading.send('ann', 'GET')).toEqual(ok('app'));
    expect(await reading.send('old', 'GET')).toEqual(ok('legacy'));
    await reading.leave();
    expect(await registered()).toEqual(['old']);
    const { send } = await rig.start();
    expect(await send('ann', 'GET')).toEqual(ok('app'));
    expect(await send('ann')).toEqual(ok('app'));
    expect(await send('ann', 'GET')).toEqual(ok('app'));
  });

  test('many writes at once, at two proxies, make one claim and all go to one store', async () => {
    const proxies = [await rig.start(), await rig.start()];
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, at) => proxies[at % 2]?.send('ann') ?? Promise.reject(new Error())),
    );
    expect(new Set(answers.map(({ status, store }) => `${status} ${store}`))).toEqual(new Set(['200 app']));
    expect(rig.took).toEqual({ legacy: new Map(), app: new Map([['ann', 40]]) });
    const made = proxies.flatMap(({ logged }) => logged.filter(({ event }) => event === 'claim.made'));
    expect(made.length).toBe(1);
    expect(rig.app.calls.filter(({ path }) => path.endsWith('/seal')).length).toBeLessThanOrEqual(2);
  });

  test('who is registered while the guard is being sealed stays in legacy, under an epoch that takes copies', async () => {
    rig.beforeSeal = async () => rig.parts.registry.note([{ partition: 'ann' }]);
    const { send } = await rig.start();
    expect(await send('ann')).toEqual(ok('legacy'));
    const { ownership } = await rig.parts.ledger.read('ann');
    expect(ownership).toEqual({ phase: 'open', owner: 'legacy', epoch: 3 });
    const row = rig.guard.get('ann');
    expect(row).toMatchObject({ owner: 'app', closed: true });
    if (row === undefined) throw new Error('the guard was not sealed');
    expect(guardVerdict(row, 'copy', 1).accept).toBe(false);
    expect(guardVerdict(row, 'copy', ownership.epoch).accept).toBe(true);
    expect(await raw.hlen('{onewriter}:sealing')).toBe(0);
  });

  test('what a member began and died over is ended by another one', async () => {
    const hanging = hangSeals();
    const dying = await rig.start({ holdMs: 50 });
    expect(await dying.send('ann')).toMatchObject({ status: 503, code: 'unclaimed' });
    expect(await raw.hkeys('{onewriter}:sealing')).toEqual(['ann']);
    dying.claims.stop();
    await rig.parts.registry.note([{ partition: 'ann' }]);
    hanging.end();
    const { claims } = await rig.start();
    await claims.endAbandoned(0);
    expect((await rig.parts.ledger.read('ann')).ownership).toMatchObject({ owner: 'legacy', epoch: 3 });
    expect(await raw.hlen('{onewriter}:sealing')).toBe(0);
  });

  test('a guard that does not answer costs the newcomer a 503, and nothing is claimed', async () => {
    const hanging = hangSeals();
    const { send } = await rig.start({ holdMs: 100 });
    const answer = await send('ann');
    expect(answer).toMatchObject({ status: 503, code: 'unclaimed' });
    expect((await rig.parts.ledger.read('ann')).version).toBe(0);
    expect(await send('old')).toEqual(ok('legacy'));
    hanging.end();
    await until('the next try is taken', async () => (await send('ann')).status === 200);
    expect(rig.took.app.get('ann')).toBe(1);
  });

  test('a write that comes while a try fails gets a try of its own', async () => {
    const { member } = await rig.start();
    const seals: PromiseWithResolvers<void>[] = [];
    const seal = (): Promise<void> => {
      const answer = Promise.withResolvers<void>();
      seals.push(answer);
      return answer.promise;
    };
    const rules = { hash: rulesOf('app'), newPartitions: 'app' } as const;
    const { ledger } = rig.parts;
    const claims = new Claims({ ledger, member, rules, seal, withinMs: 0, log: () => undefined });
    claims.settle('ann');
    await until('the guard is asked', () => seals.length === 1);
    claims.settle('ann');
    seals[0]?.reject(new Error('the guard is away'));
    await until('the guard is asked once more', () => seals.length === 2);
    seals[1]?.resolve();
    await until('the partition is claimed', () => claims.known('ann'));
    expect(seals.length).toBe(2);
    claims.stop();
  });

  test('without a guard nothing is sealed, and an anonymous write begins no partition', async () => {
    const { send } = await rig.start({
      guarded: false,
      config: { routes: [{ path: '/c/:owner/*', partition: 'path.owner', anonymous: true }] },
    });
    expect(await send('', 'POST', '/c/nobody/x')).toMatchObject({ status: 400, code: 'no-partition' });
    expect(await send('', 'POST', '/c/old/x')).toEqual(ok('legacy'));
    expect(await send('ann')).toEqual(ok('app'));
    expect(await send('', 'POST', '/c/ann/x')).toEqual(ok('app'));
    expect(rig.guard.size).toBe(0);
    expect(await registered()).toEqual(['ann', 'old']);
  });

  test('while Redis is away a newcomer waits as long as a write may and gets 503; reads go on', async () => {
    const { send, proxy } = await rig.start({ holdMs: 400 });
    process.kill(server.pid, 'SIGSTOP');
    try {
      const waiting = send('ann');
      await until('it is held', () => proxy.counters().holding === 1);
      expect(await send('bob', 'GET')).toEqual(ok('legacy'));
      expect(await waiting).toMatchObject({ status: 503 });
      expect(rig.took.app.size + rig.took.legacy.size).toBe(0);
    } finally {
      process.kill(server.pid, 'SIGCONT');
    }
    await until('the newcomer is taken', async () => (await send('ann')).status === 200);
    expect(rig.took).toEqual({ legacy: new Map(), app: new Map([['ann', 1]]) });
  });
});

describe('where nobody has said that the registry is complete', () => {
  test('whom it does not know is registered first and lives in legacy; that is said once', async () => {
    const { send, logged } = await rig.start();
    expect(await send('ann', 'GET')).toEqual(ok('legacy'));
    expect(await registered()).toEqual([]);
    expect(await send('ann')).toEqual(ok('legacy'));
    expect(await send('bob')).toEqual(ok('legacy'));
    expect(await registered()).toEqual(['ann', 'bob']);
    expect(logged.filter(({ event }) => event === 'claim.registry-incomplete').length).toBe(1);
    await rig.parts.registry.declareComplete('ops');
    expect(await send('ann')).toEqual(ok('legacy'));
    const later = await rig.start();
    expect(await later.send('ann')).toEqual(ok('legacy'));
    expect(await later.send('cat')).toEqual(ok('app'));
  });
});

describe('a write without an identity, where nobody has said that the registry is complete', () => {
  const config = { routes: [{ path: '/c/:owner/*', partition: 'path.owner', anonymous: true }] };

  test('registers nobody: it goes where somebody has begun, and is refused elsewhere', async () => {
    await rig.parts.registry.note([{ partition: 'old' }]);
    const { send } = await rig.start({ config });
    const names = Array.from({ length: 20 }, (_, at) => `nobody${at}`);
    const answers = await Promise.all(names.map(async (name) => send('', 'POST', `/c/${name}/x`)));
    expect(new Set(answers.map(({ status, code }) => `${status} ${code}`))).toEqual(
      new Set(['400 no-partition']),
    );
    expect(await registered()).toEqual(['old']);
    expect(await raw.hlen('{onewriter}:sealing')).toBe(0);
    expect(await send('', 'POST', '/c/old/x')).toEqual(ok('legacy'));
    expect(await send('ann')).toEqual(ok('legacy'));
    expect(await send('', 'POST', '/c/ann/x')).toEqual(ok('legacy'));
    expect(rig.took.legacy).toEqual(
      new Map([
        ['nobody', 2],
        ['ann', 1],
      ]),
    );
  });

  test('goes to the app where somebody has been claimed for it, also at a proxy that never saw them', async () => {
    const first = await rig.start({ config });
    await rig.parts.registry.declareComplete('ops');
    expect(await first.send('ann')).toEqual(ok('app'));
    const second = await rig.start({ config });
    expect(await second.send('', 'POST', '/c/ann/x')).toEqual(ok('app'));
  });

  test('is told to come again where the ledger does not say whose the partition is', async () => {
    const { send } = await rig.start({ config });
    process.kill(server.pid, 'SIGSTOP');
    try {
      expect(await send('', 'POST', '/c/ann/x')).toMatchObject({ status: 503, code: 'unclaimed' });
    } finally {
      process.kill(server.pid, 'SIGCONT');
    }
    await until('it is answered', async () => (await send('', 'POST', '/c/ann/x')).status === 400);
    expect(await registered()).toEqual([]);
  });
});

describe('the switch', () => {
  test('from one rule to the other, proxy by proxy, leaves every new user with one store', async () => {
    const first = await rig.start({ newPartitions: 'legacy' });
    const second = await rig.start({ newPartitions: 'legacy' });
    await rig.parts.registry.declareComplete('ops');
    let serving = [first, second];
    const stopping = new AbortController();
    let users = 0;
    const traffic = (async () => {
      while (!stopping.signal.aborted) {
        users += 1;
        // Each user writes at every proxy, some also later than everybody else.
        const again = Math.max(1, users - 5);
        for (const user of [`u${users}`, `u${again}`]) {
          await Promise.all(serving.map(({ send }) => send(user).catch(() => undefined)));
        }
      }
    })();
    const grown = async (by: number): Promise<unknown> => {
      const from = users;
      return until('more users came', () => users >= from + by);
    };
    await grown(20);
    serving = [second];
    await first.leave();
    const third = await rig.start({ newPartitions: 'app', holdMs: 200 });
    serving = [second, third];
    await grown(20);
    serving = [third];
    await second.leave();
    await until('the new rules are active', () => third.member.trouble() === undefined);
    const fourth = await rig.start({ newPartitions: 'app' });
    serving = [third, fourth];
    await grown(20);
    stopping.abort();
    await traffic;
    const { legacy, app } = rig.took;
    expect([...legacy.keys()].filter((user) => app.has(user))).toEqual([]);
    expect(legacy.size).toBeGreaterThan(20);
    expect(app.size).toBeGreaterThan(10);
  }, 60_000);

  test('a proxy that leaves has told the registry whom it let write, or stays listed', async () => {
    await rig.parts.registry.declareComplete('ops');
    const { send, leave, member } = await rig.start({ newPartitions: 'legacy' });
    // Nothing can be told to a registry that is no hash.
    await raw.set('{onewriter}:registry', 'broken');
    expect(await send('ann')).toEqual(ok('legacy'));
    await leave();
    expect((await rig.parts.ledger.members()).map(({ id }) => id)).toEqual([member.id]);
    const sequence = (await rig.parts.ledger.members())[0]?.sequence;
    expect(await rig.parts.ledger.removeMember(member.id, sequence)).toBe(true);
    expect(await rig.parts.registry.completeness()).toMatchObject({
      complete: false,
      lost: { member: member.id },
    });
  });

  test('a proxy that dies under the new rules knew everybody it let write, so newcomers still begin in the app', async () => {
    await rig.parts.registry.declareComplete('ops');
    const { member } = await rig.start();
    await member.stop();
    const sequence = (await rig.parts.ledger.members())[0]?.sequence;
    expect(await rig.parts.ledger.removeMember(member.id, sequence)).toBe(true);
    expect(await rig.parts.registry.completeness()).toMatchObject({ complete: true, by: 'ops' });
  });
});
