/** The way back from a ledger that lost data: what decides, what is refused, and how members go on (I5). */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { GuardAnswer } from '../../src/core/ports.ts';
import { pairOf } from '../../src/core/links.ts';
import { parseDocument } from '../../src/ledger/document.ts';
import type { Config } from '../../src/config/schema.ts';
import { recoveryOperations } from '../../src/admin/recovery.ts';
import type { AdminParts } from '../../src/admin/parts.ts';
import { ViewKeeper } from '../../src/ledger/keeper.ts';
import { KeptViews } from '../../src/ledger/kept-views.ts';
import { Noticed } from '../../src/ledger/noticed.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { Rescues } from '../../src/ledger/rescues.ts';
import { LedgerRecovery, type RestoreOrder, type RestoreReport } from '../../src/ledger/restore.ts';
import { RestoreTurn, TurnLost } from '../../src/ledger/restore-turn.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: TestLedger;
let dataDir: string;
let views: KeptViews;
let guard: ((partition: string) => Promise<GuardAnswer>) | undefined;
const keepers: ViewKeeper[] = [];

const leaseMs = 600;
const usual: RestoreOrder = {
  ...{ from: 'member', document: undefined, plan: false, prefer: undefined },
  ...{ withoutGuard: false, evenThoughHealthy: false, usesDirectory: false, withoutDirectory: false },
};

beforeEach(async () => {
  server = await startRedis();
  rig = await openLedger(server);
  dataDir = mkdtempSync(join(tmpdir(), 'onewriter-restore-'));
  views = new KeptViews(dataDir, 'the ledger', 'a test');
  guard = undefined;
});
afterEach(async () => {
  for (const keeper of keepers.splice(0)) await keeper.stop();
  await rig.close();
  await server.stop();
  rmSync(dataDir, { recursive: true });
});

async function enter(): Promise<Membership> {
  const member = await rig.join({ leaseMs });
  const rescues = new Rescues(rig.redis);
  const keeper = new ViewKeeper({ holder: member, views, rescues, kept: undefined, log: () => undefined });
  keeper.start();
  keepers.push(keeper);
  return member;
}

function recovery(): LedgerRecovery {
  const { redis, ledger, registry, links } = rig;
  const rescues = new Rescues(redis);
  return new LedgerRecovery({
    ...{ redis, ledger, registry, links, rescues, views, guard, defaultOwner: 'legacy' },
    ...{ quietMs: leaseMs + 700, turnMs: 2_000 },
  });
}

async function restore(order: Partial<RestoreOrder> = {}): Promise<RestoreReport> {
  const done = await recovery().restore({ ...usual, ...order });
  if ('refused' in done) throw new Error(`${done.refused}: ${done.detail}`);
  return done;
}

async function order(partition: string, kind: 'fence' | 'commit' | 'release'): Promise<void> {
  const orders = {
    fence: { kind: 'fence', to: 'app', attempt: partition, fenceMs: 60_000 },
    commit: { kind: 'commit', attempt: partition },
    release: { kind: 'release', attempt: partition },
  } as const;
  const done = await rig.ledger.order({ partition, order: orders[kind], by: 'test', reason: 'test' });
  if (done.result !== 'done') throw new Error(JSON.stringify(done));
}

async function flip(...partitions: string[]): Promise<void> {
  for (const partition of partitions) {
    await order(partition, 'fence');
    await order(partition, 'commit');
    await order(partition, 'release');
  }
}

/** The member was confirmed everything so far. */
function settled(member: Membership): Promise<unknown> {
  return until('confirmed', async () => {
    const { version } = (await rig.ledger.snapshot()).position;
    return member.holding().confirmed?.version === version && version > 0;
  });
}

async function flush(): Promise<void> {
  await rig.redis.flushall();
  await until('the loss is noticed', () => rig.ledger.regression());
}

function admitted(member: Membership, partition: string) {
  return until(`${partition} is admitted`, () => {
    const admission = member.admit(partition);
    if (admission.verdict !== 'admit') return false;
    member.end(admission.ticket, 'ended');
    return admission.ticket;
  });
}

