/**
 * In which form a request leaves for its store and through what, and in which form the store's header fields reach
 * the client. Everything before speaks the clients' form.
 */
import type { IncomingMessage } from 'node:http';
import type { StoreName } from '../core/ownership.ts';
import { guardHeaderNames, signGuard } from '../guard/signature.ts';
import type { Passage } from './admit.ts';
import type { MatchedRequest } from './classify.ts';
import type { ForwardOrder } from './forward.ts';
import { requestHeaders, requestTrailers } from './headers.ts';
import type { Identity } from './identify.ts';
import type { ClientView } from './rewrite.ts';
import type { ProxyContext } from './serve.ts';
import { type AsReceived, clientViewOf } from './shape.ts';

/** What is sent, and through what: where the store has a hook, that gives the request its form first. */
export function wayTo(
  context: ProxyContext,
  request: IncomingMessage,
  matched: MatchedRequest,
  passage: Passage,
  identity: Identity | undefined,
): Pick<ForwardOrder, 'target' | 'headers' | 'upstream'> {
  const { store, partition } = passage;
  const hooked = context.hooked[store];
  if (hooked === undefined) {
    const target = context.prefixes[store] + matched.target;
    const headers = headersFor(context, request, matched, passage, identity, target);
    return { target, headers, upstream: context.upstreams[store] };
  }
  const asked = {
    access: matched.access,
    ...(identity === undefined ? {} : { user: identity.user }),
    ...(partition === undefined ? {} : { partition }),
  };
  const upstream = hooked.of({
    asked,
    route: matched.route?.rule.path,
    sign: (method, path, headers) => {
      const target = context.prefixes[store] + path;
      const addressed = ['Host', context.shapes[store].hostFor(request), ...headers];
      return {
        target,
        headers: signed(context, request, { ...matched, method }, passage, identity, target, addressed),
      };
    },
  });
  return { target: matched.target, headers: requestHeaders(request, context.headerRules), upstream };
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
  const host = context.shapes[passage.store].hostFor(request);
  const received = requestHeaders(request, context.headerRules, host);
  return signed(context, request, matched, passage, identity, target, received);
}

const signedNames = Object.values(guardHeaderNames);

function signed(
  context: ProxyContext,
  request: IncomingMessage,
  matched: Pick<MatchedRequest, 'method' | 'access' | 'destination'>,
  passage: Passage,
  identity: Identity | undefined,
  target: string,
  received: string[],
): string[] {
  const { store, partition, epoch, also } = passage;
  if (matched.destination !== undefined) {
    setDestination(received, context.shapes[store].reference(matched.destination, request));
  }
  const headers = context.shapes[store].request(received);
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
    ...(also === undefined ? {} : { also }),
  });
  for (const name of signedNames) {
    const value = signed[name];
    if (value !== undefined) headers.push(name, value);
  }
  return headers;
}

/** `headers`: a flat list that is changed; it has at most one. */
function setDestination(headers: string[], value: string): void {
  for (let at = 0; at < headers.length; at += 2) {
    if (headers[at]?.toLowerCase() === 'destination') headers[at + 1] = value;
  }
}

/** What the store gets of the fields behind a request's body. */
export function trailersFor(
  { shapes, headerRules }: ProxyContext,
  store: StoreName,
  raw: readonly string[],
): string[] {
  return raw.length === 0 ? [] : shapes[store].requestTrailers(requestTrailers(raw, headerRules));
}

/** The store's header fields as this client gets them. */
export function shapedAnswer(
  { shapes, headerRules }: ProxyContext,
  request: AsReceived,
  part: 'head' | 'beside',
  store: StoreName,
  headers: string[],
): string[] {
  if (part === 'beside') return shapes[store].beside(headers);
  const view = (): ClientView =>
    clientViewOf(request, headerRules.isTrustedProxy(request.socket.remoteAddress));
  return shapes[store].answer(headers, request, view);
}
