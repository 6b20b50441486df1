/**
 * One request from its head to its end: match → identify → classify → admit → forward (which takes a write's
 * Idempotency-Key before it sends anything). Read from the top, this is what the proxy does.
 */
import type { KeyObject } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Directory, Homes } from '../core/homes.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import { isReadMethod } from '../core/route.ts';
import type { DoubtNotes } from '../core/doubt.ts';
import type { LinkNotes } from '../core/links.ts';
import type { Doorbell, WriteGate, UserCalls } from '../core/ports.ts';
import { guardKey } from '../guard/signature.ts';
import type { Log } from '../log.ts';
import { admit, type Client, type Decision, type Passage, type RulesState } from './admit.ts';
import { answerFailure, isOver } from './answer.ts';
import type { Bodies } from './body.ts';
import { type Classifier, createClassifier, type Match, type MatchedRequest } from './classify.ts';
import { clientOf } from './client.ts';
import { type ProxyCounters, statusClass } from './counters.ts';
import { noteDoubt } from './doubt.ts';
import { foldedName } from './field.ts';
import { forward } from './forward.ts';
import type { RequestHeaderRules } from './headers.ts';
import { answerHealth } from './health.ts';
import type { EventStreams } from './event-streams.ts';
import type { Holds } from './hold.ts';
import type { HookedUpstreams } from './hooked-upstream.ts';
import type { KeyedWrites } from './idempotency.ts';
import {
  challengeOf,
  credentialHeadersOf,
  type Identification,
  Identifier,
  type Identity,
} from './identify.ts';
import { noticeRead, noticeWrite } from './notice.ts';
import type { Outages } from './outages.ts';
import { beginPinned, type PinnedWrites, staysPinned } from './pinned.ts';
import { peerTest } from './peers.ts';
import { shapedAnswer, trailersFor, wayTo } from './outgoing.ts';
import { readingOf, seenEpochOf } from './reading.ts';
import type { Reads } from './reads.ts';
import { Shape } from './shape.ts';
import type { Place } from './place.ts';
import { seenBodyBytesMax } from './seen-body.ts';
import type { Upstream } from './upstream.ts';

/** What all requests share. Made once, then only read (but for the counters). */
export interface ProxyContext {
  readonly config: Config;
  readonly gate: WriteGate;
  readonly homes: Homes;
  readonly directory: Directory;
  readonly links: LinkNotes;
  readonly doorbell: Doorbell;
  readonly userCalls?: UserCalls | undefined;
  /** Absent where no route lets a copy answer. */
  readonly reads?: Reads | undefined;
  readonly doubts: DoubtNotes;
  readonly log: Log;
  readonly nowMs: () => number;
  readonly identifier: Identifier;
  /** Bodies that say who their request is from, or what it is. */
  readonly bodies: Bodies;
  readonly challenge: string;
  readonly classifier: Classifier;
  readonly holds: Holds;
  readonly eventStreams: EventStreams;
  /** Undefined: an Idempotency-Key is only passed on. */
  readonly keyedWrites: KeyedWrites | undefined;
  readonly counters: ProxyCounters;
  readonly outages: Outages;
  readonly pinned: PinnedWrites;
  readonly headerRules: RequestHeaderRules;
  readonly upstreams: Readonly<Record<StoreName, Upstream>>;
  /** Of stores with a hook. */
  readonly hooked: Readonly<Partial<Record<StoreName, HookedUpstreams>>>;
  readonly shapes: Readonly<Record<StoreName, Shape>>;
  /** Path of each store's URL, put before every target; without a slash at its end. */
  readonly prefixes: Readonly<Record<StoreName, string>>;
  readonly guardSecret: KeyObject;
  readonly service: RulesState;
  /** Infinity where there is no bound. */
  readonly bodyBytesMax: number;
  /** Once other rules apply: whoever still comes with these is judged anew there. */
  successor: ProxyContext | undefined;
  /** True while the proxy drains: connections are closed after their answer. */
  draining: boolean;
}

