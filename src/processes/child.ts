/** One proxy process, seen from the process that started it: its life from the start to the end. */
import cluster, { type Worker } from 'node:cluster';
import type { RuleSet } from '../config/reload.ts';
import type { Log } from '../log.ts';
import { heardError, type ProcessOrder, pulseMs, type Report } from './messages.ts';

export interface Ready {
  readonly url: string;
  readonly warnings: readonly string[];
}

export interface ChildSettings {
  readonly start: Extract<ProcessOrder, { order: 'start' }>;
  /** A process that has not said for so long that it lives is ended, ms: it would keep its clients for ever. */
  readonly silentMs: number;
  readonly log: Log;
}

/** Loading the program takes its time on a busy machine. */
const firstPulseWithinMs = 60_000;
const answerWithinMs = 5_000;

export class Child {
  /** Rejects with what the process said, or that it ended. */
  readonly ready: Promise<Ready>;
  /** Says how: an exit code or a signal. */
  readonly ended: Promise<string>;
  readonly #worker: Worker;
  #counters: Readonly<Record<string, number>> = {};
  #state: 'starting' | 'ready' | 'ended' = 'starting';
  #readyAtMs = Number.POSITIVE_INFINITY;
  #hear: (report: Report) => void = () => undefined;

  /** Throws where no process can be made. */
  constructor({ start, silentMs, log }: ChildSettings) {
    this.#worker = cluster.fork();
    this.ended = new Promise((resolve) => {
      this.#worker.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
      // Also an order that could not be delivered; then the end follows.
      this.#worker.on('error', (error) => {
        if (this.#worker.process.pid === undefined) resolve(error.message);
      });
    });
    const watch = this.#watch(silentMs, log);
    this.ready = new Promise((resolve, reject) => {
      this.#worker.on('message', (report: Report) => {
        if (report.report === 'ready') this.#becomeReady();
        if (report.report === 'ready') resolve(report);
        else if (report.report === 'not-started') reject(heardError(report.error));
        else if (report.report === 'pulse') this.#counters = report.counters;
        else this.#hear(report);
      });
      void this.ended.then((how) => {
        this.#state = 'ended';
        clearInterval(watch);
        reject(new Error(`A proxy process ended before it was ready (${how}).`));
      });
    });
    this.ready.catch(() => undefined);
    this.order(start);
  }

  get pid(): number | undefined {
    return this.#worker.process.pid;
  }

  get state(): 'starting' | 'ready' | 'ended' {
    return this.#state;
  }

  /** As of its last pulse. */
  get counters(): Readonly<Record<string, number>> {
    return this.#counters;
  }

  /** Since it was ready; nothing if it never was. */
  servedMs(): number {
    return Math.max(0, performance.now() - this.#readyAtMs);
  }

  /** Why the rules cannot be changed to these there now; also where it does not say. */
  async obstacle(rules: RuleSet): Promise<string | undefined> {
    const answer = await this.#ask({ order: 'name-obstacle', rules }, 'obstacle', answerWithinMs);
    return answer === undefined ? `the proxy process ${this.pid} does not answer` : answer.detail;
  }

  /** False also where the process ends meanwhile. */
  async change(rules: RuleSet): Promise<boolean> {
    return (await this.#ask({ order: 'change', rules }, 'changed'))?.changed === true;
  }

  order(order: ProcessOrder): void {
    // It may end at any moment; whoever waits for an answer hears of the end.
    if (this.#worker.isConnected()) this.#worker.send(order, () => undefined);
  }

  kill(): void {
    this.#worker.process.kill('SIGKILL');
  }

  #becomeReady(): void {
    this.#state = 'ready';
    this.#readyAtMs = performance.now();
  }

  /** One question at a time. Undefined: it has ended, or `withinMs` is over. */
  #ask<Kind extends 'obstacle' | 'changed'>(
    order: ProcessOrder,
    kind: Kind,
    withinMs?: number,
  ): Promise<Extract<Report, { report: Kind }> | undefined> {
    return new Promise((resolve) => {
      const late =
        withinMs === undefined ? undefined : setTimeout(() => resolve(undefined), withinMs).unref();
      this.#hear = (report) => {
        if (report.report !== kind) return;
        clearTimeout(late);
        resolve(report as Extract<Report, { report: Kind }>);
      };
      void this.ended.then(() => resolve(undefined));
      this.order(order);
    });
  }

  /** Counted in looks, not in time: where the whole machine stood still, nobody has been silent. */
  #watch(silentMs: number, log: Log): NodeJS.Timeout {
    let looksLeft = firstPulseWithinMs / pulseMs;
    this.#worker.on('message', () => {
      looksLeft = Math.ceil(silentMs / pulseMs);
    });
    return setInterval(() => {
      looksLeft -= 1;
      if (looksLeft !== 0) return;
      const detail = 'It does not react any more, so it is ended; another is started in its place.';
      log('error', 'process.silent', { process: this.pid, detail });
      this.kill();
    }, pulseMs);
  }
}
