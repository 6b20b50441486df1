/** One handoff back to legacy, against the guard in a real PostgreSQL: what counts is what its advance says. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Pool, type PoolClient } from 'pg';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import type { CopyDesk, GuardAnswer, GuardCalls } from '../../src/core/ports.ts';
import { advanceGuard, guardCheck, installGuard, readVerdict, sealGuard } from '../../src/guard/guard.ts';
import { attemptHandoff, type AttemptReport } from '../../src/handoff/attempt.ts';
import { askAllWritten, wayBackFrom } from '../../src/handoff/way-back.ts';
import type { Membership } from '../../src/ledger/membership.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const settings: HandoffSettings = {
  drainMs: 1_000,
  fenceMs: 5_000,
  feedDelayMs: 0,
  guarded: { legacy: false, app: true },
  proof: { app: 'unwritten' },
};

let redis: TestRedis;
let postgres: TestPostgres;
let pool: Pool;
let ledger: TestLedger;
let member: Membership;
let partitions = 0;
let partition = '';

const guards: GuardCalls = {
  verdict: (_store, { partition, epoch }, access) => readVerdict(pool, { partition, access, epoch }),
  advance: (_store, { partition, epoch }) => advanceGuard(pool, partition, epoch),
  seal: async (_store, { partition, epoch }) => void (await sealGuard(pool, partition, epoch)),
};
/** Nothing may be copied on the way back; forward there is nothing to copy here. */
const copies = { catchUp: async () => ({ recordsCompared: 0, recordsCopied: 0, passes: 1 }) };