export function createContext(
  parts: Pick<
    ProxyContext,
    | 'config'
    | 'gate'
    | 'homes'
    | 'directory'
    | 'links'
    | 'doorbell'
    | 'userCalls'
    | 'reads'
    | 'doubts'
    | 'log'
    | 'nowMs'
    | 'holds'
    | 'eventStreams'
    | 'bodies'
    | 'keyedWrites'
    | 'counters'
    | 'outages'
    | 'pinned'
    | 'upstreams'
    | 'hooked'
  >,
): ProxyContext {
  const { config } = parts;
  const guardedNames = [
    ...credentialHeadersOf(config.identity),
    ...config.partition.flatMap((rule) => ('header' in rule ? [rule.header] : [])),
    ...config.routes.flatMap(({ partition = [], partitions = [] }) =>
      [partition, partitions].flat().flatMap(headerIn),
    ),
    'destination',
    ...config.routes.flatMap(({ headers = {} }) => Object.keys(headers)),
  ].map((name) => name.toLowerCase());
  const identityHeaders = config.identity.flatMap((rule) =>
    'header' in rule ? [[rule.header.toLowerCase(), peerTest(rule.from)] as const] : [],
  );
  const [legacy = '', app = ''] = storeNames.map((store) =>
    new URL(config.stores[store].url).pathname.replace(/\/$/, ''),
  );
  const isTrustedProxy = peerTest(config.proxy.trustedProxies);
  return {
    ...parts,
    identifier: new Identifier(config.identity, parts),
    challenge: challengeOf(config.identity),
    classifier: createClassifier(config, parts.directory, isTrustedProxy),
    headerRules: {
      isTrustedProxy,
      forwarded: config.proxy.forwarded,
      via: config.proxy.via,
      guardedNames: new Set(guardedNames),
      guardedFolds: new Set(guardedNames.map(foldedName)),
      identityHeaders: new Map(identityHeaders),
    },
    shapes: { legacy: new Shape(config.stores.legacy), app: new Shape(config.stores.app) },
    prefixes: { legacy, app },
    guardSecret: guardKey(config.secret),
    service: { now: 'open' },
    bodyBytesMax: config.proxy.limits.bodyBytes || Number.POSITIVE_INFINITY,
    successor: undefined,
    draining: false,
  };
}

