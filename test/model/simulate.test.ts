import { describe, expect, test } from '@jest/globals';
import { loadCore } from './core.ts';
import { type Simulation, simulate } from './simulate.ts';

describe('thousands of handoffs among faults', () => {
  const seeds = [1, 2, 3, 4, 5];
  const flips = 2_000;
  const faults: Record<string, number> = {};

  test.each(seeds)(
    'seed %i: no invariant is broken',
    async (seed) => {
      const found = simulate(await loadCore(), seed, { flips });
      expect({ violation: found.violation, events: found.events }).toEqual({ events: [] });
      expect(found.flips).toBeGreaterThanOrEqual(flips);
      expect(found.acknowledged).toBeGreaterThan(flips / 2);
      expect(found.joint).toBeGreaterThan(flips / 100);
      for (const [name, times] of Object.entries(found.faults)) faults[name] = (faults[name] ?? 0) + times;
    },
    180_000,
  );

  test('every kind of fault came', () => {
    const wanted = [
      'crash',
      'stop',
      'suspend',
      'leave',
      'failover',
      'remove',
      'crash-coordinator',
      'ghost-arrives',
    ];
    for (const name of [...wanted, 'break-off', 'freeze', 'tick-slow', 'stop-flip', 'lose-beat']) {
      expect({ name, times: faults[name] ?? 0 }).toEqual({ name, times: expect.any(Number) });
      expect(faults[name] ?? 0).toBeGreaterThan(0);
    }
  });
});

test('a seed is one run: it can be replayed', async () => {
  const core = await loadCore();
  const once = (): Simulation => simulate(core, 7, { flips: 60 });
  expect(once()).toEqual(once());
});

test.each(['acknowledgementNamesAttempt', 'heartbeatIsDurable', 'positionReadAfterDrain'] as const)(
  'without %s some seed shows a violation, and the events that led to it',
  async (rule) => {
    const core = await loadCore();
    let found: Simulation | undefined;
    for (let seed = 1; seed <= 20 && found?.violation === undefined; seed += 1) {
      found = simulate(core, seed, { flips: 1_000 }, { [rule]: false });
    }
    expect(found?.violation).toBeDefined();
    expect(found?.events.length).toBeGreaterThan(10);
  },
  180_000,
);
