/** Reads that a copy answers: when, and when not, with real members, real stores and a real sync. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { pause } from '../../src/pause.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { readsKeys } from '../../src/sync/reads/script.ts';
import { SeededRandom } from '../model/random.ts';
import { CopyReadsRig, type ProxyNode, type Seen, titleOf } from '../support/copy-reads.ts';
import { Cutter } from '../support/flip.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: CopyReadsRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

type Options = Parameters<typeof CopyReadsRig.start>[1];
async function start(options: Options = {}): Promise<void> {
  const records = [appointment('1', 'ann', 'one'), appointment('2', 'bob', 'two')];
  rig = await CopyReadsRig.start(server, { legacy: { records }, ...options });
}
async function startCopying(options: Options = {}): Promise<void> {
  await start(options);
  await rig.sync.sync.startWorkers();
}

describe('a read with reads: copy', () => {
  test('is the owner’s before anything was copied, and the copy’s afterwards, which says how old it is', async () => {
    await start();
    const early = await rig.ask(rig.nodes[0], 'ann', '/appointments/1');
    expect([early.store, early.lagMs, titleOf(early)]).toEqual(['legacy', null, 'one']);
    await rig.sync.sync.startWorkers();
    const seen = await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    expect(titleOf(seen)).toBe('one');
    expect(Number(seen.lagMs)).toBeLessThanOrEqual(3_000);
    await rig.readFromCopy(rig.nodes[1], 'bob', '2');
  });

  test('is the owner’s until what the first look has found was copied', async () => {
    await start();
    let letGo = (): void => undefined;
    const held = new Promise<undefined>((resolve) => (letGo = () => resolve(undefined)));
    rig.sync.app.intercept = ({ method }) => (method === 'PUT' ? held : undefined);
    await rig.sync.sync.startWorkers();
    await until('a look has reached the end', async () => (await provenMs()) > 0);
    const provenAt = await provenMs();
    const seen: Seen[] = [];
    await until('more looks follow', async () => {
      seen.push(await read(0));
      return (await provenMs()) > provenAt + 500;
    });
    expect(new Set(seen.map(({ store }) => store))).toEqual(new Set(['legacy']));
    expect(await rig.sync.sync.desk.lagMs()).toBeUndefined();
    letGo();
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
  });

  test('shows every write that any member has answered', async () => {
    await startCopying();
    const [a, b] = rig.nodes;
    for (let round = 1; round <= 5; round += 1) {
      await rig.readFromCopy(b, 'ann', '1');
      expect((await rig.write(a, 'ann', '1', `round ${round}`)).status).toBe(200);
      expect(titleOf(await rig.ask(b, 'ann', '/appointments/1'))).toBe(`round ${round}`);
    }
  });

  test('goes to the copy with the guard headers of a read, under the partition’s epoch', async () => {
    await startCopying({ appStore: { guard: true } });
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    const call = rig.sync.app.calls.findLast(({ headers }) => headers['onewriter-user'] === 'ann');
    expect(call?.headers).toMatchObject({
      ...{ 'onewriter-partition': 'ann', 'onewriter-epoch': '1', 'onewriter-access': 'read' },
    });
  });

  test('is the owner’s while copies are older than the route allows', async () => {
    await startCopying();
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    await rig.sync.sync.stop();
    rig.sync.legacy.set(appointment('1', 'ann', 'changed'));
    await alwaysSoon('the owner answers', (seen) => titleOf(seen) === 'changed');
    expect(rig.nodes[0]?.proxy.counters().copyReads.byOwner.late).toBeGreaterThan(0);
  });

  test('is the owner’s when only a full pass shows deletes, and the last one is too long ago', async () => {
    await startCopying({ legacy: { since: true, records: [dated('1', 'ann')] }, maxStalenessMs: 4_000 });
    // The first full pass may come before the member has heard what the others write: then it needs another.
    await until('a copy answers', async () => {
      if ((await read(0)).store === 'app') return true;
      await rig.sync.redis.hdel(syncKeys.progress, 'feed legacy appointment');
      return false;
    });
    await until('the feed is followed', async () => {
      const feed = await rig.sync.redis.hget(syncKeys.progress, 'feed legacy appointment');
      return feed?.includes('"proven"');
    });
    // After the poll that may have begun as a full pass.
    const provenAt = await provenMs();
    await until('another poll has ended', async () => (await reachedMs()) > provenAt + 200);
    await until('nothing waits', async () => (await rig.sync.sync.backlog()) === 0);
    rig.sync.legacy.remove('1');
    await alwaysSoon('the owner answers', ({ status }) => status === 404);
    expect([...rig.sync.app.records.keys()]).toEqual(['1']);
  });

  test('is the owner’s while a record of the partition cannot be copied, and of this partition alone', async () => {
    await startCopying({ sync: { attempts: 1 } });
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    await rig.readFromCopy(rig.nodes[0], 'bob', '2');
    rig.sync.app.intercept = ({ method, body }) =>
      method === 'PUT' && body?.['owner_id'] === 'ann' ? { status: 422 } : undefined;
    rig.sync.legacy.set(appointment('1', 'ann', 'poison'));
    await until('there is a dead letter', async () => (await rig.sync.sync.deadLetters.total()) === 1);
    // For as long as it takes that everything else was proven anew.
    const provenAt = await provenMs();
    await until('the polls go on', async () => (await provenMs()) > provenAt + 500);
    expect([(await read(0)).store, titleOf(await read(0))]).toEqual(['legacy', 'poison']);
    await rig.readFromCopy(rig.nodes[0], 'bob', '2');
  });

  test('is the owner’s while its store does not answer', async () => {
    await startCopying({ appStore: { readTimeoutMs: 200 } });
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    // Only users' reads fail, so that the copies stay fresh.
    rig.sync.app.intercept = ({ headers }) =>
      headers['x-user'] === undefined ? undefined : new Promise<never>(() => undefined);
    expect((await read(0)).status).toBe(504);
    expect((await read(0)).store).toBe('legacy');
    expect(rig.nodes[0]?.proxy.counters().copyReads.byOwner.failing).toBe(1);
    rig.sync.app.intercept = undefined;
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
  });
});

describe('a partition that moves', () => {
  test('is read at its owner while it is fenced, and until it was compared as a whole after an abort', async () => {
    await startCopying({ legacy: { since: true, softDeletes: true, records: [dated('1', 'ann')] } });
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    const attempt = 'attempt';
    await order({ kind: 'fence', to: 'app', attempt, fenceMs: 20_000 });
    await everybodyKnows(2);
    expect((await read(0)).store).toBe('legacy');
    await order({ kind: 'abort', attempt });
    await everybodyKnows(3);
    const provenAt = await provenMs();
    await until('the polls go on', async () => (await provenMs()) > provenAt + 1_000);
    expect((await read(0)).store).toBe('legacy');
    expect((await read(1)).store).toBe('legacy');
    expect(rig.nodes[0]?.proxy.counters().copyReads.byOwner.moving).toBe(1);
  });

  test('is read in the app when it is the owner, which nothing is copied from', async () => {
    await startCopying();
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    await rig.sync.flip('ann');
    await everybodyKnows(4);
    const { store, lagMs } = await read(0);
    expect([store, lagMs]).toEqual(['app', null]);
    await pause(0);
    expect(rig.nodes[0]?.proxy.counters().copyReads.byOwner['not-copied']).toBe(1);
  });

  test('a client that has seen a newer epoch waits for the member’s view, for a second at most', async () => {
    await startCopying();
    const [a] = rig.nodes;
    const headers = { 'onewriter-epoch': '2' };
    const early = await rig.ask(a, 'ann', '/appointments/1', { headers });
    expect([early.store, early.epoch]).toEqual(['legacy', '1']);
    expect(early.tookMs).toBeGreaterThan(900);
    const waiting = rig.ask(a, 'ann', '/other', { headers: { 'onewriter-epoch': '4' } });
    await rig.sync.flip('ann');
    const seen = await waiting;
    expect([seen.store, seen.epoch]).toEqual(['app', '4']);
  });
});

describe('what members know of each other’s writes', () => {
  test('a member that has lost touch with the others makes nobody read copies, and its writes are answered', async () => {
    await start({ nodes: 1 });
    const cutter = await Cutter.open(server.port);
    try {
      const cut = await rig.join(cutter.url);
      await rig.sync.sync.startWorkers();
      await rig.readFromCopy(rig.nodes[0], 'ann', '1');
      cutter.cut();
      expect((await rig.write(cut, 'ann', '1', 'behind the cut')).status).toBe(200);
      // By then the other one has noticed, before it could know of the write.
      const seen = await read(0);
      expect([seen.store, titleOf(seen)]).toEqual(['legacy', 'behind the cut']);
      cutter.mend();
      expect(titleOf(await rig.readFromCopy(rig.nodes[0], 'ann', '1'))).toBe('behind the cut');
      expect(titleOf(await rig.readFromCopy(cut, 'ann', '1'))).toBe('behind the cut');
    } finally {
      await cutter.close();
    }
  });

  test('a member that hears nothing any more reads no copies', async () => {
    await start({ nodes: 1 });
    const cutter = await Cutter.open(server.port);
    try {
      const deaf = await rig.join(cutter.url);
      await rig.sync.sync.startWorkers();
      await rig.readFromCopy(deaf, 'ann', '1');
      cutter.cut();
      expect((await rig.write(rig.nodes[0], 'ann', '1', 'unheard')).status).toBe(200);
      const seen = await rig.ask(deaf, 'ann', '/appointments/1');
      expect([seen.store, titleOf(seen)]).toEqual(['legacy', 'unheard']);
    } finally {
      await cutter.close();
    }
  });

  test('a member on the list that never says anything makes nobody read copies', async () => {
    await startCopying();
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    const silent = await rig.ledger.join();
    const provenAt = await provenMs();
    // By its age the copy could be read all the time.
    const seen: (string | null)[] = [];
    await until('the copies are proven again and again', async () => {
      seen.push((await read(0)).store);
      return (await provenMs()) > provenAt + 1_000;
    });
    expect(new Set(seen.slice(-20))).toEqual(new Set(['legacy']));
    await silent.leave(0);
    await rig.readFromCopy(rig.nodes[0], 'ann', '1');
  });

  test('what was said and not heard is noticed, and everybody says again what is under way', async () => {
    await startCopying();
    const [a, b] = rig.nodes;
    await rig.readFromCopy(b, 'ann', '1');
    let letGo = (): void => undefined;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    rig.sync.legacy.intercept = async ({ method }) => {
      if (method === 'PUT') await held;
      return undefined;
    };
    const write = rig.write(a, 'ann', '1', 'under way');
    await until('it is known', async () => (await read(1)).store === 'legacy');
    const census = async (): Promise<number> => Number(await rig.sync.redis.hget(readsKeys.counts, 'census'));
    const before = await census();
    // As after a failover that has lost what was said last.
    await rig.sync.redis.hincrby(readsKeys.counts, 'entries', 3);
    await until('everybody is asked', async () => (await census()) > before);
    await rig.readFromCopy(b, 'bob', '2');
    expect((await read(1)).store).toBe('legacy');
    letGo();
    await write;
    expect(titleOf(await read(1))).toBe('under way');
    expect(titleOf(await rig.readFromCopy(b, 'ann', '1'))).toBe('under way');
  });

  test('random writes through two members: nobody reads less than was answered before, or what is too old', async () => {
    const maxStalenessMs = 1_500;
    const users = ['ann', 'bob', 'eve'];
    const records = users.flatMap((user) => [
      appointment(`by-${user}`, user, '0'),
      appointment(`around-${user}`, user, '0'),
    ]);
    await startCopying({ maxStalenessMs, legacy: { records }, sync: { pollMs: 30 } });
    for (const user of users) await rig.readFromCopy(rig.nodes[1], user, `by-${user}`);
    const seed = new SeededRandom(Number(process.env['COPY_READS_SEED'] ?? 7));
    const random = (): number => seed.next();
    const anyNode = (): ProxyNode | undefined => rig.nodes[Math.floor(random() * rig.nodes.length)];
    const beganMs = performance.now();
    const stores: Record<string, number> = { app: 0, legacy: 0 };
    // A busy machine needs longer until copies have been read often enough.
    const goesOn = (): boolean => {
      const tookMs = performance.now() - beganMs;
      return tookMs < 8_000 || (tookMs < 60_000 && (stores['app'] ?? 0) < 100);
    };
    const answered = new Map(users.map((user) => [user, 0]));
    /** Around the proxies: what was written when. */
    const around = new Map(users.map((user) => [user, [{ value: 0, atMs: 0 }]]));
    const wrong: string[] = [];
    const numberIn = (seen: Seen): number => {
      stores[String(seen.store)] = (stores[String(seen.store)] ?? 0) + 1;
      if (seen.status !== 200) wrong.push(`status ${seen.status} from ${seen.store}`);
      return Number(titleOf(seen));
    };
    const write = async (user: string): Promise<void> => {
      for (let value = 1; goesOn(); value += 1) {
        const { status } = await rig.write(anyNode(), user, `by-${user}`, String(value));
        if (status !== 200) wrong.push(`a write was answered ${status}`);
        answered.set(user, value);
        await pause(random() * 1_200);
      }
    };
    const writeAround = async (user: string): Promise<void> => {
      for (let value = 1; goesOn(); value += 1) {
        rig.sync.legacy.set(appointment(`around-${user}`, user, String(value)));
        around.get(user)?.push({ value, atMs: performance.now() });
        await pause(random() * 1_500);
      }
    };
    const read = async (user: string): Promise<void> => {
      while (goesOn()) {
        const atLeast = answered.get(user) ?? 0;
        const seen = numberIn(await rig.ask(anyNode(), user, `/appointments/by-${user}`));
        if (seen < atLeast) wrong.push(`${user} read ${seen} after ${atLeast} was answered`);
        const oldestMs = performance.now() - maxStalenessMs;
        const due = around.get(user)?.findLast(({ atMs }) => atMs < oldestMs)?.value ?? 0;
        const shown = numberIn(await rig.ask(anyNode(), user, `/appointments/around-${user}`));
        if (shown < due) wrong.push(`${user} read ${shown} although ${due} was older than the bound`);
      }
    };
    await Promise.all(users.flatMap((user) => [write(user), writeAround(user), read(user), read(user)]));
    expect(wrong).toEqual([]);
    expect(stores['app']).toBeGreaterThan(0);
    expect(stores['legacy']).toBeGreaterThan(0);
  }, 120_000);
});