describe('a ledger that was emptied under running members', () => {
  test('is restored from what they know; they come back by themselves and go on where they were', async () => {
    const members = [await enter(), await enter()];
    await flip('u1', 'u2');
    await order('u3', 'fence');
    for (const member of members) await settled(member);
    await flush();
    const [first, second] = members as [Membership, Membership];
    await until('refused', () => first.admit('u1').verdict === 'refuse');
    const done = await restore();
    expect(done).toMatchObject({ restored: true, partitions: { app: 2, legacy: 1 }, conflictCount: 0 });
    expect(await rig.ledger.regression()).toBeUndefined();
    for (const member of [first, second]) {
      expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 14 });
      expect(await admitted(member, 'u3')).toMatchObject({ owner: 'legacy', epoch: 12 });
      expect(await admitted(member, 'stranger')).toMatchObject({ owner: 'legacy', epoch: 1 });
    }
    expect((await rig.ledger.members()).map(({ id }) => id).toSorted()).toEqual(
      [first.id, second.id].toSorted(),
    );
    await flip('u4');
    // This flip waits for no acknowledgement, so the member may still be behind.
    await until('the member saw it', () => first.ownershipOf('u4').epoch === 4);
    expect(await admitted(first, 'u4')).toMatchObject({ owner: 'app', epoch: 4 });
    expect(await new Rescues(rig.redis).all()).toEqual(new Map());
  });

  test('is not lost twice: what was confirmed after the restore is missed like before', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    await flush();
    await restore();
    await admitted(member, 'u1');
    await flush();
    await until('the member has heard of it', () => member.trouble()?.includes('ledger-regressed'));
    expect((await restore()).partitions.app).toBe(1);
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 24 });
  });

  test('lets nobody in, and nothing move, before the last step', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    await flush();
    const startedMs = performance.now();
    const under = restore();
    await expect(order('u2', 'fence')).rejects.toThrow('ledger-regressed');
    expect(member.admit('u1').verdict).toBe('refuse');
    expect(await recovery().restore(usual)).toMatchObject({ refused: 'restore-running' });
    await under;
    // A member that hangs and said nothing: its lease is over by now.
    expect(performance.now() - startedMs).toBeGreaterThan(leaseMs);
    await admitted(member, 'u1');
  });

  test('shows a plan that changes nothing', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    await flush();
    await until('the view is published', async () => (await new Rescues(rig.redis).all()).size > 0);
    const before = await rig.redis.hgetall('{onewriter}:meta');
    const plan = await restore({ plan: true });
    expect(plan).toMatchObject({ restored: false, partitions: { app: 1, legacy: 0 } });
    expect(plan.sources.map(({ kind }) => kind)).toContain('member');
    expect(await rig.redis.hgetall('{onewriter}:meta')).toEqual(before);
    expect((await rig.ledger.snapshot()).partitions).toEqual([]);
  });
});

describe('rollback windows', () => {
  const closedKey = '{onewriter}:sync:windows-closed';
  const closed = () => rig.redis.hgetall(closedKey);

  test('are closed for everybody in the app by a restore, and those that somebody had closed stay theirs', async () => {
    const member = await enter();
    await flip('u1', 'u2', 'u3');
    await settled(member);
    await flush();
    await until('it says what it knows', async () => (await new Rescues(rig.redis).all()).size === 1);
    const byOlga = JSON.stringify({ by: 'olga', reason: 'we stay', atMs: 1 });
    await rig.redis.hset(closedKey, 'u2', byOlga);
    await rig.redis.set(`${closedKey}:version`, '1');
    expect(await restore({ plan: true })).toMatchObject({ partitions: { app: 3 } });
    expect(Object.keys(await closed())).toEqual(['u2']);
    expect(await restore()).toMatchObject({ restored: true, partitions: { app: 3 } });
    const now = await closed();
    expect(Object.keys(now).toSorted()).toEqual(['u1', 'u2', 'u3']);
    expect(now['u2']).toBe(byOlga);
    expect(JSON.parse(now['u1'] ?? '')).toMatchObject({ byRestore: true });
    expect(await rig.redis.get(`${closedKey}:version`)).not.toBe('1');
    expect(await rig.redis.pttl(closedKey)).toBe(-1);
  });

  test('that were closed are something that the ledger can be found to have lost', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    const before = await rig.redis.hgetall('{onewriter}:meta');
    await rig.ledger.noteClosedWindows('olga', 'we stay');
    await settled(member);
    expect(await rig.ledger.regression()).toBeUndefined();
    // An older copy, in which ownership is the same.
    const { version } = (await rig.ledger.snapshot()).position;
    await rig.redis.xdel('{onewriter}:changes', `${version}-0`);
    await rig.redis.hset('{onewriter}:meta', before);
    await until('the loss is noticed', () => rig.ledger.regression());
  });
});

