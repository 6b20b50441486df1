/** Real processes under real faults. Each run is judged by the checker, which knows nothing of the program. */
import { rm } from 'node:fs/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { pause } from '../../src/pause.ts';
import { until } from '../support/until.ts';
import type { FlipReport } from './admin-client.ts';
import { chanceFrom } from './chance.ts';
import { runChaos } from './chaos.ts';
import { check, type Verdict } from './checker.ts';
import { evidenceLines, isClean } from './evidence.ts';
import { Flips } from './flips.ts';
import type { Trap } from './relay.ts';
import { Rig } from './rig.ts';
import { goneMs, type ProxyName, proxyNames, type RigOptions, timing } from './rig-plan.ts';
import { type Span, readTimelines } from './timeline.ts';
import { type Done, Traffic, type TrafficSettings } from './traffic.ts';
import type { Operation, Store } from './words.ts';

let rig: Rig | undefined;
let working: Traffic | undefined;

/** Whatever a test did or failed to do: every user stops, and every process is ended by its pid. */
afterEach(async () => {
  const stopping = working?.stop();
  working = undefined;
  await rig?.stop();
  await stopping;
  await rig?.remove();
  rig = undefined;
}, 30_000);

async function startRig(seed: number, options: RigOptions = {}): Promise<Rig> {
  rig = await Rig.start(seed, options);
  return rig;
}

interface Load {
  readonly flips: Flips;
  readonly traffic: Traffic;
}

function load(on: Rig, seed: number, users: number, onEnded?: TrafficSettings['onEnded']): Load {
  const thinkMs = 60;
  const partitions = Math.max(1, users / 2);
  const flips = new Flips({
    admin: on.admin,
    chance: chanceFrom(seed),
    partitions,
    users,
    say: () => undefined,
  });
  const traffic = new Traffic({
    ...{ users, thinkMs, proxies: on.proxies, historyPath: on.historyPath, chance: chanceFrom(seed + 1) },
    partitionOf: (user) => flips.partitionOf(user),
    onEnded,
  });
  working = traffic;
  return { flips, traffic };
}

async function judge(on: Rig): Promise<Verdict> {
  const verdict = check(await on.evidence());
  expect(verdict.violations).toEqual([]);
  return verdict;
}

async function spansOf(on: Rig, partition: string): Promise<readonly Span[]> {
  return readTimelines(await on.transitions(), 'legacy').of(partition);
}

/** As a user of the partition, through that proxy. */
function acting(on: Rig, traffic: Traffic, partition: string) {
  return (operation: Operation, proxy: ProxyName, record?: string): Promise<Done> =>
    traffic.act({ user: 'somebody', partition, operation, record, proxy: on.proxy(proxy) });
}

/** A record of the partition that all further writes change. */
async function firstRecord(act: ReturnType<typeof acting>): Promise<string> {
  const created = await act('create', 'proxy-1');
  expect(created).toMatchObject({ step: 'ok' });
  return created.record ?? '';
}

async function startFlip(on: Rig, partition: string): Promise<FlipReport> {
  const flip = await on.admin.startFlip(`cohort-of-${partition}`, [partition], 10_000);
  if (flip === undefined) throw new Error(`the flip of ${partition} was not taken`);
  return flip;
}

async function untilMoved(on: Rig, flip: FlipReport): Promise<void> {
  expect(await on.admin.untilEnded(flip.id, 30_000)).toMatchObject({ state: 'completed', committed: 1 });
}

