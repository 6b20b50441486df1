/**
 * A request that asks for another protocol (WebSocket), on bare connections: what legacy answers to it goes back as
 * it is, and from then on so does every byte, both ways, until both sides have ended.
 */
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import type { Ending } from '../../core/observation.ts';
import { answerOnSocket } from '../answer.ts';
import { failureOf } from '../trouble.ts';
import { type ExchangeReport, pairsOf } from './exchange.ts';
import type { Carried, Line } from './line.ts';

export interface TunnelOrder {
  readonly request: IncomingMessage;
  readonly client: Socket;
  /** What the client has sent behind its head. */
  readonly head: Buffer;
  readonly line: Line;
  /** Flat, for legacy. */
  readonly headers: readonly string[];
  /** The answer's fields for the client, flat. */
  readonly shaped: (rawHeaders: string[]) => string[];
  readonly ended: (report: ExchangeReport) => void;
}

export class Tunnel implements Carried {
  readonly #order: TunnelOrder;
  readonly #asked: ClientRequest;
  readonly #sinceMs = performance.now();
  /** What the client has sent and legacy has not: read from the start, or nobody would notice that the client goes. */
  readonly #early: PassThrough;
  #legacy: Socket | undefined;
  #status: number | undefined;
  #headMs: number | undefined;
  #requestBytes = 0;
  #answerBytes = 0;
  #over = false;

  /** Throws where the request cannot be sent at all. */
  constructor(order: TunnelOrder) {
    this.#order = order;
    const { request, line, headers, client } = order;
    this.#asked = line.ask(request.method ?? '', request.url ?? '', headers);
    line.add(this);
    client.on('error', () => client.destroy());
    client.on('data', (chunk: Buffer) => (this.#requestBytes += chunk.byteLength));
    this.#early = client.pipe(new PassThrough());
    this.#asked.once('finish', () => line.sent());
    this.#asked.once('upgrade', (answer, legacy, head) => this.#open(answer, legacy, head));
    this.#asked.once('response', (answer) => this.#passAnswerOn(answer));
    this.#asked.on('error', (error) => this.#fail(error));
    this.#asked.end();
  }

  get whole(): boolean {
    return true;
  }

  get sent(): boolean {
    return this.#asked.writableFinished;
  }

  clientGone(): void {
    // What the client has said last still arrives.
    if (this.#legacy === undefined) this.#asked.destroy();
    else this.#legacy.destroySoon();
    this.#end(this.#legacy === undefined ? 'client-left' : 'answered');
  }

  /** The process ends. */
  close(): void {
    this.#order.client.destroy();
    this.clientGone();
  }

  #open(answer: IncomingMessage, legacy: Socket, head: Buffer): void {
    const { client } = this.#order;
    this.#legacy = legacy;
    if (this.#over) {
      legacy.destroy();
      return;
    }
    this.#writeHead(answer);
    this.#answerBytes += head.byteLength;
    this.#requestBytes += this.#order.head.byteLength;
    client.write(head);
    legacy.write(this.#order.head);
    legacy.on('data', (chunk: Buffer) => (this.#answerBytes += chunk.byteLength));
    this.#early.pipe(legacy);
    legacy.pipe(client);
    legacy.on('error', () => client.destroy());
    legacy.once('close', () => {
      client.end();
      this.#end('answered');
    });
  }

  /** Legacy speaks on as before; the connection ends with its answer. */
  #passAnswerOn(answer: IncomingMessage): void {
    const { client } = this.#order;
    if (this.#over) return;
    this.#writeHead(answer);
    answer.on('data', (chunk: Buffer) => (this.#answerBytes += chunk.byteLength));
    answer.on('error', (error) => this.#fail(error));
    answer.once('end', () => {
      if (answer.complete) this.#end('answered');
      else this.#fail(new Error('legacy broke off its answer'));
      client.destroySoon();
    });
    answer.pipe(client);
  }

  #writeHead(answer: IncomingMessage): void {
    const { statusCode = 502, statusMessage = '', httpVersion, rawHeaders } = answer;
    this.#status = statusCode;
    this.#headMs = performance.now() - this.#sinceMs;
    const opened = statusCode === 101;
    const coded = answer.headers['transfer-encoding'] !== undefined;
    const dropped = opened
      ? []
      : ['connection', 'keep-alive', 'transfer-encoding', 'trailer', ...(coded ? ['content-length'] : [])];
    const lines = pairsOf(this.#order.shaped([...rawHeaders]))
      .filter(([name]) => !dropped.includes(name.toLowerCase()))
      .map(([name, value]) => `${name}: ${value}`);
    if (!opened) lines.push('Connection: close');
    const start = `HTTP/${httpVersion} ${statusCode} ${statusMessage}`;
    this.#order.client.write([start, ...lines, '', ''].join('\r\n'), 'latin1');
  }

  #fail(error: Error): void {
    if (this.#over) return;
    const { client, line } = this.#order;
    if (line.stage === 'open') {
      this.#end('store-broke-off');
      client.destroy();
      return;
    }
    const at = { store: 'legacy', access: 'write', sending: false, reason: error.name } as const;
    this.#end('unreachable');
    answerOnSocket(client, failureOf(line.stage === 'handshake' ? 'tls' : 'refused', at), '');
  }

  #end(ended: Ending): void {
    if (this.#over) return;
    this.#over = true;
    const { line } = this.#order;
    line.over(this);
    this.#order.ended({
      ...{ ended, status: this.#status, headMs: this.#headMs },
      ...{ requestBytes: this.#requestBytes, answerBytes: this.#answerBytes },
      sent: line.stage === 'open',
    });
  }
}