beforeAll(async () => {
  [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
  pool = new Pool({ connectionString: postgres.url });
  pool.on('error', () => undefined); // the server is stopped under idle connections at the end
  await installGuard(pool);
}, 60_000);
afterAll(async () => {
  await pool?.end();
  await postgres?.stop();
  await redis?.stop();
});
beforeEach(async () => {
  ledger = await openLedger(redis);
  member = await ledger.join();
  partitions += 1;
  partition = `user-${partitions}`;
  expect(await handOff('legacy')).toMatchObject({ outcome: 'moved' });
  expect(await whereItIs()).toBe('open app 4');
});
afterEach(async () => {
  await ledger.ledger.removeMember(member.id);
  await ledger.close();
});

function handOff(from: 'legacy' | 'app', asked: GuardCalls = guards): Promise<AttemptReport> {
  const stop = new AbortController().signal;
  return attemptHandoff(
    {
      ledger: ledger.ledger,
      feed: ledger.feed,
      copies: copies as unknown as CopyDesk,
      guards: asked,
      members: new MemberWatch(ledger.ledger, 1_000, () => undefined),
      settings,
    },
    { partition, from, by: 'test', reason: 'test', stop },
  );
}

async function whereItIs(): Promise<string> {
  const { phase, owner, epoch } = (await ledger.ledger.read(partition)).ownership;
  return `${phase} ${owner} ${epoch}`;
}

/** A transaction of the app in which a user's write was let in; it has yet to end. */
async function beginWrite(epoch: number): Promise<PoolClient> {
  const client = await pool.connect();
  await client.query('BEGIN');
  expect(await guardCheck(client, { partition, access: 'write', epoch })).toBeUndefined();
  return client;
}

async function end(client: PoolClient, how: 'COMMIT' | 'ROLLBACK'): Promise<void> {
  await client.query(how);
  client.release();
}

async function tryToWrite(access: 'write' | 'copy', epoch: number): Promise<string> {
  const client = await pool.connect();
  await client.query('BEGIN');
  const refusal = await guardCheck(client, { partition, access, epoch });
  await end(client, 'COMMIT');
  return refusal ?? 'accepted';
}

describe('a handoff back without copies', () => {
  test('moves what the app has not written; writes of its old epochs are refused from then on', async () => {
    const report = await handOff('app');
    expect(report).toMatchObject({ outcome: 'moved', proof: { unwritten: true, recordsCompared: 0 } });
    expect(await whereItIs()).toBe('open legacy 7');
    for (const epoch of [4, 5]) expect(await tryToWrite('write', epoch)).toMatch(/stale|closed/);
    expect(await tryToWrite('copy', 7)).toBe('accepted');
    expect(await tryToWrite('write', 7)).toBe('legacy-owns');
  });

  test('is aborted when a user has written since anybody asked, and the app goes on', async () => {
    await end(await beginWrite(4), 'COMMIT');
    expect(await handOff('app')).toMatchObject({ outcome: 'aborted', code: 'app-was-written' });
    expect(await whereItIs()).toBe('open app 6');
    expect(await tryToWrite('write', 6)).toBe('accepted');
  });

  test('waits for a write in doubt that the app is still at, and goes by how it ended', async () => {
    for (const [how, outcome] of [
      ['COMMIT', 'aborted'],
      ['ROLLBACK', 'moved'],
    ] as const) {
      // prettier-ignore
      const admission = await until('the member admits', () => {
        const answer = member.admit(partition);
        return answer.verdict === 'admit' && answer;
      });
      const client = await beginWrite(admission.ticket.epoch);
      member.end(admission.ticket, 'in-doubt');
      const running = handOff('app');
      await until('the advance waits for the row', async () => {
        const sql = `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%onewriter.advance%'`;
        return (await pool.query(sql)).rows.length > 0;
      });
      await end(client, how);
      expect(await running).toMatchObject({ outcome });
      // The next round begins with a partition that nobody has written.
      partition = `${partition}-rolled-back`;
      if (how === 'COMMIT') await handOff('legacy');
    }
  });

  const silent: [string, (answer: GuardAnswer) => GuardAnswer | undefined][] = [
    ['does not count writes', ({ epoch = 0, owner = 'app' }) => ({ epoch, owner })],
    ['never saw the app become the owner', (answer) => ({ ...answer, owner: 'legacy' })],
    ['answers for another epoch', (answer) => ({ ...answer, epoch: 1 })],
    ['answers nothing', () => undefined],
  ];
  test.each(silent)('is aborted where the guard %s', async (_, spoilt) => {
    const advance: GuardCalls['advance'] = async (...order) => {
      const answer = await guards.advance(...order);
      return answer && spoilt(answer);
    };
    const report = await handOff('app', { ...guards, advance });
    expect(report).toMatchObject({ outcome: 'aborted', code: 'app-was-written' });
    expect(await whereItIs()).toBe('open app 6');
    expect(await handOff('app')).toMatchObject({ outcome: 'moved' });
  });
});

describe('what a plan says of the way back', () => {
  const byGuard = { settings: { proof: { app: 'unwritten' } }, writable: ['app'] } as const;
  const copied = { settings: { proof: { app: 'copies' } }, writable: ['legacy', 'app'] } as const;

  test.each([
    ['there is none without a guard', 'app', { ...byGuard, guarded: { legacy: false, app: false } }, 'never'],
    [
      'it ends with the first write',
      'app',
      { ...byGuard, guarded: { legacy: false, app: true } },
      'first-write',
    ],
    [
      'it stays while copies go back',
      'app',
      { ...copied, guarded: { legacy: false, app: false } },
      'window-closed',
    ],
    [
      'from legacy one can go again',
      'legacy',
      { ...byGuard, guarded: { legacy: false, app: false } },
      'always',
    ],
  ] as const)('%s', (_what, to, parts, until) => {
    expect(wayBackFrom(to, parts).until).toBe(until);
  });
});

describe('before the fence', () => {
  test('each partition is asked about, and a guard that does not answer is not asked for all', async () => {
    const epochs = new Map(Array.from({ length: 500 }, (_, at) => [`p${at}`, 4]));
    let asked = 0;
    const verdict: GuardCalls['verdict'] = async (_store, stamp) => {
      asked += 1;
      if (stamp.partition === 'p7') return { owner: 'app', written: true };
      return stamp.partition === 'p8' ? { owner: 'app' } : { owner: 'app', written: false };
    };
    const blocked = await askAllWritten({ verdict }, 'app', epochs);
    expect([...blocked].map(([name, { code }]) => [name, code])).toEqual([
      ['p7', 'app-was-written'],
      ['p8', 'no-clean-way-back'],
    ]);
    expect(asked).toBe(500);
    asked = 0;
    const deaf: GuardCalls['verdict'] = () => Promise.reject(new Error(`no answer, ${(asked += 1)}`));
    const all = await askAllWritten({ verdict: deaf }, 'app', epochs);
    expect(all.size).toBe(500);
    expect(new Set([...all.values()].map(({ code }) => code))).toEqual(new Set(['guard-unreachable']));
    expect(asked).toBeLessThan(100);
  });
});