describe('Redis killed with SIGKILL under load and started again', () => {
  test('no wrong-store write, no lost acknowledged write, and traffic goes on during an outage shorter than the lease', async () => {
    const on = await startRig(101);
    const shortMs = 0.75 * timing.leaseMs;
    /** Proxies through which a write that was begun since then has ended so. */
    let sinceMs = Number.POSITIVE_INFINITY;
    const passedOn = new Set<string>();
    const refusing = new Set<string>();
    const lookFrom = (atMs: number): void => {
      sinceMs = atMs;
      passedOn.clear();
      refusing.clear();
    };
    const { flips, traffic } = load(on, 101, 24, ({ atMs, operation, proxy }, { step, code }) => {
      if (atMs < sinceMs || operation === 'read') return;
      if (step === 'ok') passedOn.add(proxy);
      if (step === 'fail' && code === 'lease-lapsed') refusing.add(proxy);
    });
    traffic.start();
    const flipping = flips.flipSome(40_000);
    await until('a handoff is under way', async () => (await on.transitions()).length > 0);

    // Each outage ends before a lease can; on a busy machine one of them may be too short to see all proxies.
    let served: string[] = [];
    for (let outage = 1; outage <= 3 && served.length < 3; outage += 1) {
      await on.kill(on.redis);
      lookFrom(Date.now());
      await until('all proxies, or the end', () => passedOn.size === 3 || Date.now() > sinceMs + shortMs);
      served = [...passedOn].toSorted();
      await on.redis.untilReady();
      await on.untilHealthy();
    }
    expect(served).toEqual([...proxyNames]);
    await flipping;

    // An outage longer than the lease: writes are refused and say that nothing was sent; then they go on.
    await on.kill(on.redis);
    lookFrom(Date.now());
    await until('each proxy refuses writes', () => refusing.size === 3);
    await on.redis.untilReady();
    await on.untilHealthy();
    lookFrom(Date.now());
    await until('each proxy takes writes again', () => passedOn.size === 3);
    expect(await flips.untilOneCompletes(40_000)).toBe(true);
    await traffic.stop();
    const verdict = await judge(on);
    expect(verdict.handoffs.committed).toBeGreaterThan(1);
    expect(on.crashes().filter((crash) => crash.startsWith('proxy'))).toEqual([]);
  }, 90_000);
});

describe('a proxy frozen longer than its lease in the middle of a handoff', () => {
  test('is waited for, taken for gone, and admits nothing under the old owner when it wakes', async () => {
    const on = await startRig(102);
    const { traffic } = load(on, 102, 0);
    const act = acting(on, traffic, 'frozen');
    const record = await firstRecord(act);

    // Its write is on its way to legacy when the fence comes, so it cannot acknowledge.
    const held = on.hold('legacy', { name: 'in-flight', calls: ['write'], partition: 'frozen', times: 1 });
    const inFlight = act('change', 'proxy-1', record);
    await held;
    const flip = await startFlip(on, 'frozen');
    await until('the fence is there', async () => (await spansOf(on, 'frozen')).at(-1)?.phase === 'fenced');
    on.freeze(on.part('proxy-1'));
    const frozenMs = performance.now();
    // Sent to it while it stands still: the kernel takes the bytes, nobody reads them.
    const sleeping = [act('change', 'proxy-1', record), act('create', 'proxy-1')];
    on.behave('legacy', 'in-flight');

    await until('the attempt is given up', async () =>
      (await spansOf(on, 'frozen')).some(({ epoch, phase }) => epoch === 3 && phase === 'open'),
    );
    const meanwhile = await act('change', 'proxy-2', record);
    expect(meanwhile).toMatchObject({ step: 'ok', store: 'legacy' });
    await untilMoved(on, flip);
    expect(performance.now() - frozenMs).toBeGreaterThan(goneMs - timing.leaseMs);
    expect(await act('change', 'proxy-3', record)).toMatchObject({ step: 'ok', store: 'app' });

    on.thaw(on.part('proxy-1'));
    for (const woken of await Promise.all(sleeping)) {
      // Refused for its lapsed lease, or admitted anew, as a new member, for the new owner.
      if (woken.step === 'ok') expect(woken.store).toBe('app');
      else expect(woken).toMatchObject({ step: 'fail', code: 'lease-lapsed' });
    }
    // It took effect while legacy was the owner, so it must have moved; whether its answer is still passed on
    // depends on what the proxy looks at first: the answer, or the time that has passed.
    expect(['ok', 'unknown']).toContain((await inFlight).step);
    const after = await until('it has joined again', async () => {
      const done = await act('change', 'proxy-1', record);
      return done.step === 'ok' && done;
    });
    expect(after.store).toBe('app');
    await traffic.stop();
    const verdict = await judge(on);
    expect(verdict.handoffs).toEqual({ committed: 1, aborted: 1 });
    expect(verdict.gap).toEqual([]);
  }, 60_000);
});

