/**
 * The client of a request that waits. Its disconnect shows only where its bytes are read: a request that
 * is read whole, or nearly, shows it by itself. Behind a larger unread body a disconnect is invisible, so
 * the connection is probed with "100 Continue", which every client ignores (RFC 9110, 15.2): to a peer
 * that is gone the kernel answers with a reset.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Client } from './admit.ts';
import { isOver } from './answer.ts';

const probeMs = 250;

export function clientOf(request: IncomingMessage, response: ServerResponse): Client {
  return {
    gone: () => isOver(request, response),
    onGone(listener) {
      let done = false;
      const leave = (): void => {
        done = true;
        clearInterval(probe);
        response.off('close', gone);
      };
      const gone = (): void => {
        if (done) return;
        leave();
        listener();
      };
      const probe = setInterval(() => {
        // Nothing unread in the way, or a client that waits for a real 100: no probe.
        if (request.complete || request.readableLength === 0 || isOver(request, response)) return;
        if (request.headers.expect !== undefined || request.httpVersionMinor === 0) return;
        response.writeContinue();
      }, probeMs);
      response.once('close', gone);
      return leave;
    },
  };
}
