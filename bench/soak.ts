/**
 * Does the memory of a proxy stay flat under traffic of all kinds? Reads, writes, large bodies, event streams, WebSockets,
 * and clients that break off in the middle.
 *
 *   node bench/soak.ts [--minutes 1] [--acts 300] [--json FILE]
 *
 * `--acts`: so many a second. Short runs show whether anything breaks; only runs of 10 minutes and more are judged.
 */
import { writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { parseArgs } from 'node:util';
import { figure, judge, type Judgement, sayJudgement } from './asked.ts';
import { machine } from './machine.ts';
import { partitionName } from './deployment.ts';
import { LiveHeap } from './live-heap.ts';
import { residentMiB } from './resident.ts';
import { withProxy } from './rig.ts';
import { median, slope } from './statistics.ts';
import { left, right, table } from './table.ts';
import { acts } from './users.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    acts: { type: 'string', default: '300' },
    json: { type: 'string' },
  },
});
const minutes = Number(values.minutes);
const perSecond = Number(values.acts);
const users = 5_000;
const sampleMs = 500;
const liveSampleMs = 30_000;
const tickMs = 10;
const judgedFromMinutes = 10;
/** What a process takes at first, it keeps: that is no leak. */
const warmShare = 0.25;

interface Sample {
  readonly hours: number;
  readonly mebibytes: number;
}

interface Traffic {
  readonly counts: ReadonlyMap<string, number>;
  readonly failures: readonly string[];
  stop(): Promise<void>;
}

function startTraffic(port: number): Traffic {
  const counts = new Map<string, number>();
  const failures: string[] = [];
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const pending = new Set<Promise<void>>();
  const startedMs = performance.now();
  let begun = 0;
  const begin = (number: number): void => {
    const [kind, { act }] = anyAct();
    const name = partitionName(2 * (number % users) + 1);
    const done = act({ port, name, agent })
      .then(
        () => void counts.set(kind, (counts.get(kind) ?? 0) + 1),
        (error: unknown) => void failures.push(`${kind}: ${String(error)}`),
      )
      .finally(() => pending.delete(done));
    pending.add(done);
  };
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - startedMs) * perSecond) / 1_000);
    for (; begun < due; begun += 1) begin(begun);
  }, tickMs);
  return {
    counts,
    failures,
    stop: async () => {
      clearInterval(timer);
      await Promise.all(pending);
      agent.destroy();
    },
  };
}

function anyAct(): (typeof entries)[number] {
  let place = Math.random() * shares;
  for (const entry of entries) {
    place -= entry[1].share;
    if (place < 0) return entry;
  }
  throw new Error('there is always an act');
}

/** Of the resident memory, and more rarely of what lives in it. */
async function sample(pid: number): Promise<{ readonly samples: Sample[]; readonly live: Sample[] }> {
  const samples: Sample[] = [];
  const live: Sample[] = [];
  const heap = await LiveHeap.of(pid);
  const startedMs = performance.now();
  for (;;) {
    const elapsedMs = performance.now() - startedMs;
    if (elapsedMs > minutes * 60_000) break;
    const hours = elapsedMs / 3_600_000;
    samples.push({ hours, mebibytes: residentMiB(pid) });
    if (heap !== undefined && elapsedMs >= live.length * liveSampleMs) {
      live.push({ hours, mebibytes: await heap.mebibytes() });
    }
    await new Promise((wait) => setTimeout(wait, sampleMs));
  }
  heap?.close();
  return { samples, live };
}

const entries = Object.entries(acts);
const shares = entries.reduce((sum, [, { share }]) => sum + share, 0);
const options = { store: 'soak-store.ts', partitions: 2 * users };
const { samples, live, counts, failures } = await withProxy(options, async ({ port, pid }) => {
  const traffic = startTraffic(port);
  const sampled = await sample(pid);
  await traffic.stop();
  return { ...sampled, counts: traffic.counts, failures: traffic.failures };
});
const steady = samples.slice(Math.floor(samples.length * warmShare));
const growth = slope(steady.map(({ hours, mebibytes }) => ({ x: hours, y: mebibytes })));
const third = Math.ceil(steady.length / 3);
const middle = (some: readonly Sample[]): number => median(some.map(({ mebibytes }) => mebibytes));
const rows = [...counts].map(([kind, count]) => [kind, figure(count)]);
process.stdout.write(table([left(`mixed traffic, ${minutes} min`), right('done')], rows));
process.stdout.write(
  `resident memory: ${figure(middle(steady.slice(0, third)))} MiB in the first third after the warm-up, ` +
    `${figure(middle(steady.slice(-third)))} MiB in the last; slope ${figure(growth)} MiB/h\n`,
);
const judgements: Judgement[] = [];
const isJudged = minutes >= judgedFromMinutes;
if (isJudged) judgements.push(judge('soak-growth', growth));
const lively = live.slice(Math.floor(live.length * warmShare));
if (lively.length > 1) {
  const liveGrowth = slope(lively.map(({ hours, mebibytes }) => ({ x: hours, y: mebibytes })));
  const [first, last] = [lively[0]?.mebibytes ?? 0, lively.at(-1)?.mebibytes ?? 0];
  process.stdout.write(
    `live memory, after full collections: ${figure(first)} MiB after the warm-up, ${figure(last)} MiB at the end; ` +
      `slope ${figure(liveGrowth)} MiB/h\n`,
  );
  if (isJudged) judgements.push(judge('soak-live-growth', liveGrowth));
}
if (!isJudged) process.stdout.write(`too short to judge the slope (from ${judgedFromMinutes} minutes on)\n`);
for (const judgement of judgements) process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
if (failures.length > 0) {
  process.exitCode = 1;
  process.stdout.write(`${failures.length} acts failed, and none should have:\n`);
  for (const failure of failures.slice(0, 5)) process.stdout.write(`  ${failure}\n`);
}
if (values.json !== undefined) {
  const result = {
    ...{ machine, minutes, counts: Object.fromEntries(counts), failures: failures.length },
    ...{ slopeMiBPerHour: growth, samples, live, judgements },
  };
  writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
}
