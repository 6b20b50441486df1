/** What a request is: which route it matches, whether it reads or writes, and whose record it touches. */
import type { StoreName } from './ownership.ts';

export type Access = 'read' | 'write';

export interface RecordRule {
  readonly kind: string;
  /** Where the record's id is found: `path.NAME` in the request or `response.FIELD` in the answer. */
  readonly id: string;
}

/** A route as the operator wrote it; the first that matches wins. */
export interface RouteRule {
  readonly path: string;
  readonly methods?: readonly string[] | undefined;
  readonly access?: Access | undefined;
  /** Pinned: always this store, belongs to no partition. */
  readonly store?: StoreName | undefined;
  readonly anonymous?: boolean | undefined;
  /** Where the partition is found, if not by the general rule: `path.NAME`, `header.NAME`, `claim.NAME`, `user`. */
  readonly partition?: string | undefined;
  readonly record?: RecordRule | undefined;
}

export interface MatchedRoute {
  readonly rule: RouteRule;
  readonly parameters: Readonly<Record<string, string>>;
}

export type RouteTable = (method: string, path: string) => MatchedRoute | undefined | 'ambiguous';

/** Methods that only read: RFC 9110 safe methods, WebDAV (4918, 5323), CalDAV (3253) and QUERY. */
const readMethods = new Set(['GET', 'HEAD', 'OPTIONS', 'PROPFIND', 'REPORT', 'SEARCH', 'QUERY']);

/** Everything unknown is a write: wrongly held for a moment is better than wrongly forwarded. */
export function classifyAccess(
  method: string,
  rule: RouteRule | undefined,
  overridden: { readonly method: boolean; readonly upgrade: boolean },
): Access {
  if (overridden.method || overridden.upgrade) return 'write';
  return rule?.access ?? (readMethods.has(method) ? 'read' : 'write');
}

/**
 * Compiles the rules. In a path, `:name` matches one segment, a trailing `/*` everything below (and the
 * path itself). Segments are compared decoded, because every server takes `%6f` for `o` (RFC 3986, 6.2.2.2).
 * Servers disagree about letter case, empty segments, parameters behind `;` and a slash at the end: a path that
 * would match a rule of another effect, or name another partition, only when those are overlooked is `ambiguous`,
 * and must be refused. `partitionParameters`: by which the partition is found where a rule does not say it.
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
  }));
  return (method, path) => {
    const exactly = path.split('/').map(decodeSegment);
    const loosely = looseSegments(path);
    const exact = firstMatch(compiled, method, 'exact', exactly, exactly);
    const loose = firstMatch(compiled, method, 'loose', loosely.map(foldCase), loosely);
    return effectOf(exact) === effectOf(loose) ? exact?.matched : 'ambiguous';
  };
}

interface CompiledRule {
  readonly rule: RouteRule;
  readonly methods: ReadonlySet<string> | undefined;
  readonly exact: readonly string[];
  readonly loose: readonly string[];
  /** Parameters that may name the partition. */
  readonly partitionBy: readonly string[];
}

interface RuleMatch {
  readonly compiled: CompiledRule;
  readonly matched: MatchedRoute;
}

function partitionParametersOf(rule: RouteRule, general: readonly string[]): readonly string[] {
  if (rule.store !== undefined) return [];
  if (rule.partition === undefined) return general;
  return rule.partition.startsWith('path.') ? [rule.partition.slice('path.'.length)] : [];
}

function firstMatch(
  rules: readonly CompiledRule[],
  method: string,
  how: 'exact' | 'loose',
  found: readonly string[],
  /** The same segments in the letters in which they are parameters. */
  values: readonly string[],
): RuleMatch | undefined {
  for (const compiled of rules) {
    const { rule, methods, [how]: segments } = compiled;
    if (methods !== undefined && !methods.has(method)) continue;
    const parameters = matchSegments(segments, found, values);
    if (parameters !== undefined) return { compiled, matched: { rule, parameters } };
  }
  return undefined;
}

/** What a match changes about where a request goes; those that differ in nothing else are interchangeable. */
function effectOf(match: RuleMatch | undefined): string {
  const rule = match?.matched.rule;
  const named = match?.compiled.partitionBy.map((name) => match.matched.parameters[name] ?? null) ?? [];
  // Without any of them it is as if nothing had matched.
  const partitions = named.some((name) => name !== null) ? named : [];
  return JSON.stringify([rule?.access, rule?.store, rule?.anonymous ?? false, rule?.partition, partitions]);
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

/**
 * Why a target cannot be classified safely, if so. Upstreams disagree about dot segments, encoded
 * slashes and backslashes, so a path with them could mean one record here and another one there.
 */
export function unsafeTarget(path: string): string | undefined {
  if (!path.startsWith('/')) return 'it does not start with a slash';
  if (/[\u0000-\u0020\u007f#]/.test(path)) return 'it contains a control character, a space or a fragment';
  for (const segment of path.split('/')) {
    const name = segment.replaceAll(/%2e/gi, '.').split(';', 1)[0];
    if (name === '.' || name === '..') return 'it contains a dot segment';
  }
  if (/%2f|%5c|\\/i.test(path)) return 'it contains an encoded slash or a backslash';
  if (/%([01][0-9a-f]|7f)/i.test(path)) return 'it contains an encoded control character';
  return undefined;
}
