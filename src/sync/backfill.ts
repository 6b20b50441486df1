/**
 * The first copy of a kind of records, and the one after a great loss: the owner's list is read from end to end, and
 * what the target does not hold is written, page by page, with a checkpoint after each. It needs no memory of what
 * it has read, and goes on in any process where the last one was cut off.
 *
 * It runs beside the live sync. A record that the live sync has copied or removed since it began, and one that the
 * target held before, it leaves alone; for one that could not be written for certain it rings the bell. The full pass
 * that follows looks at all of them, and at what the list did not show: that one is what correctness rests on.
 */
import { otherStore, type StoreName } from '../core/ownership.ts';
import { type Ledger, type Page, type RecordKey, StoreFailure, type StoreReader } from '../core/ports.ts';
import type { CopyForm, StoreRecord } from '../core/records.ts';
import type { Redis } from 'ioredis';
import { inBatches } from '../batches.ts';
import type { Log } from '../log.ts';
import { wantedCopy } from './copy-form.ts';
import { type BatchParts, type BatchSession, withCopySessions } from './apply-batch.ts';
import { type BackfillState, BackfillStates, withRate } from './backfill-state.ts';
import type { Backlog } from './backlog.ts';
import { TakenOver } from './copy-locks.ts';
import { backfillName } from './keys.ts';
import { KnownCopies, type Trace } from './known-copies.ts';
import { eachOf } from './passes.ts';

export interface BackfillParts {
  readonly redis: Redis;
  readonly copies: BatchParts;
  readonly ledger: Pick<Ledger, 'nowMs'>;
  readonly backlog: Pick<Backlog, 'ring' | 'count'>;
  /** Tells the registry, before anything of these partitions is written. */
  readonly note: (partitions: ReadonlySet<string>) => Promise<void>;
  readonly log: Log;
}

export type SegmentOutcome =
  | { readonly segment: 'ended' }
  /** It is not over: the next segment may begin after so long, ms. */
  | { readonly segment: 'more'; readonly waitMs: number };

export interface BackfillProgress extends BackfillState {
  readonly owner: StoreName;
  readonly kind: string;
}

const segmentMs = 10_000;
/** With more marks than these the workers must catch up first. */
const marksMax = 10_000;
const marksWaitMs = 1_000;
const lockWaitMs = 5_000;
const bulkCallsAtOnce = 4;
const singleCallsAtOnce = 12;
/** Records that are written under one set of locks where the target has no bulk. */
const singlesInGroup = 100;
const restartsMax = 3;
/** After one has ended, a full pass that finds much missing rings for it: another first copy would not help. */
const againAfterMs = 3_600_000;

interface Task {
  readonly name: string;
  readonly run: string;
  readonly owner: StoreReader;
  readonly copy: StoreReader;
  readonly kind: string;
  readonly known: KnownCopies;
  readonly signal: AbortSignal;
  readonly untilMs: number;
  /** Partitions that could not be copied in this segment: the bell was rung, nobody waits for them again. */
  readonly busy: Set<string>;
}

interface Candidate {
  readonly partition: string;
  readonly id: string;
  readonly form: CopyForm;
  readonly trace: Trace;
}

export class Backfills {
  readonly #parts: BackfillParts;
  readonly #states: BackfillStates;

  constructor(parts: BackfillParts) {
    this.#parts = parts;
    this.#states = new BackfillStates(parts.redis);
  }

  /** Begins one, unless one is under way, or has ended a short while ago: then false. */
  async begin(owner: StoreName, kind: string, total: number | undefined): Promise<boolean> {
    const name = backfillName(owner, kind);
    if (!(await this.mayBegin(owner, kind))) return false;
    const nowMs = await this.#parts.ledger.nowMs();
    const begun = await this.#states.begin(name, total, nowMs);
    if (begun) this.#parts.log('info', 'sync.backfill-begun', { owner, kind, total });
    return begun;
  }

