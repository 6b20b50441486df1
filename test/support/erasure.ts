/** A whole deployment in a process of its own, between two small stores of which the app has a guard. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { request } from 'undici';
import {
  type GuardAccess,
  guardAdvance,
  type GuardRow,
  guardSeal,
  guardVerdict,
  unknownToGuard,
} from '../../src/core/guard.ts';
import type { Redis } from 'ioredis';
import { stablePort } from '../faults/children.ts';
import { type CliProcess, type CliResult, runCli, startCli } from './cli.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import { startRedis, type TestRedis } from './redis.ts';
import {
  connectorFor,
  type GivenAnswer,
  type RestStoreOptions,
  type SeenCall,
  startRestStore,
  type TestRestStore,
} from './rest-store.ts';
import { until } from './until.ts';

const token = 'admin-token-1';
export const operatorToken = 'operator-token-1';

export interface ErasureRigOptions {
  readonly legacy?: RestStoreOptions;
  readonly app?: RestStoreOptions;
  /** Sections of the configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  readonly legacyConnector?: Readonly<Record<string, unknown>>;
  readonly settleMs?: number;
}

type Intercept = NonNullable<RestStoreOptions['intercept']>;

export class ErasureRig {
  readonly server: TestRedis;
  readonly parts: TestLedger;
  readonly legacy: TestRestStore;
  readonly app: TestRestStore;
  /** Rows of the app's guard. */
  readonly guard = new Map<string, GuardRow>();
  /** Sees what the app's guard has let through. */
  behindGuard: Intercept | undefined;
  readonly #directory = mkdtempSync(join(tmpdir(), 'onewriter-erasure-'));
  readonly #ports: { readonly proxy: number; readonly admin: number };
  readonly #options: ErasureRigOptions;
  #up: CliProcess | undefined;
  stderr = '';

  private constructor(
    parts: Pick<ErasureRig, 'server' | 'parts' | 'legacy' | 'app'>,
    ports: { readonly proxy: number; readonly admin: number },
    options: ErasureRigOptions,
  ) {
    this.server = parts.server;
    this.parts = parts.parts;
    this.legacy = parts.legacy;
    this.app = parts.app;
    this.app.intercept = (call) => this.#judge(call);
    this.#ports = ports;
    this.#options = options;
  }

  static async open(options: ErasureRigOptions = {}): Promise<ErasureRig> {
    const server = await startRedis();
    const [legacy, app] = [await startRestStore(options.legacy), await startRestStore(options.app)];
    const ports = { proxy: await stablePort(), admin: await stablePort() };
    return new ErasureRig({ server, parts: await openLedger(server), legacy, app }, ports, options);
  }

  get redis(): Redis {
    return this.parts.redis;
  }

  get config(): string {
    return join(this.#directory, 'onewriter.json');
  }

  async start(): Promise<void> {
    this.#configure();
    const up = startCli(['up', '--config', this.config]);
    this.#up = up;
    this.stderr = '';
    up.child.stderr?.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    let ended = false;
    void up.ended.then(() => (ended = true));
    await until(
      'it says where it listens',
      () => {
        if (ended) throw new Error(this.stderr);
        return /admin +http/.test(up.stdout());
      },
      60_000,
    );
  }

  /** Without a word to anybody. */
  async kill(): Promise<void> {
    this.#up?.child.kill('SIGKILL');
    await this.#up?.ended;
    this.#up = undefined;
  }

  async close(): Promise<void> {
    this.#up?.child.kill('SIGTERM');
    await this.#up?.ended;
    await this.parts.close();
    await Promise.all([this.legacy.stop(), this.app.stop()]);
    await this.server.stop();
    rmSync(this.#directory, { recursive: true });
  }

  cli(...argv: string[]): Promise<CliResult> {
    return runCli(['--config', this.config, '--token', token, ...argv]);
  }

  async admin(
    method: 'GET' | 'POST',
    path: string,
    body?: unknown,
    as = token,
  ): Promise<{ readonly status: number; readonly body: Record<string, unknown> }> {
    const headers = { authorization: `Bearer ${as}`, 'content-type': 'application/json' };
    const answer = await request(`http://127.0.0.1:${this.#ports.admin}${path}`, {
      ...{ method, headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.body.text();
    const isJson = String(answer.headers['content-type']).includes('json');
    return {
      status: answer.statusCode,
      body: isJson ? (JSON.parse(text) as Record<string, unknown>) : { text },
    };
  }

  /** A user's write through the proxy. */
  async put(
    user: string,
    id: string,
    title: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly status: number; readonly code: string | undefined }> {
    const answer = await request(`http://127.0.0.1:${this.#ports.proxy}/appointments/${id}`, {
      method: 'PUT',
      headers: { 'x-user': user, 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ id, owner_id: user, title }),
    });
    const text = await answer.body.text();
    return {
      status: answer.statusCode,
      code: text === '' ? undefined : (JSON.parse(text) as { code?: string }).code,
    };
  }

  async get(user: string, id: string): Promise<number> {
    const answer = await request(`http://127.0.0.1:${this.#ports.proxy}/appointments/${id}`, {
      headers: { 'x-user': user },
    });
    await answer.body.dump();
    return answer.statusCode;
  }

  /** Deletes that a store got, by id. */
  deletes(store: TestRestStore): string[] {
    return store.calls
      .filter(({ method }) => method === 'DELETE')
      .map(({ path }) => path.split('/')[2] ?? '');
  }

  #configure(): void {
    const { config, legacyConnector, settleMs = 200 } = this.#options;
    const times = { writeTimeoutMs: 1_000, settleMs };
    const whole = {
      proxy: { port: this.#ports.proxy },
      admin: {
        port: this.#ports.admin,
        tokens: [
          { name: 'root', role: 'admin', token },
          { name: 'ops', role: 'operator', token: operatorToken },
        ],
      },
      redis: { url: this.server.url },
      dataDir: join(this.#directory, 'data'),
      secret: 'a-secret-of-the-erasure-tests',
      ledger: { leaseMs: 2_000 },
      stores: {
        legacy: {
          ...{ url: this.legacy.url, ...times },
          connector: { ...connectorFor(this.#options.legacy), ...legacyConnector },
        },
        app: { url: this.app.url, guard: true, ...times, connector: connectorFor(this.#options.app) },
      },
      identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
      routes: [
        {
          methods: ['PUT', 'DELETE'],
          path: '/appointments/:id',
          record: { kind: 'appointment', id: 'path.id' },
        },
      ],
      sync: { pollMs: 100, strayPassMs: 200, attempts: 2 },
      ...config,
    };
    writeFileSync(this.config, JSON.stringify(whole));
  }

  async #judge(call: SeenCall): Promise<GivenAnswer | undefined> {
    const asked = /^\/\.well-known\/onewriter\/guard\/(\w+)$/.exec(call.path)?.[1];
    const named = call.body?.['partition'] ?? call.headers['onewriter-partition'];
    const partition = typeof named === 'string' ? decodeURIComponent(named) : '';
    const epoch = Number(call.body?.['epoch'] ?? call.headers['onewriter-epoch'] ?? 0);
    const row = this.guard.get(partition) ?? unknownToGuard;
    if (asked !== undefined) {
      if (asked !== 'verdict' && epoch < row.epoch)
        return { status: 409, body: { ...row, code: 'stale-epoch' } };
      if (asked === 'seal') this.guard.set(partition, guardSeal(row, epoch));
      if (asked === 'advance') this.guard.set(partition, guardAdvance(row, epoch));
      return { status: 200, body: { ...this.guard.get(partition), accept: true } };
    }
    const access = String(call.headers['onewriter-access']) as GuardAccess;
    const verdict = guardVerdict(row, access, epoch);
    if (!verdict.accept) return { status: 409, body: { code: verdict.code } };
    if (access !== 'read') this.guard.set(partition, verdict.row);
    return this.behindGuard?.(call);
  }
}

/** Everything that Redis holds, by key, as text; what is packed is unpacked. */
export async function contentsOf(redis: Redis): Promise<ReadonlyMap<string, string>> {
  const contents = new Map<string, string>();
  let cursor = '0';
  do {
    const [next, names] = await redis.scan(cursor, 'COUNT', 1_000);
    cursor = next;
    for (const name of names) contents.set(name, await contentOf(redis, name));
  } while (cursor !== '0');
  return contents;
}

async function contentOf(redis: Redis, name: string): Promise<string> {
  switch (await redis.type(name)) {
    case 'string':
      return textOf(await redis.getBuffer(name));
    case 'hash': {
      const fields = await redis.hgetallBuffer(name);
      return Object.entries(fields)
        .map(([field, value]) => `${field} = ${textOf(value)}`)
        .join('\n');
    }
    case 'set':
      return (await redis.smembers(name)).join('\n');
    case 'zset':
      return (await redis.zrange(name, 0, -1)).join('\n');
    case 'list':
      return (await redis.lrange(name, 0, -1)).join('\n');
    case 'stream':
      return JSON.stringify(await redis.xrange(name, '-', '+'));
    default:
      return '';
  }
}

function textOf(value: Buffer | null): string {
  if (value === null) return '';
  try {
    return inflateRawSync(value).toString();
  } catch {
    return value.toString();
  }
}
