/**
 * One HTTP call to a store's API: budget before it, total time and size bounded, guard headers where the
 * store checks them, and the answer sorted by what the caller should do. Nothing here retries.
 */
import { type Dispatcher, Pool } from 'undici';
import type { ErrorConfig } from '../../config/rest-errors.ts';
import type { StoreName } from '../../core/ownership.ts';
import { StoreFailure } from '../../core/ports.ts';
import type { Json } from '../../core/records.ts';
import { signGuard } from '../../guard/signature.ts';
import type { CallBudget } from '../budget.ts';
import { storeConnector, type StoreTls, TlsFailure } from '../connect.ts';
import { failureOf, type RawAnswer, type RestAnswer, type RestCall } from './answers.ts';
import type { Credential, Credentials } from './credentials.ts';
import { failureInBody } from './envelope.ts';
import { parseExactly } from './exact-json.ts';
import { formOf } from './templates.ts';

export interface RestClientSettings {
  readonly store: StoreName;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly credentials?: Credentials | undefined;
  /** Of calls that write copies; left out: the same. */
  readonly writeCredentials?: Credentials | undefined;
  /** How bodies say that a call has failed. */
  readonly error?: ErrorConfig | undefined;
  readonly timeoutMs: number;
  readonly connectTimeoutMs: number;
  /** For an https address. */
  readonly tls?: StoreTls | undefined;
  /** Present for stores whose guard must be able to check the calls. */
  readonly guardSecret?: string | undefined;
  readonly budget: CallBudget;
  /** Largest answer that is read, bytes. */
  readonly maxBodyBytes?: number;
  readonly nowMs?: () => number;
}

const connections = 16;
const defaultMaxBodyBytes = 32 * 1024 * 1024;

export class RestClient {
  readonly store: StoreName;
  readonly origin: string;
  /** Of one whole call, ms. */
  readonly timeoutMs: number;
  readonly #settings: RestClientSettings;
  readonly #basePath: string;
  readonly #pool: Pool;

