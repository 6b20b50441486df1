/** The rollback window: what users write in the app goes back to legacy, and nothing else of ours does. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../src/core/records.ts';
import { connectorFor, type SeenCall } from '../support/rest-store.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: SyncRig;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const people = ['ann', 'bob'];
const records = people.flatMap((name) => [1, 2, 3].map((at) => appointment(`${name}-${at}`, name)));

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, {
    ...options,
    legacy: { records, ...options.legacy },
    sync: { rollbackWindow: 'on', ...options.sync },
  });
  await rig.registry.note(people.map((partition) => ({ partition })));
}

/** A handoff with its catch-up, as the coordinator runs it. */
async function handOver(partition: string, to: 'app' | 'legacy' = 'app'): Promise<void> {
  const attempt = `${partition} to ${to}`;
  await rig.order(partition, { kind: 'fence', to, attempt, fenceMs: 10_000 });
  await rig.sync.desk.catchUp(partition, attempt, never);
  await rig.order(partition, { kind: 'commit', attempt });
  await rig.order(partition, { kind: 'release', attempt });
}

const titleIn = (store: 'legacy' | 'app', id: string): unknown => rig[store].records.get(id)?.['title'];
const writesTo = (id: string): SeenCall[] =>
  rig.legacy.writes().filter(({ path }) => path === `/appointments/${id}`);
const look = () => rig.sync.strayWatch.look(never);
const strays = () => rig.sync.strays.list('open');

describe('after the commit', () => {
  test('what is made, changed and deleted in the app arrives in legacy, and only for who lives in the app', async () => {
    await start();
    await rig.sync.startWorkers();
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.app.set(appointment('ann-new', 'ann'));
    rig.app.remove('ann-3');
    // What the app holds of somebody who lives in legacy goes the other way.
    rig.app.set(appointment('bob-1', 'bob', 'nothing that bob wrote'));
    await until('legacy has it', () => titleIn('legacy', 'ann-1') === 'changed in the app');
    await until('legacy has the new one', () => rig.legacy.records.has('ann-new'));
    await until('legacy has the delete', () => !rig.legacy.records.has('ann-3'));
    await until('the app is right about bob', () => titleIn('app', 'bob-1') === 'appointment bob-1');
    const written = new Set(rig.legacy.writes().map(({ method, path }) => `${method} ${path}`));
    expect(written).toEqual(
      new Set(['PUT /appointments/ann-1', 'PUT /appointments/ann-new', 'DELETE /appointments/ann-3']),
    );
  });

  test('a ring is enough', async () => {
    await start({ sync: { pollMs: 3_600_000 } });
    await rig.sync.startWorkers();
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'changed'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-1' });
    await until('legacy has it', () => titleIn('legacy', 'ann-1') === 'changed');
  });

  test('two marks of one record in two partitions that live apart do not ring for each other for ever', async () => {
    const soft = { softDeletes: true };
    const app = { ...soft, records };
    await start({
      ...{ legacy: { ...soft, records }, app, appStore: { connector: connectorFor(app) } },
      sync: { pollMs: 3_600_000 },
    });
    await handOver('ann');
    // The mark in each store is of the partition that lives in the other.
    rig.legacy.set(appointment('both', 'ann'));
    rig.app.set(appointment('both', 'bob'));
    rig.legacy.remove('both');
    rig.app.remove('both');
    await rig.sync.startWorkers();
    for (const partition of people) {
      rig.sync.doorbell.ring({ partition, kind: 'appointment', id: 'both' });
    }
    const reads = () =>
      [rig.legacy, rig.app].flatMap(({ calls }) => calls).filter(({ path }) => path.endsWith('/both'));
    await until('both were looked at', () => reads().length >= 4);
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    const before = reads().length;
    rig.sync.doorbell.ring({ partition: 'bob', kind: 'appointment', id: 'bob-1' });
    await until('another was looked at', () => rig.app.calls.some(({ path }) => path.endsWith('/bob-1')));
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    expect(reads()).toHaveLength(before);
  });

  test('of a partition that has changed a lot, no first copy goes back either', async () => {
    await start();
    await handOver('ann');
    for (let at = 0; at < 2_100; at += 1) rig.app.set(appointment(`ann-more-${at}`, 'ann'));
    await rig.sync.startWorkers();
    await until('some have arrived', () => rig.legacy.records.size > 30);
    expect((await rig.sync.backfills()).filter(({ owner }) => owner === 'app')).toEqual([]);
  });

  test('the way back is a handoff like the one there, and everything written in the app is in legacy', async () => {
    await start();
    await handOver('ann');
    for (const at of [1, 2, 3, 4, 5])
      rig.app.set(appointment(`ann-${at}`, 'ann', `written ${at} in the app`));
    await handOver('ann', 'legacy');
    for (const at of [1, 2, 3, 4, 5]) {
      expect(titleIn('legacy', `ann-${at}`)).toBe(`written ${at} in the app`);
    }
    expect((await rig.ledger.read('ann')).ownership).toMatchObject({ phase: 'open', owner: 'legacy' });
    // From here on copies go to the app again.
    const before = rig.legacy.writes().length;
    rig.legacy.set(appointment('ann-1', 'ann', 'back in legacy'));
    await rig.sync.desk.bringUp('ann', never);
    expect(titleIn('app', 'ann-1')).toBe('back in legacy');
    expect(rig.legacy.writes()).toHaveLength(before);
    // And once more there: what legacy holds by then is what counts for strays.
    await handOver('ann');
    await look();
    expect(await strays()).toEqual([]);
  });
});

