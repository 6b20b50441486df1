/** The gate between two waves, and what a stale member costs. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type FlipStatus, hasEnded } from '../../src/core/flip.ts';
import type { HandoffDesk } from '../../src/handoff/desk.ts';
import { FlipRig, leaseMs, names, type TestDesk } from '../support/flip.ts';
import { until } from '../support/until.ts';

let rig: FlipRig;

beforeEach(async () => {
  rig = await FlipRig.start();
});
afterEach(async () => {
  await rig.close();
});

describe('a wave in which a partition was given up', () => {
  test('stops the flip before the next wave, says why, and goes on when it is told to', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u00']);
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    const paused = await rig.untilFlip(desk, id, 'it stands', ({ state }) => state === 'paused');
    expect(paused).toMatchObject({ committed: 0, aborted: 1, pending: 11 });
    expect(paused.detail).toBe(
      'wave-failed: in wave 1 of 3, 1 of 1 partitions stayed where they were (u00: unusable-records: 1 records ' +
        'cannot be copied; first: a record has no id). Resume to go on with the next wave without them, or abort',
    );
    for (let round = 0; round < 50; round += 1) await rig.ledger.ledger.read('u01');
    for (const name of names) expect((await rig.ledger.ledger.read(name)).ownership.epoch).toBe(1);
    expect(await desk.resume(id, 'ops', 'known')).toMatchObject({ state: 'running' });
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
  });

  test('stops it once, not again at the next gate', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u00', 'u02']);
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    await rig.untilFlip(desk, id, 'it stands', ({ detail }) => detail.includes('in wave 1 of 3'));
    await desk.resume(id, 'ops', 'known');
    const second = await rig.untilFlip(desk, id, 'it stands', ({ detail }) =>
      detail.includes('in wave 2 of 3'),
    );
    expect(second.detail).toContain('1 of 5 partitions stayed where they were (u02:');
    await desk.resume(id, 'ops', 'known, too');
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'failed', committed: 10, aborted: 2 });
  });

  test('holds under another coordinator, too, which goes on when it is told to', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u00']);
    const [first, second] = [await rig.openDesk(), await rig.openDesk()];
    const { id } = await rig.start(first);
    await rig.untilFlip(first, id, 'it stands', ({ state }) => state === 'paused');
    await first.stop();
    await until(
      'the second has it',
      async () => (await rig.redis.hget('{onewriter}:flip:terms', id)) === '2',
    );
    expect(await second.flip(id)).toMatchObject({ state: 'paused', committed: 0, aborted: 1 });
    expect(await second.resume(id, 'ops', 'known')).toMatchObject({ state: 'running' });
    expect(await rig.ended(second, id)).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
  });

  test('is not opened in advance by a resume that came before', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u03']);
    const desk = await rig.openDesk({ batch: 1 });
    const letGo = rig.holdAt('u02');
    const { id } = await rig.start(desk);
    await until('u02 is fenced', async () => (await rig.ownerOf('u02')) === 'fenced legacy');
    await desk.pause(id, 'ops', 'a moment');
    await desk.resume(id, 'ops', 'on');
    letGo();
    const paused = await rig.untilFlip(desk, id, 'it stands', ({ state }) => state === 'paused');
    expect(paused.detail).toContain('in wave 2 of 3');
  });
});

describe('a member that falls silent inside a fence', () => {
  test('costs no attempt once it turns out stale', async () => {
    await rig.ledger.join({ leaseMs });
    const silent = await rig.ledger.join({ leaseMs });
    const { desk, watch, events } = await rig.open({ attempts: 1, batch: 1, waves: ['100%'] });
    await until('both are known to be alive', () => watch.health().fresh.length === 2);
    await silent.stop();
    const { id } = await rig.start(desk);
    await until('a drain timed out', () => events.some(({ event }) => event === 'handoff.aborted'));
    expect(await rig.ended(desk, id)).toMatchObject({ state: 'completed', committed: 12, aborted: 0 });
    const [report] = await desk.flipReports(id, ['u00']);
    expect(report).toMatchObject({ outcome: 'moved', attempts: 1, lastFailure: { code: 'drain-timeout' } });
  });

  test('costs the attempt when it goes on beating and only does not answer', async () => {
    const busy = await rig.ledger.join({ leaseMs });
    const admission = busy.admit('u00');
    if (admission.verdict !== 'admit') throw new Error('not admitted');
    const desk = await rig.openDesk({ attempts: 1, waves: ['100%'] });
    const done = await rig.ended(desk, (await rig.start(desk)).id);
    expect(done).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
    expect(done.blocked).toMatchObject([{ partition: 'u00', code: 'drain-timeout' }]);
  });
});

async function endedFlip(desk: HandoffDesk, id: string): Promise<FlipStatus | undefined> {
  const status = await desk.flip(id);
  return status !== undefined && hasEnded(status.state) ? status : undefined;
}

test('fences that the replicas do not confirm cost their attempts, so the flip ends and says why', async () => {
  await rig.ledger.join({ leaseMs });
  const desk = await rig.openDesk({
    attempts: 2,
    batch: 6,
    waves: ['100%'],
    minReplicas: 1,
    acceptLoss: true,
  });
  const { id } = await rig.start(desk, 'early');
  // Each fence and each question waits a second for the replica that there is not.
  const done = await until('it ends', () => endedFlip(desk, id), 60_000);
  expect(done).toMatchObject({ state: 'failed', committed: 0, aborted: 6 });
  expect(new Set(done.blocked.map(({ code }) => code))).toEqual(new Set(['fence-not-durable']));
  expect((await desk.flipReports(id, ['u00']))[0]).toMatchObject({ outcome: 'stayed', attempts: 2 });
  expect(await rig.ownerOf('u00')).toBe('open legacy');
}, 90_000);

test('another coordinator goes on counting the attempts where the one before left off', async () => {
  await rig.ledger.join({ leaseMs });
  rig.hopeless = new Set(['u00']);
  const first = await rig.open({ attempts: 3, batch: 1, waves: ['100%'] });
  const { id } = await rig.start(first.desk);
  const triesOf = ({ events }: TestDesk): number =>
    events.filter(({ event }) => event === 'handoff.aborted').length;
  await until('u00 was tried', () => triesOf(first) > 0);
  await first.desk.stop();
  const second = await rig.open({ attempts: 3, batch: 1, waves: ['100%'] });
  expect(await rig.ended(second.desk, id)).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
  expect(triesOf(first) + triesOf(second)).toBe(3);
  expect((await second.desk.flipReports(id, ['u00']))[0]).toMatchObject({ outcome: 'stayed', attempts: 3 });
});

describe('the report of a partition', () => {
  test('says how often it was tried, how long each step took, and what was proven', async () => {
    await rig.ledger.join({ leaseMs });
    rig.hopeless = new Set(['u07']);
    const desk = await rig.openDesk();
    const { id } = await rig.start(desk);
    await rig.ended(desk, id);
    expect(await desk.flipPartitions(id)).toEqual(names);
    const [moved, stayed] = await desk.flipReports(id, ['u00', 'u07']);
    expect(moved).toMatchObject({ partition: 'u00', outcome: 'moved', attempts: 1 });
    expect(moved?.proof).toEqual({ recordsCompared: 1, recordsCopied: 0, passes: 1 });
    expect(Object.keys(moved?.stepsMs ?? {})).toEqual(expect.arrayContaining(['fencing', 'draining']));
    expect(moved?.pauseMs).toBeGreaterThanOrEqual(0);
    expect(stayed).toMatchObject({
      partition: 'u07',
      ...{ outcome: 'stayed', attempts: 2, lastFailure: { code: 'unusable-records' } },
    });
    expect(await desk.flipPartitions('none')).toBeUndefined();
  });
});
