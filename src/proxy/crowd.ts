/**
 * Clients beyond what this process can serve. As long as there is room for it they are told so; whoever comes beyond
 * that is cut off unanswered, which is all that is left once files run out.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Failure } from '../core/failure.ts';
import type { Log } from '../log.ts';
import { answerFailure } from './answer.ts';
import { countRefusal, type ProxyContext } from './serve.ts';

const tooManyConnections: Failure = {
  code: 'too-many-connections',
  detail:
    'This proxy has as many connections of clients as it can take. Nothing was sent and nothing was changed; try again shortly.',
  sent: 'no',
  retryAfterSeconds: 1,
};

/** Files that are no connection of a client or to a store: Redis, logs, the data directory. */
const otherFiles = 64;
const toldMax = 256;
const toldShare = 0.1;
/** For its one request to arrive. */
const toldWithinMs = 5_000;
const logEveryMs = 10_000;

export class Crowd {
  readonly #toldOnly = new WeakSet<Duplex>();
  #open = 0;
  #logFromMs = 0;

  /** `max`: connections that are served; a few more are told that there are too many. */
  constructor(server: Server, max: number, log: Log) {
    server.maxConnections = max + roomFor(max);
    server.on('connection', (socket: Socket) => {
      this.#open += 1;
      socket.once('close', () => (this.#open -= 1));
    });
    // With TLS it is another socket that brings the request.
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      if (this.#open <= max) return;
      this.#toldOnly.add(socket);
      socket.setTimeout(toldWithinMs, () => socket.destroy());
      if (performance.now() < this.#logFromMs) return;
      this.#logFromMs = performance.now() + logEveryMs;
      log('warn', 'proxy.crowded', { connections: max, detail: 'Clients beyond these are refused.' });
    });
  }

  /** Is this one only told that there are too many? */
  isBeyond(socket: Duplex): boolean {
    return this.#toldOnly.has(socket);
  }
}

/** What a client gets that is only told. */
export function answerBeyond(
  context: ProxyContext,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  countRefusal(context, tooManyConnections);
  response.shouldKeepAlive = false;
  answerFailure(request, response, tooManyConnections, context.challenge);
}

/**
 * How many clients can be served with the files that this process may open, at most `wanted`: each may need a
 * connection to a store. Logs where that is far less than wanted.
 */
export function clientsWithinFiles(wanted: number, log: Log): number {
  const files = openFilesMax();
  if (files === undefined) return wanted;
  const room = Math.max(2, Math.floor((files - otherFiles) / 2));
  const max = Math.min(wanted, room - roomFor(room));
  if (max < wanted / 4) {
    const detail = `Only ${files} files may be open, so at most ${max} connections of clients are taken; raise the limit ("ulimit -n", LimitNOFILE of systemd).`;
    log('warn', 'proxy.few-files', { files, connections: max, detail });
  }
  return max;
}

/** The limit of this process; undefined where there is none. Node raises it to the hard limit at its start. */
export function openFilesMax(): number | undefined {
  const report = process.report.getReport() as {
    readonly userLimits?: { readonly open_files?: { readonly soft?: number | string } };
  };
  const soft = report.userLimits?.open_files?.soft;
  return typeof soft === 'number' ? soft : undefined;
}

function roomFor(connections: number): number {
  return Math.min(toldMax, Math.ceil(connections * toldShare));
}
