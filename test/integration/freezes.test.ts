/** The right to write, taken away in the platform and given back, by calls to a real HTTP server; whoever dies when. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type HttpPlatform, startHttpPlatform } from '../support/http-platform.ts';
import { failureOf, never } from '../support/rest-client.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let platform: HttpPlatform;
let rig: SyncRig;
/** What every member may do in the platform; `editor` where nothing was ever called. */
let roles: Map<string, string>;
const settleMs = 400;
const book = '{onewriter}:freezes';

beforeAll(async () => {
  server = await startRedis();
});
afterAll(async () => {
  await server.stop();
});
beforeEach(async () => {
  roles = new Map();
  platform = await startHttpPlatform(({ path, text }) => {
    roles.set(path.split('/')[2] ?? '', (JSON.parse(text) as { role: string }).role);
    return {};
  });
  rig = await startSyncRig(server, {
    legacyUrl: platform.url,
    legacyStore: { settleMs },
    legacyConnector: {
      timeoutMs: 300,
      write: { auth: { bearer: 'admin' } },
      freeze: [
        { method: 'PATCH', path: '/members/{partition}', body: { role: 'viewer', of: '{partition}' } },
        { method: 'POST', path: '/mail/{partition}', body: { role: 'silent' } },
      ],
      unfreeze: [{ method: 'PATCH', path: '/members/{partition}', body: { role: 'editor' } }],
      records: {
        appointment: {
          list: { path: '/none/{partition}' },
          get: { path: '/none/{id}' },
          id: 'id',
          partition: 'owner_id',
        },
      },
    },
  });
});
afterEach(async () => {
  await rig.stop();
  await platform.stop();
});

const calls = (): string[] =>
  platform.calls
    .filter(({ path }) => !path.startsWith('/none'))
    .map(({ method, path, text }) => `${method} ${path} ${text}`);
const fence = (to: 'legacy' | 'app', attempt = 'a', fenceMs = 10_000) =>
  rig.order('ann', { kind: 'fence', to, attempt, fenceMs });
const finish = async (attempt: string): Promise<void> => {
  await rig.order('ann', { kind: 'commit', attempt });
  await rig.order('ann', { kind: 'release', attempt });
};
const freeze = (attempt = 'a') => rig.sync.freezes.freeze('legacy', 'ann', attempt, never);
const unfreeze = (attempt = 'a') => rig.sync.freezes.unfreeze('legacy', 'ann', attempt, never);
const noted = () => rig.redis.hlen(book);
const untilLooked = () =>
  until('nobody has to look any more', async () => (await rig.redis.scard(`${book}:open`)) === 0);

test('a partition is frozen in its fence, with the credentials for writing', async () => {
  await fence('app');
  await freeze();
  expect(calls()).toEqual([
    'PATCH /members/ann {"role":"viewer","of":"ann"}',
    'POST /mail/ann {"role":"silent"}',
  ]);
  expect(platform.calls[0]?.headers.authorization).toBe('Bearer admin');
});

test('without the fence of this attempt nothing is sent', async () => {
  expect((await failureOf(freeze())).kind).toBe('rejected');
  await fence('app');
  expect((await failureOf(freeze('another'))).message).toMatch(/fence of this attempt is gone/);
  expect((await failureOf(unfreeze('another'))).kind).toBe('rejected');
  expect(calls()).toEqual([]);
  expect(await noted()).toBe(0);
});

test('it stays frozen once it has moved, and gets its right back before it comes back', async () => {
  await rig.sync.startWorkers();
  await fence('app');
  await freeze();
  await finish('a');
  await untilLooked();
  expect(roles.get('ann')).toBe('silent');
  expect(await noted()).toBe(1);
  await fence('legacy', 'b');
  await unfreeze('b');
  expect(roles.get('ann')).toBe('editor');
  await finish('b');
  await until('the note is gone', async () => (await noted()) === 0);
  expect(calls()).toHaveLength(3);
});

