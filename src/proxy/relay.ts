/** An answer that node:http has read, passed on as it comes, with its trailers, and broken off where it breaks off. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { breakOff } from './answer.ts';

/** `ended` is called once: whether the answer was complete. */
export function relayAnswer(
  answer: IncomingMessage,
  response: ServerResponse,
  fields: readonly string[],
  ended: (complete: boolean) => void,
): void {
  response.sendDate = false;
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', [...fields]);
  let over = false;
  const end = (complete: boolean): void => {
    if (over) return;
    over = true;
    ended(complete);
    if (!complete) {
      answer.destroy();
      if (!response.destroyed) breakOff(response.req, response);
      return;
    }
    const { rawTrailers } = answer;
    const trailers: [string, string][] = [];
    for (let at = 0; at < rawTrailers.length; at += 2) {
      trailers.push([rawTrailers[at] ?? '', rawTrailers[at + 1] ?? '']);
    }
    if (trailers.length > 0) response.addTrailers(trailers);
    response.end();
  };
  answer.pipe(response, { end: false });
  // A reset looks like the regular end of an answer without a length; only the connection knows.
  answer.once('end', () => end(answer.complete && answer.socket.errored === null));
  answer.once('error', () => end(false));
  answer.once('close', () => end(false));
  response.once('close', () => end(false));
}
