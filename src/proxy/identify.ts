/**
 * Step 1: who does the request act for? The first rule whose credential is present decides; a credential
 * that is present but wrong is refused and never treated as absent.
 */
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type { Log } from '../log.ts';
import {
  type BodySource,
  type Claims,
  type Credential,
  type Found,
  noClaims,
  type Place,
  type Verdict,
  type Verifier,
} from './credential.ts';
import { asText, isGoodName, valuesOf } from './field.ts';
import { basicIn, bearerIn } from './identify-authorization.ts';
import { fieldOfBody } from './identify-body.ts';
import { cookieIn } from './identify-cookie.ts';
import { Introspection } from './introspect.ts';
import { peerTest } from './peers.ts';
import { TokenVerifier } from './token.ts';

type Rules = Config['identity'];
type Rule = Rules[number];

export interface Identity {
  readonly user: string;
  /** What proved it. */
  readonly credential: 'header' | 'jwt' | 'cookie' | 'basic' | 'bearer' | 'body';
  readonly claims: Claims;
}

export type Identification =
  | { readonly kind: 'user'; readonly identity: Identity }
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'refused'; readonly failure: Failure };

export interface IdentifierParts {
  /** Wall clock, for tokens. */
  readonly nowMs: () => number;
  /** For what is remembered; never jumps. Left out: this process's. */
  readonly monotonicMs?: () => number;
  readonly log?: Log;
  /** Credentials that are remembered for each rule that asks a service. */
  readonly rememberedMax?: number;
}

const anonymous: Identification = { kind: 'anonymous' };

export class Identifier {
  readonly #checks: readonly RuleCheck[];

  /** Throws where a rule says nothing that could be verified: the configuration's checks find that first. */
  constructor(rules: Rules, parts: IdentifierParts) {
    const complete = {
      monotonicMs: () => performance.now(),
      log: () => {},
      rememberedMax: 10_000,
      ...parts,
    };
    this.#checks = rules.map((rule) => new RuleCheck(rule, complete));
  }

  /** `body`: left out where the request has none that could be read (an upgrade). */
  identify(request: IncomingMessage, body?: BodySource): Identification | Promise<Identification> {
    return this.#firstOf(0, request, body);
  }

  close(): void {
    for (const check of this.#checks) check.close();
  }

  #firstOf(
    first: number,
    request: IncomingMessage,
    body: BodySource | undefined,
  ): Identification | Promise<Identification> {
    for (let at = first; at < this.#checks.length; at += 1) {
      const found = this.#checks[at]?.check(request, body);
      if (found === undefined) continue;
      if (!(found instanceof Promise)) return found;
      return found.then((later) => later ?? this.#firstOf(at + 1, request, body));
    }
    return anonymous;
  }
}

/** For 401 answers (RFC 9110, 11.6.1). Other identities have no scheme of their own; RFC 9110 wants a name. */
export function challengeOf(rules: Rules): string {
  const schemes = [
    ...(rules.some((rule) => 'basic' in rule) ? ['Basic realm="onewriter", charset="UTF-8"'] : []),
    // Last: an answer adds to it what was wrong with the token.
    ...(rules.some(isBearer) ? ['Bearer realm="onewriter"'] : []),
  ];
  return schemes.length === 0 ? 'Trusted-Header realm="onewriter"' : schemes.join(', ');
}

/**
 * Header fields that say who the user is, or how the body that says so is read, in lower case: no other spelling
 * of them may reach a store, and a client cannot have them taken off on the way.
 */
export function credentialHeadersOf(rules: Rules): string[] {
  return rules.flatMap((rule) => {
    if ('header' in rule) return [rule.header.toLowerCase()];
    if ('cookie' in rule) return ['cookie'];
    return 'body' in rule ? ['content-type', 'content-encoding'] : ['authorization'];
  });
}

function isBearer(rule: Rule): boolean {
  return 'bearer' in rule || kindOf(rule) === 'jwt';
}

function kindOf(rule: Rule): Identity['credential'] {
  if ('header' in rule) return 'header';
  if ('cookie' in rule) return 'cookie';
  if ('basic' in rule) return 'basic';
  if ('bearer' in rule) return 'bearer';
  return 'body' in rule ? 'body' : 'jwt';
}

/** One rule: where its credential stands, and who verifies it. */
class RuleCheck {
  readonly #place: Place;
  readonly #verifier: Verifier;
  readonly #kind: Identity['credential'];
  /** Beginning of sentences about it. */
  readonly #what: string;
  /** Where the credential only counts from some peers. */
  readonly #isTrustedPeer: ((address: string | undefined) => boolean) | undefined;

