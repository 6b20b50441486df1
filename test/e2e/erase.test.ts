/** A user's records are removed from both stores and from everything that onewriter keeps, and nobody else's. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { Erasure, ErasureReceipt } from '../../src/core/erasure.ts';
import type { Fields } from '../../src/core/records.ts';
import { sha256Of } from '../../src/handoff/receipt.ts';
import { syncKeys } from '../../src/sync/keys.ts';
import { Whereabouts } from '../../src/sync/webhooks/whereabouts.ts';
import { contentsOf, ErasureRig, type ErasureRigOptions, operatorToken } from '../support/erasure.ts';
import { connectorFor, type SeenCall } from '../support/rest-store.ts';
import { until } from '../support/until.ts';

const secretWord = 'Kierkegaard';
let rig: ErasureRig;

afterEach(() => rig.close());

function recordsOf(...people: readonly string[]): Fields[] {
  return people.flatMap((owner) =>
    [1, 2, 3].map((at) => ({
      id: `rec-${owner}-${at}`,
      owner_id: owner,
      title: `${secretWord} of ${owner}, ${at}`,
    })),
  );
}

async function start(options: ErasureRigOptions = {}): Promise<void> {
  rig = await ErasureRig.open({
    config: { cohorts: { one: { partitions: ['ann'] }, both: { partitions: ['ann', 'bob'] } } },
    ...options,
    legacy: { paging: 'cursor', pageSize: 2, records: recordsOf('ann', 'bob'), ...options.legacy },
    app: { paging: 'cursor', pageSize: 2, ...options.app },
  });
  await rig.start();
  await until('everything is copied', () => rig.app.records.size === rig.legacy.records.size, 30_000);
}

const idsOf = (store: { readonly records: ReadonlyMap<string, Fields> }, owner: string): string[] =>
  [...store.records].filter(([, record]) => record['owner_id'] === owner).map(([id]) => id);

async function flip(cohort: string): Promise<void> {
  const done = await rig.cli('flip', '--cohort', cohort, '--to', 'app', '--reason', 'test', '--yes');
  expect({ exit: done.exit, stderr: done.stderr }).toEqual({ exit: 0, stderr: '' });
}

async function erase(partition: string, ...more: string[]): Promise<ErasureReceipt> {
  const done = await rig.cli(
    'erase',
    partition,
    '--reason',
    'asked for by letter',
    '--yes',
    '--json',
    ...more,
  );
  expect({ exit: done.exit, stderr: done.stderr }).toEqual({ exit: 0, stderr: '' });
  return done.events.at(-1)?.['receipt'] as ErasureReceipt;
}

async function whereItStands(word: string): Promise<string[]> {
  const contents = await contentsOf(rig.redis);
  return [...contents]
    .filter(([key, text]) => `${key}\n${text}`.includes(word))
    .map(([key]) => key)
    .toSorted();
}

/** Puts something of ann's into every place that keeps something of partitions. */
async function fillEveryPlace(): Promise<void> {
  const { parts, redis } = rig;
  await rig.put('ann', 'rec-ann-1', `${secretWord} again`, { 'idempotency-key': '"one"' });
  await parts.registry.note([{ partition: 'ann', attributes: { employer: secretWord } }]);
  await parts.links.note([['ann', 'bob']], '/x');
  await parts.doubts.note({
    ...{ partition: 'ann', store: 'legacy', epoch: 1, member: 'm-gone', settleMs: 0 },
    ...{ method: 'PUT', path: `/appointments/${secretWord}`, why: 'no answer' },
  });
  await redis.xadd(syncKeys.inbox, '*', 'e', JSON.stringify(['legacy', 'appointment', 'rec-ann-1', 'ann']));
  await redis.xadd(syncKeys.unplaced, '*', 'e', JSON.stringify(['legacy', 'appointment', 'rec-ann-2', '']));
  await new Whereabouts(redis, 'legacy').learn([{ partition: 'ann', kind: 'appointment', id: 'rec-ann-3' }]);
}

