import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { DeadLetters, letterOf } from '../../src/sync/dead-letters.ts';
import { FailingStores } from '../../src/sync/failing-stores.ts';
import { type AdminRig, startAdmin, tokens } from '../support/admin.ts';
import { runCli, startCli } from '../support/cli.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

let server: TestRedis;
let rig: AdminRig;
let directory: string;

beforeAll(async () => {
  server = await startRedis();
  directory = mkdtempSync(join(tmpdir(), 'onewriter-cli-'));
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await server.stop();
});
beforeEach(async () => {
  rig = await startAdmin(server);
});
afterEach(() => rig.stop());

function cli(...argv: string[]) {
  return runCli(['--admin', rig.url, '--token', tokens.operator, ...argv]);
}

const flipPilot = ['flip', '--cohort', 'pilot', '--to', 'app', '--reason', 'first users', '--yes'];

describe('plan', () => {
  test('a plan that is not empty exits 2, ends with its sum, and can be written to a file', async () => {
    const file = join(directory, 'plan.json');
    const result = await cli('plan', '--cohort', 'pilot', '--to', 'app', '--out', file);
    expect(result.exit).toBe(2);
    expect(result.stdout.trimEnd().split('\n').at(-1)).toBe('Plan: 2 to flip, 0 blocked, 0 to reverse');
    expect(result.stdout).toContain('/login');
    expect(result.stdout).toContain('Way back: until the first write\n');
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ cohort: 'pilot', flip: ['u1', 'u2'] });
  });

  test('all blockers are listed, and nothing can move: exit 8', async () => {
    rig.desk.blockers = [
      { code: 'no-members', detail: 'start a proxy' },
      { code: 'guard-unreachable', detail: 'mount the guard' },
    ];
    const result = await cli('plan', '--cohort', 'pilot', '--to', 'app');
    expect(result.exit).toBe(8);
    expect(result.stdout).toContain('no-members: start a proxy');
    expect(result.stdout).toContain('guard-unreachable: mount the guard');
    expect(result.stdout).toMatch(/would flip +2 /);
    expect(result.stdout.trimEnd().split('\n').at(-1)).toMatch(/^Plan: nothing can move; 2 would flip /);
  });

  test('with --json the first line is the version', async () => {
    const { events } = await cli('plan', '--cohort', 'pilot', '--to', 'app', '--json');
    expect(events.map((event) => event['type'])).toEqual(['version', 'plan']);
  });
});

describe('a store that fails', () => {
  test.each([[['status']], [['sync', 'status']]])(
    'is named by %j, with what was the last error',
    async (argv) => {
      rig.unreachable = [{ store: 'app', detail: 'http://app cannot be reached (ECONNREFUSED)' }];
      rig.pollFailure = { sinceMs: 1_000, atMs: 9_000, detail: 'legacy did not answer GET /notes' };
      const { exit, stdout } = await cli(...argv);
      expect(exit).toBe(0);
      expect(stdout).toMatch(/app +UNREACHABLE: http:\/\/app cannot be reached \(ECONNREFUSED\)/);
      expect(stdout).toMatch(
        /polls +fail since 1970-01-01T00:00:01.000Z, the last because legacy did not answer GET \/notes/,
      );
      const { events } = await cli(...argv, '--json');
      expect(events.at(-1)).toMatchObject({ unreachable: rig.unreachable, pollFailure: rig.pollFailure });
    },
  );
});

