/**
 * Ways to forward a request, side by side in one run before the same upstream, one process each: onewriter with everything
 * on, and its peers. What counts are the ratios within a round, and what is added to the latency of the upstream alone:
 * the machine may be busy with other things.
 *
 *   node bench/forwarders.ts [--quick] [--seconds 1] [--rounds 3] [--partitions 1000000] [--json FILE]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { figure, type Judgement, judge } from './asked.ts';
import { startScript } from './child.ts';
import { type Contenders, startContenders } from './contenders.ts';
import { type Latency, measureLatencies } from './latency.ts';
import { hasWrk } from './load.ts';
import { machine } from './machine.ts';
import { few, getCell, measureRates, postCell, type Rate } from './rates.ts';
import { residentMiB } from './resident.ts';
import { left, right, table } from './table.ts';

const baseline = 'express-hpm';
const onewriter = 'onewriter';
const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '1' },
    rounds: { type: 'string' },
    partitions: { type: 'string' },
    json: { type: 'string' },
  },
});
const { quick } = values;
const seconds = Number(values.seconds);
const rounds = Number(values.rounds ?? (quick ? 1 : 3));
const partitions = Number(values.partitions ?? (quick ? 100_000 : 1_000_000));
const wrk = hasWrk();

const upstream = await startScript('upstream.ts', [], /(\d+)\n/);
let contenders: Contenders | undefined;
try {
  contenders = await startContenders(Number(upstream.said), partitions);
  const notes = [
    ...contenders.notes,
    ...(wrk ? [] : ['wrk is missing; the load came from a generator in Node, which costs more.']),
  ];
  for (const note of notes) process.stdout.write(`note: ${note}\n`);
  const rates = await measureRates(contenders.all, { rounds, seconds, quick, wrk, baseline });
  showRates(rates);
  const mostOf = new Map(
    rates.filter(isGet).map(({ contender, perSecond }) => [contender, perSecond] as const),
  );
  const latency = { rounds, seconds: 2 * seconds, upstream: Number(upstream.said) };
  const halfOf = (contender: string): number => (mostOf.get(contender) ?? 0) / 2;
  const own = await measureLatencies(contenders.all, { ...latency, rateOf: halfOf });
  showLatencies('GET at half of its own most', own);
  const same = await measureLatencies(contenders.all, { ...latency, rateOf: () => halfOf(baseline) });
  showLatencies(`GET at half of the most of ${baseline}`, same);
  const latencies = [...own, ...same];
  showMemory(contenders);
  const errors = [...rates, ...latencies].reduce((sum, row) => sum + row.errors, 0);
  if (errors > 0) {
    process.stdout.write(`${errors} requests failed, and none should have: do not use these figures.\n`);
    process.exitCode = 1;
  }
  if (values.json !== undefined) {
    const judgements = judgementsOf(rates, same);
    const latenciesAt = { halfOfOwn: own, halfOfBaseline: same };
    const result = { machine, partitions, rounds, seconds, wrk, notes, rates, latenciesAt, judgements };
    writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
  }
} finally {
  await contenders?.stop();
  await upstream.stop();
}

function judgementsOf(rates: readonly Rate[], latencies: readonly Latency[]): Judgement[] {
  const ours = ({ contender }: { readonly contender: string }): boolean => contender === onewriter;
  const ratioOf = (load: string): number =>
    rates.find((rate) => ours(rate) && rate.load === load && rate.connections === few)?.ratio ?? Number.NaN;
  const atMany = rates.filter((rate) => ours(rate) && rate.connections !== few);
  return [
    judge('get-ratio', ratioOf(getCell.kind.name)),
    judge('post-ratio', ratioOf(postCell.kind.name)),
    judge(
      'crowd-errors',
      atMany.reduce((sum, { errors }) => sum + errors, 0),
    ),
    judge('added-p99', latencies.find(ours)?.addedP99Ms ?? Number.NaN),
  ];
}

function isGet({ load, connections }: Rate): boolean {
  return load === getCell.kind.name && connections === getCell.connections;
}

function showRates(rates: readonly Rate[]): void {
  const rows = rates.map(({ load, connections, contender, perSecond, ratio, errors }) => [
    ...[load, String(connections), contender, figure(perSecond), ratio.toFixed(2), String(errors)],
  ]);
  const numbers = [right('requests/s'), right('ratio'), right('errors')];
  const columns = [left('load'), right('connections'), left('forwarder'), ...numbers];
  process.stdout.write(table(columns, rows));
  process.stdout.write(`ratio: to ${baseline} in the same round; medians of ${rounds}\n\n`);
}

function showLatencies(title: string, latencies: readonly Latency[]): void {
  const rows = latencies.map((row) => [
    ...[row.contender, figure(row.perSecond), row.p50Ms.toFixed(2), row.p99Ms.toFixed(2)],
    ...[row.directP50Ms.toFixed(2), row.directP99Ms.toFixed(2)],
    ...[row.addedP50Ms.toFixed(2), row.addedP99Ms.toFixed(2), String(row.errors)],
  ]);
  const through = [right('p50 ms'), right('p99 ms'), right('direct p50'), right('direct p99')];
  const added = [right('added p50'), right('added p99'), right('errors')];
  process.stdout.write(table([left(title), right('requests/s'), ...through, ...added], rows));
  process.stdout.write('direct: the upstream alone at the same rate, right before\n\n');
}

function showMemory({ all }: Contenders): void {
  const held = all
    .filter(({ variant }) => !variant)
    .map(({ name, pid }) => `${name} ${figure(residentMiB(pid))}`);
  const known = partitions.toLocaleString('en-US');
  process.stdout.write(
    `resident memory afterwards, MiB (onewriter knows ${known} partitions): ${held.join(', ')}\n`,
  );
}
