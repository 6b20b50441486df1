/** A flip back to legacy, where only the app's guard can prove that nothing is lost. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { FlipStatus, Plan } from '../../src/core/flip.ts';
import type { HandoffDesk } from '../../src/handoff/desk.ts';
import { FlipRig, leaseMs, names } from '../support/flip.ts';

let rig: FlipRig;
let desk: HandoffDesk;
/** Partitions that users have written at the app, as its guard says; the real one is tested elsewhere. */
let written: Set<string>;
/** Whose verdict was asked for, in order. */
let asked: string[];
/** Called at every advance. */
let onAdvance: (partition: string) => void;

const order = { cohort: 'pilot', to: 'legacy', reason: 'test', by: 'ops' } as const;

beforeEach(async () => {
  rig = await FlipRig.start();
  written = new Set();
  asked = [];
  onAdvance = () => undefined;
  const saidOf = ({ partition, epoch }: { partition: string; epoch: number }) =>
    ({ epoch, owner: 'app', written: written.has(partition) }) as const;
  rig.guards = {
    verdict: async (_store, stamp) => {
      asked.push(stamp.partition);
      return saidOf(stamp);
    },
    advance: async (_store, stamp) => {
      onAdvance(stamp.partition);
      return saidOf(stamp);
    },
    seal: async () => undefined,
  };
  await rig.ledger.join({ leaseMs });
  desk = await rig.openDesk({ batch: 1, proof: { app: 'unwritten' } });
  await rig.ended(desk, (await rig.start(desk)).id);
});
afterEach(() => rig.close());

async function flipBack(): Promise<FlipStatus> {
  const started = await desk.start(order);
  if ('refused' in started) throw new Error(started.detail);
  return rig.ended(desk, started.id);
}

async function epochOf(partition: string): Promise<number> {
  return (await rig.ledger.ledger.read(partition)).ownership.epoch;
}

describe('a flip back to legacy', () => {
  test('moves everybody, and reports as any other flip', async () => {
    expect(await flipBack()).toMatchObject({ state: 'completed', to: 'legacy', total: 12, committed: 12 });
    for (const name of names) expect(await rig.ownerOf(name)).toBe('open legacy');
  });

  test('asks again before each fence: who writes while others move back is not paused', async () => {
    onAdvance = () => void written.add('u07');
    const status = await flipBack();
    expect(status).toMatchObject({ state: 'failed', total: 12, committed: 11, aborted: 1 });
    expect(status.blocked).toMatchObject([{ partition: 'u07', code: 'app-was-written' }]);
    expect(await rig.ownerOf('u07')).toBe('open app');
    expect(await epochOf('u07')).toBe(4);
  });

  test('tries no second time what was written while it was being fenced', async () => {
    onAdvance = (partition) => {
      if (partition !== 'u07') return;
      written.add('u07');
      asked = [];
    };
    const status = await flipBack();
    expect(status.blocked).toMatchObject([{ partition: 'u07', code: 'app-was-written' }]);
    expect(asked).not.toContain('u07');
    expect(await rig.ownerOf('u07')).toBe('open app');
    expect(await epochOf('u07')).toBe(6);
  });

  test('is refused as a whole when everybody has written, with the ways out, and fences nobody', async () => {
    written = new Set(names);
    const refused = await desk.start(order);
    expect(refused).toMatchObject({ refused: 'nothing-can-move', blockers: [] });
    expect(refused.detail).toContain('not available yet');
    for (const name of names) expect(await epochOf(name)).toBe(4);
  });

  test('by a plan from before a write is stale', async () => {
    const plan = (await desk.plan(order)) as Plan;
    expect(plan).toMatchObject({ flip: names, blocked: [], blockers: [] });
    written.add('u07');
    expect(await desk.start({ ...order, planId: plan.id })).toMatchObject({ refused: 'stale-plan' });
  });
});
