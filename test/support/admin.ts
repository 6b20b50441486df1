/** The admin API on a real port and a real Redis; what flips and copies answer is the test's to say. */
import { Redis } from 'ioredis';
import { RedisAuditLog } from '../../src/admin/audit.ts';
import { createAdmin } from '../../src/admin/server.ts';
import type { BrakeEntry, BrakeOnAllEntry } from '../../src/admin/parts.ts';
import type { WebhookState } from '../../src/sync/webhooks/open.ts';
import type { BackfillProgress } from '../../src/sync/backfill.ts';
import type { Config } from '../../src/config/schema.ts';
import { resolveCohort } from '../../src/core/cohort.ts';
import type {
  FlipDesk,
  FlipStatus,
  NamedCohort,
  NamedPartitionReport,
  OrderRefusal,
  PartitionReport,
  Plan,
} from '../../src/core/flip.ts';
import type { CopyDesk, PartitionComparison } from '../../src/core/ports.ts';
import { DirectoryMoves } from '../../src/handoff/directory.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { RedisDirectory } from '../../src/ledger/directory.ts';
import { RedisLedger } from '../../src/ledger/ledger.ts';
import { DeadLetters } from '../../src/sync/dead-letters.ts';
import { HaltBook } from '../../src/sync/halts.ts';
import type { StoreTrouble } from '../../src/stores/reach.ts';
import type { PollFailure } from '../../src/sync/progress.ts';
import { type DifferenceExample, shownValue } from '../../src/core/verification.ts';
import { Snapshots } from '../../src/sync/snapshots.ts';
import { StrayBook } from '../../src/sync/stray-book.ts';
import { VerificationBook } from '../../src/sync/verification-book.ts';
import { Verifications } from '../../src/sync/verifications.ts';
import type { StepReport } from '../../src/sync/verify-range.ts';
import { loadedWith } from './config.ts';
import { openLedger, type TestLedger } from './ledger.ts';
import type { TestRedis } from './redis.ts';

export const tokens = {
  viewer: 'viewer-token-1',
  operator: 'operator-token-1',
  admin: 'admin-token-1',
} as const;

export interface AdminRig {
  readonly url: string;
  readonly parts: TestLedger;
  readonly audit: RedisAuditLog;
  readonly redis: Redis;
  readonly desk: ScriptedDesk;
  readonly strays: StrayBook;
  /** What comparing a partition says; by default both sides are empty and equal. */
  compare: (partition: string) => PartitionComparison | Promise<PartitionComparison>;
  readonly logged: string[];
  /** What this process cannot reach, and why polls fail; nothing by default. */
  unreachable: readonly StoreTrouble[];
  pollFailure: PollFailure | undefined;
  /** How far first copies are; none by default. */
  backfills: readonly BackfillProgress[];
  deliveries: WebhookState['deliveries'];
  brakes: readonly BrakeEntry[];
  brakeOnAll: BrakeOnAllEntry | undefined;
  /** Partitions whose rollback window is closed; undefined where there is no window. */
  closedWindows: ReadonlySet<string> | undefined;
  /** What the configuration says now; it can change without a restart. */
  rules: Pick<Config, 'partition' | 'partitionNames' | 'newPartitions'>;
  call(
    method: string,
    path: string,
    options?: { token?: string | null; body?: unknown; text?: string; type?: string },
  ): Promise<Answer>;
  /** Ends what the rig has open beside the admin API, for a test that goes on without Redis. */
  closeOther(): Promise<void>;
  stop(): Promise<void>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly body: Record<string, unknown>;
}

