/** Coordinators on a real ledger with real members, in one process; what stores, copies and guards answer is the test's. */
import { createServer, connect, type Server, type Socket } from 'node:net';
import type { Blocker, FlipStatus, NamedCohort, Plan } from '../../src/core/flip.ts';
import {
  type CopyDesk,
  type GuardCalls,
  type KindCapabilities,
  StoreFailure,
  type StoreReader,
} from '../../src/core/ports.ts';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import { HandoffDesk } from '../../src/handoff/desk.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { Book } from '../../src/ledger/books.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { FlipBook } from '../../src/ledger/flips.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import { startRedis, type TestRedis } from './redis.ts';
import { until } from './until.ts';

export const leaseMs = 1_000;
export const leadMs = 600;
export const names = Array.from({ length: 12 }, (_, at) => `u${String(at).padStart(2, '0')}`);
export const cohorts: NamedCohort[] = [
  { name: 'pilot', selection: { partitions: names }, source: 'file' },
  { name: 'early', selection: { partitions: names.slice(0, 6) }, source: 'file' },
  { name: 'empty', selection: { partitions: [] }, source: 'file' },
];

export interface DeskOptions {
  readonly batch?: number;
  readonly acceptLoss?: boolean;
  readonly waves?: readonly string[];
  readonly attempts?: number;
  readonly drainMs?: number;
  readonly fenceMs?: number;
  readonly proof?: HandoffSettings['proof'];
  /** How many replicas must confirm what the coordinator orders. */
  readonly minReplicas?: number;
  /** The coordinator's Redis, where it is not the direct one: see `cutter`. */
  readonly url?: string;
}

export interface TestDesk {
  readonly desk: HandoffDesk;
  readonly watch: MemberWatch;
  readonly events: { readonly event: string; readonly fields: Readonly<Record<string, unknown>> }[];
  close(): Promise<void>;
}

export class FlipRig {
  readonly server: TestRedis;
  readonly ledger: TestLedger;
  readonly redis: Awaited<ReturnType<typeof connectRedis>>;
  readonly desks: TestDesk[] = [];
  readonly #cutters: Cutter[] = [];
  /** Partitions whose copy cannot be completed. */
  hopeless = new Set<string>();
  /** Why nothing is copied now. */
  halts: Blocker[] = [];
  /** How long comparing both sides takes, as the sync says. */
  passMs = 1;
  /** Partitions whose deletes are held back, with a sentence. */
  brakes = new Map<string, string>();
  /** Dead letters by partition. */
  letters = new Map<string, number>();
  /** Called at every catch-up. */
  onCatchUp: (partition: string) => Promise<void> = async () => undefined;
  reachable = true;
  guards: GuardCalls = guards;
  /** Open ones by partition. */
  strays: ReadonlyMap<string, number> = new Map();

  private constructor(
    server: TestRedis,
    ledger: TestLedger,
    redis: Awaited<ReturnType<typeof connectRedis>>,
  ) {
    this.server = server;
    this.ledger = ledger;
    this.redis = redis;
  }

  static async start(): Promise<FlipRig> {
    const server = await startRedis();
    return new FlipRig(server, await openLedger(server), await connectRedis({ url: server.url }));
  }