describe('a coordinator killed in each step of a handoff', () => {
  test('the partition is open again within the fence deadline plus 500 ms, and another coordinator ends the flip', async () => {
    const on = await startRig(103);
    const { traffic } = load(on, 103, 0);
    const network = on.relay('admin');

    type Reach = (partition: string, order: () => Promise<FlipReport>) => Promise<FlipReport>;
    const stalled =
      (trap: Trap): Reach =>
      async (_, order) => {
        const sprung = network.trap(trap);
        const flip = await order();
        await sprung;
        return flip;
      };
    /** Each brings the handoff of the partition to its step and resolves when it stands there. */
    const steps: Record<string, Reach> = {
      'the fence does not arrive': stalled({ text: '"phase":"fenced"', stall: 'before' }),
      'the answer to the fence is lost': stalled({ text: '"phase":"fenced"', stall: 'after' }),
      drain: async (partition, order) => {
        const flip = await slowDrain(partition, order);
        return flip;
      },
      'catch-up': async (partition, order) => {
        const flip = await slowDrain(partition, order);
        const held = on.hold('legacy', { name: 'catch-up', calls: ['sync-list'], partition });
        on.behave('legacy', 'drain');
        await held;
        return flip;
      },
      seal: async (partition, order) => {
        const held = on.hold('app', { name: 'seal', calls: ['guard:seal'], partition });
        const flip = await order();
        await held;
        return flip;
      },
      'the commit does not arrive': stalled({ text: '"phase":"committed"', stall: 'before' }),
      'the answer to the commit is lost': stalled({ text: '"phase":"committed"', stall: 'after' }),
      'the release does not arrive': stalled({ text: '"phase":"open","owner":"app"', stall: 'before' }),
    };
    const records = new Map<string, string>();
    const inFlight: Promise<Done>[] = [];
    async function slowDrain(partition: string, order: () => Promise<FlipReport>): Promise<FlipReport> {
      const held = on.hold('legacy', { name: 'drain', calls: ['write'], partition, times: 1 });
      inFlight.push(acting(on, traffic, partition)('change', 'proxy-1', records.get(partition)));
      await held;
      const flip = await order();
      await until(
        'the fence is there',
        async () => (await spansOf(on, partition)).at(-1)?.phase === 'fenced',
      );
      return flip;
    }

    const overruns: Record<string, number> = {};
    for (const [at, [step, reach]] of Object.entries(steps).entries()) {
      const partition = `step-${at + 1}`;
      const act = acting(on, traffic, partition);
      const record = await firstRecord(act);
      records.set(partition, record);
      const flip = await reach(partition, () => startFlip(on, partition));
      await on.kill(on.part('admin'));
      network.set('whole', true);
      on.behave('legacy');
      on.behave('app');
      // Held while it is fenced, and let through without any coordinator.
      const waiting = act('change', 'proxy-2', record);
      const spans = await until(`${step}: it is open again`, async () => {
        const known = await spansOf(on, partition);
        return known.at(-1)?.phase === 'open' && known;
      });
      const fence = spans.findLast(({ phase }) => phase === 'fenced');
      if (fence?.deadlineMs !== undefined)
        overruns[step] = (spans.at(-1)?.fromMs ?? Infinity) - fence.deadlineMs;
      expect(await waiting).toMatchObject({ step: 'ok', store: spans.at(-1)?.owner });
      await on.part('admin').untilReady();
      await untilMoved(on, flip);
      expect(await act('change', 'proxy-3', record)).toMatchObject({ step: 'ok', store: 'app' });
    }
    // All but the first had a fence.
    expect(Object.keys(overruns)).toEqual(Object.keys(steps).slice(1));
    expect(Object.values(overruns).filter((overrunMs) => overrunMs > 500)).toEqual([]);
    await Promise.all(inFlight);
    await traffic.stop();
    await judge(on);
  }, 120_000);
});

