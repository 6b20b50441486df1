/** Partitions that are written together move together, or stay: at the plan, before the fence, and before the commit (I4). */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { FlipStatus, OrderRefusal, Plan } from '../../src/core/flip.ts';
import { pairOf } from '../../src/core/links.ts';
import type { HandoffDesk } from '../../src/handoff/desk.ts';
import { keys } from '../../src/ledger/connection.ts';
import { FlipRig, leaseMs, names } from '../support/flip.ts';
import { until } from '../support/until.ts';

let rig: FlipRig;
beforeEach(async () => {
  rig = await FlipRig.start();
});
afterEach(async () => {
  await rig.close();
});

const link = (...pairs: [string, string][]): Promise<number> =>
  rig.ledger.links.note(
    pairs.map((pair) => pairOf(...pair)),
    '/batch',
  );

async function planned(desk: HandoffDesk, cohort = 'pilot'): Promise<Plan> {
  const plan = await desk.plan({ cohort, to: 'app', by: 'ops' });
  if ('refused' in plan) throw new Error(plan.detail);
  return plan;
}

function blockedIn(plan: Plan | FlipStatus | OrderRefusal): string[] {
  return (plan.blocked ?? []).map(({ partition, code }) => `${partition} ${code}`);
}

async function move(partition: string, attempt = partition): Promise<void> {
  const orders = [
    { kind: 'fence', to: 'app', attempt, fenceMs: 60_000 },
    { kind: 'commit', attempt },
    { kind: 'release', attempt },
  ] as const;
  for (const order of orders) await rig.ledger.ledger.order({ partition, order, by: 'test', reason: 'test' });
}

describe('a plan', () => {
  test('blocks who would leave a partner behind, names the merge to make, and moves the others', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u03', 'elsewhere'], ['u03', 'u04'], ['u01', 'u02']);
    const desk = await rig.openDesk();
    const plan = await planned(desk);
    expect(blockedIn(plan)).toEqual(['u03 cuts-link', 'u04 cuts-link']);
    expect(plan.blocked[0]?.detail).toContain('together with elsewhere, which would stay behind');
    expect(plan.blocked[0]?.detail).toContain('add elsewhere to the cohort');
    expect(plan.blocked[0]?.detail).toContain('onewriter links forget u03 elsewhere --reason');
    expect(plan.blocked[1]?.detail).toContain('together with u03');
    expect(plan.flip).toEqual(names.filter((name) => name !== 'u03' && name !== 'u04'));
    expect(Object.keys(plan.epochs).toSorted()).toEqual(plan.flip);
  });

  test('lets go who joins a partner that is there already', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u03', 'elsewhere']);
    await move('elsewhere');
    const desk = await rig.openDesk();
    expect(blockedIn(await planned(desk))).toEqual([]);
    // What is on its way there may yet turn back.
    const fence = { kind: 'fence', to: 'legacy', attempt: 'b', fenceMs: 60_000 } as const;
    await rig.ledger.ledger.order({ partition: 'elsewhere', order: fence, by: 'test', reason: 'test' });
    expect(blockedIn(await planned(desk))).toEqual(['u03 cuts-link']);
  });

  test('that an operator knows better about goes on when the link is forgotten', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u03', 'elsewhere']);
    const desk = await rig.openDesk();
    const { id } = await planned(desk);
    expect(await rig.ledger.links.forget(['elsewhere', 'u03'], 'ops', 'not true any more')).toMatchObject({
      result: 'forgotten',
    });
    expect((await planned(desk)).flip.length).toBe(names.length);
    const old = await desk.start({ cohort: 'pilot', to: 'app', reason: 'r', by: 'ops', planId: id });
    expect(await rig.ended(desk, 'id' in old ? old.id : '')).toMatchObject({ committed: names.length - 1 });
  });

  test('is stale where a link arose since', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const { id } = await planned(desk);
    await link(['u03', 'elsewhere']);
    const order = { cohort: 'pilot', to: 'app', reason: 'r', by: 'ops', planId: id } as const;
    expect(await desk.start(order)).toMatchObject({ refused: 'stale-plan' });
  });

  test('keeps who is linked in one wave, side by side', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u00', 'u11'], ['u11', 'u05']);
    const desk = await rig.openDesk({ waves: ['1', '50%', '100%'] });
    const plan = await planned(desk);
    expect(plan.flip.slice(0, 3)).toEqual(['u00', 'u11', 'u05']);
    expect(plan.waveSizes).toEqual([3, 3, 6]);
    const status = await rig.ended(desk, (await rig.start(desk)).id);
    expect(status).toMatchObject({ state: 'completed', committed: 12 });
    expect(await desk.flipPartitions(status.id)).toEqual(names);
  });
});

