/**
 * Questions to a service that knows credentials or keys: bounded in time and in the size of the answer. A
 * question changes nothing, so one that dies on a connection that the service had just closed is asked again.
 */
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import https from 'node:https';

export interface Question {
  readonly method: 'GET' | 'POST';
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface Reply {
  readonly status: number;
  readonly body: Buffer;
}

export interface ServiceSettings {
  readonly url: string;
  readonly timeoutMs: number;
  readonly connections: number;
  /** Of an answer. */
  readonly bytesMax: number;
}

const idleConnectionsMax = 16;

export class CredentialService {
  readonly #settings: ServiceSettings;
  readonly #url: URL;
  readonly #agent: http.Agent;
  readonly #underWay = new Set<ClientRequest>();

  constructor(settings: ServiceSettings) {
    this.#settings = settings;
    this.#url = new URL(settings.url);
    const { connections } = settings;
    const options = { keepAlive: true, maxSockets: connections, maxFreeSockets: idleConnectionsMax };
    this.#agent = this.#url.protocol === 'https:' ? new https.Agent(options) : new http.Agent(options);
  }

  /** For the log: without a query, which may hold a key. */
  get name(): string {
    return this.#url.origin + this.#url.pathname;
  }

  /** Rejects with a sentence about the service, never about what was asked. */
  async ask(question: Question): Promise<Reply> {
    const untilMs = performance.now() + this.#settings.timeoutMs;
    try {
      return await this.#askOnce(question, untilMs);
    } catch (error) {
      if (!(error instanceof ClosedMeanwhile)) throw error;
      return this.#askOnce(question, untilMs);
    }
  }

  close(): void {
    for (const request of this.#underWay) request.destroy(new Error('this proxy is shutting down'));
    this.#agent.destroy();
  }

  async #askOnce({ method, headers, body }: Question, untilMs: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { request: send } = this.#url.protocol === 'https:' ? https : http;
      const own = { accept: 'application/json', 'accept-encoding': 'identity', 'user-agent': 'onewriter' };
      const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
      const request = send(this.#url, {
        method,
        agent: this.#agent,
        headers: { ...own, ...headers, ...length },
      });
      this.#underWay.add(request);
      const late = setTimeout(
        () => request.destroy(new Error('it did not answer in time')),
        Math.max(0, untilMs - performance.now()),
      );
      request.once('close', () => {
        clearTimeout(late);
        this.#underWay.delete(request);
        // After an answer this changes nothing.
        reject(new Error('it broke off its answer'));
      });
      request.once('error', (error: NodeJS.ErrnoException) => {
        const closed = request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        reject(closed ? new ClosedMeanwhile() : new Error(reasonOf(error), { cause: error }));
      });
      request.once('response', (answer) => {
        gather(answer, this.#settings.bytesMax, (reply) => {
          if (reply instanceof Error) request.destroy(reply);
          else resolve(reply);
        });
      });
      request.end(body);
    });
  }
}

class ClosedMeanwhile extends Error {}

function gather(answer: IncomingMessage, bytesMax: number, done: (reply: Reply | Error) => void): void {
  const coding = answer.headers['content-encoding'] ?? 'identity';
  if (coding !== 'identity') {
    done(new Error('it encoded its answer, though it was asked not to'));
    return;
  }
  const chunks: Buffer[] = [];
  let bytes = 0;
  answer.on('data', (chunk: Buffer) => {
    bytes += chunk.byteLength;
    if (bytes > bytesMax) done(new Error(`it answered more than ${bytesMax} bytes`));
    else chunks.push(chunk);
  });
  answer.once('error', () => done(new Error('it broke off its answer')));
  answer.once('end', () => {
    if (answer.complete) done({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks) });
  });
}

/** Node's own messages name addresses; the code says enough. */
function reasonOf(error: NodeJS.ErrnoException): string {
  return error.code === undefined ? error.message : `it could not be reached (${error.code})`;
}
