import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Plan } from '../../src/core/flip.ts';
import { FlipRig, leaseMs, names } from '../support/flip.ts';
import { until } from '../support/until.ts';

let rig: FlipRig;

beforeEach(async () => {
  rig = await FlipRig.start();
});
afterEach(async () => {
  await rig.close();
});

describe('a flip', () => {
  test('moves every partition of the cohort, and says how long each was paused', async () => {
    await rig.ledger.join({ leaseMs });
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const status = await rig.ended(desk, (await rig.start(desk)).id);
    expect(status).toMatchObject({
      state: 'completed',
      total: 12,
      committed: 12,
      aborted: 0,
      pending: 0,
      blocked: [],
    });
    expect(status.pauseMs?.p50).toBeGreaterThanOrEqual(0);
    for (const name of names) expect(await rig.ownerOf(name)).toBe('open app');
  });

  test('leaves one hopeless partition where it is and names it; the others move (Vitess #17794)', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u07']);
    const desk = await rig.openDesk();
    const status = await rig.ended(desk, (await rig.start(desk)).id);
    expect(status).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
    expect(status.blocked).toMatchObject([{ partition: 'u07', code: 'unusable-records' }]);
    expect(await rig.ownerOf('u07')).toBe('open legacy');
  });

  test('fences no partition whose comparison alone takes longer than it may', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ attempts: 1 });
    rig.passMs = 2_001;
    const { id } = await rig.start(desk);
    const paused = await rig.untilFlip(desk, id, 'it stands', ({ state }) => state === 'paused');
    expect(paused.blocked).toMatchObject([{ partition: 'u00', code: 'slow-comparison' }]);
    expect((await rig.ledger.ledger.read('u00')).ownership.epoch).toBe(1);
  });

  test('moves no partition whose deletes are held back, found by the plan or at the last moment', async () => {
    await rig.ledger.join({ leaseMs });
    rig.brakes.set('u03', 'many copies would be deleted');
    const desk = await rig.openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    expect(plan.blocked).toEqual([
      { partition: 'u03', code: 'delete-brake', detail: 'many copies would be deleted' },
    ]);
    rig.brakes = new Map();
    rig.hopeless = new Set(['u07']);
    const isHopeless = rig.hopeless.has.bind(rig.hopeless);
    // Asked when the copy is brought up, after the plan.
    rig.hopeless.has = (partition) => {
      if (isHopeless(partition)) rig.brakes.set(partition, 'many copies would be deleted');
      return isHopeless(partition);
    };
    const { id } = await rig.start(desk);
    const status = await rig.ended(desk, id);
    expect(status.blocked).toMatchObject([{ partition: 'u07', code: 'delete-brake' }]);
    expect(await rig.ownerOf('u07')).toBe('open legacy');
  });

  test('moves no partition with records that could not be copied, and names the commands', async () => {
    await rig.ledger.join({ leaseMs });
    rig.letters.set('u03', 2);
    const plan = (await (await rig.openDesk()).plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    expect(plan.blocked).toMatchObject([{ partition: 'u03', code: 'dead-letters' }]);
    expect(plan.blocked[0]?.detail).toContain('"onewriter sync status" lists them');
    expect(plan.blocked[0]?.detail).toContain('onewriter sync retry --partition "u03" --reason TEXT');
  });

  test('again, with everything moved, is completed and changes nothing', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    await rig.ended(desk, (await rig.start(desk)).id);
    const before = await rig.ledger.ledger.read('u05');
    expect(await rig.ended(desk, (await rig.start(desk)).id)).toMatchObject({ state: 'completed', total: 0 });
    expect(await rig.ledger.ledger.read('u05')).toEqual(before);
  });

  test('waits without fencing while a member is silent, and goes on when it is proven gone', async () => {
    await rig.ledger.join({ leaseMs });
    const silent = await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    await until('both members are known to be alive', () => rig.desks[0]?.watch.health().fresh.length === 2);
    await silent.stop();
    await until('it is stale', () => rig.desks[0]?.watch.health().stale.length === 1);
    const { id } = await rig.start(desk);
    await until('the flip waits', async () => (await desk.flip(id))?.detail.startsWith('stale-member'));
    expect(await desk.flip(id)).toMatchObject({ state: 'paused', committed: 0 });
    for (const name of names) expect((await rig.ledger.ledger.read(name)).ownership.epoch).toBe(1);
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('can be paused and resumed', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1 });
    const { id } = await rig.start(desk);
    await desk.pause(id, 'ops', 'lunch');
    const paused = await until('it stands', async () => {
      const status = await desk.flip(id);
      return status?.state === 'paused' && status;
    });
    expect(paused.detail).toBe('paused by ops: lunch');
    await desk.resume(id, 'ops', 'lunch is over');
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('that is aborted reopens what it fenced at the old owner; what has moved stays', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1 });
    let letGo: () => void = () => undefined;
    rig.onCatchUp = async (partition) => {
      if (partition === 'u03') await new Promise<void>((resolve) => (letGo = resolve));
    };
    const { id } = await rig.start(desk);
    await until('u03 is fenced', async () => (await rig.ownerOf('u03')) === 'fenced legacy');
    const aborting = desk.abort(id, 'ops', 'changed my mind');
    await until('u03 is open again', async () => (await rig.ownerOf('u03')) === 'open legacy');
    letGo();
    expect(await aborting).toMatchObject({ state: 'aborted', committed: 3, pending: 9 });
    expect(await rig.ownerOf('u02')).toBe('open app');
    expect(await rig.ownerOf('u11')).toBe('open legacy');
  });

  test('goes on in another coordinator after the first one has gone', async () => {
    await rig.ledger.join({ leaseMs });
    const first = await rig.openDesk({ batch: 1 });
    rig.onCatchUp = async (partition) => {
      if (partition === 'u05') throw new Error('interrupted');
    };
    const { id } = await rig.start(first);
    await until('some have moved', async () => ((await first.flip(id))?.committed ?? 0) >= 3);
    await first.stop();
    rig.onCatchUp = async () => undefined;
    const second = await rig.openDesk();
    expect(await rig.ended(second, id)).toMatchObject({ state: 'completed', committed: 12, blocked: [] });
  });

  test('waits for the fence that a dead coordinator left, instead of spending its attempts on it', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1 });
    const fence = { kind: 'fence', to: 'app', attempt: 'dead', fenceMs: 1_500 } as const;
    rig.onCatchUp = async (partition) => {
      if (partition !== 'u00') return;
      await rig.ledger.ledger.order({ partition: 'u11', order: fence, by: 'dead', reason: 'test' });
    };
    const { id } = await rig.start(desk);
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('waits until a write in doubt has settled, and spends no attempt on it', async () => {
    const member = await rig.ledger.join({ leaseMs, settleMs: 900 });
    for (let writes = 0; writes < 2; writes += 1) {
      const admission = member.admit('u04');
      if (admission.verdict !== 'admit') throw new Error('not admitted');
      member.end(admission.ticket, 'in-doubt');
    }
    const desk = await rig.openDesk();
    expect(await rig.ended(desk, (await rig.start(desk)).id)).toMatchObject({
      state: 'completed',
      committed: 12,
    });
  });

  test('goes on at once when an operator resolves a write in doubt that would settle much later', async () => {
    const member = await rig.ledger.join({ leaseMs, settleMs: 100_000 });
    const admission = member.admit('u04');
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    member.end(admission.ticket, 'in-doubt');
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    await until('the attempt was aborted', () =>
      rig.desks[0]?.events.some(
        ({ event, fields }) => event === 'handoff.aborted' && fields['partition'] === 'u04',
      ),
    );
    await rig.ledger.ledger.resolveDoubt('u04', 'olga', 'looked at the platform');
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test.each(['app', 'legacy'] as const)(
    'to %s is not planned for a partition with an open stray',
    async (to) => {
      await rig.ledger.join({ leaseMs });
      const desk = await rig.openDesk({ proof: { app: 'copies' } });
      if (to === 'legacy') {
        const { id } = await rig.start(desk);
        await rig.ended(desk, id);
      }
      rig.strays = new Map([['u04', 2]]);
      const plan = await desk.plan({ cohort: 'pilot', to, by: 'olga' });
      if ('refused' in plan) throw new Error(plan.detail);
      expect(plan.blocked).toEqual([
        { partition: 'u04', code: 'open-stray', detail: expect.stringContaining('2 changes') },
      ]);
    },
  );

  test('is not planned for a partition whose write in doubt settles later than a flip waits', async () => {
    await rig.ledger.join({ leaseMs });
    const write = {
      store: 'legacy',
      epoch: 1,
      method: 'POST',
      path: '/a',
      why: 'timed out',
      member: 'm',
    } as const;
    await rig.ledger.doubts.note({ ...write, partition: 'u04', settleMs: 600_000 });
    await rig.ledger.doubts.note({ ...write, partition: 'u05', settleMs: 60_000 });
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    const status = await rig.ended(desk, id);
    expect(status).toMatchObject({ total: 11, blocked: [{ partition: 'u04', code: 'write-in-doubt' }] });
    await rig.ledger.doubts.resolve('u04', 'olga', 'looked');
  });

  test('outlives a ledger that is away for a while', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1 });
    rig.onCatchUp = async (partition) => {
      if (partition === 'u02') process.kill(rig.server.pid, 'SIGSTOP');
    };
    const { id } = await rig.start(desk);
    await until('the ledger hangs', () => rig.desks[0]?.watch.health().fresh.length === 0);
    rig.onCatchUp = async () => undefined;
    process.kill(rig.server.pid, 'SIGCONT');
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('reserves its partitions: a second flip of the same cohort does not touch them', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ batch: 1 });
    let letGo: () => void = () => undefined;
    rig.onCatchUp = async () => new Promise<void>((resolve) => (letGo = resolve));
    const { id } = await rig.start(desk);
    await until('u00 is fenced', async () => (await rig.ownerOf('u00')) === 'fenced legacy');
    const second = await desk.start({ cohort: 'pilot', to: 'app', reason: 'again', by: 'ops' });
    expect(second).toMatchObject({ refused: 'nothing-can-move' });
    rig.onCatchUp = async () => undefined;
    letGo();
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed' });
  });
});