test('switched on after a move, it brings back what was written before, and finds what somebody did in legacy', async () => {
  await start({ sync: { rollbackWindow: 'off' } });
  await handOver('ann');
  rig.app.set(appointment('ann-1', 'ann', 'written in the app'));
  rig.app.set(appointment('ann-2', 'ann', 'written in the app'));
  rig.legacy.set(appointment('ann-2', 'ann', 'by somebody in legacy'));
  expect((await rig.sync.desk.bringUp('ann', never)).problems[0]?.detail).toContain('switched off');
  Object.assign(rig.config.sync, { rollbackWindow: 'on' });
  await rig.restartSync();
  await rig.sync.desk.bringUp('ann', never);
  expect(titleIn('legacy', 'ann-1')).toBe('written in the app');
  expect(titleIn('legacy', 'ann-2')).toBe('by somebody in legacy');
  expect((await strays()).map(({ record }) => record)).toEqual(['ann-2']);
});

describe('what somebody else changes in legacy meanwhile', () => {
  test('is a stray, is not written over, and stops the way back until somebody says what became of it', async () => {
    await start();
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'first'));
    await rig.sync.desk.bringUp('ann', never);
    rig.legacy.set(appointment('ann-1', 'ann', 'by somebody in legacy'));
    rig.app.set(appointment('ann-1', 'ann', 'second'));
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('was changed in legacy, which does not own it');
    expect(titleIn('legacy', 'ann-1')).toBe('by somebody in legacy');
    const [stray, ...others] = await strays();
    expect(others).toEqual([]);
    expect(stray).toMatchObject({ store: 'legacy', record: 'ann-1', change: 'changed', owner: 'app' });
    expect(stray?.holds).toContain('by somebody in legacy');
    expect(stray?.ownerHolds).toContain('second');
    await expect(handOver('ann', 'legacy')).rejects.toThrow('was changed in legacy');
    await rig.order('ann', { kind: 'abort', attempt: 'ann to legacy' });
    await rig.sync.strays.resolve(stray?.id ?? '', 'moved', 'olga', 'taken over by hand');
    await handOver('ann', 'legacy');
    expect(titleIn('legacy', 'ann-1')).toBe('second');
  });

  test('makes no dead letter of a job, and is told once', async () => {
    await start({ sync: { attempts: 2 } });
    await handOver('ann');
    rig.legacy.set(appointment('ann-1', 'ann', 'by somebody in legacy'));
    rig.app.set(appointment('ann-1', 'ann', 'in the app'));
    await rig.sync.startWorkers();
    await until('it is found', async () => (await strays()).length === 1);
    for (let ring = 0; ring < 3; ring += 1) {
      const calls = rig.legacy.calls.length;
      rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-1' });
      await until('somebody looked again', () => rig.legacy.calls.length > calls + 2);
    }
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    expect(await rig.sync.deadLetters.total()).toBe(0);
    expect(rig.events.filter(({ event }) => event === 'sync.stray')).toHaveLength(1);
    expect(writesTo('ann-1')).toEqual([]);
    const [stray] = await strays();
    await rig.sync.strays.resolve(stray?.id ?? '', 'ignored', 'olga', 'the app is right');
    await until('legacy has it', () => titleIn('legacy', 'ann-1') === 'in the app');
  });

  test('copies of our own are no strays, whenever somebody looks', async () => {
    await start();
    await handOver('ann');
    await look();
    // A look in the middle of a copy: the list shows it, and nobody has noted yet that it was ours.
    rig.legacy.intercept = async ({ method, path }) => {
      if (method === 'PUT' && path === '/appointments/ann-1') {
        rig.legacy.intercept = undefined;
        rig.legacy.set(appointment('ann-1', 'ann', 'changed in the app'));
        await look();
      }
      return undefined;
    };
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.app.remove('ann-2');
    await rig.sync.desk.bringUp('ann', never);
    await look();
    expect(await strays()).toEqual([]);
    rig.legacy.set(appointment('ann-2', 'ann'));
    await look();
    expect((await strays()).map(({ record, change }) => `${record} ${change}`)).toEqual(['ann-2 created']);
  });
});

