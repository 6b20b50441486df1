/**
 * Step 4: one request to its store and the answer back, both streamed. Holds the write's ticket and ends
 * it exactly once: `ended` after a complete answer, `not-sent` where no byte left, else `in-doubt`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Failure } from '../core/failure.ts';
import type { WriteOutcome } from '../core/member.ts';
import type { StoreName } from '../core/ownership.ts';
import type { Doorbell, RecordKey, WriteGate, UserCalls } from '../core/ports.ts';
import type { Passage } from './admit.ts';
import { answerAgain, answerInterim, breakOff, isOver, leaveBehind } from './answer.ts';
import type { MatchedRequest } from './classify.ts';
import { type EventStreams, isEventStream } from './event-streams.ts';
import { pairsOf, framed, responseHeaders } from './headers.ts';
import type { KeyDecision, KeyedWrite } from './idempotency.ts';
import { RecordFinder } from './record.ts';
import { bodyTooSlow, failureBy, lapsedFailure, leavesDoubt } from './trouble.ts';
import { askForBody, bodyIsBeingSent, bodyKindOf, BodyOverLimit, readWhole, Upload } from './upload.ts';
import type { FailedStage, Upstream, UpstreamExchange, UpstreamListener } from './upstream.ts';

export interface ForwardOrder {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly matched: MatchedRequest;
  readonly passage: Passage;
  /** As the store will see it. */
  readonly target: string;
  readonly headers: string[];
  readonly upstream: Pick<Upstream, 'send'>;
  readonly writeTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly bodyBytesMax: number;
  /** Fields added to an answer of this store and epoch, flat. */
  readonly answerFields: (from: Pick<Passage, 'store' | 'epoch' | 'lagMs'>) => readonly string[];
  /** What the client gets of the store's header fields, flat: of an answer's head, or of what comes beside it. */
  readonly shaped: (part: 'head' | 'beside', store: StoreName, headers: string[]) => string[];
  /** What the store gets of the fields behind the request's body, flat. */
  readonly trailers: (raw: readonly string[]) => string[];
  /** The write's Idempotency-Key, which must be taken before anything is sent. */
  readonly keyed: KeyedWrite | undefined;
  readonly gate: WriteGate;
  readonly doorbell: Doorbell;
  readonly userCalls: UserCalls | undefined;
  readonly eventStreams: EventStreams;
  /** Answers in the store's place. */
  readonly answer: (failure: Failure) => void;
  /** Ends this one request on an error that should not exist. */
  readonly bug: (error: unknown) => void;
  /** Once, at the very end. */
  readonly ended: (report: ForwardReport) => void;
}

export interface ForwardReport {
  /** Of the answer that the client got, or would have got. */
  readonly status: number;
  /** Of a write. */
  readonly outcome: WriteOutcome | undefined;
  /** Why the exchange failed, and how far it was, if it did. */
  readonly cause?: Error;
  readonly stage?: FailedStage;
  /** Answered without an exchange, because of its key. */
  readonly byKey?: 'replayed' | 'refused';
  /** An event stream that was ended because its partition had moved, or the proxy was told to end. */
  readonly streamEnded?: true;
}

/** Starts the exchange; everything later happens through callbacks. */
export function forward(order: ForwardOrder): void {
  new Forwarding(order).start();
}