describe('sync brakes', () => {
  test('shows what is held back, and releases it with a reason', async () => {
    expect((await cli('sync', 'brakes')).stdout).toContain('No deletes are held back.');
    rig.brakes = [
      {
        ...{ partition: 'u1', deletes: 30, limit: 20, records: 31, store: 'legacy' },
        ...{ first: ['item 1'], atMs: 1_700_000_000_000 },
      },
    ];
    const shown = await cli('sync', 'brakes');
    expect(shown.stdout).toMatch(
      /u1 +30 of 31 copies in legacy +owner: app +since 2023-11-14T22:13:20.000Z +first: item 1/,
    );
    expect(shown.stdout).toContain(
      'Look whether app, the owner, has really deleted them, then: onewriter sync',
    );
    expect((await cli('sync', 'status')).stdout).toContain('1 partitions: onewriter sync brakes');
    expect((await cli('sync', 'release', 'u1')).exit).not.toBe(0);
    const released = await cli('sync', 'release', 'u1', '--reason', 'looked');
    expect(released).toMatchObject({ exit: 0 });
    const other = await cli('sync', 'release', 'u2', '--reason', 'looked');
    expect(other.stderr).toContain('No deletes of u2 are held back; "onewriter sync brakes"');
    expect(released.stdout).toContain('Up to 30 copies of u1 in legacy are deleted now');
  });

  test('shows what is held back over all partitions, and releases it by its own name', async () => {
    rig.brakeOnAll = {
      ...{ deletes: 30, lately: 190, limit: 200, copies: 9_000, atMs: 1_700_000_000_000 },
      ...{ first: ['u1 item 1'], stores: { legacy: true } },
    };
    const shown = await cli('sync', 'brakes');
    expect(shown.stdout).toContain('NO COPY IS DELETED since 2023-11-14T22:13:20.000Z: 190 of about 9000');
    expect(shown.stdout).toContain('30 more in legacy are to be');
    expect(shown.stdout).toContain('Look whether app, the owner,');
    expect(shown.stdout).not.toContain('No deletes are held back.');
    const single = await cli('sync', 'release', 'u7', '--reason', 'looked');
    expect(single.stderr).toContain('u7 has no brake of its own, but the brake on all partitions holds');
    expect(single.stderr).toContain('onewriter sync release --all --reason TEXT');
    expect((await cli('sync', 'status')).stdout).toContain('NOTHING IS DELETED');
    for (const wrong of [[], ['u1', '--all']]) {
      const refused = await cli('sync', 'release', ...wrong, '--reason', 'looked');
      expect(refused.stderr).toContain('Name one partition');
    }
    const released = await cli('sync', 'release', '--all', '--reason', 'looked');
    expect(released).toMatchObject({ exit: 0 });
    expect(released.stdout).toContain('up to 230 copies in legacy are deleted');
  });
});

describe('sync status', () => {
  test('says how far a first copy is, and when it should end', async () => {
    rig.backfills = [
      {
        ...{ owner: 'legacy', kind: 'note', phase: 'copying', records: 1_000, written: 900, total: 4_000 },
        ...{ rate: 100, rateFrom: { ms: 11_000, records: 1_000 }, restarts: 0, startedMs: 1_000 },
      },
    ];
    const { exit, stdout } = await cli('sync', 'status');
    expect(exit).toBe(0);
    expect(stdout).toMatch(
      /first copy of note +1000 of 4000 records, 100\/s, expected to end at 1970-01-01T00:00:41.000Z/,
    );
  });
});

describe('sync pause and resume', () => {
  test('say who paused what and why, write the audit log, and refuse a resume of nothing', async () => {
    const nothing = await cli('sync', 'resume', '--reason', 'test');
    expect(nothing).toMatchObject({ exit: 1 });
    expect(nothing.stderr).toContain('No copies are paused; nothing was changed.');
    expect((await cli('sync', 'pause')).exit).toBe(1);
    expect((await cli('sync', 'pause', 'elsewhere', '--reason', 'test')).stderr).toContain('legacy or app');
    const paused = await cli('sync', 'pause', 'app', '--reason', 'the app moves');
    expect(paused).toMatchObject({ exit: 0 });
    expect(paused.stdout).toMatch(/PAUSED to app +by olga since 20.*: the app moves/);
    expect((await cli('sync', 'status')).stdout).toMatch(/PAUSED to app +by olga since 20.*: the app moves/);
    expect((await rig.call('GET', '/metrics')).text).toContain('onewriter_sync_paused{store="app"} 1');
    const stores = new FailingStores(rig.redis);
    await stores.failed('legacy', 'denied', 'legacy answered with 401');
    await stores.failed('app', 'unavailable', 'app answered with 500');
    await stores.beginTrial('app');
    const { stdout } = await cli('sync', 'status');
    expect(stdout).toMatch(
      /on trial: app +since 20.*, until a first copy has succeeded; it failed from 20.* on: app answered with 500/,
    );
    expect(stdout).not.toContain('FAILING: app');
    expect((await cli('sync', 'status')).stdout).toMatch(
      /FAILING: legacy +since 20.*, tried again at 20.*: legacy answered with 401/,
    );
    expect((await cli('sync', 'resume', '--reason', 'it has moved')).stdout).toContain(
      'Copies are made again',
    );
    expect((await rig.call('GET', '/v1/sync')).body['pauses']).toEqual([]);
    const { body } = await rig.call('GET', '/v1/audit');
    expect(body['entries']).toMatchObject([
      { action: 'sync.resume', target: 'all copies', reason: 'it has moved', actor: 'olga' },
      { action: 'sync.pause', target: 'copies to app', reason: 'the app moves', actor: 'olga' },
    ]);
  });
});