  constructor(settings: RestClientSettings) {
    const url = new URL(settings.url);
    this.store = settings.store;
    this.origin = url.origin;
    this.timeoutMs = settings.timeoutMs;
    this.#settings = settings;
    this.#basePath = url.pathname.replace(/\/$/, '');
    this.#pool = new Pool(url.origin, {
      connections,
      headersTimeout: settings.timeoutMs,
      bodyTimeout: settings.timeoutMs,
      connect: storeConnector(url.origin, settings.connectTimeoutMs, settings.tls),
    });
  }

  /** Calls are signed for one partition and one epoch each (docs/guard.md). */
  get isGuarded(): boolean {
    return this.#settings.guardSecret !== undefined;
  }

  /** The request target as it goes over the wire. */
  target(path: string): string {
    return `${this.#basePath}${path}`;
  }

  /** An address that the store gave, without the credential that it may repeat. */
  withoutCredential(path: string): string {
    const { credentials, writeCredentials } = this.#settings;
    const secret = [credentials?.parameter, writeCredentials?.parameter].filter((name) => name !== undefined);
    const [before = '', query] = path.split('?', 2);
    if (secret.length === 0 || query === undefined) return path;
    const kept = new URLSearchParams(query);
    for (const name of secret) kept.delete(name);
    return kept.size === 0 ? before : `${before}?${kept.toString()}`;
  }

  /**
   * 2xx, 404 and 410 come back; everything else is thrown as StoreFailure. `signal` ends reads at any
   * time. A write that was sent runs to its end or its timeout, because its outcome is wanted.
   */
  async call(call: RestCall, signal: AbortSignal): Promise<RestAnswer> {
    // A copy is paid for before the ledger is asked whether it may go, so that nothing waits in between.
    if (call.access !== 'copy' && call.prepaid !== true) {
      await this.#settings.budget.take(signal, { haste: call.haste, partition: call.stamp.partition });
    }
    signal.throwIfAborted();
    try {
      const answer = await this.#exchange(call, signal);
      const told = this.#toldIn(call, answer);
      if (told === 'not-found') return { status: 404, headers: answer.headers, body: undefined };
      const failure = told ?? failureOf(this.store, call, answer, this.#nowMs());
      if (failure === undefined) return this.#parsed(call, answer);
      const { kind, retryAfterMs } = failure;
      // Also a 503 that says when to come again (RFC 9110, 10.2.3).
      if (kind === 'rate-limited' || retryAfterMs !== undefined) {
        await this.#settings.budget.pause(retryAfterMs ?? 1_000, call.stamp.partition);
      }
      throw failure;
    } catch (error) {
      throw error instanceof StoreFailure ? error.of(this.store) : error;
    }
  }

  async close(): Promise<void> {
    const { credentials, writeCredentials } = this.#settings;
    await Promise.all([this.#pool.close(), credentials?.close(), writeCredentials?.close()]);
  }

  async #exchange(call: RestCall, signal: AbortSignal): Promise<RawAnswer> {
    const target = this.target(call.path);
    // One controller and one timer: composed signals cost more than the rest of a short call.
    const ended = new AbortController();
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      ended.abort();
    }, this.#settings.timeoutMs);
    const onSignal = (): void => ended.abort();
    if (call.access === 'read') signal.addEventListener('abort', onSignal, { once: true });
    try {
      return await this.#sendWithCredential(call, ended.signal);
    } catch (error) {
      if (error instanceof StoreFailure) throw error;
      if (signal.aborted && call.access === 'read') throw signal.reason;
      const what = timedOut
        ? `did not answer ${call.method} ${target} within ${this.#settings.timeoutMs} ms`
        : error instanceof TlsFailure
          ? `was reached, but not trusted (${error.reason}), so nothing was sent for ${call.method} ${target}; look at stores.${this.store}.tls`
          : `could not be reached for ${call.method} ${target}`;
      throw new StoreFailure('unavailable', `${this.store} ${what}`, { cause: error });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onSignal);
    }
  }

  /** A 401 says that nothing was done: then a token that has just ended is replaced, once. */
  async #sendWithCredential(call: RestCall, signal: AbortSignal): Promise<RawAnswer> {
    const { credentials, writeCredentials = credentials } = this.#settings;
    const ours = call.asWriter === true ? writeCredentials : credentials;
    const credential = await ours?.get(signal);
    const answer = await this.#send(call, credential, signal);
    if (answer.status !== 401 || credential === undefined || ours?.refused(credential) !== true)
      return answer;
    return this.#send(call, await ours.get(signal), signal);
  }

  async #send(call: RestCall, credential: Credential | undefined, signal: AbortSignal): Promise<RawAnswer> {
    const target = targetWith(this.target(call.path), credential);
    const { body, form = false } = call;
    const response = await this.#pool.request({
      method: call.method,
      path: target,
      headers: this.#headers(call, target, credential),
      body: body === undefined ? null : form ? formOf(body) : JSON.stringify(body),
      signal,
    });
    const text = await this.#bounded(call, response.body, response.headers['content-length']);
    return { status: response.statusCode, headers: response.headers, text };
  }

  #headers(call: RestCall, target: string, credential: Credential | undefined): Record<string, string> {
    const { guardSecret, headers } = this.#settings;
    const signed =
      guardSecret === undefined
        ? {}
        : signGuard({
            secret: guardSecret,
            timestampSeconds: Math.floor(this.#nowMs() / 1000),
            method: call.method,
            target,
            user: '',
            partition: call.stamp.partition,
            epoch: call.stamp.epoch,
            access: call.access,
            ...(call.stamp.also === undefined ? {} : { also: call.stamp.also }),
          });
    return {
      accept: 'application/json',
      ...(call.body === undefined
        ? {}
        : { 'content-type': call.form === true ? formType : 'application/json' }),
      ...headers,
      ...call.headers,
      ...credential?.headers,
      ...signed,
    };
  }

  async #bounded(
    call: RestCall,
    body: Dispatcher.ResponseData['body'],
    announced: string | string[] | undefined,
  ): Promise<string> {
    const whole = await this.#bytesOf(call, body, announced);
    // What a write answers is not kept; what is read would be copied with its letters replaced.
    if (call.access === 'copy') return whole.toString('utf8');
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(whole);
    } catch (error) {
      throw new StoreFailure(
        'bad-answer',
        `${this.store} answered ${call.method} ${call.path} with bytes that are not UTF-8; nothing was concluded from it`,
        { cause: error },
      );
    }
  }

  async #bytesOf(
    call: RestCall,
    body: Dispatcher.ResponseData['body'],
    announced: string | string[] | undefined,
  ): Promise<Buffer> {
    const limit = this.#settings.maxBodyBytes ?? defaultMaxBodyBytes;
    // The client holds an answer to the length that it announced, so this one cannot grow.
    if (typeof announced === 'string' && Number(announced) <= limit)
      return Buffer.from(await body.arrayBuffer());
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of body) {
      bytes += chunk.byteLength;
      if (bytes > limit) {
        throw new StoreFailure(
          'bad-answer',
          `${this.store} answered ${call.method} ${call.path} with more than ${limit} bytes; ask for smaller pages`,
        );
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** What the body says of the call, where the configuration knows how this store says it. */
  #toldIn(call: RestCall, answer: RawAnswer): StoreFailure | 'not-found' | undefined {
    const { error } = this.#settings;
    const { status, text } = answer;
    if (error === undefined || call.ofGuard === true || text.trim() === '') return undefined;
    try {
      return failureInBody(this.store, call, error, status, parseExactly(text) as Json);
    } catch {
      if (call.access !== 'copy' || status < 200 || status >= 300) return undefined;
      return new StoreFailure(
        'unavailable',
        `${this.store} answered ${call.method} ${call.path} with ${status}, but not with JSON; what became of the write is not known`,
      );
    }
  }

  #parsed(call: RestCall, answer: RawAnswer): RestAnswer {
    const { status, headers, text } = answer;
    // What a successful write says about itself is not needed; only reads must be understood.
    if (status === 404 || status === 410 || text.trim() === '') return { status, headers, body: undefined };
    try {
      return { status, headers, body: parseExactly(text) as Json };
    } catch (error) {
      const type = String(headers['content-type'] ?? 'no content type');
      if (call.access === 'copy' && type.startsWith('text/html')) {
        throw new StoreFailure(
          'unavailable',
          `${this.store} answered ${call.method} ${call.path} with ${status} and a page for people (${type}); ` +
            'what became of the write is not known; check the path and that no login page answers',
          { cause: error },
        );
      }
      if (call.access === 'copy') return { status, headers, body: undefined };
      throw new StoreFailure(
        'bad-answer',
        `${this.store} answered ${call.method} ${call.path} with ${status}, but not with JSON (${type}); ` +
          'nothing was concluded from it; check the path and that no login page answers',
        { cause: error },
      );
    }
  }

  #nowMs(): number {
    return (this.#settings.nowMs ?? Date.now)();
  }
}

const formType = 'application/x-www-form-urlencoded';

function targetWith(target: string, credential: Credential | undefined): string {
  if (credential?.query === undefined) return target;
  const { name, value } = credential.query;
  return `${target}${target.includes('?') ? '&' : '?'}${encodeURIComponent(name)}=${encodeURIComponent(value)}`;
}
