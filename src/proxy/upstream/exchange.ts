/** One exchange on its way through the pool: who waits for it, what carries it, and that it ends exactly once. */
import type { FailedStage, UpstreamExchange, UpstreamListener, UpstreamRequest } from '../upstream.ts';

/** The connection that carries an exchange, or is being opened for it. */
export interface Carrier {
  abandon(exchange: Exchange): void;
  pause(): void;
  resume(): void;
}

export class Exchange implements UpstreamExchange {
  readonly request: UpstreamRequest;
  readonly listener: UpstreamListener;
  readonly #bug: (error: unknown) => void;
  #carrier: Carrier | undefined;
  #waiting: NodeJS.Timeout | undefined;
  #leaveQueue: (() => void) | undefined;
  over = false;

  constructor(request: UpstreamRequest, listener: UpstreamListener, bug: (error: unknown) => void) {
    this.request = request;
    this.listener = listener;
    this.#bug = bug;
  }

  waitAtMost(waitMs: number, leave: () => void): void {
    this.#leaveQueue = leave;
    this.#waiting = setTimeout(
      () => this.fail('pool-full', new Error(`no connection became free within ${waitMs} ms`)),
      waitMs,
    );
  }

  carriedBy(carrier: Carrier): void {
    this.#carrier = carrier;
    clearTimeout(this.#waiting);
    this.#leaveQueue = undefined;
  }

  cancel(reason: Error): void {
    this.fail('cancelled', reason);
  }

  pause(): void {
    if (!this.over) this.#carrier?.pause();
  }

  resume(): void {
    if (!this.over) this.#carrier?.resume();
  }

  /** Nothing more of it is sent or taken. */
  fail(stage: FailedStage, cause: Error): void {
    if (this.over) return;
    this.#end();
    try {
      this.listener.onFailed(stage, cause);
    } catch (error) {
      this.#bug(error);
    }
  }

  // --- the connection's side: a listener that throws ends its own exchange, and nothing else -----------

  sending(): boolean {
    try {
      return this.listener.onSending();
    } catch (error) {
      this.#bug(error);
      return false;
    }
  }

  interim(status: number, rawHeaders: string[]): void {
    try {
      this.listener.onInformation(status, rawHeaders);
    } catch (error) {
      this.#failOnBug(error);
    }
  }

  head(status: number, reason: string, rawHeaders: string[]): void {
    try {
      this.listener.onHead(status, reason, rawHeaders);
    } catch (error) {
      this.#failOnBug(error);
    }
  }

  data(chunk: Buffer): void {
    try {
      this.listener.onData(chunk);
    } catch (error) {
      this.#failOnBug(error);
    }
  }

  caughtUp(): void {
    try {
      this.listener.onCaughtUp();
    } catch (error) {
      this.#failOnBug(error);
    }
  }

  end(rawTrailers: string[]): void {
    this.#end();
    try {
      this.listener.onEnd(rawTrailers);
    } catch (error) {
      this.#bug(error);
    }
  }

  #end(): void {
    this.over = true;
    clearTimeout(this.#waiting);
    this.#leaveQueue?.();
    const carrier = this.#carrier;
    this.#carrier = undefined;
    carrier?.abandon(this);
  }

  #failOnBug(error: unknown): void {
    this.#bug(error);
    this.fail('broken', error instanceof Error ? error : new Error(String(error)));
  }
}