export async function startAdmin(server: TestRedis): Promise<AdminRig> {
  const parts = await openLedger(server);
  // Like the program's connections, but without their time limits: ioredis keeps timers for commands that
  // it refuses at once and for sockets that are gone, and a test without Redis would end only after them.
  const redis = new Redis(server.url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    disconnectTimeout: 50,
  });
  redis.on('error', () => undefined);
  await redis.connect();
  const ledger = new RedisLedger(redis, { defaultOwner: 'legacy', minReplicas: 0 });
  await redis.flushall();
  const audit = new RedisAuditLog(redis);
  const desk = new ScriptedDesk(parts);
  const { config } = loadedWith({
    'admin.port': 0,
    'admin.tokens': [
      { name: 'vera', role: 'viewer', token: tokens.viewer },
      { name: 'olga', role: 'operator', token: tokens.operator },
      // The SHA-256 of the admin token: the file need not hold the token itself.
      { name: 'anna', role: 'admin', sha256: sha256OfAdmin },
    ],
    cohorts: { pilot: { partitions: ['u1', 'u2'] }, large: { where: { seats: { gt: 100 } } } },
  });
  const logged: string[] = [];
  const letters = new DeadLetters(redis);
  const copies: CopyDesk = {
    bringUp: () => Promise.reject(new Error('not part of this test')),
    catchUp: () => Promise.reject(new Error('not part of this test')),
    compare: async (partition) => rig.compare(partition),
    lagMs: async () => 120,
    deadLetters: async (partition) => (partition === 'u2' ? 3 : 0),
    closedWindows: async () => new Set(),
    deleteBrakes: async () => new Map(),
    halted: async () => [],
  };
  const strays = new StrayBook(redis, new Snapshots(redis));
  const verifications = new Verifications({
    book: new VerificationBook(redis),
    log: () => undefined,
    plan: async (names) => {
      const all = await Promise.allSettled(names.map(async (name) => rig.compare(name)));
      const notCopied = all.filter((one) => one.status === 'fulfilled' && one.value.notCopied !== undefined);
      const steps = [{ read: 'by-partition', kinds: [], from: 0, to: names.length }] as const;
      return { steps, problems: [], notCopied: notCopied.length };
    },
    run: async (_step, { partitions, values }) => {
      const report = {
        ...{
          records: 0,
          compared: 0,
          missing: 0,
          extra: 0,
          changed: 0,
          unconfirmed: 0,
          rung: 0,
          repaired: 0,
        },
        ...{ examples: [] as DifferenceExample[], problems: [] as { partition: string; detail: string }[] },
        ...{ differing: new Set<string>(), next: [], failed: false },
      };
      for (const partition of partitions) await compareInto(report, partition, rig, values);
      return report;
    },
  });
  const admin = createAdmin({
    get window() {
      const closed = rig.closedWindows;
      return (
        closed && {
          closed: async () => closed,
          closedByRestore: async () => new Set<string>(),
          ...{ close: async () => 0, open: async () => 0 },
        }
      );
    },
    directory: directoryOf(parts, ledger, redis),
    rules: () => rig.rules,
    ...{ config, ledger, registry: parts.registry, flips: desk, copies, audit },
    doubts: parts.doubts,
    links: parts.links,
    cohorts: {
      list: async () => desk.made,
      put: async (name, selection) => {
        desk.made = [
          ...desk.made.filter((cohort) => cohort.name !== name),
          { name, selection, source: 'api' },
        ];
      },
    },
    log: (_level, event, fields) => logged.push(`${event} ${JSON.stringify(fields)}`),
    backfills: async () => rig.backfills,
    unreachable: async () => rig.unreachable,
    pollFailure: async () => rig.pollFailure,
    brakes: {
      list: async () => rig.brakes,
      release: async (partition) => rig.brakes.find((brake) => brake.partition === partition),
      onAll: async () => rig.brakeOnAll,
      releaseAll: async () => rig.brakeOnAll,
    },
    webhooks: async () => ({
      waiting: 2,
      deliveries: rig.deliveries,
    }),
    ...{ verifications, strays },
    halts: new HaltBook(redis),
    letters: {
      list: () => letters.list(),
      retry: (letter) => letters.find(letter),
      discard: (letter) => letters.discard(letter),
    },
  });
  const { host, port } = await admin.listen();
  const url = `http://${host}:${port}`;
  let closed = false;
  const rig: AdminRig = {
    ...{ url, parts, audit, redis, desk, logged, strays },
    compare: nothingDiffers,
    backfills: [],
    deliveries: [{ store: 'legacy', outcome: 'double', deliveries: 3 }],
    unreachable: [],
    pollFailure: undefined,
    ...{ brakes: [], brakeOnAll: undefined, closedWindows: undefined },
    rules: config,
    call: async (method, path, { token = tokens.operator, body, text, type } = {}) => {
      const response = await fetch(`${url}${path}`, {
        method,
        headers: {
          ...(token === null ? {} : { authorization: `Bearer ${token}` }),
          ...(body === undefined && text === undefined ? {} : { 'content-type': type ?? 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(text === undefined ? {} : { body: text }),
      });
      const answer = await response.text();
      const isJson = /\bjson|\+json/.test(response.headers.get('content-type') ?? '');
      return {
        status: response.status,
        headers: response.headers,
        text: answer,
        body: isJson ? (JSON.parse(answer) as Record<string, unknown>) : {},
      };
    },
    stop: async () => {
      await verifications.stop();
      await admin.stop();
      audit.close();
      redis.disconnect();
      await rig.closeOther();
    },
    closeOther: async () => {
      if (!closed) await parts.close();
      closed = true;
    },
  };
  return rig;
}

async function compareInto(
  report: { -readonly [Key in keyof StepReport]: StepReport[Key] } & {
    examples: DifferenceExample[];
    problems: { partition: string; detail: string }[];
  },
  partition: string,
  rig: AdminRig,
  values: boolean,
): Promise<void> {
  try {
    const { differences, ownerRecords, notCopied } = await rig.compare(partition);
    report.records += ownerRecords;
    if (notCopied === undefined) report.compared += 1;
    for (const found of differences) {
      const { kind, id } = found.difference === 'extra' ? found : found.copy;
      const fields = found.difference === 'changed' ? found.fields : [];
      const shown = fields.map(({ field, owner, copy }) => ({
        ...{ field, owner: shownValue(owner), copy: shownValue(copy) },
      }));
      report[found.difference] += 1;
      report.examples.push({
        ...{ partition, difference: found.difference, kind, id },
        ...(fields.length === 0 ? {} : { fields: fields.map(({ field }) => field) }),
        ...(values ? { values: shown } : {}),
      });
    }
  } catch (error) {
    report.problems.push({ partition, detail: `could not be compared: ${(error as Error).message}` });
  }
}

function directoryOf(parts: TestLedger, ledger: RedisLedger, redis: Redis): DirectoryMoves {
  const { feed, registry } = parts;
  return new DirectoryMoves({
    ...{ ledger, feed, registry, book: new RedisDirectory(redis, ledger.writes), log: () => undefined },
    members: new MemberWatch(ledger, 1_000, () => undefined),
    guards: { advance: () => Promise.reject(new Error('not part of this test')) },
    guarded: { legacy: false, app: false },
    settings: () => ({
      ...{ fenceMs: 1_000, drainMs: 500, rules: '' },
      ...({ newPartitions: 'legacy', withoutEntry: 'nowhere' } as const),
    }),
  });
}

const sha256OfAdmin = '01a9119ca65b23539bbc977f36d9318334c72052593c35edb34cf3b162ec7136';

export function nothingDiffers(partition: string): PartitionComparison {
  return { partition, ownerRecords: 2, copyRecords: 2, differences: [], problems: [] };
}

/** Holds flips in memory and does to them only what the test says. */
export class ScriptedDesk implements FlipDesk {
  made: NamedCohort[] = [];
  /** The next plan or start is refused with this. */
  refusal: OrderRefusal | undefined;
  /** Blocks the plan as a whole. */
  blockers: Plan['blockers'] = [];
  blocked: Plan['blocked'] = [];
  /** What a flip becomes as soon as it is asked for after its start. */
  then: Partial<FlipStatus> = { state: 'completed', committed: 2, pending: 0 };
  readonly all = new Map<string, FlipStatus>();
  reportOf: (partition: string) => PartitionReport = () => ({ outcome: 'pending', attempts: 0 });
  readonly #parts: TestLedger;

  constructor(parts: TestLedger) {
    this.#parts = parts;
  }

  async cohorts(): Promise<NamedCohort[]> {
    return [
      { name: 'pilot', selection: { partitions: ['u1', 'u2'] }, source: 'file' },
      { name: 'large', selection: { where: { seats: { gt: 100 } } }, source: 'file' },
      ...this.made,
    ];
  }

  async partitionsOf(name: string): Promise<string[] | undefined> {
    const cohort = (await this.cohorts()).find((candidate) => candidate.name === name);
    return cohort && resolveCohort(cohort.selection, await this.#parts.registry.all());
  }

  async plan(request: Parameters<FlipDesk['plan']>[0]): Promise<Plan | OrderRefusal> {
    const refusal = this.#takeRefusal();
    if (refusal !== undefined) return refusal;
    const partitions = await this.partitionsOf(request.cohort);
    if (partitions === undefined) return { refused: 'no-such-cohort', detail: `no cohort ${request.cohort}` };
    const blocked = new Set(this.blocked.map((entry) => entry.partition));
    const flip = partitions.filter((partition) => !blocked.has(partition));
    return {
      id: 'plan-1',
      cohort: request.cohort,
      to: request.to,
      by: request.by,
      createdAtMs: 1_000,
      flip,
      unchanged: [],
      blocked: this.blocked,
      blockers: this.blockers,
      epochs: Object.fromEntries(flip.map((partition) => [partition, 1])),
      membershipHash: '00',
      selection: { partitions },
      waveSizes: [flip.length],
      pinnedRoutes: ['/login'],
      wayBack: { until: 'first-write', detail: 'until the first write' },
    };
  }

  async start(request: Parameters<FlipDesk['start']>[0]): Promise<FlipStatus | OrderRefusal> {
    const refusal = this.#takeRefusal();
    if (refusal !== undefined) return refusal;
    const total = (await this.partitionsOf(request.cohort))?.length ?? 0;
    const status: FlipStatus = {
      id: `flip-${this.all.size + 1}`,
      cohort: request.cohort,
      to: request.to,
      state: 'running',
      detail: '',
      by: request.by,
      reason: request.reason,
      createdAtMs: 1_000 + this.all.size,
      ...{ total, committed: 0, aborted: 0, pending: total, blocked: [] },
    };
    this.all.set(status.id, status);
    return status;
  }

  async flips(): Promise<FlipStatus[]> {
    return [...this.all.values()];
  }

  async flip(id: string): Promise<FlipStatus | undefined> {
    const status = this.all.get(id);
    if (status?.state === 'running') this.all.set(id, { ...status, ...this.then });
    return status;
  }

  async flipPartitions(id: string): Promise<readonly string[] | undefined> {
    const flip = this.all.get(id);
    return flip && this.partitionsOf(flip.cohort);
  }

  async flipReports(_id: string, partitions: readonly string[]): Promise<NamedPartitionReport[]> {
    return partitions.map((partition) => ({ partition, ...this.reportOf(partition) }));
  }

  pause(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#become(id, { state: 'paused', detail: `paused by ${by}: ${reason}` });
  }

  resume(id: string): Promise<FlipStatus | OrderRefusal> {
    return this.#become(id, { state: 'running', detail: '' });
  }

  abort(id: string, by: string, reason: string): Promise<FlipStatus | OrderRefusal> {
    return this.#become(id, { state: 'aborted', detail: `aborted by ${by}: ${reason}` });
  }

  async #become(id: string, change: Partial<FlipStatus>): Promise<FlipStatus | OrderRefusal> {
    const refusal = this.#takeRefusal();
    if (refusal !== undefined) return refusal;
    const status = this.all.get(id);
    if (status === undefined) return { refused: 'no-such-flip', detail: `no flip ${id}` };
    const next = { ...status, ...change };
    this.all.set(id, next);
    return next;
  }

  #takeRefusal(): OrderRefusal | undefined {
    const { refusal } = this;
    this.refusal = undefined;
    return refusal;
  }
}
