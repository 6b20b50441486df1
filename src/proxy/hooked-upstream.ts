/**
 * The way to a store whose API differs from what clients speak: every exchange passes the store's hook on its way
 * there and back. Everything before it, and everything behind, knows only an upstream.
 *
 * The hook may fail, hang or answer nonsense: before anything is sent that is a plain failure, afterwards the store's
 * answer is lost and a write counts as in doubt. Bodies that it reads are bounded, each and all together.
 */
import { STATUS_CODES } from 'node:http';
import { sentenceOf } from '../log.ts';
import type { ByteBudget } from './byte-budget.ts';
import type { AnswerChange, HookAnswer, HookRequest, RequestChange, StoreHook } from './hook.ts';
import {
  answerKeys,
  checkedBody,
  checkedChange,
  checkedMethod,
  checkedStatus,
  checkedTarget,
  fieldsOf,
  flat,
  HookRefused,
  mustBeTouchable,
  mustNotRefuse,
  namesOf,
  requestKeys,
  withoutLength,
} from './hook-checks.ts';
import { BodyOverLimit, ClientBrokeOff, LeaseLapsed } from './upload.ts';
import type {
  FailedStage,
  Upstream,
  UpstreamExchange,
  UpstreamListener,
  UpstreamRequest,
} from './upstream.ts';

export interface HookParts {
  readonly upstream: Upstream;
  readonly hook: StoreHook;
  readonly settings: { readonly bodyBytes: number; readonly timeoutMs: number };
  /** Of all bodies that are read for hooks. */
  readonly budget: ByteBudget;
  /** Told of every failure; clients learn no more than that there was one. */
  readonly failed: (part: 'request' | 'answer', cause: Error, at: HookedOrder['asked'] & Asked) => void;
}

/** What the client asked for, as far as a log may say: a target can hold what nobody else may read. */
export interface Asked {
  readonly method: string;
  /** The path of the route that matched, as configured. */
  readonly route: string | undefined;
}

/** More of a body than is read for a hook. */
export class BodyTooLarge extends Error {
  readonly bytesMax: number;

  constructor(bytesMax: number) {
    super(`the body is longer than ${bytesMax} bytes, or too many are being read`);
    this.bytesMax = bytesMax;
  }
}

/** What the exchange needs to know of one request besides what it sends. */
export interface HookedOrder {
  readonly asked: Omit<HookRequest, 'method' | 'target' | 'headers'>;
  readonly route: string | undefined;
  /** Target and headers as they leave the proxy: the store's own changes, the guard's signature over the result. */
  readonly sign: (method: string, target: string, headers: string[]) => { target: string; headers: string[] };
}

/** Makes upstreams of one store's upstream; one for each request. */
export class HookedUpstreams {
  readonly #parts: HookParts;

  constructor(parts: HookParts) {
    this.#parts = parts;
  }