describe('dead letters', () => {
  test('are shown, retried by partition, and discarded by an admin with a reason', async () => {
    const letters = new DeadLetters(rig.redis);
    for (const [partition, id] of [
      ['u1', '1'],
      ['u1', '2'],
      ['u2', '3'],
    ] as const) {
      await letters.add({ partition, kind: 'note', id }, 'the app answered with 422', 'no swearing');
    }
    const named = letterOf({ partition: 'u2', kind: 'note', id: '3' });
    const shown = await cli('sync', 'show', named);
    expect(shown.stdout).toMatch(
      /record +note 3\n.*partition +u2\n.*reason +the app answered with 422\n.*the store said +no swearing/s,
    );
    const asViewer = await rig.call('GET', '/v1/dead-letters', { token: tokens.viewer });
    expect(asViewer.text).toContain('422');
    expect(asViewer.text).not.toContain('swearing');
    expect((await cli('sync', 'show', 'nothing')).stderr).toContain('There is no dead letter nothing');
    const retried = await cli('sync', 'retry', '--partition', 'u1', '--reason', 'mended');
    expect(retried.stdout).toContain('2 records are looked at again');
    expect((await cli('sync', 'retry', named, '--all', '--reason', 'mended')).exit).toBe(1);
    const denied = await cli('sync', 'discard', named, '--reason', 'not needed');
    expect(denied.exit).toBe(7);
    expect(await letters.total()).toBe(3);
    const path = `/v1/dead-letters/${named}/discard`;
    const order = { token: tokens.admin, body: { reason: 'not needed' } };
    expect(await rig.call('POST', path, order)).toMatchObject({ status: 200, body: { id: '3' } });
    expect((await rig.call('POST', path, order)).status).toBe(404);
    expect(await letters.total()).toBe(2);
    const { body } = await rig.call('GET', '/v1/audit');
    const [entry] = body['entries'] as unknown[];
    expect(entry).toMatchObject({
      ...{ action: 'dead-letter.discard', target: 'u2 note 3', reason: 'not needed', actor: 'anna' },
      before: { times: 1 },
    });
  });
});

describe('partitions resolve', () => {
  test('refuses a name that nobody knows, and takes any that the registry, the ledger or the book knows', async () => {
    const unknown = await cli('partitions', 'resolve', 'zzz', '--reason', 'looked');
    expect(unknown.exit).not.toBe(0);
    expect(unknown.stdout + unknown.stderr).toContain('knows "zzz"');
    const doubt = { store: 'legacy', epoch: 1, method: 'POST', path: '/a', why: 'timed out' } as const;
    await rig.parts.doubts.note({ ...doubt, partition: 'in-book', member: 'm', settleMs: 60_000 });
    await rig.parts.registry.note([{ partition: 'in-registry' }]);
    const order = { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 60_000 } as const;
    await rig.parts.ledger.order({ partition: 'in-ledger', order, by: 'ops', reason: 'test' });
    for (const partition of ['in-book', 'in-registry', 'in-ledger']) {
      const known = await cli('partitions', 'resolve', partition, '--reason', 'looked');
      expect(known).toMatchObject({ exit: 0 });
    }
  });

  test('names what it resolved, and needs a reason', async () => {
    const doubt = { store: 'legacy', epoch: 1, method: 'POST', path: '/a', why: 'timed out' } as const;
    await rig.parts.doubts.note({ ...doubt, partition: 'u1', member: 'm', settleMs: 60_000 });
    const explained = await cli('explain', 'u1');
    expect(explained.stdout).toContain('POST /a to legacy');
    expect((await cli('status')).stdout).toContain('1 write, of u1');
    expect((await cli('partitions', 'resolve', 'u1')).exit).toBe(1);
    const done = await cli('partitions', 'resolve', 'u1', '--reason', 'looked');
    expect(done).toMatchObject({ exit: 0 });
    expect(done.stdout).toContain('u1: 1 writes in doubt are resolved');
  });
});

