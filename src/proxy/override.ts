/**
 * Does the request ask to be taken for one of another method? Then it is a write, whatever its own method, unless
 * its route names that override with its value and says what the request does.
 */
import type { IncomingMessage } from 'node:http';
import type { RouteRule } from '../core/route.ts';
import { foldedName } from './field.ts';
import { mayName, overridesMethodIn, type SeenBody } from './seen-body.ts';
import { overridesMethodInQuery } from './target.ts';

const overrideHeaders = new Set(['x-http-method-override', 'x-method-override', 'x-http-method']);

interface Origin {
  readonly request: IncomingMessage;
  readonly method: string;
  readonly query: string;
  /** Undefined: not read, because it could not make a difference. */
  readonly body: SeenBody | undefined;
  readonly rule: RouteRule | undefined;
}

/** True where there is an override that the route does not answer for, or the like of one: contradictsQuery. */
export function overridesMethod({ request, query, body, rule }: Origin): boolean {
  const known = rule?.access === undefined ? undefined : rule;
  return (
    inHeader(request, known?.headers) ||
    (overridesMethodInQuery(query) && !isNamed(known?.query, '_method', query)) ||
    inBody(body, known) ||
    contradictsQuery(body, known)
  );
}

/**
 * The query says by `rule` that the request reads, and the body could say something else at the same name: in PHP,
 * Rails and others it counts.
 */
function contradictsQuery(body: SeenBody | undefined, rule: RouteRule | undefined): boolean {
  if (body === undefined || rule?.access !== 'read') return false;
  return Object.keys(rule.query ?? {}).some((name) => {
    // What the rule asks of the body, too, is what it says there.
    const named = body.kind === 'json' && (rule.body?.[name] ?? '*') !== '*';
    return !named && mayName(body, name);
  });
}

/** Also in the spelling that gateways which map fields to variables take for the same (CGI, WSGI, PHP). */
function inHeader({ headers }: IncomingMessage, named: RouteRule['headers'] = {}): boolean {
  return Object.keys(headers).some((name) => {
    // All of them begin like this, most others do not.
    if (!name.startsWith('x') || !overrideHeaders.has(foldedName(name))) return false;
    const [, wanted = '*'] = Object.entries(named).findLast(([other]) => other.toLowerCase() === name) ?? [];
    return wanted === '*';
  });
}

/** The rule has matched, so that one `_method` has the named value for every reader; more are not answered for. */
function isNamed(named: Readonly<Record<string, unknown>> | undefined, name: string, pairs: string): boolean {
  if (named === undefined || (named[name] ?? '*') === '*') return false;
  return pairs.split(/[&;]/).filter((pair) => overridesMethodInQuery(pair)).length === 1;
}

function inBody(body: SeenBody | undefined, rule: RouteRule | undefined): boolean {
  if (body === undefined) return false;
  switch (overridesMethodIn(body)) {
    case 'no':
      return false;
    case 'yes':
      return body.kind !== 'json' || (rule?.body?.['_method'] ?? '*') === '*';
    case 'unknown':
      return rule?.access === 'read';
  }
}
