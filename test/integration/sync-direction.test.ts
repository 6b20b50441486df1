/**
 * I3 under a flood: whatever the queues hold, and however the partitions move meanwhile, nothing is copied against the
 * ledger. Judged by what arrives at the stores.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { Queue } from 'bullmq';
import * as fc from 'fast-check';
import type { HandoffSettings } from '../../src/core/handoff.ts';
import { otherStore, type StoreName } from '../../src/core/ownership.ts';
import { attemptHandoff } from '../../src/handoff/attempt.ts';
import { MemberWatch } from '../../src/handoff/members.ts';
import { recordQueueName, scanQueueName } from '../../src/sync/backlog.ts';
import { copyLockKey } from '../../src/sync/keys.ts';
import { queueOptions } from '../../src/sync/worker.ts';
import { openLedger, type TestLedger } from '../support/ledger.ts';
import { startRedis, type TestRedis } from '../support/redis.ts';
import { appointment, startSyncRig, type SyncRig } from '../support/sync.ts';
import { until } from '../support/until.ts';
import { WireWatch } from '../support/wire-watch.ts';

const partitions = ['ann', 'bob', 'cy'] as const;
type Partition = (typeof partitions)[number];
const idsEach = 3;

/** Whoever reads next from the store is kept waiting while the partition moves. */
interface Ambush {
  readonly store: StoreName;
  readonly loseLock: boolean;
  /** Moves by the ledger alone, without the catch-up that would wait for the copy lock. */
  readonly bare: boolean;
}

/** What a test does to a deployment, one after the other; whatever takes long goes on beside the next ones. */
type Act =
  | { readonly act: 'forge'; readonly partition: Partition; readonly id: number; readonly epoch: number }
  | { readonly act: 'forge-partition'; readonly partition: Partition; readonly epoch: number }
  | { readonly act: 'replay'; readonly pick: number }
  | { readonly act: 'scan'; readonly name: string }
  | { readonly act: 'write'; readonly partition: Partition; readonly id: number; readonly remove: boolean }
  | { readonly act: 'move'; readonly partition: Partition }
  | { readonly act: 'fence-and-abort'; readonly partition: Partition }
  | { readonly act: 'lose-lock'; readonly partition: Partition }
  | { readonly act: 'ambush'; readonly partition: Partition; readonly ambush: Ambush }
  | { readonly act: 'slow'; readonly store: StoreName; readonly ms: number }
  | { readonly act: 'look-for-strays' }
  /** Waits for the moves under way. */
  | { readonly act: 'join' }
  | { readonly act: 'wait'; readonly ms: number };

const partition = fc.constantFrom(...partitions);
const id = fc.nat(idsEach - 1);
const epoch = fc.nat(12);
const store = fc.constantFrom<StoreName>('legacy', 'app');
const ambush: fc.Arbitrary<Ambush> = fc.record({ store, loseLock: fc.boolean(), bare: fc.boolean() });
const acts: fc.Arbitrary<readonly Act[]> = fc.array(
  fc.oneof<{ weight: number; arbitrary: fc.Arbitrary<Act> }[]>(
    { weight: 6, arbitrary: fc.record({ act: fc.constant('forge'), partition, id, epoch }) },
    { weight: 3, arbitrary: fc.record({ act: fc.constant('forge-partition'), partition, epoch }) },
    { weight: 6, arbitrary: fc.record({ act: fc.constant('replay'), pick: fc.nat(1_000) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        act: fc.constant('scan'),
        name: fc.constantFrom('app appointment', 'legacy appointment', 'appointment', ''),
      }),
    },
    { weight: 6, arbitrary: fc.record({ act: fc.constant('write'), partition, id, remove: fc.boolean() }) },
    { weight: 5, arbitrary: fc.record({ act: fc.constant('move'), partition }) },
    { weight: 1, arbitrary: fc.record({ act: fc.constant('fence-and-abort'), partition }) },
    { weight: 2, arbitrary: fc.record({ act: fc.constant('lose-lock'), partition }) },
    { weight: 6, arbitrary: fc.record({ act: fc.constant('ambush'), partition, ambush }) },
    { weight: 2, arbitrary: fc.record({ act: fc.constant('slow'), store, ms: fc.nat(80) }) },
    { weight: 3, arbitrary: fc.record({ act: fc.constant('look-for-strays') }) },
    { weight: 4, arbitrary: fc.record({ act: fc.constant('wait'), ms: fc.nat(60) }) },
  ),
  { minLength: 30, maxLength: 60 },
);

