/**
 * Step 2: what is the request? Its target, route and access first (an anonymous route must be known before
 * the credential is looked at), then, with the identity, the partition of the record it touches.
 */
import type { IncomingMessage } from 'node:http';
import type { Config, PartitionRule } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Directory } from '../core/homes.ts';
import type { StoreName } from '../core/ownership.ts';
import {
  type Access,
  classifyAccess,
  compileRoutes,
  type MatchedRoute,
  type RouteTable,
} from '../core/route.ts';
import { asText, isGoodName, valuesOf } from './field.ts';
import type { Identity } from './identify.ts';
import { isControlPath, overridesMethodInQuery, readTarget } from './target.ts';

/** A request whose target was read and whose route is known. */
export interface MatchedRequest {
  readonly method: string;
  /** Origin form, as it will be forwarded. */
  readonly target: string;
  readonly path: string;
  readonly route: MatchedRoute | undefined;
  readonly access: Access;
}

export type Match =
  | { readonly match: 'request'; readonly request: MatchedRequest }
  /** Answered by the proxy itself. */
  | { readonly match: 'health' | 'server-options' }
  | { readonly match: 'refused'; readonly failure: Failure };

/** Where the request belongs. Pinned and anonymous requests belong to no partition. */
export type Place =
  | { readonly place: 'partition'; readonly partition: string }
  | { readonly place: 'store'; readonly store: StoreName }
  /** The directory must be asked which partition the user belongs to. */
  | { readonly place: 'look-up'; readonly user: string }
  | { readonly place: 'refused'; readonly failure: Failure };

export interface Classifier {
  match(request: IncomingMessage, upgrade: boolean): Match;
  place(request: IncomingMessage, matched: MatchedRequest, identity: Identity | undefined): Place;
}

type Origin = { readonly request: IncomingMessage; readonly matched: MatchedRequest } & {
  readonly identity: Identity | undefined;
};
/** Where a partition's name is found; undefined where the request does not have it. */
type PartitionSource = (origin: Origin) => string | undefined | { readonly lookUp: string };

const overrideHeaders = new Set(['x-http-method-override', 'x-method-override', 'x-http-method']);
const healthPath = '/.well-known/onewriter/health';

export function createClassifier(
  config: Pick<Config, 'routes' | 'partition' | 'anonymousReads'>,
  directory: Pick<Directory, 'cached'> = emptyDirectory,
): Classifier {
  const routes = compileRoutes(
    config.routes,
    config.partition.flatMap((rule) => ('path' in rule && !rule.path.startsWith('/') ? [rule.path] : [])),
  );
  const general = config.partition.map((rule) => sourceOf(rule, directory));
  const byRoute = new Map(
    config.routes.flatMap(({ partition }) =>
      partition === undefined ? [] : [[partition, routeSourceOf(partition)] as const],
    ),
  );
  return {
    match: (request, upgrade) => matchRequest(routes, request, upgrade),
    place: (request, matched, identity) => {
      const rule = matched.route?.rule;
      if (identity === undefined && !(rule?.anonymous ?? false)) {
        return placeWithoutIdentity(matched, config.anonymousReads);
      }
      if (rule?.store !== undefined) return { place: 'store', store: rule.store };
      const origin = { request, matched, identity };
      const own = rule?.partition === undefined ? undefined : byRoute.get(rule.partition);
      // A route that names its own source is never judged by the general rules: they would name the caller.
      const sources = own === undefined ? general : [own];
      for (const source of sources) {
        const partition = source(origin);
        if (partition === undefined) continue;
        if (typeof partition !== 'string') return { place: 'look-up', user: partition.lookUp };
        if (isGoodName(partition)) return { place: 'partition', partition };
        return refused('no-partition', 'The partition that the request names is no usable name.');
      }
      if (matched.access === 'read' && config.anonymousReads !== 'refuse') {
        return { place: 'store', store: config.anonymousReads };
      }
      return refused('no-partition', 'Nothing in the request says which partition its record belongs to.');
    },
  };
}

function placeWithoutIdentity(matched: MatchedRequest, anonymousReads: StoreName | 'refuse'): Place {
  const pinned = matched.route?.rule.store;
  if (matched.access === 'write' || pinned !== undefined || anonymousReads === 'refuse') {
    return refused('no-identity', 'The request carries no credential.');
  }
  return { place: 'store', store: anonymousReads };
}

