/** Adds observations up, by route and, where none matches, by method and path; in bounded memory. */
import { Distinct } from './distinct.ts';
import type { Observation, ObservedRow } from './observation.ts';
import { PathTable } from './path-template.ts';

interface Counts {
  requests: number;
  reads: number;
  writes: number;
  readonly refused: Map<string, number>;
  withoutIdentity: number;
  withoutPartition: number;
  severalPartitions: number;
  readonly partitions: Distinct;
  toApp: number;
  lookUps: number;
  tooSlow: number;
  unanswered: number;
}

type Counted = Omit<Observation, 'path'>;

/** By method. */
type ByMethod = Map<string, Counts>;

export interface TallyLimits {
  /** Segments of paths that are kept apart. */
  readonly pathsMax: number;
  readonly routesMax: number;
}

export class Tally {
  readonly #limits: TallyLimits;
  readonly #routes = new Map<string, { readonly route: Observation['route']; readonly counts: Counts }>();
  readonly #paths: PathTable<ByMethod>;
  readonly #rest = noCounts();
  requests = 0;

  constructor(limits: TallyLimits) {
    this.#limits = limits;
    this.#paths = new PathTable(limits.pathsMax, { make: () => new Map(), merge: mergeMethods });
  }

  /** Returns the path under which it was counted, where there was room for it; `path`: masked. */
  add(path: string, observation: Counted): string {
    this.requests += 1;
    const { route, method } = observation;
    const place = this.#paths.at(path);
    if (route !== null) count(this.#ofRoute(route), observation);
    else if (place === undefined) count(this.#rest, observation);
    else count(ofMethod(place.value, method), observation);
    return place?.path ?? path;
  }

  /**
   * Routes in the order of the configuration, then paths, those with the most requests first. At most `rowsMax`;
   * what is left stands in the last one.
   */
  rows(rowsMax = Number.POSITIVE_INFINITY): ObservedRow[] {
    const ofRoutes = [...this.#routes.values()]
      .toSorted((a, b) => (a.route?.index ?? 0) - (b.route?.index ?? 0))
      .map(({ route, counts }) => ({ of: { route, method: null, path: route?.path ?? null }, counts }));
    const ofPaths = [...this.#paths.entries()]
      .flatMap(([path, methods]) =>
        [...methods].map(([method, counts]) => ({ of: { route: null, method, path }, counts })),
      )
      .toSorted((a, b) => b.counts.requests - a.counts.requests);
    const all = [...ofRoutes, ...ofPaths];
    const rest = noCounts();
    mergeCounts(rest, this.#rest);
    for (const { counts } of all.slice(rowsMax - 1)) mergeCounts(rest, counts);
    const rows = all.slice(0, rowsMax - 1).map(({ of, counts }) => rowOf(of, counts));
    if (rest.requests > 0) rows.push(rowOf({ route: null, method: null, path: null }, rest));
    return rows;
  }

  #ofRoute(route: NonNullable<Observation['route']>): Counts {
    const key = `${route.index} ${route.path}`;
    const known = this.#routes.get(key);
    if (known !== undefined) return known.counts;
    if (this.#routes.size >= this.#limits.routesMax) return this.#rest;
    const made = { route, counts: noCounts() };
    this.#routes.set(key, made);
    return made.counts;
  }
}

function ofMethod(methods: ByMethod, method: string): Counts {
  const known = methods.get(method);
  if (known !== undefined) return known;
  const made = noCounts();
  methods.set(method, made);
  return made;
}

function noCounts(): Counts {
  return {
    ...{ requests: 0, reads: 0, writes: 0, withoutIdentity: 0, withoutPartition: 0, severalPartitions: 0 },
    ...{ toApp: 0, lookUps: 0, tooSlow: 0, unanswered: 0 },
    refused: new Map<string, number>(),
    partitions: new Distinct(),
  };
}

function count(counts: Counts, { access, identity, partitions, would, tooSlow, ended }: Counted): void {
  counts.requests += 1;
  if (access === 'read') counts.reads += 1;
  if (access === 'write') counts.writes += 1;
  if (would.do === 'refuse') counts.refused.set(would.code, (counts.refused.get(would.code) ?? 0) + 1);
  if (would.do === 'look-up') counts.lookUps += 1;
  if (would.do === 'forward' && would.store === 'app') counts.toApp += 1;
  if (['none', 'wrong', 'unavailable'].includes(identity)) counts.withoutIdentity += 1;
  if (lacksPartition(access, partitions, would)) counts.withoutPartition += 1;
  if (partitions.length > 1) counts.severalPartitions += 1;
  for (const partition of partitions) counts.partitions.add(partition);
  if (tooSlow) counts.tooSlow += 1;
  if (ended === 'store-broke-off' || ended === 'unreachable') counts.unanswered += 1;
}

/** Where enforcing does not even ask, nothing is missing. */
function lacksPartition(
  access: Observation['access'],
  partitions: Observation['partitions'],
  would: Observation['would'],
): boolean {
  if (access === null || partitions.length > 0 || would.do === 'look-up' || would.do === 'unknown')
    return false;
  return would.do !== 'forward' || would.because !== 'pinned';
}

function rowOf(
  of: Pick<ObservedRow, 'route' | 'method' | 'path'>,
  { refused, partitions, ...counts }: Counts,
): ObservedRow {
  return {
    ...of,
    ...counts,
    refused: Object.fromEntries([...refused].toSorted(([a], [b]) => (a < b ? -1 : 1))),
    partitions: partitions.count(),
  };
}

function mergeMethods(into: ByMethod, other: ByMethod): void {
  for (const [method, counts] of other) {
    const there = into.get(method);
    if (there === undefined) into.set(method, counts);
    else mergeCounts(there, counts);
  }
}

function mergeCounts(into: Counts, other: Counts): void {
  for (const key of counted) into[key] += other[key];
  for (const [code, number] of other.refused) into.refused.set(code, (into.refused.get(code) ?? 0) + number);
  into.partitions.merge(other.partitions);
}

const counted = [
  ...(['requests', 'reads', 'writes', 'withoutIdentity', 'withoutPartition', 'severalPartitions'] as const),
  ...(['toApp', 'lookUps', 'tooSlow', 'unanswered'] as const),
];
