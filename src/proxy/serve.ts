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

export type Log = (level: 'info' | 'warn' | 'error', event: string, fields?: Record<string, unknown>) => void;

/** What all requests share. Made once, then only read (but for the counters). */
export interface Desk {
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

export function createDesk(
  parts: Pick<Desk, 'config' | 'gate' | 'doorbell' | 'log' | 'nowMs' | 'holds' | 'counters' | 'upstreams'>,
): Desk {
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

export function serve(desk: Desk, request: IncomingMessage, response: ServerResponse): void {
  const match = desk.classifier.match(request, false);
  switch (match.match) {
    case 'health':
      answerHealth(desk, response);
      return;
    case 'server-options':
      response.writeHead(204, { Allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' }).end();
      return;
    case 'refused':
      refuse(desk, request, response, match.failure);
      return;
    case 'request':
      identifyThen(desk, request, match.request, (identification) => {
        if (request.socket.destroyed) return;
        if (identification.kind === 'refused') {
          refuse(desk, request, response, withSent(identification.failure, match.request));
          return;
        }
        const identity = identification.kind === 'user' ? identification.identity : undefined;
        admitAndForward(desk, request, response, match.request, identity);
      });
  }
}

/** Pinned anonymous routes (login) must work with an outdated credential, so nobody looks at it there. */
export function identifyThen(
  desk: Desk,
  request: IncomingMessage,
  matched: MatchedRequest,
  then: (identification: Identification) => void,
): void {
  const rule = matched.route?.rule;
  if (rule?.anonymous === true && rule.store !== undefined) {
    then({ kind: 'anonymous' });
    return;
  }
  const identification = desk.identify(request);
  if (!(identification instanceof Promise)) {
    then(identification);
    return;
  }
  identification.then(then).catch((error: unknown) => {
    desk.log('error', 'proxy.bug', { error: String(error) });
    request.socket.destroy();
  });
}

/** Classifies and admits; shared by requests and upgrades. */
export function decide(
  desk: Desk,
  request: IncomingMessage,
  matched: MatchedRequest,
  identity: Identity | undefined,
  client: Client,
  decided: (decision: Decision) => void,
): void {
  const place = desk.classifier.place(request, matched, identity);
  if (place.place === 'refused') {
    decided({ decision: 'refuse', failure: withSent(place.failure, matched) });
    return;
  }
  // Not for anonymous requests: anybody could fill the registry with names.
  if (place.place === 'partition' && identity !== undefined) desk.gate.notice(place.partition);
  admit(desk, { place, access: matched.access, client }, decided);
}

function admitAndForward(
  desk: Desk,
  request: IncomingMessage,
  response: ServerResponse,
  matched: MatchedRequest,
  identity: Identity | undefined,
): void {
  decide(desk, request, matched, identity, clientOf(request, response), (decision) => {
    if (decision.decision === 'refuse') {
      refuse(desk, request, response, decision.failure);
      return;
    }
    const { passage } = decision;
    const { store } = passage;
    const settings = desk.config.stores[store];
    const target = desk.prefixes[store] + matched.target;
    desk.counters.underWay += 1;
    forward({
      request,
      response,
      matched,
      passage,
      target,
      headers: headersFor(desk, request, matched, passage, identity, target),
      upstream: desk.upstreams[store],
      writeTimeoutMs: settings.writeTimeoutMs,
      readTimeoutMs: settings.readTimeoutMs,
      answerFields: answerFieldsOf(desk, passage),
      gate: desk.gate,
      doorbell: desk.doorbell,
      answer: (failure) => refuse(desk, request, response, failure),
      ended: ({ status, outcome, cause }) => {
        desk.counters.underWay -= 1;
        desk.counters.requests[store][matched.access][cause === undefined ? statusClass(status) : 'broken'] +=
          1;
        if (outcome !== 'in-doubt') return;
        desk.counters.inDoubt += 1;
        const { partition } = passage;
        desk.log('warn', 'write.in-doubt', { store, partition, status, error: cause?.message });
      },
    });
  });
}

/** Headers to send upstream; to a guarded store signed with what the guard must know. */
export function headersFor(
  desk: Desk,
  request: IncomingMessage,
  matched: MatchedRequest,
  passage: Passage,
  identity: Identity | undefined,
  target: string,
): string[] {
  const headers = requestHeaders(request, desk.headerRules);
  const { store, partition, epoch } = passage;
  if (!desk.config.stores[store].guard || partition === undefined || epoch === undefined) return headers;
  const signed = signGuard({
    secret: desk.guardSecret,
    timestampSeconds: Math.floor(desk.nowMs() / 1000),
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

function answerFieldsOf(desk: Desk, passage: Passage): string[] {
  const fields: string[] = [];
  if (desk.config.proxy.debugHeaders) {
    fields.push('Onewriter-Store', passage.store);
    if (passage.epoch !== undefined) fields.push('Onewriter-Epoch', String(passage.epoch));
  }
  if (desk.draining) fields.push('Connection', 'close');
  return fields;
}

export function withSent(failure: Failure, matched: MatchedRequest): Failure {
  return matched.access === 'write' ? { ...failure, sent: 'no' } : failure;
}

/** Answers in the store's place, and counts it. */
function refuse(desk: Desk, request: IncomingMessage, response: ServerResponse, failure: Failure): void {
  countRefusal(desk, failure);
  answerFailure(request, response, failure, desk.challenge);
}

export function countRefusal(desk: Desk, failure: Failure): void {
  desk.counters.refused[failure.code] = (desk.counters.refused[failure.code] ?? 0) + 1;
}

function answerHealth(desk: Desk, response: ServerResponse): void {
  const leaseLeftMs = desk.gate.leaseLeftMs();
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
