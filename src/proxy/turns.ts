/**
 * Whose turn it is on a client connection. Requests that come without waiting for answers are taken up one after the
 * other, so that writes keep their order (RFC 9112, 9.3.2), and what is answered without being a request (an upgrade,
 * CONNECT, bytes that are none) is answered behind all that were sent before it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

/** Requests of one connection that may wait for their turn: a bound for memory, far above what clients do. */
const waitingMax = 256;

/** Undefined once it is answered: a connection that waits for its next request must not keep the last one. */
const newest = new WeakMap<Duplex, ServerResponse | undefined>();
const waiting = new WeakMap<Duplex, number>();

/** Calls `serve` in its turn; never where the connection ends before. */
export function inTurn(request: IncomingMessage, response: ServerResponse, serve: () => void): void {
  const { socket } = request;
  const before = newest.get(socket);
  newest.set(socket, response);
  response.once('close', forget);
  if (before === undefined || before.destroyed) {
    serve();
    return;
  }
  const others = waiting.get(socket) ?? 0;
  if (others >= waitingMax) {
    socket.destroy();
    return;
  }
  waiting.set(socket, others + 1);
  before.once('close', () => {
    waiting.set(socket, (waiting.get(socket) ?? 1) - 1);
    if (!socket.destroyed) serve();
  });
}

function forget(this: ServerResponse): void {
  const { socket } = this.req;
  if (newest.get(socket) === this) newest.set(socket, undefined);
}

/** Calls `step` once everything that was asked on the connection is answered; never where it ends before. */
export function afterAnswers(socket: Duplex, step: () => void): void {
  const last = newest.get(socket);
  if (last === undefined || last.destroyed) {
    step();
    return;
  }
  last.once('close', () => {
    if (!socket.destroyed) step();
  });
}

/** Something was asked on the connection, and all of it is answered. */
export function isIdle(socket: Duplex): boolean {
  return newest.has(socket) && (newest.get(socket)?.destroyed ?? true);
}

/** The answer that is due to a request whose body is still coming. */
export function unfinishedRequest(socket: Duplex): ServerResponse | undefined {
  const last = newest.get(socket);
  return last === undefined || last.destroyed || last.req.complete ? undefined : last;
}
