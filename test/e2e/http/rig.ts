/**
 * The whole program as a process of its own, between raw clients and two raw stores: what the tests in this
 * folder see is bytes on sockets, the admin API, and nothing of the inside. One deployment serves a whole file.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CliProcess, startCli } from '../../support/cli.ts';
import { openLedger, type TestLedger } from '../../support/ledger.ts';
import { answerOk, RawClient, type RawMessage, RawUpstream, statusOf } from '../../support/raw-http.ts';
import { startRedis, type TestRedis } from '../../support/redis.ts';
import { until } from '../../support/until.ts';

export const storeNames = ['legacy', 'app'] as const;
export type StoreName = (typeof storeNames)[number];

const operator = 'operator-token-1';
/** Somewhat longer than the admin API answers with the same text. */
const metricsKeptMs = 2_050;

export interface HttpRigOptions {
  /** Sections of the configuration beside `stores`; each replaces its default as a whole, but for `proxy`. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Keys of one store, beside `url`. */
  readonly legacy?: Readonly<Record<string, unknown>>;
  readonly app?: Readonly<Record<string, unknown>>;
  /** Path in the URL of both stores. */
  readonly prefix?: string;
}

export class HttpRig {
  readonly port: number;
  readonly adminUrl: string;
  readonly legacy: RawUpstream;
  readonly app: RawUpstream;
  /** The ledger itself, for what no order to the running program would do slowly enough. */
  readonly books: TestLedger;
  readonly process: CliProcess;
  readonly #clients = new Set<RawClient>();
  readonly #configure: (changes: Readonly<Record<string, unknown>>) => void;
  #said = '';
  readonly #redis: TestRedis;
  readonly #directory: string;
  /** When /metrics was asked last. */
  #askedMs = Number.NEGATIVE_INFINITY;