describe('an older copy of Redis put back under running members', () => {
  test('is noticed, refused and restored', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    const copy = join(dataDir, 'copy');
    cpSync(server.directory, copy, { recursive: true });
    await flip('u2');
    await settled(member);
    await server.kill();
    cpSync(copy, server.directory, { recursive: true, force: true });
    const old = await startRedis({ directory: server.directory, port: server.port });
    try {
      await until('noticed', () => member.trouble()?.startsWith('ledger-regressed'), 20_000);
      expect((await rig.ledger.read('u2')).ownership.owner).toBe('legacy');
      await expect(order('u3', 'fence')).rejects.toThrow('ledger-regressed');
      const done = await restore();
      expect(done.partitions).toMatchObject({ app: 2 });
      expect(await admitted(member, 'u2')).toMatchObject({ owner: 'app', epoch: 14 });
    } finally {
      await old.kill();
    }
  });
});

describe('when no member is left', () => {
  async function allGone(): Promise<string[]> {
    await rig.registry.note([{ partition: 'u1', attributes: { seats: 5 } }]);
    const member = await enter();
    await flip('u1');
    await settled(member);
    const lines = [...(await recovery().exportLedger())];
    for (const keeper of keepers.splice(0)) await keeper.stop();
    await member.stop();
    await rig.redis.flushall();
    return lines;
  }

  test('the file of this host is enough', async () => {
    await allGone();
    const kept = await views.newest();
    const member = await rig.join({ leaseMs, ...(kept && { before: kept }) });
    expect(member.trouble()).toContain('ledger-regressed');
    const done = await restore();
    expect(done.sources.find(({ kind }) => kind === 'kept-view')).toMatchObject({ decided: 1 });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 14 });
  });

  test('an export is, and brings back registry and attributes', async () => {
    const lines = await allGone();
    rmSync(join(dataDir, 'ledger-views'), { recursive: true });
    await rig.redis.hset('{onewriter}:meta', 'regressed', 'somebody noticed');
    expect(await recovery().restore(usual)).toMatchObject({ refused: 'nothing-to-restore-from' });
    await restore({ from: 'export', document: parseDocument(lines) });
    expect(await rig.registry.all()).toEqual([{ partition: 'u1', attributes: { seats: 5 } }]);
    const member = await rig.join({ leaseMs });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 14 });
  });

  test('an export that was cut off, or is no export, is refused by its line', async () => {
    const lines = await allGone();
    expect(() => parseDocument(lines.slice(0, -1))).toThrow('its end is missing');
    expect(() => parseDocument([lines[0], '{"is":"partition"}'])).toThrow('line 2');
    expect(() => parseDocument(['{"is":"ledger","format":2}'])).toThrow('another version');
  });
});