/** The name of the header, where a route finds partitions in one. */
function headerIn(place: string): string[] {
  return place.startsWith('header.') ? [place.slice('header.'.length).replace(/\[.*$/, '')] : [];
}

export function serve(context: ProxyContext, request: IncomingMessage, response: ServerResponse): void {
  // While it waited for its turn.
  if (isOver(request, response)) return;
  const { bodyBytesMax } = context;
  if (Number(request.headers['content-length'] ?? 0) > bodyBytesMax) {
    const detail = `The body is longer than proxy.limits.bodyBytes (${bodyBytesMax}). Nothing was forwarded and nothing was changed.`;
    const sent = isReadMethod(request.method ?? '') ? {} : ({ sent: 'no' } as const);
    refuse(context, request, response, { code: 'body-too-large', detail, ...sent });
    return;
  }
  serveMatched(context, request, response, context.classifier.match(request, false));
}

function serveMatched(
  context: ProxyContext,
  request: IncomingMessage,
  response: ServerResponse,
  match: Match,
): void {
  switch (match.match) {
    case 'health':
      answerHealth(context.gate, response);
      return;
    case 'server-options':
      response.writeHead(204, { Allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' }).end();
      return;
    case 'refused':
      // Where the body ends is in doubt, and so where the next request would begin (RFC 9112, 6.1).
      if (match.failure.code === 'bad-framing') response.shouldKeepAlive = false;
      refuse(
        context,
        request,
        response,
        isReadMethod(request.method ?? '') ? match.failure : { ...match.failure, sent: 'no' },
      );
      return;
    case 'needs-body': {
      const source = context.bodies.of(request, response, 'what');
      const read = match.look === 'beginning' ? source.beginning() : source.read(seenBodyBytesMax);
      read
        .then((body) => {
          if (isOver(request, response)) return;
          if (Buffer.isBuffer(body)) serveMatched(context, request, response, match.with(body));
          else if (body.code === 'body-too-large') {
            serveMatched(context, request, response, match.with(undefined));
          } else refuse(context, request, response, { ...body, sent: 'no' });
        })
        .catch((error: unknown) => endOnBug(context, request, error));
      return;
    }
    case 'request':
      identifyThen(context, request, match.request, response, (identification) => {
        if (isOver(request, response)) return;
        if (identification.kind === 'refused') {
          refuse(context, request, response, withSent(identification.failure, match.request));
          return;
        }
        const identity = identification.kind === 'user' ? identification.identity : undefined;
        admitAndForward(context, request, response, match.request, identity);
      });
  }
}

/** Pinned anonymous routes (login) must work with an outdated credential, so nobody looks at it there. */
export function identifyThen(
  context: ProxyContext,
  request: IncomingMessage,
  matched: MatchedRequest,
  response: ServerResponse | undefined,
  then: (identification: Identification) => void,
): void {
  const rule = matched.route?.rule;
  if (rule?.anonymous === true && rule.store !== undefined) {
    then({ kind: 'anonymous' });
    return;
  }
  const body = response && context.bodies.of(request, response);
  const identification = context.identifier.identify(request, body);
  if (!(identification instanceof Promise)) {
    then(identification);
    return;
  }
  identification.then(then).catch((error: unknown) => endOnBug(context, request, error));
}

/** A bug that one request shows must not end the requests of everybody else. */
export function endOnBug(context: ProxyContext, request: IncomingMessage, error: unknown): void {
  context.log('error', 'proxy.bug', { error: String(error) });
  request.socket.destroy();
}

/** Classifies and admits; shared by requests and upgrades. */
export function decide(
  context: ProxyContext,
  request: IncomingMessage,
  matched: MatchedRequest,
  identity: Identity | undefined,
  client: Client,
  decided: (decision: Decision) => void,
): void {
  const place = (): Place => context.classifier.place(request, matched, identity);
  const identified = identity !== undefined;
  const heldSinceMs = waitingSince.get(request);
  const bug = (error: unknown): void => endOnBug(context, request, error);
  const { service } = context;
  const asked = {
    ...{ place, access: matched.access, route: matched.route?.rule.path ?? '' },
    staysPinned: (store: StoreName) =>
      service.next === undefined || staysPinned(service.next, request, matched, store),
  };
  const reading = readingOf(request, matched);
  const who = { identified, user: identity?.user, client };
  admit(context, { ...asked, ...reading, ...who, bug, heldSinceMs }, (decision) => {
    if (decision.decision === 'refuse') {
      decided({ decision: 'refuse', failure: withSent(decision.failure, matched) });
      return;
    }
    // The time that it has waited counts under the next rules, too.
    if (decision.decision === 'again' && decision.heldSinceMs !== undefined) {
      waitingSince.set(request, decision.heldSinceMs);
    }
    decided(decision);
  });
}

const waitingSince = new WeakMap<IncomingMessage, number>();

function admitAndForward(
  context: ProxyContext,
  request: IncomingMessage,
  response: ServerResponse,
  matched: MatchedRequest,
  identity: Identity | undefined,
): void {
  decide(context, request, matched, identity, clientOf(request, response), (decision) => {
    if (decision.decision === 'refuse') {
      refuse(context, request, response, decision.failure);
      return;
    }
    if (decision.decision === 'again') {
      serve(context.successor ?? context, request, response);
      return;
    }
    const { passage } = decision;
    const { store } = passage;
    const settings = context.config.stores[store];
    context.counters.underWay += 1;
    const endPinned = beginPinned(context, request, matched, passage);
    const way = wayTo(context, request, matched, passage, identity);
    forward({
      request,
      response,
      matched,
      passage,
      ...way,
      upstream: context.reads?.wayFor(way.upstream, passage) ?? way.upstream,
      writeTimeoutMs: settings.writeTimeoutMs,
      readTimeoutMs: settings.readTimeoutMs,
      bodyBytesMax: context.bodyBytesMax,
      answerFields: (from) => answerFieldsOf(context, from, request),
      shaped: (part, from, headers) => shapedAnswer(context, request, part, from, headers),
      trailers: (raw) => trailersFor(context, store, raw),
      keyed: context.keyedWrites?.of(request, matched, passage, identity),
      gate: context.gate,
      doorbell: context.doorbell,
      userCalls: context.userCalls,
      eventStreams: context.eventStreams,
      answer: (failure) => refuse(context, request, response, failure),
      bug: (error) => endOnBug(context, request, error),
      ended: ({ status, outcome, cause, stage, byKey, streamEnded }) => {
        context.counters.underWay -= 1;
        endPinned?.(outcome ?? 'ended');
        if (streamEnded === true) context.counters.closedAtFence += 1;
        if (byKey === 'replayed') context.counters.replayed += 1;
        if (byKey !== undefined) return;
        if (cause === undefined) context.outages.answered(store);
        else if (stage !== undefined) context.outages.failed(store, stage, cause);
        if (cause !== undefined && passage.lagMs !== undefined) context.reads?.failed(store);
        context.counters.requests[store][matched.access][
          cause === undefined ? statusClass(status) : 'broken'
        ] += 1;
        const refused = outcome === 'not-sent' || statusClass(status) === '4xx';
        if (!refused) noticeWrite(context, passage);
        noticeRead(context, matched, passage, identity, status);
        if (outcome !== 'in-doubt' || passage.ticket === undefined) return;
        const why = cause?.message ?? `the store answered ${status}, which does not say what became of it`;
        noteDoubt(context, passage, { method: matched.method, target: matched.target, why });
      },
    });
  });
}

export function answerFieldsOf(
  context: ProxyContext,
  from: Pick<Passage, 'store' | 'epoch' | 'lagMs'>,
  request: IncomingMessage,
): string[] {
  const fields: string[] = [];
  const { debugHeaders } = context.config.proxy;
  if (debugHeaders) fields.push('Onewriter-Store', from.store);
  if (from.epoch !== undefined && (debugHeaders || seenEpochOf(request) !== undefined)) {
    fields.push('Onewriter-Epoch', String(from.epoch));
  }
  if (debugHeaders && from.lagMs !== undefined)
    fields.push('Onewriter-Lag-Ms', String(Math.ceil(from.lagMs)));
  if (context.draining) fields.push('Connection', 'close');
  return fields;
}

export function withSent(failure: Failure, matched: MatchedRequest): Failure {
  return matched.access === 'write' ? { ...failure, sent: 'no' } : failure;
}

/** Answers in the store's place, and counts it. */
function refuse(
  context: ProxyContext,
  request: IncomingMessage,
  response: ServerResponse,
  failure: Failure,
): void {
  countRefusal(context, failure);
  answerFailure(request, response, failure, context.challenge);
}

export function countRefusal({ counters }: Pick<ProxyContext, 'counters'>, { code }: Failure): void {
  counters.refused[code] = (counters.refused[code] ?? 0) + 1;
}
