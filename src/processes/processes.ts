/**
 * Several proxies on one port, each a process and a member of its own. This side starts them, starts another in the
 * place of one that died, and passes on what an operator asks of all.
 *
 * All accept from the one listening socket, so what waits in its queue is taken by whoever can: a process that is
 * frozen, dead or draining takes nothing along (docs/decisions/0012-several-processes.md).
 */
import cluster from 'node:cluster';
import { fileURLToPath } from 'node:url';
import type { RuleSet } from '../config/reload.ts';
import type { RedisAddress } from '../ledger/connection.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { Child, type Ready } from './child.ts';

export interface ProcessesSettings {
  readonly rules: RuleSet;
  readonly redis: RedisAddress;
  /** What each process runs. */
  readonly program: URL;
  readonly silentMs: number;
  /** For an orderly end, ms. */
  readonly endWithinMs: number;
  /** From then on nobody is started in the place of one that ends: the signal may have gone to all of them. */
  readonly ending?: AbortSignal | undefined;
  readonly log: Log;
}

const againAfterMs = { first: 200, most: 30_000 };
/** Who has served for so long did not die of its start. */
const steadyAfterMs = 60_000;
const startingWithinMs = 10_000;
const underAnother =
  'proxy.processes is more than 1, but this process is itself a worker of node:cluster. Nothing was started. Let whatever starts it run it as a plain process (with pm2: fork mode), or set proxy.processes to 1.';

export class ProxyProcesses {
  readonly #settings: ProcessesSettings;
  readonly #log: Log;
  readonly #children: Child[] = [];
  readonly #stopping = new AbortController();
  /** Ended: nobody is started any more. */
  readonly #noMore: AbortSignal;
  /** What a process that is started now runs by. */
  #rules: RuleSet;
  #changing: Promise<boolean> | undefined;

  private constructor(settings: ProcessesSettings) {
    this.#settings = settings;
    this.#log = settings.log;
    this.#rules = settings.rules;
    const { signal } = this.#stopping;
    this.#noMore = settings.ending === undefined ? signal : AbortSignal.any([signal, settings.ending]);
  }

