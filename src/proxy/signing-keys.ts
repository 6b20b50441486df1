/**
 * The public keys of an issuer (RFC 7517), kept and renewed. A key that nobody has seen makes them be fetched
 * once more, with a pause between such fetches, because anybody can send a token that names one. While the
 * issuer cannot be reached, the keys that are known go on, for a day at most.
 */
import { createLocalJWKSet, type JSONWebKeySet, type JWK } from 'jose';
import type { Log } from '../log.ts';
import { CredentialService } from './ask.ts';

export type KeySet = ReturnType<typeof createLocalJWKSet>;

/** The keys could not be had, so nobody knows whether a token is good. */
export class KeysUnavailable extends Error {}

/** From then on they are renewed beside the requests; a request waits for that only when they are older. */
const renewAfterMs = 300_000;
const awaitAfterMs = 600_000;
const unusableAfterMs = 86_400_000;
const newKeyPauseMs = 5_000;
const failedPauseMs = 1_000;
const fetchTimeoutMs = 5_000;
const answerBytesMax = 262_144;
const keysMax = 100;

export interface SigningKeysParts {
  /** Never jumps. */
  readonly monotonicMs: () => number;
  readonly log: Log;
  /** A key that verified tokens is gone: what it verified counts no more. */
  readonly removed: () => void;
}

export class SigningKeys {
  readonly #parts: SigningKeysParts;
  readonly #service: CredentialService;
  #keys: KeySet | undefined;
  #names = new Set<string>();
  #fetchedMs = Number.NEGATIVE_INFINITY;
  #failedMs = Number.NEGATIVE_INFINITY;
  #newKeyMs = Number.NEGATIVE_INFINITY;
  #failing = false;
  #fetching: Promise<KeySet> | undefined;

  constructor(url: string, parts: SigningKeysParts) {
    this.#parts = parts;
    this.#service = new CredentialService({
      url,
      timeoutMs: fetchTimeoutMs,
      connections: 1,
      bytesMax: answerBytesMax,
    });
  }

  close(): void {
    this.#service.close();
  }

  /** Young enough that nobody has to wait for newer ones; sees to it that they stay so. */
  settled(): boolean {
    if (this.#keys === undefined) return false;
    const ageMs = this.#parts.monotonicMs() - this.#fetchedMs;
    // Its failure shows in the log, and to whoever has to wait.
    if (ageMs > renewAfterMs && !this.#pausing) this.#fetch().catch(() => undefined);
    return ageMs <= awaitAfterMs;
  }

  /** Throws KeysUnavailable. */
  async current(): Promise<KeySet> {
    if (this.#keys !== undefined && this.settled()) return this.#keys;
    try {
      return await this.#fetchUnlessPausing();
    } catch (error) {
      const usable = this.#parts.monotonicMs() - this.#fetchedMs <= unusableAfterMs;
      if (this.#keys !== undefined && usable) return this.#keys;
      throw error;
    }
  }

  /** For a token that none of `seen` verifies: newer keys, or undefined where there are none. */
  async newerThan(seen: KeySet | undefined): Promise<KeySet | undefined> {
    if (this.#keys !== seen) return this.#keys;
    const nowMs = this.#parts.monotonicMs();
    if (this.#fetching === undefined && nowMs - this.#newKeyMs < newKeyPauseMs) {
      if (this.#failing) throw new KeysUnavailable(unreachable);
      return undefined;
    }
    this.#newKeyMs = nowMs;
    return this.#fetchUnlessPausing();
  }

  get #pausing(): boolean {
    return this.#parts.monotonicMs() - this.#failedMs < failedPauseMs;
  }

  async #fetchUnlessPausing(): Promise<KeySet> {
    if (this.#fetching === undefined && this.#pausing) throw new KeysUnavailable(unreachable);
    return this.#fetch();
  }

  async #fetch(): Promise<KeySet> {
    this.#fetching ??= this.#fetchAnew().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  async #fetchAnew(): Promise<KeySet> {
    const askedMs = this.#parts.monotonicMs();
    try {
      const { status, body } = await this.#service.ask({ method: 'GET', headers: {} });
      if (status !== 200) throw new Error(`it answered ${status}`);
      this.#take(JSON.parse(body.toString('utf8')) as JSONWebKeySet, askedMs);
    } catch (cause) {
      this.#failedMs = this.#parts.monotonicMs();
      this.#tell(cause instanceof SyntaxError ? 'it answered what is not JSON' : String(cause));
      throw new KeysUnavailable(unreachable, { cause });
    }
    this.#tell(undefined);
    if (this.#keys === undefined) throw new KeysUnavailable(unreachable);
    return this.#keys;
  }

  /** Throws where it is no set of keys. */
  #take(set: JSONWebKeySet, askedMs: number): void {
    const keys = createLocalJWKSet(set);
    if (set.keys.length > keysMax) throw new Error(`it answered more than ${keysMax} keys`);
    const names = new Set(set.keys.map(nameOf));
    const removed = [...this.#names].some((name) => !names.has(name));
    this.#names = names;
    this.#keys = keys;
    this.#fetchedMs = askedMs;
    if (removed) this.#parts.removed();
  }

  /** Once when it begins, once when it is over. */
  #tell(because: string | undefined): void {
    const failing = because !== undefined;
    if (failing === this.#failing) return;
    this.#failing = failing;
    const service = this.#service.name;
    if (failing) this.#parts.log('warn', 'identity.keys-unavailable', { service, because });
    else this.#parts.log('info', 'identity.keys-available', { service });
  }
}

const unreachable = 'the signing keys could not be fetched';

/** What makes it this key and no other (RFC 7638, 3.2), and what it is named. */
function nameOf({ kid, kty, alg, use, crv, x, y, n, e }: JWK): string {
  return JSON.stringify([kid, kty, alg, use, crv, x, y, n, e]);
}
