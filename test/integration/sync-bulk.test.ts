/** Many records in one call: the same rules as for single copies, and nothing is believed that was not said. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Fields } from '../../src/core/records.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig, type SyncRigOptions } from '../support/sync.ts';

let server: TestRedis;
let rig: SyncRig;
const never = new AbortController().signal;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

const twelve = Array.from({ length: 12 }, (_, at) => appointment(`r${at}`, 'ann'));

async function start(options: SyncRigOptions = {}): Promise<void> {
  rig = await startSyncRig(server, {
    ...options,
    legacy: { records: twelve, ...options.legacy },
    app: { bulk: 5, ...options.app },
  });
}

function callsMade(): string[] {
  return rig.app.writes().map(({ method, path, body }) => {
    const many = Array.isArray(body) ? ` of ${(body as readonly Fields[]).length}` : '';
    return `${method} ${path}${many}`;
  });
}

const isBulk = (body: unknown): boolean => Array.isArray(body);
const equal = async () => (await rig.sync.desk.compare('ann', never)).differences.length === 0;

describe('bringing a partition up', () => {
  test('takes as many records into one call as the store allows', async () => {
    await start({ app: { records: [appointment('r3', 'ann', 'old'), appointment('gone', 'ann')] } });
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report).toMatchObject({ recordsCopied: 13, problems: [] });
    expect(callsMade().toSorted()).toEqual([
      'DELETE /appointments/gone',
      'PUT /appointments of 2',
      'PUT /appointments of 5',
      'PUT /appointments of 5',
    ]);
    expect(await equal()).toBe(true);
  });

  test('writes what an answer does not vouch for one by one, and only what is really missing', async () => {
    await start({ app: { bulk: 20 } });
    rig.app.intercept = ({ body, method }) => {
      if (!isBulk(body) || method !== 'PUT') return undefined;
      const records = body as unknown as readonly Fields[];
      const [denied, missing] = [
        ['r9', 'r10', 'r11'],
        ['r10', 'r11'],
      ];
      for (const record of records) if (!missing.includes(record['id'] as string)) rig.app.set(record);
      const results = records.map(({ id }) => ({ id, status: denied.includes(id as string) ? 500 : 201 }));
      return { status: 207, body: { results } };
    };
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report).toMatchObject({ problems: [] });
    // One was written although the answer denied it: reading told.
    expect(callsMade().toSorted()).toEqual([
      'PUT /appointments of 12',
      'PUT /appointments/r10',
      'PUT /appointments/r11',
    ]);
    expect(await equal()).toBe(true);
  });

  test('one record that the store will not take does not keep the others from being copied', async () => {
    await start({ app: { bulk: 20 } });
    rig.app.intercept = ({ body, method, path }) =>
      isBulk(body) || (method === 'PUT' && path.endsWith('/r7'))
        ? { status: 422, body: { detail: 'too long' } }
        : undefined;
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems.map(({ detail }) => detail)).toEqual([expect.stringContaining('too long')]);
    expect(rig.app.records.size).toBe(11);
  });

  test('a call whose outcome is unknown leaves the lock standing and is not repeated', async () => {
    await start({ app: { bulk: 20 }, appStore: { settleMs: 30_000 } });
    rig.app.intercept = ({ body }) => (isBulk(body) ? { status: 502, body: '' } : undefined);
    await expect(rig.sync.desk.bringUp('ann', never)).rejects.toThrow('502');
    expect(callsMade()).toEqual(['PUT /appointments of 12']);
    expect(await rig.redis.pttl('{onewriter}:copying:ann')).toBeGreaterThan(20_000);
  });

  test('leaves a record alone that the copy holds for somebody else', async () => {
    await start({ app: { records: [appointment('r3', 'bob', 'his')] } });
    rig.app.intercept = ({ method, query }) =>
      method === 'GET' && query.get('owner') === 'ann'
        ? { status: 200, body: { data: [...rig.app.records.values()] } }
        : undefined;
    const report = await rig.sync.desk.bringUp('ann', never);
    expect(report.problems.map(({ detail }) => detail)).toEqual([expect.stringContaining('left alone')]);
    expect(rig.app.records.get('r3')).toMatchObject({ owner_id: 'bob', title: 'his' });
  });

  test('a partition that moved before the call gets nothing', async () => {
    await start();
    let moved = false;
    rig.app.intercept = async ({ method }) => {
      if (method === 'GET' && !moved) {
        moved = true;
        await rig.flip('ann');
      }
      return undefined;
    };
    await rig.sync.desk.bringUp('ann', never);
    expect(rig.app.writes()).toEqual([]);
  });
});
