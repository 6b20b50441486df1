/** What a request is: which route it matches, whether it reads or writes, and whose record it touches. */
import {
  judge,
  judgeHost,
  Pairs,
  type Reading,
  readingsInPairs,
  type Verdict,
  type Wanted,
} from './condition.ts';
import type { StoreName } from './ownership.ts';
import {
  type Endings,
  exactReading,
  foldCase,
  type LooseReading,
  looseReadings,
  looseSegments,
  type Segments,
} from './path-readings.ts';

export type Access = 'read' | 'write';

/** What decided on the access; `unread`: a rule was passed over because the body could not be looked into. */
export const accessReasons = ['method', 'route', 'graphql', 'override', 'upgrade', 'unread'] as const;
export type AccessReason = (typeof accessReasons)[number];

export interface RecordRule {
  readonly kind: string;
  /** Where the record's id is found: `path.NAME` in the request or `response.FIELD` in the answer. */
  readonly id: string;
}

/** A route as the operator wrote it; the first that matches wins. */
export interface RouteRule {
  readonly path: string;
  readonly methods?: readonly string[] | undefined;
  /** Exact, or `*.example.org`. */
  readonly host?: string | undefined;
  /** Each by its name: the exact value, or `*` for any. */
  readonly query?: Readonly<Record<string, string>> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** By the path of a field in a JSON body. */
  readonly body?: Readonly<Record<string, Wanted>> | undefined;
  readonly access?: Access | undefined;
  /** Pinned: always this store, belongs to no partition. */
  readonly store?: StoreName | undefined;
  readonly anonymous?: boolean | undefined;
  /** Where the partition is found, if not by the general rule: `user` or a source and a name. */
  readonly partition?: string | undefined;
  /** Where further partitions are found; each entry a source and a name, with `[*]` for several. */
  readonly partitions?: string | readonly string[] | undefined;
  /** Requests are GraphQL: what they ask says whether they write. */
  readonly graphql?: boolean | undefined;
  readonly record?: RecordRule | undefined;
  /** Which store answers reads; left out: the owner. */
  readonly reads?: 'owner' | 'copy' | 'app' | undefined;
  /** Oldest copy that may answer a read, ms. */
  readonly maxStalenessMs?: number | undefined;
}

export interface MatchedRoute {
  readonly rule: RouteRule;
  readonly parameters: Readonly<Record<string, string>>;
}

/** What is known of a request when its route is looked for. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  /** As sent, without the question mark. */
  readonly query?: string;
  readonly host?: string | undefined;
  /** All values of a header field; `name` in lower case. */
  readonly header?: (name: string) => readonly string[];
  /** What readers could find in a JSON body. Left out: the body has not been looked into yet. */
  readonly field?: ((path: string) => readonly Reading[] | 'unreadable') | undefined;
}

export type RouteMatch =
  | {
      readonly match: 'route';
      readonly route: MatchedRoute | undefined;
      /** A rule was passed over only because the body could not be looked into: the request is a write. */
      readonly unread: boolean;
    }
  /** Servers could take the request for one of another effect. */
  | { readonly match: 'ambiguous'; readonly by: LooseReading['by'] | 'conditions' }
  | { readonly match: 'needs-body' };

export type RouteTable = (seen: SeenRequest) => RouteMatch;

/** Methods that only read: RFC 9110 safe methods, WebDAV (4918, 5323), CalDAV (3253) and QUERY. */
const readMethods = new Set(['GET', 'HEAD', 'OPTIONS', 'PROPFIND', 'REPORT', 'SEARCH', 'QUERY']);

export function isReadMethod(method: string): boolean {
  return readMethods.has(method);
}

/** Everything unknown is a write: wrongly held for a moment is better than wrongly forwarded. */
export function classifyAccess(
  method: string,
  rule: RouteRule | undefined,
  overridden: { readonly method: boolean; readonly upgrade: boolean },
): Access {
  if (overridden.method || overridden.upgrade) return 'write';
  return rule?.access ?? (isReadMethod(method) ? 'read' : 'write');
}

/**
 * Compiles the rules. In a path, `:name` matches one segment, a trailing `/*` everything below (and the
 * path itself). Segments are compared decoded. A path that would match a rule of another effect, or name another
 * partition, only to some of its readers (path-readings.ts) is `ambiguous`, and must be refused. So is a request with
 * a name twice, where rules of different effect depend on which of the two counts.
 */