describe('a flip under way', () => {
  test('moves them in the wave that was planned for them', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u00', 'u11'], ['u11', 'u05']);
    rig.hopeless = new Set(['u05']);
    const desk = await rig.openDesk({ batch: 1, waves: ['1', '100%'] });
    const { id } = await rig.start(desk);
    const paused = await rig.untilFlip(desk, id, 'it stands', ({ state }) => state === 'paused');
    expect(paused.detail).toContain('in wave 1 of 2, 1 of 3 partitions stayed where they were');
    await desk.resume(id, 'ops', 'seen');
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
  });

  test('does not fence a partition that was joined with one that stays, and gives it up at once', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'] });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(desk);
    await until('u02 is under way', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    await link(['u05', 'elsewhere']);
    letGo();
    const ended = await rig.ended(desk, id);
    expect(ended).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
    expect(blockedIn(ended)).toEqual(['u05 cuts-link']);
    expect((await rig.ledger.ledger.read('u05')).ownership).toEqual({
      phase: 'open',
      owner: 'legacy',
      epoch: 1,
    });
    expect((await desk.flipReports(id, ['u05']))[0]).toMatchObject({ outcome: 'stayed', attempts: 1 });
  });

  test('does not commit one that was joined after its preflight: the last look is behind the drain', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'] });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    await link(['u02', 'elsewhere']);
    letGo();
    const ended = await rig.ended(desk, id);
    expect(blockedIn(ended)).toEqual(['u02 cuts-link']);
    expect((await rig.ledger.ledger.read('u02')).ownership).toEqual({
      phase: 'open',
      owner: 'legacy',
      epoch: 3,
    });
  });

  test('moves on without the partners of one that was given up', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u02', 'u07'], ['u07', 'u09']);
    rig.hopeless = new Set(['u02']);
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'] });
    const ended = await rig.ended(desk, (await rig.start(desk)).id);
    expect(ended).toMatchObject({ state: 'failed', committed: 9, aborted: 3 });
    expect(blockedIn(ended).toSorted()).toEqual(['u02 unusable-records', 'u07 cuts-link', 'u09 cuts-link']);
  });

  test('tries again where the partner is only being moved by somebody else', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u03', 'elsewhere']);
    await move('elsewhere');
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'], attempts: 20 });
    const letGo = rig.holdAt('u01');
    const { id } = await rig.start(desk);
    await until('u01 is under way', async () => (await rig.ownerOf('u01')) === 'fenced legacy');
    const order = (wanted: { kind: 'abort' } | { kind: 'fence'; to: 'legacy'; fenceMs: number }) =>
      rig.ledger.ledger.order({
        ...{ partition: 'elsewhere', order: { ...wanted, attempt: 'b' }, by: 'test', reason: 'test' },
      });
    await order({ kind: 'fence', to: 'legacy', fenceMs: 60_000 });
    letGo();
    await until('u03 has been tried', async () => {
      const [report] = await desk.flipReports(id, ['u03']);
      return report?.lastFailure?.code === 'linked-busy';
    });
    expect((await rig.ledger.ledger.read('u03')).ownership.epoch).toBe(1);
    await order({ kind: 'abort' });
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('tries again where the partner began to be moved behind the preflight', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u02', 'elsewhere']);
    await move('elsewhere');
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'], attempts: 20 });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    const order = (wanted: { kind: 'abort' } | { kind: 'fence'; to: 'legacy'; fenceMs: number }) =>
      rig.ledger.ledger.order({
        ...{ partition: 'elsewhere', order: { ...wanted, attempt: 'b' }, by: 'test', reason: 'test' },
      });
    await order({ kind: 'fence', to: 'legacy', fenceMs: 60_000 });
    letGo();
    const report = await until('it was broken off', async () => {
      const [found] = await desk.flipReports(id, ['u02']);
      return found?.attempts === 0 ? undefined : found;
    });
    expect(report).toMatchObject({ outcome: 'pending', lastFailure: { code: 'linked-busy' } });
    await order({ kind: 'abort' });
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('tries again where the links could not be read before the commit', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1, waves: ['100%'], attempts: 20 });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    // Of another type than it should be, Redis reads it no more than when it is away.
    await rig.redis.set(keys.partners, 'spoiled');
    letGo();
    const report = await until('it was broken off', async () => {
      const [found] = await desk.flipReports(id, ['u02']);
      return found?.attempts === 0 ? undefined : found;
    });
    expect(report).toMatchObject({ outcome: 'pending', lastFailure: { code: 'links-unread' } });
    await rig.redis.del(keys.partners);
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('goes on in another coordinator in the same waves', async () => {
    await rig.ledger.join({ leaseMs });
    await link(['u00', 'u11']);
    const first = await rig.openDesk({ batch: 1, waves: ['1', '100%'] });
    const letGo = rig.holdAt('u11');
    const { id } = await rig.start(first);
    await until('u11 is under way', async () => (await rig.ownerOf('u11')) === 'fenced legacy');
    expect(await rig.ownerOf('u01')).toBe('open legacy');
    await first.stop();
    letGo();
    const second = await rig.openDesk({ batch: 1, waves: ['1', '100%'] });
    expect(await rig.ended(second, id)).toMatchObject({ state: 'completed', committed: 12 });
  });
});
