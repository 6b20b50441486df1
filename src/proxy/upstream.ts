/**
 * The way to one store: a bounded set of connections with a bounded, timed queue before them, behind an
 * interface that says nothing about the client library. Nothing here is ever sent twice.
 */
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { TlsFailure } from '../stores/connect.ts';
import { Lane, type LaneSettings } from './lane.ts';

/** How far an exchange got when it failed. Only `broken` and `timeout` can follow `onSending`. */
export type FailedStage =
  | 'hook'
  | 'pool-full'
  | 'refused'
  | 'connect-timeout'
  | 'tls'
  | 'timeout'
  | 'broken'
  | 'cancelled'
  | 'closed';

export interface UpstreamRequest {
  readonly method: string;
  readonly target: string;
  /** Flat list, without framing and hop-by-hop fields; without Host it is the one of the origin. */
  readonly headers: string[];
  readonly body: Readable | Buffer | null;
  /** From sending to the head of the answer, ms; 0: no bound. */
  readonly headTimeoutMs: number;
}

/** What happens to one exchange. Exactly one of onEnd and onFailed is the last call. */
export interface UpstreamListener {
  /** From here on bytes may have left. False: nothing must be sent, the exchange is cancelled. */
  onSending(): boolean;
  onInformation(status: number, rawHeaders: string[]): void;
  onHead(status: number, reason: string, rawHeaders: string[]): void;
  onData(chunk: Buffer): void;
  onEnd(rawTrailers: string[]): void;
  onFailed(stage: FailedStage, cause: Error): void;
}

export interface UpstreamExchange {
  /** Breaks the exchange off; onFailed follows unless it is over. */
  cancel(reason: Error): void;
  pause(): void;
  resume(): void;
}

export interface UpstreamSettings extends LaneSettings {
  readonly connections: number;
  /** How many requests may wait for a connection, and how long, ms. */
  readonly queueMax: number;
  readonly queueMs: number;
}

export class Upstream {
  readonly #settings: UpstreamSettings;
  readonly #free: Lane[] = [];
  readonly #lanes = new Set<Lane>();
  readonly #queue = new Set<Exchange>();
  #closed = false;

  constructor(settings: UpstreamSettings) {
    this.#settings = settings;
  }

