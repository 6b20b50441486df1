/**
 * How long a handoff pauses the writes of its user, and how long a whole cohort takes: real Redis, real proxies
 * and coordinator as processes, two stores that answer from memory.
 *
 *   node bench/handoff.ts [--members 3] [--partitions 300] [--batch 1] [--json FILE]
 *     partitions of idle users, with no copy before; with --copied, the copies exist
 *   node bench/handoff.ts --partitions 10000 --batch 100 --writes 500
 *     the same under load: the copies exist, and so many writes a second go through the proxies to all partitions;
 *     failed requests are counted, and every acknowledged write is looked for in the app afterwards
 *   --profile DIRECTORY: CPU profiles of all processes
 */
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { type Judgement, judge, sayJudgement } from './asked.ts';
import { machine } from './machine.ts';
import { flipAll, openStage } from './stage.ts';
import { quantile } from './statistics.ts';
import { startWrites } from './writes.ts';

const { values } = parseArgs({
  options: {
    members: { type: 'string', default: '3' },
    partitions: { type: 'string', default: '300' },
    batch: { type: 'string', default: '1' },
    writes: { type: 'string', default: '0' },
    copied: { type: 'boolean', default: false },
    profile: { type: 'string' },
    json: { type: 'string' },
  },
});
const members = Number(values.members);
const perSecond = Number(values.writes);
const partitions = Array.from({ length: Number(values.partitions) }, (_, at) => `u${at}`);
const stage = await openStage({
  ...{ members, partitions, batch: Number(values.batch), copied: values.copied || perSecond > 0 },
  profile: values.profile === undefined ? undefined : resolve(values.profile),
});
try {
  const admin = await stage.startAdmin();
  const writes = perSecond > 0 ? startWrites(stage.proxies, partitions, perSecond) : undefined;
  // A coordinator that has just started waits for a heartbeat of each member before its first fence.
  await new Promise((wait) => setTimeout(wait, 5_000));
  const cpuBefore = stage.cpuSeconds();
  const { flip, seconds } = await flipAll(admin.url);
  const cpu = Object.entries(stage.cpuSeconds()).map(
    ([name, used]) => `${name} ${(used - (cpuBefore[name] ?? 0)).toFixed(1)} s`,
  );
  await writes?.stop();
  const { pauseMs, committed, state } = flip;
  process.stdout.write(
    `write pause of a partition, ${members} members, ${values.batch} at a time: ` +
      `p50 ${pauseMs?.p50} ms, p99 ${pauseMs?.p99} ms, max ${pauseMs?.max} ms ` +
      `(${committed} of ${partitions.length} moved, ${state}, ${seconds.toFixed(1)} s)\n`,
  );
  process.stdout.write(`CPU time meanwhile: ${cpu.join(', ')}\n`);
  const load = writes && {
    perSecond,
    answered: writes.latenciesMs.length,
    failed: writes.failures.length,
    lost: writes.lostFrom(stage.app).length,
    p50: Math.round(quantile(writes.latenciesMs, 0.5)),
    p99: Math.round(quantile(writes.latenciesMs, 0.99)),
    max: Math.round(quantile(writes.latenciesMs, 1)),
  };
  if (load !== undefined) {
    process.stdout.write(
      `${perSecond} writes/s meanwhile: ${load.answered} answered, ${load.failed} failed, ${load.lost} lost; ` +
        `p50 ${load.p50} ms, p99 ${load.p99} ms, max ${load.max} ms\n`,
    );
    for (const failure of writes?.failures.slice(0, 5) ?? []) process.stdout.write(`  ${failure}\n`);
  }
  const judgements: Judgement[] = [];
  if (load === undefined && values.batch === '1') {
    judgements.push(judge('pause-p50', pauseMs?.p50 ?? Number.NaN));
    judgements.push(judge('pause-p99', pauseMs?.p99 ?? Number.NaN));
  }
  if (load !== undefined) judgements.push(judge('cohort-failures', load.failed + load.lost));
  if (load !== undefined && partitions.length >= 10_000) judgements.push(judge('cohort-time', seconds));
  for (const judgement of judgements) process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
  if (state !== 'completed' || (load !== undefined && load.failed + load.lost > 0)) process.exitCode = 1;
  if (values.json !== undefined) {
    const result = { members, committed, state, pauseMs, seconds, ...(load === undefined ? {} : { load }) };
    const all = { machine, ...result, judgements };
    writeFileSync(values.json, `${JSON.stringify(all, null, 2)}\n`);
  }
} finally {
  await stage.stop();
}