describe('after a move to the app', () => {
  test('all that there was of a user is gone on both sides and in Redis; others are as they were', async () => {
    await start();
    await fillEveryPlace();
    // A flip that the app refuses leaves the app's own words behind.
    rig.behindGuard = ({ method, path }) =>
      method === 'PUT' && path.includes('rec-ann-4')
        ? { status: 422, body: { detail: `no room for ${secretWord}` } }
        : undefined;
    rig.legacy.set({ id: 'rec-ann-4', owner_id: 'ann', title: secretWord });
    await until('a letter is dead', async () => (await whereItStands('no room for')).length > 0, 30_000);
    await rig.cli('flip', '--cohort', 'one', '--to', 'app', '--reason', 'too early', '--yes');
    const links = await rig.cli('links', 'forget', 'ann', 'bob', '--reason', 'only ann moves');
    expect(links.exit).toBe(0);
    rig.behindGuard = undefined;
    await rig.cli('sync', 'retry', '--all', '--reason', 'mended');
    await until('it is copied', () => rig.app.records.has('rec-ann-4'));
    await until('no letter is left', async () => {
      const { body } = await rig.admin('GET', '/v1/dead-letters');
      return (body['deadLetters'] as unknown[]).length === 0;
    });
    await flip('one');
    await rig.parts.links.note([['ann', 'bob']], '/x');
    await rig.put('ann', 'rec-ann-5', `${secretWord} in the app`, { 'idempotency-key': '"two"' });
    rig.legacy.set({ id: 'rec-ann-1', owner_id: 'ann', title: `${secretWord}, changed around onewriter` });
    await until(
      'the stray is found',
      async () => (await rig.parts.redis.hlen('{onewriter}:strays')) > 0,
      30_000,
    );
    expect(await whereItStands(secretWord)).not.toEqual([]);

    const planned = await rig.cli('erase', 'ann', '--plan');
    expect(planned.exit).toBe(2);
    expect(planned.stdout).toContain('Plan: 9 records to delete');
    expect(idsOf(rig.legacy, 'ann')).toHaveLength(4);
    expect(rig.deletes(rig.legacy)).toEqual([]);

    const file = join(rig.config, '..', 'receipt.json');
    const receipt = await erase('ann', '--out', file);
    expect(idsOf(rig.legacy, 'ann')).toEqual([]);
    expect(idsOf(rig.app, 'ann')).toEqual([]);
    // Late deletes would be refused, and users' writes are not.
    expect(rig.guard.get('ann')).toMatchObject({ owner: 'app', closed: true, written: false });
    expect(idsOf(rig.legacy, 'bob')).toHaveLength(3);
    expect(idsOf(rig.app, 'bob')).toHaveLength(3);
    expect([...rig.deletes(rig.legacy), ...rig.deletes(rig.app)].filter((id) => !id.includes('ann'))).toEqual(
      [],
    );

    expect(receipt.removed).toEqual([
      { store: 'app', kind: 'appointment', records: 5 },
      { store: 'legacy', kind: 'appointment', records: 4 },
    ]);
    const places = receipt.forgotten.map(({ place }) => place).toSorted();
    expect(places).toEqual([
      ...['attributes', 'idempotency-keys', 'inbox', 'jobs', 'links', 'receipts'],
      ...['snapshots', 'strays', 'whereabouts', 'writes-in-doubt'],
    ]);
    expect(receipt.warnings).toEqual([]);
    const { sha256, ...rest } = JSON.parse(readFileSync(file, 'utf8')) as ErasureReceipt;
    expect(sha256).toBe(sha256Of(rest));
    expect(rest.partition).toBe(
      `sha256:${createHash('sha256').update(`${rest.erasure}\nann`).digest('hex')}`,
    );

    // Bob's contents are nowhere either: nothing of his was ever kept.
    expect(await whereItStands(secretWord)).toEqual([]);
    expect(await whereItStands('rec-ann')).toEqual(['{onewriter}:audit']);
    // Only what the receipt names.
    const named = (await whereItStands('ann')).map((key) => key.replace(/of:[0-9a-f-]+/, 'of:ID'));
    expect(named).toEqual(
      [
        ...['acknowledgements', 'audit', 'changes', 'flip:of:ID:reports', 'flip:partitions', 'partitions'],
        ...['plans', 'registry', 'sync:snapshot:legacy'],
      ].map((name) => `{onewriter}:${name}`),
    );

    // Nothing that the erasure did in legacy is a stray; what comes up there afterwards is one.
    rig.legacy.set({ id: 'late', owner_id: 'ann', title: 'late' });
    const strays = await until('the watch has looked', async () => {
      const { body } = await rig.admin('GET', '/v1/strays');
      const all = body['strays'] as { record: string; change: string }[];
      return all.length > 0 && all;
    });
    expect(strays.map(({ record, change }) => `${record} ${change}`)).toEqual(['late created']);

    // Who comes back has the owner of before.
    expect(await rig.put('ann', 'rec-ann-9', 'a new beginning')).toMatchObject({ status: 201 });
    expect(idsOf(rig.app, 'ann')).toEqual(['rec-ann-9']);
  }, 120_000);
});