function matchRequest(routes: RouteTable, request: IncomingMessage, upgrade: boolean): Match {
  const { method = '', url = '' } = request;
  if (method === 'TRACE' || method === 'CONNECT') {
    return { match: 'refused', failure: failureOf('method-not-allowed', `${method} is not forwarded.`) };
  }
  if (method === 'OPTIONS' && url === '*') return { match: 'server-options' };
  const coding = request.headers['transfer-encoding'];
  // Other codings end here, hop by hop (RFC 9112, 6.1): passed on without them, the body would be another.
  if (coding !== undefined && coding.toLowerCase() !== 'chunked') {
    return { match: 'refused', failure: failureOf('bad-framing', 'Only chunked transfer coding is taken.') };
  }
  const hosts = valuesOf(request.rawHeaders, 'host');
  if (hosts.length > 1) return badTarget('there is more than one Host header');
  const read = readTarget(url, hosts[0]);
  if ('refused' in read) return badTarget(read.refused);
  const { target, path, query } = read;
  if (path === healthPath && (method === 'GET' || method === 'HEAD')) return { match: 'health' };
  if (isControlPath(path)) {
    return { match: 'refused', failure: failureOf('no-route', 'This path is not open to clients.') };
  }
  const route = routes(method, path);
  if (route === 'ambiguous') {
    return badTarget('it is spelled so that a server could take it for a path of another route or partition');
  }
  const overridden = overridesMethodInHeader(request) || overridesMethodInQuery(query);
  const access = classifyAccess(method, route?.rule, { method: overridden, upgrade });
  return { match: 'request', request: { method, target, path, route, access } };
}

/** Also in the spelling that gateways which map fields to variables take for the same (CGI, WSGI, PHP). */
function overridesMethodInHeader({ headers }: IncomingMessage): boolean {
  return Object.keys(headers).some((name) => overrideHeaders.has(name.replaceAll('_', '-')));
}

function badTarget(why: string): Match {
  return { match: 'refused', failure: failureOf('bad-target', `The request target was refused: ${why}.`) };
}

function refused(code: 'no-identity' | 'no-partition', why: string): Place {
  return { place: 'refused', failure: failureOf(code, why) };
}

function failureOf(code: Failure['code'], why: string): Failure {
  return { code, detail: `${why} Nothing was forwarded and nothing was changed.` };
}

// --- where partitions are found ----------------------------------------------------------------------

function sourceOf(rule: PartitionRule, directory: Pick<Directory, 'cached'>): PartitionSource {
  if ('by' in rule) return fromUser;
  if ('directory' in rule) return fromDirectory(directory);
  if ('header' in rule) return fromHeader(rule.header);
  if ('claim' in rule) return fromClaim(rule.claim);
  if ('path' in rule) return rule.path.startsWith('/') ? fromTemplate(rule.path) : fromPath(rule.path);
  throw new Error(`partition by ${Object.keys(rule)[0] ?? 'this rule'} is not available yet`);
}

/** `path.NAME`, `header.NAME`, `claim.NAME` or `user`, as a route writes it. */
function routeSourceOf(text: string): PartitionSource {
  if (text === 'user') return fromUser;
  const [kind, name] = splitOnce(text);
  if (name !== '' && kind === 'path') return fromPath(name);
  if (name !== '' && kind === 'header') return fromHeader(name);
  if (name !== '' && kind === 'claim') return fromClaim(name);
  throw new Error(`a route's partition by "${text}" is not available yet`);
}

function splitOnce(text: string): [string, string] {
  const dot = text.indexOf('.');
  return dot === -1 ? [text, ''] : [text.slice(0, dot), text.slice(dot + 1)];
}

const fromUser: PartitionSource = ({ identity }) => identity?.user;

const emptyDirectory: Pick<Directory, 'cached'> = { cached: () => null };

/** A user without an entry leaves it to the next rule. */
function fromDirectory(directory: Pick<Directory, 'cached'>): PartitionSource {
  return ({ identity }) => {
    if (identity === undefined) return undefined;
    const entry = directory.cached(identity.user);
    return entry === undefined ? { lookUp: identity.user } : (entry ?? undefined);
  };
}

function fromHeader(header: string): PartitionSource {
  const name = header.toLowerCase();
  return ({ request }) => {
    const values = valuesOf(request.rawHeaders, name);
    if (values.length === 0) return undefined;
    // A repeated field has no one meaning; the empty name is refused by the caller.
    return values.length > 1 ? '' : (asText(values[0] ?? '') ?? '');
  };
}

function fromClaim(name: string): PartitionSource {
  return ({ identity }) => {
    const value = identity?.claims[name];
    if (value === undefined || value === null) return undefined;
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
}

function fromPath(name: string): PartitionSource {
  return ({ matched }) => matched.route?.parameters[name];
}

function fromTemplate(template: string): PartitionSource {
  const table = compileRoutes([{ path: template, partition: 'path.partition' }]);
  return ({ matched }) => {
    const found = table(matched.method, matched.path);
    return found === 'ambiguous' ? '' : found?.parameters['partition'];
  };
}
