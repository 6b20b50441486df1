/** What lets onewriter into a store's API. Nothing of it reaches a log, an error or Redis. */
import { Agent, request } from 'undici';
import { z } from 'zod';
import type { AuthConfig, OAuth2Config } from '../../config/rest-auth.ts';
import type { StoreName } from '../../core/ownership.ts';
import { StoreFailure } from '../../core/ports.ts';
import { storeConnector, type StoreTls } from '../connect.ts';

export interface Credential {
  readonly headers: Readonly<Record<string, string>>;
  /** Goes into the query of a call. */
  readonly query?: { readonly name: string; readonly value: string };
}

export interface Credentials {
  /** Throws StoreFailure where it cannot be had; never sends anything to the store itself. */
  get(signal: AbortSignal): Promise<Credential>;
  /** The store answered 401 to it. True: `get` gives another one, with which the call can be sent once more. */
  refused(credential: Credential): boolean;
  /** Name of the query parameter in which the credential stands. */
  readonly parameter?: string | undefined;
  close(): Promise<void>;
}

export interface CredentialParts {
  readonly store: StoreName;
  /** Of the store; a token endpoint under another name is trusted as the system trusts it. */
  readonly origin: string;
  readonly tls?: StoreTls | undefined;
  readonly connectTimeoutMs: number;
  readonly nowMs?: () => number;
}

export function credentialsOf(auth: AuthConfig, parts: CredentialParts): Credentials {
  if ('oauth2' in auth) return new OAuth2Tokens(auth.oauth2, parts);
  const credential = fixedCredential(auth);
  return {
    get: async () => credential,
    refused: () => false,
    parameter: credential.query?.name,
    close: async () => undefined,
  };
}

function fixedCredential(auth: Exclude<AuthConfig, { readonly oauth2: unknown }>): Credential {
  if ('basic' in auth) return { headers: { authorization: basic(auth.basic.user, auth.basic.password) } };
  if ('bearer' in auth) return { headers: { authorization: `Bearer ${auth.bearer}` } };
  const { header, query, value } = auth.apiKey;
  if (header !== undefined) return { headers: { [header.toLowerCase()]: value } };
  return { headers: {}, query: { name: query ?? '', value } };
}

function basic(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`, 'utf8').toString('base64')}`;
}

/** As lenient as endpoints are: some write the seconds as text. */
const tokenSchema = z.object({
  access_token: z.string().min(1),
  token_type: z.string().optional(),
  expires_in: z.coerce.number().positive().optional().catch(undefined),
});
const errorSchema = z.object({ error: z.string().regex(/^[a-z_]{1,60}$/) });

/** A token is renewed this share of its life before its end, but not more than a minute before. */
const renewShare = 0.1;
const renewBeforeMaxMs = 60_000;
const answerBytesMax = 65_536;

interface Token extends Credential {
  /** By the monotonic clock; counted from when it was asked for. */
  readonly untilMs: number;
}

class OAuth2Tokens implements Credentials {
  readonly #config: OAuth2Config;
  readonly #parts: CredentialParts;
  readonly #agent: Agent;
  #token: Token | undefined;
  #asking: Promise<Token> | undefined;

  constructor(config: OAuth2Config, parts: CredentialParts) {
    this.#config = config;
    this.#parts = parts;
    const { origin, protocol, hostname } = new URL(config.tokenUrl);
    const servername = /^[\d.]+$|:/.test(hostname) ? '' : hostname;
    const own: StoreTls = { rejectUnauthorized: true, servername };
    const tls = protocol === 'https:' ? (origin === parts.origin ? parts.tls : own) : undefined;
    this.#agent = new Agent({ connections: 1, connect: storeConnector(origin, parts.connectTimeoutMs, tls) });
  }

  async get(signal: AbortSignal): Promise<Credential> {
    const token = this.#token;
    if (token !== undefined && this.#nowMs() < token.untilMs) return token;
    // One question for all that wait: whoever gives up leaves it to the others.
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    const asking = this.#asking;
    asking.catch(() => undefined);
    return untilAborted(asking, signal);
  }

  refused(credential: Credential): boolean {
    if (this.#token === credential) this.#token = undefined;
    return true;
  }

  close(): Promise<void> {
    return this.#agent.close();
  }

  async #ask(): Promise<Token> {
    const { tokenUrl, timeoutMs } = this.#config;
    const sentAtMs = this.#nowMs();
    const late = AbortSignal.timeout(timeoutMs);
    let status: number;
    let text: string;
    try {
      const answer = await request(tokenUrl, {
        ...{ method: 'POST', ...this.#question(), dispatcher: this.#agent },
        signal: late,
      });
      status = answer.statusCode;
      const length = Number(answer.headers['content-length'] ?? 0);
      if (length > answerBytesMax) await answer.body.dump();
      text = length > answerBytesMax ? '' : await answer.body.text();
    } catch {
      // The cause may hold what was sent.
      const why = late.aborted ? 'in time' : 'at all';
      throw new StoreFailure('unavailable', `${this.#who()} did not answer ${why}; nothing was sent to it`);
    }
    const answer = parsed(text);
    if (status < 200 || status > 299) throw this.#refusal(status, answer);
    const { data } = tokenSchema.safeParse(answer);
    if (data === undefined || (data.token_type ?? 'bearer').toLowerCase() !== 'bearer') {
      throw new StoreFailure('bad-answer', `${this.#who()} answered ${status}, but not with a bearer token`);
    }
    const lifeMs = data.expires_in === undefined ? Number.POSITIVE_INFINITY : data.expires_in * 1_000;
    const early = lifeMs === Number.POSITIVE_INFINITY ? 0 : Math.min(renewBeforeMaxMs, lifeMs * renewShare);
    this.#token = {
      headers: { authorization: `Bearer ${data.access_token}` },
      untilMs: sentAtMs + lifeMs - early,
    };
    return this.#token;
  }

  #question(): { readonly headers: Record<string, string>; readonly body: string } {
    const { clientId, clientSecret, scope, audience, send, more } = this.#config;
    const body = new URLSearchParams({
      grant_type: 'client_credentials',
      ...(scope === undefined ? {} : { scope }),
      ...(audience === undefined ? {} : { audience }),
      ...more,
      ...(send === 'body' ? { client_id: clientId, client_secret: clientSecret } : {}),
    });
    const headers = { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' };
    if (send === 'body') return { headers, body: body.toString() };
    // Both are encoded as in a form before they are joined (RFC 6749, 2.3.1).
    const authorization = basic(formEncoded(clientId), formEncoded(clientSecret));
    return { headers: { ...headers, authorization }, body: body.toString() };
  }

  #refusal(status: number, answer: unknown): StoreFailure {
    const { data } = errorSchema.safeParse(answer);
    const what = `${this.#who()} answered ${status}${data === undefined ? '' : ` (${data.error})`}`;
    if (status === 429) return new StoreFailure('rate-limited', what, { retryAfterMs: 1_000 });
    if (status >= 500) return new StoreFailure('unavailable', what);
    return new StoreFailure(
      'denied',
      `${what}; nothing was sent to the store; check the connector's auth.oauth2`,
    );
  }

  #who(): string {
    const { origin, pathname } = new URL(this.#config.tokenUrl);
    return `the token endpoint of ${this.#parts.store}, ${origin}${pathname},`;
  }

  #nowMs(): number {
    return (this.#parts.nowMs ?? (() => performance.now()))();
  }
}

function formEncoded(text: string): string {
  return new URLSearchParams({ '': text }).toString().slice(1);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
