/** HTTP as bytes: clients and upstreams on plain sockets, so that a test sees exactly what was sent. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import {
  connect as connectTls,
  type ConnectionOptions,
  createServer as createTlsServer,
  type TlsOptions,
} from 'node:tls';

export interface RawMessage {
  readonly startLine: string;
  /** Header lines as they came, in order. */
  readonly headers: readonly string[];
  /** Decoded from its framing. */
  readonly body: string;
  /** Lines after the last chunk, as they came. */
  readonly trailers: readonly string[];
}

/** Takes one complete message off the front of `bytes`; undefined while it is incomplete. */
export function takeMessage(
  bytes: string,
  options: { readonly bodyless?: boolean } = {},
): { readonly message: RawMessage; readonly rest: string } | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd === -1) return undefined;
  const [startLine = '', ...headers] = bytes.slice(0, headEnd).split('\r\n');
  const after = bytes.slice(headEnd + 4);
  const status = Number(/^HTTP\/1\.\d (\d+)/.exec(startLine)?.[1] ?? 0);
  const none =
    options.bodyless === true || status === 204 || status === 304 || (status >= 100 && status < 200);
  if (none) return { message: { startLine, headers, body: '', trailers: [] }, rest: after };
  if (headers.some((line) => /^transfer-encoding:.*chunked/i.test(line))) {
    const taken = takeChunks(after);
    if (taken === undefined) return undefined;
    const { body, trailers, rest } = taken;
    return { message: { startLine, headers, body, trailers }, rest };
  }
  const length = Number(headerOf({ headers }, 'content-length') ?? 0);
  if (after.length < length) return undefined;
  const body = after.slice(0, length);
  return { message: { startLine, headers, body, trailers: [] }, rest: after.slice(length) };
}

function takeChunks(
  bytes: string,
): (Pick<RawMessage, 'body' | 'trailers'> & { readonly rest: string }) | undefined {
  let body = '';
  let at = 0;
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd === -1) return undefined;
    const size = Number.parseInt(bytes.slice(at, lineEnd), 16);
    if (size === 0) {
      if (bytes.startsWith('\r\n', lineEnd + 2)) {
        return { body, trailers: [], rest: bytes.slice(lineEnd + 4) };
      }
      const end = bytes.indexOf('\r\n\r\n', lineEnd + 2);
      if (end === -1) return undefined;
      return { body, trailers: bytes.slice(lineEnd + 2, end).split('\r\n'), rest: bytes.slice(end + 4) };
    }
    if (bytes.length < lineEnd + 2 + size + 2) return undefined;
    body += bytes.slice(lineEnd + 2, lineEnd + 2 + size);
    at = lineEnd + 2 + size + 2;
  }
}

export function headerOf(message: Pick<RawMessage, 'headers'>, name: string): string | undefined {
  const prefix = `${name.toLowerCase()}:`;
  const line = message.headers.find((header) => header.toLowerCase().startsWith(prefix));
  return line?.slice(prefix.length).trim();
}

export function statusOf(message: RawMessage): number {
  return Number(message.startLine.split(' ')[1]);
}

/** One client connection. */
export class RawClient {
  readonly socket: Socket;
  received = '';
  closed = false;
  /** How the other side ended the connection: in order (FIN), or broken off (RST). */
  ending: 'fin' | 'reset' | undefined;
  readonly #watchers = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (text) => {
      this.received += String(text);
      this.#tell();
    });
    socket.on('end', () => {
      this.ending ??= 'fin';
    });
    socket.on('error', (error: Error & { code?: string }) => {
      if (error.code === 'ECONNRESET') this.ending ??= 'reset';
    });
    socket.on('close', () => {
      this.closed = true;
      this.#tell();
    });
  }

  /** `localAddress`: the address that the server sees, where it is another than usual. */
  static async open(port: number, tls?: ConnectionOptions, localAddress = '127.0.0.1'): Promise<RawClient> {
    const address = { host: '127.0.0.1', port, noDelay: true, localAddress };
    const socket = tls === undefined ? connect(address) : connectTls({ ...address, ...tls });
    await new Promise<void>((resolve, reject) => {
      socket.once(tls === undefined ? 'connect' : 'secureConnect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket);
  }

  send(bytes: string): void {
    this.socket.write(bytes, 'latin1');
  }

  /** The next complete answer; fails when the connection ends before. */
  async answer(options: { readonly bodyless?: boolean } = {}): Promise<RawMessage> {
    let message: RawMessage | undefined;
    await this.until(() => {
      const taken = takeMessage(this.received, options);
      if (taken === undefined) return false;
      message = taken.message;
      this.received = taken.rest;
      return true;
    });
    if (message === undefined) throw new Error(`the connection ended after "${this.received.slice(0, 400)}"`);
    return message;
  }

  /** What has come when the other side has ended the connection. */
  async toTheEnd(): Promise<string> {
    await this.until(() => false);
    return this.received;
  }

  /** Resolves when the condition holds or the connection has ended. */
  async until(condition: () => boolean, withinMs = 8_000): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#watchers.delete(look);
        reject(new Error(`nothing more came after "${this.received.slice(0, 400)}"`));
      }, withinMs);
      const look = (): void => {
        if (!condition() && !this.closed) return;
        clearTimeout(timer);
        this.#watchers.delete(look);
        resolve();
      };
      this.#watchers.add(look);
      look();
    });
  }

  close(): void {
    this.socket.destroy();
  }

  #tell(): void {
    for (const look of [...this.#watchers]) look();
  }
}

