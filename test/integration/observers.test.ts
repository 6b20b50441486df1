/** Proxies that only observe, and the ledger: while one may send writes to legacy, nothing moves away from it. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { RedisAddress } from '../../src/ledger/connection.ts';
import { keys } from '../../src/ledger/connection.ts';
import { KeptViews } from '../../src/ledger/kept-views.ts';
import { nameOfLedger } from '../../src/ledger/lookout.ts';
import { ObserverPost, type ObserverPostSettings } from '../../src/ledger/observing.ts';
import { FlipRig } from '../support/flip.ts';
import { until } from '../support/until.ts';

let rig: FlipRig;
let dataDir: string;
let logged: string[];
let posts: ObserverPost[];

async function take(changes: Partial<ObserverPostSettings> = {}): Promise<ObserverPost> {
  const post = await ObserverPost.take({
    find: async () => ({ url: rig.server.url }),
    ...{ redisUrl: rig.server.url, dataDir, minReplicas: 0, settleMs: 0, everyMs: 20 },
    log: (_level, event) => void logged.push(event),
    ...changes,
  });
  posts.push(post);
  return post;
}

const listed = () => rig.ledger.ledger.observers.list();
const toApp = (partition: string) =>
  rig.ledger.ledger.order({
    ...{ partition, by: 'test', reason: 'test' },
    order: { kind: 'fence', to: 'app', attempt: `of ${partition}`, fenceMs: 60_000 },
  });

beforeEach(async () => {
  rig = await FlipRig.start();
  dataDir = mkdtempSync(join(tmpdir(), 'onewriter-observers-'));
  logged = [];
  posts = [];
});

afterEach(async () => {
  for (const post of posts) await post.leave();
  await rig.close();
  rmSync(dataDir, { recursive: true });
});

describe('while a proxy observes', () => {
  test('no partition is fenced, whoever orders it; once it has left, one is', async () => {
    const post = await take();
    expect(post.listed).toBe(true);
    expect(await toApp('u1')).toMatchObject({ result: 'refused', refusal: { refused: 'observed' } });
    expect(await rig.ledger.ledger.touched()).toEqual(new Map());
    await post.leave();
    expect(await toApp('u1')).toMatchObject({ result: 'done' });
  });

  test('a plan names it, and a flip is refused', async () => {
    const member = await rig.ledger.join();
    const desk = await rig.openDesk();
    const post = await take();
    const order = { cohort: 'pilot', to: 'app', reason: 'test', by: 'ops' } as const;
    expect(await desk.start(order)).toMatchObject({
      refused: 'nothing-can-move',
      blockers: [{ code: 'observing', detail: expect.stringContaining(post.id) }],
    });
    await post.leave();
    const flip = await rig.start(desk);
    expect((await rig.ended(desk, flip.id)).state).toBe('completed');
    await member.stop();
  });

  test('one that begins in the middle of a flip: nothing moves after it, and it does not begin after anything', async () => {
    const member = await rig.ledger.join();
    const { desk } = await rig.open({ waves: ['1', '100%'], attempts: 1 });
    const letGo = rig.holdAt('u00');
    const flip = await rig.start(desk);
    await until('the first is fenced', async () => (await rig.ownerOf('u00')) === 'fenced legacy');
    await expect(take()).rejects.toThrow('"u00" does not live in legacy, or is on its way');
    expect(await listed()).toEqual([]);
    await until('its deadline has passed', async () => (await rig.ownerOf('u00')) === 'open legacy');
    await take();
    letGo();
    await rig.untilFlip(desk, flip.id, 'nothing moves', ({ state }) => state !== 'running');
    expect((await rig.ledger.ledger.read('u00')).ownership).toMatchObject({ owner: 'legacy' });
    expect(await toApp('u05')).toMatchObject({ result: 'refused', refusal: { refused: 'observed' } });
    await member.stop();
  });

  test('nobody counts as new, because nobody is told whom it lets write', async () => {
    const { ledger, registry } = rig.ledger;
    const rules = { hash: 'same', newPartitions: 'app' } as const;
    await ledger.activateRules(undefined, rules, 'test', 'test');
    await registry.declareComplete('ops');
    expect(await ledger.claim('new-1', rules, 'test')).toMatchObject({ result: 'claimed' });
    await rig.redis.hdel(keys.partitions, 'new-1');
    const post = await take();
    expect(await registry.completeness()).toMatchObject({ complete: false, lost: { member: post.id } });
    // Also where somebody says so while it runs, and where it has left since.
    await registry.declareComplete('ops');
    expect(await ledger.claim('new-2', rules, 'test')).toMatchObject({ result: 'taken-for-old' });
    await post.leave();
    expect(await registry.completeness()).toMatchObject({ complete: false });
    expect(await ledger.claim('new-3', rules, 'test')).toMatchObject({ result: 'taken-for-old' });
  });

  test('a feed that is late is waited for after it has left, as after a member', async () => {
    expect(await rig.ledger.ledger.lastDepartureMs()).toBe(0);
    const post = await take();
    await post.leave();
    expect(await rig.ledger.ledger.lastDepartureMs()).toBeGreaterThan(0);
  });

  test('its silence proves nothing: it stays on the list without Redis, and is removed only as it was seen last', async () => {
    const cutter = await rig.cutter();
    const post = await take({ find: async () => ({ url: cutter.url }) });
    cutter.cut();
    await until('it has noticed', () => logged.includes('observer.not-listed'), 20_000);
    const [record] = await listed();
    expect(record?.id).toBe(post.id);
    cutter.mend();
    await until('it is seen again', async () => (await listed())[0]?.seenAtMs !== record?.seenAtMs, 20_000);
    expect(await rig.ledger.ledger.observers.end(post.id, record?.seenAtMs)).toBe(false);
    expect(await listed()).toHaveLength(1);
  });
});

describe('once something has moved', () => {
  test('it does not begin', async () => {
    await toApp('u1');
    await expect(take()).rejects.toThrow(/"u1" does not live in legacy.*proxy\.mode to enforce/s);
    expect(await listed()).toEqual([]);
  });

  test('one that was taken for dead and comes back finds out, and must end', async () => {
    const cutter = await rig.cutter();
    const post = await take({ find: async () => ({ url: cutter.url }) });
    cutter.cut();
    await until('it has noticed', () => logged.includes('observer.not-listed'), 20_000);
    const [record] = await listed();
    expect(await rig.ledger.ledger.observers.end(post.id, record?.seenAtMs)).toBe(true);
    await toApp('u1');
    cutter.mend();
    expect((await post.displaced).message).toContain('"u1"');
    expect(await listed()).toEqual([]);
  });

  test('one that stands on the list finds out, too, where a restore brought it back', async () => {
    const post = await take();
    const moved = { phase: 'open', owner: 'app', epoch: 4, version: 9, transitionId: 'x', changedAtMs: 1 };
    await rig.redis
      .multi()
      .hset(keys.partitions, 'u7', JSON.stringify(moved))
      .hset(keys.meta, 'version', 9)
      .exec();
    expect((await post.displaced).message).toContain('"u7"');
    // It still stands there: what it has passed on may still take effect.
    expect(await listed()).toHaveLength(1);
  });

  test('one that a ledger without memory has forgotten must end: nobody knows what has moved', async () => {
    const post = await take();
    await rig.redis.multi().del(keys.observers).hset(keys.meta, 'regressed', 'it is gone').exec();
    expect((await post.displaced).message).toContain('The ledger has lost data (it is gone)');
  });

  test('everything back in legacy is as if nothing had moved', async () => {
    await toApp('u1');
    await rig.ledger.ledger.order({
      ...{ partition: 'u1', by: 'test', reason: 'test' },
      order: { kind: 'abort', attempt: 'of u1' },
    });
    expect((await take()).listed).toBe(true);
  });
});

describe('a ledger that cannot be asked', () => {
  test('one that is named and does not answer: it does not begin', async () => {
    const nowhere = { url: 'redis://127.0.0.1:1' };
    await expect(take({ find: async () => nowhere })).rejects.toThrow(
      'Redis does not answer at redis://127.0.0.1:1',
    );
  });

  test('one that has lost data: it does not begin, also where only this host knows', async () => {
    const views = new KeptViews(dataDir, nameOfLedger({ redisUrl: rig.server.url, dataDir }), 'test');
    const position = { version: 7, id: 'seven' };
    await views.save({ confirmed: position, position, partitions: [], rules: undefined });
    await expect(take()).rejects.toThrow('The ledger has lost data');
    rmSync(join(dataDir, 'ledger-views'), { recursive: true });
    await rig.redis.hset(keys.meta, 'regressed', 'somebody else noticed');
    await expect(take()).rejects.toThrow('The ledger has lost data (somebody else noticed)');
  });

  test('there is none: it begins, and stands on the list as soon as there is one', async () => {
    let address: RedisAddress | undefined;
    const post = await take({ find: async () => address });
    expect(post.listed).toBe(false);
    address = { url: rig.server.url };
    await until('it is listed', async () => (await listed()).length === 1);
    expect(await toApp('u1')).toMatchObject({ result: 'refused', refusal: { refused: 'observed' } });
  });

  test('there is none, but this directory knows of one: it does not begin', async () => {
    mkdirSync(join(dataDir, 'ledger-views'));
    writeFileSync(join(dataDir, 'ledger-views', 'x.ndjson'), '');
    await expect(take({ find: async () => undefined })).rejects.toThrow(
      'ledger-views says that there was a ledger',
    );
  });

  test('one that dies: it goes on, and leaves without it', async () => {
    const post = await take();
    await rig.server.kill();
    await until('it has noticed', () => logged.includes('observer.not-listed'), 20_000);
    await post.leave();
    expect(logged).toContain('observer.stays-listed');
  });
});
