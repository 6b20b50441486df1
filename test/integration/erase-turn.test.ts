/** One turn of an erasure on a real ledger with a real member: when nothing may be deleted yet, and what follows. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { erasureAttempt, type ErasureLook, isBeingErased } from '../../src/core/erasure.ts';
import type { StoreName } from '../../src/core/ownership.ts';
import { eraseUnderFence, type EraseTurn, type EraseTurnParts } from '../../src/handoff/erase-turn.ts';
import { Erasures } from '../../src/handoff/erasures.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { keys } from '../../src/ledger/connection.ts';
import { ErasureBook } from '../../src/ledger/erasure-book.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let parts: TestLedger;
let member: Membership;
let watch: MemberWatch;
/** What was asked of stores and guards, in order. */
let asked: string[];
const never = new AbortController().signal;
const empty: ErasureLook = {
  records: [],
  tombstones: [],
  unreadable: [],
  undeletable: [],
  unseen: [],
  tookMs: 1,
};

beforeEach(async () => {
  server = await startRedis();
  parts = await openLedger(server);
  member = await parts.join({ settleMs: 600 });
  watch = new MemberWatch(parts.ledger, 1_000, () => undefined);
  asked = [];
  await until('the member admits', () => member.leaseLeftMs() > 0);
});
afterEach(async () => {
  await parts.close();
  await server.stop();
});

const ownership = async () => (await parts.ledger.read('ann')).ownership;

function turn(
  changes: Partial<EraseTurnParts> = {},
  of: Partial<EraseTurn> = {},
  drainMs = 300,
): ReturnType<typeof eraseUnderFence> {
  const settings = { drainMs, fenceMs: 20_000, feedDelayMs: 0 };
  const say =
    (what: string) =>
    async (store: StoreName, { epoch }: { epoch: number }) => {
      asked.push(`${what} ${store} ${epoch}`);
      return undefined;
    };
  return eraseUnderFence(
    {
      ...{ ledger: parts.ledger, feed: parts.feed, members: watch, doubts: parts.doubts, settings },
      guards: { advance: say('advance'), seal: say('seal') },
      guarded: { legacy: false, app: true },
      eraser: {
        look: async () => empty,
        erase: async ({ attempt }) => {
          const now = await ownership();
          asked.push(now.phase === 'fenced' && now.attempt === attempt ? 'erase' : 'erase without its fence');
          return empty;
        },
      },
      log: () => undefined,
      ...changes,
    },
    {
      ...{ erasure: 'e-1', partition: 'ann', by: 'ops', lastAttempt: undefined, lookMs: 1.5 },
      ...{ begin: async () => true, note: async () => undefined },
      forget: async () => void asked.push('forget'),
      ...of,
    },
    never,
  );
}

function admitted() {
  const admission = member.admit('ann');
  if (admission.verdict !== 'admit') throw new Error(`the member says ${admission.verdict}`);
  return admission.ticket;
}

describe('nothing is deleted', () => {
  test('before every write under way has ended; where one does not, the partition is open again', async () => {
    const ticket = admitted();
    expect(await turn()).toMatchObject({ end: 'again', code: 'drain-timeout' });
    expect(asked).toEqual([]);
    expect(await ownership()).toMatchObject({ phase: 'open', owner: 'legacy' });
    const next = turn({}, {}, 5_000);
    await until('it is fenced', async () => isBeingErased(await ownership()));
    expect(asked).toEqual([]);
    member.end(ticket, 'ended');
    expect(await next).toMatchObject({ end: 'erased' });
    expect(asked).toEqual(['advance app 3', 'erase', 'advance app 4', 'forget']);
  });

  test('while a write is in doubt: the fence stands until it can take effect no more', async () => {
    member.end(admitted(), 'in-doubt');
    expect(await turn()).toMatchObject({ end: 'again', code: 'write-in-doubt', afterMs: 0 });
    expect(asked).toEqual([]);
    expect(await turn()).toMatchObject({ end: 'erased' });
  });

  test('while one of a member that is gone may still take effect', async () => {
    const doubt = { partition: 'ann', store: 'legacy', epoch: 1, member: 'm-gone', settleMs: 600 } as const;
    await parts.doubts.note({ ...doubt, method: 'PUT', path: '/x', why: 'killed' });
    await parts.doubts.note({
      ...doubt,
      partition: 'bob',
      settleMs: 60_000,
      method: 'PUT',
      path: '/x',
      why: '',
    });
    expect(await turn()).toMatchObject({ end: 'erased' });
    expect(await parts.doubts.unsettled()).toMatchObject([{ partition: 'bob' }]);
  });

  test('while it is being moved, or a member is silent, or somebody else goes on with the erasure', async () => {
    const fence = { kind: 'fence', to: 'app', attempt: 'a handoff', fenceMs: 60_000 } as const;
    await parts.ledger.order({ partition: 'ann', order: fence, by: 'ops', reason: 'test' });
    expect(await turn()).toMatchObject({ end: 'again', code: 'partition-busy' });
    expect(await ownership()).toMatchObject({ attempt: 'a handoff' });
    const abort = { kind: 'abort', attempt: 'a handoff' } as const;
    await parts.ledger.order({ partition: 'ann', order: abort, by: 'ops', reason: 'test' });

    const stale = { fresh: [], unproven: [], stale: await parts.ledger.members() };
    const silent = { listedSince: (ms: number) => watch.listedSince(ms), health: () => stale };
    expect(await turn({ members: silent })).toMatchObject({ code: 'member-silent' });
    expect(await turn({}, { begin: async () => false })).toEqual({ end: 'taken-over' });
    expect(asked).toEqual([]);
    expect((await ownership()).epoch).toBe(3);
  });
});

