/**
 * The request's body on its way to the store. Small bodies are read whole before anything is sent, so that
 * a client that breaks off has written nothing; larger ones are streamed, every chunk under the lease.
 */
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/** Bodies up to this size are read before the request is sent upstream. */
export const wholeBodyBytesMax = 65_536;

export type BodyKind = 'none' | 'whole' | 'streamed';

export function bodyKindOf(request: IncomingMessage): BodyKind {
  if (request.headers['transfer-encoding'] !== undefined) return 'streamed';
  const length = request.headers['content-length'];
  if (length === undefined || Number(length) === 0) return 'none';
  return Number(length) <= wholeBodyBytesMax ? 'whole' : 'streamed';
}

/** Calls back with the whole body, or not at all where the client breaks off. */
export function readWhole(request: IncomingMessage, done: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.once('end', () => {
    const [first] = chunks;
    done(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks));
  });
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

/**
 * A stream of its own, because the client library destroys what it sends from, and the client's connection
 * must outlive a failed upload to get its answer.
 */
export class Upload extends Readable {
  readonly #request: IncomingMessage;
  readonly #mayContinue: () => boolean;
  #attached = false;
  #received = false;

  constructor(request: IncomingMessage, mayContinue: () => boolean) {
    super();
    // Whoever sends from it learns of its errors; until then nobody has to.
    this.on('error', () => {});
    this.#request = request;
    this.#mayContinue = mayContinue;
  }

  /** The client has sent its whole body; it may go away without breaking the upload. */
  get received(): boolean {
    return this.#received;
  }

  override _read(): void {
    if (!this.#attached) {
      this.#attached = true;
      this.#request.on('data', this.#onData);
      this.#request.on('end', this.#onEnd);
      this.#request.on('close', this.#onClose);
    }
    this.#request.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#request.off('data', this.#onData);
    this.#request.off('end', this.#onEnd);
    this.#request.off('close', this.#onClose);
    callback(error);
  }

  readonly #onData = (chunk: Buffer): void => {
    if (!this.#mayContinue()) {
      this.destroy(new LeaseLapsed());
      return;
    }
    if (!this.push(chunk)) this.#request.pause();
  };

  readonly #onEnd = (): void => {
    this.#received = true;
    this.push(null);
  };

  readonly #onClose = (): void => {
    if (!this.#received) this.destroy(new ClientBrokeOff());
  };
}
