/**
 * The way to one store: a bounded set of connections with a bounded, timed queue before them, and a bound of its own
 * for event streams. This is the whole face of what lies in src/proxy/upstream. Nothing here is ever sent twice.
 */
import { storeDialer, type StoreTls } from '../stores/connect.ts';
import { Connection, type ConnectionOwner, type ConnectionSettings } from './upstream/connection.ts';
import { Exchange } from './upstream/exchange.ts';

/** How far an exchange got when it failed. Only `broken`, `timeout` and `streams-full` can follow `onSending`. */
export type FailedStage =
  | 'hook'
  | 'pool-full'
  | 'streams-full'
  | 'refused'
  | 'exhausted'
  | 'connect-timeout'
  | 'tls'
  | 'timeout'
  | 'broken'
  | 'cancelled'
  | 'closed';

export interface UpstreamRequest {
  readonly method: string;
  readonly target: string;
  /** Flat list without hop-by-hop fields. Where framing fields stand in it, those of the body are written. */
  readonly headers: readonly string[];
  readonly body: Buffer | UpstreamBody | null;
  /** Of a body that was read whole. */
  readonly trailers?: readonly string[];
  /** From sending to the head of the answer, ms; 0: no bound. */
  readonly headTimeoutMs: number;
  /** Its answer may be a stream of events that lasts; `announced`: the client has asked for one. */
  readonly stream: 'no' | 'possible' | 'announced';
}

/** A body that is still being received. */
export interface UpstreamBody {
  /** Bytes, where the client said how many. */
  readonly length: number | undefined;
  start(sink: UpstreamBodySink): void;
  /** Goes on after `piece` returned false. */
  resume(): void;
  /** Nothing more is wanted; the sink is not called any more. */
  stop(): void;
}

export interface UpstreamBodySink {
  /** False: the next one must wait for `resume`. */
  piece(bytes: Buffer): boolean;
  end(rawTrailers: readonly string[]): void;
  broken(cause: Error): void;
}

/** What happens to one exchange. Exactly one of onEnd and onFailed is the last call. */
export interface UpstreamListener {
  /** From here on bytes may have left. False: nothing must be sent, the exchange is cancelled. */
  onSending(): boolean;
  onInformation(status: number, rawHeaders: string[]): void;
  onHead(status: number, reason: string, rawHeaders: string[]): void;
  onData(chunk: Buffer): void;
  /** All that has come so far was told: what waits for company need not wait longer. */
  onCaughtUp(): void;
  onEnd(rawTrailers: string[]): void;
  onFailed(stage: FailedStage, cause: Error): void;
}

export interface UpstreamExchange {
  /** Breaks the exchange off; onFailed follows unless it is over. */
  cancel(reason: Error): void;
  pause(): void;
  resume(): void;
}

export interface UpstreamSettings {
  readonly origin: string;
  /** For an https origin. */
  readonly tls?: StoreTls | undefined;
  readonly connections: number;
  /** Connections that carry event streams; they are not counted among the others. */
  readonly streams: number;
  readonly connectTimeoutMs: number;
  /** How many requests may wait for a connection, and how long, ms. */
  readonly queueMax: number;
  readonly queueMs: number;
  /** Silence within an answer's body that counts as a broken connection, ms. */
  readonly bodyTimeoutMs: number;
  readonly headerBytesMax: number;
  /** Errors of listeners: they end the exchange, never the process. */
  readonly bug: (error: unknown) => void;
}

/** Between two looks at connections that are idle; well below the margin that they keep to a store's hint. */
const idleLookMs = 500;