describe('a plan', () => {
  test('lists what would move and changes nothing (I6)', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    expect(plan).toMatchObject({
      flip: names,
      blocked: [],
      blockers: [],
      waveSizes: [1, 5, 6],
      pinnedRoutes: ['/login'],
      wayBack: { until: 'never' },
    });
    expect((await rig.ledger.ledger.touched()).size).toBe(0);
  });

  test('names every blocker, not the first', async () => {
    rig.reachable = false;
    await rig.redis.config('SET', 'appendfsync', 'everysec');
    const desk = await rig.openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    const codes = plan.blockers.map((blocker) => blocker.code).toSorted();
    expect(codes).toEqual(['ledger-not-durable', 'no-members', 'store-unreachable', 'store-unreachable']);
    const started = await desk.start({ cohort: 'pilot', to: 'app', reason: 'x', by: 'ops' });
    expect(started).toMatchObject({ refused: 'nothing-can-move' });
  });

  test('is blocked while copies are paused, and so is what a flip under way has not fenced', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    rig.halts = [{ code: 'sync-paused', detail: 'olga paused all copies' }];
    const flip = await until('it gives partitions up', async () => {
      const found = (await desk.flips()).find((one) => one.id === id);
      return found?.state === 'paused' && found;
    });
    expect(new Set(flip.blocked.map(({ code }) => code))).toEqual(new Set(['sync-paused']));
    await desk.abort(id, 'ops', 'test');
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    expect(plan.blockers).toEqual(rig.halts);
    const started = await desk.start({ cohort: 'pilot', to: 'app', reason: 'x', by: 'ops' });
    expect(started).toMatchObject({ refused: 'nothing-can-move' });
  });

  test('may accept by name that a failover could lose a step', async () => {
    await rig.redis.config('SET', 'appendfsync', 'everysec');
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk({ acceptLoss: true });
    expect(((await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan).blockers).toEqual([]);
  });

  test('that was made for other waves than usual is carried out in those', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    rig.hopeless = new Set(['u00']);
    const order = { cohort: 'pilot', to: 'app', by: 'ops' } as const;
    const plan = (await desk.plan({ ...order, waves: ['2', '100%'] })) as Plan;
    expect(plan.waveSizes).toEqual([2, 10]);
    const kept = await rig.redis.hlen('{onewriter}:plans');
    const started = await desk.start({ ...order, reason: 'x', planId: plan.id });
    expect(await rig.redis.hlen('{onewriter}:plans')).toBe(kept);
    const id = 'id' in started ? started.id : '';
    const paused = await rig.untilFlip(desk, id, 'it stands', ({ state }) => state === 'paused');
    expect(paused.detail).toContain('in wave 1 of 2, 1 of 2 partitions stayed');
  });

  test('is not carried out in waves that it did not show', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const order = { cohort: 'pilot', to: 'app', by: 'ops' } as const;
    const plan = (await desk.plan({ ...order, waves: ['2', '100%'] })) as Plan;
    const order2 = { ...order, reason: 'x', planId: plan.id };
    expect(await desk.start({ ...order2, waves: ['1', '100%'] })).toMatchObject({ refused: 'stale-plan' });
    const started = await desk.start({ ...order2, waves: ['2', '100%'] });
    expect(await rig.ended(desk, 'id' in started ? started.id : '')).toMatchObject({ state: 'completed' });
  });

  test('whose partitions were linked since is not carried out in waves that part them', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const order = { cohort: 'pilot', to: 'app', by: 'ops' } as const;
    const plan = (await desk.plan(order)) as Plan;
    await rig.ledger.links.note([['u00', 'u11']], '/batch');
    expect(await desk.start({ ...order, reason: 'x', planId: plan.id })).toMatchObject({
      refused: 'stale-plan',
    });
  });

  test('that the ledger has moved past is refused', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    await rig.ended(desk, (await rig.start(desk)).id);
    const started = await desk.start({ cohort: 'pilot', to: 'app', reason: 'x', by: 'ops', planId: plan.id });
    expect(started).toMatchObject({ refused: 'stale-plan' });
  });

  test('of a cohort that does not exist is refused with the names of those that do', async () => {
    const desk = await rig.openDesk();
    const refused = await desk.plan({ cohort: 'polit', to: 'app', by: 'ops' });
    expect(refused).toMatchObject({
      refused: 'no-such-cohort',
      detail: expect.stringContaining('pilot, early, empty'),
    });
  });

  test('back to legacy is refused while nothing may be copied there', async () => {
    await rig.ledger.join({ leaseMs });
    const desk = await rig.openDesk();
    await rig.ended(desk, (await rig.start(desk)).id);
    const plan = (await desk.plan({ cohort: 'pilot', to: 'legacy', by: 'ops' })) as Plan;
    expect(plan.blockers.map((blocker) => blocker.code)).toContain('no-way-back');
  });
});