  private constructor(
    parts: Pick<HttpRig, 'port' | 'adminUrl' | 'legacy' | 'app' | 'books' | 'process'>,
    redis: TestRedis,
    directory: string,
    configure: (changes: Readonly<Record<string, unknown>>) => void,
  ) {
    this.#configure = configure;
    parts.process.child.stderr?.on('data', (text: Buffer) => (this.#said += text.toString()));
    this.port = parts.port;
    this.adminUrl = parts.adminUrl;
    this.legacy = parts.legacy;
    this.app = parts.app;
    this.books = parts.books;
    this.process = parts.process;
    this.#redis = redis;
    this.#directory = directory;
  }

  /** Rejects with what the program said where it does not start; what had started is ended again. */
  static async start(options: HttpRigOptions = {}): Promise<HttpRig> {
    const directory = mkdtempSync(join(tmpdir(), 'onewriter-http-'));
    const redis = await startRedis();
    const [legacy, app] = await Promise.all([RawUpstream.start(), RawUpstream.start()]);
    const urls = { redis: redis.url, legacy: legacy.url, app: app.url };
    const file = join(directory, 'onewriter.json');
    const configure = (changes: Readonly<Record<string, unknown>>): void => {
      const config = { ...options.config, ...changes };
      writeFileSync(file, JSON.stringify(configurationOf({ ...options, config }, urls, directory)));
    };
    configure({});
    const process = startCli(['up', '--config', file]);
    try {
      const listening = await addressesOf(process);
      const books = await openLedger(redis);
      const rig = new HttpRig({ ...listening, legacy, app, books, process }, redis, directory, configure);
      // Writes wait until the first heartbeat is confirmed; no test is about that.
      const write = 'POST /warm-up HTTP/1.1\r\nHost: h\r\nx-user: warm-up\r\nContent-Length: 0\r\n\r\n';
      await until('it takes writes', async () => statusOf(await rig.exchange(write)) === 200, 30_000);
      await rig.tidy();
      return rig;
    } catch (error) {
      process.child.kill('SIGKILL');
      await Promise.all([legacy.stop(), app.stop(), redis.stop()]);
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  store(name: StoreName): RawUpstream {
    return name === 'legacy' ? this.legacy : this.app;
  }

  /** A client connection; `tidy` ends it. `from`: the address that the proxy sees. */
  async connect(from?: string): Promise<RawClient> {
    const client = await RawClient.open(this.port, undefined, from);
    this.#clients.add(client);
    return client;
  }

  /** One request on a connection of its own, and its one answer. */
  async exchange(request: string, from?: string): Promise<RawMessage> {
    const client = await this.connect(from);
    client.send(request);
    try {
      return await client.answer({ bodyless: request.startsWith('HEAD ') });
    } finally {
      client.close();
      this.#clients.delete(client);
    }
  }

  /** What the stores have received is forgotten; their connections stay. */
  forget(): void {
    for (const name of storeNames) this.store(name).forget();
  }

  /**
   * For afterEach: ends every client connection and, in order, every upstream connection, so that none is left in
   * the pool half dead; both stores answer "ok" again.
   */
  async tidy(): Promise<void> {
    for (const client of this.#clients) client.close();
    this.#clients.clear();
    for (const name of storeNames) {
      const store = this.store(name);
      store.answer = answerOk;
      store.onBytes = undefined;
      store.onConnection = undefined;
      await store.endConnections();
      store.forget();
    }
  }

  // --- the ledger ------------------------------------------------------------------------------------

  /** From now on writes of the partition are held, in this process too. Returns the way out. */
  async fence(
    partition: string,
    fenceMs = 60_000,
  ): Promise<{ reopen(): Promise<void>; commit(): Promise<void> }> {
    const attempt = `attempt of ${partition} ${Math.random()}`;
    const before = (await this.books.ledger.read(partition)).ownership;
    const to = before.owner === 'legacy' ? 'app' : 'legacy';
    let acknowledged = false;
    const stopListening = this.books.feed.onAcknowledgement((from) => {
      if (from.attempt === attempt) acknowledged = true;
    });
    await this.#order(partition, { kind: 'fence', to, attempt, fenceMs });
    const { position } = await this.books.ledger.snapshot();
    await until('the proxy has heard of the fence', async () => {
      // It acknowledges only with no write of the partition in flight; its heartbeat tells in any case, later.
      const members = await this.books.ledger.members();
      return acknowledged || members.every((member) => member.appliedVersion >= position.version);
    });
    stopListening();
    return {
      reopen: () => this.#order(partition, { kind: 'abort', attempt }),
      commit: async () => {
        await this.#order(partition, { kind: 'commit', attempt });
        await this.#order(partition, { kind: 'release', attempt });
      },
    };
  }

  /**
   * The partition is the app's from now on, without a copy: these stores hold no records. A proxy that has not
   * heard of the end yet holds its writes until it has.
   */
  async moveToApp(partition: string): Promise<void> {
    const fence = await this.fence(partition);
    await fence.commit();
  }

  async #order(
    partition: string,
    order: Parameters<TestLedger['ledger']['order']>[0]['order'],
  ): Promise<void> {
    const answer = await this.books.ledger.order({ partition, order, by: 'test', reason: 'test' });
    if (answer.result !== 'done') throw new Error(`the ledger answered ${JSON.stringify(answer)}`);
  }

  // --- what the program says of itself ----------------------------------------------------------------

  /**
   * Resolves when the proxy has taken up whatever bytes, and ends of connections, were sent to it before: it
   * reads its sockets in turn.
   */
  async settled(): Promise<void> {
    for (let round = 0; round < 2; round += 1) {
      await this.exchange('GET /.well-known/onewriter/health HTTP/1.1\r\nHost: h\r\n\r\n');
    }
  }

  /**
   * What GET /metrics says, by name without `onewriter_`. It keeps what it measured for two seconds, so this waits
   * until that is over: what is answered was measured after the call.
   */
  async counters(): Promise<Record<string, number>> {
    const freshInMs = this.#askedMs + metricsKeptMs - performance.now();
    if (freshInMs > 0) await new Promise((resolve) => setTimeout(resolve, freshInMs));
    const answer = await this.admin('/metrics');
    this.#askedMs = performance.now();
    if (answer.status !== 200) throw new Error(`/metrics answered ${answer.status}`);
    const counters: Record<string, number> = {};
    for (const line of (await answer.text()).split('\n')) {
      const [, name, value] = /^onewriter_(\S.*) (\S+)$/.exec(line) ?? [];
      if (name !== undefined) counters[name] = Number(value);
    }
    return counters;
  }

  /** What the program has logged since it was started. */
  get said(): string {
    return this.#said;
  }

  /** Sections of the configuration become others, by a signal. */
  reload(changes: Readonly<Record<string, unknown>>): void {
    this.#configure(changes);
    this.process.child.kill('SIGHUP');
  }

  /** Waits until the counter has this value. */
  async counted(name: string, value: number): Promise<void> {
    await this.countedAll({ [name]: value });
  }

  /** Waits until the counters have these values, all at once. */
  async countedAll(wanted: Readonly<Record<string, number>>): Promise<void> {
    await until(
      JSON.stringify(wanted),
      async () => {
        const now = await this.counters();
        return Object.entries(wanted).every(([name, value]) => now[name] === value);
      },
      20_000,
    );
  }

  admin(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { authorization: `Bearer ${operator}`, 'content-type': 'application/json' };
    return fetch(this.adminUrl + path, { ...init, headers });
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.close();
    this.process.child.kill('SIGTERM');
    await this.process.ended;
    await this.books.close();
    await Promise.all([this.legacy.stop(), this.app.stop()]);
    await this.#redis.stop();
    rmSync(this.#directory, { recursive: true });
  }
}

async function addressesOf(
  process: CliProcess,
): Promise<{ readonly port: number; readonly adminUrl: string }> {
  let failed: string | undefined;
  void process.ended.then(({ stdout, stderr }) => (failed = stdout + stderr));
  return until(
    'the program listens',
    () => {
      if (failed !== undefined) throw new Error(`the program ended: ${failed}`);
      const proxy = /proxy +https?:\S+:(\d+)/.exec(process.stdout())?.[1];
      const adminUrl = /admin +(http:\S+)/.exec(process.stdout())?.[1];
      return proxy !== undefined && adminUrl !== undefined && { port: Number(proxy), adminUrl };
    },
    30_000,
  );
}

function configurationOf(
  { config = {}, legacy = {}, app = {}, prefix = '' }: HttpRigOptions,
  urls: Readonly<Record<'redis' | StoreName, string>>,
  directory: string,
): Record<string, unknown> {
  const { proxy, ...sections } = config;
  return {
    proxy: { port: 0, ...(proxy as object | undefined) },
    admin: { port: 0, tokens: [{ name: 'ops', role: 'operator', token: operator }] },
    redis: { url: urls.redis },
    dataDir: join(directory, 'data'),
    secret: 'a-secret-of-the-http-tests',
    identity: [{ header: 'x-user', from: ['127.0.0.0/8'] }],
    ...sections,
    stores: {
      // A write in doubt counts for the settle time, also while the program ends.
      legacy: { url: urls.legacy + prefix, settleMs: 100, ...legacy },
      app: { url: urls.app + prefix, guard: false, settleMs: 100, ...app },
    },
  };
}

// --- requests and answers as text ----------------------------------------------------------------------

/** A request of the user `ann` with CRLF line ends; `lines` are header fields, as they shall be sent. */
export function requestText(
  startLine: string,
  {
    user = 'ann',
    lines = [],
    body = '',
  }: { user?: string | null; lines?: readonly string[]; body?: string } = {},
): string {
  const own = user === null ? [] : [`x-user: ${user}`];
  return [`${startLine} HTTP/1.1`, 'Host: shop.example', ...own, ...lines, '', body].join('\r\n');
}

/** A problem document, parsed. */
export function problemOf(answer: RawMessage): Record<string, unknown> {
  return JSON.parse(answer.body) as Record<string, unknown>;
}
