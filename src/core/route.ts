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

export type RouteTable = (method: string, path: string) => MatchedRoute | undefined;

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
 * path itself). Matching is done on the raw, undecoded path, so that what was classified is what is
 * forwarded, byte for byte; parameters are decoded for use.
 */
export function compileRoutes(rules: readonly RouteRule[]): RouteTable {
  const compiled = rules.map((rule) => ({
    rule,
    methods:
      rule.methods === undefined ? undefined : new Set(rule.methods.map((method) => method.toUpperCase())),
    segments: rule.path.split('/'),
  }));
  return (method, path) => {
    const found = path.split('/');
    for (const { rule, methods, segments } of compiled) {
      if (methods !== undefined && !methods.has(method)) continue;
      const parameters = matchSegments(segments, found);
      if (parameters !== undefined) return { rule, parameters };
    }
    return undefined;
  };
}

function matchSegments(
  pattern: readonly string[],
  found: readonly string[],
): Record<string, string> | undefined {
  const open = pattern.at(-1) === '*';
  const fixed = open ? pattern.length - 1 : pattern.length;
  if (open ? found.length < fixed : found.length !== fixed) return undefined;
  const parameters: Record<string, string> = {};
  for (let at = 0; at < fixed; at += 1) {
    const want = pattern[at] ?? '';
    const have = found[at] ?? '';
    if (!want.startsWith(':')) {
      if (want !== have) return undefined;
      continue;
    }
    const decoded = decodeSegment(have);
    if (decoded === undefined || decoded === '') return undefined;
    parameters[want.slice(1)] = decoded;
  }
  return parameters;
}

function decodeSegment(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
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
  return undefined;
}
