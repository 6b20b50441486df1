/**
 * Whose turn it is on a client connection. Requests that come without waiting for answers are taken up one after the
 * other, so that writes keep their order (RFC 9112, 9.3.2), and what is answered without being a request (an upgrade,
 * CONNECT, bytes that are none) is answered behind all that were sent before it. While many wait, nothing more is read.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

/** With so much that waits for its turn nothing more is read from the connection, until half of it is served. */
const waitingUsually = 16;
const waitingBytesUsually = 262_144;
/**
 * What Node has read in one piece, 64 KiB, it also parses at once: so many requests only fit into one where their heads
 * are far shorter than any client's.
 */
const waitingMax = 1_024;
/** Of a body that nobody reads yet no more than this is taken from the connection; node:http sees to that. */
const unreadBodyBytesMax = 65_536;

interface Line {
  /** Undefined once it is answered: a connection that waits for its next request must not keep the last one. */
  newest: ServerResponse | undefined;
  waiting: number;
  /** Of those that wait: heads, and what may have come of their bodies. */
  bytes: number;
  paused: boolean;
  /** It will be paused once what was read of it is parsed. */
  pausing: boolean;
  /** It carries requests no more, and is read by somebody else. */
  over: boolean;
}

const lines = new WeakMap<Duplex, Line>();

/** Calls `serve` in its turn; never where the connection ends before. */
export function inTurn(request: IncomingMessage, response: ServerResponse, serve: () => void): void {
  const { socket } = request;
  const line = lineOf(socket);
  const before = line.newest;
  line.newest = response;
  response.once('close', forget);
  if (before === undefined || before.destroyed) {
    serve();
    return;
  }
  if (line.waiting >= waitingMax) {
    socket.destroy();
    return;
  }
  const bytes = bytesOf(request);
  line.waiting += 1;
  line.bytes += bytes;
  readNoMore(socket, line);
  before.once('close', () => {
    line.waiting -= 1;
    line.bytes -= bytes;
    if (socket.destroyed) return;
    readOn(socket, line);
    serve();
  });
}

function lineOf(socket: Duplex): Line {
  const known = lines.get(socket);
  if (known !== undefined) return known;
  const line = { newest: undefined, waiting: 0, bytes: 0, paused: false, pausing: false, over: false };
  lines.set(socket, line);
  return line;
}

function bytesOf({ rawHeaders, url = '', headers }: IncomingMessage): number {
  let bytes = url.length;
  for (const text of rawHeaders) bytes += text.length;
  if (headers['transfer-encoding'] !== undefined) return bytes + unreadBodyBytesMax;
  return bytes + Math.min(Number(headers['content-length'] ?? 0), unreadBodyBytesMax);
}

function readNoMore(socket: Duplex, line: Line): void {
  if (line.waiting <= waitingUsually && line.bytes <= waitingBytesUsually) return;
  line.paused = true;
  if (line.pausing) return;
  line.pausing = true;
  // Node resumes the connection at the end of every request, also of this one, which is not parsed to its end yet.
  process.nextTick(() => {
    line.pausing = false;
    if (line.paused && !line.over) socket.pause();
  });
}

function readOn(socket: Duplex, line: Line): void {
  if (!line.paused || line.waiting > waitingUsually / 2 || line.bytes > waitingBytesUsually / 2) return;
  line.paused = false;
  if (!line.over) socket.resume();
}

function forget(this: ServerResponse): void {
  const line = lines.get(this.req.socket);
  if (line?.newest === this) line.newest = undefined;
}

/** Calls `step` once everything that was asked on the connection is answered; never where it ends before. */
export function afterAnswers(socket: Duplex, step: () => void): void {
  const line = lines.get(socket);
  if (line !== undefined) line.over = true;
  const last = line?.newest;
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
  const line = lines.get(socket);
  return line !== undefined && (line.newest?.destroyed ?? true);
}

/** The answer that is due to a request whose body is still coming. */
export function unfinishedRequest(socket: Duplex): ServerResponse | undefined {
  const last = lines.get(socket)?.newest;
  return last === undefined || last.destroyed || last.req.complete ? undefined : last;
}
