/** What operators are told of the sync on the command line: strays, pauses, stores that fail, and what to do next. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { FailingStores } from '../../src/sync/failing-stores.ts';
import { type AdminRig, startAdmin, tokens } from '../support/admin.ts';
import { runCli } from '../support/cli.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let rig: AdminRig;

beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server.stop());
beforeEach(async () => {
  rig = await startAdmin(server);
});
afterEach(() => rig.stop());

function cli(...argv: string[]) {
  return runCli(['--admin', rig.url, '--token', tokens.operator, ...argv]);
}

async function moveToApp(partition: string): Promise<void> {
  const orders = [
    { kind: 'fence', to: 'app', attempt: 'a', fenceMs: 10_000 },
    { kind: 'commit', attempt: 'a' },
    { kind: 'release', attempt: 'a' },
  ] as const;
  for (const order of orders) {
    await rig.parts.ledger.order({ partition, order, by: 'test', reason: 'test' });
  }
}

async function findStray(record: string, ownerHolds?: string) {
  const { stray } = await rig.strays.add({
    ...{ store: 'legacy', partition: 'u1', kind: 'note', record, change: 'changed' },
    ...{ owner: 'app', epoch: 1, digest: record, holds: '{"text":"theirs"}', foundAtMs: 1 },
    ownerHolds,
  });
  return stray.id;
}

describe('strays resolve', () => {
  const ignore = (id: string, ...more: string[]) =>
    cli('strays', 'resolve', id, '--how', 'ignored', '--reason', 'x', ...more);

  test('says before and afterwards that the record is written over while the rollback window is open', async () => {
    rig.closedWindows = new Set();
    await moveToApp('u1');
    const [changed, made] = [await findStray('n1', '{"text":"ours"}'), await findStray('n2')];
    const over = 'note n1 in legacy is written over with what app holds';
    expect((await cli('strays', 'show', changed)).stdout).toContain(over);
    const unasked = await ignore(changed);
    expect(unasked).toMatchObject({ exit: 1, stderr: expect.stringContaining(over) });
    expect(unasked.stderr).toContain('--how moved');
    expect((await ignore(made)).stderr).toContain('note n2 in legacy is deleted');
    expect(await rig.strays.list('resolved')).toEqual([]);
    const done = await ignore(changed, '--yes');
    expect(done).toMatchObject({ exit: 0, stdout: expect.stringContaining('is resolved: ignored. The') });
    expect(done.stdout).toContain('note n1 in legacy now becomes what app holds');
    expect((await cli('help', 'strays', 'resolve')).stdout).toContain('is then written over it');
  }, 120_000);

  test.each<[string, ReadonlySet<string> | undefined]>([
    ['there is no window', undefined],
    ['the window is closed', new Set(['u1'])],
  ])('asks nothing where %s', async (_, closed) => {
    rig.closedWindows = closed;
    await moveToApp('u1');
    const id = await findStray('n1');
    expect(await ignore(id)).toMatchObject({ exit: 0, stdout: `${id} is resolved: ignored.\n` });
  });
});

test('open strays are told by status, sync status and explain', async () => {
  const line = /strays +2 open: .* onewriter strays list --state open/;
  for (const argv of [['status'], ['sync', 'status'], ['explain', 'u1']]) {
    expect((await cli(...argv)).stdout).not.toContain('strays');
  }
  await findStray('n1');
  await findStray('n2');
  for (const argv of [['status'], ['status', 'pilot'], ['sync', 'status'], ['explain', 'u1']]) {
    expect((await cli(...argv)).stdout).toMatch(line);
  }
  for (const argv of [
    ['status', 'large'],
    ['explain', 'u2'],
  ]) {
    expect((await cli(...argv)).stdout).not.toContain('strays');
  }
}, 120_000);

test('status says that copies are paused and that a store fails, and how to go on', async () => {
  await cli('sync', 'pause', 'legacy', '--reason', 'they work on it');
  await new FailingStores(rig.redis).failed('app', 'denied', 'app answered with 401');
  const { stdout } = await cli('status');
  expect(stdout).toMatch(
    /PAUSED to legacy +by olga since .*: they work on it\. Go on: onewriter sync resume legacy/,
  );
  expect(stdout).toMatch(/FAILING: app +since 20.*, tried again at 20.*: app answered with 401/);
});

test('sync status says why webhooks were refused, and that their changes wait for polls', async () => {
  expect((await cli('sync', 'status')).stdout).not.toContain('REFUSED');
  rig.deliveries = [
    { store: 'legacy', outcome: 'stored', deliveries: 5 },
    { store: 'legacy', outcome: 'wrong', deliveries: 2 },
  ];
  const { stdout } = await cli('sync', 'status');
  expect(stdout).toMatch(
    /REFUSED from legacy +2 webhooks: their signatures do not match stores\.legacy\.connector/,
  );
  expect(stdout).toContain('compare the secrets on both sides');
  expect(stdout).toContain('copied after the next poll');
  expect(stdout.match(/REFUSED/g)).toHaveLength(1);
});

test('window status says what an open and a closed window mean', async () => {
  rig.closedWindows = new Set();
  await moveToApp('u1');
  expect((await cli('window', 'status')).stdout).toBe(
    'Changes of 1 partitions are copied back to legacy. No partition in the app has its window closed.\n',
  );
  rig.closedWindows = new Set(['u1']);
  expect((await cli('window', 'status')).stdout).toContain(
    'The windows of 1 partitions in the app are closed',
  );
});

test('a plan that moves nothing speaks of no way back', async () => {
  const { stdout } = await cli('plan', '--cohort', 'large', '--to', 'app');
  expect(stdout).toContain('Plan: 0 to flip');
  expect(stdout).not.toContain('Way back');
});
