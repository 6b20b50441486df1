/** The evidence of a run as a table for people. */
import type { ChaosResult } from './chaos.ts';
import { violationKinds } from './checker.ts';

const violationsShown = 30;
const codesShown = 8;

export function isClean({ verdict, recovered }: ChaosResult): boolean {
  return verdict.violations.length === 0 && recovered;
}

export function evidenceLines(result: ChaosResult): string[] {
  const { verdict, flips } = result;
  const { ended, handoffs, writesTaken } = verdict;
  const pauses = verdict.pausesMs.toSorted((a, b) => a - b);
  const quantile = (share: number): number => pauses[Math.max(0, Math.ceil(pauses.length * share) - 1)] ?? 0;
  const rows: [what: string, value: string | number][] = [
    ['seed', result.seed],
    ['time', `${result.seconds.toFixed(0)} s`],
    ['requests', verdict.requests],
    ['  ok / fail / unknown', `${ended.ok} / ${ended.fail} / ${ended.unknown}`],
    ...Object.entries(verdict.codes)
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, codesShown)
      .map(([code, times]): [string, number] => [`    ${code}`, times]),
    ['users’ writes taken by legacy / app', `${writesTaken.legacy} / ${writesTaken.app}`],
    ['copies taken', verdict.copiesTaken],
    ['flips ordered', flips.ordered],
    [
      '  completed / incomplete / unfinished',
      `${flips.completed} / ${flips.incomplete} / ${flips.unfinished}`,
    ],
    [
      'shuttles to the app / back / stayed because written',
      `${result.shuttle.there} / ${result.shuttle.back} / ${result.shuttle.written}`,
    ],
    ['handoffs committed / aborted', `${handoffs.committed} / ${handoffs.aborted}`],
    ['write pause p50 / p99 / max', `${quantile(0.5)} / ${quantile(0.99)} / ${quantile(1)} ms`],
    [
      'fences past their deadline, longest',
      `${verdict.overrunsMs.length}, ${Math.max(0, ...verdict.overrunsMs)} ms`,
    ],
    ['a flip after everything was mended', result.recovered ? 'completed' : 'DID NOT COMPLETE'],
    ['processes that ended by themselves', result.crashes.length],
    ...Object.entries(result.acts)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([kind, times]): [string, number] => [`act: ${kind}`, times]),
    ['writes through the documented gap', verdict.gap.length],
    ...violationKinds.map((kind): [string, number] => [
      `violations: ${kind}`,
      verdict.violations.filter((violation) => violation.kind === kind).length,
    ]),
  ];
  const width = Math.max(...rows.map(([what]) => what.length));
  return [
    '',
    'Evidence',
    ...rows.map(([what, value]) => `  ${what.padEnd(width)}  ${value}`),
    ...result.crashes.map((crash) => `  ended by itself: ${crash}`),
    ...verdict.gap.map((write) => `  gap: ${write}`),
    ...verdict.violations
      .slice(0, violationsShown)
      .map(({ kind, partition, detail }) => `  ${kind} (${partition}): ${detail}`),
  ];
}