  async mayBegin(owner: StoreName, kind: string): Promise<boolean> {
    const before = await this.#states.of(backfillName(owner, kind));
    if (before?.endedMs === undefined) return before === undefined;
    return (await this.#parts.ledger.nowMs()) >= before.endedMs + againAfterMs;
  }

  isUnderWay(owner: StoreName, kind: string): Promise<boolean> {
    return this.#states.isUnderWay(backfillName(owner, kind));
  }

  /** Names of those under way, for `segment`. */
  underWay(): Promise<string[]> {
    return this.#states.underWay();
  }

  /** Those under way, and the last that ended of each kind. */
  async progress(): Promise<readonly BackfillProgress[]> {
    return [...(await this.#states.all())].map(([name, state]) => ({ ...partsOf(name), ...state }));
  }

  /**
   * Goes on with the first copy of that name for a few seconds. Throws StoreFailure where a store failed, and the
   * signal's reason when it ends; either way the next segment goes on behind the last page that was settled.
   */
  async segment(name: string, signal: AbortSignal): Promise<SegmentOutcome> {
    const { copies, backlog, redis } = this.#parts;
    if ((await backlog.count()) >= marksMax) return { segment: 'more', waitMs: marksWaitMs };
    const taken = await this.#states.take(name);
    if (taken === undefined) return { segment: 'ended' };
    const { owner, kind } = partsOf(name);
    const task: Task = {
      ...{ name, kind, signal, run: taken.run },
      owner: copies.readers[owner],
      copy: copies.readers[otherStore(owner)],
      known: new KnownCopies(redis, name),
      untilMs: performance.now() + segmentMs,
      busy: new Set(),
    };
    let { state } = taken;
    // A list that shows a finished write late must not show what was there before the live sync left traces.
    const tooEarlyMs = state.startedMs + task.owner.feedDelayMs - (await this.#parts.ledger.nowMs());
    if (tooEarlyMs > 0) return { segment: 'more', waitMs: tooEarlyMs };
    try {
      state = await this.#worked(task, state);
    } catch (error) {
      if (!(error instanceof TakenOver)) throw error;
      this.#parts.log('info', 'sync.backfill-taken-over', { owner, kind });
      return { segment: 'ended' };
    }
    if (state.endedMs === undefined) return { segment: 'more', waitMs: 0 };
    const { phase, records, written } = state;
    this.#parts.log('info', 'sync.backfill-ended', { owner, kind, phase, records, written });
    return { segment: 'ended' };
  }

  async #worked(task: Task, from: BackfillState): Promise<BackfillState> {
    try {
      const state = from.phase === 'looking' ? await this.#look(task, from) : from;
      return state.phase === 'copying' ? await this.#copy(task, state) : state;
    } catch (error) {
      const again = error instanceof TakenOver ? undefined : await this.#restarted(task, error);
      if (again === undefined) throw error;
      return again;
    }
  }

  /** Notes which ids the target holds: those are for the full pass. */
  async #look(task: Task, from: BackfillState): Promise<BackfillState> {
    const { copy, known } = task;
    let state = from;
    for await (const page of this.#pages(task, copy, state.after)) {
      await known.add(page.records.map(({ id }) => known.trace(id)));
      const { after: _, ...at } = state;
      state = await this.#save(
        task,
        page.next === undefined ? { ...at, phase: 'copying' } : { ...at, after: page.next },
      );
      if (page.next !== undefined && performance.now() > task.untilMs) return state;
    }
    return state.phase === 'copying' ? state : this.#save(task, { ...state, phase: 'copying' });
  }

  async #copy(task: Task, from: BackfillState): Promise<BackfillState> {
    let state = from;
    const groupRecords = this.#groupRecords(task);
    let waiting: Page[] = [];
    for await (const page of this.#pages(task, task.owner, state.after)) {
      waiting.push(page);
      const { next, total } = page;
      const records = waiting.reduce((sum, one) => sum + one.records.length, 0);
      const late = performance.now() > task.untilMs;
      if (next !== undefined && records < groupRecords && !late) continue;
      const written = await this.#copyPages(task, waiting, groupRecords);
      waiting = [];
      const { after: _, ...at } = state;
      const settled: BackfillState = {
        ...at,
        records: at.records + records,
        written: at.written + written,
        ...(total === undefined ? {} : { total }),
        ...(next === undefined ? {} : { after: next }),
      };
      if (next === undefined) return this.#end(task, settled, 'done');
      state = await this.#save(task, settled);
      if (late) return state;
    }
    return state;
  }