  constructor(rule: Rule, parts: Required<IdentifierParts>) {
    this.#kind = kindOf(rule);
    this.#what = wordsFor(rule);
    this.#place = placeOf(rule);
    this.#isTrustedPeer = 'from' in rule && rule.from !== undefined ? peerTest(rule.from) : undefined;
    this.#verifier = verifierOf(rule, parts);
  }

  check(
    request: IncomingMessage,
    body: BodySource | undefined,
  ): Identification | Promise<Identification | undefined> | undefined {
    const found = this.#place(request, body);
    if (!(found instanceof Promise)) return this.#judge(request, found);
    return found.then((later) =>
      later !== undefined && 'failure' in later
        ? { kind: 'refused', failure: later.failure }
        : this.#judge(request, later),
    );
  }

  close(): void {
    this.#verifier.close();
  }

  #judge(request: IncomingMessage, found: Found): Identification | Promise<Identification> | undefined {
    if (found === undefined) return undefined;
    if (this.#isTrustedPeer?.(request.socket.remoteAddress) === false) {
      return refuse('untrusted-peer', `${this.#what} is only taken from peers that may set it.`);
    }
    if ('wrong' in found) return refuse('bad-credential', `${this.#what} was not accepted: ${found.wrong}.`);
    const verdict = this.#verifier.verify(found);
    return verdict instanceof Promise ? verdict.then(this.#identification) : this.#identification(verdict);
  }

  readonly #identification = (verdict: Verdict): Identification => {
    switch (verdict.verdict) {
      case 'good': {
        const { user, claims } = verdict;
        return { kind: 'user', identity: { user, credential: this.#kind, claims } };
      }
      case 'wrong':
        return refuse('bad-credential', `${this.#what} was not accepted: ${verdict.because}.`);
      case 'unavailable':
        return refuse('identity-unavailable', `${this.#what} could not be checked: ${verdict.because}.`);
    }
  };
}

function wordsFor(rule: Rule): string {
  if ('header' in rule) return `The header ${rule.header}`;
  if ('cookie' in rule) return `The cookie ${rule.cookie}`;
  if ('basic' in rule) return 'The user name with its password';
  if ('body' in rule) return `The field ${rule.body} of the body`;
  return 'The token';
}

function placeOf(rule: Rule): Place {
  if ('header' in rule) {
    const name = rule.header.toLowerCase();
    return (request) => headerIn(request, name);
  }
  if ('cookie' in rule) return (request) => cookieIn(request, rule.cookie);
  if ('basic' in rule) return basicIn;
  if ('body' in rule) {
    const path = rule.body.split('.');
    return async (request, body) => fieldOfBody(request, body, path, rule.bodyBytesMax);
  }
  return bearerIn;
}

function headerIn(request: IncomingMessage, name: string): Found {
  const values = valuesOf(request.rawHeaders, name);
  const [value] = values;
  if (value === undefined) return undefined;
  if (values.length > 1) return { wrong: 'it is there more than once' };
  const text = asText(value);
  if (text === undefined || !isGoodName(text)) return { wrong: 'it does not hold a usable user name' };
  return { text, asSent: value };
}

function verifierOf(rule: Rule, parts: Required<IdentifierParts>): Verifier {
  if ('jwt' in rule && rule.jwt !== undefined) return new TokenVerifier(rule.jwt, parts);
  if ('introspect' in rule && rule.introspect !== undefined) {
    return new Introspection(rule, rule.introspect, parts);
  }
  if ('from' in rule && rule.from !== undefined) return verifiedByPeer;
  throw new Error(`identity by ${kindOf(rule)} needs somebody who verifies it`);
}

/** Only reached for peers that were named for it. */
const verifiedByPeer: Verifier = {
  verify: ({ text }: Credential) =>
    isGoodName(text)
      ? { verdict: 'good', user: text, claims: noClaims }
      : { verdict: 'wrong', because: 'it does not hold a usable user name' },
  close: () => {},
};

function refuse(
  code: 'bad-credential' | 'untrusted-peer' | 'identity-unavailable',
  why: string,
): Identification {
  const retry = code === 'identity-unavailable';
  const then = retry
    ? 'Nothing was forwarded; try again shortly.'
    : 'Nothing was forwarded; send a valid credential.';
  const failure = { code, detail: `${why} ${then}` };
  return { kind: 'refused', failure: retry ? { ...failure, retryAfterSeconds: 1 } : failure };
}