describe('reads: app', () => {
  test('goes to the app whatever is copied, where no age is given', async () => {
    await start();
    expect((await rig.ask(rig.nodes[0], 'ann', '/team')).store).toBe('app');
  });

  test('is refused while copies are older than the route allows, with 503 and Retry-After', async () => {
    await start();
    const early = await rig.ask(rig.nodes[0], 'ann', '/fresh-team');
    expect([early.status, early.body]).toMatchObject([503, { code: 'copy-too-old' }]);
    await rig.sync.sync.startWorkers();
    const seen = await until('copies are fresh', async () => {
      const answer = await rig.ask(rig.nodes[0], 'ann', '/fresh-team');
      return answer.status !== 503 && answer;
    });
    expect(seen.store).toBe('app');
    expect(Number(seen.lagMs)).toBeLessThanOrEqual(3_000);
  });

  test('asks only for the partitions that the route names: those of the app are never old', async () => {
    await start();
    expect((await rig.ask(rig.nodes[0], 'ann', '/people/bob/appointments')).status).toBe(503);
    await rig.sync.flip('bob');
    await until('the member knows', () => rig.nodes[0]?.member.ownershipOf('bob').epoch === 4);
    const seen = await rig.ask(rig.nodes[0], 'ann', '/people/bob/appointments');
    expect([seen.status, seen.store, seen.lagMs]).toEqual([200, 'app', '0']);
  });
});

