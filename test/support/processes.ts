/** A deployment whose proxy runs in several processes, as an operator starts it, under traffic that is accounted for. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import type { StoreName } from '../../src/core/ownership.ts';
import type { MemberRecord } from '../../src/core/ports.ts';
import { stablePort } from '../faults/children.ts';
import { type CliOptions, type CliProcess, type CliResult, runCli, startCli } from './cli.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import { startRedis, type TestRedis } from './redis.ts';
import { connectorFor, type SeenCall, startRestStore, type TestRestStore } from './rest-store.ts';
import { until } from './until.ts';

export const users = ['u1', 'u2', 'u3', 'u4', 'u5', 'u6'];
const token = 'operator-token-1';
const recordsPerUser = 3;

/** Of the configuration; the sections other than `proxy` are replaced as a whole. */
export interface Changes extends Record<string, unknown> {
  readonly proxy?: Readonly<Record<string, unknown>>;
  readonly writeTimeoutMs?: number;
}

export class ProcessRig {
  readonly directory = mkdtempSync(join(tmpdir(), 'onewriter-processes-'));
  readonly config = join(this.directory, 'onewriter.json');
  readonly server: TestRedis;
  readonly ledger: TestLedger;
  readonly legacy: TestRestStore;
  readonly app: TestRestStore;
  /** Users' writes in the order in which the stores got them. */
  readonly took: { readonly store: StoreName; readonly user: string }[] = [];
  readonly proxyPort: number;
  readonly #adminPort: number;
  #up: CliProcess | undefined;
  #stderr = '';