describe('what decides', () => {
  test('"empty" sends everybody to legacy, with epochs above all that were used', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    await flush();
    const done = await restore({ from: 'empty' });
    expect(done.partitions).toMatchObject({ legacy: 1, app: 0 });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'legacy', epoch: 14 });
  });

  test('the guard: nothing of what it has seen can come back, and it knows who was written to', async () => {
    guard = async (partition) =>
      partition === 'u1'
        ? { epoch: 9, owner: 'app', closed: false, written: true }
        : { epoch: 0, owner: 'legacy', closed: false, written: false };
    const member = await enter();
    await flip('u1', 'u2');
    await settled(member);
    await flush();
    const done = await restore();
    expect(done.guard).toEqual({ asked: 2, answered: 1 });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 19 });
    expect(await admitted(member, 'u2')).toMatchObject({ owner: 'app', epoch: 14 });
  });

  test('a guard that does not answer stops the restore, unless it is left out by name', async () => {
    guard = () => Promise.reject(new Error('no route to host'));
    const member = await enter();
    await flip('u1');
    await settled(member);
    await flush();
    expect(await recovery().restore(usual)).toMatchObject({ refused: 'guard-silent' });
    expect(await rig.ledger.regression()).toBeDefined();
    await restore({ withoutGuard: true });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app' });
  });

  test('two owners under one epoch are named and refused, until one source is preferred', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    await rig.redis.flushall();
    // Somebody moved it elsewhere under the same epoch before anybody noticed.
    const other = { phase: 'open', owner: 'legacy', epoch: 4, version: 3, transitionId: 'x', changedAtMs: 1 };
    await rig.redis.hset('{onewriter}:partitions', 'u1', JSON.stringify(other));
    await until('the loss is noticed', () => rig.ledger.regression());
    expect(await recovery().restore(usual)).toMatchObject({
      refused: 'restore-conflicts',
      conflicts: [{ partition: 'u1', detail: expect.stringContaining('under the same epoch 4') }],
    });
    expect(await rig.ledger.regression()).toBeDefined();
    await restore({ prefer: 'member' });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 14 });
  });

  test('a healthy ledger is not restored, unless somebody insists', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    expect(await recovery().restore(usual)).toMatchObject({ refused: 'ledger-not-regressed' });
    expect(await recovery().restore({ ...usual, plan: true })).toMatchObject({
      refused: 'ledger-not-regressed',
    });
    await restore({ evenThoughHealthy: true });
    expect(await admitted(member, 'u1')).toMatchObject({ owner: 'app', epoch: 14 });
  });
});

describe('numbers that no ledger can have counted', () => {
  const exported = (version: number, epoch: number) =>
    parseDocument([
      { ...{ is: 'ledger', format: 1, kind: 'export', by: 'x', atMs: 1 }, position: { version, id: 'x' } },
      { is: 'partition', partition: 'u1', ownership: { phase: 'open', owner: 'app', epoch } },
      { is: 'end', entries: 1 },
    ]);

  test('an epoch or a version beyond them is refused, and what is restored can still move', async () => {
    const order = { ...usual, from: 'export', evenThoughHealthy: true } as const;
    const refused = (version: number, epoch: number) =>
      recovery().restore({ ...order, document: exported(version, epoch), prefer: 'export' });
    const detail = expect.stringContaining('no ledger can have counted');
    expect(await refused(3, 10 ** 14)).toMatchObject({
      refused: 'restore-conflicts',
      conflicts: [{ partition: 'u1', detail }],
    });
    expect(await refused(10 ** 14, 4)).toMatchObject({ refused: 'restore-conflicts', detail });
    expect(() => exported(3, -1)).toThrow('line 2');
    expect(() => exported(-1, 3)).toThrow('line 1');
    await restore({ ...order, document: exported(10 ** 13 - 10 ** 6, 10 ** 13 - 10) });
    await flip('u2');
    const back = { kind: 'fence', to: 'legacy', attempt: 'back', fenceMs: 60_000 } as const;
    await rig.ledger.order({ partition: 'u1', order: back, by: 'test', reason: 'test' });
    expect((await rig.ledger.read('u1')).ownership).toMatchObject({ phase: 'fenced', epoch: 10 ** 13 + 1 });
  });
});

