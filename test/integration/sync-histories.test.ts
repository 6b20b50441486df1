/**
 * Whatever users do, whatever is told of it, in whatever order and however often, and whatever is lost: in the end both
 * stores hold the same. HISTORIES sets how many histories are run (a hundred at a time), HISTORIES_SEED which.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { runProgram } from '../histories/run.ts';
import { programOf } from '../histories/words.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';

const atOnce = 100;
const runs = Math.ceil(Number(process.env['HISTORIES'] ?? 400) / atOnce);
const seed = Number(process.env['HISTORIES_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

let server: TestRedis;
beforeAll(async () => {
  server = await startRedis();
});
afterAll(() => server.stop());

test(
  'random histories with reordered, doubled and lost webhooks end in equal stores',
  async () => {
    process.stdout.write(`HISTORIES=${runs * atOnce} HISTORIES_SEED=${seed}\n`);
    const done: Record<string, number> = {};
    const property = fc.asyncProperty(programOf(atOnce), async (program) => {
      const outcome = await runProgram(server, program);
      for (const [what, count] of Object.entries(outcome.done)) done[what] = (done[what] ?? 0) + count;
      expect(outcome.wrong).toEqual([]);
    });
    const result = await fc.check(property, { seed, numRuns: runs, endOnFailure: true });
    process.stdout.write(`${JSON.stringify(done)}\n`);
    if (result.failed) {
      throw new Error(`run ${result.numRuns} of HISTORIES_SEED=${seed} failed`, {
        cause: result.errorInstance,
      });
    }
    for (const what of ['write', 'delete', 'move', 'receipt', 'handoff to app', 'delivery answered 204']) {
      expect(done[what] ?? 0).toBeGreaterThan(0);
    }
    // Not every program has the way back open.
    if (runs >= 50) expect(done['handoff to legacy'] ?? 0).toBeGreaterThan(0);
  },
  60_000 * (runs + 1),
);
