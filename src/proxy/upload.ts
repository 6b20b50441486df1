/**
 * The request's body on its way to the store. Small bodies are read whole before anything is sent, so that
 * a client that breaks off has written nothing; larger ones are streamed, every chunk under the lease.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { UpstreamBody, UpstreamBodySink } from './upstream.ts';

/** Bodies up to this size are read before the request is sent upstream. */
export const wholeBodyBytesMax = 65_536;

export type BodyKind = 'none' | 'whole' | 'streamed';

/** Whole bodies that were read before their request was admitted. */
const readBefore = new WeakMap<IncomingMessage, Buffer>();

/** What has been read of bodies that were longer than whoever read them wanted to go. */
const begunBefore = new WeakMap<IncomingMessage, Buffer>();

/** From now on whoever wants the body gets it from memory. */
export function bodyWasRead(request: IncomingMessage, body: Buffer): void {
  readBefore.set(request, body);
}

/** From now on whoever wants the body gets this first, and the rest from the connection. */
export function bodyWasBegun(request: IncomingMessage, beginning: Buffer): void {
  begunBefore.set(request, beginning);
}

/** Says 100 to a client that waits for it before it sends its body (RFC 9110, 10.1.1). */
export function askForBody(request: IncomingMessage, response: ServerResponse): void {
  if (readBefore.has(request) || begunBefore.has(request) || response.headersSent) return;
  if (request.headers.expect !== undefined && request.httpVersionMinor > 0) response.writeContinue();
}

export function bodyKindOf(request: IncomingMessage): BodyKind {
  const body = readBefore.get(request);
  if (body !== undefined) return body.byteLength === 0 ? 'none' : 'whole';
  if (begunBefore.has(request) || request.headers['transfer-encoding'] !== undefined) return 'streamed';
  const length = request.headers['content-length'];
  if (length === undefined || Number(length) === 0) return 'none';
  return Number(length) <= wholeBodyBytesMax ? 'whole' : 'streamed';
}

/** Calls back with the whole body, or not at all where the client breaks off. */
export function readWhole(request: IncomingMessage, done: (body: Buffer) => void): void {
  const body = readBefore.get(request);
  if (body !== undefined) {
    done(body);
    return;
  }
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.once('end', () => {
    const [first] = chunks;
    done(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks));
  });
}

/**
 * Calls back once with the whole body; with what of it has come (the request is paused then), where it is
 * longer than `bytesMax`; or with nothing, where `take` has no room for more. Returns the way out.
 */
export function readBeginning(
  request: IncomingMessage,
  bytesMax: number,
  take: (bytes: number) => boolean,
  done: (body: { readonly bytes: Buffer; readonly whole: boolean } | undefined) => void,
): () => void {
  const body = readBefore.get(request);
  if (body !== undefined) {
    // Its bytes are in somebody's account already.
    done({ bytes: body, whole: true });
    return () => {};
  }
  // In somebody's account already, too.
  const begun = begunBefore.get(request);
  if (begun !== undefined && begun.byteLength > bytesMax) {
    done({ bytes: begun, whole: false });
    return () => {};
  }
  const chunks: Buffer[] = begun === undefined ? [] : [begun];
  let bytes = begun?.byteLength ?? 0;
  const leave = (): void => {
    request.off('data', onData);
    request.off('end', onEnd);
  };
  const onData = (chunk: Buffer): void => {
    if (!take(chunk.byteLength)) {
      leave();
      done(undefined);
      return;
    }
    chunks.push(chunk);
    bytes += chunk.byteLength;
    if (bytes <= bytesMax) return;
    leave();
    request.pause();
    done({ bytes: Buffer.concat(chunks), whole: false });
  };
  const onEnd = (): void => {
    leave();
    done({ bytes: Buffer.concat(chunks), whole: true });
  };
  request.on('data', onData);
  request.on('end', onEnd);
  // Whoever began has paused it.
  if (begun !== undefined) request.resume();
  return leave;
}

/** Writes of which a store may have got a part while the client was still sending. */
const partlySent = new WeakSet<IncomingMessage>();

export function bodyIsBeingSent(request: IncomingMessage): void {
  partlySent.add(request);
}

export function isBodyPartlySent(request: IncomingMessage): boolean {
  return partlySent.has(request);
}

export class BodyOverLimit extends Error {
  readonly bytesMax: number;

  constructor(bytesMax: number) {
    super('the body of the request is larger than allowed');
    this.name = 'BodyOverLimit';
    this.bytesMax = bytesMax;
  }
}

export class ClientBrokeOff extends Error {
  constructor() {
    super('the client ended the connection before its request was complete');
    this.name = 'ClientBrokeOff';
  }
}

export class LeaseLapsed extends Error {
  constructor() {
    super('the lease lapsed before the request was sent completely');
    this.name = 'LeaseLapsed';
  }
}

/** A body that goes on to the store while the client still sends it. */
export class Upload implements UpstreamBody {
  readonly length: number | undefined;
  readonly #request: IncomingMessage;
  readonly #mayContinue: () => boolean;
  readonly #trailersOf: (raw: readonly string[]) => readonly string[];
  readonly #bytesMax: number;
  #bytes = 0;
  #beginning: Buffer | undefined;
  #sink: UpstreamBodySink | undefined;
  #attached = false;
  #received = false;

  /** `beginning`: what of the body has been read already, where it is not what the request remembers. */
  constructor(
    request: IncomingMessage,
    mayContinue: () => boolean,
    trailersOf: (raw: readonly string[]) => readonly string[],
    bytesMax: number,
    beginning: Buffer | undefined = begunBefore.get(request),
  ) {
    const { 'content-length': length, 'transfer-encoding': coding } = request.headers;
    this.length = length === undefined || coding !== undefined ? undefined : Number(length);
    this.#bytesMax = bytesMax;
    this.#request = request;
    this.#mayContinue = mayContinue;
    this.#trailersOf = trailersOf;
    this.#beginning = beginning;
  }

  /** The client has sent its whole body; it may go away without breaking the upload. */
  get received(): boolean {
    return this.#received;
  }

  start(sink: UpstreamBodySink): void {
    this.#sink = sink;
    const beginning = this.#beginning;
    this.#beginning = undefined;
    if (beginning === undefined || this.#pass(beginning)) this.resume();
  }

  resume(): void {
    if (!this.#attached) {
      this.#attached = true;
      this.#request.on('data', this.#onData);
      this.#request.on('end', this.#onEnd);
      this.#request.on('close', this.#onClose);
    }
    this.#request.resume();
  }

  stop(): void {
    this.#sink = undefined;
    this.#request.off('data', this.#onData);
    this.#request.off('end', this.#onEnd);
    this.#request.off('close', this.#onClose);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (!this.#mayContinue()) this.#sink?.broken(new LeaseLapsed());
    else if (!this.#pass(chunk)) this.#request.pause();
  };

  /** False: no more for now. */
  #pass(chunk: Buffer): boolean {
    this.#bytes += chunk.byteLength;
    if (this.#bytes > this.#bytesMax) {
      this.#sink?.broken(new BodyOverLimit(this.#bytesMax));
      return false;
    }
    return this.#sink?.piece(chunk) !== false;
  }

  readonly #onEnd = (): void => {
    this.#received = true;
    this.#sink?.end(this.#trailersOf(this.#request.rawTrailers));
  };

  readonly #onClose = (): void => {
    if (!this.#received) this.#sink?.broken(new ClientBrokeOff());
  };
}