describe('the directory of users', () => {
  /** The call of the admin API; of its other parts this one needs none. */
  const ask = async (partition: Config['partition'], body: object = {}): Promise<unknown> => {
    const parts = { rules: () => ({ partition, newPartitions: 'legacy' }), recovery: recovery() };
    const call = recoveryOperations(parts as unknown as AdminParts).find(
      ({ path }) => path === '/ledger/restore',
    );
    const order = {
      from: 'member',
      reason: 'test',
      plan: true,
      withoutGuard: false,
      evenThoughHealthy: false,
    };
    return call?.run({ body: { ...order, withoutDirectory: false, ...body } } as unknown as Parameters<
      typeof call.run
    >[0]);
  };

  test('counts for the admin API where a rule looks users up in it', async () => {
    const member = await enter();
    await flip('org1');
    await settled(member);
    await flush();
    await until('the view is published', async () => (await new Rescues(rig.redis).all()).size > 0);
    const rules = [{ directory: true }, { by: 'user' }] as const;
    expect(await ask([...rules])).toMatchObject({ problem: { code: 'directory-lost' } });
    expect(await ask([...rules], { withoutDirectory: true })).toMatchObject({ answer: { restored: false } });
    expect(await ask([{ by: 'user' }])).toMatchObject({ answer: { restored: false } });
  });

  test('that is lost stops a restore without an export, until somebody says so by name', async () => {
    const member = await enter();
    await rig.redis.hset('{onewriter}:directory', 'ann', 'org1');
    await flip('org1');
    await settled(member);
    const document = parseDocument(await recovery().exportLedger());
    await flush();
    const order = { ...usual, usesDirectory: true };
    expect(await recovery().restore(order)).toMatchObject({ refused: 'directory-lost' });
    expect(await recovery().restore({ ...order, plan: true })).toMatchObject({ refused: 'directory-lost' });
    expect(await rig.ledger.regression()).toBeDefined();
    expect((await restore({ ...order, withoutDirectory: true, plan: true })).partitions.app).toBe(1);
    await restore({ ...order, from: 'export', document });
    expect(await rig.redis.hgetall('{onewriter}:directory')).toEqual({ ann: 'org1' });
    // The ledger still has its entries.
    await restore({ ...order, evenThoughHealthy: true });
    await rig.redis.del('{onewriter}:directory');
    expect(await recovery().restore({ ...order, evenThoughHealthy: true })).toMatchObject({
      refused: 'directory-lost',
    });
    expect(await rig.ledger.regression()).toBeUndefined();
    await restore({ ...order, evenThoughHealthy: true, withoutDirectory: true });
  });
});

test('an export brings back which partitions are written together', async () => {
  const member = await enter();
  await flip('u1');
  await rig.links.note([pairOf('u1', 'u2'), pairOf('u1', 'u3')], '/batch');
  await rig.links.note([pairOf('u4', 'u5')], '/invite');
  await settled(member);
  const document = parseDocument(await recovery().exportLedger());
  expect(document.links).toMatchObject([{ route: '/batch' }, { route: '/batch' }, { route: '/invite' }]);
  await flush();
  await restore({ from: 'export', document });
  const { links } = await rig.links.page('', 10);
  expect(links.map(({ partitions, route }) => [...partitions, route])).toEqual([
    ['u1', 'u2', '/batch'],
    ['u1', 'u3', '/batch'],
    ['u4', 'u5', '/invite'],
  ]);
});

describe('the registry', () => {
  test('gets the partitions that are restored', async () => {
    const member = await enter();
    await flip('u1', 'u2');
    await settled(member);
    await flush();
    await restore();
    expect((await rig.registry.all()).map(({ partition }) => partition).toSorted()).toEqual(['u1', 'u2']);
  });

  test('is told again after a while what traffic shows: it may have been lost', async () => {
    const noticed = new Noticed(rig.registry, async () => true, 50);
    noticed.add('u1');
    await noticed.flush();
    await rig.redis.flushall();
    await until('it is told again', async () => {
      noticed.add('u1');
      await noticed.flush();
      return rig.registry.knows('u1');
    });
  });
});