  /** Rejects with the error of the first that cannot start; then none is left. */
  static async start(settings: ProcessesSettings): Promise<Ready & { readonly processes: ProxyProcesses }> {
    if (!cluster.isPrimary) throw new Error(underAnother);
    cluster.schedulingPolicy = cluster.SCHED_NONE;
    cluster.setupPrimary({
      exec: fileURLToPath(settings.program),
      args: [],
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const processes = new ProxyProcesses(settings);
    try {
      for (let place = 0; place < settings.rules.config.proxy.processes; place += 1) processes.#open(place);
      const ready = await Promise.all(processes.#children.map((child) => child.ready));
      for (const place of processes.#children.keys()) void processes.#keep(place);
      const warnings = new Set(ready.flatMap((one) => one.warnings));
      return { processes, url: ready[0]?.url ?? '', warnings: [...warnings] };
    } catch (error) {
      await processes.stop();
      throw error;
    }
  }

  /** Of each process, by its place. A process that is started again begins at zero, as any counter may. */
  counters(): Record<string, number> {
    const all: Record<string, number> = {};
    for (const [place, { counters }] of this.#children.entries()) {
      for (const [name, value] of Object.entries(counters)) all[labelled(name, place + 1)] = value;
    }
    return all;
  }

  renewCertificate(): void {
    for (const child of this.#children) child.order({ order: 'renew-certificate' });
  }

  /** True when the new rules are the active ones; else everything is as before, and the log says why. */
  async change(next: RuleSet): Promise<boolean> {
    if (this.#changing !== undefined) return this.#notChanged('a change of the rules is under way already');
    this.#changing = this.#change(next).finally(() => {
      this.#changing = undefined;
    });
    return this.#changing;
  }

  /** What is under way may end, within the time; what is left then is killed. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const killAll = (): void => this.#children.forEach((child) => child.kill());
    // Whoever ends this process now does not want to wait for the others.
    process.once('exit', killAll);
    const late = setTimeout(killAll, this.#settings.endWithinMs);
    for (const child of this.#children) child.order({ order: 'stop' });
    await Promise.all(this.#children.map((child) => child.ended));
    clearTimeout(late);
    process.off('exit', killAll);
  }

  #open(place: number): Child {
    const { redis, silentMs, endWithinMs } = this.#settings;
    const start = { order: 'start', rules: this.#rules, redis, endWithinMs } as const;
    const child = new Child({ start, silentMs, log: this.#log });
    this.#children[place] = child;
    return child;
  }

  /** Another one for each that ends; the member that it was stays listed until it is proven gone. */
  async #keep(place: number): Promise<void> {
    const signal = this.#noMore;
    let child = this.#children[place];
    for (let failures = 0; child !== undefined; failures += 1) {
      const how = await child.ended;
      if (signal.aborted) return;
      if (child.servedMs() > steadyAfterMs) failures = 0;
      const againMs = Math.min(againAfterMs.first * 2 ** failures, againAfterMs.most);
      const detail = `It ended (${how}); another is started in its place.`;
      // It ends so where it was told to, which is the way to renew one after the other.
      this.#log(how === 'exit code 0' ? 'info' : 'error', 'process.ended', {
        process: child.pid,
        againMs,
        detail,
      });
      child = await this.#again(place, againMs);
    }
  }

  /** Tries until there is one; undefined once all are to stop. */
  async #again(place: number, afterMs: number): Promise<Child | undefined> {
    const signal = this.#noMore;
    for (;;) {
      await pause(afterMs, signal).catch(() => undefined);
      // It must not come with rules that the others are just leaving.
      await this.#changing;
      if (signal.aborted) return undefined;
      try {
        const child = this.#open(place);
        void child.ready.then(
          ({ url }) => this.#log('info', 'process.started', { process: child.pid, url }),
          (error: unknown) => this.#log('error', 'process.not-started', { error: sentenceOf(error) }),
        );
        return child;
      } catch (error) {
        this.#log('error', 'process.not-started', { error: sentenceOf(error) });
      }
    }
  }

  async #change(next: RuleSet): Promise<boolean> {
    await this.#untilStarted();
    const running = this.#children.filter(({ state }) => state === 'ready');
    if (running.length === 0 || this.#children.some(({ state }) => state === 'starting')) {
      return this.#notChanged('a proxy process is just being started; send the signal again');
    }
    // One that cannot would only make the others wait for it and go back.
    const obstacles = await Promise.all(running.map((child) => child.obstacle(next)));
    const obstacle = obstacles.find((detail) => detail !== undefined);
    if (obstacle !== undefined) return this.#notChanged(obstacle);
    const outcomes = await Promise.all(
      running.map(async (child) => ({ child, changed: await child.change(next) })),
    );
    if (!outcomes.some(({ changed }) => changed)) return false;
    this.#rules = next;
    // The new rules are active, so who stayed behind admits no write: another comes in its place.
    for (const { child, changed } of outcomes) {
      if (changed) continue;
      this.#log('warn', 'process.left-behind', {
        process: child.pid,
        detail: 'It did not change its rules.',
      });
      child.order({ order: 'stop' });
    }
    return true;
  }

  /** Or until that takes too long. */
  async #untilStarted(): Promise<void> {
    const starting = this.#children.filter(({ state }) => state === 'starting');
    if (starting.length === 0) return;
    const waited = new AbortController();
    const late = pause(startingWithinMs, waited.signal).catch(() => undefined);
    await Promise.race([Promise.allSettled(starting.map((child) => child.ready)), late]);
    waited.abort();
  }

  #notChanged(because: string): false {
    const detail = `The rules were not changed: ${because}. Writes go on under those of before.`;
    this.#log('warn', 'rules.not-changed', { detail });
    return false;
  }
}

/** `requests_total{store="app"}` becomes `requests_total{process="1",store="app"}`. */
function labelled(name: string, place: number): string {
  const label = `process="${place}"`;
  return name.endsWith('}') ? name.replace('{', `{${label},`) : `${name}{${label}}`;
}