export class Upstream {
  readonly #settings: UpstreamSettings;
  readonly #forConnections: ConnectionSettings;
  readonly #owner: ConnectionOwner = {
    onFree: (connection) => this.#onFree(connection),
    onGone: (connection) => this.#onGone(connection),
    onStream: (connection) => this.#onStream(connection),
  };
  /** Also those that are being opened. */
  readonly #all = new Set<Connection>();
  /** How many of them carry event streams. */
  #streams = 0;
  /** Those used last are at the end. */
  #idle: Connection[] = [];
  /** Became free in this turn of the event loop. */
  #freed: Connection[] = [];
  /** Came in this turn of the event loop. */
  #arrived: Exchange[] = [];
  readonly #queue = new Set<Exchange>();
  #turnComes = false;
  #idleLook: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(settings: UpstreamSettings) {
    this.#settings = settings;
    this.#forConnections = { ...settings, dial: storeDialer(settings) };
  }

  /** Calls the listener only after it returned. */
  send(request: UpstreamRequest, listener: UpstreamListener): UpstreamExchange {
    const exchange = new Exchange(request, listener, this.#settings.bug);
    this.#arrived.push(exchange);
    this.#takeTurnSoon();
    return exchange;
  }

  /** Breaks off whatever is still under way. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#idleLook);
    const down = new Error('the proxy is shutting down');
    for (const exchange of [...this.#arrived, ...this.#queue]) exchange.fail('closed', down);
    for (const connection of this.#all) connection.close(down);
  }

  // --- what connections say --------------------------------------------------------------------------

  #onFree(connection: Connection): void {
    if (connection.streaming) {
      connection.streaming = false;
      this.#streams -= 1;
      if (this.#others > this.#settings.connections) {
        connection.close();
        return;
      }
    }
    this.#freed.push(connection);
    this.#takeTurnSoon();
  }

  #onGone(connection: Connection): void {
    this.#all.delete(connection);
    if (connection.streaming) this.#streams -= 1;
    if (this.#queue.size > 0) this.#takeTurnSoon();
  }

  #onStream(connection: Connection): boolean {
    if (connection.streaming) return true;
    if (this.#streams >= this.#settings.streams) return false;
    connection.streaming = true;
    this.#streams += 1;
    if (this.#queue.size > 0) this.#takeTurnSoon();
    return true;
  }

  // --- one turn --------------------------------------------------------------------------------------

  get #others(): number {
    return this.#all.size - this.#streams;
  }

  /**
   * Exchanges get their connections after everything was read that has arrived by then. Only then is it known of an
   * idle connection that the store has not closed it, and has said nothing on it that would be taken for the answer.
   */
  #takeTurnSoon(): void {
    if (this.#turnComes) return;
    this.#turnComes = true;
    setImmediate(this.#takeTurn);
  }

  readonly #takeTurn = (): void => {
    this.#turnComes = false;
    if (this.#closed) {
      for (const exchange of this.#arrived) exchange.fail('closed', new Error('the proxy has shut down'));
      return;
    }
    for (const exchange of this.#queue) {
      if (!this.#place(exchange)) break;
      this.#queue.delete(exchange);
    }
    const arrived = this.#arrived;
    this.#arrived = [];
    for (const exchange of arrived) {
      if (exchange.over) continue;
      if (exchange.request.stream === 'announced') this.#placeStream(exchange);
      else if (this.#queue.size > 0) this.#enqueue(exchange);
      // A connection that became free just now can be trusted in the next turn: better than one more.
      else if (this.#idle.length === 0 && this.#arrived.length < this.#freed.length)
        this.#arrived.push(exchange);
      else if (!this.#place(exchange)) this.#enqueue(exchange);
    }
    this.#rest();
    if (this.#arrived.length > 0 || (this.#queue.size > 0 && this.#idle.length > 0)) this.#takeTurnSoon();
  };

  #rest(): void {
    if (this.#freed.length === 0) return;
    const nowMs = performance.now();
    for (const connection of this.#freed) {
      connection.rest(nowMs);
      this.#idle.push(connection);
    }
    this.#freed = [];
    this.#idleLook ??= setInterval(() => this.#lookAtIdle(), idleLookMs).unref();
  }

  #lookAtIdle(): void {
    const nowMs = performance.now();
    this.#idle = this.#idle.filter((connection) => {
      const kept = connection.mayCarry() && !connection.isTired(nowMs);
      if (!kept) connection.close();
      return kept;
    });
    if (this.#idle.length > 0) return;
    clearInterval(this.#idleLook);
    this.#idleLook = undefined;
  }

  /** False: there is no connection, and there may be no more. */
  #place(exchange: Exchange): boolean {
    const idle = this.#takeIdle();
    if (idle !== undefined) idle.carry(exchange);
    else if (this.#others < this.#settings.connections) this.#open(exchange);
    else return false;
    return true;
  }

  #placeStream(exchange: Exchange): void {
    if (this.#streams >= this.#settings.streams) {
      exchange.fail('streams-full', new Error('all event streams are in use'));
      return;
    }
    this.#streams += 1;
    const idle = this.#takeIdle();
    if (idle === undefined) {
      this.#open(exchange).streaming = true;
      return;
    }
    idle.streaming = true;
    idle.carry(exchange);
  }

  #takeIdle(): Connection | undefined {
    for (let idle = this.#idle.pop(); idle !== undefined; idle = this.#idle.pop()) {
      if (idle.mayCarry()) return idle;
      idle.close();
    }
    return undefined;
  }

  #open(exchange: Exchange): Connection {
    const connection = new Connection(this.#forConnections, this.#owner, exchange);
    this.#all.add(connection);
    return connection;
  }

  #enqueue(exchange: Exchange): void {
    const { queueMax, queueMs } = this.#settings;
    if (this.#queue.size >= queueMax) {
      exchange.fail('pool-full', new Error('the queue for a connection is full'));
      return;
    }
    this.#queue.add(exchange);
    exchange.waitAtMost(queueMs, () => this.#queue.delete(exchange));
  }
}
