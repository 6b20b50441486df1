/**
 * Step 4: one request to its store and the answer back, both streamed. Holds the write's ticket and ends
 * it exactly once: `ended` after a complete answer, `not-sent` where no byte left, else `in-doubt`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Failure } from '../core/failure.ts';
import type { WriteOutcome } from '../core/member.ts';
import type { Doorbell, WriteGate } from '../core/ports.ts';
import type { Passage } from './admit.ts';
import { breakOff, leaveBehind } from './answer.ts';
import type { MatchedRequest } from './classify.ts';
import { responseHeaders } from './headers.ts';
import { RecordFinder } from './record.ts';
import { bodyTooSlow, failureOf, lapsedFailure } from './trouble.ts';
import { bodyKindOf, LeaseLapsed, readWhole, Upload } from './upload.ts';
import type { FailedStage, Upstream, UpstreamExchange, UpstreamListener } from './upstream.ts';

export interface ForwardOrder {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly matched: MatchedRequest;
  readonly passage: Passage;
  /** As the store will see it. */
  readonly target: string;
  readonly headers: string[];
  readonly upstream: Upstream;
  readonly writeTimeoutMs: number;
  readonly readTimeoutMs: number;
  /** Fields added to the answer, flat. */
  readonly answerFields: readonly string[];
  readonly gate: WriteGate;
  readonly doorbell: Doorbell;
  /** Answers in the store's place. */
  readonly answer: (failure: Failure) => void;
  /** Once, at the very end. */
  readonly ended: (report: ForwardReport) => void;
}

export interface ForwardReport {
  /** Of the answer that the client got, or would have got. */
  readonly status: number;
  readonly outcome: WriteOutcome | undefined;
  /** Why the exchange failed, if it did. */
  readonly cause?: Error;
}

/** Starts the exchange; everything later happens through callbacks. */
export function forward(order: ForwardOrder): void {
  new Forwarding(order).start();
}

const timedOut = new Error('the total write timeout passed');

class Forwarding implements UpstreamListener {
  readonly #order: ForwardOrder;
  readonly #write: boolean;
  readonly #finder: RecordFinder | undefined;
  #exchange: UpstreamExchange | undefined;
  #timer: NodeJS.Timeout | undefined;
  #upload: Upload | undefined;
  #sending = false;
  #timeIsUp = false;
  #lapsed = false;
  #clientGone = false;
  #over = false;
  #status = 0;
  /** Head or first chunk that waits for company, so that small answers leave in one write. */
  #firstChunk: Buffer | undefined;
  #flushed = false;
  #paused = false;

  constructor(order: ForwardOrder) {
    this.#order = order;
    const { matched, passage } = order;
    this.#write = matched.access === 'write';
    const rings = this.#write && passage.partition !== undefined;
    this.#finder = rings ? RecordFinder.of(passage.partition, matched.route) : undefined;
  }

