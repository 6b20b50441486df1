/** What operators say to and see of the registry: who is new, and whom a cohort selects since it was moved. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type AdminRig, startAdmin, tokens } from '../support/admin.ts';
import { runCli } from '../support/cli.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';

let server: TestRedis;
let rig: AdminRig;
let directory: string;

beforeAll(async () => {
  server = await startRedis();
  directory = mkdtempSync(join(tmpdir(), 'onewriter-registry-'));
});
afterAll(async () => {
  rmSync(directory, { recursive: true });
  await server.stop();
});
beforeEach(async () => {
  rig = await startAdmin(server);
});
afterEach(() => rig.stop());

const cli = (...argv: string[]) => runCli(['--admin', rig.url, '--token', tokens.operator, ...argv]);

test('what the rules take for no name of a partition comes in by no import and no entry of the directory', async () => {
  const put = (partition: string) =>
    rig.call('PUT', '/v1/directory/ann', { body: { partition, reason: 'moved' } });
  const load = (partition: string) =>
    rig.call('POST', '/v1/partitions/import', { body: { reason: 'crm', partitions: [{ partition }] } });
  rig.rules = { ...rig.rules, partition: [{ directory: true }] };
  for (const partition of ['01', '1 ', 'a\u0308']) {
    expect(await put(partition)).toMatchObject({ status: 400, body: { code: 'invalid-request' } });
    const loaded = await load(partition);
    expect(loaded).toMatchObject({
      status: 400,
      body: { detail: expect.stringContaining('partitionNames') },
    });
  }
  rig.rules = { ...rig.rules, partitionNames: { pattern: '[0-9]{2}', letterCase: 'exact' } };
  expect(await put('1')).toMatchObject({ status: 400 });
  expect(await load('1')).toMatchObject({ status: 400 });
  expect(await rig.parts.registry.count()).toBe(0);
  expect(await load('01')).toMatchObject({ status: 200 });
  expect((await put('01')).body).toMatchObject({ partition: '01' });
});

describe('a complete registry', () => {
  test('is declared by an import, told in list and status, and by whom', async () => {
    const before = await rig.call('GET', '/v1/partitions');
    expect(before.body).toMatchObject({ registry: { known: 0, complete: false, newPartitions: 'legacy' } });
    const body = { reason: 'crm', partitions: [{ partition: 'u1' }], complete: true };
    const imported = await rig.call('POST', '/v1/partitions/import', { body });
    expect(imported.body).toEqual({ imported: 1, known: 1, complete: true });
    const status = await rig.call('GET', '/v1/status');
    expect(status.body).toMatchObject({ registry: { known: 1, complete: true } });
    expect(status.text).toContain('as olga said at');
    const [entry] = (await rig.audit.page(undefined, 1)).entries;
    expect(entry).toMatchObject({ before: { complete: false }, after: { complete: true } });
  });

  test('lets explain say of somebody unknown that the first write begins in the app', async () => {
    const explained = async (): Promise<unknown> => (await rig.call('GET', '/v1/explain?user=zoe')).body;
    expect(await explained()).toMatchObject({ owner: 'legacy', known: false });
    rig.rules = { ...rig.rules, newPartitions: 'app' };
    expect(await explained()).toMatchObject({ owner: 'legacy' });
    await rig.parts.registry.declareComplete('olga');
    const sentence = 'Nobody has seen it; its first write begins it in the app.';
    expect(await explained()).toMatchObject({ owner: 'app', known: false, why: { sentence } });
    await rig.parts.registry.note([{ partition: 'zoe' }]);
    expect(await explained()).toMatchObject({ owner: 'legacy', known: true });
    const listed = await cli('partitions', 'list');
    expect(listed.stdout).toMatch(/zoe +legacy +open +epoch 1/);
    expect(listed.stdout).toContain('The registry names everybody who lives in legacy, as olga said');
  });

  test('is not one any more once a member died that may have let somebody write; it says what to do', async () => {
    const { ledger, registry } = rig.parts;
    await registry.declareComplete('olga');
    const member = { host: 'h', pid: 1, sequence: 0, appliedVersion: 0, configHash: 'other', leaseMs: 1 };
    const idle = { writeTimeoutMs: 1, settleMs: 0, inFlight: 0, inDoubt: 0 };
    await ledger.register({ id: 'dead', ...member, ...idle });
    expect(await ledger.removeMember('dead', 0)).toBe(true);
    const { body } = await rig.call('GET', '/v1/status');
    const { complete, detail } = body['registry'] as { complete: boolean; detail: string };
    expect(complete).toBe(false);
    expect(detail).toMatch(/member dead died .* partitions import FILE --complete --reason TEXT/);
    await registry.declareComplete('olga');
    expect(await registry.completeness()).toMatchObject({ complete: true });
  });

  test('is declared from the command line with the last of several calls, and also with nobody to name', async () => {
    const file = join(directory, 'large.ndjson');
    const seen: boolean[] = [];
    const note = rig.parts.registry.note.bind(rig.parts.registry);
    rig.parts.registry.note = async (partitions) => {
      seen.push((await rig.parts.registry.completeness()).complete);
      await note(partitions);
    };
    const lines = Array.from({ length: 12_000 }, (_, at) => ({
      partition: `partition-with-a-long-name-${at}`,
      attributes: { at },
    }));
    writeFileSync(file, lines.map((line) => JSON.stringify(line)).join('\n'));
    const result = await cli('partitions', 'import', file, '--complete', '--reason', 'crm');
    expect(result).toMatchObject({ exit: 0 });
    expect(result.stdout).toContain('Whom it does not name counts as new from now on.');
    expect(seen.length).toBeGreaterThan(1);
    expect(new Set(seen)).toEqual(new Set([false]));
    expect(await rig.parts.registry.completeness()).toMatchObject({ complete: true, by: 'olga' });
    await rig.redis.del('{onewriter}:meta');
    const empty = join(directory, 'empty.ndjson');
    writeFileSync(empty, '');
    const none = await cli('partitions', 'import', empty, '--complete', '--reason', 'nobody yet', '--json');
    expect(none.events.at(-1)).toMatchObject({ type: 'import', imported: 0, complete: true });
  }, 30_000);
});

describe('newcomers of a cohort', () => {
  const noteLarge = (...partitions: string[]) =>
    rig.parts.registry.note(partitions.map((partition) => ({ partition, attributes: { seats: 500 } })));

  test('are those it selects since its last completed flip, with the command that plans their move', async () => {
    await noteLarge('a1', 'a2');
    expect((await rig.call('GET', '/v1/cohorts/large')).body).not.toHaveProperty('newcomers');
    await rig.call('POST', '/v1/flips', { body: { cohort: 'large', to: 'app', reason: 'go' } });
    expect((await rig.call('GET', '/v1/cohorts/large')).body).not.toHaveProperty('newcomers');
    for (const partition of ['a1', 'a2']) await move(partition);
    rig.desk.then = { state: 'completed', committed: 2, pending: 0 };
    await rig.call('GET', '/v1/flips/flip-1');
    expect((await rig.call('GET', '/v1/cohorts/large')).body).toMatchObject({
      newcomers: { flip: 'flip-1', to: 'app', count: 0, partitions: [] },
    });
    await noteLarge('a3', 'a4');
    const newcomers = {
      ...{ flip: 'flip-1', to: 'app', count: 2, partitions: ['a3', 'a4'] },
      command: 'onewriter plan --cohort large --to app',
    };
    expect((await rig.call('GET', '/v1/cohorts/large')).body).toMatchObject({ newcomers });
    expect((await rig.call('GET', '/v1/status?cohort=large')).body).toMatchObject({ newcomers });
    expect((await rig.call('GET', '/v1/status')).body).not.toHaveProperty('newcomers');
    const shown = await cli('status', 'large');
    expect(shown.stdout).toContain('2 partitions that the cohort selects now are not in app: a3, a4');
    expect(shown.stdout).toContain('onewriter plan --cohort large --to app');
    expect((await rig.parts.ledger.read('a3')).version).toBe(0);
  });
});

describe('the directory', () => {
  beforeEach(() => {
    rig.rules = { ...rig.rules, partition: [{ directory: true }] };
  });

  test('takes no entry while no partition rule asks it, and says so when one is looked up', async () => {
    rig.rules = { ...rig.rules, partition: [{ by: 'user' }] };
    const partitions = [{ partition: 'org1', users: ['ann'] }];
    await rig.call('POST', '/v1/partitions/import', { body: { reason: 'crm', partitions } });
    const body = { partition: 'org2', reason: 'moved' };
    const refused = await rig.call('PUT', '/v1/directory/ann', { body });
    expect(refused).toMatchObject({ status: 409, body: { code: 'no-directory' } });
    expect(refused.body['detail']).toContain('Nothing was changed');
    const shown = await rig.call('GET', '/v1/directory/ann');
    expect(shown).toMatchObject({ status: 409, body: { code: 'no-directory' } });
    expect(shown.body['detail']).toContain('"ann" has an entry for "org1"');
    expect((await cli('directory', 'set', 'ann', 'org2', '--reason', 'moved')).exit).not.toBe(0);
  });

  test('is filled by an import, shown and changed user by user, with an entry in the audit log', async () => {
    const partitions = [
      { partition: 'org1', users: ['ann', 'bob'] },
      { partition: 'org2', users: ['cat', 'ann'] },
    ];
    const imported = await rig.call('POST', '/v1/partitions/import', { body: { reason: 'crm', partitions } });
    expect(imported.body).toMatchObject({ users: { added: 3, unchanged: 0, others: ['ann'] } });
    expect((await rig.call('GET', '/v1/directory/ann')).body).toEqual({ user: 'ann', partition: 'org1' });
    const nobody = await rig.call('GET', '/v1/directory/nobody');
    expect(nobody).toMatchObject({ status: 404, body: { code: 'no-such-user' } });
    const body = { partition: 'org2', reason: 'ann changed jobs' };
    expect((await rig.call('PUT', '/v1/directory/ann', { body, token: tokens.viewer })).status).toBe(403);
    const set = await rig.call('PUT', '/v1/directory/ann', { body });
    expect(set).toMatchObject({ status: 200, body: { user: 'ann', partition: 'org2', before: 'org1' } });
    const [entry] = (await rig.audit.page(undefined, 1)).entries;
    expect(entry).toMatchObject({ actor: 'olga', action: 'directory.set', target: 'ann', before: 'org1' });
    await move('org3');
    const other = await rig.call('PUT', '/v1/directory/ann', { body: { ...body, partition: 'org3' } });
    expect(other).toMatchObject({ status: 409, body: { code: 'other-owner' } });
  });

  test('lets explain answer for a user, where the directory is the first rule', async () => {
    const nobody = await rig.call('GET', '/v1/explain?user=ann');
    expect(nobody).toMatchObject({ status: 404, body: { code: 'no-such-user' } });
    const body = { partition: 'org1', reason: 'new here' };
    expect((await rig.call('PUT', '/v1/directory/ann', { body })).status).toBe(200);
    expect((await rig.call('GET', '/v1/explain?user=ann')).body).toMatchObject({
      ...{ user: 'ann', partition: 'org1', owner: 'legacy' },
    });
  });

  test.each([
    ['ann', { partition: '', reason: 'x' }],
    ['ann', { partition: 'x'.repeat(257), reason: 'x' }],
    ['ann', { partition: 'org1' }],
    ['a%0Ab', { partition: 'org1', reason: 'x' }],
  ])('refuses what the proxy could not use: %s %j', async (user, body) => {
    const answer = await rig.call('PUT', `/v1/directory/${user}`, { body });
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid-request' } });
    expect(await rig.redis.hlen('{onewriter}:directory')).toBe(0);
  });

  test('is shown and set from the command line, and filled with a list of users per partition', async () => {
    expect(await cli('directory', 'show', 'ann')).toMatchObject({ exit: 1 });
    const first = await cli('directory', 'set', 'ann', 'org1', '--reason', 'new here');
    expect(first.stdout).toContain('ann belongs to org1.');
    const second = await cli('directory', 'set', 'ann', 'org2', '--reason', 'moved');
    expect(second.stdout).toContain('ann belongs to org2, and not to org1 any more.');
    const file = join(directory, 'users.ndjson');
    writeFileSync(file, '{"partition":"org1","users":["ann","bob"]}\n');
    const filled = await cli('partitions', 'import', file, '--reason', 'crm');
    expect(filled.stdout).toContain('The directory has 1 new users; 0 were there already.');
    expect(filled.stdout).toContain('Left where they belong already: ann.');
    expect((await cli('directory', 'show', 'bob')).stdout).toContain('bob belongs to org1.');
    expect(await cli('directory', 'set', 'ann', 'org1')).toMatchObject({ exit: 1 });
  });
});

async function move(partition: string): Promise<void> {
  const attempt = `attempt of ${partition}`;
  for (const order of [
    { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 },
    { kind: 'commit', attempt },
    { kind: 'release', attempt },
  ] as const) {
    await rig.parts.ledger.order({ partition, order, by: 'ops', reason: 'test' });
  }
}
