/**
 * The first copy: one worker process takes records from a store without a limit into one with `bulk`, both in memory and
 * in processes of their own, and everything is compared at the end by reading both lists.
 *
 *   node bench/backfill.ts [--records 1000000] [--partitions 20000] [--bulk 500] [--guard] [--json FILE]
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { connectRedis } from '../src/ledger/connection.ts';
import { BackfillStates } from '../src/sync/backfill-state.ts';
import { startRedis } from '../test/support/redis.ts';
import { judge, sayJudgement } from './asked.ts';
import { machine } from './machine.ts';
import { differencesBetween, ended, startCopyRig, usageOf } from './copy-rig.ts';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '1000000' },
    partitions: { type: 'string', default: '20000' },
    bulk: { type: 'string', default: '500' },
    guard: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const [records, partitions, bulkMax] = [values.records, values.partitions, values.bulk].map(Number) as [
  number,
  number,
  number,
];
const sampleMs = 10_000;

const directory = mkdtempSync(join(tmpdir(), 'onewriter-backfill-'));
const server = await startRedis();
const redis = await connectRedis({ url: server.url });
const rig = await startCopyRig({
  ...{ directory, redisUrl: server.url, records, partitions, bulkMax, guard: values.guard },
});
try {
  const measured = await measure();
  const judgements = [
    judge('first-copy-rate', measured.recordsPerSecond),
    // 16 MiB are used for any number of records.
    ...(records >= 1_000_000 ? [judge('first-copy-redis', measured.redisBytesPerRecord)] : []),
  ];
  const result = { machine, ...measured, judgements };
  process.stdout.write(`${JSON.stringify(result, undefined, 2)}\n`);
  for (const judgement of judgements) process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
  if (measured.missing + measured.different + measured.extra > 0) process.exitCode = 1;
} finally {
  await rig.stop();
  redis.disconnect();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}

async function redisBytes(): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await redis.info('memory'))?.[1] ?? 0);
}

async function measure() {
  const states = new BackfillStates(redis);
  const emptyBytes = await redisBytes();
  let redisBytesMax = 0;
  const rssMib: number[] = [];
  const worker = await rig.startWorker();
  const pid = worker.pid ?? 0;
  const startedAt = performance.now();
  let sampledAt = 0;
  for (;;) {
    await new Promise((wait) => setTimeout(wait, 250));
    if (worker.exitCode !== null) throw new Error(`the worker ended with ${worker.exitCode}`);
    const [state] = (await states.all()).values();
    redisBytesMax = Math.max(redisBytesMax, await redisBytes());
    if (performance.now() - sampledAt >= sampleMs || state?.endedMs !== undefined) {
      sampledAt = performance.now();
      const usage = usageOf(pid);
      rssMib.push(Math.round(usage.rssMib));
      const line = `${((sampledAt - startedAt) / 1_000).toFixed(0)} s: ${state?.phase ?? 'not begun'}, ${state?.records ?? 0} records, `;
      const rate = state?.rate === undefined ? '' : `${Math.round(state.rate)}/s, `;
      process.stdout.write(
        `${line}${rate}worker ${usage.rssMib.toFixed(0)} MiB, ${usage.cpuSeconds.toFixed(0)} s of CPU\n`,
      );
    }
    if (state?.endedMs === undefined) continue;
    const seconds = (state.endedMs - state.startedMs) / 1_000;
    const { cpuSeconds } = usageOf(pid);
    worker.kill('SIGTERM');
    await ended(worker);
    const found = await differencesBetween(rig.legacy, rig.app);
    return {
      ...{ records, partitions, bulkMax, guard: values.guard, seconds, written: state.written },
      recordsPerSecond: Math.round(records / seconds),
      recordsPerCpuSecond: Math.round(records / cpuSeconds),
      redisBytesPerRecord: Math.round((redisBytesMax - emptyBytes) / records),
      rssMib,
      ...{ compared: found.compared, missing: found.missing.length },
      ...{ different: found.different.length, extra: found.extra.length },
    };
  }
}