describe('flip', () => {
  test('plans, starts, follows to the end and prints what moved: exit 0', async () => {
    rig.desk.then = {
      state: 'completed',
      committed: 2,
      pending: 0,
      pauseMs: { p50: 40.2, p99: 90, max: 91 },
    };
    const result = await cli(...flipPilot);
    expect(result).toMatchObject({ exit: 0, stderr: '' });
    expect(result.stdout).toMatch(/committed +2\n/);
    expect(result.stdout).toContain('p50 40 ms, p99 90 ms, max 91 ms');
    expect(rig.desk.all.get('flip-1')).toMatchObject({ by: 'olga', reason: 'first users' });
  });

  test('without a terminal and without --yes nothing is started: exit 1', async () => {
    const result = await cli(...flipPilot.slice(0, -1));
    expect(result.exit).toBe(1);
    expect(result.stderr).toContain('--yes');
    expect(rig.desk.all.size).toBe(0);
  });

  test('without a reason nothing is started: exit 1', async () => {
    const result = await cli('flip', '--cohort', 'pilot', '--to', 'app', '--yes');
    expect(result).toMatchObject({ exit: 1 });
    expect(result.stderr).toContain('--reason');
    expect(rig.desk.all.size).toBe(0);
  });

  test('partitions that were aborted are named: exit 4', async () => {
    const blocked = [{ partition: 'u2', code: 'drain-timeout', detail: 'no acknowledgement' }];
    rig.desk.then = { state: 'completed', committed: 1, aborted: 1, pending: 0, blocked };
    const result = await cli(...flipPilot);
    expect(result.exit).toBe(4);
    expect(result.stdout).toMatch(/u2 +drain-timeout +no acknowledgement/);
  });

  test('a paused flip waits for somebody: exit 3, with the command that goes on', async () => {
    rig.desk.then = { state: 'paused', detail: 'paused by ops: lunch' };
    const result = await cli(...flipPilot);
    expect(result.exit).toBe(3);
    expect(result.stdout).toContain('onewriter resume flip-1');
  });

  test('time is up: exit 5, and the flip goes on', async () => {
    rig.desk.then = {};
    const result = await cli(...flipPilot, '--timeout', '300ms');
    expect(result.exit).toBe(5);
    expect(result.stderr).toContain('goes on');
    expect(rig.desk.all.get('flip-1')?.state).toBe('running');
  });

  test('--no-wait returns at once', async () => {
    rig.desk.then = {};
    expect(await cli(...flipPilot, '--no-wait')).toMatchObject({ exit: 0 });
  });

  test('nothing that can move: exit 8; nothing to change: exit 0', async () => {
    rig.desk.blockers = [{ code: 'no-members', detail: 'start a proxy' }];
    expect(await cli(...flipPilot)).toMatchObject({ exit: 8 });
    rig.desk.blockers = [];
    const none = await cli('flip', '--cohort', 'large', '--to', 'app', '--reason', 'r', '--yes');
    expect(none.exit).toBe(0);
    expect(none.stdout).toContain('Nothing to change.');
    expect(rig.desk.all.size).toBe(0);
  });

  test('while nothing moves, what is tried again is named with its reason', async () => {
    rig.desk.then = {};
    const lastFailure = { code: 'write-in-doubt', detail: 'a WebSocket was closed' };
    rig.desk.reportOf = () => ({ outcome: 'pending', attempts: 0, lastFailure });
    const running = startCli(['--admin', rig.url, '--token', tokens.operator, ...flipPilot]);
    await until('it is named', () =>
      running.stdout().includes('u2 waits, and is tried again: write-in-doubt: a WebSocket was closed'),
    );
    running.child.kill('SIGINT');
    expect((await running.ended).stdout.split('u1 waits').length).toBe(2);
  });

  test('an interrupt ends the waiting, not the flip', async () => {
    rig.desk.then = {};
    const running = startCli(['--admin', rig.url, '--token', tokens.operator, ...flipPilot]);
    await until('the flip is followed', () => running.stdout().includes('0/2 committed'));
    running.child.kill('SIGINT');
    const result = await running.ended;
    expect(result.exit).toBe(1);
    expect(result.stderr).toContain('goes on');
    expect(rig.desk.all.get('flip-1')?.state).toBe('running');
  });
});

