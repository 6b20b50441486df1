/** The listening side of an observing proxy: it takes what legacy may take, as long as it is HTTP. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { CertificateFiles } from '../certificate.ts';

export interface ObservingListeners {
  readonly observe: (request: IncomingMessage, response: ServerResponse) => void;
  readonly upgrade: (request: IncomingMessage, client: Socket, head: Buffer) => void;
  readonly connect: (request: IncomingMessage, client: Duplex) => void;
  /** Something came that is no HTTP. False: it stands behind a request that is under way. */
  readonly notHttp: (client: Duplex) => boolean;
}

export interface ObservingServerSettings {
  readonly headerBytesMax: number;
  readonly connectionsMax: number;
  readonly files: CertificateFiles | undefined;
}

const headersTimeoutMs = 60_000;
const handshakeTimeoutMs = 10_000;

export function createObservingServer(
  { observe, upgrade, connect, notHttp }: ObservingListeners,
  { headerBytesMax, connectionsMax, files }: ObservingServerSettings,
): Server {
  const options = {
    ...{ maxHeaderSize: headerBytesMax, headersTimeout: headersTimeoutMs, noDelay: true },
    // Legacy has its own limits, and where it ends a connection, the client's ends, too.
    ...{ requestTimeout: 0, keepAliveTimeout: 0, requireHostHeader: false },
    shouldUpgradeCallback: asksForTunnel,
  };
  const server =
    files === undefined
      ? createServer(options)
      : createTlsServer({ ...options, ...files, handshakeTimeout: handshakeTimeoutMs });
  // A client may say that it will send no more, and still wait for its answer.
  Object.assign(server, { httpAllowHalfOpen: true });
  server.maxConnections = connectionsMax;
  server.on('request', observe);
  // Legacy says whether it wants the body.
  server.on('checkContinue', observe);
  server.on('checkExpectation', observe);
  server.on('upgrade', (request: IncomingMessage, client: Duplex, head: Buffer) =>
    upgrade(request, client as Socket, head),
  );
  server.on('connect', connect);
  server.on('clientError', (error: Error & { readonly code?: string }, client: Duplex) => {
    // Nothing of our own may run into an answer of legacy.
    if (error.code === 'ECONNRESET' || !client.writable || !notHttp(client)) {
      client.destroy();
      return;
    }
    client.end(
      `HTTP/1.1 ${statusOfParser[error.code ?? ''] ?? '400 Bad Request'}\r\nConnection: close\r\n\r\n`,
    );
  });
  return server;
}

/** As node:http answers where nobody listens. */
const statusOfParser: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: '413 Payload Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
};

/**
 * Legacy decides whether it takes up the offer. Not the one of HTTP/2, which comes with requests of any kind: a server
 * may ignore it (RFC 9110, 7.8). With a body it goes on as a request, for the same reason.
 */
function asksForTunnel({ headers }: IncomingMessage): boolean {
  const bodyless = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0;
  return bodyless && !/(?:^|,)\s*h2c?\s*(?:,|$)/i.test(headers.upgrade ?? 'h2c');
}