describe('the turn of a restore', () => {
  const underWay = '{onewriter}:restoring';
  const begin = (): Promise<RestoreTurn> =>
    RestoreTurn.begin(rig.redis, { turnMs: 60_000, evenThoughHealthy: true }).then((turn) => {
      if (typeof turn === 'string') throw new Error(turn);
      return turn;
    });
  const record = { phase: 'open', owner: 'app', epoch: 14, version: 9, transitionId: 'x', changedAtMs: 1 };

  test('is kept as long as it works, however long that takes', async () => {
    await flip('u1');
    guard = async () => {
      const leftMs = await rig.redis.pttl(underWay);
      await until('it is renewed', async () => (await rig.redis.pttl(underWay)) > leftMs);
      return { epoch: 4, owner: 'app', closed: false, written: true };
    };
    expect(await restore({ from: 'empty', evenThoughHealthy: true })).toMatchObject({ restored: true });
    expect(await rig.redis.exists(underWay)).toBe(0);
  });

  test('once lost, is the end of it: it writes nothing any more, neither aside nor beside', async () => {
    await rig.registry.note([{ partition: 'u1' }]);
    await flip('u1');
    const document = parseDocument(await recovery().exportLedger());
    await rig.redis.del('{onewriter}:registry');
    const writes = async (): Promise<string | undefined> =>
      /^rdb_changes_since_last_save:(\d+)/m.exec(await rig.redis.info('persistence'))?.[1];
    let then: string | undefined;
    guard = async () => {
      await rig.redis.set(underWay, 'another');
      then = await writes();
      return { epoch: 4, owner: 'app', closed: false, written: true };
    };
    expect(
      await recovery().restore({ ...usual, from: 'export', document, evenThoughHealthy: true }),
    ).toMatchObject({ refused: 'restore-running' });
    expect(await writes()).toBe(then);
    expect(await rig.redis.get(underWay)).toBe('another');
    expect(await rig.ledger.regression()).toBeDefined();
  });

  test('does not end with a part of what it wrote', async () => {
    await flip('u1');
    const turn = await begin();
    await turn.writeAside('partitions', [
      ['u1', JSON.stringify(record)],
      ['u2', JSON.stringify(record)],
    ]);
    // As where a replica is promoted that had not got all of it.
    const [aside = ''] = await rig.redis.keys('{onewriter}:restored:*');
    await rig.redis.hdel(aside, 'u2');
    await expect(turn.finish(100, 'id', undefined)).rejects.toThrow(TurnLost);
    expect(await rig.ledger.regression()).toBeDefined();
    expect((await rig.ledger.read('u1')).ownership.epoch).toBe(4);
    await turn.giveUp();
  });

  test('that was lost before the last step changes nothing, and takes nothing from the one that has it now', async () => {
    const turn = await begin();
    await turn.writeAside('partitions', [['u1', JSON.stringify(record)]]);
    await rig.redis.set(underWay, 'another');
    await expect(turn.finish(100, 'id', undefined)).rejects.toThrow(TurnLost);
    expect((await rig.ledger.read('u1')).version).toBe(0);
    await turn.giveUp();
    expect(await rig.redis.get(underWay)).toBe('another');
    expect(await rig.ledger.regression()).toBeDefined();
  });

  test('that is given up leaves everything as it was, and that ends leaves what was there', async () => {
    const directory = '{onewriter}:directory';
    await rig.redis.hset(directory, 'ann', 'org1');
    const entries = Array.from({ length: 2_500 }, (_, at) => [`u${at}`, 'org2'] as const);
    const given = await begin();
    await given.writeAside('directory', entries);
    expect(await rig.redis.hlen(directory)).toBe(1);
    await given.giveUp();
    expect(await rig.redis.hgetall(directory)).toEqual({ ann: 'org1' });
    expect(await rig.redis.keys('{onewriter}:rest*')).toEqual([]);
    expect(await rig.ledger.regression()).toBeUndefined();
    const turn = await begin();
    await turn.writeAside('partitions', [['u1', JSON.stringify(record)]]);
    await turn.writeAside('directory', [...entries, ['ann', 'org9']]);
    await turn.finish(100, 'id', undefined);
    expect(await rig.redis.hlen(directory)).toBe(2_501);
    expect(await rig.redis.hmget(directory, 'ann', 'u2499')).toEqual(['org1', 'org2']);
    expect(await rig.redis.pttl('{onewriter}:partitions')).toBe(-1);
    expect(await rig.redis.keys('{onewriter}:rest*')).toEqual([]);
  });
});

describe('a large ledger', () => {
  test('of 100,000 partitions is exported and restored', async () => {
    const member = await enter();
    await flip('u1');
    await settled(member);
    const record = { phase: 'open', owner: 'app', epoch: 4, version: 3, transitionId: 'x', changedAtMs: 1 };
    for (let at = 0; at < 100_000; at += 1_000) {
      const names = Array.from({ length: 1_000 }, (_, offset) => `partition-${at + offset}`);
      await rig.redis.hset(
        '{onewriter}:partitions',
        ...names.flatMap((name) => [name, JSON.stringify(record)]),
      );
    }
    const document = parseDocument(await recovery().exportLedger());
    expect(document.partitions.size).toBe(100_001);
    await flush();
    const done = await restore({ from: 'export', document });
    expect(done.partitions.app).toBe(100_001);
    expect(await admitted(member, 'partition-99999')).toMatchObject({ owner: 'app', epoch: 14 });
  }, 60_000);
});