describe('rollback', () => {
  const rollback = ['rollback', 'pilot', '--reason', 'the app is wrong'];

  test('plans, starts a flip to legacy with the reason, and follows it to the end: exit 0', async () => {
    const result = await cli(...rollback, '--yes');
    expect(result).toMatchObject({ exit: 0, stderr: '' });
    expect(result.stdout).toContain('Plan: 0 to flip, 0 blocked, 2 to reverse');
    expect(rig.desk.all.get('flip-1')).toMatchObject({
      ...{ cohort: 'pilot', to: 'legacy', by: 'olga', reason: 'the app is wrong' },
    });
  });

  test('without a terminal and without --yes nothing is started: exit 1', async () => {
    const result = await cli(...rollback);
    expect(result.exit).toBe(1);
    expect(result.stderr).toContain('--yes');
    expect(rig.desk.all.size).toBe(0);
  });

  test('partitions that were written are listed; when none is left nothing is started: exit 8', async () => {
    const why = { code: 'app-was-written', detail: 'users have written' };
    rig.desk.blocked = [{ partition: 'u2', ...why }];
    const some = await cli(...rollback, '--yes');
    expect(some.stdout).toMatch(/u2 +app-was-written +users have written/);
    expect(rig.desk.all.size).toBe(1);
    rig.desk.blocked = ['u1', 'u2'].map((partition) => ({ partition, ...why }));
    expect(await cli(...rollback, '--yes')).toMatchObject({ exit: 8 });
    expect(rig.desk.all.size).toBe(1);
  });

  test('where nothing can prove the way back the error says so: exit 8', async () => {
    rig.desk.blockers = [{ code: 'no-clean-way-back', detail: 'the app has no guard' }];
    const result = await cli(...rollback, '--yes', '--json');
    expect(result.exit).toBe(8);
    expect(result.events.at(-1)).toMatchObject({ type: 'error', code: 'no-clean-way-back' });
  });
});

describe('refusals', () => {
  test('a wrong token and a missing role are denied: exit 7, and the token is not printed', async () => {
    const wrong = await runCli(['--admin', rig.url, '--token', 'wrong-token-1', 'status']);
    expect(wrong.exit).toBe(7);
    expect(wrong.stderr + wrong.stdout).not.toContain('wrong-token-1');
    const viewer = await runCli([
      '--admin',
      rig.url,
      '--token',
      tokens.viewer,
      'pause',
      'f',
      '--reason',
      'r',
    ]);
    expect(viewer.exit).toBe(7);
    expect(viewer.stderr).toContain('operator');
  });

  test('a stale plan is exit 6, an unknown cohort exit 1', async () => {
    rig.desk.refusal = { refused: 'stale-plan', detail: 'u1 has moved on' };
    expect(await cli('plan', '--cohort', 'pilot', '--to', 'app')).toMatchObject({ exit: 6 });
    const unknown = await cli('plan', '--cohort', 'nobody', '--to', 'app', '--json');
    expect(unknown.exit).toBe(1);
    expect(unknown.events.at(-1)).toMatchObject({ type: 'error', code: 'no-such-cohort', exit: 1 });
  });

  test('an admin that is not there is one sentence: exit 1, no stack', async () => {
    const result = await runCli(['--admin', 'http://127.0.0.1:1', '--token', 't', 'status']);
    expect(result.exit).toBe(1);
    expect(result.stderr).toContain('No admin API answers at http://127.0.0.1:1');
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });

  test.each([['frobnicate'], ['rollback'], ['status', '--nope'], []])('%s %s: exit 1', async (...argv) => {
    expect(await runCli(argv)).toMatchObject({ exit: 1 });
  });
});

