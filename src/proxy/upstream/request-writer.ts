/**
 * A request as bytes. Fields stay in their order, case and number; those that frame the body say what is really
 * sent, where the client had one of them, else at the end (RFC 9112, 6).
 */
import type { Socket } from 'node:net';
import type { UpstreamBody, UpstreamBodySink, UpstreamRequest } from '../upstream.ts';

/** Up to here a body leaves together with its head, as one string. */
const joinedBytesMax = 8_192;

/** How a body that is sent piece by piece goes on. */
export interface BodyWatch {
  onProgress(): void;
  onSent(): void;
  onBroken(cause: Error): void;
}

/** Writes what there is of the request; the rest, where its body is still being received, is sent by the result. */
export function writeRequest(
  socket: Socket,
  request: UpstreamRequest,
  watch: BodyWatch,
): BodySender | undefined {
  const { body, trailers } = request;
  if (body === null) {
    socket.write(headOf(request, noBodyOf(request.method)), 'latin1');
    return undefined;
  }
  if (!Buffer.isBuffer(body)) {
    const { length } = body;
    socket.write(headOf(request, length === undefined ? chunked : lengthOf(length)), 'latin1');
    return new BodySender(socket, body, watch);
  }
  if (trailers !== undefined && trailers.length > 0) {
    const size = body.byteLength === 0 ? '' : `${body.byteLength.toString(16)}\r\n`;
    socket.cork();
    socket.write(`${headOf(request, chunked)}${size}`, 'latin1');
    if (body.byteLength > 0) socket.write(body);
    socket.write(`${size === '' ? '' : '\r\n'}${lastChunk(trailers)}`, 'latin1');
    socket.uncork();
    return undefined;
  }
  const head = headOf(request, lengthOf(body.byteLength));
  if (body.byteLength <= joinedBytesMax) {
    socket.write(head + body.toString('latin1'), 'latin1');
    return undefined;
  }
  socket.cork();
  socket.write(head, 'latin1');
  socket.write(body);
  socket.uncork();
  return undefined;
}

interface Framing {
  readonly field: 'Content-Length' | 'Transfer-Encoding';
  readonly value: string;
  /** To be said also where the client said nothing about a body. */
  readonly needed: boolean;
}

const chunked: Framing = { field: 'Transfer-Encoding', value: 'chunked', needed: true };
/** Where a body would mean something, its absence is said (RFC 9110, 8.6). */
const bodyExpected = new Set(['POST', 'PUT', 'PATCH']);

function lengthOf(bytes: number): Framing {
  return { field: 'Content-Length', value: String(bytes), needed: true };
}

function noBodyOf(method: string): Framing {
  return { field: 'Content-Length', value: '0', needed: bodyExpected.has(method) };
}

function headOf({ method, target, headers }: UpstreamRequest, framing: Framing): string {
  let head = `${method} ${target} HTTP/1.1\r\n`;
  let open = true;
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? '';
    // Most names are none of the three by their length alone.
    const lower = name.length === 14 || name.length === 17 || name.length === 7 ? name.toLowerCase() : '';
    if (lower === 'content-length' || lower === 'transfer-encoding') {
      const same = lower === framing.field.toLowerCase();
      if (open) head += `${same ? name : framing.field}: ${framing.value}\r\n`;
      open = false;
    } else if (lower !== 'trailer' || framing === chunked) {
      head += `${name}: ${headers[at + 1] ?? ''}\r\n`;
    }
  }
  if (open && framing.needed) head += `${framing.field}: ${framing.value}\r\n`;
  return `${head}Connection: keep-alive\r\n\r\n`;
}

function lastChunk(trailers: readonly string[]): string {
  let last = '0\r\n';
  for (let at = 0; at < trailers.length; at += 2)
    last += `${trailers[at] ?? ''}: ${trailers[at + 1] ?? ''}\r\n`;
  return `${last}\r\n`;
}

/** Sends a body as it comes, as fast as the store takes it, and exactly as much as was announced. */
export class BodySender implements UpstreamBodySink {
  readonly #socket: Socket;
  readonly #body: UpstreamBody;
  readonly #watch: BodyWatch;
  /** Bytes that must still come, where their number was announced. */
  #left: number | undefined;
  #over = false;

  constructor(socket: Socket, body: UpstreamBody, watch: BodyWatch) {
    this.#socket = socket;
    this.#body = body;
    this.#watch = watch;
    this.#left = body.length;
  }

  start(): void {
    this.#body.start(this);
  }

  piece(bytes: Buffer): boolean {
    if (this.#over) return false;
    if (bytes.byteLength === 0) return true;
    this.#watch.onProgress();
    const socket = this.#socket;
    if (this.#left === undefined) {
      socket.cork();
      socket.write(`${bytes.byteLength.toString(16)}\r\n`, 'latin1');
      socket.write(bytes);
      const more = socket.write('\r\n', 'latin1');
      socket.uncork();
      return more;
    }
    if (bytes.byteLength > this.#left) {
      this.broken(new Error('the body is longer than its Content-Length'));
      return false;
    }
    this.#left -= bytes.byteLength;
    return socket.write(bytes);
  }

  end(rawTrailers: readonly string[]): void {
    if (this.#over) return;
    if (this.#left !== undefined && this.#left > 0) {
      this.broken(new Error('the body is shorter than its Content-Length'));
      return;
    }
    this.#over = true;
    if (this.#left === undefined) this.#socket.write(lastChunk(rawTrailers), 'latin1');
    this.#watch.onSent();
  }

  broken(cause: Error): void {
    if (this.#over) return;
    this.stop();
    this.#watch.onBroken(cause);
  }

  /** The store takes more. */
  drained(): void {
    if (!this.#over) this.#body.resume();
  }

  stop(): void {
    if (this.#over) return;
    this.#over = true;
    this.#body.stop();
  }
}
