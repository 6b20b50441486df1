/**
 * Verification of JSON Web Tokens (RFC 7519, 7515) by jose, with a bounded cache: a verification takes as
 * long as a whole forwarded request. What the cache says is checked against the clock on every hit.
 */
import { createSecretKey } from 'node:crypto';
import {
  decodeProtectedHeader,
  errors,
  jwtVerify,
  type JWTPayload,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
} from 'jose';
import type { Config } from '../config/schema.ts';
import type { Log } from '../log.ts';
import type { Credential, Verdict, Verifier } from './credential.ts';
import { isGoodName } from './field.ts';
import { type KeySet, KeysUnavailable, SigningKeys } from './signing-keys.ts';
import { VerifiedTokens } from './verified-tokens.ts';

export type JwtRule = Extract<Config['identity'][number], { jwt: unknown }>['jwt'] & object;

export interface TokenParts {
  /** The wall clock: tokens carry wall-clock times. */
  readonly nowMs: () => number;
  readonly monotonicMs: () => number;
  readonly log: Log;
}

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

export class TokenVerifier implements Verifier {
  readonly #rule: JwtRule;
  readonly #parts: TokenParts;
  readonly #cache: VerifiedTokens;
  readonly #keys: SigningKeys | undefined;
  readonly #claimsOf: (token: string) => Promise<JWTPayload>;
  /** Grows when a key is gone. */
  #removals = 0;

  constructor(rule: JwtRule, parts: TokenParts) {
    this.#rule = rule;
    this.#parts = parts;
    this.#cache = new VerifiedTokens(rule.clockSkewMs);
    if (rule.secret !== undefined) {
      this.#claimsOf = bySecret(rule.secret, this.#options('HS256'));
      return;
    }
    const keys = new SigningKeys(rule.jwksUrl ?? '', {
      ...parts,
      removed: () => {
        this.#removals += 1;
        this.#cache.clear();
      },
    });
    this.#keys = keys;
    this.#claimsOf = byKeys(keys, this.#options(...publicKeyAlgorithms));
  }

  verify({ text: token }: Credential): Verdict | Promise<Verdict> {
    const remembered = this.#keys?.settled() ?? true;
    const claims = remembered ? this.#cache.find(token, this.#parts.nowMs()) : undefined;
    return claims === undefined ? this.#verifyAnew(token) : this.#verdictOf(claims);
  }

  close(): void {
    this.#keys?.close();
  }

  /** Algorithms are the rule's choice: "none", or a public key taken for a secret, is never one. */
  #options(...algorithms: string[]): () => JWTVerifyOptions {
    const { issuer, audience, clockSkewMs } = this.#rule;
    return () => ({
      algorithms,
      currentDate: new Date(this.#parts.nowMs()),
      clockTolerance: clockSkewMs / 1000,
      ...(issuer === undefined ? {} : { issuer }),
      ...(audience === undefined ? {} : { audience }),
    });
  }

  async #verifyAnew(token: string): Promise<Verdict> {
    const removals = this.#removals;
    try {
      const claims = await this.#claimsOf(token);
      // A key that went meanwhile may be the one that verified it.
      if (removals === this.#removals) this.#cache.add(token, claims, this.#parts.nowMs());
      return this.#verdictOf(claims);
    } catch (error) {
      return verdictOf(error);
    }
  }

  #verdictOf(claims: JWTPayload): Verdict {
    const user = claims[this.#rule.claim];
    if (typeof user === 'string' && isGoodName(user)) return { verdict: 'good', user, claims };
    return { verdict: 'wrong', because: `its claim "${this.#rule.claim}" does not hold a usable user name` };
  }
}

type ClaimsOf = (token: string) => Promise<JWTPayload>;

function bySecret(secret: string, options: () => JWTVerifyOptions): ClaimsOf {
  const key = createSecretKey(Buffer.from(secret, 'utf8'));
  return async (token) => (await jwtVerify(token, key, options())).payload;
}

function byKeys(keys: SigningKeys, options: () => JWTVerifyOptions): ClaimsOf {
  const verifyBy = async (token: string, key: JWTVerifyGetKey): Promise<JWTPayload> => {
    try {
      return (await jwtVerify(token, key, options())).payload;
    } catch (error) {
      if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
      return verifyByOneOf(token, error, options());
    }
  };
  return async (token) => {
    let seen: KeySet | undefined;
    try {
      return await verifyBy(token, async (header, input) => {
        // Only now: the algorithm is known to be one of public keys.
        const current = await keys.current();
        seen = current;
        return current(header, input);
      });
    } catch (error) {
      if (seen === undefined || !mayNeedNewKey(error, token)) throw error;
      const newer = await keys.newerThan(seen);
      if (newer === undefined) throw error;
      return verifyBy(token, newer);
    }
  };
}

/** The token names no key, and several could have signed it. */
async function verifyByOneOf(
  token: string,
  candidates: errors.JWKSMultipleMatchingKeys,
  options: JWTVerifyOptions,
): Promise<JWTPayload> {
  for await (const key of candidates) {
    try {
      return (await jwtVerify(token, key, options)).payload;
    } catch (error) {
      if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
    }
  }
  throw new errors.JWSSignatureVerificationFailed();
}

function mayNeedNewKey(error: unknown, token: string): boolean {
  if (error instanceof errors.JWKSNoMatchingKey) return true;
  if (!(error instanceof errors.JWSSignatureVerificationFailed)) return false;
  return decodeProtectedHeader(token).kid === undefined;
}

function verdictOf(error: unknown): Verdict {
  if (error instanceof KeysUnavailable || error instanceof errors.JWKSInvalid) {
    return { verdict: 'unavailable', because: 'the signing keys could not be fetched' };
  }
  if (error instanceof errors.JWTExpired) return { verdict: 'wrong', because: 'it has expired' };
  if (error instanceof errors.JWTClaimValidationFailed) {
    return { verdict: 'wrong', because: `its claim "${error.claim}" is not acceptable` };
  }
  if (error instanceof errors.JOSEError) {
    return { verdict: 'wrong', because: 'its form or signature is not acceptable' };
  }
  // A key of the issuer that cannot be used, for example.
  return { verdict: 'unavailable', because: 'the signing keys could not be used' };
}