  of(order: HookedOrder): Pick<Upstream, 'send'> {
    return {
      send: (request, listener) => {
        const exchange = new HookedExchange({ ...this.#parts, order }, request, listener);
        void exchange.start();
        return exchange;
      },
    };
  }
}

interface SeenAnswer {
  readonly head: HookAnswer;
  readonly reason: string;
  readonly body: KeptBytes;
}

interface Parts extends HookParts {
  readonly order: HookedOrder;
}

class HookedExchange implements UpstreamExchange, UpstreamListener {
  readonly #parts: Parts;
  readonly #request: UpstreamRequest;
  readonly #listener: UpstreamListener;
  readonly #asked: HookRequest;
  #inner: UpstreamExchange | undefined;
  /** Of a body that was read here. */
  #trailers: readonly string[] | undefined;
  #over = false;
  readonly #kept: KeptBytes[] = [];
  /** The answer whose body is being read for the hook, or that waits for it. */
  #answer: SeenAnswer | undefined;
  /** What came while the hook looked at the answer's head. */
  #waiting: (() => void)[] | undefined;
  #pausedOutside = false;
  /** Runs while the hook works. */
  #late: NodeJS.Timeout | undefined;

  constructor(parts: Parts, request: UpstreamRequest, listener: UpstreamListener) {
    this.#parts = parts;
    this.#request = request;
    this.#listener = listener;
    const { method, target, headers } = request;
    this.#asked = { ...parts.order.asked, method, target, headers: fieldsOf(headers) };
  }

  async start(): Promise<void> {
    // Whoever sends must have the exchange in hand before it is told anything.
    await Promise.resolve();
    try {
      const { hook } = this.#parts;
      const reads = hook.request !== undefined && hook.readsBody?.(this.#asked) === true;
      const body = reads ? await this.#readBody() : undefined;
      if (this.#over) return;
      const asked = body === undefined ? this.#asked : { ...this.#asked, body };
      const change = await this.#inTime(hook.request?.(asked));
      mustNotRefuse(change);
      if (!this.#over) this.#send(checkedChange<RequestChange>(change as RequestChange, requestKeys), body);
    } catch (error) {
      this.#fail('request', error);
    }
  }

  #send(change: RequestChange, read: Buffer | undefined): void {
    const { upstream, order } = this.#parts;
    const method = checkedMethod(change.method ?? this.#request.method, this.#request.method);
    const target = checkedTarget(change.target ?? this.#request.target);
    const headers = change.headers === undefined ? [...this.#request.headers] : flat(change.headers);
    for (const name of namesOf(headers)) mustBeTouchable(name);
    const made = change.body === undefined ? undefined : checkedBody(change.body);
    if (made !== undefined && this.#request.body !== null && read === undefined) {
      throw new TypeError('it replaces a body that readsBody did not ask for');
    }
    const body = made ?? read ?? this.#request.body;
    const signed = order.sign(method, target, made === undefined ? headers : withoutLength(headers));
    const sent = made?.byteLength === 0 ? null : body;
    // Those of the body that the client sent say nothing of another one.
    const trailers = made === undefined ? (this.#trailers ?? this.#request.trailers ?? []) : [];
    this.#inner = upstream.send({ ...this.#request, method, ...signed, body: sent, trailers }, this);
  }

  // --- UpstreamExchange --------------------------------------------------------------------------------

  cancel(reason: Error): void {
    if (this.#over) return;
    if (this.#inner !== undefined) this.#inner.cancel(reason);
    else this.#end(() => this.#listener.onFailed('cancelled', reason));
  }

  pause(): void {
    this.#pausedOutside = true;
    this.#inner?.pause();
  }

  resume(): void {
    this.#pausedOutside = false;
    if (this.#waiting === undefined) this.#inner?.resume();
  }

  // --- the store's side --------------------------------------------------------------------------------

  onSending(): boolean {
    return this.#listener.onSending();
  }

  onInformation(status: number, rawHeaders: string[]): void {
    if (!this.#over) this.#listener.onInformation(status, rawHeaders);
  }

  onHead(status: number, reason: string, rawHeaders: string[]): void {
    if (this.#over) return;
    const { hook } = this.#parts;
    if (hook.answer === undefined) {
      this.#listener.onHead(status, reason, rawHeaders);
      return;
    }
    const head: HookAnswer = { status, headers: fieldsOf(rawHeaders) };
    this.#answer = { head, reason, body: this.#keep() };
    try {
      const bodyless = this.#asked.method === 'HEAD' || status === 204 || status === 304;
      if (!bodyless && hook.readsAnswerBody?.(head, this.#asked) === true) return;
    } catch (error) {
      this.#breakOff(error);
      return;
    }
    this.#waiting = [];
    this.#inner?.pause();
    void this.#shapeAnswer(undefined);
  }

  onData(chunk: Buffer): void {
    if (this.#over) return;
    if (this.#waiting !== undefined) this.#waiting.push(() => this.onData(chunk));
    else if (this.#answer === undefined) this.#listener.onData(chunk);
    else if (!this.#answer.body.add(chunk)) this.#breakOff(new BodyTooLarge(this.#parts.settings.bodyBytes));
  }

  onCaughtUp(): void {
    if (!this.#over && this.#waiting === undefined && this.#answer === undefined) this.#listener.onCaughtUp();
  }

  onEnd(rawTrailers: string[]): void {
    if (this.#over) return;
    if (this.#waiting !== undefined) this.#waiting.push(() => this.onEnd(rawTrailers));
    else if (this.#answer === undefined) this.#end(() => this.#listener.onEnd(rawTrailers));
    else {
      this.#waiting = [() => this.onEnd(rawTrailers)];
      void this.#shapeAnswer(this.#answer.body.whole());
    }
  }

  onFailed(stage: FailedStage, cause: Error): void {
    this.#end(() => this.#listener.onFailed(stage, cause));
  }

  // --- the hook's side ---------------------------------------------------------------------------------

  async #shapeAnswer(body: Buffer | undefined): Promise<void> {
    const { answer } = this.#parts.hook;
    const seen = this.#answer;
    if (seen === undefined) return;
    try {
      const change = await this.#inTime(
        answer?.({ ...seen.head, ...(body === undefined ? {} : { body }) }, this.#asked),
      );
      if (!this.#over) this.#pass(seen, checkedChange<AnswerChange>(change, answerKeys), body);
    } catch (error) {
      this.#breakOff(error);
    }
  }

  #pass(seen: SeenAnswer, change: AnswerChange, read: Buffer | undefined): void {
    if (change.body !== undefined && read === undefined) {
      throw new TypeError('it replaces a body that readsAnswerBody did not ask for');
    }
    const status = checkedStatus(change.status ?? seen.head.status);
    const headers = flat(change.headers ?? seen.head.headers);
    const body = change.body === undefined ? read : checkedBody(change.body);
    const length = body === undefined || status === 204 ? [] : ['Content-Length', String(body.byteLength)];
    const framed = body === undefined && status !== 204 ? headers : [...withoutLength(headers), ...length];
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    this.#answer = undefined;
    const reason = status === seen.head.status ? seen.reason : (STATUS_CODES[status] ?? '');
    this.#listener.onHead(status, reason, framed);
    const given = body !== undefined && body.byteLength > 0 && status !== 204;
    if (given && !this.#over) this.#listener.onData(body);
    for (const step of waiting) step();
    if (!this.#over) this.#listener.onCaughtUp();
    if (!this.#pausedOutside) this.#inner?.resume();
  }

  async #readBody(): Promise<Buffer | undefined> {
    const { body } = this.#request;
    if (body === null || Buffer.isBuffer(body)) return body ?? undefined;
    const kept = this.#keep();
    return new Promise((resolve, reject) => {
      body.start({
        piece: (bytes) => {
          if (!this.#over && kept.add(bytes)) return true;
          body.stop();
          if (this.#over) resolve(undefined);
          else reject(new BodyTooLarge(this.#parts.settings.bodyBytes));
          return false;
        },
        end: (rawTrailers) => {
          this.#trailers = rawTrailers;
          resolve(kept.whole());
        },
        broken: (cause) => {
          body.stop();
          reject(cause);
        },
      });
    });
  }

  #keep(): KeptBytes {
    const kept = new KeptBytes(this.#parts.budget, this.#parts.settings.bodyBytes);
    this.#kept.push(kept);
    return kept;
  }

  async #inTime<T>(value: T | Promise<T>): Promise<T> {
    if (!(value instanceof Promise)) return value;
    const { timeoutMs } = this.#parts.settings;
    const late = new Promise<never>((_resolve, reject) => {
      const tooLong = (): void => reject(new Error(`it took longer than ${timeoutMs} ms`));
      this.#late = setTimeout(tooLong, timeoutMs);
    });
    try {
      return await Promise.race([value, late]);
    } finally {
      clearTimeout(this.#late);
    }
  }

  /** The store has answered, and the answer cannot be given on. */
  #breakOff(error: unknown): void {
    const inner = this.#inner;
    this.#fail('answer', error);
    inner?.cancel(new Error('its answer cannot be given on'));
  }

  #fail(part: 'request' | 'answer', error: unknown): void {
    if (this.#over) return;
    const own = notTheHooks.some((kind) => error instanceof kind);
    const cause = error instanceof Error ? error : new Error(sentenceOf(error));
    const { failed, order } = this.#parts;
    if (!own) failed(part, cause, { ...order.asked, method: this.#asked.method, route: order.route });
    this.#end(() => this.#listener.onFailed(own ? 'cancelled' : 'hook', cause));
  }

  #end(tell: () => void): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#late);
    for (const kept of this.#kept) kept.forget();
    tell();
  }
}

/** Whoever forwards knows them, and it is the client, or the lease, that they say something of. */
const notTheHooks = [LeaseLapsed, ClientBrokeOff, BodyOverLimit, HookRefused] as const;

/** A body in memory, within its own bound and that of all. */
class KeptBytes {
  readonly #budget: ByteBudget;
  readonly #bytesMax: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(budget: ByteBudget, bytesMax: number) {
    this.#budget = budget;
    this.#bytesMax = bytesMax;
  }

  /** False, and nothing kept, where a bound would be passed. */
  add(chunk: Buffer): boolean {
    const { byteLength } = chunk;
    if (this.#bytes + byteLength > this.#bytesMax || !this.#budget.take(byteLength)) return false;
    this.#bytes += byteLength;
    this.#chunks.push(chunk);
    return true;
  }

  whole(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  forget(): void {
    this.#budget.give(this.#bytes);
    this.#bytes = 0;
    this.#chunks.length = 0;
  }
}
