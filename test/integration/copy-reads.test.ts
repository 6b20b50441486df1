/** Reads that a copy answers: when, and when not, with real members, real stores and a real sync. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { CopyReadsRig, titleOf } from '../support/copy-reads.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment } from '../support/sync.ts';

let server: TestRedis;
let rig: CopyReadsRig;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(() => rig.stop());
afterAll(() => server.stop());

type Options = Parameters<typeof CopyReadsRig.start>[1];
async function start(options: Options = {}): Promise<void> {
  const records = [appointment('1', 'ann', 'one'), appointment('2', 'bob', 'two')];
  rig = await CopyReadsRig.start(server, { legacy: { records }, ...options });
}
async function startCopying(options: Options = {}): Promise<void> {
  await start(options);
  await rig.sync.sync.startWorkers();
}

describe('a read with reads: copy', () => {
  test('is the owner’s before anything was copied, and the copy’s afterwards, which says how old it is', async () => {
    await start();
    const early = await rig.ask(rig.nodes[0], 'ann', '/appointments/1');
    expect([early.store, early.lagMs, titleOf(early)]).toEqual(['legacy', null, 'one']);
    await rig.sync.sync.startWorkers();
    const seen = await rig.readFromCopy(rig.nodes[0], 'ann', '1');
    expect(titleOf(seen)).toBe('one');
    expect(Number(seen.lagMs)).toBeLessThanOrEqual(3_000);
    await rig.readFromCopy(rig.nodes[1], 'bob', '2');
  });

  test('shows every write that any member has answered', async () => {
    await startCopying();
    const [a, b] = rig.nodes;
    for (let round = 1; round <= 5; round += 1) {
      await rig.readFromCopy(b, 'ann', '1');
      expect((await rig.write(a, 'ann', '1', `round ${round}`)).status).toBe(200);
      expect(titleOf(await rig.ask(b, 'ann', '/appointments/1'))).toBe(`round ${round}`);
    }
  });
});
