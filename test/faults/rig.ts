/**
 * A whole deployment as real processes on loopback: Redis, three proxies, two workers, the admin, and two
 * recording stores; each part of onewriter reaches Redis over a relay of its own.
 */
import { writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { pause } from '../../src/pause.ts';
import type { CheckInput } from './checker.ts';
import type { Child } from './children.ts';
import type { Relay } from './relay.ts';
import {
  clockPath,
  logPath,
  type Part,
  planRig,
  type ProxyName,
  type RigOptions,
  type RigPlan,
  timing,
} from './rig-plan.ts';
import type { FaultRule, StoreOrder } from './store-faults.ts';
import {
  type Accepted,
  bothStores,
  type Frozen,
  type HistoryEntry,
  type RawTransition,
  readLines,
  type Store,
} from './words.ts';

export class Rig {
  readonly frozen: Frozen[] = [];
  readonly #plan: RigPlan;
  readonly #standing = new Map<Child, number>();
  readonly #killAll = (): void => this.#all().forEach((child) => child.killNow());
  #stopped = false;

  private constructor(plan: RigPlan) {
    this.#plan = plan;
    process.once('exit', this.#killAll);
  }

  static async start(seed: number, options: RigOptions = {}): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), 'onewriter-chaos-'));
    const rig = new Rig(await planRig(directory, seed, options));
    try {
      await rig.redis.untilReady();
      await Promise.all(bothStores.map((store) => rig.stores[store].untilReady()));
      await Promise.all([...rig.#plan.parts.values()].map((child) => child.untilReady()));
      await rig.untilHealthy();
      return rig;
    } catch (error) {
      await rig.stop();
      throw new Error(`the rig did not start; its logs are in ${directory}`, { cause: error });
    }
  }

  get directory(): string {
    return this.#plan.directory;
  }

  get admin(): RigPlan['admin'] {
    return this.#plan.admin;
  }

  get proxies(): RigPlan['proxies'] {
    return this.#plan.proxies;
  }

  get redis(): Child {
    return this.#plan.redis;
  }

  get stores(): RigPlan['stores'] {
    return this.#plan.stores;
  }

  part(name: Part): Child {
    return need(this.#plan.parts.get(name));
  }

  proxy(name: ProxyName): RigPlan['proxies'][number] {
    return need(this.proxies.find((proxy) => proxy.name === name));
  }

  relay(name: Part): Relay {
    return need(this.#plan.relays.get(name));
  }

  // --- stores --------------------------------------------------------------------------------------

  misbehave(store: Store, rule: FaultRule): void {
    this.#tell(store, { order: 'add', rule });
  }

  /** Resolves when a call is being held by this rule. */
  hold(store: Store, rule: Omit<FaultRule, 'misbehaviour'>): Promise<void> {
    const held = new Promise<void>((resolve) => this.#plan.heldListeners.set(rule.name, resolve));
    this.misbehave(store, { ...rule, misbehaviour: 'hold' });
    return held;
  }

  behave(store: Store, name?: string): void {
    this.#tell(store, name === undefined ? { order: 'lift-all' } : { order: 'lift', name });
  }

  #tell(store: Store, order: StoreOrder): void {
    this.stores[store].send(order);
  }

  // --- processes and clocks --------------------------------------------------------------------------

  freeze(child: Child): void {
    if (!child.running || this.#standing.has(child)) return;
    child.signal('SIGSTOP');
    this.#standing.set(child, Date.now());
  }

  thaw(child: Child): void {
    const fromMs = this.#standing.get(child);
    if (fromMs === undefined) return;
    this.#standing.delete(child);
    this.frozen.push({ process: child.name, fromMs, toMs: Date.now() });
    child.signal('SIGCONT');
  }

  async kill(child: Child): Promise<void> {
    await child.kill();
    // Who was killed while it stood still never went on.
    this.#standing.delete(child);
  }

  /** Moves the wall clock of one proxy by so many seconds against the others'. */
  setClock(offsetSeconds: number): void {
    writeFileSync(clockPath(this.directory), `${offsetSeconds < 0 ? '' : '+'}${offsetSeconds}`);
  }

  /** Ends every fault: all processes run, all networks are whole, both stores behave, all clocks agree. */
  async heal(): Promise<void> {
    for (const child of [...this.#standing.keys()]) this.thaw(child);
    for (const relay of this.#plan.relays.values()) {
      relay.disarm();
      relay.set('whole', true);
    }
    for (const store of bothStores) this.behave(store);
    this.setClock(0);
    await this.redis.untilReady();
    await Promise.all([...this.#plan.parts.values()].map((child) => child.untilReady()));
  }

  async untilHealthy(withinMs = 30_000): Promise<void> {
    const endMs = performance.now() + withinMs;
    const urls = [
      ...this.proxies.map(({ port }) => `http://127.0.0.1:${port}/.well-known/onewriter/health`),
      `${this.admin.url}/readyz`,
    ];
    for (const url of urls) {
      while (!(await answersWell(url))) {
        if (performance.now() > endMs) throw new Error(`${url} is not healthy; see ${this.directory}`);
        await pause(100);
      }
    }
  }

  /** Every way in which a process ended by itself. */
  crashes(): string[] {
    return this.#all().flatMap((child) => child.crashes.map((how) => `${child.name}: ${how}`));
  }

  // --- evidence --------------------------------------------------------------------------------------

  get historyPath(): string {
    return join(this.directory, 'history.ndjson');
  }

  /** The ledger's stream of changes, raw, past every relay. */
  transitions(): Promise<RawTransition[]> {
    return this.withRedis(async (redis) => {
      const entries = await redis.xrange('{onewriter}:changes', '-', '+');
      return entries.map(([id, fields]) => ({ id, fields }));
    });
  }

  async withRedis<Result>(work: (redis: Redis) => Promise<Result>): Promise<Result> {
    const redis = new Redis(this.#plan.redisPort, '127.0.0.1', { maxRetriesPerRequest: 1 });
    redis.on('error', () => undefined);
    try {
      return await work(redis);
    } finally {
      redis.disconnect();
    }
  }

  /** Also left as files in the directory. The traffic must have stopped. */
  async evidence(): Promise<CheckInput> {
    const transitions = await this.transitions();
    await writeFile(join(this.directory, 'transitions.json'), JSON.stringify(transitions));
    await writeFile(join(this.directory, 'frozen.json'), JSON.stringify(this.frozen));
    return {
      history: await readLines<HistoryEntry>(this.historyPath),
      accepted: {
        legacy: await readLines<Accepted>(logPath(this.directory, 'legacy')),
        app: await readLines<Accepted>(logPath(this.directory, 'app')),
      },
      transitions,
      frozen: this.frozen,
      settings: { ...timing, defaultOwner: 'legacy', guarded: { legacy: false, app: true } },
    };
  }

  // --- the end ---------------------------------------------------------------------------------------

  /** Ends every process by its pid; the directory stays. Safe to call twice. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const child of [...this.#standing.keys()]) this.thaw(child);
    const others = [...this.#plan.parts.values(), ...Object.values(this.stores)];
    await Promise.all(others.map((child) => child.end(1_500)));
    await this.redis.kill();
    await Promise.all([...this.#plan.relays.values()].map((relay) => relay.close()));
    for (const child of this.#all()) child.closeLog();
    process.off('exit', this.#killAll);
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  #all(): Child[] {
    return [this.redis, ...Object.values(this.stores), ...this.#plan.parts.values()];
  }
}

async function answersWell(url: string): Promise<boolean> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    await answer.body?.cancel();
    return answer.ok;
  } catch {
    return false;
  }
}

function need<Value>(value: Value | undefined): Value {
  if (value === undefined) throw new Error('the rig has no such part');
  return value;
}
