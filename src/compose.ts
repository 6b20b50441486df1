/** The only place where the parts are put together: one function per role of a process. */
import { RedisAuditLog } from './admin/audit.ts';
import { createAdmin } from './admin/server.ts';
import { sayCompleteness } from './core/homes.ts';
import {
  type Base,
  openBase,
  openRedis,
  type Role,
  type RoleRequest,
  several,
  type Stops,
  takesTraffic,
} from './base.ts';
import type { RuleSet } from './config/reload.ts';
import { pinnedRoutesIn } from './config/route-words.ts';
import type { Config } from './config/schema.ts';
import type { NamedCohort, Plan } from './core/flip.ts';
import { otherStore, storeNames, type StoreName } from './core/ownership.ts';
import type { GuardAnswer, StoreReader } from './core/ports.ts';
import { HandoffDesk } from './handoff/desk.ts';
import { auditErasure } from './admin/erasures.ts';
import { DirectoryMoves, placeWithoutEntry } from './handoff/directory.ts';
import { Erasures } from './handoff/erasures.ts';
import { MemberWatch } from './handoff/members.ts';
import { Book, RedisRegistry, type StoredCohort } from './ledger/books.ts';
import type { RedisAddress } from './ledger/connection.ts';
import { ErasureBook } from './ledger/erasure-book.ts';
import { transitionAt } from './ledger/feed.ts';
import { FlipBook } from './ledger/flips.ts';
import { compactFiles, LedgerMemory } from './ledger/forget.ts';
import { LedgerRecovery } from './ledger/restore.ts';
import type { Log } from './log.ts';
import { startObserving } from './observe-role.ts';
import { pause } from './pause.ts';
import { ProxyProcesses } from './processes/processes.ts';
import { openKeys, ProxyRole } from './proxy-role.ts';
import { watchReach } from './stores/reach.ts';
import { copyTargets } from './sync/writers.ts';

export interface Running {
  /** What listens where, by part. */
  readonly addresses: Readonly<Record<string, string>>;
  /** What the operator must know now, a sentence each. */
  readonly warnings: readonly string[];
  /** Changes to other rules without a restart. False: nothing has changed, and the log says why. */
  reload(next: RuleSet): Promise<boolean>;
  /** Reads the certificate of the proxy again; a part of the answer to SIGHUP. */
  renewCertificate(): void;
  /** Ends in order, what was started last first: admin API and coordinator, then the proxy, Redis last. */
  stop(): Promise<void>;
  /** Settles when something this process depends on has died. */
  readonly failed: Promise<Error>;
  /** The proxy, where there is one in this very process. */
  readonly proxy?: ProxyRole;
}

const guardWithinMs = 10_000;
const erasureFenceMs = 30_000;
const erasureMarginMs = 1_000;
const plansKept = 200;
const stopMarginMs = 10_000;
/** However short lease and writes are: a process may be busy for a moment. */
const silentMsMin = 5_000;