  #groupRecords({ copy, kind }: Task): number {
    const bulk = this.#parts.copies.writers.get(copy.store)?.bulk(kind);
    return bulk === undefined ? singlesInGroup : Math.min(10_000, bulk.max * bulkCallsAtOnce);
  }

  /** The next page is read while the last one is being worked on. */
  async *#pages(task: Task, reader: StoreReader, after: string | undefined): AsyncGenerator<Page> {
    const { kind, signal } = task;
    const list = reader.pages(kind, after === undefined ? {} : { after }, signal)[Symbol.asyncIterator]();
    const read = async (): Promise<Page | undefined> => {
      const { value, done } = await list.next();
      return done === true ? undefined : value;
    };
    let ahead = read();
    try {
      for (;;) {
        const page = await ahead;
        if (page === undefined) return;
        ahead = read();
        // It is awaited above, or below; until then its failure is nobody's.
        ahead.catch(() => undefined);
        yield page;
      }
    } finally {
      await ahead.catch(() => undefined);
    }
  }

  /** Returns how many were written. When it settles, each record is settled or rung. */
  async #copyPages(task: Task, pages: readonly Page[], groupRecords: number): Promise<number> {
    const records = new Map<string, StoreRecord>();
    for (const page of pages) {
      const [problem] = page.problems;
      if (problem !== undefined) {
        const count = page.problems.length;
        this.#parts.log('warn', 'sync.unusable-records', { kind: task.kind, count, first: problem.detail });
      }
      // Of a record that two pages show, the later one is newer. Where two partitions have one id, nobody here knows whether
      // the target tells them apart: one is written, and for the other the full pass looks what the target holds.
      for (const record of page.records) records.set(record.id, record);
    }
    await this.#parts.note(new Set([...records.values()].map(({ partition }) => partition)));
    const all = [...records.values()];
    let written = 0;
    for (const group of inBatches(all, groupRecords)) written += await this.#copyGroup(task, group);
    return written;
  }

  async #copyGroup(task: Task, records: readonly StoreRecord[]): Promise<number> {
    const { owner, copy, kind, known, run, name, signal, busy } = task;
    const all = records.flatMap((record): Candidate[] => {
      const form = wantedCopy(record, record.partition, owner, copy);
      if (form === undefined) return [];
      const { partition, id } = record;
      return [{ partition, id, form, trace: known.trace(id) }];
    });
    const partitions = [...new Set(all.map(({ partition }) => partition))];
    const ask = { owner: owner.store, run: { backfill: name, run }, lockWaitMs, busy };
    return withCopySessions(this.#parts.copies, partitions, ask, signal, async (session) => {
      const granted = all.filter(({ partition }) => session.grant(partition) === 'yes');
      const later = all.filter(({ partition }) => session.grant(partition) === 'later');
      for (const { partition } of later) busy.add(partition);
      // Asked only now: while the locks are held nobody else can copy, and everybody who did has left a trace.
      const isKnown = await known.has(granted.map(({ trace }) => trace));
      const ready = granted.filter((_, at) => isKnown[at] === false);
      const doubtful = await this.#write(task, session, ready);
      await this.#ring(kind, [...later, ...doubtful]);
      return ready.length - doubtful.length;
    });
  }

  /** Returns those that were not certainly written. */
  async #write(
    { kind, known }: Task,
    session: BatchSession,
    candidates: readonly Candidate[],
  ): Promise<readonly Candidate[]> {
    const bulk = session.bulk(kind);
    const apart =
      bulk?.onePartition === true
        ? [...Map.groupBy(candidates, ({ partition }) => partition).values()]
        : [candidates];
    const calls = apart.flatMap((part) => [...inBatches(part, bulk?.max ?? 1)]);
    const doubtful: Candidate[] = [];
    await eachOf(
      calls,
      async (call) => {
        const written = await session.put(kind, call);
        const certain = call.filter(({ id }) => written.has(id));
        await known.add(certain.map(({ trace }) => trace));
        doubtful.push(...call.filter(({ id }) => !written.has(id)));
      },
      bulk === undefined ? singleCallsAtOnce : bulkCallsAtOnce,
    );
    return doubtful;
  }

  async #ring(kind: string, candidates: readonly Candidate[]): Promise<void> {
    const keys: RecordKey[] = candidates.map(({ partition, id }) => ({ partition, kind, id }));
    await this.#parts.backlog.ring(keys);
  }

  async #save({ name, run }: Task, state: BackfillState): Promise<BackfillState> {
    const rated = withRate(state, await this.#parts.ledger.nowMs());
    if (!(await this.#states.save(name, run, rated))) throw new TakenOver();
    return rated;
  }

  async #end(task: Task, state: BackfillState, phase: 'done' | 'given-up'): Promise<BackfillState> {
    const endedMs = await this.#parts.ledger.nowMs();
    return this.#save(task, { ...state, phase, endedMs });
  }

  /** A list that cannot be continued where it was left begins anew; what was written is known and not repeated. Undefined where it was something else. */
  async #restarted(task: Task, error: unknown): Promise<BackfillState | undefined> {
    if (!(error instanceof StoreFailure)) return undefined;
    if (error.kind !== 'rejected' && error.kind !== 'bad-answer') return undefined;
    const state = await this.#states.of(task.name);
    if (state?.after === undefined) return undefined;
    const { owner, kind } = partsOf(task.name);
    const { after: _, ...at } = state;
    const restarts = at.restarts + 1;
    this.#parts.log('warn', 'sync.backfill-restarted', { owner, kind, restarts, detail: error.message });
    if (restarts > restartsMax) return this.#end(task, { ...at, restarts }, 'given-up');
    return this.#save(task, { ...at, restarts, records: at.phase === 'copying' ? 0 : at.records });
  }
}

/** Where a first copy of that name writes. */
export function targetOf(name: string): StoreName {
  return otherStore(partsOf(name).owner);
}

function partsOf(name: string): { readonly owner: StoreName; readonly kind: string } {
  const [owner = '', ...kind] = name.split(' ');
  return { owner: owner === 'app' ? 'app' : 'legacy', kind: kind.join(' ') };
}
