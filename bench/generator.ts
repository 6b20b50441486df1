/**
 * Load from raw sockets, as a process of its own: takes its order as JSON from standard input, prints its report
 * as one line of JSON.
 *
 * With `perSecond` the load has a constant rate, whatever the answers do (open loop): a request is due at its time,
 * waits for a free connection if it must, and its latency counts from when it was due. So a proxy that stalls cannot
 * hide the requests that it kept from being sent ("coordinated omission", as wrk2 avoids it). Without it every
 * connection sends again as soon as it was answered (closed loop).
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import { quantile } from './statistics.ts';

export interface GeneratorOrder {
  readonly port: number;
  /** Whole requests, sent in turn; all must be answered with Content-Length. */
  readonly requests: readonly string[];
  readonly connections: number;
  /** Counted, after the warm-up, s. */
  readonly seconds: number;
  readonly warmSeconds: number;
  readonly perSecond?: number | undefined;
}

export interface GeneratorReport {
  /** 2xx answers in the counted time, per second. */
  readonly perSecond: number;
  readonly answered: number;
  /** Other answers, broken connections, and requests that had no answer in time. */
  readonly errors: number;
  readonly latencyMs: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** Who has no answer that long after the end counts as an error. */
const graceMs = 10_000;
/** Longest sleep between two looks, ms: timers of Node know only whole milliseconds. */
const napMs = 0.2;

/** One request at a time. */
class Connection {
  readonly #socket: Socket;
  readonly #answered: (connection: Connection, ok: boolean) => void;
  #head = '';
  #missing = 0;
  #ok = false;
  /** When the request under way was due, monotonic ms; undefined while there is none. */
  dueMs: number | undefined;

  constructor(
    socket: Socket,
    answered: (connection: Connection, ok: boolean) => void,
    lost: (connection: Connection) => void,
  ) {
    this.#socket = socket;
    this.#answered = answered;
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => lost(this));
  }

  send(request: Buffer, dueMs: number): void {
    this.dueMs = dueMs;
    this.#socket.write(request);
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    let received = chunk.byteLength;
    if (this.#missing === 0) {
      this.#head += chunk.toString('latin1');
      const end = this.#head.indexOf('\r\n\r\n');
      if (end === -1) return;
      received = this.#head.length - end - 4;
      const head = this.#head.slice(0, end);
      this.#head = '';
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
      this.#ok = /^HTTP\/1\.1 2\d\d/.test(head) && length !== undefined;
      this.#missing = Number(length ?? received);
    }
    this.#missing -= received;
    if (this.#missing <= 0) {
      this.#missing = 0;
      this.#answered(this, this.#ok);
    }
  }
}

class Generator {
  readonly #order: GeneratorOrder;
  readonly #requests: readonly Buffer[];
  readonly #free: Connection[] = [];
  readonly #busy = new Set<Connection>();
  readonly #latenciesMs: number[] = [];
  readonly #nap = new Int32Array(new SharedArrayBuffer(4));
  /** Counted is what was due (open loop) or answered (closed loop) from then until then. */
  #fromMs = 0;
  #untilMs = 0;
  #sent = 0;
  #errors = 0;
  #over = false;

  constructor(order: GeneratorOrder) {
    this.#order = order;
    this.#requests = order.requests.map((request) => Buffer.from(request, 'latin1'));
  }

  async run(): Promise<GeneratorReport> {
    const { connections, warmSeconds, seconds, perSecond } = this.#order;
    await Promise.all(Array.from({ length: connections }, () => this.#connect()));
    const startMs = performance.now();
    this.#fromMs = startMs + warmSeconds * 1_000;
    this.#untilMs = this.#fromMs + seconds * 1_000;
    if (perSecond === undefined) this.#sendEverywhere();
    else await this.#sendInTime(startMs, perSecond);
    await this.#untilQuiet();
    this.#over = true;
    for (const connection of [...this.#free, ...this.#busy]) connection.close();
    const sorted = this.#latenciesMs.toSorted((a, b) => a - b);
    return {
      perSecond: sorted.length / seconds,
      answered: sorted.length,
      errors: this.#errors,
      latencyMs: { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), max: quantile(sorted, 1) },
    };
  }

  async #connect(): Promise<void> {
    const socket = connect({ host: '127.0.0.1', port: this.#order.port, noDelay: true });
    await once(socket, 'connect');
    this.#free.push(new Connection(socket, this.#answered, this.#lost));
  }

  #sendEverywhere(): void {
    const nowMs = performance.now();
    for (const connection of this.#free.splice(0)) this.#send(connection, nowMs);
  }

  async #sendInTime(startMs: number, perSecond: number): Promise<void> {
    const all = Math.floor(((this.#untilMs - startMs) / 1_000) * perSecond);
    const dueMs = (number: number): number => startMs + (number * 1_000) / perSecond;
    while (this.#sent < all && performance.now() < this.#untilMs + graceMs) {
      while (this.#sent < all && dueMs(this.#sent) <= performance.now()) {
        const connection = this.#free.pop();
        if (connection === undefined) break;
        this.#send(connection, dueMs(this.#sent));
      }
      this.#sleepUntil(dueMs(this.#sent));
      // Lets the sockets have their turn.
      await setImmediate();
    }
    this.#errors += all - this.#sent;
  }

  /** Blocks, so never for long; and not at all once it is late and could send. */
  #sleepUntil(dueMs: number): void {
    const leftMs = this.#free.length === 0 ? napMs : dueMs - performance.now();
    if (leftMs > 0) Atomics.wait(this.#nap, 0, 0, Math.min(leftMs, napMs));
  }

  async #untilQuiet(): Promise<void> {
    const givenUpMs = this.#untilMs + graceMs;
    while ((this.#busy.size > 0 || performance.now() < this.#untilMs) && performance.now() < givenUpMs) {
      await new Promise((wait) => setTimeout(wait, 1));
    }
    this.#errors += this.#busy.size;
  }

  #send(connection: Connection, dueMs: number): void {
    this.#busy.add(connection);
    const request = this.#requests[this.#sent % this.#requests.length];
    this.#sent += 1;
    if (request !== undefined) connection.send(request, dueMs);
  }

  readonly #answered = (connection: Connection, ok: boolean): void => {
    const nowMs = performance.now();
    const { dueMs = nowMs } = connection;
    connection.dueMs = undefined;
    this.#busy.delete(connection);
    const closedLoop = this.#order.perSecond === undefined;
    const countedMs = closedLoop ? nowMs : dueMs;
    if (!ok) this.#errors += 1;
    else if (countedMs >= this.#fromMs && countedMs < this.#untilMs) this.#latenciesMs.push(nowMs - dueMs);
    if (closedLoop && nowMs < this.#untilMs) this.#send(connection, nowMs);
    else this.#free.push(connection);
  };

  /** A proxy may close what is idle; a request that goes with its connection is an error. */
  readonly #lost = (connection: Connection): void => {
    if (this.#over) return;
    if (this.#busy.delete(connection)) this.#errors += 1;
    else this.#free.splice(this.#free.indexOf(connection), 1);
    this.#connect().then(
      () =>
        this.#order.perSecond === undefined && performance.now() < this.#untilMs && this.#sendEverywhere(),
      () => (this.#errors += 1),
    );
  };
}

const order = JSON.parse(await text(process.stdin)) as GeneratorOrder;
process.stdout.write(`${JSON.stringify(await new Generator(order).run())}\n`);
process.exit(0);