function read(node: number): Promise<Seen> {
  return rig.ask(rig.nodes[node], 'ann', '/appointments/1');
}

/** For a second: for a moment a member of a busy machine reads no copies anyhow. */
async function alwaysSoon(what: string, holds: (seen: Seen) => boolean): Promise<void> {
  await until(what, async () => {
    const untilMs = performance.now() + 1_000;
    while (performance.now() < untilMs) if (!holds(await read(0))) return false;
    return true;
  });
}

function dated(id: string, owner: string) {
  return { ...appointment(id, owner), updated_at: '2026-01-01T00:00:00.000Z' };
}

async function order(order: Parameters<CopyReadsRig['sync']['order']>[1]): Promise<void> {
  await rig.sync.order('ann', order);
}

async function everybodyKnows(epoch: number): Promise<void> {
  await until(`everybody knows epoch ${epoch}`, () =>
    rig.nodes.every(({ member }) => member.ownershipOf('ann').epoch === epoch),
  );
}

async function reachedMs(): Promise<number> {
  return Number(await rig.sync.redis.hget(syncKeys.progress, 'reached'));
}

async function provenMs(): Promise<number> {
  const text = await rig.sync.redis.hget(syncKeys.progress, 'proof');
  return (JSON.parse(text ?? '{"seenMs":0}') as { seenMs: number }).seenMs;
}