describe('a write whose outcome nobody knows', () => {
  test.each([
    ['has arrived', true],
    ['has not', false],
  ])('is looked at again: it %s', async (_, arrived) => {
    await start({ legacyStore: { settleMs: 200 } });
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.legacy.intercept = ({ method, body }) => {
      if (method !== 'PUT') return undefined;
      rig.legacy.intercept = undefined;
      if (arrived && body !== undefined) rig.legacy.set(body);
      return { status: 502 };
    };
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    await rig.sync.desk.bringUp('ann', never);
    expect(titleIn('legacy', 'ann-1')).toBe('changed in the app');
    expect(writesTo('ann-1')).toHaveLength(arrived ? 1 : 2);
    await look();
    expect(await strays()).toEqual([]);
  });

  const answered502 = (andThen: (body: Fields) => void = () => undefined): void => {
    rig.legacy.intercept = ({ method, body }) => {
      if (method !== 'PUT' || body === undefined) return undefined;
      rig.legacy.intercept = undefined;
      andThen(body);
      return { status: 502 };
    };
  };

  test('is no leave to write over what somebody else has made of the record since', async () => {
    await start({ legacyStore: { settleMs: 200 } });
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    answered502();
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    rig.legacy.set(appointment('ann-1', 'ann', 'by somebody in legacy'));
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('was changed in legacy');
    expect(titleIn('legacy', 'ann-1')).toBe('by somebody in legacy');
    const [stray, ...others] = await strays();
    expect(others).toEqual([]);
    expect(stray).toMatchObject({ record: 'ann-1', change: 'changed', owner: 'app' });
    await rig.sync.strays.resolve(stray?.id ?? '', 'ignored', 'olga', 'the app is right');
    await rig.sync.desk.bringUp('ann', never);
    expect(titleIn('legacy', 'ann-1')).toBe('changed in the app');
  });

  test('nor to remove it, nor to write it anew where somebody has removed it', async () => {
    await start({ legacyStore: { settleMs: 200 } });
    await handOver('ann');
    rig.app.remove('ann-1');
    rig.legacy.intercept = ({ method }) => (method === 'DELETE' ? { status: 502 } : undefined);
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    rig.legacy.set(appointment('ann-1', 'ann', 'by somebody in legacy'));
    rig.app.set(appointment('ann-2', 'ann', 'changed in the app'));
    answered502(() => rig.legacy.remove('ann-2'));
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    rig.legacy.intercept = undefined;
    await rig.sync.desk.bringUp('ann', never);
    expect(titleIn('legacy', 'ann-1')).toBe('by somebody in legacy');
    expect(rig.legacy.records.has('ann-2')).toBe(false);
    expect((await strays()).map(({ record }) => record).toSorted()).toEqual(['ann-1', 'ann-2']);
  });

  test('is known by what was sent, also where the record has changed again and the store adds fields of its own', async () => {
    await start({ legacyStore: { settleMs: 200 } });
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'first'));
    answered502((body) => rig.legacy.set({ ...body, seen_by: 'nobody' }));
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    rig.app.set(appointment('ann-1', 'ann', 'second'));
    await rig.sync.desk.bringUp('ann', never);
    expect(titleIn('legacy', 'ann-1')).toBe('second');
    await look();
    expect(await strays()).toEqual([]);
  });
});