/** Answers the store's deletes only once the gate is opened. */
function gate() {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  let waiting = 0;
  return {
    open: () => open(),
    waiting: () => waiting,
    hold: async ({ method }: SeenCall): Promise<undefined> => {
      if (method !== 'DELETE') return undefined;
      waiting += 1;
      await opened;
      return undefined;
    },
  };
}

const order = (partition = 'ann') =>
  rig.admin('POST', '/v1/erasures', { partition, confirm: partition, reason: 'asked for' });

async function done(id: string): Promise<Erasure> {
  return until(
    'the erasure is done',
    async () => {
      const { body } = await rig.admin('GET', `/v1/erasures/${id}`);
      return body['state'] === 'done' && (body as unknown as Erasure);
    },
    60_000,
  );
}

describe('while a user is being erased', () => {
  test('their writes are refused or wait, reads go on, and what is acknowledged afterwards stays', async () => {
    await start({ config: { flip: { holdMs: 300, fenceMs: 250, drainMs: 200 } } });
    const { hold, open, waiting } = gate();
    rig.legacy.intercept = hold;
    const { status, body } = await order();
    expect(status).toBe(202);
    await until('a delete waits', () => waiting() > 0);
    // What was on its way to the app before the fence is refused there.
    expect(rig.guard.get('ann')).toMatchObject({ epoch: 1, closed: true });
    expect(await rig.put('ann', 'rec-ann-8', 'too early')).toEqual({ status: 503, code: 'fenced' });
    expect(await rig.get('ann', 'rec-ann-1')).toBe(200);
    expect(await rig.put('bob', 'rec-bob-8', 'as ever')).toMatchObject({ status: 201 });
    // The same order again is the same erasure.
    expect((await order()).body['id']).toBe(body['id']);
    const held = rig.put('ann', 'rec-ann-7', 'held');
    open();
    const answered = await held;
    const { removed } = await done(String(body['id']));
    expect(removed.map(({ records }) => records)).toEqual([3, 3]);
    // Held and then let through, or refused: never taken and then erased without a word.
    const kept = idsOf(rig.legacy, 'ann');
    expect(kept).toEqual(answered.status === 201 ? ['rec-ann-7'] : []);
  }, 60_000);

  test('whoever kills the process in the middle only delays it: the receipt counts everything', async () => {
    await start();
    await flip('both');
    const { hold, waiting, open } = gate();
    let deletes = 0;
    rig.behindGuard = async (call) => {
      if (call.method === 'DELETE') deletes += 1;
      return deletes > 1 ? hold(call) : undefined;
    };
    const { body } = await order();
    await until('a delete waits in the app', () => waiting() > 0, 30_000);
    await rig.kill();
    open();
    rig.behindGuard = undefined;
    await rig.start();
    const { receipt, turns } = await done(String(body['id']));
    expect(turns).toBeGreaterThan(1);
    expect(receipt?.removed).toEqual([
      { store: 'app', kind: 'appointment', records: 3 },
      { store: 'legacy', kind: 'appointment', records: 3 },
    ]);
    expect([idsOf(rig.legacy, 'ann'), idsOf(rig.app, 'ann')]).toEqual([[], []]);
    expect([idsOf(rig.legacy, 'bob'), idsOf(rig.app, 'bob')].flat()).toHaveLength(6);
    expect(await whereItStands('rec-ann')).toEqual([]);
    // The app's guard takes ann's writes again.
    expect(await rig.put('ann', 'rec-ann-9', 'back')).toMatchObject({ status: 201 });
  }, 120_000);

  test('a turn that the app ends in the middle makes no strays; the next one goes on', async () => {
    await start();
    await flip('both');
    rig.behindGuard = ({ method }) => (method === 'DELETE' ? { status: 503, body: {} } : undefined);
    const { body } = await order();
    await until('it waits for the app', async () => {
      const { body: now } = await rig.admin('GET', `/v1/erasures/${String(body['id'])}`);
      return now['trouble'] !== undefined;
    });
    expect(idsOf(rig.legacy, 'ann')).toEqual([]);
    // A look of the watch that began after the turn had ended.
    rig.legacy.set({ id: 'rec-bob-1', owner_id: 'bob', title: 'changed around onewriter' });
    await until('the watch has looked', () => /"sync.stray".*"partition":"bob"/.test(rig.stderr), 30_000);
    rig.behindGuard = undefined;
    const { removed } = await done(String(body['id']));
    expect(removed.map(({ records }) => records)).toEqual([3, 3]);
    expect(rig.stderr).not.toMatch(/"sync.stray".*"partition":"ann"/);
  }, 90_000);

  test('a write in doubt is waited for under the fence, and what came of it late is removed, too', async () => {
    await start({ settleMs: 1_500 });
    let late = (): void => undefined;
    rig.legacy.intercept = ({ method, path }) => {
      if (method !== 'PUT' || !path.endsWith('rec-ann-late')) return undefined;
      late = () => rig.legacy.set({ id: 'rec-ann-late', owner_id: 'ann', title: 'late' });
      return new Promise(() => undefined);
    };
    expect(await rig.put('ann', 'rec-ann-late', 'late')).toMatchObject({ code: 'outcome-unknown-timeout' });
    const { body } = await order();
    await until('it waits', async () => {
      const { body: now } = await rig.admin('GET', `/v1/erasures/${String(body['id'])}`);
      return Number(now['turns']) > 0;
    });
    late();
    await until('the partition is open again', async () => {
      const { body: now } = await rig.admin('GET', `/v1/erasures/${String(body['id'])}`);
      return now['step'] === 'looking-again';
    });
    rig.legacy.set({ id: 'rec-ann-new', owner_id: 'ann', title: 'new' });
    const { receipt } = await done(String(body['id']));
    // Not removed without a word: it may be somebody who has come back.
    expect(idsOf(rig.legacy, 'ann')).toEqual(['rec-ann-new']);
    expect(receipt?.warnings.join()).toContain('legacy shows 1 appointment record again');
    expect(receipt?.removed).toContainEqual({ store: 'legacy', kind: 'appointment', records: 4 });
    expect(rig.stderr).toContain('"code":"write-in-doubt"');
  }, 60_000);
});

