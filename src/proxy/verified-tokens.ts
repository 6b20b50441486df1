/**
 * What verified tokens say, for as long as that is known to be true: within their own times, and for a few minutes at
 * most. Bounded in number and in size; full, it forgets the oldest. Only what was verified comes in.
 *
 * A token is found by its SHA-256, which costs no more than comparing it whole would, and leaves no credential in memory.
 */
import { hash } from 'node:crypto';
import type { JWTPayload } from 'jose';

export interface VerifiedTokensBounds {
  readonly tokensMax: number;
  /** Of all tokens together, as they were sent: what is kept of each is about as long. */
  readonly charactersMax: number;
  readonly keptForMs: number;
}

const usualBounds: VerifiedTokensBounds = {
  tokensMax: 10_000,
  charactersMax: 8_000_000,
  keptForMs: 300_000,
};

interface VerifiedToken {
  readonly claims: JWTPayload;
  readonly characters: number;
  readonly fromMs: number;
  readonly untilMs: number;
}

export class VerifiedTokens {
  readonly #clockSkewMs: number;
  readonly #bounds: VerifiedTokensBounds;
  readonly #tokens = new Map<string, VerifiedToken>();
  #characters = 0;

  /** `clockSkewMs`: allowed on a token's own times. */
  constructor(clockSkewMs: number, bounds: VerifiedTokensBounds = usualBounds) {
    this.#clockSkewMs = clockSkewMs;
    this.#bounds = bounds;
  }

  /** Its claims; undefined where they are not known, or do not count at `nowMs` (wall clock). */
  find(token: string, nowMs: number): JWTPayload | undefined {
    const name = nameOf(token);
    const known = this.#tokens.get(name);
    if (known === undefined) return undefined;
    if (nowMs >= known.fromMs && nowMs < known.untilMs) return known.claims;
    this.#drop(name);
    return undefined;
  }

  add(token: string, claims: JWTPayload, nowMs: number): void {
    const { tokensMax, charactersMax, keptForMs } = this.#bounds;
    const { exp, nbf } = claims;
    const expiresMs = exp === undefined ? Infinity : Math.floor(exp) * 1000 + this.#clockSkewMs;
    const fromMs = nbf === undefined ? -Infinity : nbf * 1000 - this.#clockSkewMs;
    const name = nameOf(token);
    this.#drop(name);
    const untilMs = Math.min(expiresMs, nowMs + keptForMs);
    this.#tokens.set(name, { claims, characters: token.length, fromMs, untilMs });
    this.#characters += token.length;
    // Oldest first: every token is verified anew after a while anyway.
    for (const oldest of this.#tokens.keys()) {
      if (this.#tokens.size <= tokensMax && this.#characters <= charactersMax) break;
      this.#drop(oldest);
    }
  }

  clear(): void {
    this.#tokens.clear();
    this.#characters = 0;
  }

  #drop(name: string): void {
    const known = this.#tokens.get(name);
    if (known === undefined) return;
    this.#tokens.delete(name);
    this.#characters -= known.characters;
  }
}

function nameOf(token: string): string {
  return hash('sha256', token, 'base64url');
}
