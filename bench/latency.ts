/**
 * What a contender adds to the latency of the upstream, at half of the load that it takes at most. Right before and at the
 * same constant rate the upstream is asked alone, so that what the machine adds is in both.
 */
import type { Contender } from './contenders.ts';
import type { GeneratorReport } from './generator.ts';
import { ratedLoad } from './load.ts';
import { getCell, requestsOf } from './rates.ts';
import { median } from './statistics.ts';

export interface Latency {
  readonly contender: string;
  /** Rate of the load; half of the contender's own most. */
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
  /** Requests per second that each took at most, by its name. */
  readonly mostOf: ReadonlyMap<string, number>;
}

export async function measureLatencies(
  all: readonly Contender[],
  settings: LatencySettings,
): Promise<Latency[]> {
  const { rounds, seconds, upstream, mostOf } = settings;
  const byName = new Map<string, { through: GeneratorReport; direct: GeneratorReport }[]>();
  for (let round = 0; round < rounds; round += 1) {
    for (const contender of round % 2 === 0 ? all : all.toReversed()) {
      const perSecond = (mostOf.get(contender.name) ?? 0) / 2;
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
      perSecond: (mostOf.get(contender) ?? 0) / 2,
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