describe('status, explain and steering', () => {
  test('status says first where writes go', async () => {
    const result = await cli('status', 'pilot');
    expect(result.exit).toBe(0);
    expect(result.stdout.split('\n')[0]).toBe('Writes: 0/2 app, 0 fenced, 2 legacy');
    expect(result.stdout).toContain('onewriter plan --cohort pilot --to app');
  });

  test('status of one flip shows what each partition went through', async () => {
    rig.desk.reportOf = (partition) =>
      partition === 'u1'
        ? {
            ...{ outcome: 'moved', attempts: 1, pauseMs: 7.2 },
            proof: { recordsCompared: 3, recordsCopied: 0, passes: 1 },
          }
        : {
            ...{ outcome: 'stayed', attempts: 3 },
            lastFailure: { code: 'drain-timeout', detail: 'no acknowledgement' },
          };
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    const shown = await cli('status', 'flip-1', '--partitions');
    expect([shown.exit, shown.stdout.trimEnd().split('\n')]).toEqual([
      0,
      [
        'u1  moved   1 attempt   7 ms  3 compared',
        'u2  stayed  3 attempts  -     -           drain-timeout: no acknowledgement',
      ],
    ]);
    expect(await cli('status', '--partitions')).toMatchObject({ exit: 1 });
  });

  test('a watched flip that ends, ends the watching with its exit code', async () => {
    rig.desk.then = { state: 'aborted', detail: 'aborted by ops: enough' };
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    const watching = startCli(['--admin', rig.url, '--token', tokens.viewer, 'status', 'pilot', '--watch']);
    await until('the first line', () => watching.stdout().includes('RUNNING'));
    await rig.desk.flip('flip-1');
    expect((await watching.ended).exit).toBe(4);
  });

  test('explain names store, cohorts and reason', async () => {
    const result = await cli('explain', 'u1', '--no-color');
    expect(result.exit).toBe(0);
    expect(result.stdout).toContain('u1: writes go to legacy\n');
    expect(result.stdout).toMatch(/cohorts +pilot\n/);
    expect(await cli('explain')).toMatchObject({ exit: 1 });
  });

  test('a flip is paused by id, and aborted by its cohort', async () => {
    rig.desk.then = {};
    await rig.call('POST', '/v1/flips', { body: { cohort: 'pilot', to: 'app', reason: 'go' } });
    expect(await cli('pause', 'flip-1', '--reason', 'lunch')).toMatchObject({ exit: 0 });
    expect(rig.desk.all.get('flip-1')?.detail).toBe('paused by olga: lunch');
    expect(await cli('abort', '--cohort', 'pilot', '--reason', 'enough')).toMatchObject({ exit: 0 });
    expect(rig.desk.all.get('flip-1')?.state).toBe('aborted');
    expect(await cli('abort', '--cohort', 'pilot', '--reason', 'again')).toMatchObject({ exit: 1 });
  });
});

test('strays are listed, shown, resolved and exported', async () => {
  const { stray } = await rig.strays.add({
    ...{ store: 'legacy', partition: 'u1', kind: 'appointment', record: 'a7', change: 'changed' },
    ...{ owner: 'app', epoch: 4, digest: 'abc', holds: '{"title":"other"}', foundAtMs: 1 },
    lateWrite: { id: 'd', method: 'PUT', path: '/appointments/a7', atMs: 1 },
  });
  const listed = await cli('strays', 'list', '--state', 'open');
  expect(listed).toMatchObject({ exit: 0, stdout: expect.stringContaining('late: PUT /appointments/a7') });
  const shown = await cli('strays', 'show', stray.id);
  expect(shown.stdout).toMatch(/legacy held +\{"title":"other"\}/);
  expect(await cli('strays', 'resolve', stray.id, '--reason', 'x')).toMatchObject({ exit: 1 });
  const resolved = await cli('strays', 'resolve', stray.id, '--how', 'moved', '--reason', 'by hand');
  expect(resolved).toMatchObject({ exit: 0, stdout: `${stray.id} is resolved: moved.\n` });
  expect((await cli('strays', 'list', '--state', 'open')).stdout).toBe('There are no strays.\n');
  const file = join(directory, 'strays.ndjson');
  expect(await cli('strays', 'export', '--out', file)).toMatchObject({ exit: 0 });
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ id: stray.id, holds: '{"title":"other"}' });
});

