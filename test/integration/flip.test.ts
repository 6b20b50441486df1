import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { FlipStatus, NamedCohort, Plan } from '../../src/core/flip.ts';
import {
  type CopyDesk,
  type GuardCalls,
  type KindCapabilities,
  StoreFailure,
  type StoreReader,
} from '../../src/core/ports.ts';
import { HandoffDesk } from '../../src/handoff/desk.ts';
import type { StoredFlip } from '../../src/handoff/flip.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { Book } from '../../src/ledger/books.ts';
import { connectRedis } from '../../src/ledger/connection.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { until } from '../support/until.ts';

const leaseMs = 1_000;
let server: TestRedis;
let ledger: TestLedger;
let redis: Awaited<ReturnType<typeof connectRedis>>;
const desks: { desk: HandoffDesk; watch: MemberWatch }[] = [];
/** Partitions whose copy cannot be completed. */
let hopeless: Set<string>;
/** Called at every catch-up. */
let onCatchUp: (partition: string) => Promise<void>;

const names = Array.from({ length: 12 }, (_, at) => `u${String(at).padStart(2, '0')}`);
const cohorts: NamedCohort[] = [
  { name: 'pilot', selection: { partitions: names }, source: 'file' },
  { name: 'empty', selection: { partitions: [] }, source: 'file' },
];

/** What the sync answers here; its own behaviour is tested with real stores elsewhere. */
const copies: CopyDesk = {
  bringUp: async (partition) => {
    const problems = hopeless.has(partition) ? [{ kind: 'appointment', detail: 'a record has no id' }] : [];
    return { recordsCompared: 1, recordsCopied: 0, passes: 1, lastPassMs: 1, problems };
  },
  catchUp: async (partition) => {
    await onCatchUp(partition);
    return { recordsCompared: 1, recordsCopied: 0, passes: 1 };
  },
  compare: async (partition) => ({
    partition,
    ownerRecords: 0,
    copyRecords: 0,
    differences: [],
    problems: [],
  }),
  lagMs: async () => 0,
  deadLetters: async () => 0,
};
const guards: GuardCalls = {
  verdict: async (_store, stamp) => ({ epoch: stamp.epoch }),
  advance: async () => undefined,
  seal: async () => undefined,
};

let reachable: boolean;
function reader(store: 'legacy' | 'app'): StoreReader {
  const capabilities: KindCapabilities[] = [
    {
      kind: 'appointment',
      byPartition: true,
      since: false,
      paged: true,
      tombstones: false,
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
      if (!reachable) throw new StoreFailure('unavailable', `${store} refused the connection`);
    },
    close: async () => undefined,
  };
}

async function openDesk(over: { batch?: number; acceptLoss?: boolean } = {}): Promise<HandoffDesk> {
  const watch = new MemberWatch(ledger.ledger, leaseMs, () => undefined);
  watch.start();
  const desk = new HandoffDesk({
    ledger: ledger.ledger,
    feed: ledger.feed,
    registry: ledger.registry,
    copies,
    guards,
    members: watch,
    readers: { legacy: reader('legacy'), app: reader('app') },
    writable: ['app'],
    guarded: { legacy: false, app: true },
    acceptLoss: over.acceptLoss ?? false,
    pinnedRoutes: ['/login'],
    settings: {
      drainMs: 300,
      fenceMs: 1_000,
      feedDelayMs: 0,
      guarded: { legacy: false, app: true },
      batch: over.batch ?? 4,
      attempts: 2,
      maxLagMs: 2_000,
    },
    plans: new Book<Plan>(redis, 'plans'),
    flips: new Book<StoredFlip>(redis, 'flips'),
    listCohorts: async () => cohorts,
    waves: ['1', '50%', '100%'],
    log: () => undefined,
  });
  desks.push({ desk, watch });
  return desk;
}

async function start(desk: HandoffDesk): Promise<FlipStatus> {
  const status = await desk.start({ cohort: 'pilot', to: 'app', reason: 'test', by: 'ops' });
  if ('refused' in status) throw new Error(JSON.stringify(status));
  return status;
}

function ended(desk: HandoffDesk, id: string): Promise<FlipStatus> {
  return until('the flip ends', async () => {
    const status = await desk.flip(id);
    return status !== undefined && ['completed', 'failed', 'aborted'].includes(status.state) && status;
  });
}

async function ownerOf(partition: string): Promise<string> {
  const { ownership } = await ledger.ledger.read(partition);
  return `${ownership.phase} ${ownership.owner}`;
}