  async close(): Promise<void> {
    for (const cutter of this.#cutters) cutter.mend();
    for (const desk of this.desks.splice(0)) await desk.close();
    for (const cutter of this.#cutters.splice(0)) await cutter.close();
    this.redis.disconnect();
    await this.ledger.close();
    await this.server.stop();
  }

  /** A coordinator with connections of its own, as in a process of its own. */
  async open(over: DeskOptions = {}): Promise<TestDesk> {
    const url = over.url ?? this.server.url;
    const own = await openLedger({ ...this.server, url }, { minReplicas: over.minReplicas ?? 0 });
    const redis = await connectRedis({ url });
    const watch = new MemberWatch(own.ledger, leaseMs, () => undefined);
    watch.start();
    const guarded = { legacy: false, app: true };
    const events: { event: string; fields: Readonly<Record<string, unknown>> }[] = [];
    const desk = new HandoffDesk({
      ...{ ledger: own.ledger, feed: own.feed, registry: own.registry, members: watch, doubts: own.doubts },
      links: own.links,
      strays: { open: async () => this.strays },
      ...{ copies: this.#copies, guards: this.guards, guarded, leadMs },
      readers: { legacy: this.#reader('legacy'), app: this.#reader('app') },
      writable: ['app'],
      acceptLoss: over.acceptLoss ?? false,
      pinnedRoutes: ['/login'],
      settings: {
        ...{ drainMs: over.drainMs ?? 300, fenceMs: over.fenceMs ?? 1_000, feedDelayMs: 0, guarded },
        ...{ batch: over.batch ?? 4, attempts: over.attempts ?? 2, maxLagMs: 2_000 },
        ...(over.proof === undefined ? {} : { proof: over.proof }),
      },
      plans: new Book<Plan>(redis, 'plans', 200),
      flips: new FlipBook(redis),
      listCohorts: async () => cohorts,
      waves: over.waves ?? ['1', '50%', '100%'],
      log: (_level, event, fields = {}) => events.push({ event, fields }),
    });
    await desk.coordinate();
    const close = async (): Promise<void> => {
      await desk.stop();
      await watch.stop();
      redis.disconnect();
      await own.close();
    };
    const opened = { desk, watch, events, close };
    this.desks.push(opened);
    return opened;
  }

  async openDesk(over: DeskOptions = {}): Promise<HandoffDesk> {
    return (await this.open(over)).desk;
  }

  /** A way to Redis that the test can cut. */
  async cutter(): Promise<Cutter> {
    const cutter = await Cutter.open(this.server.port);
    this.#cutters.push(cutter);
    return cutter;
  }

  async start(desk: HandoffDesk, cohort = 'pilot'): Promise<FlipStatus> {
    const status = await desk.start({ cohort, to: 'app', reason: 'test', by: 'ops' });
    if ('refused' in status) throw new Error(JSON.stringify(status));
    return status;
  }

  ended(desk: HandoffDesk, id: string): Promise<FlipStatus> {
    return this.untilFlip(desk, id, 'it ends', ({ state }) =>
      ['completed', 'failed', 'aborted'].includes(state),
    );
  }

  untilFlip(
    desk: HandoffDesk,
    id: string,
    what: string,
    holds: (flip: FlipStatus) => boolean,
  ): Promise<FlipStatus> {
    return until(what, async () => {
      const status = await desk.flip(id);
      return status !== undefined && holds(status) && status;
    });
  }

  async ownerOf(partition: string): Promise<string> {
    const { ownership } = await this.ledger.ledger.read(partition);
    return `${ownership.phase} ${ownership.owner}`;
  }

  /** Stands in the catch-up of this partition until it is let go. */
  holdAt(partition: string): () => void {
    let letGo: () => void = () => undefined;
    const gone = new Promise<void>((resolve) => (letGo = resolve));
    this.onCatchUp = async (at) => (at === partition ? gone : undefined);
    return letGo;
  }

  /** What the sync answers here; its own behaviour is tested with real stores elsewhere. */
  readonly #copies: CopyDesk = {
    bringUp: async (partition) => {
      const problems = this.hopeless.has(partition)
        ? [{ kind: 'appointment', detail: 'a record has no id' }]
        : [];
      return { recordsCompared: 1, recordsCopied: 0, passes: 1, lastPassMs: this.passMs, problems };
    },
    catchUp: async (partition) => {
      await this.onCatchUp(partition);
      return { recordsCompared: 1, recordsCopied: 0, passes: 1 };
    },
    compare: async (partition) => ({
      partition,
      ...{ ownerRecords: 0, copyRecords: 0, differences: [], problems: [] },
    }),
    lagMs: async () => 0,
    deadLetters: async (partition) => this.letters.get(partition) ?? 0,
    closedWindows: async () => new Set(),
    deleteBrakes: async () => this.brakes,
    halted: async () => this.halts,
  };

  #reader(store: 'legacy' | 'app'): StoreReader {
    const capabilities: KindCapabilities[] = [
      {
        ...{ kind: 'appointment', byPartition: true, since: false, paged: true, tombstones: false },
        versions: 'none',
      },
    ];
    return {
      store,
      capabilities,
      feedDelayMs: 0,
      pages: async function* pages() {},
      get: async () => undefined,
      toCopy: (record) => record,
      shape: () => ({ id: 'id', partition: 'owner' }),
      probe: async () => {
        if (!this.reachable) throw new StoreFailure('unavailable', `${store} refused the connection`);
      },
      close: async () => undefined,
    };
  }
}

const guards: GuardCalls = {
  verdict: async (_store, stamp) => ({ epoch: stamp.epoch }),
  advance: async (_store, stamp) => ({ epoch: stamp.epoch }),
  seal: async () => undefined,
};

/** Passes bytes on to Redis until it is cut; then nothing gets through, and nobody is told. */
export class Cutter {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #cut = false;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `redis://127.0.0.1:${port}`;
  }

  static async open(redisPort: number): Promise<Cutter> {
    const server = createServer();
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
    const address = server.address();
    const cutter = new Cutter(server, typeof address === 'object' && address !== null ? address.port : 0);
    server.on('connection', (near) => {
      const far = connect(redisPort, '127.0.0.1');
      for (const [from, to] of [[near, far] as const, [far, near] as const]) {
        cutter.#sockets.add(from);
        from.on('error', () => to.destroy());
        from.on('close', () => {
          cutter.#sockets.delete(from);
          to.destroy();
        });
        from.on('data', (chunk) => {
          if (!cutter.#cut) to.write(chunk);
        });
      }
    });
    return cutter;
  }

  cut(): void {
    this.#cut = true;
  }

  /** New connections get through again; the old ones break. */
  mend(): void {
    this.#cut = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise<void>((closed) => this.#server.close(() => closed()));
  }
}
