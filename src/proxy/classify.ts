/**
 * Step 2: what is the request? Its target, route and access first (an anonymous route must be known before
 * the credential is looked at), then, with the identity, the partition of the record it touches.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Directory } from '../core/homes.ts';
import {
  type Access,
  type AccessReason,
  classifyAccess,
  compileRoutes,
  isReadMethod,
  type MatchedRoute,
  type RouteRule,
  type RouteTable,
} from '../core/route.ts';
import { type Destination, hostsOf, namesDestination, readDestination } from './destination.ts';
import { asText, valuesOf } from './field.ts';
import { graphqlAccess } from './graphql.ts';
import type { Identity } from './identify.ts';
import { overridesMethod } from './override.ts';
import { type Names, type PartitionList, partitionListOf } from './partition-list.ts';
import { bodyFieldsOf, namesIn } from './partition-source.ts';
import type { PeerTest } from './peers.ts';
import { nothingDone, type Place, placerOf } from './place.ts';
import {
  fieldReadings,
  lookAt,
  type SeenBody,
  seenAtBeginning,
  seenIn,
  seenWithoutReading,
} from './seen-body.ts';
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
  readonly accessBy: AccessReason;
  /** Of partitions, by the field of the body in which they stand. */
  readonly names: ReadonlyMap<string, string | undefined>;
  /** What the body says at the places that the route names under `partitions`. */
  readonly listed?: Names;
  /** Of MOVE and COPY: the other target that the request changes. */
  readonly destination?: MatchedDestination;
}

/** Read and matched like the request's own target. */
export interface MatchedDestination extends Destination, Pick<MatchedRequest, 'route' | 'listed'> {
  readonly route: MatchedRoute | undefined;
}

export type Match =
  | { readonly match: 'request'; readonly request: MatchedRequest }
  /**
   * What it is stands in its body: that, or its beginning, is read first, and is undefined here where it is over the
   * limit.
   */
  | {
      readonly match: 'needs-body';
      readonly look: 'whole' | 'beginning';
      readonly with: (body: Buffer | undefined) => Match;
    }
  /** Answered by the proxy itself. */
  | { readonly match: 'health' | 'server-options' }
  | { readonly match: 'refused'; readonly failure: Failure };

export interface Classifier {
  match(request: IncomingMessage, upgrade: boolean): Match;
  place(request: IncomingMessage, matched: MatchedRequest, identity: Identity | undefined): Place;
}

const healthPath = '/.well-known/onewriter/health';

export function createClassifier(
  config: Pick<Config, 'routes' | 'partition' | 'partitionNames' | 'anonymousReads' | 'pathEndings'>,
  directory: Pick<Directory, 'cached'> = emptyDirectory,
  /** Whose X-Forwarded-Host is believed. */
  isTrusted: PeerTest = () => false,
): Classifier {
  const lists = new Map<RouteRule, PartitionList>(
    config.routes.flatMap((rule) => {
      const list = partitionListOf(rule);
      return list === undefined ? [] : [[rule, list] as const];
    }),
  );
  const rules: Rules = {
    routes: compileRoutes(config.routes, {
      partitionParameters: config.partition.flatMap((rule) =>
        'path' in rule && !rule.path.startsWith('/') ? [rule.path] : [],
      ),
      endings: config.pathEndings,
    }),
    partitionInBody: config.partition.some((rule) => 'body' in rule),
    fields: bodyFieldsOf(
      config.partition,
      config.routes.map(({ partition }) => partition),
    ),
    lists,
    isTrusted,
  };
  return {
    match: (request, upgrade) =>
      matchRequest(rules, request, upgrade, upgrade ? { kind: 'none' } : seenWithoutReading(request)),
    place: placerOf(config, directory, lists),
  };
}