export function compileRoutes(rules: readonly RouteRule[], options: RouteOptions = {}): RouteTable {
  const { partitionParameters = [], endings } = options;
  const compiled = rules.map((rule): CompiledRule => ({
    rule,
    methods:
      rule.methods === undefined ? undefined : new Set(rule.methods.map((method) => method.toUpperCase())),
    exact: rule.path.split('/'),
    loose: looseSegments(rule.path).map(foldCase),
    partitionBy: partitionParametersOf(rule, partitionParameters),
    conditions: conditionsOf(rule),
    fields: Object.entries(rule.body ?? {}),
  }));
  const beginnings = beginningsOf(compiled);
  return (seen) => {
    if (beginnings !== undefined && beginsOtherwise(seen.path, beginnings)) return noRoute;
    const segments = exactReading(seen.path, endings);
    const exact = search(compiled, seen, 'exact', segments);
    if (exact === 'needs-body') return { match: 'needs-body' };
    let { unread, unclear } = exact;
    let differs: LooseReading['by'] | undefined;
    for (const reading of looseReadings(seen.path, endings)) {
      if (reading.by === 'ending' && namesLast(exact.found, segments)) continue;
      const loose = search(compiled, seen, 'loose', reading);
      if (loose === 'needs-body') return { match: 'needs-body' };
      unread ||= loose.unread;
      unclear ||= loose.unclear;
      if (!sameEffect(exact.found, loose.found, reading)) differs ??= reading.by;
    }
    if (unclear) return { match: 'ambiguous', by: 'conditions' };
    if (differs !== undefined) return { match: 'ambiguous', by: differs };
    return { match: 'route', route: exact.found?.matched, unread };
  };
}

export interface RouteOptions {
  /** By which the partition is found where a rule does not say it. */
  readonly partitionParameters?: readonly string[];
  readonly endings?: Endings;
}

const noRoute: RouteMatch = { match: 'route', route: undefined, unread: false };
/** A first segment that every reader takes for the same, but for the case of its letters. */
const plainBeginning = /^\/([\w.~-]+)(?:\/|$)/;

/** The first segments of all rules, folded; undefined where a rule is for any. */
function beginningsOf(rules: readonly CompiledRule[]): ReadonlySet<string> | undefined {
  const beginnings = rules.map(({ loose }) => loose[1] ?? '');
  return beginnings.some((segment) => segment === '*' || segment.startsWith(':'))
    ? undefined
    : new Set(beginnings);
}

/** Most paths begin like none of the rules, in any reading: nothing else need be looked at. */
function beginsOtherwise(path: string, beginnings: ReadonlySet<string>): boolean {
  const beginning = plainBeginning.exec(path)?.[1];
  if (beginning === undefined || beginnings.has(beginning.toLowerCase())) return false;
  // It may be the last one, and have an ending.
  return beginning.lastIndexOf('.') < 1;
}

interface CompiledRule {
  readonly rule: RouteRule;
  readonly methods: ReadonlySet<string> | undefined;
  readonly exact: readonly string[];
  readonly loose: readonly string[];
  /** Parameters that may name the partition. */
  readonly partitionBy: readonly string[];
  readonly conditions: readonly Condition[];
  readonly fields: readonly (readonly [path: string, wanted: Wanted])[];
}

type Condition = (seen: SeenRequest) => Verdict;

interface RuleMatch {
  readonly compiled: CompiledRule;
  readonly matched: MatchedRoute;
}

interface Found {
  readonly found: RuleMatch | undefined;
  /** Before it stands a rule of another effect, and readers do not agree whether that one matches. */
  readonly unclear: boolean;
  readonly unread: boolean;
}

function search(
  rules: readonly CompiledRule[],
  seen: SeenRequest,
  how: 'exact' | 'loose',
  segments: Segments,
): Found | 'needs-body' {
  const perhaps: RuleMatch[] = [];
  let unread = false;
  let certain: RuleMatch | undefined;
  for (const compiled of rules) {
    const { rule, methods } = compiled;
    if (methods !== undefined && !methods.has(seen.method)) continue;
    const parameters = matchSegments(compiled[how], segments);
    if (parameters === undefined) continue;
    const verdict = verdictOf(compiled, seen);
    if (verdict === 'needs-body') return verdict;
    if (verdict === 'unreadable') unread = true;
    if (verdict === 'unclear') perhaps.push({ compiled, matched: { rule, parameters } });
    if (verdict !== 'yes') continue;
    certain = { compiled, matched: { rule, parameters } };
    break;
  }
  return { found: certain, unclear: perhaps.some((other) => differ(other, certain)), unread };
}

