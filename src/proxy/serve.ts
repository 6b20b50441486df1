/**
 * One request from its head to its end: match → identify → classify → admit → forward. Read from the top,
 * this is what the proxy does.
 */
import type { KeyObject } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import { type StoreName, storeNames } from '../core/ownership.ts';
import type { Doorbell, WriteGate } from '../core/ports.ts';
import { guardKey, signGuard } from '../guard/signature.ts';
import type { Log } from '../log.ts';
import { admit, type Client, type Decision, type Passage } from './admit.ts';
import { answerFailure } from './answer.ts';
import { type Classifier, createClassifier, type MatchedRequest } from './classify.ts';
import { clientOf } from './client.ts';
import { type ProxyCounters, statusClass } from './counters.ts';
import { forward } from './forward.ts';
import { type RequestHeaderRules, requestHeaders } from './headers.ts';
import type { Holds } from './hold.ts';
import {
  challengeOf,
  createIdentifier,
  type Identification,
  type Identifier,
  type Identity,
} from './identify.ts';
import { peerTest } from './peers.ts';
import type { Upstream } from './upstream.ts';

/** What all requests share. Made once, then only read (but for the counters). */
export interface ProxyContext {
  readonly config: Config;
  readonly gate: WriteGate;
  readonly doorbell: Doorbell;
  readonly log: Log;
  readonly nowMs: () => number;
  readonly identify: Identifier;
  readonly challenge: string;
  readonly classifier: Classifier;
  readonly holds: Holds;
  readonly counters: ProxyCounters;
  readonly headerRules: RequestHeaderRules;
  readonly upstreams: Readonly<Record<StoreName, Upstream>>;
  /** Path of each store's URL, put before every target; without a slash at its end. */
  readonly prefixes: Readonly<Record<StoreName, string>>;
  readonly guardSecret: KeyObject;
  /** True while the proxy drains: connections are closed after their answer. */
  draining: boolean;
}

export function createContext(
  parts: Pick<
    ProxyContext,
    'config' | 'gate' | 'doorbell' | 'log' | 'nowMs' | 'holds' | 'counters' | 'upstreams'
  >,
): ProxyContext {
  const { config } = parts;
  const guardedNames = [
    ...[...config.identity, ...config.partition].flatMap((rule) => ('header' in rule ? [rule.header] : [])),
    ...config.routes.flatMap(({ partition = '' }) =>
      partition.startsWith('header.') ? [partition.slice('header.'.length)] : [],
    ),
  ].map((name) => name.toLowerCase());
  const identityHeaders = config.identity.flatMap((rule) =>
    'header' in rule ? [[rule.header.toLowerCase(), peerTest(rule.from)] as const] : [],
  );
  const [legacy = '', app = ''] = storeNames.map((store) =>
    new URL(config.stores[store].url).pathname.replace(/\/$/, ''),
  );
  return {
    ...parts,
    identify: createIdentifier(config.identity, parts.nowMs),
    challenge: challengeOf(config.identity),
    classifier: createClassifier(config),
    headerRules: {
      isTrustedProxy: peerTest(config.proxy.trustedProxies),
      guardedNames: new Set(guardedNames),
      identityHeaders: new Map(identityHeaders),
    },
    prefixes: { legacy, app },
    guardSecret: guardKey(config.secret),
    draining: false,
  };
}

