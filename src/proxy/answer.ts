/** Answers that the proxy gives itself: refusals and failures as problem documents (RFC 9457). */
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { type Failure, failureKinds, problemOf } from '../core/failure.ts';
import type { KeptAnswer } from '../core/idempotency.ts';
import { resetConnection } from './reset.ts';

/** A body up to this size is read and dropped so that the connection stays usable. */
const droppedBodyBytesMax = 65_536;
/** How long a client may go on sending a larger body after its answer; ended sooner, it might miss the answer. */
const lingerMs = 1_000;

/** Nobody waits for what would be sent now: it was answered already (its body was no HTTP, or late), or cut off. */
export function isOver(request: IncomingMessage, response: ServerResponse): boolean {
  return response.headersSent || response.destroyed || request.socket.destroyed;
}

/** Sends the failure, or breaks the connection where an answer has begun already. */
export function answerFailure(
  request: IncomingMessage,
  response: ServerResponse,
  failure: Failure,
  challenge: string,
): void {
  if (response.headersSent) {
    breakOff(request, response);
    return;
  }
  if (response.destroyed) return;
  const body = Buffer.from(JSON.stringify(problemOf(failure)));
  response.writeHead(failureKinds[failure.code].status, [
    ...headersOf(failure, challenge),
    'Content-Length',
    String(body.byteLength),
  ]);
  response.end(body);
  leaveBehind(request, response);
}

/**
 * What a store says before its answer (RFC 9110, 15.2), in its own words: node:http knows only some of it, in another
 * order and other letters. Dropped where another answer is still due on the connection, and for HTTP/1.0.
 */
export function answerInterim(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  headers: readonly string[],
): void {
  const { socket } = response;
  if (request.httpVersionMinor === 0 || socket === null || !socket.writable) return;
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`];
  for (let at = 0; at < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`);
  socket.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

/** The rest of the request will never be understood, so the connection ends with this answer. */
export function answerBroken(
  request: IncomingMessage,
  response: ServerResponse,
  failure: Failure,
  challenge: string,
): void {
  response.shouldKeepAlive = false;
  response.once('close', () => endGently(request.socket));
  answerFailure(request, response, failure, challenge);
}

/** A client that is still sending would miss its answer if the connection were closed at once (RFC 9112, 9.6). */
export function endGently(socket: Duplex, last?: string): void {
  if (socket.destroyed) return;
  const end = setTimeout(() => socket.destroy(), lingerMs);
  end.unref();
  socket.once('close', () => clearTimeout(end));
  socket.end(last);
  socket.resume();
}

/** The store's answer to the first write with the same Idempotency-Key, once more. */
export function answerAgain(
  request: IncomingMessage,
  response: ServerResponse,
  answer: KeptAnswer,
  fields: readonly string[],
): void {
  if (response.destroyed) return;
  const { status, headers, body } = answer;
  const bodyless = request.method === 'HEAD' || status === 204 || status === 304;
  const length = bodyless ? [] : ['Content-Length', String(body.byteLength)];
  response.writeHead(status, [...headers, 'Idempotency-Replayed', 'true', ...fields, ...length]);
  response.end(body);
  leaveBehind(request, response);
}

/**
 * After an answer that did not wait for the whole request: a small rest is read and dropped, a large one
 * ends with the connection.
 */
export function leaveBehind(request: IncomingMessage, response: ServerResponse): void {
  if (request.complete) return;
  // Somebody may have begun to read it and stopped.
  request.resume();
  const length = Number(request.headers['content-length'] ?? Number.NaN);
  if (length <= droppedBodyBytesMax) return;
  const { socket } = request;
  const settle = (): void => {
    clearTimeout(end);
    request.off('end', settle);
    socket.off('close', settle);
  };
  const end = setTimeout(() => {
    settle();
    socket.destroy();
  }, lingerMs);
  end.unref();
  request.once('end', settle);
  socket.once('close', settle);
  if (response.destroyed) socket.destroy();
}

/** The client must see a broken transfer, never a complete-looking answer. */
export function breakOff(request: IncomingMessage, response: ServerResponse): void {
  // An answer that ends with the connection can only be told from a broken one by a reset.
  if (request.httpVersionMinor === 0) resetConnection(request.socket);
  else response.destroy();
}

/** The same on a bare socket, for upgrades. */
export function answerOnSocket(socket: Duplex, failure: Failure, challenge: string): void {
  const { status, title } = failureKinds[failure.code];
  const body = JSON.stringify(problemOf(failure));
  const lines = [`HTTP/1.1 ${status} ${title}`];
  const headers = [...headersOf(failure, challenge), 'Content-Length', String(Buffer.byteLength(body))];
  for (let at = 0; at < headers.length; at += 2) lines.push(`${headers[at]}: ${headers[at + 1]}`);
  lines.push('Connection: close', '', body);
  endGently(socket, lines.join('\r\n'));
}

function headersOf(failure: Failure, challenge: string): string[] {
  const { status } = failureKinds[failure.code];
  const headers = ['Content-Type', 'application/problem+json', 'Cache-Control', 'no-store'];
  if (failure.retryAfterSeconds !== undefined) headers.push('Retry-After', String(failure.retryAfterSeconds));
  if (status === 401) {
    const wrong = failure.code === 'bad-credential' && challenge.includes('Bearer ');
    headers.push('WWW-Authenticate', wrong ? `${challenge}, error="invalid_token"` : challenge);
  }
  if (status === 405) headers.push('Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS');
  return headers;
}