function partitionParametersOf(rule: RouteRule, general: readonly string[]): readonly string[] {
  if (rule.store !== undefined) return [];
  const own = [rule.partition ?? [], rule.partitions ?? []].flat();
  if (own.length === 0) return general;
  return own.flatMap((source) => (source.startsWith('path.') ? [source.slice('path.'.length)] : []));
}

function verdictOf(
  { conditions, fields }: CompiledRule,
  seen: SeenRequest,
): Verdict | 'needs-body' | 'unreadable' {
  let all: Verdict = 'yes';
  for (const condition of conditions) {
    const verdict = condition(seen);
    if (verdict === 'no') return 'no';
    if (verdict === 'unclear') all = 'unclear';
  }
  if (fields.length > 0 && seen.field === undefined) return 'needs-body';
  for (const [path, wanted] of fields) {
    const readings = seen.field?.(path) ?? 'unreadable';
    if (readings === 'unreadable') return 'unreadable';
    const verdict = judge(readings, wanted);
    if (verdict === 'no') return 'no';
    if (verdict === 'unclear') all = 'unclear';
  }
  return all;
}

/** Taken apart once for all rules. */
const queries = new WeakMap<SeenRequest, Pairs>();

function queryOf(seen: SeenRequest): Pairs | '' {
  const { query = '' } = seen;
  if (query === '') return query;
  const known = queries.get(seen) ?? new Pairs(query);
  queries.set(seen, known);
  return known;
}

function conditionsOf({ host, query = {}, headers = {} }: RouteRule): Condition[] {
  return [
    ...(host === undefined ? [] : [(seen: SeenRequest) => judgeHost(seen.host, host)]),
    ...Object.entries(query).map(
      ([name, wanted]): Condition =>
        (seen) =>
          judge(readingsInPairs(queryOf(seen), name), wanted),
    ),
    ...Object.entries(headers).map(([name, wanted]): Condition => {
      const lower = name.toLowerCase();
      return (seen) => judge(seen.header?.(lower) ?? [], wanted);
    }),
  ];
}

function differ(one: RuleMatch, other: RuleMatch | undefined): boolean {
  if (effectOf(one) !== effectOf(other)) return true;
  return JSON.stringify(one.matched.parameters) !== JSON.stringify(other?.matched.parameters);
}

function sameEffect(
  one: RuleMatch | undefined,
  other: RuleMatch | undefined,
  { naming }: LooseReading,
): boolean {
  // Mostly no rule is for the path in any reading.
  if (one === other) return true;
  if (one === undefined || one.compiled !== other?.compiled) {
    return effectOf(one, naming) === effectOf(other, naming);
  }
  const { partitionBy } = one.compiled;
  return (
    !naming || partitionBy.every((name) => one.matched.parameters[name] === other.matched.parameters[name])
  );
}

/**
 * What a match changes about where a request goes; those that differ in nothing else are interchangeable. Without
 * `naming`, which partition it names does not count.
 */
function effectOf(match: RuleMatch | undefined, naming = true): string {
  const rule = match?.matched.rule;
  const named = match?.compiled.partitionBy.map((name) => match.matched.parameters[name] ?? null) ?? [];
  // Without any of them it is as if nothing had matched.
  const some = named.some((name) => name !== null) ? named : [];
  const partitions = naming ? some : some.map((name) => name !== null);
  const { access, store, anonymous = false, partition, partitions: further, graphql = false } = rule ?? {};
  return JSON.stringify([access, store, anonymous, partition, further, graphql, partitions]);
}

/** Is there a rule for it that has the ending, too? Then the stores have a resource of that name. */
function namesLast(match: RuleMatch | undefined, { found }: Segments): boolean {
  const pattern = match?.compiled.exact;
  return pattern !== undefined && pattern.length === found.length && pattern.at(-1) === found.at(-1);
}

function matchSegments(
  pattern: readonly string[],
  { found, values, bare }: Segments,
): Record<string, string> | undefined {
  const open = pattern.at(-1) === '*';
  const fixed = open ? pattern.length - 1 : pattern.length;
  if (open ? found.length < fixed : found.length !== fixed) return undefined;
  const parameters: Record<string, string> = {};
  for (let at = 0; at < fixed; at += 1) {
    const want = pattern[at] ?? '';
    const have = found[at] ?? '';
    const unended = at === found.length - 1 ? bare : undefined;
    if (want.startsWith(':')) {
      if (have === '') return undefined;
      parameters[want.slice(1)] = unended?.value ?? values[at] ?? '';
    } else if (want !== have && want !== unended?.found) return undefined;
  }
  return parameters;
}