export function serve(context: ProxyContext, request: IncomingMessage, response: ServerResponse): void {
  const match = context.classifier.match(request, false);
  switch (match.match) {
    case 'health':
      answerHealth(context, response);
      return;
    case 'server-options':
      response.writeHead(204, { Allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' }).end();
      return;
    case 'refused':
      refuse(context, request, response, match.failure);
      return;
    case 'request':
      identifyThen(context, request, match.request, (identification) => {
        if (request.socket.destroyed) return;
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
  then: (identification: Identification) => void,
): void {
  const rule = matched.route?.rule;
  if (rule?.anonymous === true && rule.store !== undefined) {
    then({ kind: 'anonymous' });
    return;
  }
  const identification = context.identify(request);
  if (!(identification instanceof Promise)) {
    then(identification);
    return;
  }
  identification.then(then).catch((error: unknown) => {
    context.log('error', 'proxy.bug', { error: String(error) });
    request.socket.destroy();
  });
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
  const place = context.classifier.place(request, matched, identity);
  if (place.place === 'refused') {
    decided({ decision: 'refuse', failure: withSent(place.failure, matched) });
    return;
  }
  // Not for anonymous requests: anybody could fill the registry with names.
  if (place.place === 'partition' && identity !== undefined) context.gate.notice(place.partition);
  admit(context, { place, access: matched.access, client }, decided);
}

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
    const { passage } = decision;
    const { store } = passage;
    const settings = context.config.stores[store];
    const target = context.prefixes[store] + matched.target;
    context.counters.underWay += 1;
    forward({
      request,
      response,
      matched,
      passage,
      target,
      headers: headersFor(context, request, matched, passage, identity, target),
      upstream: context.upstreams[store],
      writeTimeoutMs: settings.writeTimeoutMs,
      readTimeoutMs: settings.readTimeoutMs,
      answerFields: answerFieldsOf(context, passage),
      gate: context.gate,
      doorbell: context.doorbell,
      answer: (failure) => refuse(context, request, response, failure),
      ended: ({ status, outcome, cause }) => {
        context.counters.underWay -= 1;
        context.counters.requests[store][matched.access][
          cause === undefined ? statusClass(status) : 'broken'
        ] += 1;
        if (outcome !== 'in-doubt') return;
        context.counters.inDoubt += 1;
        const { partition } = passage;
        context.log('warn', 'write.in-doubt', { store, partition, status, error: cause?.message });
      },
    });
  });
}

/** Headers to send upstream; to a guarded store signed with what the guard must know. */
export function headersFor(
  context: ProxyContext,
  request: IncomingMessage,
  matched: MatchedRequest,
  passage: Passage,
  identity: Identity | undefined,
  target: string,
): string[] {
  const headers = requestHeaders(request, context.headerRules);
  const { store, partition, epoch } = passage;
  if (!context.config.stores[store].guard || partition === undefined || epoch === undefined) return headers;
  const signed = signGuard({
    secret: context.guardSecret,
    timestampSeconds: Math.floor(context.nowMs() / 1000),
    method: matched.method,
    target,
    user: identity?.user ?? '',
    partition,
    epoch,
    access: matched.access,
  });
  for (const [name, value] of Object.entries(signed)) headers.push(name, value);
  return headers;
}

function answerFieldsOf(context: ProxyContext, passage: Passage): string[] {
  const fields: string[] = [];
  if (context.config.proxy.debugHeaders) {
    fields.push('Onewriter-Store', passage.store);
    if (passage.epoch !== undefined) fields.push('Onewriter-Epoch', String(passage.epoch));
  }
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

export function countRefusal(context: ProxyContext, failure: Failure): void {
  context.counters.refused[failure.code] = (context.counters.refused[failure.code] ?? 0) + 1;
}

function answerHealth(context: ProxyContext, response: ServerResponse): void {
  const leaseLeftMs = context.gate.leaseLeftMs();
  const healthy = leaseLeftMs > 0;
  const state = healthy
    ? { status: 'ok', leaseLeftMs }
    : {
        status: 'lease-lapsed',
        detail: 'This proxy has lost touch with the ledger: it refuses writes and still serves reads.',
      };
  const body = Buffer.from(JSON.stringify(state));
  response.writeHead(healthy ? 200 : 503, {
    'Content-Type': 'application/json',
    'Content-Length': body.byteLength,
    'Cache-Control': 'no-store',
  });
  response.end(body);
}