  start(): void {
    const { request, response, writeTimeoutMs } = this.#order;
    response.on('close', this.#onClientClose);
    if (this.#write) this.#timer = setTimeout(this.#onTimeout, writeTimeoutMs);
    const bodyKind = bodyKindOf(request);
    if (bodyKind !== 'none') {
      const { expect } = request.headers;
      if (expect !== undefined && request.httpVersionMinor > 0) response.writeContinue();
    }
    switch (bodyKind) {
      case 'none':
        this.#send(null);
        return;
      case 'whole':
        readWhole(request, (body) => this.#send(body));
        return;
      case 'streamed':
        this.#upload = new Upload(request, this.#mayContinue);
        this.#send(this.#upload);
        return;
    }
  }

  #send(body: Buffer | Upload | null): void {
    if (this.#over) return;
    const { upstream, matched, target, headers, readTimeoutMs } = this.#order;
    // A write has its own total timer.
    const headTimeoutMs = this.#write ? 0 : readTimeoutMs;
    const exchange = upstream.send({ method: matched.method, target, headers, body, headTimeoutMs }, this);
    this.#exchange = exchange;
  }

  readonly #mayContinue = (): boolean => {
    const { passage, gate } = this.#order;
    if (passage.ticket === undefined || gate.mayContinue(passage.ticket)) return true;
    this.#lapsed = true;
    return false;
  };

  // --- what happens at the store ---------------------------------------------------------------------

  onSending(): boolean {
    if (!this.#mayContinue()) return false;
    this.#sending = true;
    return true;
  }

  onInformation(status: number, rawHeaders: string[]): void {
    const { request, response } = this.#order;
    if (status !== 103 || this.#clientGone || request.httpVersionMinor === 0) return;
    const hints: Record<string, string | string[]> = {};
    const headers = responseHeaders(rawHeaders);
    for (let at = 0; at < headers.length; at += 2) {
      const name = (headers[at] ?? '').toLowerCase();
      const value = headers[at + 1] ?? '';
      const before = hints[name];
      hints[name] = before === undefined ? value : [before, value].flat();
    }
    try {
      response.writeEarlyHints(hints);
    } catch {
      // Hints that node:http takes for malformed are only hints: the answer itself follows.
    }
  }

  onHead(status: number, reason: string, rawHeaders: string[]): void {
    this.#status = status;
    this.#finder?.head(status, rawHeaders);
    if (this.#clientGone) return;
    const { response, answerFields } = this.#order;
    response.sendDate = false;
    try {
      response.writeHead(status, /^[\t\x20-\x7e\x80-\xff]*$/.test(reason) ? reason : '', [
        ...responseHeaders(rawHeaders),
        ...answerFields,
      ]);
    } catch (cause) {
      this.#exchange?.cancel(new Error('the head of the answer cannot be passed on', { cause }));
      return;
    }
    process.nextTick(this.#flush);
  }

  onData(chunk: Buffer): void {
    this.#finder?.data(chunk);
    if (this.#clientGone) return;
    if (!this.#flushed && this.#firstChunk === undefined) {
      this.#firstChunk = chunk;
      return;
    }
    this.#flush();
    this.#pass(chunk);
  }

  onEnd(rawTrailers: string[]): void {
    const record = this.#finder?.found();
    // Before the ticket ends: a drain that this write ends must find its receipt.
    if (record !== undefined) this.#order.doorbell.ring(record);
    const { request, response } = this.#order;
    const doubtful = this.#order.matched.access === 'write' && leavesDoubt(this.#status);
    this.#finish(doubtful ? 'in-doubt' : 'ended');
    if (this.#clientGone) return;
    if (rawTrailers.length > 0) response.addTrailers(pairsOf(responseHeaders(rawTrailers)));
    this.#flushed = true;
    if (this.#firstChunk === undefined) response.end();
    else response.end(this.#firstChunk);
    if (!request.complete) leaveBehind(request, response);
  }

  onFailed(stage: FailedStage, cause: Error): void {
    const { request, response, passage, matched, answer } = this.#order;
    const lapsed = this.#lapsed || cause instanceof LeaseLapsed;
    const at = { store: passage.store, access: matched.access, sending: this.#sending };
    const failure = lapsed
      ? lapsedFailure(passage.store, this.#sending)
      : this.#exchange === undefined && this.#timeIsUp
        ? bodyTooSlow
        : failureOf(this.#timeIsUp ? 'timeout' : stage, at);
    this.#finish(this.#sending ? 'in-doubt' : 'not-sent', cause);
    if (this.#clientGone) return;
    if (response.headersSent) breakOff(request, response);
    else answer(failure);
  }

  // --- what happens at the client --------------------------------------------------------------------

  readonly #onClientClose = (): void => {
    if (this.#over) return;
    this.#clientGone = true;
    // The outcome of a write that was received whole is wanted: its answer is read to the end.
    if (this.#write && this.#sending && (this.#upload?.received ?? true)) {
      if (this.#paused) this.#exchange?.resume();
      return;
    }
    const gone = new Error('the client went away');
    if (this.#exchange === undefined) this.onFailed('cancelled', gone);
    else this.#exchange.cancel(gone);
  };

  readonly #onTimeout = (): void => {
    this.#timeIsUp = true;
    if (this.#exchange === undefined) this.onFailed('timeout', timedOut);
    else this.#exchange.cancel(timedOut);
  };

  readonly #flush = (): void => {
    if (this.#flushed || this.#clientGone) return;
    this.#flushed = true;
    const chunk = this.#firstChunk;
    this.#firstChunk = undefined;
    if (chunk === undefined) this.#order.response.flushHeaders();
    else this.#pass(chunk);
  };

  #pass(chunk: Buffer): void {
    const { response } = this.#order;
    if (response.write(chunk) || this.#paused) return;
    this.#paused = true;
    this.#exchange?.pause();
    response.once('drain', () => {
      this.#paused = false;
      this.#exchange?.resume();
    });
  }

  #finish(outcome: WriteOutcome, cause?: Error): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    const { response, passage, gate, ended } = this.#order;
    response.off('close', this.#onClientClose);
    if (passage.ticket !== undefined) gate.end(passage.ticket, outcome);
    const report = { status: this.#status, outcome: passage.ticket === undefined ? undefined : outcome };
    ended(cause === undefined ? report : { ...report, cause });
  }
}

function pairsOf(flat: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < flat.length; at += 2) pairs.push([flat[at] ?? '', flat[at + 1] ?? '']);
  return pairs;
}

/** Accepted for later (202), or answered by a gateway that does not know what became of it (502, 504, 520 to 527). */
function leavesDoubt(status: number): boolean {
  return status === 202 || status === 502 || status === 504 || (status >= 520 && status <= 527);
}
