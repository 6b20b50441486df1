/**
 * The ordinary answer to an upgrade. It ends with its client, after a time, and where the client takes nothing of it:
 * until then the write is in flight, and a fence waits for it.
 */
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { endGently } from './answer.ts';
import type { EarlyBytes } from './early-bytes.ts';
import { relayAnswer } from './relay.ts';
import { resetConnection } from './reset.ts';

export interface AnsweredUpgrade {
  readonly request: IncomingMessage;
  readonly answer: IncomingMessage;
  readonly early: EarlyBytes;
  /** Of the head for the client, flat. */
  readonly fields: readonly string[];
  /** Until the answer must be there whole, ms. */
  readonly leftMs: number;
  /** How long the client may take nothing of it, ms. */
  readonly stalledMs: number;
  /** Once: whether the answer was complete. */
  readonly ended: (complete: boolean) => void;
}

/** Passes the answer on. What is returned breaks it off. */
export function passAnswer(order: AnsweredUpgrade): () => void {
  const { request, answer, early, fields, leftMs, stalledMs, ended } = order;
  const client = early.client as Socket;
  early.take();
  // Nobody wants what it still sends, but only who reads learns that it has gone away.
  client.once('end', () => client.destroy());
  client.resume();
  client.setTimeout(stalledMs, () => {
    if (client.writableLength > 0) resetConnection(client);
  });
  const breakOff = (): void => void answer.destroy();
  const late = setTimeout(breakOff, leftMs);
  relayAnswer(answer, responseOn(client, request), fields, (complete) => {
    clearTimeout(late);
    ended(complete);
  });
  return breakOff;
}

/** The server has let go of the connection: what it does for an answer is done here. */
function responseOn(client: Duplex, request: IncomingMessage): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(client as Socket);
  client.on('drain', () => response.emit('drain'));
  response.once('finish', () => endGently(client));
  return response;
}