/** The rules, made ready for matching. */
interface Rules {
  readonly routes: RouteTable;
  /** A general rule takes the partition from the body. */
  readonly partitionInBody: boolean;
  readonly fields: readonly string[];
  readonly lists: ReadonlyMap<RouteRule, PartitionList>;
  readonly isTrusted: PeerTest;
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
  if (coding !== undefined && (httpVersion === '1.0' || coding.toLowerCase() !== 'chunked')) {
    const why =
      httpVersion === '1.0'
        ? 'HTTP/1.0 knows no transfer coding, so where the body ends is in doubt.'
        : 'Only chunked transfer coding is taken.';
    return { match: 'refused', failure: failureOf('bad-framing', why) };
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
  const found = findRoute(rules, request, { path, query }, body);
  const needsBody = (look = lookAt(request)): Match => ({
    match: 'needs-body',
    look,
    with: (bytes) => {
      const begun = look === 'beginning' ? seenAtBeginning(request, bytes) : seenIn(request, bytes);
      return begun === undefined ? needsBody('whole') : matchRequest(rules, request, upgrade, begun);
    },
  });
  switch (found.match) {
    case 'needs-body':
      return needsBody();
    case 'ambiguous':
      return found.by === 'conditions'
        ? { match: 'refused', failure: failureOf('ambiguous-route', ambiguous) }
        : badTarget(ambiguousPath[found.by]);
    case 'route':
      break;
  }
  const { route, unread } = found;
  if (body === undefined && wantsBody(rules, method, route)) return needsBody();
  const overridden = unread || overridesMethod({ request, method, query, body, rule: route?.rule });
  const byRule = classifyAccess(method, route?.rule, { method: overridden, upgrade });
  const graphql = route?.rule.graphql === true && route.rule.access === undefined && !overridden && !upgrade;
  const access = graphql ? graphqlAccess({ method, query, body: body ?? { kind: 'unreadable' } }) : byRule;
  const accessBy = accessReasonOf({ upgrade, unread, overridden, graphql, rule: route?.rule });
  const names = body === undefined || rules.fields.length === 0 ? noNames : namesIn(body, rules.fields);
  const listed = listedIn(rules, route, body);
  const matched = { method, target, path, query, route, access, accessBy, names, ...listed };
  if (!namesDestination(method, overridden)) return { match: 'request', request: matched };
  const destination = matchDestination(rules, request, body);
  if (destination === 'needs-body') return needsBody();
  if (destination === undefined) return { match: 'request', request: matched };
  if ('refused' in destination) return badTarget(destination.refused, 'Destination');
  return { match: 'request', request: { ...matched, destination } };
}

/** `at`: the request's own target, or its Destination. */
function findRoute(
  rules: Rules,
  request: IncomingMessage,
  at: { readonly path: string; readonly query: string },
  body: SeenBody | undefined,
): ReturnType<RouteTable> {
  return rules.routes({
    ...{ method: request.method ?? '', path: at.path, query: at.query },
    host: valuesOf(request.rawHeaders, 'host')[0],
    header: (name) => valuesOf(request.rawHeaders, name).map((value) => asText(value) ?? value),
    field: body && ((field) => fieldReadings(body, field)),
  });
}

function matchDestination(
  rules: Rules,
  request: IncomingMessage,
  body: SeenBody | undefined,
): MatchedDestination | { readonly refused: string } | 'needs-body' | undefined {
  const trusted = rules.isTrusted(request.socket?.remoteAddress);
  const read = readDestination(request, hostsOf(request, trusted));
  if (read === undefined || 'refused' in read) return read;
  const found = findRoute(rules, request, read, body);
  switch (found.match) {
    case 'needs-body':
      return found.match;
    case 'ambiguous':
      return {
        refused:
          found.by === 'conditions'
            ? 'servers could take it for another route or partition than the proxy does'
            : ambiguousPath[found.by],
      };
    case 'route':
      break;
  }
  const { route } = found;
  if (body === undefined && wantsBody(rules, request.method ?? '', route)) return 'needs-body';
  return { ...read, route, ...listedIn(rules, route, body) };
}

function listedIn(
  { lists }: Rules,
  route: MatchedRoute | undefined,
  body: SeenBody | undefined,
): Pick<MatchedRequest, 'listed'> {
  const list = route && lists.get(route.rule);
  return list === undefined || body === undefined ? {} : { listed: list.inBody(body) };
}

function accessReasonOf(found: {
  readonly upgrade: boolean;
  readonly unread: boolean;
  readonly overridden: boolean;
  readonly graphql: boolean;
  readonly rule: RouteRule | undefined;
}): AccessReason {
  if (found.upgrade) return 'upgrade';
  if (found.overridden) return found.unread ? 'unread' : 'override';
  if (found.graphql) return 'graphql';
  return found.rule?.access === undefined ? 'method' : 'route';
}

const noNames: ReadonlyMap<string, string | undefined> = new Map();
const ambiguous =
  'A name that decides on the route is there twice, or spelled so that only some servers take it for that name.';

const ambiguousPath = {
  spelling: 'it is spelled so that a server could take it for a path of another route or partition',
  encoding:
    'it holds percent-encoded bytes that are no UTF-8, and servers that read them differently would take it for a path of another route or partition',
  ending:
    'its last segment has an ending, like .json; servers that take endings off would take it for a path of another route or partition. Ask without the ending; which endings the stores take off, the operator says with pathEndings in the configuration',
} as const;

/** Whether a request with a body cannot be classified by its head alone, once its route is known. */
function wantsBody(rules: Rules, method: string, route: MatchedRoute | undefined): boolean {
  const rule = route?.rule;
  if (rule?.graphql === true) return true;
  // Frameworks look for another method in the body of what could change something.
  if (rule?.access === 'read' && !isReadMethod(method)) return true;
  if (rule?.store !== undefined) return false;
  const list = rule && rules.lists.get(rule);
  if (list?.readsBody === true) return true;
  if (list !== undefined && rule?.partition === undefined) return false;
  return rule?.partition === undefined ? rules.partitionInBody : rule.partition.startsWith('body.');
}

function badTarget(why: string, which = 'request target'): Match {
  return { match: 'refused', failure: failureOf('bad-target', `The ${which} was refused: ${why}.`) };
}

function failureOf(code: Failure['code'], why: string): Failure {
  return { code, detail: `${why} ${nothingDone}` };
}

const emptyDirectory: Pick<Directory, 'cached'> = { cached: () => null };
