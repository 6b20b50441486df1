/**
 * Where a request belongs, once it is known what it is and who it acts for: the partition of the record that it
 * touches, or several that it touches together, or a store.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Directory } from '../core/homes.ts';
import type { StoreName } from '../core/ownership.ts';
import type { RouteRule } from '../core/route.ts';
import { isSignableSet } from '../guard/signature.ts';
import type { MatchedRequest } from './classify.ts';
import type { Identity } from './identify.ts';
import type { Names, PartitionList } from './partition-list.ts';
import { type NameTest, nameTestOf } from './partition-name.ts';
import { type Origin, type PartitionSource, routeSourceOf, sourceOf } from './partition-source.ts';

/** Pinned and anonymous requests belong to no partition. */
export type Place =
  /** `also`: others that the request touches together with it; absent where there are none. */
  | { readonly place: 'partition'; readonly partition: string; readonly also?: readonly string[] }
  | { readonly place: 'store'; readonly store: StoreName }
  /** The directory must be asked which partition the user belongs to. */
  | { readonly place: 'look-up'; readonly user: string }
  | { readonly place: 'refused'; readonly failure: Failure };

export type Placer = (
  request: IncomingMessage,
  matched: MatchedRequest,
  identity: Identity | undefined,
) => Place;

export const nothingDone = 'Nothing was forwarded and nothing was changed.';
const unusable =
  'a name has one spelling, without white space around it, and a whole number no leading zeros or sign; what else names look like, the operator says with partitionNames in the configuration';
/** Partitions that one request may touch. */
export const partitionsMax = 100;

export function placerOf(
  config: Pick<Config, 'routes' | 'partition' | 'partitionNames' | 'anonymousReads' | 'pathEndings'>,
  directory: Pick<Directory, 'cached'>,
  lists: ReadonlyMap<RouteRule, PartitionList>,
): Placer {
  const rules: PlaceRules = {
    general: config.partition.map((rule) => sourceOf(rule, directory, config.pathEndings)),
    byRoute: new Map(
      config.routes.flatMap(({ partition }) =>
        partition === undefined ? [] : [[partition, routeSourceOf(partition)] as const],
      ),
    ),
    lists,
    anonymousReads: config.anonymousReads,
    isName: nameTestOf(config),
  };
  return (request, matched, identity) => {
    const here = placeAt(rules, { request, matched, identity });
    if (matched.destination === undefined) return here;
    const there = placeAt(rules, { request, identity, matched: { ...matched, ...matched.destination } });
    return together(rules, here, there);
  };
}

interface PlaceRules {
  readonly general: readonly PartitionSource[];
  readonly byRoute: ReadonlyMap<string, PartitionSource>;
  readonly lists: ReadonlyMap<RouteRule, PartitionList>;
  readonly anonymousReads: StoreName | 'refuse';
  readonly isName: NameTest;
}

function placeAt(rules: PlaceRules, origin: Origin): Place {
  const { matched, identity } = origin;
  const rule = matched.route?.rule;
  if (identity === undefined && !(rule?.anonymous ?? false)) {
    return placeWithoutIdentity(matched, rules.anonymousReads);
  }
  if (rule?.store !== undefined) return { place: 'store', store: rule.store };
  const own = rule?.partition === undefined ? undefined : rules.byRoute.get(rule.partition);
  const list = rule && rules.lists.get(rule);
  // A route that names its own places is never judged by the general rules: they would name the caller.
  const sources = own !== undefined ? [own] : list !== undefined ? [] : rules.general;
  const first = firstOf(rules, sources, origin);
  if (list === undefined) return first ?? placeOfNothing(rules, origin);
  if (own !== undefined && first?.place !== 'partition') return first ?? placeOfNothing(rules, origin);
  const further = namesOf(list, origin);
  if (typeof further === 'string') return unreadable(further);
  if (first?.place === 'partition') return placeOfAll(rules, [first.partition, ...further]);
  return further.length === 0 ? placeOfNothing(rules, origin) : placeOfAll(rules, further);
}

function firstOf(
  { isName }: PlaceRules,
  sources: readonly PartitionSource[],
  origin: Origin,
): Place | undefined {
  for (const source of sources) {
    const partition = source(origin);
    if (partition === undefined) continue;
    if (typeof partition !== 'string') return { place: 'look-up', user: partition.lookUp };
    if (isName(partition)) return { place: 'partition', partition };
    return refused(
      'no-partition',
      `The partition that the request names is no usable name, or servers could read another one there: ${unusable}.`,
    );
  }
  return undefined;
}

function namesOf(list: PartitionList, origin: Origin): Names {
  const inBody = origin.matched.listed ?? [];
  if (typeof inBody === 'string') return inBody;
  const outside = list.outside(origin);
  return typeof outside === 'string' ? outside : [...outside, ...inBody];
}

function unreadable(because: Exclude<Names, readonly string[]>): Place {
  if (because === 'too-many') return tooMany;
  return refused(
    'no-partition',
    'Which partitions the request touches cannot be told for certain: a place that its route names is of another form, holds no name, or can be read in more than one way.',
  );
}

function placeOfAll({ isName }: PlaceRules, names: readonly string[]): Place {
  const [partition = '', ...also] = new Set(names);
  if (also.length >= partitionsMax) return tooMany;
  if (![partition, ...also].every(isName)) {
    return refused('no-partition', `A partition that the request names is no usable name: ${unusable}.`);
  }
  if (also.length === 0) return { place: 'partition', partition };
  return isSignableSet(also) ? { place: 'partition', partition, also } : tooMany;
}

/** Of a MOVE or COPY: what is changed there counts like what is changed here. */
function together(rules: PlaceRules, here: Place, there: Place): Place {
  if (here.place === 'refused' || here.place === 'look-up') return here;
  if (there.place === 'refused' || there.place === 'look-up') return there;
  if (here.place === 'partition' && there.place === 'partition') {
    return placeOfAll(
      rules,
      [here, there].flatMap(({ partition, also = [] }) => [partition, ...also]),
    );
  }
  if (here.place === 'store' && there.place === 'store' && here.store === there.store) return here;
  return refused(
    'bad-target',
    'The Destination lies where another store decides: one of the two targets belongs to a partition, or to a store, and the other does not.',
  );
}

function placeOfNothing({ anonymousReads }: PlaceRules, { matched }: Origin): Place {
  if (matched.access === 'read' && anonymousReads !== 'refuse') {
    return { place: 'store', store: anonymousReads };
  }
  return refused('no-partition', 'Nothing in the request says which partition its record belongs to.');
}

function placeWithoutIdentity(matched: MatchedRequest, anonymousReads: StoreName | 'refuse'): Place {
  const pinned = matched.route?.rule.store;
  if (matched.access === 'write' || pinned !== undefined || anonymousReads === 'refuse') {
    return refused('no-identity', 'The request carries no credential.');
  }
  return { place: 'store', store: anonymousReads };
}

const tooMany: Place = refused(
  'too-many-partitions',
  `The request touches more than ${partitionsMax} partitions, lists too many entries, or their names are too long together; send it in parts.`,
);

function refused(code: Failure['code'], why: string): Place {
  return { place: 'refused', failure: { code, detail: `${why} ${nothingDone}` } };
}