test('it is frozen again where it did not come back after all', async () => {
  await rig.sync.startWorkers();
  await fence('app');
  await freeze();
  await finish('a');
  await fence('legacy', 'b');
  await unfreeze('b');
  await rig.order('ann', { kind: 'abort', attempt: 'b' });
  await until('it is frozen again', () => roles.get('ann') === 'silent');
  await untilLooked();
  expect(await noted()).toBe(1);
});

test('what a process that died has frozen, another one gives back once the fence is over', async () => {
  await fence('app', 'a', 600);
  await freeze();
  await rig.restartSync();
  expect(roles.get('ann')).toBe('silent');
  await rig.sync.startWorkers();
  await until('the fence can expire', async () => {
    const answer = await rig.ledger.order({
      ...{ partition: 'ann', order: { kind: 'expire' }, by: 'test', reason: 'test' },
    });
    return answer.result === 'done';
  });
  await until('it may write again', () => roles.get('ann') === 'editor');
  await until('the note is gone', async () => (await noted()) === 0);
});

test('a process that dies between its calls leaves nobody frozen', async () => {
  const hung = new Promise<never>(() => undefined);
  platform.answer = ({ path, text }) => {
    roles.set('ann', (JSON.parse(text) as { role: string }).role);
    return path.startsWith('/mail') ? hung : {};
  };
  await fence('app');
  const died = freeze().catch(() => undefined);
  await until('the second call is under way', () => calls().length === 2);
  expect(await noted()).toBe(1);
  platform.answer = ({ text }) => {
    roles.set('ann', (JSON.parse(text) as { role: string }).role);
    return {};
  };
  await rig.order('ann', { kind: 'abort', attempt: 'a' });
  const other = await rig.another();
  try {
    await other.startWorkers();
    await until('it may write again', () => roles.get('ann') === 'editor');
    await until('the note is gone', async () => (await noted()) === 0);
  } finally {
    await other.stop();
    await died;
  }
});

describe('where nobody knows what became of a call', () => {
  test('the right is given back at once, and once more when it cannot take effect any more', async () => {
    platform.answer = () => new Promise(() => undefined);
    await fence('app');
    expect((await failureOf(freeze())).kind).toBe('unavailable');
    platform.answer = ({ text }) => {
      roles.set('ann', (JSON.parse(text) as { role: string }).role);
      return {};
    };
    await unfreeze();
    await rig.order('ann', { kind: 'abort', attempt: 'a' });
    expect(roles.get('ann')).toBe('editor');
    // The freeze arrives late.
    roles.set('ann', 'viewer');
    await rig.sync.startWorkers();
    await until('the note is gone', async () => (await noted()) === 0);
    expect(roles.get('ann')).toBe('editor');
  });

  test('it is not frozen before that is over', async () => {
    await fence('app');
    await freeze();
    platform.answer = () => ({ status: 503 });
    expect((await failureOf(unfreeze())).kind).toBe('unavailable');
    platform.answer = () => ({});
    const failure = await failureOf(freeze());
    expect(failure.kind).toBe('unavailable');
    expect(failure.retryAfterMs).toBeLessThanOrEqual(settleMs);
    await until('it is over', () =>
      freeze().then(
        () => true,
        () => false,
      ),
    );
  });
});

test('what cannot be given back is said, and tried again', async () => {
  await fence('app');
  await freeze();
  await rig.order('ann', { kind: 'abort', attempt: 'a' });
  platform.answer = () => ({ status: 403 });
  await rig.sync.startWorkers();
  const told = await until('it is said', () =>
    rig.events.find(({ event }) => event === 'freeze.not-given-back'),
  );
  expect(told.fields).toMatchObject({ store: 'legacy', partition: 'ann' });
  platform.answer = ({ text }) => {
    roles.set('ann', (JSON.parse(text) as { role: string }).role);
    return {};
  };
  await until('it may write again', () => roles.get('ann') === 'editor');
});
