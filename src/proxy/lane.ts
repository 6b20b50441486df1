/**
 * One upstream connection: an undici Client that carries one exchange at a time, and the little that has
 * to be put right on its socket. Only this file and upstream.ts know undici.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { Client, type Dispatcher } from 'undici';
import { resetStoreConnection, storeConnector, type StoreTls } from '../stores/connect.ts';

export interface LaneSettings {
  readonly origin: string;
  /** For an https origin. */
  readonly tls?: StoreTls | undefined;
  readonly connectTimeoutMs: number;
  /** Silence within an answer's body that counts as a broken connection, ms. */
  readonly bodyTimeoutMs: number;
  readonly headerBytesMax: number;
}

export class Lane {
  readonly client: Client;
  /** The error of the connection in use, as the socket itself reported it. */
  socketError: Error | undefined;

  constructor(settings: LaneSettings) {
    const connect = storeConnector(settings.connectTimeoutMs, settings.tls);
    this.client = new Client(settings.origin, {
      connect: (options, callback) => {
        this.socketError = undefined;
        connect(options, (error, socket) => {
          if (error === null) callback(null, this.#prepared(socket));
          else callback(error, null);
        });
      },
      pipelining: 1,
      headersTimeout: 0,
      bodyTimeout: settings.bodyTimeoutMs,
      maxHeaderSize: settings.headerBytesMax,
    });
  }

  dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    // undici would take the name for TLS from each Host, and open a new connection whenever it is another.
    const pinned = { ...options, servername: 'the-store' };
    this.client.dispatch(pinned, handler);
  }

  #prepared<S extends Socket | TLSSocket>(socket: S): S {
    // undici takes a reset after a body without length for its regular end; the exchange asks here.
    socket.on('error', (error: Error) => {
      this.socketError = error;
    });
    acceptUnaskedContinue(socket);
    resetWhenAborted(socket);
    return socket;
  }
}

/**
 * An aborted exchange must not go on from the kernel's send buffer after the socket is closed: reset it
 * (RFC 9293, 3.10.5), so that what was not delivered yet never is.
 */
function resetWhenAborted(socket: Socket): void {
  const destroy = socket.destroy.bind(socket);
  let resetting = false;
  socket.destroy = (error?: Error) => {
    if (error?.message !== 'aborted' || resetting || socket.destroyed) return destroy(error);
    resetting = true;
    resetStoreConnection(socket);
    return socket;
  };
}

const unaskedContinue = Buffer.from('HTTP/1.1 100', 'latin1');

/**
 * Some servers send "100 Continue" to every upload. undici ends the connection on one, but takes other
 * interim answers, so the status of such a head is read as 102 (RFC 9110, 15.2: clients ignore it).
 */
function acceptUnaskedContinue(socket: Socket): void {
  let answerBegun = true;
  const write = socket.write.bind(socket) as (...values: unknown[]) => boolean;
  // undici writes a request's head as one string; chunk sizes, the other strings, begin with CR LF.
  socket.write = (...values: unknown[]) => {
    const [data] = values;
    if (typeof data === 'string' && !data.startsWith('\r\n')) answerBegun = false;
    return write(...values);
  };
  const read = socket.read.bind(socket) as (size?: number) => Buffer | null;
  socket.read = (size?: number) => {
    const chunk = read(size);
    if (answerBegun || chunk === null) return chunk;
    let at = 0;
    while (chunk.subarray(at, at + unaskedContinue.length).equals(unaskedContinue)) {
      chunk[at + unaskedContinue.length - 1] = 0x32;
      const end = chunk.indexOf('\r\n\r\n', at, 'latin1');
      if (end === -1) return chunk;
      at = end + 4;
    }
    answerBegun = at < chunk.length;
    return chunk;
  };
}
