/**
 * Step 2: what is the request? Its target, route and access first (an anonymous route must be known before
 * the credential is looked at), then, with the identity, the partition of the record it touches.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Directory } from '../core/homes.ts';
import type { StoreName } from '../core/ownership.ts';
import {
  type Access,
  classifyAccess,
  compileRoutes,
  isReadMethod,
  type MatchedRoute,
  type RouteTable,
} from '../core/route.ts';
import { asText, isGoodName, valuesOf } from './field.ts';
import { graphqlAccess } from './graphql.ts';
import type { Identity } from './identify.ts';
import { overridesMethod } from './override.ts';
import { bodyFieldsOf, namesIn, routeSourceOf, sourceOf } from './partition-source.ts';
import { fieldReadings, type SeenBody, seenIn, seenWithoutReading } from './seen-body.ts';
import { isControlPath, isHost, readTarget } from './target.ts';

/** A request whose target was read and whose route is known. */
export interface MatchedRequest {
  readonly method: string;
  /** Origin form, as it will be forwarded. */
  readonly target: string;
  readonly path: string;
  /** Without the question mark. */
  readonly query: string;
  readonly route: MatchedRoute | undefined;
  readonly access: Access;
  /** Of partitions, by the field of the body in which they stand. */
  readonly names: ReadonlyMap<string, string | undefined>;
}

export type Match =
  | { readonly match: 'request'; readonly request: MatchedRequest }
  /** What it is stands in its body: that is read first, and is undefined here where it is over the limit. */
  | { readonly match: 'needs-body'; readonly with: (body: Buffer | undefined) => Match }
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

const healthPath = '/.well-known/onewriter/health';

export function createClassifier(
  config: Pick<Config, 'routes' | 'partition' | 'anonymousReads'>,
  directory: Pick<Directory, 'cached'> = emptyDirectory,
): Classifier {
  const rules: Rules = {
    routes: compileRoutes(
      config.routes,
      config.partition.flatMap((rule) => ('path' in rule && !rule.path.startsWith('/') ? [rule.path] : [])),
    ),
    partitionInBody: config.partition.some((rule) => 'body' in rule),
    fields: bodyFieldsOf(
      config.partition,
      config.routes.map(({ partition }) => partition),
    ),
  };
  const general = config.partition.map((rule) => sourceOf(rule, directory));
  const byRoute = new Map(
    config.routes.flatMap(({ partition }) =>
      partition === undefined ? [] : [[partition, routeSourceOf(partition)] as const],
    ),
  );
  return {
    match: (request, upgrade) =>
      matchRequest(rules, request, upgrade, upgrade ? { kind: 'none' } : seenWithoutReading(request)),
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

/** The rules, made ready for matching. */
interface Rules {
  readonly routes: RouteTable;
  /** A general rule takes the partition from the body. */
  readonly partitionInBody: boolean;
  readonly fields: readonly string[];
}

/** `body` is undefined until it has been read. */
function matchRequest(
  rules: Rules,
  request: IncomingMessage,
  upgrade: boolean,
  body: SeenBody | undefined,
): Match {
  const { method = '', url = '', httpVersion } = request;
  if (httpVersion !== '1.1' && httpVersion !== '1.0') {
    return {
      match: 'refused',
      failure: failureOf('bad-framing', 'Only HTTP/1.1 and HTTP/1.0 are spoken here.'),
    };
  }
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
  if (hosts[0] !== undefined && !isHost(hosts[0])) return badTarget('its Host header names no host');
  const read = readTarget(url, hosts[0]);
  if ('refused' in read) return badTarget(read.refused);
  const { target, path, query } = read;
  if (path === healthPath && (method === 'GET' || method === 'HEAD')) return { match: 'health' };
  if (isControlPath(path)) {
    return { match: 'refused', failure: failureOf('no-route', 'This path is not open to clients.') };
  }
  const found = rules.routes({
    ...{ method, path, query, host: hosts[0] },
    header: (name) => valuesOf(request.rawHeaders, name).map((value) => asText(value) ?? value),
    field: body && ((field) => fieldReadings(body, field)),
  });
  const needsBody: Match = {
    match: 'needs-body',
    with: (bytes) => matchRequest(rules, request, upgrade, seenIn(request, bytes)),
  };
  switch (found.match) {
    case 'needs-body':
      return needsBody;
    case 'ambiguous':
      return found.by === 'conditions'
        ? { match: 'refused', failure: failureOf('ambiguous-route', ambiguous) }
        : badTarget('it is spelled so that a server could take it for a path of another route or partition');
    case 'route':
      break;
  }
  const { route, unread } = found;
  if (body === undefined && wantsBody(rules, method, route)) return needsBody;
  const overridden = unread || overridesMethod({ request, method, query, body, rule: route?.rule });
  const byRule = classifyAccess(method, route?.rule, { method: overridden, upgrade });
  const graphql = route?.rule.graphql === true && route.rule.access === undefined && !overridden && !upgrade;
  const access = graphql ? graphqlAccess({ method, query, body: body ?? { kind: 'unreadable' } }) : byRule;
  const names = body === undefined ? noNames : namesIn(body, rules.fields);
  return { match: 'request', request: { method, target, path, query, route, access, names } };
}

const noNames: ReadonlyMap<string, string | undefined> = new Map();
const ambiguous =
  'A name that decides on the route is there twice, or spelled so that only some servers take it for that name.';

/** Whether a request with a body cannot be classified by its head alone, once its route is known. */
function wantsBody(rules: Rules, method: string, route: MatchedRoute | undefined): boolean {
  const rule = route?.rule;
  if (rule?.graphql === true) return true;
  // Frameworks look for another method in the body of what could change something.
  if (rule?.access === 'read' && !isReadMethod(method)) return true;
  if (rule?.store !== undefined) return false;
  return rule?.partition === undefined ? rules.partitionInBody : rule.partition.startsWith('body.');
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

const emptyDirectory: Pick<Directory, 'cached'> = { cached: () => null };