beforeEach(async () => {
  server = await startRedis();
  ledger = await openLedger(server);
  redis = await connectRedis({ url: server.url });
  hopeless = new Set();
  reachable = true;
  onCatchUp = async () => undefined;
});
afterEach(async () => {
  for (const { desk, watch } of desks.splice(0)) {
    await desk.stop();
    await watch.stop();
  }
  redis.disconnect();
  await ledger.close();
  await server.stop();
});

describe('a flip', () => {
  test('moves every partition of the cohort, and says how long each was paused', async () => {
    await ledger.join({ leaseMs });
    await ledger.join({ leaseMs });
    const desk = await openDesk();
    const status = await ended(desk, (await start(desk)).id);
    expect(status).toMatchObject({
      state: 'completed',
      total: 12,
      committed: 12,
      aborted: 0,
      pending: 0,
      blocked: [],
    });
    expect(status.pauseMs?.p50).toBeGreaterThanOrEqual(0);
    for (const name of names) expect(await ownerOf(name)).toBe('open app');
  });

  test('leaves one hopeless partition where it is and names it; the others move (Vitess #17794)', async () => {
    await ledger.join({ leaseMs });
    hopeless = new Set(['u00']);
    const desk = await openDesk();
    const status = await ended(desk, (await start(desk)).id);
    expect(status).toMatchObject({ state: 'failed', committed: 11, aborted: 1 });
    expect(status.blocked).toMatchObject([{ partition: 'u00', code: 'unusable-records' }]);
    expect(await ownerOf('u00')).toBe('open legacy');
  });

  test('again, with everything moved, is completed and changes nothing', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk();
    await ended(desk, (await start(desk)).id);
    const before = await ledger.ledger.read('u05');
    expect(await ended(desk, (await start(desk)).id)).toMatchObject({ state: 'completed', total: 0 });
    expect(await ledger.ledger.read('u05')).toEqual(before);
  });

  test('waits without fencing while a member is silent, and goes on when it is proven gone', async () => {
    await ledger.join({ leaseMs });
    const silent = await ledger.join({ leaseMs });
    const desk = await openDesk();
    await until('both members are known to be alive', () => desks[0]?.watch.health().fresh.length === 2);
    await silent.stop();
    await until('it is stale', () => desks[0]?.watch.health().stale.length === 1);
    const { id } = await start(desk);
    await until('the flip waits', async () => (await desk.flip(id))?.detail.startsWith('stale-member'));
    expect(await desk.flip(id)).toMatchObject({ state: 'paused', committed: 0 });
    for (const name of names) expect((await ledger.ledger.read(name)).ownership.epoch).toBe(1);
    expect(await ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('can be paused and resumed', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk({ batch: 1 });
    const { id } = await start(desk);
    await desk.pause(id, 'ops', 'lunch');
    const paused = await until('it stands', async () => {
      const status = await desk.flip(id);
      return status?.state === 'paused' && status;
    });
    expect(paused.detail).toBe('paused by ops: lunch');
    await desk.resume(id);
    expect(await ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('that is aborted reopens what it fenced at the old owner; what has moved stays', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk({ batch: 1 });
    let letGo: () => void = () => undefined;
    onCatchUp = async (partition) => {
      if (partition === 'u03') await new Promise<void>((resolve) => (letGo = resolve));
    };
    const { id } = await start(desk);
    await until('u03 is fenced', async () => (await ownerOf('u03')) === 'fenced legacy');
    const aborting = desk.abort(id, 'ops', 'changed my mind');
    await until('u03 is open again', async () => (await ownerOf('u03')) === 'open legacy');
    letGo();
    expect(await aborting).toMatchObject({ state: 'aborted', committed: 3, pending: 9 });
    expect(await ownerOf('u02')).toBe('open app');
    expect(await ownerOf('u11')).toBe('open legacy');
  });

  test('goes on in another coordinator after the first one has gone', async () => {
    await ledger.join({ leaseMs });
    const first = await openDesk({ batch: 1 });
    onCatchUp = async (partition) => {
      if (partition === 'u05') throw new Error('interrupted');
    };
    const { id } = await start(first);
    await until('some have moved', async () => ((await first.flip(id))?.committed ?? 0) >= 3);
    await first.stop();
    onCatchUp = async () => undefined;
    const second = await openDesk();
    await second.resumeAll();
    expect(await ended(second, id)).toMatchObject({ state: 'completed', committed: 12, blocked: [] });
  });

  test('waits for the fence that a dead coordinator left, instead of spending its attempts on it', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk({ batch: 1 });
    const fence = { kind: 'fence', to: 'app', attempt: 'dead', fenceMs: 1_500 } as const;
    onCatchUp = async (partition) => {
      if (partition !== 'u00') return;
      await ledger.ledger.order({ partition: 'u11', order: fence, by: 'dead', reason: 'test' });
    };
    const { id } = await start(desk);
    expect(await ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('waits until a write in doubt has settled, and spends no attempt on it', async () => {
    const member = await ledger.join({ leaseMs, settleMs: 900 });
    for (let writes = 0; writes < 2; writes += 1) {
      const admission = member.admit('u04');
      if (admission.verdict !== 'admit') throw new Error('not admitted');
      member.end(admission.ticket, 'in-doubt');
    }
    const desk = await openDesk();
    expect(await ended(desk, (await start(desk)).id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('outlives a ledger that is away for a while', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk({ batch: 1 });
    onCatchUp = async (partition) => {
      if (partition === 'u02') process.kill(server.pid, 'SIGSTOP');
    };
    const { id } = await start(desk);
    await until('the ledger hangs', () => desks[0]?.watch.health().fresh.length === 0);
    onCatchUp = async () => undefined;
    process.kill(server.pid, 'SIGCONT');
    expect(await ended(desk, id)).toMatchObject({ state: 'completed', committed: 12 });
  });

  test('reserves its partitions: a second flip of the same cohort does not touch them', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk({ batch: 1 });
    let letGo: () => void = () => undefined;
    onCatchUp = async () => new Promise<void>((resolve) => (letGo = resolve));
    const { id } = await start(desk);
    await until('u00 is fenced', async () => (await ownerOf('u00')) === 'fenced legacy');
    const second = await desk.start({ cohort: 'pilot', to: 'app', reason: 'again', by: 'ops' });
    expect(second).toMatchObject({ refused: 'nothing-can-move' });
    onCatchUp = async () => undefined;
    letGo();
    expect(await ended(desk, id)).toMatchObject({ state: 'completed' });
  });
});

describe('a plan', () => {
  test('lists what would move and changes nothing (I6)', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    expect(plan).toMatchObject({
      flip: names,
      blocked: [],
      blockers: [],
      waves: [1, 5, 6],
      pinnedRoutes: ['/login'],
    });
    expect((await ledger.ledger.touched()).size).toBe(0);
  });

  test('names every blocker, not the first', async () => {
    reachable = false;
    await redis.config('SET', 'appendfsync', 'everysec');
    const desk = await openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    const codes = plan.blockers.map((blocker) => blocker.code).toSorted();
    expect(codes).toEqual(['ledger-not-durable', 'no-members', 'store-unreachable', 'store-unreachable']);
    const started = await desk.start({ cohort: 'pilot', to: 'app', reason: 'x', by: 'ops' });
    expect(started).toMatchObject({ refused: 'nothing-can-move' });
  });

  test('may accept by name that a failover could lose a step', async () => {
    await redis.config('SET', 'appendfsync', 'everysec');
    await ledger.join({ leaseMs });
    const desk = await openDesk({ acceptLoss: true });
    expect(((await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan).blockers).toEqual([]);
  });

  test('that the ledger has moved past is refused', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk();
    const plan = (await desk.plan({ cohort: 'pilot', to: 'app', by: 'ops' })) as Plan;
    await ended(desk, (await start(desk)).id);
    const started = await desk.start({ cohort: 'pilot', to: 'app', reason: 'x', by: 'ops', planId: plan.id });
    expect(started).toMatchObject({ refused: 'stale-plan' });
  });

  test('of a cohort that does not exist is refused with the names of those that do', async () => {
    const desk = await openDesk();
    const refused = await desk.plan({ cohort: 'polit', to: 'app', by: 'ops' });
    expect(refused).toMatchObject({
      refused: 'no-such-cohort',
      detail: expect.stringContaining('pilot, empty'),
    });
  });

  test('back to legacy is refused while nothing may be copied there', async () => {
    await ledger.join({ leaseMs });
    const desk = await openDesk();
    await ended(desk, (await start(desk)).id);
    const plan = (await desk.plan({ cohort: 'pilot', to: 'legacy', by: 'ops' })) as Plan;
    expect(plan.blockers.map((blocker) => blocker.code)).toContain('no-way-back');
  });
});
