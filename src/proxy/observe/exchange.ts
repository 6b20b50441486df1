/** One request to legacy and its answer back, as they are: nothing waits for anything but the other side. */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http';
import type { Failure } from '../../core/failure.ts';
import type { Ending } from '../../core/observation.ts';
import { TlsFailure } from '../../stores/connect.ts';
import { answerFailure, answerInterim, breakOff, leaveBehind } from '../answer.ts';
import type { Shape } from '../shape.ts';
import type { ClientView } from '../rewrite.ts';
import { failureOf } from '../trouble.ts';
import { bodyKindOf } from '../upload.ts';
import type { Carried, Line } from './line.ts';
import type { PassingBody } from './body.ts';

export interface ExchangeOrder {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly line: Line;
  /** Flat, for legacy. */
  readonly headers: readonly string[];
  readonly shape: Shape;
  readonly view: () => ClientView;
  /** Undefined where nobody wants to look. */
  readonly body: PassingBody | undefined;
  /** The connection ends with this answer, because the process does. */
  readonly isLast: () => boolean;
  readonly ended: (report: ExchangeReport) => void;
}

export interface ExchangeReport {
  readonly ended: Ending;
  readonly status: number | undefined;
  /** From its head to the head of the answer. */
  readonly headMs: number | undefined;
  readonly requestBytes: number;
  readonly answerBytes: number;
  /** Legacy has been sent all of it, or part of it. */
  readonly sent: boolean;
  /** Why it has no whole answer, where that is known. */
  readonly error?: Error;
}

export class Exchange implements Carried {
  readonly #order: ExchangeOrder;
  readonly #asked: ClientRequest;
  readonly #sinceMs = performance.now();
  #answer: IncomingMessage | undefined;
  #headMs: number | undefined;
  #requestBytes = 0;
  #answerBytes = 0;
  #received = false;
  #over = false;

  /** Throws where the request cannot be sent at all. */
  constructor(order: ExchangeOrder) {
    this.#order = order;
    const { request, line, headers } = order;
    this.#asked = line.ask(request.method ?? '', request.url ?? '', headers);
    line.add(this);
    this.#listen();
    this.#passBodyOn();
  }

  get whole(): boolean {
    return this.#order.request.complete;
  }

  get sent(): boolean {
    return this.#received && this.#asked.writableFinished;
  }