  /** Calls the listener only after it returned, except with `pool-full` and `closed`. */
  send(request: UpstreamRequest, listener: UpstreamListener): UpstreamExchange {
    const exchange = new Exchange(request, listener, (lane) => this.#release(lane));
    if (this.#closed) {
      exchange.fail('closed', new Error('the proxy has closed its connections'));
      return exchange;
    }
    const lane = this.#free.pop() ?? this.#newLane();
    if (lane !== undefined) {
      exchange.run(lane);
      return exchange;
    }
    this.#enqueue(exchange);
    return exchange;
  }

  /** Breaks off whatever is still under way. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const exchange of this.#queue) exchange.fail('closed', new Error('the proxy is shutting down'));
    this.#queue.clear();
    await Promise.all([...this.#lanes].map((lane) => lane.client.destroy()));
  }

  #newLane(): Lane | undefined {
    if (this.#lanes.size >= this.#settings.connections) return undefined;
    const lane = new Lane(this.#settings);
    this.#lanes.add(lane);
    return lane;
  }

  #enqueue(exchange: Exchange): void {
    if (this.#queue.size >= this.#settings.queueMax) {
      exchange.fail('pool-full', new Error('the queue for a connection is full'));
      return;
    }
    this.#queue.add(exchange);
    exchange.waitAtMost(this.#settings.queueMs, () => this.#queue.delete(exchange));
  }

  #release(lane: Lane): void {
    for (const exchange of this.#queue) {
      this.#queue.delete(exchange);
      if (exchange.over) continue;
      // Not at once: this is often called from inside undici's own handling of a failed connection, which
      // does not bear a new request on the same client (it asserts that its queue is empty).
      setImmediate(() => {
        if (exchange.over || this.#closed) this.#release(lane);
        else exchange.run(lane);
      });
      return;
    }
    this.#free.push(lane);
  }
}

class Exchange implements UpstreamExchange, Dispatcher.DispatchHandler {
  readonly #request: UpstreamRequest;
  readonly #listener: UpstreamListener;
  readonly #release: (lane: Lane) => void;
  #lane: Lane | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #queued: NodeJS.Timeout | undefined;
  #leaveQueue: (() => void) | undefined;
  #cancelled: Error | undefined;
  over = false;

  constructor(request: UpstreamRequest, listener: UpstreamListener, release: (lane: Lane) => void) {
    this.#request = request;
    this.#listener = listener;
    this.#release = release;
  }

  waitAtMost(queueMs: number, leave: () => void): void {
    this.#leaveQueue = leave;
    this.#queued = setTimeout(() => {
      leave();
      this.fail('pool-full', new Error(`no connection became free within ${queueMs} ms`));
    }, queueMs);
  }

  run(lane: Lane): void {
    clearTimeout(this.#queued);
    this.#leaveQueue = undefined;
    this.#lane = lane;
    const { method, target, headers, body, headTimeoutMs } = this.#request;
    lane.dispatch({ path: target, method, headers, body, headersTimeout: headTimeoutMs }, this);
  }

  fail(stage: FailedStage, cause: Error): void {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.#queued);
    this.#listener.onFailed(stage, cause);
  }

  // --- UpstreamExchange ------------------------------------------------------------------------------

  cancel(reason: Error): void {
    if (this.over) return;
    this.#cancelled = reason;
    if (this.#controller !== undefined) {
      this.#controller.abort(reason);
      return;
    }
    // Still waiting for a connection: its start, should it come, finds the exchange over.
    this.#leaveQueue?.();
    this.fail('cancelled', reason);
  }

  pause(): void {
    this.#controller?.pause();
  }

  resume(): void {
    this.#controller?.resume();
  }

  // --- undici's side ---------------------------------------------------------------------------------

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.over) {
      controller.abort(this.#cancelled ?? new Error('given up'));
      return;
    }
    this.#controller = controller;
    if (this.#listener.onSending()) return;
    this.#cancelled = new Error('not to be sent any more');
    controller.abort(this.#cancelled);
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    reason?: string,
  ): void {
    if (this.over) return;
    const rawHeaders = latin1(controller.rawHeaders);
    if (status < 200) this.#listener.onInformation(status, rawHeaders);
    else this.#listener.onHead(status, reason ?? '', rawHeaders);
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.over) this.#listener.onData(chunk);
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    const broken = this.#lane?.socketError;
    if (!this.over && broken !== undefined) {
      this.fail('broken', broken);
    } else if (!this.over) {
      this.over = true;
      this.#listener.onEnd(latin1(controller.rawTrailers));
    }
    this.#leaveLane();
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    const begun = this.#controller !== undefined;
    this.fail(this.#cancelled === undefined ? stageOf(error, begun) : 'cancelled', error);
    this.#leaveLane();
  }

  #leaveLane(): void {
    const lane = this.#lane;
    this.#lane = undefined;
    if (lane !== undefined) this.#release(lane);
  }
}

/** `begun`: the request's head may have been written. */
function stageOf(error: Error & { readonly code?: unknown }, begun: boolean): FailedStage {
  if (begun) {
    const late = error.code === 'UND_ERR_HEADERS_TIMEOUT' || error.code === 'UND_ERR_BODY_TIMEOUT';
    return late ? 'timeout' : 'broken';
  }
  const late = error.code === 'UND_ERR_CONNECT_TIMEOUT' || error.code === 'ETIMEDOUT';
  if (late) return 'connect-timeout';
  if (error instanceof TlsFailure) return 'tls';
  return error.code === 'UND_ERR_DESTROYED' || error.code === 'UND_ERR_CLOSED' ? 'closed' : 'refused';
}

function latin1(raw: unknown): string[] {
  if (!Array.isArray(raw)) return [];
  return raw.map((value: unknown) => (Buffer.isBuffer(value) ? value.toString('latin1') : String(value)));
}