test('a repair needs a reason; a verification is cancelled by its id', async () => {
  expect(await cli('verify', 'pilot', '--repair')).toMatchObject({ exit: 1 });
  expect(await cli('verify', 'pilot', '--repair', '--reason', 'outage')).toMatchObject({ exit: 0 });
  expect(await cli('verify', 'cancel', 'v-none', '--reason', 'x')).toMatchObject({ exit: 1 });
});

describe('verify and import', () => {
  test('equal sides: exit 0; a difference: exit 8, with an example', async () => {
    expect(await cli('verify', 'pilot')).toMatchObject({ exit: 0 });
    rig.compare = (partition) => ({
      partition,
      ...{ ownerRecords: 1, copyRecords: 2, problems: [] },
      differences: [{ difference: 'extra', kind: 'appointment', id: 'a7' }],
    });
    const result = await cli('verify', '--cohort', 'pilot', '--sample', '1');
    expect(result.exit).toBe(8);
    expect(result.stdout).toMatch(/only in the copy +1\n/);
    expect(result.stdout).toContain('appointment a7');
  });

  test('the app is said to own all only where it does: what failed is not passed off as moved', async () => {
    const moved = (partition: string) => ({
      ...{ partition, ownerRecords: 0, copyRecords: 0, differences: [], problems: [] },
      notCopied: 'the app owns it',
    });
    const all = 'Nothing was compared: the app owns all of these';
    rig.compare = moved;
    expect(await cli('verify', 'pilot')).toMatchObject({ exit: 0, stdout: expect.stringContaining(all) });
    rig.compare = (partition) =>
      partition === 'u1' ? moved(partition) : Promise.reject(new Error('the app is down'));
    const half = await cli('verify', 'pilot');
    expect(half.exit).toBe(1);
    expect(half.stdout).not.toContain(all);
    expect(half.stdout).toContain('the app is down');
  });

  test('what could not be compared is an error: exit 1', async () => {
    rig.compare = () => Promise.reject(new Error('the list is gone'));
    const result = await cli('verify', 'pilot');
    expect(result.exit).toBe(1);
    expect(result.stdout).toContain('the list is gone');
  });

  test('an import larger than one call goes in several, from a file or from standard input', async () => {
    const note = 'x'.repeat(900);
    const lines = Array.from({ length: 2_000 }, (_, at) => ({ partition: `p${at}`, attributes: { note } }));
    const file = join(directory, 'partitions.json');
    writeFileSync(file, JSON.stringify(lines));
    const result = await cli('partitions', 'import', file, '--reason', 'crm');
    expect(result).toMatchObject({ exit: 0, stdout: 'Imported 2000 partitions; the registry knows 2000.\n' });
    const piped = await runCli(
      ['--admin', rig.url, '--token', tokens.operator, 'partitions', 'import', '-', '--reason', 'crm'],
      { input: '{"partition":"q1"}\n' },
    );
    expect(piped.stdout).toBe('Imported 1 partitions; the registry knows 2001.\n');
    expect(await cli('partitions', 'import', '/nowhere', '--reason', 'crm')).toMatchObject({ exit: 1 });
  });
});

test('a reader that goes away does not crash the command', async () => {
  rig.desk.then = {};
  const running = startCli(['--admin', rig.url, '--token', tokens.operator, ...flipPilot]);
  await until('something is printed', () => running.stdout() !== '');
  await until('the flip is there', () => rig.desk.all.has('flip-1'));
  running.child.stdout?.destroy();
  rig.desk.all.set('flip-1', {
    ...rig.desk.all.get('flip-1')!,
    state: 'completed',
    committed: 2,
    pending: 0,
  });
  const { stderr } = await running.ended;
  expect(stderr).not.toMatch(/EPIPE|\n\s+at /);
});