/** Rejects with an error whose message is a sentence for the operator; what had started is stopped again. */
export async function startRole(role: Role, asked: RoleRequest): Promise<Running> {
  const ending = new AbortController();
  const request = { ...asked, ending: ending.signal };
  const stops: Stops = [];
  const stop = async (): Promise<void> => {
    ending.abort();
    for (const end of stops.splice(0).toReversed()) {
      const waited = new AbortController();
      const late = pause(stepWithinMs(request.config), waited.signal).then(
        () =>
          request.log('warn', 'stop.late', {
            detail: 'a part did not end in time; the others end without it',
          }),
        () => undefined,
      );
      const failed = (error: unknown): void => request.log('warn', 'stop.failed', { error: String(error) });
      await Promise.race([end().catch(failed), late]);
      waited.abort();
    }
  };
  try {
    if (request.config.proxy.mode === 'observe' && (role === 'up' || role === 'proxy')) {
      return { ...(await startObserving(request, stops)), stop };
    }
    const { address, died } = await openRedis(role, request, stops);
    return { ...(await startParts(role, request, address, stops)), stop, failed: died };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startParts(
  role: Role,
  request: RoleRequest,
  address: RedisAddress,
  stops: Stops,
): Promise<Started> {
  const live = new LiveRules(request);
  const runningWith = (proxy?: Listening, more: Started['addresses'] = {}): Started => ({
    addresses: { ...(proxy && { proxy: proxy.url }), ...more },
    warnings: proxy?.warnings ?? [],
    reload: (next) => live.change(next, proxy?.side),
    renewCertificate: () => proxy?.side.renewCertificate(),
    ...(proxy?.side instanceof ProxyRole ? { proxy: proxy.side } : {}),
  });
  if (role === 'proxy' && several(request)) {
    return runningWith(await startProxies(request, address, stops));
  }
  const base = await openBase(role, request, address, stops);
  const listening = role === 'worker' || role === 'up' ? await base.sync.startWorkers() : {};
  const proxy = takesTraffic(role) ? await startProxy(request, base, stops) : undefined;
  const running = runningWith(proxy, listening);
  const warnings = [...new Set([...base.lookout.warnings, ...running.warnings])];
  if (role !== 'admin' && role !== 'up') return { ...running, warnings };
  const counters = proxy && ((): Record<string, number> => proxy.side.counters());
  const admin = await startAdmin(request, base, live, stops, counters);
  return { ...running, warnings, addresses: { ...running.addresses, admin } };
}

/** The proxy of this process, or all that it has started. */
interface Listening {
  readonly side: Pick<ProxyRole, 'counters' | 'change' | 'renewCertificate'>;
  readonly url: string;
  readonly warnings: readonly string[];
}

async function startProxy(request: RoleRequest, base: Base, stops: Stops): Promise<Listening> {
  if (several(request)) return startProxies(request, base.address, stops);
  const { role, host, port } = await ProxyRole.start(request, base, request.log, stops);
  const scheme = request.config.proxy.tls === undefined ? 'http' : 'https';
  return { side: role, url: urlOf(host, port, scheme), warnings: [] };
}

async function startProxies(request: RoleRequest, redis: RedisAddress, stops: Stops): Promise<Listening> {
  const { config, configHash, log } = request;
  const { processes, url, warnings } = await ProxyProcesses.start({
    ...{ rules: { config, configHash }, redis, log, ending: request.ending },
    program: new URL('./proxy-process.ts', import.meta.url),
    silentMs: Math.max(silentMsMin, config.ledger.leaseMs + longestWriteMs(config)),
    // Less than this process gives to any of its parts.
    endWithinMs: stepWithinMs(config) - stopMarginMs / 5,
  });
  stops.push(() => processes.stop());
  return { side: processes, url, warnings };
}

/** The rules that this process runs by now; they change only once they are the active ones. */
class LiveRules {
  now: RuleSet;

  constructor(start: RuleSet) {
    this.now = { config: start.config, configHash: start.configHash };
  }

  async change(next: RuleSet, proxy: Listening['side'] | undefined): Promise<boolean> {
    if (proxy !== undefined && !(await proxy.change(next))) return false;
    this.now = next;
    return true;
  }
}

type Started = Omit<Running, 'stop' | 'failed'>;

function longestWriteMs({ stores }: Config): number {
  return Math.max(stores.legacy.writeTimeoutMs, stores.app.writeTimeoutMs);
}

/** No part may take longer to end than its longest write and what follows it: without Redis some never would. */
function stepWithinMs({ stores }: Config): number {
  const [legacy, app] = [stores.legacy, stores.app].map((store) => store.writeTimeoutMs + store.settleMs);
  return Math.max(legacy ?? 0, app ?? 0) + stopMarginMs;
}

async function startAdmin(
  request: RoleRequest,
  base: Base,
  live: LiveRules,
  stops: Stops,
  counters: (() => Record<string, number>) | undefined,
): Promise<string> {
  const { config, log } = request;
  const { redis, ledger, registry, doubts, links, sync } = base;
  const audit = new RedisAuditLog(redis);
  stops.push(async () => audit.close());
  const watch = new MemberWatch(ledger, config.ledger.leaseMs, (member) => {
    log('warn', 'member.gone', { member: member.id, pid: member.pid, host: member.host });
    void alarmOfGap(registry, log);
  });
  watch.start();
  stops.push(() => watch.stop());
  const made = new Book<StoredCohort>(redis, 'cohorts');
  const desk = handoffDesk(request, base, watch, () => listCohorts(config, made));
  stops.push(() => desk.stop());
  await desk.coordinate();
  // Only to free the keys of writes in doubt; no write goes through here.
  const idempotency = await openKeys(config, base.address, () => 'admin', stops);
  const erasures = openErasures(request, base, watch, audit);
  stops.push(() => erasures.stop());
  const recovery = openRecovery(request, base);
  const admin = createAdmin({
    ...(idempotency === undefined ? {} : { idempotency }),
    ...{ config, ledger, registry, doubts, links, audit, log, flips: desk, copies: sync.desk },
    ...{ watch, recovery, unreachable: watchReach(config.stores) },
    directory: directoryMoves(request, base, live, watch),
    ...(counters === undefined ? {} : { counters }),
    ...{ rules: () => live.now.config, readers: Object.values(sync.readers), brakes: sync.brakes },
    ...{ deadLetters: () => sync.deadLetters.total(), letters: sync.deadLetters, halts: sync.halts },
    ...{ backfills: () => sync.backfills(), pollFailure: () => sync.pollFailure() },
    webhooks: () => sync.webhooks(),
    ...{ verifications: sync.verifications, strays: sync.strays, erasures, window: sync.window },
    cohorts: {
      list: () => listCohorts(config, made),
      put: (name, selection, by, reason) => made.put(name, { name, selection, by, reason }),
    },
    transition: (version) => transitionAt(redis, version),
  });
  stops.push(() => admin.stop());
  const { host, port } = await admin.listen();
  sync.verifications.startWorking();
  erasures.startWorking();
  return urlOf(host, port);
}

function openRecovery(
  { config }: RoleRequest,
  { redis, ledger, registry, links, sync, lookout }: Base,
): LedgerRecovery {
  const { stores } = config;
  const verdict = (partition: string): Promise<GuardAnswer> =>
    sync.guardCalls.verdict('app', { partition, epoch: 1 }, 'read', AbortSignal.timeout(guardWithinMs));
  const settleMs = Math.max(stores.legacy.settleMs, stores.app.settleMs);
  return new LedgerRecovery({
    ...{ redis, ledger, registry, links, defaultOwner: 'legacy' },
    ...{ views: lookout.views, rescues: lookout.rescues },
    guard: stores.app.guard ? verdict : undefined,
    quietMs: config.ledger.leaseMs + longestWriteMs(config) + settleMs,
  });
}

function openErasures(
  { config, log }: RoleRequest,
  { redis, ledger, feed, registry, doubts, links, sync }: Base,
  members: MemberWatch,
  audit: RedisAuditLog,
): Erasures {
  const { stores } = config;
  const settleMs = Math.max(stores.legacy.settleMs, stores.app.settleMs);
  return new Erasures({
    ...{ ledger, feed, registry, doubts, members, log, guards: sync.guardCalls, eraser: sync.erasing.eraser },
    guarded: { legacy: stores.legacy.guard, app: stores.app.guard },
    book: new ErasureBook(redis),
    memories: [
      sync.erasing.memory,
      new LedgerMemory({ redis, doubts, links, registry, flips: new FlipBook(redis) }),
    ],
    settings: {
      // Longer than a handoff's: what a member has under way may end.
      drainMs: Math.max(config.flip.drainMs, longestWriteMs(config) + erasureMarginMs),
      fenceMs: erasureFenceMs + settleMs + longestWriteMs(config),
      feedDelayMs: Math.max(sync.readers.legacy.feedDelayMs, sync.readers.app.feedDelayMs),
    },
    settleMs,
    compact: () => compactFiles(redis),
    onEnded: (erasure) => void auditErasure(audit, erasure, log),
  });
}

/** Whoever died may have let somebody write whom the registry does not name. */
async function alarmOfGap(registry: RedisRegistry, log: Log): Promise<void> {
  const known = await registry.completeness().catch(() => undefined);
  if (known?.complete !== false || known.lost === undefined) return;
  log('error', 'registry.incomplete', { member: known.lost.member, detail: sayCompleteness(known) });
}

function handoffDesk(
  { config, log }: RoleRequest,
  { ledger, feed, registry, doubts, links, redis, sync }: Base,
  members: MemberWatch,
  cohorts: () => Promise<NamedCohort[]>,
): HandoffDesk {
  const guarded = { legacy: config.stores.legacy.guard, app: config.stores.app.guard };
  const readers: Partial<Record<StoreName, StoreReader>> = {};
  for (const store of storeNames) {
    if (config.stores[store].connector !== undefined) readers[store] = sync.readers[store];
  }
  const writable: readonly StoreName[] = copyTargets(config.sync.rollbackWindow);
  // Where nothing can be copied back to legacy, only the app's guard can prove that nothing has to be.
  const proof = { app: writable.includes('legacy') ? 'copies' : 'unwritten' } as const;
  // Partitions leave the stores that they are copied from.
  const left = writable.map(otherStore);
  return new HandoffDesk({
    ...{ ledger, feed, registry, doubts, links, members, log, guarded, readers, writable },
    ...{ copies: sync.desk, strays: sync.strays, freezes: sync.freezes },
    guards: sync.guardCalls,
    acceptLoss: config.ledger.acceptLoss,
    observing: config.proxy.mode === 'observe',
    pinnedRoutes: pinnedRoutesIn(config),
    settings: {
      ...config.flip,
      guarded,
      proof,
      feedDelayMs: Math.max(...left.map((store) => sync.readers[store].feedDelayMs)),
    },
    plans: new Book<Plan>(redis, 'plans', plansKept),
    flips: new FlipBook(redis),
    listCohorts: cohorts,
    waves: config.flip.waves,
  });
}

function directoryMoves(
  { config, log }: RoleRequest,
  base: Base,
  live: LiveRules,
  members: MemberWatch,
): DirectoryMoves {
  const { ledger, feed, registry, directory, sync } = base;
  const { fenceMs, drainMs } = config.flip;
  return new DirectoryMoves({
    ...{ ledger, feed, registry, log, members, book: directory, guards: sync.guardCalls },
    guarded: { legacy: config.stores.legacy.guard, app: config.stores.app.guard },
    settings: () => ({
      ...{ fenceMs, drainMs, rules: live.now.configHash },
      newPartitions: live.now.config.newPartitions,
      withoutEntry: placeWithoutEntry(live.now.config.partition),
    }),
  });
}

/** The file's cohorts, then those made through the API; a name in the file cannot be taken over. */
async function listCohorts(config: Config, made: Book<StoredCohort>): Promise<NamedCohort[]> {
  const fromFile = Object.entries(config.cohorts).map(
    ([name, selection]) => ({ name, selection, source: 'file' }) as const,
  );
  const fromApi = (await made.all())
    .filter(({ name }) => !(name in config.cohorts))
    .map(({ name, selection }) => ({ name, selection, source: 'api' }) as const);
  return [...fromFile, ...fromApi];
}

function urlOf(host: string, port: number, scheme = 'http'): string {
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