  clientGone(): void {
    if (this.#over) return;
    this.#order.body?.ended(this.#received ? 'whole' : 'broken-off');
    this.#end('client-left');
    // What the client has sent completely still arrives; then legacy sees what the client did.
    if (!this.#received || this.#asked.writableFinished) this.#asked.destroy();
    else this.#asked.once('finish', () => this.#asked.destroy());
  }

  // --- the request -----------------------------------------------------------------------------------

  #passBodyOn(): void {
    const { request, body } = this.#order;
    const asked = this.#asked;
    asked.once('finish', () => this.#order.line.sent());
    request.on('data', this.#onData);
    request.once('end', () => {
      this.#received = true;
      body?.ended('whole');
      if (asked.writableEnded) return;
      if (request.rawTrailers.length > 0) asked.addTrailers(pairsOf(request.rawTrailers));
      asked.end();
    });
    // Without a body, head and end leave together.
    if (bodyKindOf(request) === 'none') asked.end();
    else asked.flushHeaders();
  }

  readonly #onData = (chunk: Buffer): void => {
    const { request, body } = this.#order;
    this.#requestBytes += chunk.byteLength;
    body?.take(chunk);
    if (this.#asked.destroyed || this.#asked.write(chunk)) return;
    request.pause();
    this.#asked.once('drain', () => request.resume());
  };

  // --- the answer ------------------------------------------------------------------------------------

  #listen(): void {
    const { response, request } = this.#order;
    const asked = this.#asked;
    response.on('error', () => {});
    asked.on('continue', () => {
      if (!response.headersSent && request.httpVersionMinor > 0) response.writeContinue();
    });
    asked.on('information', ({ statusCode, rawHeaders }) => this.#inform(statusCode, rawHeaders));
    asked.once('response', (answer) => this.#passAnswerOn(answer));
    asked.on('error', (error) => this.#fail(error));
    asked.once('close', () => {
      this.#release();
      // Legacy has answered and heard enough.
      if (!this.#received && response.writableEnded) leaveBehind(request, response);
    });
  }

  #inform(status: number, rawHeaders: readonly string[]): void {
    const { response, request, shape } = this.#order;
    // Of 100 another event tells.
    if (this.#over || response.headersSent || status === 100) return;
    answerInterim(request, response, status, shape.beside([...rawHeaders]));
  }

  #passAnswerOn(answer: IncomingMessage): void {
    const { response } = this.#order;
    this.#answer = answer;
    this.#headMs = performance.now() - this.#sinceMs;
    answer.on('error', (error) => this.#fail(error));
    answer.once('close', () => {
      if (!answer.complete) this.#fail(new Error('legacy broke off its answer'));
    });
    if (this.#over) return;
    if (!this.#writeHead(answer)) return;
    answer.on('data', (chunk: Buffer) => {
      this.#answerBytes += chunk.byteLength;
      if (response.destroyed || response.write(chunk)) return;
      answer.pause();
      response.once('drain', () => answer.resume());
    });
    answer.once('end', () => {
      if (!answer.complete || this.#over) return;
      const trailers = this.#order.shape.beside([...answer.rawTrailers]);
      if (trailers.length > 0 && response.chunkedEncoding) response.addTrailers(pairsOf(trailers));
      response.end(() => this.#end('answered'));
    });
    // A stream of events begins with a head and nothing else.
    process.nextTick(() => {
      if (!this.#over) response.flushHeaders();
    });
  }

  #writeHead(answer: IncomingMessage): boolean {
    const { request, response, shape, view, isLast } = this.#order;
    const { statusCode = 502, statusMessage = '' } = answer;
    response.sendDate = false;
    // What legacy does not say, nobody says in its place.
    for (const name of ['Connection', 'Content-Length', 'Transfer-Encoding']) response.removeHeader(name);
    const shaped = shape.answer(framed(answer, request.httpVersionMinor), request, view);
    const headers = isLast() ? closing(shaped) : shaped;
    const reason = /^[\t\x20-\x7e\x80-\xff]*$/.test(statusMessage) ? statusMessage : '';
    try {
      response.writeHead(statusCode, reason, headers);
      return true;
    } catch (cause) {
      this.#fail(new Error('the head of the answer cannot be passed on', { cause }));
      return false;
    }
  }

  // --- the end ---------------------------------------------------------------------------------------

  #fail(error: Error): void {
    if (this.#over || this.#answer?.complete === true) return;
    const { request, response, line } = this.#order;
    if (line.stage === 'open') {
      // The client sees what it would have seen: a connection that ends.
      this.#end(line.clientEnded ? 'client-left' : 'store-broke-off', error);
      if (response.headersSent) breakOff(request, response);
      else request.socket.destroySoon();
      this.#asked.destroy();
      return;
    }
    this.#end('unreachable', error);
    request.off('data', this.#onData);
    answerFailure(request, response, this.#unreachable(error), '');
  }

  #unreachable(error: Error): Failure {
    const at = { store: 'legacy', access: 'write', sending: false } as const;
    if (this.#order.line.stage === 'handshake')
      return failureOf('tls', { ...at, reason: new TlsFailure(error).reason });
    return failureOf('code' in error && error.code === 'ETIMEDOUT' ? 'connect-timeout' : 'refused', at);
  }

  #end(ended: Ending, error?: Error): void {
    if (this.#over) return;
    this.#over = true;
    const { line, body } = this.#order;
    if (ended !== 'answered') body?.ended(this.#received ? 'whole' : 'broken-off');
    this.#release();
    this.#order.ended({
      ...{ ended, status: this.#answer?.statusCode, headMs: this.#headMs },
      ...{ requestBytes: this.#requestBytes, answerBytes: this.#answerBytes },
      // One that waits for its turn has no connection yet.
      sent: line.stage === 'open' && Boolean(this.#asked.socket),
      ...(error === undefined ? {} : { error }),
    });
  }

  /** Both sides are done with it. */
  #release(): void {
    if (this.#over && this.#asked.destroyed) this.#order.line.over(this);
  }
}

/**
 * The answer's fields for a client of this version. Of two ways to say how long a body is, the newer one counts; a
 * body that is not there has no coding.
 */
function framed({ rawHeaders, headers, statusCode }: IncomingMessage, minor: number): string[] {
  const dropped: string[] = [];
  const coded = headers['transfer-encoding'] !== undefined;
  const uncodable = minor === 0 || statusCode === 204 || statusCode === 304;
  if (coded) dropped.push('content-length');
  if (coded && uncodable) dropped.push('transfer-encoding');
  if (!coded || uncodable) dropped.push('trailer');
  return pairsOf(rawHeaders)
    .filter(([name]) => !dropped.includes(name.toLowerCase()))
    .flat();
}

/** This is the last answer on the connection, whatever legacy says of its own. */
function closing(headers: readonly string[]): string[] {
  const others = pairsOf(headers).filter(([name]) => !/^(?:connection|keep-alive)$/i.test(name));
  return [...others.flat(), 'Connection', 'close'];
}

export function pairsOf(flat: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < flat.length; at += 2) pairs.push([flat[at] ?? '', flat[at + 1] ?? '']);
  return pairs;
}