describe('the platform', () => {
  const etagged = connectorFor({}, { version: 'etag' });

  /** Answers reads with an ETag of the content, and holds writes to their conditions. */
  function withEtags(): void {
    const etagOf = (id: string): string => `"${JSON.stringify(rig.legacy.records.get(id)).length}-${id}"`;
    rig.legacy.intercept = ({ method, path, headers }) => {
      const id = path.split('/')[2];
      if (id === undefined) return undefined;
      const held = rig.legacy.records.get(id);
      if (method === 'GET') {
        return held === undefined ? undefined : { status: 200, headers: { etag: etagOf(id) }, body: held };
      }
      const unmet =
        headers['if-match'] === undefined
          ? headers['if-none-match'] === '*' && held !== undefined
          : held === undefined || headers['if-match'] !== etagOf(id);
      return unmet ? { status: 412, body: {} } : undefined;
    };
  }

  test('that has ETags is written to under a condition, and refuses what came in between', async () => {
    await start({ legacyConnector: etagged });
    await handOver('ann');
    withEtags();
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.app.set(appointment('ann-new', 'ann'));
    rig.app.remove('ann-3');
    await rig.sync.desk.bringUp('ann', never);
    expect(writesTo('ann-1')[0]?.headers['if-match']).toMatch(/^"/);
    expect(writesTo('ann-new')[0]?.headers['if-none-match']).toBe('*');
    expect(writesTo('ann-3')[0]?.headers['if-match']).toMatch(/^"/);
    const inner = rig.legacy.intercept;
    rig.legacy.intercept = (call) => {
      // Between the last look and the write, at the platform itself.
      if (call.method === 'PUT')
        rig.legacy.set(appointment('ann-1', 'ann', 'by somebody, at the last moment'));
      return inner?.(call);
    };
    rig.app.set(appointment('ann-1', 'ann', 'changed again'));
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems[0]?.detail).toContain('412');
    expect(titleIn('legacy', 'ann-1')).toBe('by somebody, at the last moment');
    rig.legacy.intercept = inner;
    await rig.sync.desk.bringUp('ann', never);
    expect((await strays()).map(({ record }) => record)).toEqual(['ann-1']);
  });

  test('gets copies under the credential for writing, and reads under the other one', async () => {
    const headers = { authorization: 'may read' };
    await start({ legacyConnector: { headers, write: { headers: { authorization: 'may write' } } } });
    await handOver('ann');
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    await rig.sync.desk.bringUp('ann', never);
    const used = (reads: boolean) =>
      new Set(
        rig.legacy.calls
          .filter(({ method }) => (method === 'GET') === reads)
          .map(({ headers: sent }) => sent.authorization),
      );
    expect(used(true)).toEqual(new Set(['may read']));
    expect(used(false)).toEqual(new Set(['may write']));
  });

  test('that holds a record differently than it was written is told of, not written to again and again', async () => {
    await start({ sync: { attempts: 2, pollMs: 50 } });
    await handOver('ann');
    rig.legacy.intercept = ({ method, body }) => {
      if (method !== 'PUT' || body === undefined) return undefined;
      rig.legacy.set({ ...body, title: 'CUT' });
      return { status: 200, body: {} };
    };
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    await rig.sync.startWorkers();
    await until('it is a dead letter', async () => (await rig.sync.deadLetters.total()) === 1);
    const [letter] = await rig.sync.deadLetters.list();
    expect(letter?.reason).toContain('differently than it was written');
    const polls = (): number => rig.app.calls.filter(({ path }) => path === '/appointments').length;
    // A poll that began before may ring once more.
    const begun = polls();
    await until('polls that know of it', () => polls() > begun + 3);
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    const [written, polled] = [writesTo('ann-1').length, polls()];
    await until('more polls', () => polls() > polled + 5);
    expect(writesTo('ann-1')).toHaveLength(written);
    await look();
    expect(await strays()).toEqual([]);
  });
});

describe('a window that an operator has closed', () => {
  test('lets nothing back any more, whoever asks, until the partition comes to the app again', async () => {
    await start();
    await handOver('ann');
    await handOver('bob');
    expect(await rig.sync.window?.close(['ann'], 'olga', 'we stay')).toBe(1);
    expect(await rig.sync.window?.close(['ann'], 'olga', 'we stay')).toBe(0);
    await rig.sync.startWorkers();
    rig.app.set(appointment('ann-1', 'ann', 'changed in the app'));
    rig.app.set(appointment('bob-1', 'bob', 'changed in the app'));
    rig.sync.doorbell.ring({ partition: 'ann', kind: 'appointment', id: 'ann-1' });
    await until('bob is copied back', () => titleIn('legacy', 'bob-1') === 'changed in the app');
    await until('nothing waits', async () => (await rig.sync.backlog()) === 0);
    expect((await rig.sync.desk.bringUp('ann', never)).problems[0]?.detail).toContain('switched off');
    expect(await rig.sync.desk.compare('ann', never)).toMatchObject({
      notCopied: expect.stringContaining('nothing is copied to legacy') as unknown,
    });
    await expect(handOver('ann', 'legacy')).rejects.toThrow('nothing is proven');
    await rig.order('ann', { kind: 'abort', attempt: 'ann to legacy' });
    expect(writesTo('ann-1')).toEqual([]);
    expect(await rig.sync.desk.closedWindows()).toEqual(new Set(['ann']));
    await rig.order('ann', { kind: 'fence', to: 'legacy', attempt: 'by the guard', fenceMs: 10_000 });
    await rig.order('ann', { kind: 'commit', attempt: 'by the guard' });
    await rig.order('ann', { kind: 'release', attempt: 'by the guard' });
    await handOver('ann');
    expect(await rig.sync.desk.closedWindows()).toEqual(new Set());
    rig.app.set(appointment('ann-1', 'ann', 'once more'));
    await until('legacy has it', () => titleIn('legacy', 'ann-1') === 'once more');
  });

  test('costs the platform no more reads for what nobody copies', async () => {
    await start();
    await handOver('ann');
    await rig.sync.startWorkers();
    await rig.sync.window?.close(['ann'], 'olga', 'we stay');
    await until('it is known', async () => (await rig.sync.window?.view())?.anyOpen === false);
    let reads = '';
    const note = (store: string) => (call: SeenCall) => {
      if (call.path === '/appointments') reads += store;
      return undefined;
    };
    rig.legacy.intercept = note('L');
    rig.app.intercept = note('A');
    await until('some polls', () => reads.length > 24);
    // For bob, who lives in legacy: the owner's list, then the copy's. The other way round it would be A, then L.
    expect(reads.slice(4, 24)).toMatch(/^A?(LA)+L?$/);
  });
});

describe('a restore of the ledger', () => {
  const byRestore = JSON.stringify({ by: 'ledger restore', reason: 'unknown', atMs: 1, byRestore: true });
  const closed = '{onewriter}:sync:windows-closed';

  test('closes windows that an operator may open again, and those that an operator closed stay closed', async () => {
    await start();
    for (const name of people) await handOver(name);
    await rig.redis.hset(closed, 'ann', byRestore);
    await rig.sync.window?.close(['bob'], 'olga', 'we stay');
    await rig.sync.startWorkers();
    for (const name of people) rig.app.set(appointment(`${name}-1`, name, 'changed in the app'));
    expect(await rig.sync.window?.closedByRestore()).toEqual(new Set(['ann']));
    expect((await rig.sync.desk.bringUp('ann', never)).problems[0]?.detail).toContain('switched off');
    expect(await rig.sync.window?.open([...people, 'nobody'])).toBe(1);
    await until('ann is copied back', () => titleIn('legacy', 'ann-1') === 'changed in the app');
    expect(await rig.sync.window?.closed()).toEqual(new Set(['bob']));
    expect(writesTo('bob-1')).toEqual([]);
  });

  test('is confirmed by an operator who closes them, too', async () => {
    await start();
    await handOver('ann');
    await rig.redis.hset(closed, 'ann', byRestore);
    const { version } = await rig.ledger.position();
    expect(await rig.sync.window?.close(['ann'], 'olga', 'we stay')).toBe(0);
    // So an older copy of Redis, in which it is missing, is found to be older.
    expect((await rig.ledger.position()).version).toBe(version + 1);
    expect(await rig.sync.window?.open(['ann'])).toBe(0);
    expect(await rig.sync.desk.closedWindows()).toEqual(new Set(['ann']));
  });
});

test('what is closed is known anew, also where Redis has counted from the beginning since', async () => {
  await start();
  for (const name of people) await handOver(name);
  await rig.sync.window?.close(['ann'], 'olga', 'we stay');
  expect(await rig.sync.window?.closed()).toEqual(new Set(['ann']));
  await rig.redis.del('{onewriter}:sync:windows-closed', '{onewriter}:sync:windows-closed:version');
  await rig.sync.window?.close(['bob'], 'olga', 'we stay');
  expect(await rig.sync.window?.closed()).toEqual(new Set(['bob']));
});
