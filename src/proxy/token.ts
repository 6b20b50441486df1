/**
 * Verification of JSON Web Tokens (RFC 7519, 7515) by jose, with a bounded cache: a verification takes as
 * long as a whole forwarded request. What the cache says is checked against the clock on every hit.
 */
import { createSecretKey } from 'node:crypto';
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload, type JWTVerifyOptions } from 'jose';
import type { Config } from '../config/schema.ts';

type JwtRule = Extract<Config['identity'][number], { jwt: unknown }>['jwt'];

export type TokenVerdict =
  | { readonly verdict: 'good'; readonly claims: JWTPayload }
  | { readonly verdict: 'wrong'; readonly because: string }
  /** The keys could not be had, so nobody knows. */
  | { readonly verdict: 'unavailable'; readonly because: string };

export interface TokenVerifier {
  /** Synchronous for a token that is in the cache. */
  verify(token: string): TokenVerdict | Promise<TokenVerdict>;
}

/** Bounds of the cache: entries, characters of all tokens together, and age. */
const cachedTokensMax = 10_000;
const cachedCharactersMax = 8_000_000;
const cachedForMs = 300_000;

const publicKeyAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];

/** `nowMs` is the wall clock: tokens carry wall-clock times. */
export function createTokenVerifier(rule: JwtRule, nowMs: () => number): TokenVerifier {
  const check = verification(rule);
  const cache = new TokenCache(rule.clockSkewMs);
  const verifyAnew = async (token: string): Promise<TokenVerdict> => {
    try {
      const claims = await check(token, new Date(nowMs()));
      cache.add(token, claims, nowMs());
      return { verdict: 'good', claims };
    } catch (error) {
      return verdictOf(error);
    }
  };
  return {
    verify(token) {
      const claims = cache.find(token, nowMs());
      return claims === undefined ? verifyAnew(token) : { verdict: 'good', claims };
    },
  };
}

function verification(rule: JwtRule): (token: string, now: Date) => Promise<JWTPayload> {
  const options: JWTVerifyOptions = {
    clockTolerance: rule.clockSkewMs / 1000,
    ...(rule.issuer === undefined ? {} : { issuer: rule.issuer }),
    ...(rule.audience === undefined ? {} : { audience: rule.audience }),
  };
  if (rule.secret !== undefined) {
    const key = createSecretKey(Buffer.from(rule.secret, 'utf8'));
    return async (token, currentDate) =>
      (await jwtVerify(token, key, { ...options, algorithms: ['HS256'], currentDate })).payload;
  }
  const keys = createRemoteJWKSet(new URL(rule.jwksUrl ?? ''), { timeoutDuration: 5_000 });
  return async (token, currentDate) =>
    (await jwtVerify(token, keys, { ...options, algorithms: publicKeyAlgorithms, currentDate })).payload;
}

function verdictOf(error: unknown): TokenVerdict {
  if (error instanceof errors.JWTExpired) return { verdict: 'wrong', because: 'it has expired' };
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) {
    return { verdict: 'unavailable', because: 'the signing keys could not be fetched' };
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    return { verdict: 'wrong', because: `its claim "${error.claim}" is not acceptable` };
  }
  // jose's plain JOSEError stands for an answer of the key server that is no key set.
  if (error instanceof errors.JOSEError && error.code !== 'ERR_JOSE_GENERIC') {
    return { verdict: 'wrong', because: 'its form or signature is not acceptable' };
  }
  return { verdict: 'unavailable', because: 'the signing keys could not be fetched' };
}

interface CachedToken {
  readonly claims: JWTPayload;
  readonly fromMs: number;
  readonly untilMs: number;
}

class TokenCache {
  readonly #clockSkewMs: number;
  readonly #tokens = new Map<string, CachedToken>();
  #characters = 0;

  constructor(clockSkewMs: number) {
    this.#clockSkewMs = clockSkewMs;
  }

  find(token: string, nowMs: number): JWTPayload | undefined {
    const cached = this.#tokens.get(token);
    if (cached === undefined) return undefined;
    if (nowMs < cached.fromMs || nowMs >= cached.untilMs) {
      this.#drop(token);
      return undefined;
    }
    return cached.claims;
  }

  add(token: string, claims: JWTPayload, nowMs: number): void {
    const { exp, nbf } = claims;
    const expiresMs =
      exp === undefined ? Number.POSITIVE_INFINITY : Math.floor(exp) * 1000 + this.#clockSkewMs;
    const fromMs = nbf === undefined ? Number.NEGATIVE_INFINITY : nbf * 1000 - this.#clockSkewMs;
    this.#drop(token);
    this.#tokens.set(token, { claims, fromMs, untilMs: Math.min(expiresMs, nowMs + cachedForMs) });
    this.#characters += token.length;
    // Oldest first: every entry is verified anew after cachedForMs anyway.
    for (const oldest of this.#tokens.keys()) {
      if (this.#tokens.size <= cachedTokensMax && this.#characters <= cachedCharactersMax) break;
      this.#drop(oldest);
    }
  }

  #drop(token: string): void {
    if (this.#tokens.delete(token)) this.#characters -= token.length;
  }
}
