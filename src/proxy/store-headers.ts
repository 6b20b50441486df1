/** The header fields of one request as its store gets them. */
import type { IncomingMessage } from 'node:http';
import { signGuard } from '../guard/signature.ts';
import type { Passage } from './admit.ts';
import type { MatchedRequest } from './classify.ts';
import { requestHeaders } from './headers.ts';
import type { Identity } from './identify.ts';
import type { ProxyContext } from './serve.ts';

/** Headers to send upstream; to a guarded store signed with what the guard must know. */
export function headersFor(
  context: ProxyContext,
  request: IncomingMessage,
  matched: MatchedRequest,
  passage: Passage,
  identity: Identity | undefined,
  target: string,
): string[] {
  const { store, partition, epoch, also } = passage;
  const received = requestHeaders(request, context.headerRules);
  if (matched.destination !== undefined) {
    setDestination(received, context.shapes[store].reference(matched.destination, request));
  }
  const headers = context.shapes[store].request(received, request);
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
  for (const [name, value] of Object.entries(signed)) headers.push(name, value);
  return headers;
}

/** `headers`: a flat list that is changed; it has at most one. */
function setDestination(headers: string[], value: string): void {
  for (let at = 0; at < headers.length; at += 2) {
    if (headers[at]?.toLowerCase() === 'destination') headers[at + 1] = value;
  }
}
