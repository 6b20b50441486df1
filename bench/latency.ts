/**
 * What a contender adds to the latency of the upstream at a constant rate. Right before and at the same rate the upstream is
 * asked alone, so that what the machine adds is in both.
 */
import type { Contender } from './contenders.ts';
import type { GeneratorReport } from './generator.ts';
import { ratedLoad } from './load.ts';
import { getCell, requestsOf } from './rates.ts';
import { median } from './statistics.ts';

export interface Latency {
  readonly contender: string;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly directP50Ms: number;
  readonly directP99Ms: number;
  /** Medians over the rounds of what was added within a round. */
  readonly addedP50Ms: number;
  readonly addedP99Ms: number;
  readonly errors: number;
}

export interface LatencySettings {
  readonly rounds: number;
  readonly seconds: number;
  readonly upstream: number;
  /** Requests per second, by the name of a contender. */
  readonly rateOf: (contender: string) => number;
}

export async function measureLatencies(
  all: readonly Contender[],
  settings: LatencySettings,
): Promise<Latency[]> {
  const { rounds, seconds, upstream, rateOf } = settings;
  const byName = new Map<string, { through: GeneratorReport; direct: GeneratorReport }[]>();
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of round % 2 === 0 ? all : all.toReversed()) {
      const perSecond = rateOf(contender.name);
      const load = { requests: requestsOf(getCell, contender), connections: getCell.connections, seconds };
      const direct = await ratedLoad({ ...load, port: upstream }, perSecond);
      const through = await ratedLoad({ ...load, port: contender.port }, perSecond);
      byName.set(contender.name, [...(byName.get(contender.name) ?? []), { through, direct }]);
    }
  }
  return [...byName].map(([contender, reports]) => {
    const over = (figure: (report: (typeof reports)[number]) => number): number =>
      median(reports.map(figure));
    return {
      contender,
      perSecond: rateOf(contender),
      p50Ms: over(({ through }) => through.latencyMs.p50),
      p99Ms: over(({ through }) => through.latencyMs.p99),
      directP50Ms: over(({ direct }) => direct.latencyMs.p50),
      directP99Ms: over(({ direct }) => direct.latencyMs.p99),
      addedP50Ms: over(({ through, direct }) => through.latencyMs.p50 - direct.latencyMs.p50),
      addedP99Ms: over(({ through, direct }) => through.latencyMs.p99 - direct.latencyMs.p99),
      errors: reports.reduce((sum, { through, direct }) => sum + through.errors + direct.errors, 0),
    };
  });
}