/** Who writes has made the lock last longer than this, ms: nothing that takes the lock away may overtake its write. */
const readersLockMs = 3_000;
const loseReadersLock = `
if redis.call('PTTL', KEYS[1]) > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])`;
const underWayMs = 50;

let server: TestRedis;
let flood: Flood | undefined;

beforeAll(async () => {
  server = await startRedis();
});
afterEach(async () => {
  await flood?.stop();
  flood = undefined;
});
afterAll(() => server.stop());

interface FloodKind {
  readonly rollbackWindow: 'on' | 'off';
  /** Does the app have a guard? */
  readonly guarded: boolean;
}

class Flood {
  readonly rig: SyncRig;
  readonly watch: WireWatch;
  readonly #ledger: TestLedger;
  readonly #members: MemberWatch;
  readonly #queues: { readonly record: Queue; readonly scan: Queue };
  readonly #settings: HandoffSettings;
  readonly #kind: FloodKind;
  readonly #ambushes = new Map<string, Ambush>();
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #sent: Record<string, unknown>[] = [];
  readonly moved = { there: 0, back: 0, bare: 0 };
  #writes = 0;

  private constructor(rig: SyncRig, ledger: TestLedger, kind: FloodKind) {
    this.rig = rig;
    this.#ledger = ledger;
    this.#kind = kind;
    this.watch = new WireWatch({
      redis: rig.redis,
      stores: { legacy: rig.legacy, app: rig.app },
      partitionOf: (of) => of.split('-')[0] ?? '',
      guarded: kind.guarded,
    });
    this.watch.onRead = (store, { path, query }) =>
      this.#springAmbush(store, query.get('owner') ?? path.split('/')[2]?.split('-')[0] ?? '');
    this.#members = new MemberWatch(ledger.ledger, 1_000, () => undefined);
    const connection = { url: server.url };
    this.#queues = {
      record: new Queue(recordQueueName, { connection, ...queueOptions }),
      scan: new Queue(scanQueueName, { connection, ...queueOptions }),
    };
    this.#settings = {
      ...{ drainMs: 500, fenceMs: 4_000, feedDelayMs: 0, guarded: { legacy: false, app: kind.guarded } },
      proof: { app: kind.rollbackWindow === 'on' ? 'copies' : 'unwritten' },
    };
  }

  static async start(kind: FloodKind): Promise<Flood> {
    const records = partitions.flatMap((of) =>
      Array.from({ length: idsEach }, (_, at) => appointment(`${of}-${at}`, of, `first ${of}-${at}`)),
    );
    const rig = await startSyncRig(server, {
      legacy: { paging: 'cursor', pageSize: 4, records },
      // What the app holds before anything is copied to it: a job that went the wrong way would bring it to legacy.
      app: { records: [appointment('ann-0', 'ann', 'old in the app')] },
      appStore: { guard: kind.guarded },
      sync: { pollMs: 40, rollbackWindow: kind.rollbackWindow },
    });
    return new Flood(rig, await openLedger(server), kind);
  }

  async run(all: readonly Act[]): Promise<void> {
    await this.rig.sync.startWorkers();
    for (const act of all) await this.#carryOut(act);
    await Promise.all(this.#running.values());
  }

  async stop(): Promise<void> {
    await Promise.all(this.#running.values());
    await Promise.all(Object.values(this.#queues).map((queue) => queue.close()));
    await this.#ledger.close();
    await this.rig.stop();
  }

  async #carryOut(act: Act): Promise<void> {
    switch (act.act) {
      case 'forge': {
        const of = `${act.partition}-${act.id}`;
        const wrong = { fields: appointment(of, act.partition, 'forged'), deleted: true };
        const data = { partition: act.partition, kind: 'appointment', id: of, epoch: act.epoch };
        return this.#send({ ...data, ...wrong, from: 'app', to: 'legacy', direction: 'app->legacy' });
      }
      case 'forge-partition':
        return this.#send({ partition: act.partition, kind: '', id: '', epoch: act.epoch, to: 'legacy' });
      case 'replay': {
        const again = this.#sent[act.pick % Math.max(1, this.#sent.length)];
        if (again !== undefined) await this.#queues.record.add('again', again);
        return;
      }
      case 'scan':
        await this.#queues.scan.add('segment', { name: act.name });
        return;
      case 'write':
        return this.#userWrites(act.partition, `${act.partition}-${act.id}`, act.remove);
      case 'move':
        return this.#beside(act.partition, () => this.#move(act.partition));
      case 'fence-and-abort':
        return this.#beside(act.partition, () => this.#fenceAndAbort(act.partition));
      case 'lose-lock':
        return this.#loseLock(act.partition);
      case 'ambush':
        this.#ambushes.set(act.partition, act.ambush);
        return;
      case 'slow':
        this.watch.slowMs[act.store] = act.ms;
        return;
      case 'join':
        await Promise.all(this.#running.values());
        return;
      case 'look-for-strays':
        return this.#beside('the strays', () => this.rig.sync.strayWatch.look(new AbortController().signal));
      case 'wait':
        await new Promise((resolve) => setTimeout(resolve, act.ms));
    }
  }

  async #send(data: Record<string, unknown>): Promise<void> {
    this.#sent.push(data);
    // As the doorbell does: what is known of the partition now. Replayed, it is what was known then.
    const { partition: of, kind, id: record } = data;
    const { ownership } = await this.#ledger.ledger.read(String(of));
    this.#sent.push({ partition: of, kind, id: record, epoch: ownership.epoch });
    await this.#queues.record.add('forged', data);
    await this.#queues.record.add('true', { partition: of, kind, id: record, epoch: ownership.epoch });
  }

  async #userWrites(of: Partition, record: string, remove: boolean): Promise<void> {
    const { ownership } = await this.#ledger.ledger.read(of);
    if (ownership.phase !== 'open') return;
    this.#writes += 1;
    const fields = appointment(record, of, `write ${this.#writes} in ${ownership.owner}`);
    if (!this.watch.userWrites(ownership.owner, ownership.epoch, fields)) return;
    if (remove) this.rig[ownership.owner].remove(record);
    this.rig.sync.doorbell.ring({ partition: of, kind: 'appointment', id: record });
  }

  async #loseLock(of: string): Promise<void> {
    await this.rig.redis.eval(loseReadersLock, 1, copyLockKey(of), readersLockMs);
  }

  async #springAmbush(store: StoreName, of: string): Promise<void> {
    const laid = this.#ambushes.get(of);
    if (laid?.store !== store) return;
    this.#ambushes.delete(of);
    if (laid.loseLock) await this.#loseLock(of);
    this.#beside(of, () => (laid.bare ? this.#moveBare(of) : this.#move(of)));
    // It may be the move itself that reads.
    const late = new Promise((resolve) => setTimeout(resolve, ambushMs));
    await Promise.race([this.#running.get(of), late]);
  }

  /** One at a time for each partition, as the flips' reservations have it. */
  #beside(of: string, work: () => Promise<unknown>): void {
    if (this.#running.has(of)) return;
    this.#running.set(
      of,
      work().finally(() => this.#running.delete(of)),
    );
  }

  async #move(of: string): Promise<void> {
    const { ownership } = await this.#ledger.ledger.read(of);
    const { guarded, rollbackWindow } = this.#kind;
    if (ownership.owner === 'app' && rollbackWindow === 'off' && !guarded) return this.#moveBare(of);
    const report = await attemptHandoff(
      {
        ...{ ledger: this.#ledger.ledger, feed: this.#ledger.feed, members: this.#members },
        ...{ copies: this.rig.sync.desk, guards: this.rig.sync.guardCalls, settings: this.#settings },
      },
      {
        ...{ partition: of, from: ownership.owner, by: 'test', reason: 'test' },
        stop: new AbortController().signal,
      },
    );
    if (report.outcome === 'moved') this.moved[ownership.owner === 'legacy' ? 'there' : 'back'] += 1;
  }

  /** By the ledger alone; given up where a copy may be on its way, which only the catch-up knows to wait for. */
  async #moveBare(of: string): Promise<void> {
    const { owner, phase } = (await this.#ledger.ledger.read(of)).ownership;
    if (phase !== 'open') return;
    const attempt = `bare ${performance.now()}`;
    await this.rig.order(of, { kind: 'fence', to: otherStore(owner), attempt, fenceMs: 10_000 });
    await new Promise((resolve) => setTimeout(resolve, underWayMs));
    if ((await this.rig.redis.pttl(copyLockKey(of))) > readersLockMs) {
      await this.rig.order(of, { kind: 'abort', attempt });
      return;
    }
    await this.rig.order(of, { kind: 'commit', attempt });
    await this.rig.order(of, { kind: 'release', attempt });
    this.moved[owner === 'legacy' ? 'there' : 'back'] += 1;
    this.moved.bare += 1;
  }

  async #fenceAndAbort(of: string): Promise<void> {
    const { owner } = (await this.#ledger.ledger.read(of)).ownership;
    await this.rig.order(of, { kind: 'fence', to: otherStore(owner), attempt: 'a', fenceMs: 10_000 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await this.rig.order(of, { kind: 'abort', attempt: 'a' });
  }

  /** Who moves without a catch-up leaves no snapshot behind: what differs from an older one looks like a stray. */
  async #resolveStrays(): Promise<void> {
    if (this.moved.bare === 0) return;
    for (const { id: stray } of await this.rig.sync.strays.list('open'))
      await this.rig.sync.strays.resolve(stray, 'moved', 'test', 'test');
  }

  /** Nobody moves or writes any more, and the stores are quick: the copies become what the owners hold. */
  async settles(): Promise<void> {
    await this.rig.sync.strayWatch.look(new AbortController().signal);
    this.watch.slowMs.legacy = 0;
    this.watch.slowMs.app = 0;
    for (const of of partitions) {
      const { owner } = (await this.#ledger.ledger.read(of)).ownership;
      if (owner === 'app' && this.#kind.rollbackWindow === 'off') continue;
      await until(`${of} of ${owner} is copied`, async () => {
        await this.#resolveStrays();
        const found = await this.rig.sync.desk.compare(of, new AbortController().signal);
        return found.differences.length + found.problems.length === 0;
      });
    }
  }
}

function withCatchUp(act: Extract<Act, { act: 'ambush' }>): Act {
  return { ...act, ambush: { ...act.ambush, bare: false } };
}

const ambushMs = 400;
/** More of them, and longer: ONEWRITER_FLOODS=200. */
const floods = Number(process.env['ONEWRITER_FLOODS'] ?? 6);
/** So that each flood sees a partition go there and back. */
const thereAndBack: readonly Act[] = [
  { act: 'move', partition: 'ann' },
  { act: 'join' },
  { act: 'move', partition: 'ann' },
  { act: 'join' },
];

const kinds: readonly FloodKind[] = [
  { rollbackWindow: 'off', guarded: true },
  { rollbackWindow: 'off', guarded: false },
  { rollbackWindow: 'on', guarded: true },
  { rollbackWindow: 'on', guarded: false },
];

describe.each(kinds)('with the rollback window $rollbackWindow, an app whose guard is $guarded', (kind) => {
  test(
    'nothing is copied against the ledger, whatever is in the queues and wherever the partitions go',
    async () => {
      const seen = { copies: 0, there: 0, back: 0 };
      await fc.assert(
        fc.asyncProperty(acts, fc.boolean(), async (drawn, bare) => {
          const all = drawn.map((act) => (bare || act.act !== 'ambush' ? act : withCatchUp(act)));
          flood = await Flood.start(kind);
          const { watch, rig, moved } = flood;
          await flood.run([...thereAndBack, ...all]);
          await flood.settles();
          expect(await watch.judge()).toEqual([]);
          if (kind.rollbackWindow === 'off') expect(rig.legacy.writes()).toEqual([]);
          // Our own copies back show up in the store that users have left, and are nobody's change.
          if (moved.bare === 0) expect(await rig.sync.strays.list()).toEqual([]);
          seen.copies += watch.landed.length;
          seen.there += moved.there;
          seen.back += moved.back;
          await flood.stop();
          flood = undefined;
        }),
        { numRuns: floods, endOnFailure: true },
      );
      // Else the test would have looked at nothing.
      expect(seen.copies).toBeGreaterThan(floods);
      expect(seen.there).toBeGreaterThan(0);
      expect(seen.back).toBeGreaterThan(0);
    },
    60_000 + floods * 12_000,
  );
});

describe('the writers of a process', () => {
  test.each([
    ['off', ['app']],
    ['on', ['app', 'legacy']],
  ] as const)('with the rollback window %s are for %j alone', async (window, stores) => {
    const script = 'test/support/writers-in-heap.ts';
    const { stdout } = await promisify(execFile)(process.execPath, [script, server.url, window]);
    expect(JSON.parse(stdout)).toEqual(stores);
  });
});