describe('who may, and what is refused', () => {
  test('an admin with the name typed again; a name that is known; a store that can delete', async () => {
    await start({
      legacyConnector: { records: { appointment: without(connectorFor({ paging: 'cursor' }), 'delete') } },
    });
    const body = { partition: 'ann', confirm: 'ann', reason: 'x' };
    expect(await rig.admin('POST', '/v1/erasures', body, operatorToken)).toMatchObject({ status: 403 });
    expect(await rig.admin('POST', '/v1/erasures', { ...body, confirm: 'bob' })).toMatchObject({
      ...{ status: 422, body: { code: 'not-confirmed' } },
    });
    expect(await order('nobody')).toMatchObject({ status: 404, body: { code: 'no-such-partition' } });
    expect((await rig.cli('erase', 'ann', '--yes')).stderr).toContain('--reason');
    expect((await rig.cli('erase', 'ann', '--reason', 'x')).stderr).toContain('no terminal');
    const planned = await rig.cli('erase', 'ann', '--plan');
    expect(planned).toMatchObject({ exit: 8, stdout: expect.stringContaining('no "delete"') });
    expect([...(await rig.parts.ledger.touched()).keys()]).toEqual([]);

    const failed = await rig.cli('erase', '--partition', 'ann', '--reason', 'x', '--yes');
    expect(failed).toMatchObject({ exit: 1, stdout: expect.stringContaining('no-delete') });
    expect([...rig.deletes(rig.legacy), ...rig.deletes(rig.app)]).toEqual([]);
    expect((await rig.admin('GET', '/metrics')).body['text']).toContain(
      'onewriter_erasures_open{state="failed"} 1',
    );
    // Deleted by hand, there is nothing that the connector would have to delete.
    for (const id of idsOf(rig.legacy, 'ann')) rig.legacy.remove(id);
    await until('the copies follow', () => idsOf(rig.app, 'ann').length === 0);
    const { erasure, orders } = await erase('ann');
    const { epoch } = (await rig.parts.ledger.read('ann')).ownership;
    expect(rig.guard.get('ann')).toMatchObject({ owner: 'legacy', closed: true, epoch: epoch - 1 });
    expect(orders.map(({ reason }) => reason)).toEqual(['x', 'asked for by letter']);
    const listed = await rig.cli('erase', 'list', 'ann');
    expect(listed.stdout).toContain(erasure);
    expect((await rig.cli('erase', 'list', 'bob')).stdout).toContain('There are no erasures');
    expect((await rig.cli('erase', 'show', erasure)).stdout).toContain('kept');
    const { body: log } = await rig.admin('GET', '/v1/audit');
    const actions = (log['entries'] as { action: string; target: string }[]).map(({ action }) => action);
    expect(actions).toEqual(['erasure.done', 'erasure.order', 'erasure.failed', 'erasure.order']);
    expect(await whereItStands('ann')).not.toContain('{onewriter}:audit');
  }, 90_000);
});

function without(connector: ReturnType<typeof connectorFor>, name: 'delete'): Record<string, unknown> {
  const { [name]: _, ...rest } = connector.records['appointment'] ?? {};
  return rest;
}
