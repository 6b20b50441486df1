/** The listening side: node:http under our bounds, and an answer for what is no whole request. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Failure } from '../core/failure.ts';
import { isReadMethod } from '../core/route.ts';
import { answerBroken, answerOnSocket, isOver } from './answer.ts';
import type { CertificateFiles } from './certificate.ts';
import { resetConnection } from './reset.ts';
import { answerBeyond, clientsWithinFiles, Crowd } from './crowd.ts';
import { countRefusal, endOnBug, type ProxyContext, serve } from './serve.ts';
import { afterAnswers, inTurn, isIdle, unfinishedRequest } from './turns.ts';
import type { Upgrades } from './upgrade.ts';
import { isBodyPartlySent } from './upload.ts';

const handshakeTimeoutMs = 10_000;
/** How late a client's time may be noticed to be up. */
const lookMs = 1_000;

export function newServer(
  serving: () => ProxyContext,
  upgrades: Upgrades,
  files: CertificateFiles | undefined,
): Server {
  const { config } = serving();
  const { limits } = config.proxy;
  const options = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersTimeoutMs,
    // Nobody reads the body of a held write, so the hold must not count.
    requestTimeout: limits.requestTimeoutMs + config.flip.holdMs,
    connectionsCheckingInterval: Math.min(lookMs, limits.headersTimeoutMs),
    keepAliveTimeout: limits.keepAliveMs,
    noDelay: true,
    shouldUpgradeCallback: isWebSocketUpgrade,
  };
  const server =
    files === undefined
      ? createServer(options)
      : createTlsServer({ ...options, ...files, handshakeTimeout: handshakeTimeoutMs });
  const { log } = serving();
  const crowd = new Crowd(server, clientsWithinFiles(limits.connections, log), log);
  // Node would drop what is beyond a number from one of its two lists, and we judge by one and send the other.
  server.maxHeadersCount = 0;
  server.timeout = limits.stalledMs;
  server.on('timeout', endWhereStalled);
  const takenBy =
    (serveOne: typeof serveSafely) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      if (crowd.isBeyond(request.socket)) answerBeyond(serving(), request, response);
      else inTurn(request, response, () => serveOne(serving(), request, response));
    };
  server.on('request', takenBy(serveSafely));
  // The 100 is sent once the request is admitted.
  server.on('checkContinue', takenBy(serveSafely));
  server.on('checkExpectation', takenBy(refuseExpectation));
  server.on('upgrade', (request, socket, head) => {
    // Node listens for errors no longer, and one that nobody hears of ends the process.
    socket.on('error', () => socket.destroy());
    if (crowd.isBeyond(socket)) socket.destroy();
    else afterAnswers(socket, () => upgrades.upgrade(request, socket, head));
  });
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    socket.on('error', () => socket.destroy());
    afterAnswers(socket, () => refuseOnSocket(serving(), socket, noTunnels));
  });
  server.on('clientError', (error: Error & { readonly code?: string }, socket) =>
    answerClientError(serving(), error.code ?? '', socket),
  );
  return server;
}

function serveSafely(context: ProxyContext, request: IncomingMessage, response: ServerResponse): void {
  try {
    serve(context, request, response);
  } catch (error) {
    endOnBug(context, request, error);
  }
}

/** RFC 9110, 10.1.1: only 100-continue is known. */
function refuseExpectation(context: ProxyContext, request: IncomingMessage, response: ServerResponse): void {
  if (isOver(request, response)) return;
  const sent = isReadMethod(request.method ?? '') ? {} : ({ sent: 'no' } as const);
  const failure: Failure = { code: 'expectation-failed', detail: unknownExpectation, ...sent };
  countRefusal(context, failure);
  // What follows cannot be told from a body.
  answerBroken(request, response, failure, context.challenge);
}

/**
 * Nothing has moved on the connection for a while. What waits for a store, or for the rest of a request, has times of
 * its own; a client that takes nothing of what it asked for, or asks for nothing more, is let go.
 */
function endWhereStalled(socket: Socket): void {
  if (socket.writableLength > 0) resetConnection(socket);
  else if (isIdle(socket)) socket.destroy();
}

/**
 * Only WebSocket is spoken here, and a server may ignore every other offer (RFC 9110, 7.8), as it must one in
 * HTTP/1.0. A body in front of the frames is not for us to tell from them.
 */
function isWebSocketUpgrade({ method, headers, httpVersionMinor }: IncomingMessage): boolean {
  const framed = headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined;
  return (
    method === 'GET' && httpVersionMinor > 0 && !framed && headers.upgrade?.toLowerCase() === 'websocket'
  );
}

const noTunnels: Failure = {
  code: 'method-not-allowed',
  detail: 'CONNECT is not forwarded. Nothing was sent.',
};

/** Connections whose bytes cannot be read any further; each is answered once. */
const broken = new WeakSet<Duplex>();

/** Nothing that follows on the connection can be understood: it is answered in its turn, and ends. */
function answerClientError(context: ProxyContext, code: string, socket: Duplex): void {
  if (broken.has(socket)) return;
  const failure = clientFailures[code] ?? (code.startsWith('HPE_') ? badRequest : undefined);
  if (failure === undefined || !socket.writable) {
    socket.destroy();
    return;
  }
  broken.add(socket);
  const unfinished = unfinishedRequest(socket);
  if (unfinished === undefined) {
    afterAnswers(socket, () => refuseOnSocket(context, socket, failure));
    return;
  }
  const { req: request } = unfinished;
  countRefusal(context, failure);
  answerBroken(request, unfinished, { ...failure, ...aboutWrite(request) }, context.challenge);
}

/** Whether a request that broke off in its body has reached a store; only for what could be a write. */
function aboutWrite(request: IncomingMessage): Partial<Failure> {
  if (isBodyPartlySent(request)) return { sent: 'unknown', detail: partlySent };
  return isReadMethod(request.method ?? '') ? {} : { sent: 'no' };
}

function refuseOnSocket(context: ProxyContext, socket: Duplex, failure: Failure): void {
  countRefusal(context, failure);
  answerOnSocket(socket, failure, context.challenge);
}

const nothing = 'Nothing of it was forwarded and nothing was changed';
const unknownExpectation = `Of Expect only 100-continue is known here. ${nothing}; send the request without it.`;
const partlySent =
  'The rest of the body did not come, or was no HTTP, when a part of the write had been sent already. It may or may not have taken effect; look at the record before you send it again.';
const badRequest: Failure = {
  code: 'bad-request',
  detail: `The request is no well-formed HTTP. ${nothing}.`,
};
const clientFailures: Readonly<Record<string, Failure>> = {
  HPE_HEADER_OVERFLOW: {
    code: 'head-too-large',
    detail: `The head of the request is longer than proxy.limits.headerBytes. ${nothing}; send fewer or shorter headers.`,
  },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: {
    code: 'bad-framing',
    detail: `The chunks of the body carry too long extensions. ${nothing}.`,
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    code: 'request-timeout',
    detail: `The request did not arrive in time. ${nothing}; try again.`,
  },
};