  private constructor(
    parts: Pick<ProcessRig, 'server' | 'ledger' | 'legacy' | 'app'>,
    ports: readonly [proxy: number, admin: number],
  ) {
    this.server = parts.server;
    this.ledger = parts.ledger;
    this.legacy = parts.legacy;
    this.app = parts.app;
    [this.proxyPort, this.#adminPort] = ports;
    this.legacy.intercept = this.#note('legacy');
    this.app.intercept = this.#note('app');
  }

  static async open(): Promise<ProcessRig> {
    const server = await startRedis();
    const [legacy, app] = [await startRestStore(), await startRestStore()];
    const parts = { server, ledger: await openLedger(server), legacy, app };
    return new ProcessRig(parts, [await stablePort(), await stablePort()]);
  }

  async close(): Promise<void> {
    await this.end();
    await this.ledger.close();
    await Promise.all([this.legacy.stop(), this.app.stop()]);
    await this.server.stop();
    rmSync(this.directory, { recursive: true });
  }

  /** Nothing but what `changes` says differs from one start to the next. */
  configure({ proxy, writeTimeoutMs = 1_000, ...changes }: Changes = {}): void {
    const times = { writeTimeoutMs, settleMs: 500, connector: connectorFor() };
    const whole = {
      proxy: { port: this.proxyPort, processes: 2, ...proxy },
      admin: { port: this.#adminPort, tokens: [{ name: 'ops', role: 'operator', token }] },
      redis: { url: this.server.url },
      dataDir: join(this.directory, 'data'),
      secret: 'a-secret-of-the-process-tests',
      ledger: { leaseMs: 6_000 },
      stores: {
        legacy: { url: this.legacy.url, ...times },
        app: { url: this.app.url, guard: false, ...times },
      },
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
      cohorts: { all: { partitions: users } },
      flip: { waves: ['2', '100%'] },
      sync: { pollMs: 200 },
      ...changes,
    };
    writeFileSync(this.config, JSON.stringify(whole));
  }

  async start(role: 'up' | 'proxy', changes: Changes = {}, options: CliOptions = {}): Promise<CliProcess> {
    this.configure(changes);
    const up = startCli([role, '--config', this.config], options);
    this.#up = up;
    this.#stderr = '';
    up.child.stderr?.on('data', (chunk: Buffer) => (this.#stderr += chunk.toString()));
    let ended = false;
    void up.ended.then(() => (ended = true));
    await until(
      'it says where it listens',
      () => {
        if (ended) throw new Error(this.#stderr);
        return (role === 'up' ? /admin +http/ : /proxy +http/).test(up.stdout());
      },
      60_000,
    );
    return up;
  }

  /** Orderly; no test leaves a process behind. */
  async end(): Promise<CliResult | undefined> {
    const up = this.#up;
    if (up === undefined) return undefined;
    this.#up = undefined;
    up.child.kill('SIGTERM');
    return up.ended;
  }

  stderr(): string {
    return this.#stderr;
  }

  /** How often the log has named an event. */
  told(event: string): number {
    return this.#stderr.split(`"event":"${event}"`).length - 1;
  }

  members(): Promise<MemberRecord[]> {
    return this.ledger.ledger.members();
  }

  cli(...argv: string[]): Promise<CliResult> {
    return runCli(['--config', this.config, '--token', token, ...argv]);
  }

  async admin(path: string): Promise<string> {
    const headers = { authorization: `Bearer ${token}` };
    const { statusCode, body } = await request(`http://127.0.0.1:${this.#adminPort}${path}`, { headers });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${path}: ${statusCode} ${text}`);
    return text;
  }

  /** The status, or the code of the error that broke the exchange. */
  async put(user: string, id: string, title: string, dispatcher: Agent): Promise<number | string> {
    try {
      const { statusCode, body } = await request(`http://127.0.0.1:${this.proxyPort}/appointments/${id}`, {
        method: 'PUT',
        headers: { 'x-user': user, 'content-type': 'application/json' },
        body: JSON.stringify({ id, owner_id: user, title }),
        dispatcher,
      });
      await body.dump();
      return statusCode;
    } catch (error) {
      return (error as Error & { code?: string }).code ?? String(error);
    }
  }

  /** Users whose writes did not all go to legacy first and then, from one moment on, to the app. */
  wroteToBoth(): string[] {
    return users.filter((user) => {
      const stores = this.took.filter((write) => write.user === user).map(({ store }) => store);
      const moved = stores.indexOf('app');
      return moved !== -1 && stores.lastIndexOf('legacy') > moved;
    });
  }

  #note(store: StoreName) {
    return ({ method, headers }: SeenCall): undefined => {
      const user = headers['x-user'];
      if (method === 'PUT' && typeof user === 'string') this.took.push({ store, user });
    };
  }
}

/** Each user on a connection of its own, one write after the other, from the start until the end is asked for. */
export class Traffic {
  /** Everything that was no success. */
  readonly failures: { readonly user: string; readonly outcome: number | string }[] = [];
  acknowledged = 0;
  readonly #rig: ProcessRig;
  readonly #ending = new AbortController();
  readonly #running: Promise<void>[];
  /** By record: the last title that was acknowledged, and those after it whose outcome is unknown. */
  readonly #expected = new Map<string, string[]>();

  constructor(rig: ProcessRig) {
    this.#rig = rig;
    this.#running = users.map((user) => this.#write(user));
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#running);
  }

  /** Records that do not hold in this store what was last acknowledged. */
  lost(store: TestRestStore): string[] {
    return [...this.#expected]
      .map(([id, titles]) => ({ id, titles, title: store.records.get(id)?.['title'] }))
      .filter(({ titles, title }) => typeof title !== 'string' || !titles.includes(title))
      .map((wrong) => JSON.stringify(wrong));
  }

  async #write(user: string): Promise<void> {
    const agent = new Agent({ connections: 1, pipelining: 1 });
    for (let at = 0; !this.#ending.signal.aborted; at += 1) {
      const id = `a-${user}-${at % recordsPerUser}`;
      const outcome = await this.#rig.put(user, id, String(at), agent);
      if (outcome === 200 || outcome === 201) {
        this.acknowledged += 1;
        this.#expected.set(id, [String(at)]);
      } else {
        this.failures.push({ user, outcome });
        this.#expected.set(id, [...(this.#expected.get(id) ?? []), String(at)]);
      }
    }
    await agent.close();
  }
}
