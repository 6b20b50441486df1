/** The proxy's way to a store without the proxy: exchanges that write down what happened to them. */
import {
  type FailedStage,
  Upstream,
  type UpstreamBody,
  type UpstreamBodySink,
  type UpstreamExchange,
  type UpstreamListener,
  type UpstreamRequest,
  type UpstreamSettings,
} from '../../src/proxy/upstream.ts';
import { until } from './until.ts';

export const get: UpstreamRequest = {
  ...{ method: 'GET', target: '/', headers: ['Host', 'h'], body: null },
  ...{ headTimeoutMs: 5_000, stream: 'possible' },
};

export function upstreamTo(origin: string, changes: Partial<UpstreamSettings> = {}): Upstream {
  return new Upstream({
    ...{ origin, connections: 4, streams: 4, connectTimeoutMs: 2_000, queueMax: 10, queueMs: 2_000 },
    ...{ bodyTimeoutMs: 5_000, headerBytesMax: 32_768 },
    bug: (error) => {
      throw error;
    },
    ...changes,
  });
}

/** One exchange: everything that its listener is told, in order. */
export class Asked implements UpstreamListener {
  readonly told: string[] = [];
  status = 0;
  body = '';
  rawHeaders: string[] = [];
  rawTrailers: string[] = [];
  stage: FailedStage | undefined;
  cause: Error | undefined;
  maySend = true;
  /** Done when the listener is told of it, before anything else. */
  readonly on: Partial<Record<'sending' | 'information' | 'head' | 'data' | 'end' | 'failed', () => void>> =
    {};
  readonly exchange: UpstreamExchange;

  constructor(upstream: Pick<Upstream, 'send'>, changes: Partial<UpstreamRequest> = {}) {
    this.exchange = upstream.send({ ...get, ...changes }, this);
    if (this.told.length > 0) throw new Error('it was told something before it had its exchange');
  }

  get over(): boolean {
    return this.told.includes('end') || this.told.includes('failed');
  }

  async done(): Promise<this> {
    await until('the exchange is over', () => this.over);
    return this;
  }

  onSending(): boolean {
    this.#tell('sending');
    return this.maySend;
  }

  onInformation(status: number): void {
    this.#tell('information', String(status));
  }

  onHead(status: number, _reason: string, rawHeaders: string[]): void {
    this.status = status;
    this.rawHeaders = rawHeaders;
    this.#tell('head');
  }

  onData(chunk: Buffer): void {
    this.body += chunk.toString('latin1');
    this.#tell('data');
  }

  onCaughtUp(): void {}

  onEnd(rawTrailers: string[]): void {
    this.rawTrailers = rawTrailers;
    this.#tell('end');
  }

  onFailed(stage: FailedStage, cause: Error): void {
    this.stage = stage;
    this.cause = cause;
    this.#tell('failed');
  }

  #tell(what: keyof Asked['on'], more = ''): void {
    if (this.over) throw new Error(`${what} came after the end`);
    this.told.push(what + more);
    this.on[what]?.();
  }
}

/** A body that the test sends piece by piece. */
export class Body implements UpstreamBody {
  readonly length: number | undefined;
  sink: UpstreamBodySink | undefined;
  resumed = 0;
  stopped = false;

  constructor(length?: number) {
    this.length = length;
  }

  start(sink: UpstreamBodySink): void {
    this.sink = sink;
  }

  resume(): void {
    this.resumed += 1;
  }

  stop(): void {
    this.stopped = true;
  }
}