const joinedBytesMax = 8_192;
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
  #mayFlush = false;
  #flushed = false;
  #paused = false;
  /** Would complete a keyed write's answer, so it waits until the answer is stored. */
  #lastChunk: Buffer | undefined;
  /** Of an event stream. */
  #stopWatching = (): void => {};

  constructor(order: ForwardOrder) {
    this.#order = order;
    const { matched, passage } = order;
    this.#write = matched.access === 'write';
    const rings = this.#write && passage.partition !== undefined;
    this.#finder = rings ? RecordFinder.of(passage.partition, matched.route) : undefined;
  }

  start(): void {
    const { request, response, writeTimeoutMs, keyed } = this.#order;
    response.on('close', this.#onClientClose);
    if (this.#write) this.#timer = setTimeout(this.#onTimeout, writeTimeoutMs);
    if (keyed?.refusal !== undefined) {
      this.#goByKey({ decision: 'refuse', failure: keyed.refusal });
      return;
    }
    const bodyKind = bodyKindOf(request);
    if (bodyKind !== 'none') askForBody(request, response);
    if (keyed !== undefined) {
      keyed.begin(this.#goByKey, this.#order.bug);
      return;
    }
    switch (bodyKind) {
      case 'none':
        this.#send(null);
        return;
      case 'whole':
        readWhole(request, (body) => this.#send(body));
        return;
      case 'streamed':
        this.#upload = this.#newUpload();
        this.#send(this.#upload);
        return;
    }
  }

  /** The key was taken, or it tells what became of the first write with it. */
  readonly #goByKey = (decision: KeyDecision): void => {
    if (this.#over) return;
    const { request, response, answer, answerFields, shaped } = this.#order;
    switch (decision.decision) {
      case 'send': {
        const { bytes, whole } = decision.body;
        if (!whole) this.#upload = this.#newUpload(bytes);
        this.#send(this.#upload ?? (bytes.byteLength === 0 ? null : bytes));
        return;
      }
      case 'replay': {
        const { first, answer: kept } = decision;
        const fields = answerFields({ store: first.owner, epoch: first.epoch });
        void this.#finish('not-sent', { byKey: 'replayed' });
        // Kept as the store gave it: this client may address the proxy by another name.
        const headers = shaped('head', first.owner, [...kept.headers]);
        answerAgain(request, response, { ...kept, headers }, fields);
        return;
      }
      case 'refuse':
        void this.#finish('not-sent', { byKey: 'refused' });
        answer(decision.failure);
        return;
    }
  };

  #newUpload(beginning?: Buffer): Upload {
    const { request, trailers, bodyBytesMax } = this.#order;
    return new Upload(request, this.#mayContinue, trailers, bodyBytesMax, beginning);
  }

  #send(body: Buffer | Upload | null): void {
    if (this.#over) return;
    // Its body can turn out to be no HTTP while its key is asked for.
    if (isOver(this.#order.request, this.#order.response)) return this.#onClientClose();
    const { request, upstream, matched, target, headers, readTimeoutMs, bodyBytesMax } = this.#order;
    // One that was read before its length was known.
    if (Buffer.isBuffer(body) && body.byteLength > bodyBytesMax) {
      this.onFailed('cancelled', new BodyOverLimit(bodyBytesMax));
      return;
    }
    const trailers = this.#order.trailers(request.rawTrailers);
    this.#exchange = upstream.send(
      {
        ...{ method: matched.method, target, headers, trailers },
        body: body ?? (trailers.length > 0 ? Buffer.alloc(0) : null),
        // A write has its own total timer.
        headTimeoutMs: this.#write ? 0 : readTimeoutMs,
        stream: this.#write
          ? 'no'
          : request.headers.accept?.startsWith('text/event-stream') === true
            ? 'announced'
            : 'possible',
      },
      this,
    );
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
    this.#order.userCalls?.sent(this.#order.passage);
    if (this.#write && this.#upload !== undefined) bodyIsBeingSent(this.#order.request);
    return true;
  }

  onInformation(status: number, rawHeaders: string[]): void {
    // A 100 is said here, when the request is admitted.
    if (status < 103 || this.#clientGone) return;
    const { request, response } = this.#order;
    answerInterim(request, response, status, this.#shaped('beside', rawHeaders));
  }

  onHead(status: number, reason: string, rawHeaders: string[]): void {
    this.#status = status;
    const { response, answerFields, passage, matched, keyed } = this.#order;
    if (status === 429 || status === 503) this.#tellLimited(status, rawHeaders);
    this.#finder?.head(status, rawHeaders);
    keyed?.answer.head(status, rawHeaders, matched.method === 'HEAD');
    if (this.#clientGone) return;
    response.sendDate = false;
    try {
      const headers = framed(this.#order.request, status, this.#shaped('head', rawHeaders));
      for (const text of answerFields(passage)) headers.push(text);
      response.writeHead(status, /^[\t\x20-\x7e\x80-\xff]*$/.test(reason) ? reason : '', headers);
    } catch (cause) {
      this.#exchange?.cancel(new Error('the head of the answer cannot be passed on', { cause }));
      return;
    }
    this.#mayFlush = keyed?.answer.looksComplete !== true;
    if (!this.#write && isEventStream(rawHeaders)) {
      const { eventStreams, gate } = this.#order;
      this.#stopWatching = eventStreams.watch(gate, passage, this.#endStream);
    }
  }

  #tellLimited(status: number, rawHeaders: readonly string[]): void {
    const at = rawHeaders.findIndex((name, index) => index % 2 === 0 && name.toLowerCase() === 'retry-after');
    const retryAfter = at === -1 ? undefined : rawHeaders[at + 1];
    if (status === 503 && retryAfter === undefined) return;
    this.#order.userCalls?.limited(this.#order.passage, retryAfter);
  }

  /** Between two events or not: what is unfinished at the end of a stream is no event. */
  readonly #endStream = (): void => {
    if (this.#over || this.#clientGone) return;
    this.#flush();
    void this.#finish('ended', { streamEnded: true });
    this.#clientGone = true;
    this.#order.response.end();
    this.#exchange?.cancel(new Error('the event stream was ended'));
  };

  #shaped(part: 'head' | 'beside', raw: readonly string[]): string[] {
    return this.#order.shaped(part, this.#order.passage.store, responseHeaders(raw));
  }

  onData(chunk: Buffer): void {
    const { keyed } = this.#order;
    this.#finder?.data(chunk);
    keyed?.answer.data(chunk);
    if (this.#clientGone) return;
    if (keyed?.answer.looksComplete === true) {
      this.#lastChunk = chunk;
      return;
    }
    if (!this.#flushed && this.#firstChunk === undefined) {
      this.#firstChunk = chunk;
      return;
    }
    this.#flush();
    this.#pass(chunk);
  }

  onCaughtUp(): void {
    if (this.#mayFlush) this.#flush();
  }

  onEnd(rawTrailers: string[]): void {
    const record = this.#finder?.found();
    if (record !== undefined) this.#ring(record);
    const doubtful = this.#order.matched.access === 'write' && leavesDoubt(this.#status);
    const settled = this.#finish(doubtful ? 'in-doubt' : 'ended');
    if (this.#clientGone) return;
    this.#afterKey(settled, () => this.#endAnswer(rawTrailers));
  }

  /** Under `partition` a route names the record's own; where it does not, it can be that of any it touches. */
  #ring(record: RecordKey): void {
    const { matched, passage, doorbell } = this.#order;
    doorbell.ring(record);
    if (matched.route?.rule.partition !== undefined) return;
    for (const { partition } of passage.also ?? []) doorbell.ring({ ...record, partition });
  }

  #endAnswer(rawTrailers: string[]): void {
    const { request, response } = this.#order;
    if (response.destroyed) return;
    if (rawTrailers.length > 0) response.addTrailers(pairsOf(this.#shaped('beside', rawTrailers)));
    this.#flushed = true;
    const [first, last] = [this.#firstChunk, this.#lastChunk];
    const rest = first !== undefined && last !== undefined ? Buffer.concat([first, last]) : (first ?? last);
    if (rest === undefined) response.end();
    // As text a short rest leaves in one piece with the head.
    else if (rest.byteLength <= joinedBytesMax) response.end(rest.toString('latin1'), 'latin1');
    else response.end(rest);
    if (!request.complete) leaveBehind(request, response);
  }

  onFailed(stage: FailedStage, cause: Error): void {
    const { request, response, passage, matched, keyed, answer } = this.#order;
    const at = { store: passage.store, access: matched.access, sending: this.#sending };
    const bodyIsLate = this.#exchange === undefined && this.#timeIsUp;
    const failure = this.#lapsed
      ? lapsedFailure(passage.store, this.#sending)
      : bodyIsLate
        ? (keyed?.waitsFor ?? bodyTooSlow)
        : failureBy(cause, this.#timeIsUp ? 'timeout' : stage, at);
    const settled = this.#finish(this.#sending ? 'in-doubt' : 'not-sent', {
      cause,
      stage: this.#stageOf(stage),
    });
    if (this.#clientGone) return;
    if (response.headersSent) breakOff(request, response);
    else this.#afterKey(settled, () => answer(failure));
  }

  /** Whose time was up: it is not the store that is slow while the client is still sending. */
  #stageOf(stage: FailedStage): FailedStage {
    if (!this.#timeIsUp) return stage;
    return this.#exchange !== undefined && this.#upload?.received !== false ? 'timeout' : 'cancelled';
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

  #flush(): void {
    if (this.#flushed || this.#clientGone) return;
    this.#flushed = true;
    const chunk = this.#firstChunk;
    this.#firstChunk = undefined;
    if (chunk === undefined) this.#order.response.flushHeaders();
    else this.#pass(chunk);
  }

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

  /** Resolves when the write's key, if it has one, tells how the write ended, or after a bounded wait. */
  #finish(
    outcome: WriteOutcome,
    why: Pick<ForwardReport, 'cause' | 'stage' | 'byKey' | 'streamEnded'> = {},
  ): Promise<void> | undefined {
    if (this.#over) return undefined;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#stopWatching();
    const { passage, gate, keyed, ended } = this.#order;
    const complete = why.cause === undefined && why.byKey === undefined;
    const settled = keyed?.end(complete ? 'answered' : outcome === 'in-doubt' ? 'in-doubt' : 'not-sent');
    if (passage.ticket !== undefined) gate.end(passage.ticket, outcome);
    ended({ status: this.#status, outcome: this.#write ? outcome : undefined, ...why });
    return settled;
  }

  /** A client that repeats its write as soon as it is answered must find its key as this write left it. */
  #afterKey(settled: Promise<void> | undefined, step: () => void): void {
    if (settled === undefined) step();
    else settled.then(step).catch(this.#order.bug);
  }
}
