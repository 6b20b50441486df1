/**
 * Step 1: who does the request act for? The first rule whose credential is present decides; a credential
 * that is present but wrong is refused and never treated as absent.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import { asText, isGoodName, valuesOf } from './field.ts';
import { peerTest } from './peers.ts';
import { createTokenVerifier, type TokenVerdict } from './token.ts';

export interface Identity {
  readonly user: string;
  readonly claims: Readonly<Record<string, unknown>>;
}

export type Identification =
  | { readonly kind: 'user'; readonly identity: Identity }
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'refused'; readonly failure: Failure };

export type Identifier = (request: IncomingMessage) => Identification | Promise<Identification>;

/** Undefined: this rule's credential is not in the request. */
type RuleCheck = (request: IncomingMessage) => Identification | Promise<Identification> | undefined;

const anonymous: Identification = { kind: 'anonymous' };
const noClaims = {};

/** `nowMs` is the wall clock. Throws where a rule's kind is not available yet. */
export function createIdentifier(rules: Config['identity'], nowMs: () => number): Identifier {
  const checks = rules.map((rule) => checkOf(rule, nowMs));
  return (request) => {
    for (const check of checks) {
      const found = check(request);
      if (found !== undefined) return found;
    }
    return anonymous;
  };
}

/** For 401 answers (RFC 9110, 11.6.1). Header identities have no scheme of their own; RFC 9110 wants a name. */
export function challengeOf(rules: Config['identity']): string {
  const bearer = rules.some((rule) => 'jwt' in rule);
  return bearer ? 'Bearer realm="onewriter"' : 'Trusted-Header realm="onewriter"';
}

function checkOf(rule: Config['identity'][number], nowMs: () => number): RuleCheck {
  if ('header' in rule) return headerCheck(rule.header, rule.from);
  if ('jwt' in rule) return tokenCheck(rule.jwt, nowMs);
  throw new Error(`identity by ${Object.keys(rule)[0] ?? 'this rule'} is not available yet`);
}

function headerCheck(header: string, from: readonly string[]): RuleCheck {
  const name = header.toLowerCase();
  const mayIdentify = peerTest(from);
  return (request) => {
    const values = valuesOf(request.rawHeaders, name);
    const [value] = values;
    if (value === undefined) return undefined;
    if (!mayIdentify(request.socket.remoteAddress)) {
      return refuse('untrusted-peer', `The header ${header} is only taken from peers that may set it.`);
    }
    if (values.length > 1) return refuse('bad-credential', `The header ${header} is there more than once.`);
    const user = asText(value);
    if (user === undefined || !isGoodName(user)) {
      return refuse('bad-credential', `The header ${header} does not hold a usable user name.`);
    }
    return { kind: 'user', identity: { user, claims: noClaims } };
  };
}

function tokenCheck(
  rule: Extract<Config['identity'][number], { jwt: unknown }>['jwt'],
  nowMs: () => number,
): RuleCheck {
  const verifier = createTokenVerifier(rule, nowMs);
  const identification = (verdict: TokenVerdict): Identification => {
    if (verdict.verdict === 'wrong') {
      return refuse('bad-credential', `The token was not accepted: ${verdict.because}.`);
    }
    if (verdict.verdict === 'unavailable') {
      return refuse('identity-unavailable', `The token could not be checked: ${verdict.because}.`);
    }
    const user = verdict.claims[rule.claim];
    if (typeof user !== 'string' || !isGoodName(user)) {
      return refuse('bad-credential', `The token's claim "${rule.claim}" does not hold a usable user name.`);
    }
    return { kind: 'user', identity: { user, claims: verdict.claims } };
  };
  return (request) => {
    const values = valuesOf(request.rawHeaders, 'authorization');
    const [value] = values;
    if (value === undefined) return undefined;
    if (values.length > 1)
      return refuse('bad-credential', 'The Authorization header is there more than once.');
    const scheme = /^bearer(?:\s+|$)/i.exec(value);
    if (scheme === null) return undefined;
    const verdict = verifier.verify(value.slice(scheme[0].length));
    return verdict instanceof Promise ? verdict.then(identification) : identification(verdict);
  };
}

function refuse(
  code: 'bad-credential' | 'untrusted-peer' | 'identity-unavailable',
  why: string,
): Identification {
  const then =
    code === 'identity-unavailable'
      ? 'Nothing was forwarded; try again shortly.'
      : 'Nothing was forwarded; send a valid credential.';
  return { kind: 'refused', failure: { code, detail: `${why} ${then}` } };
}