/** Sends one request on a connection of its own and reads one answer. */
export async function exchange(port: number, request: string, tls?: ConnectionOptions): Promise<RawMessage> {
  const client = await RawClient.open(port, tls);
  client.send(request);
  try {
    return await client.answer({ bodyless: request.startsWith('HEAD ') });
  } finally {
    client.close();
  }
}

/** What an upstream does with one complete request. */
export type RawAnswer = (request: RawMessage, socket: Socket, upstream: RawUpstream) => void;

/** A store on plain sockets that keeps every request and every byte. */
export class RawUpstream {
  readonly requests: RawMessage[] = [];
  readonly sockets = new Set<Socket>();
  /** All bytes of all connections. */
  bytes = '';
  connections = 0;
  answer: RawAnswer;
  /** Sees every connection, and all bytes as they come, for a test that answers before a request is complete. */
  onConnection: ((socket: Socket) => void) | undefined;
  onBytes: ((bytes: string, socket: Socket) => void) | undefined;
  readonly #server: Server;
  readonly #scheme: string;

  private constructor(server: Server, answer: RawAnswer, scheme: string) {
    this.#server = server;
    this.#scheme = scheme;
    this.answer = answer;
  }

  static async start(answer: RawAnswer = answerOk, tls?: TlsOptions): Promise<RawUpstream> {
    // Without delay, so that what was written is on its way before whatever the test does next.
    const server =
      tls === undefined ? createServer({ noDelay: true }) : createTlsServer({ ...tls, noDelay: true });
    const upstream = new RawUpstream(server, answer, tls === undefined ? 'http' : 'https');
    server.on(tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) =>
      upstream.#accept(socket),
    );
    server.on('tlsClientError', () => {});
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return upstream;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${this.#scheme}://127.0.0.1:${this.port}`;
  }

  /** What has been received is forgotten; the connections stay. */
  forget(): void {
    this.requests.length = 0;
    this.bytes = '';
    this.connections = 0;
  }

  /** Ends all connections in order; resolves when the other side has ended them too. */
  async endConnections(): Promise<void> {
    const all = [...this.sockets];
    const ended = all.map((socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())));
    for (const socket of all) socket.end();
    // Where the other side does not read on, there is nothing to wait for.
    const late = setTimeout(() => {
      for (const socket of all) socket.destroy();
    }, 1_000);
    await Promise.all(ended);
    clearTimeout(late);
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    this.sockets.add(socket);
    this.onConnection?.(socket);
    let parts: string[] = [];
    let size = 0;
    let wanted = 0;
    socket.setEncoding('latin1');
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('data', (text) => {
      this.bytes += String(text);
      this.onBytes?.(String(text), socket);
      parts.push(String(text));
      size += String(text).length;
      if (size < wanted) return;
      let pending = parts.join('');
      for (let taken = takeMessage(pending); taken !== undefined; taken = takeMessage(pending)) {
        pending = taken.rest;
        this.requests.push(taken.message);
        this.answer(taken.message, socket, this);
      }
      parts = [pending];
      size = pending.length;
      wanted = bytesWanted(pending);
    });
  }
}

/** How long an incomplete message will be, where its head says so: looking at it sooner is in vain. */
function bytesWanted(pending: string): number {
  const headEnd = pending.indexOf('\r\n\r\n');
  const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(pending.slice(0, headEnd + 2))?.[1];
  return headEnd === -1 || length === undefined ? 0 : headEnd + 4 + Number(length);
}

export const answerOk: RawAnswer = (_request, socket) => {
  socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
};
