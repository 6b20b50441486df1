/** What a request is: which route it matches, whether it reads or writes, and whose record it touches. */
import { judge, judgeHost, type Reading, readingsInPairs, type Verdict, type Wanted } from './condition.ts';
import type { StoreName } from './ownership.ts';

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
  | { readonly match: 'ambiguous'; readonly by: 'path' | 'conditions' }
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
 * path itself). Segments are compared decoded, because every server takes `%6f` for `o` (RFC 3986, 6.2.2.2).
 * Servers disagree about letter case, empty segments, parameters behind `;`, a slash at the end, and slashes that are
 * encoded or the other way round: a path that would match a rule of another effect, or name another partition, only
 * when those are overlooked, or taken for a slash, is `ambiguous`,
 * and must be refused. So is a request with a name twice, where rules of different effect depend on which of the
 * two counts. `partitionParameters`: by which the partition is found where a rule does not say it.
 */
export function compileRoutes(
  rules: readonly RouteRule[],
  partitionParameters: readonly string[] = [],
): RouteTable {
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
    const exactly = seen.path.split('/').map(decodeSegment);
    const exact = search(compiled, seen, 'exact', exactly, exactly);
    if (exact === 'needs-body') return { match: 'needs-body' };
    let { unread, unclear } = exact;
    let sameEffect = true;
    for (const path of looseReadings(seen.path)) {
      const segments = looseSegments(path);
      const loose = search(compiled, seen, 'loose', segments.map(foldCase), segments);
      if (loose === 'needs-body') return { match: 'needs-body' };
      unread ||= loose.unread;
      unclear ||= loose.unclear;
      // Mostly no rule is for the path in any reading.
      sameEffect &&= exact.found === loose.found || effectOf(exact.found) === effectOf(loose.found);
    }
    if (unclear) return { match: 'ambiguous', by: 'conditions' };
    if (!sameEffect) return { match: 'ambiguous', by: 'path' };
    return { match: 'route', route: exact.found?.matched, unread };
  };
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
  return beginning !== undefined && !beginnings.has(beginning.toLowerCase());
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
  segments: readonly string[],
  /** The same segments in the letters in which they are parameters. */
  values: readonly string[],
): Found | 'needs-body' {
  const perhaps: RuleMatch[] = [];
  let unread = false;
  let certain: RuleMatch | undefined;
  for (const compiled of rules) {
    const { rule, methods } = compiled;
    if (methods !== undefined && !methods.has(seen.method)) continue;
    const parameters = matchSegments(compiled[how], segments, values);
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

function conditionsOf({ host, query = {}, headers = {} }: RouteRule): Condition[] {
  return [
    ...(host === undefined ? [] : [(seen: SeenRequest) => judgeHost(seen.host, host)]),
    ...Object.entries(query).map(
      ([name, wanted]): Condition =>
        (seen) =>
          judge(readingsInPairs(seen.query ?? '', name), wanted),
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

/** What a match changes about where a request goes; those that differ in nothing else are interchangeable. */
function effectOf(match: RuleMatch | undefined): string {
  const rule = match?.matched.rule;
  const named = match?.compiled.partitionBy.map((name) => match.matched.parameters[name] ?? null) ?? [];
  // Without any of them it is as if nothing had matched.
  const partitions = named.some((name) => name !== null) ? named : [];
  const { access, store, anonymous = false, partition, partitions: further, graphql = false } = rule ?? {};
  return JSON.stringify([access, store, anonymous, partition, further, graphql, partitions]);
}

/** What some servers take for a slash, before they look at segments. */
const otherSlashes = [/%2f/gi, /%5c/gi, /\\/g];

/** As servers could read the path that do not go by its letters. */
function looseReadings(path: string): readonly string[] {
  if (!/[%\\]|^\/\//.test(path)) return [path];
  const readings = slashReadings(path);
  // Read as a reference, "//x/y" is /y at the host x (RFC 3986, 4.2): so does `new URL(target, base)`.
  return readings.flatMap((reading) =>
    reading.startsWith('//') ? [reading, reading.replace(/^\/+[^/]*/, '') || '/'] : [reading],
  );
}

function slashReadings(path: string): readonly string[] {
  return otherSlashes.reduce<readonly string[]>(
    (readings, slash) =>
      readings.flatMap((reading) => {
        const split = reading.replaceAll(slash, '/');
        return split === reading ? [reading] : [reading, split];
      }),
    [path],
  );
}

function looseSegments(path: string): string[] {
  const segments = path.split('/').map((segment) => decodeSegment(segment.split(';', 1)[0] ?? ''));
  return ['', ...segments.filter((segment) => segment !== '')];
}

/** Names of parameters keep theirs. */
function foldCase(segment: string): string {
  return segment.startsWith(':') ? segment : segment.toLowerCase();
}

function matchSegments(
  pattern: readonly string[],
  found: readonly string[],
  values: readonly string[],
): Record<string, string> | undefined {
  const open = pattern.at(-1) === '*';
  const fixed = open ? pattern.length - 1 : pattern.length;
  if (open ? found.length < fixed : found.length !== fixed) return undefined;
  const parameters: Record<string, string> = {};
  for (let at = 0; at < fixed; at += 1) {
    const want = pattern[at] ?? '';
    const have = found[at] ?? '';
    if (want.startsWith(':')) {
      if (have === '') return undefined;
      parameters[want.slice(1)] = values[at] ?? '';
    } else if (want !== have) return undefined;
  }
  return parameters;
}

/** A segment with sequences that are no UTF-8 stays as it is. */
function decodeSegment(segment: string): string {
  if (!segment.includes('%')) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Without any letter that is looked for below: most paths. */
const plainPath = /^(?:\/[\w~!$&'()*+,:@=-]*)+$/;

/**
 * Why a target cannot be classified safely, if so. Upstreams disagree about dot segments, also behind slashes that
 * are encoded or the other way round, so a path with them could mean one record here and another one there.
 */
export function unsafeTarget(path: string): string | undefined {
  if (plainPath.test(path)) return undefined;
  if (!path.startsWith('/')) return 'it does not start with a slash';
  if (/[\u0000-\u0020\u007f#]/.test(path)) return 'it contains a control character, a space or a fragment';
  for (const segment of path.split(/\/|%2f|%5c|\\/i)) {
    const name = segment.replaceAll(/%2e/gi, '.').split(';', 1)[0];
    if (name === '.' || name === '..') return 'it contains a dot segment';
  }
  if (/%([01][0-9a-f]|7f)/i.test(path)) return 'it contains an encoded control character';
  return undefined;
}