describe('a copy that was given up', () => {
  test('and arrives at the app after the last comparison does not overwrite what is newer', async () => {
    const on = await startRig(104);
    const { traffic } = load(on, 104, 0);
    const act = acting(on, traffic, 'late-copy');
    const copyHeld = on.hold('app', { name: 'late', calls: ['copy'], partition: 'late-copy', times: 1 });
    const record = await firstRecord(act);
    await copyHeld;
    const changed = await act('change', 'proxy-1', record);
    expect(changed.step).toBe('ok');
    const sealHeld = on.hold('app', {
      name: 'seal',
      calls: ['guard:seal'],
      partition: 'late-copy',
      times: 1,
    });
    const flip = await startFlip(on, 'late-copy');
    await sealHeld;
    on.behave('app', 'late');
    on.behave('app', 'seal');
    await untilMoved(on, flip);
    expect(await act('read', 'proxy-2', record)).toMatchObject({ seen: changed.token, store: 'app' });
    await traffic.stop();
    await judge(on);
  }, 60_000);
});

describe('a write on its way to the app when the way back is fenced', () => {
  test('keeps the partition at the app, and is not lost', async () => {
    const on = await startRig(105);
    const { traffic } = load(on, 105, 0);
    const act = acting(on, traffic, 'back');
    const record = await firstRecord(act);
    await untilMoved(on, await startFlip(on, 'back'));
    const held = on.hold('app', { name: 'on-its-way', calls: ['write'], partition: 'back', times: 1 });
    const writing = act('change', 'proxy-1', record);
    await held;
    // Nothing has been written at the app yet, so the way back is open, until the fence waits for this write.
    const flip = await on.admin.startFlip('back-again', ['back'], 10_000, 'legacy');
    await until('the fence is there', async () => (await spansOf(on, 'back')).at(-1)?.phase === 'fenced');
    on.behave('app', 'on-its-way');
    const written = await writing;
    expect(written).toMatchObject({ step: 'ok', store: 'app' });
    expect(await on.admin.untilEnded(flip?.id ?? '', 30_000)).toMatchObject({ committed: 0 });
    expect(await act('read', 'proxy-2', record)).toMatchObject({ seen: written.token, store: 'app' });
    await traffic.stop();
    await judge(on);
  }, 60_000);
});

