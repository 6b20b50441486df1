/** Ends a connection so that the other side cannot take what it has got for the whole. */
import type { Duplex } from 'node:stream';
import { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** A reset; over TLS an end without the closing alert says the same, and Node cannot reset below it. */
export function resetConnection(socket: Duplex): void {
  if (socket instanceof Socket && !(socket instanceof TLSSocket)) socket.resetAndDestroy();
  else socket.destroy();
}