test('the fence that a killed process has left is given up at once, and no other', async () => {
  const lastAttempt = erasureAttempt('of before');
  const fence = { kind: 'fence', to: 'app', attempt: lastAttempt, fenceMs: 60_000 } as const;
  await parts.ledger.order({ partition: 'ann', order: fence, by: 'ops', reason: 'test' });
  expect(await turn()).toMatchObject({ code: 'partition-busy' });
  expect(await turn({}, { lastAttempt })).toMatchObject({ end: 'erased' });
});

test('where the app owns it, its guard is sealed only once both stores are empty', async () => {
  for (const order of [
    { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 },
    { kind: 'commit', attempt: 'a' },
    { kind: 'release', attempt: 'a' },
  ] as const) {
    await parts.ledger.order({ partition: 'ann', order, by: 'ops', reason: 'test' });
  }
  const broken = { look: async () => empty, erase: () => Promise.reject(new Error('the app went away')) };
  expect(await turn({ eraser: broken })).toMatchObject({ end: 'again', detail: 'the app went away' });
  expect(asked).toEqual(['advance app 4']);
  expect(await ownership()).toMatchObject({ phase: 'open', owner: 'app' });
  asked = [];
  expect(await turn()).toMatchObject({ end: 'erased' });
  expect(asked).toEqual(['advance app 6', 'erase', 'seal app 7', 'forget']);
  expect(await ownership()).toMatchObject({ phase: 'open', owner: 'app', epoch: 8 });
});

test('the stream says that it was an erasure, and not why', async () => {
  await turn();
  const entries = JSON.stringify(await parts.redis.xrange('{onewriter}:changes', '-', '+'));
  expect(entries).toContain('erasure e-1');
});

test('a ledger that lost data uses up no turns: the erasure waits, and goes on once it is restored', async () => {
  const { ledger, feed, doubts, registry, redis } = parts;
  await registry.note([{ partition: 'ann' }]);
  const nothing = async () => undefined;
  const erasures = new Erasures({
    ...{ ledger, feed, doubts, registry, members: watch, book: new ErasureBook(redis), memories: [] },
    ...{ guards: { advance: nothing, seal: nothing }, guarded: { legacy: false, app: false } },
    eraser: { look: async () => empty, erase: async () => empty },
    ...{ settings: { drainMs: 2_000, fenceMs: 20_000, feedDelayMs: 0 }, settleMs: 0, idleTurnsMax: 0 },
    log: () => undefined,
  });
  const begun = await erasures.start('ann', 'ops', 'asked for by letter');
  if ('refused' in begun) throw new Error(begun.detail);
  await redis.hset(keys.meta, { regressed: 'version 7 is missing', regressedAtMs: '1', regressedBy: '' });
  expect(await erasures.plan('ann')).toMatchObject({ refused: 'ledger-regressed' });
  expect(await erasures.start('bob', 'ops', 'x')).toMatchObject({ refused: 'ledger-regressed' });
  erasures.startWorking();
  const now = () => erasures.get(begun.id);
  await until('it says why it waits', async () => (await now())?.trouble);
  expect(await now()).toMatchObject({ state: 'running', trouble: { code: 'ledger-regressed' } });
  await redis.hdel(keys.meta, 'regressed', 'regressedAtMs', 'regressedBy');
  await until('it is done', async () => (await now())?.state === 'done');
  await erasures.stop();
});