describe('with the rollback window on', () => {
  const people = ['ann', 'bob', 'cy', 'dee'];

  /** In turn through each proxy, until told to stop; what is refused is given up. */
  async function write(act: ReturnType<typeof acting>, over: () => boolean): Promise<Done[]> {
    const records: string[] = [];
    const done: Done[] = [];
    for (let turn = 0; !over(); turn += 1) {
      const record = turn % 3 === 0 ? undefined : records[turn % records.length];
      const operation = record === undefined ? 'create' : turn % 7 === 6 ? 'remove' : 'change';
      const one = await act(operation, proxyNames[turn % proxyNames.length] ?? 'proxy-1', record);
      if (operation === 'create' && one.record !== undefined) records.push(one.record);
      if (operation === 'remove') records.splice(records.indexOf(record ?? ''), 1);
      done.push(one);
      // As a person would; whoever writes without a pause outruns the copies.
      await pause(150);
    }
    return done;
  }

  test('a cohort goes to the app and back while its users write, and nothing is lost either way', async () => {
    const on = await startRig(106, { window: true });
    const { traffic } = load(on, 106, 0);
    let over = false;
    const seen = { app: 0, legacy: 0 };
    const count = (done: readonly Done[]): void => {
      for (const { step, store } of done) if (step === 'ok' && store !== undefined) seen[store] += 1;
    };
    const writing = people.map((partition) => write(acting(on, traffic, partition), () => over));
    const userWrites = async (store: Store): Promise<number> =>
      (await on.evidence()).accepted[store].filter(({ access }) => access === 'user').length;
    const writes = async (store: Store, more: number): Promise<void> => {
      const before = await userWrites(store);
      await until('users have written', async () => (await userWrites(store)) >= before + more, 30_000);
    };
    try {
      await writes('legacy', 40);
      for (const [at, to] of (['app', 'legacy', 'app', 'legacy'] as const).entries()) {
        const flip = await on.admin.startFlip(`round-${at}`, people, 20_000, to);
        const ended = await on.admin.untilEnded(flip?.id ?? '', 60_000);
        expect(ended).toMatchObject({ state: 'completed', committed: people.length });
        await writes(to, 40);
      }
    } finally {
      over = true;
    }
    for (const done of await Promise.all(writing)) count(done);
    await traffic.stop();
    const verdict = await judge(on);
    expect(verdict.handoffs.committed).toBe(4 * people.length);
    expect(Math.min(seen.app, seen.legacy)).toBeGreaterThan(40);
    const { accepted } = await on.evidence();
    const back = accepted.legacy.filter(({ access }) => access === 'copy');
    expect(back.length).toBeGreaterThan(40);
  }, 300_000);

  test('a copy back that is on its way when the way back is ordered lands before legacy takes a write, or never', async () => {
    const on = await startRig(107, { window: true });
    const { traffic } = load(on, 107, 0);
    const act = acting(on, traffic, 'late');
    const record = await firstRecord(act);
    await untilMoved(on, await startFlip(on, 'late'));
    // Its caller gives it up, and it takes effect after that: nobody can know.
    const late = {
      name: 'late',
      misbehaviour: 'late',
      calls: ['copy'],
      partition: 'late',
      times: 1,
    } as const;
    on.misbehave('legacy', { ...late, forMs: 0.8 * timing.settleMs });
    const written = await act('change', 'proxy-1', record);
    expect(written).toMatchObject({ step: 'ok', store: 'app' });
    const flip = await on.admin.startFlip('late-again', ['late'], 30_000, 'legacy');
    expect(await on.admin.untilEnded(flip?.id ?? '', 40_000)).toMatchObject({ committed: 1 });
    expect(await act('read', 'proxy-2', record)).toMatchObject({ seen: written.token, store: 'legacy' });
    const last = await act('change', 'proxy-3', record);
    expect(last).toMatchObject({ step: 'ok', store: 'legacy' });
    // What was given up may still take effect.
    await pause(timing.writeTimeoutMs + timing.settleMs);
    expect(await act('read', 'proxy-1', record)).toMatchObject({ seen: last.token });
    await traffic.stop();
    await judge(on);
    const { accepted } = await on.evidence();
    expect(accepted.legacy.some(({ access, token }) => access === 'copy' && token === written.token)).toBe(
      true,
    );
  }, 90_000);
});

test('two minutes of everything at once: no promise is broken', async () => {
  const lines: string[] = [];
  const result = await runChaos({ minutes: 2, seed: 7, say: (line) => lines.push(line) });
  // The whole story, so that a failure can be read where it happened; its directory is kept then.
  expect(isClean(result) ? [] : [...lines, ...evidenceLines(result), result.directory]).toEqual([]);
  await rm(result.directory, { recursive: true, force: true });
  const { verdict, acts, flips } = result;
  // That much happens on a machine with ten times its work to do; else the verdict would mean little.
  expect(verdict.ended.ok).toBeGreaterThan(1_000);
  expect(verdict.handoffs.committed).toBeGreaterThan(10);
  expect(Math.min(verdict.writesTaken.legacy, verdict.writesTaken.app)).toBeGreaterThan(200);
  expect(Object.keys(acts).length).toBeGreaterThan(5);
  expect(flips.completed).toBeGreaterThan(0);
}, 220_000);
