/**
 * Who does an opaque credential belong to? A service is asked, with the credential where the client had it.
 * Its answer counts for a while, a refusal shortly; what is no clear answer is never taken for one.
 *
 * What is remembered is found by a keyed hash (HMAC-SHA256, key of this process only): no credential stays in
 * memory for longer than its question, and none reaches a log, an answer or Redis.
 */
import { createHmac, createSecretKey, randomBytes } from 'node:crypto';
import type { Config } from '../config/schema.ts';
import type { Log } from '../log.ts';
import { type Question, type Reply, CredentialService } from './ask.ts';
import { type Credential, noClaims, type Verdict, type Verifier } from './credential.ts';
import { ExpiringMap } from './expiring.ts';
import { isGoodName } from './field.ts';

type Rule = Config['identity'][number];
export type IntrospectRule = Extract<Rule, { introspect?: unknown }>;
type Settings = Extract<Rule, { bearer: unknown }>['introspect'];

const wrongForMs = 5_000;
const answerBytesMax = 65_536;

export interface IntrospectParts {
  /** Never jumps. */
  readonly monotonicMs: () => number;
  readonly log: Log;
  /** Good credentials that are remembered, and as many wrong ones. */
  readonly rememberedMax: number;
}

export class Introspection implements Verifier {
  readonly #settings: Settings;
  readonly #questionOf: (credential: Credential) => Question;
  readonly #parts: IntrospectParts;
  readonly #service: CredentialService;
  readonly #key = createSecretKey(randomBytes(32));
  readonly #good: ExpiringMap<Verdict>;
  /** Apart: anybody can send as many of these as they like, and they must not push out the good ones. */
  readonly #wrong: ExpiringMap<Verdict>;
  readonly #underWay = new Map<string, Promise<Verdict>>();
  #failing = false;

  constructor(rule: IntrospectRule, settings: Settings, parts: IntrospectParts) {
    this.#settings = settings;
    this.#questionOf = questionsOf(rule, settings);
    this.#parts = parts;
    this.#good = new ExpiringMap(parts.rememberedMax);
    this.#wrong = new ExpiringMap(parts.rememberedMax);
    const { url, timeoutMs, connections } = settings;
    this.#service = new CredentialService({ url, timeoutMs, connections, bytesMax: answerBytesMax });
  }

  verify(credential: Credential): Verdict | Promise<Verdict> {
    const key = createHmac('sha256', this.#key).update(credential.asSent).digest('base64url');
    const nowMs = this.#parts.monotonicMs();
    const remembered = this.#good.get(key, nowMs) ?? this.#wrong.get(key, nowMs);
    if (remembered !== undefined) return remembered;
    const asked = this.#underWay.get(key);
    if (asked !== undefined) return asked;
    if (this.#underWay.size >= this.#settings.connections) {
      return { verdict: 'unavailable', because: 'too many credentials are being checked' };
    }
    const asking = this.#ask(key, credential).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, asking);
    return asking;
  }

  close(): void {
    this.#service.close();
  }

  async #ask(key: string, credential: Credential): Promise<Verdict> {
    // From the question, not from its answer: what the answer says may be that old.
    const askedMs = this.#parts.monotonicMs();
    const verdict = await this.#verdictOf(credential);
    const { cacheMs } = this.#settings;
    if (verdict.verdict === 'good') this.#good.set(key, verdict, askedMs + cacheMs);
    if (verdict.verdict === 'wrong') {
      this.#wrong.set(key, verdict, askedMs + Math.min(wrongForMs, cacheMs));
    }
    this.#tell(verdict);
    return verdict;
  }

  async #verdictOf(credential: Credential): Promise<Verdict> {
    let reply: Reply;
    try {
      reply = await this.#service.ask(this.#questionOf(credential));
    } catch (error) {
      return unclear(error instanceof Error ? error.message : String(error));
    }
    const { status, body } = reply;
    if (status === 401 || status === 403 || status === 404) return { verdict: 'wrong', because: unknownToIt };
    if (status < 200 || status > 299) return unclear(`it answered ${status}`);
    return this.#userIn(body);
  }

  #userIn(body: Buffer): Verdict {
    const { user: path, form } = this.#settings;
    let answer: unknown;
    try {
      answer = JSON.parse(body.toString('utf8'));
    } catch {
      return unclear('it answered what is not JSON');
    }
    // RFC 7662, 2.2; other services that say it mean the same.
    const active = valueAt(answer, ['active']);
    if (active === false) return { verdict: 'wrong', because: unknownToIt };
    if (form === true && active !== true) return unclear('it did not say whether the token is active');
    const value = valueAt(answer, path.split('.'));
    // A number beyond these is not the one that was written.
    const user = typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value;
    if (typeof user !== 'string' || !isGoodName(user)) return unclear('it named no usable user');
    return { verdict: 'good', user, claims: noClaims };
  }

  /** Once when it begins, once when it is over. */
  #tell(verdict: Verdict): void {
    const failing = verdict.verdict === 'unavailable';
    if (failing === this.#failing) return;
    this.#failing = failing;
    const service = this.#service.name;
    if (failing) this.#parts.log('warn', 'identity.unavailable', { service, because: verdict.because });
    else this.#parts.log('info', 'identity.available', { service });
  }
}

const unknownToIt = 'the service that knows credentials does not know it';

function unclear(why: string): Verdict {
  return {
    verdict: 'unavailable',
    because: `the service that knows credentials gave no clear answer: ${why}`,
  };
}

/** Where the credential stands in a question: where the client had it, unless the rule names another place. */
function questionsOf(rule: IntrospectRule, settings: Settings): (credential: Credential) => Question {
  const { headers = {}, header, form, method } = settings;
  const withHeader = (name: string, value: string): Question => ({
    method: method ?? 'GET',
    headers: { ...headers, [name]: value },
  });
  const withBody = (type: string, body: string): Question => ({
    method: 'POST',
    headers: { ...headers, 'content-type': type },
    body,
  });
  if (form === true) {
    return ({ text: token }) =>
      withBody('application/x-www-form-urlencoded', new URLSearchParams({ token }).toString());
  }
  if (header !== undefined) return ({ text }) => withHeader(header, text);
  if ('basic' in rule) return ({ asSent }) => withHeader('authorization', `Basic ${asSent}`);
  if ('cookie' in rule) return ({ asSent }) => withHeader('cookie', `${rule.cookie}=${asSent}`);
  if ('bearer' in rule) return ({ asSent }) => withHeader('authorization', `Bearer ${asSent}`);
  const names = rule.body.split('.');
  return ({ text }) => {
    const field = names.reduceRight<unknown>((inner, name) => Object.fromEntries([[name, inner]]), text);
    return withBody('application/json', JSON.stringify(field));
  };
}

function valueAt(document: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (found, name) =>
      typeof found === 'object' && found !== null && Object.hasOwn(found, name)
        ? (found as Record<string, unknown>)[name]
        : undefined,
    document,
  );
}
