/**
 * Runs erasures turn by turn. How far one is stands in Redis, so a process that ends, or is killed, is followed by one
 * that begins another turn; only the process that holds the erasure's lease goes on with it.
 */
import { randomUUID } from 'node:crypto';
import type {
  Erasure,
  ErasureDesk,
  ErasurePlace,
  ErasurePlan,
  ErasureRefusal,
  ErasureSubject,
  PartitionMemory,
} from '../core/erasure.ts';
import type { Registry } from '../core/ports.ts';
import type { Regression } from '../core/regression.ts';
import {
  countRecords,
  type ErasureBook,
  hashOfPartition,
  type StoredErasure,
} from '../ledger/erasure-book.ts';
import { laterPlace } from '../ledger/forget.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { eraseUnderFence, type EraseTurnParts, type TurnEnd } from './erase-turn.ts';
import { lateWarnings, receiptOf, warningsOf } from './receipt.ts';

export interface ErasureParts extends EraseTurnParts {
  readonly book: ErasureBook;
  readonly memories: readonly PartitionMemory[];
  readonly registry: Pick<Registry, 'knows'>;
  /** How long after it a write can still take effect that nobody knows of, ms. */
  readonly settleMs: number;
  /** Turns in a row that delete nothing, after which an erasure has failed; it can be ordered again. */
  readonly idleTurnsMax?: number;
  /** Rids Redis's own files of what was removed; answers a warning where that is left to others. */
  readonly compact?: () => Promise<string | undefined>;
  readonly onEnded?: (erasure: Erasure) => void;
}

const runningAtOnce = 4;
const lookEveryMs = 2_000;
const renewEveryMs = 4_000;
const idleTurnsUsual = 20;
const longestPauseMs = 30_000;
const shortestPauseMs = 250;

/** Another process goes on with it. */
class TakenOver extends Error {}

export class Erasures implements ErasureDesk {
  readonly #parts: ErasureParts;
  readonly #stopping = new AbortController();
  readonly #runs = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: ErasureParts) {
    this.#parts = parts;
  }

  /** From now on this process works on what nobody else works on. */
  startWorking(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => void this.#lookForWork(), lookEveryMs);
    void this.#lookForWork();
  }

  /** What runs here is left to other processes; resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopping.abort(new Error('onewriter is stopping'));
    await Promise.all(this.#runs.values());
  }

  async plan(partition: string): Promise<ErasurePlan | ErasureRefusal> {
    const refusal = await this.#whyNot(partition);
    if (refusal !== undefined) return refusal;
    const look = await this.#parts.eraser.look(partition, this.#stopping.signal);
    // Without the ids of the records; by them a few entries more are found.
    return { look, forgets: await this.#count({ partition, records: [] }) };
  }

  async start(partition: string, by: string, reason: string): Promise<Erasure | ErasureRefusal> {
    const refusal = await this.#whyNot(partition);
    if (refusal !== undefined) return refusal;
    const { book, ledger } = this.#parts;
    const order = { by, reason, atMs: await ledger.nowMs() };
    const id = `e-${randomUUID()}`;
    const begun = await book.begin({
      ...{ partition, pending: [], idleTurns: 0, warnings: [] },
      seen: {
        ...{ id, partition: hashOfPartition(id, partition), state: 'running', step: 'erasing' },
        ...{ orders: [order], turns: 0, removed: [], forgotten: [] },
      },
    });
    const running = await book.change(begun.seen.id, (found) =>
      found.seen.state === 'failed' ? orderedAgain(found, order) : undefined,
    );
    if (this.#timer !== undefined) await this.#lookForWork();
    return (running ?? begun).seen;
  }

  async get(id: string): Promise<Erasure | undefined> {
    return (await this.#parts.book.get(id))?.seen;
  }

  unfinished(): Promise<readonly Erasure[]> {
    return this.#parts.book.unfinished();
  }

  async list(partition?: string): Promise<readonly Erasure[]> {
    const all = (await this.#parts.book.all()).map(({ seen }) => seen);
    if (partition === undefined) return all;
    return all.filter((seen) => seen.partition === hashOfPartition(seen.id, partition));
  }

  /** An erasure makes a record in the ledger: of somebody who may be new it would say that they live in legacy. */
  async #whyNot(partition: string): Promise<ErasureRefusal | undefined> {
    const { ledger, registry } = this.#parts;
    const lost = await ledger.regression();
    if (lost !== undefined) {
      const detail = `Nothing was done. ${sayLost(lost)}, then order the erasure again.`;
      return { refused: 'ledger-regressed', detail };
    }
    const { version } = await ledger.read(partition);
    if (version !== 0 || (await registry.knows(partition))) return undefined;
    const detail = `Nothing was done: neither ledger nor registry knows the partition "${partition}". Where it is spelled right, name it first: onewriter partitions import FILE --reason TEXT`;
    return { refused: 'no-such-partition', detail };
  }

  // --- one after the other ---------------------------------------------------------------------------

  async #lookForWork(): Promise<void> {
    const { book, log } = this.#parts;
    try {
      for (const { id, state } of await book.unfinished()) {
        if (state !== 'running' || this.#runs.has(id) || this.#stopping.signal.aborted) continue;
        if (this.#runs.size >= runningAtOnce) return;
        // Before the question, so that two looks at once do not both begin.
        this.#runs.set(
          id,
          this.#workOn(id).finally(() => this.#runs.delete(id)),
        );
      }
    } catch (error) {
      log('warn', 'erasure.not-looked', { detail: sentenceOf(error) });
    }
  }

  /** Never rejects: what cannot be gone on with here is tried again later, by whoever comes first. */
  async #workOn(id: string): Promise<void> {
    const { book, log } = this.#parts;
    let renewing: NodeJS.Timeout | undefined;
    try {
      if (!(await book.take(id))) return;
      renewing = setInterval(() => void book.save(id).catch(() => undefined), renewEveryMs);
      await this.#run(id);
    } catch (error) {
      const quiet = this.#stopping.signal.aborted || error instanceof TakenOver;
      if (!quiet) log('warn', 'erasure.interrupted', { id, detail: sentenceOf(error) });
    } finally {
      clearInterval(renewing);
      await book.release(id).catch(() => undefined);
    }
  }

  async #run(id: string): Promise<void> {
    let now = await this.#parts.book.get(id);
    while (now?.seen.state === 'running') {
      this.#stopping.signal.throwIfAborted();
      now = await (now.seen.step === 'erasing' ? this.#turn(now) : this.#lookAgain(now));
    }
  }

  async #turn(before: StoredErasure): Promise<StoredErasure> {
    const { book, ledger, eraser, memories, settleMs } = this.#parts;
    const { signal } = this.#stopping;
    const { partition = '', seen } = before;
    let now = before;
    let fresh = 0;
    let end: TurnEnd;
    try {
      // Before anybody is paused: how long a fence must stand, and whether it is any use.
      const look = await eraser.look(partition, signal);
      const [stuck] = look.undeletable;
      if (stuck !== undefined) {
        return await this.#fail(
          now,
          'no-delete',
          `the connector of ${stuck.store} has no "delete" for ${stuck.kind}`,
        );
      }
      end = await eraseUnderFence(
        this.#parts,
        {
          ...{ erasure: seen.id, partition, by: seen.orders.at(-1)?.by ?? '', lookMs: look.tookMs },
          lastAttempt: before.attempt,
          begin: async (attempt) => {
            now = { ...now, attempt, seen: { ...now.seen, turns: now.seen.turns + 1 } };
            return book.save(seen.id, now);
          },
          note: async (records) => {
            fresh += await book.note(seen.id, records);
            now = await this.#counted(now);
            for (const memory of memories) await memory.disregard?.(partition);
          },
          forget: async () => void (now = await this.#forget(now)),
        },
        signal,
      );
    } catch (error) {
      if (signal.aborted || error instanceof TakenOver) throw error;
      end = { end: 'again', code: 'not-carried-out', detail: sentenceOf(error) };
    }
    const removed = countRecords(await book.records(seen.id));
    if (end.end === 'taken-over') throw new TakenOver();
    if (end.end === 'again') {
      const idleTurns = fresh > 0 ? 0 : now.idleTurns + 1;
      return this.#again({ ...now, idleTurns, seen: { ...now.seen, removed } }, end);
    }
    const againAtMs = (await ledger.nowMs()) + settleMs;
    const { trouble: _, ...rest } = now.seen;
    const warnings = warningsOf(end.look);
    return this.#saved({ ...now, againAtMs, warnings, seen: { ...rest, removed, step: 'looking-again' } });
  }

  async #again(now: StoredErasure, end: TurnEnd & { readonly end: 'again' }): Promise<StoredErasure> {
    const { idleTurnsMax = idleTurnsUsual, log } = this.#parts;
    const { idleTurns, seen } = now;
    const lost = await this.#parts.ledger.regression();
    const { code, detail, afterMs } = lost === undefined ? end : waitsForRestore(lost);
    // Nobody counts turns while an operator restores the ledger.
    if (lost === undefined && idleTurns >= idleTurnsMax) return this.#fail(now, code, detail);
    if (seen.trouble?.code !== code) log('warn', 'erasure.waits', { id: seen.id, code, detail });
    const saved = await this.#saved({ ...now, seen: { ...seen, trouble: { code, detail } } });
    const usualMs = Math.min(longestPauseMs, shortestPauseMs * 2 ** idleTurns);
    await pause(Math.min(afterMs ?? usualMs, longestPauseMs), this.#stopping.signal);
    return saved;
  }

  /** The name stays in the book: ordered again, it goes on with what it knows. */
  async #fail(now: StoredErasure, code: string, detail: string): Promise<StoredErasure> {
    const { log, onEnded } = this.#parts;
    const endedAtMs = await this.#parts.ledger.nowMs();
    const seen: Erasure = { ...now.seen, state: 'failed', trouble: { code, detail }, endedAtMs };
    const saved = await this.#saved({ ...now, seen });
    log('error', 'erasure.failed', { id: seen.id, code, detail });
    onEnded?.(seen);
    return saved;
  }

  /** What took effect late, or was on its way inside onewriter, shows up within the settle time. */
  async #lookAgain(before: StoredErasure): Promise<StoredErasure> {
    const { book, ledger, eraser, compact, log, onEnded } = this.#parts;
    const { signal } = this.#stopping;
    const { partition = '', againAtMs = 0 } = before;
    await pause(Math.max(0, againAtMs - (await ledger.nowMs())), signal);
    const look = await eraser.look(partition, signal);
    const now = await this.#sweep(before);
    const compacted = await compact?.();
    const endedAtMs = await ledger.nowMs();
    const warnings = [
      ...now.warnings,
      ...lateWarnings(look),
      ...(compacted === undefined ? [] : [compacted]),
    ];
    const ended: Erasure = { ...now.seen, state: 'done', step: 'ended', endedAtMs };
    const seen: Erasure = { ...ended, receipt: receiptOf(ended, warnings, endedAtMs) };
    const done = { ...now, seen, warnings };
    if (!(await book.finish(done))) throw new TakenOver();
    log('info', 'erasure.done', { id: seen.id, turns: seen.turns, warnings: warnings.length });
    onEnded?.(seen);
    return done;
  }

  // --- what onewriter keeps --------------------------------------------------------------------------

  /** Counted and saved before it is gone, so that the receipt is right also after a death in between. */
  async #forget(before: StoredErasure): Promise<StoredErasure> {
    const { seen, pending } = await this.#counted(before);
    const subject = await this.#subjectOf(before);
    for (const memory of this.#parts.memories) await memory.forget(subject);
    const forgotten = combined(seen.forgotten, pending, sum);
    return this.#saved({ ...before, pending: [], seen: { ...seen, forgotten } });
  }

  async #counted(before: StoredErasure): Promise<StoredErasure> {
    const found = (await this.#count(await this.#subjectOf(before))).filter(
      ({ place }) => place !== laterPlace,
    );
    return this.#saved({ ...before, pending: combined(before.pending, found, Math.max) });
  }

  async #subjectOf({ partition = '', seen }: StoredErasure): Promise<ErasureSubject> {
    return { partition, records: await this.#parts.book.records(seen.id) };
  }

  async #sweep(before: StoredErasure): Promise<StoredErasure> {
    const { seen } = before;
    const subject = await this.#subjectOf(before);
    let { forgotten } = seen;
    for (const memory of this.#parts.memories)
      forgotten = combined(forgotten, await memory.sweep(subject), sum);
    return this.#saved({ ...before, seen: { ...seen, forgotten } });
  }

  async #count(subject: ErasureSubject): Promise<readonly ErasurePlace[]> {
    const all = await Promise.all(this.#parts.memories.map((memory) => memory.count(subject)));
    return all.flat().filter(({ entries }) => entries > 0);
  }

  async #saved(erasure: StoredErasure): Promise<StoredErasure> {
    if (!(await this.#parts.book.save(erasure.seen.id, erasure))) throw new TakenOver();
    return erasure;
  }
}

function sayLost({ detail }: Regression): string {
  return `The ledger lost data (${detail}), so nobody knows where the partition lives, and nothing can be erased. Restore it first (onewriter ledger restore --from member --plan --reason TEXT)`;
}

function waitsForRestore(lost: Regression): { code: string; detail: string; afterMs?: number } {
  return { code: 'ledger-regressed', detail: `${sayLost(lost)}; the erasure goes on by itself afterwards` };
}

function orderedAgain(found: StoredErasure, order: Erasure['orders'][number]): StoredErasure {
  const { trouble: _, endedAtMs: __, ...seen } = found.seen;
  return { ...found, idleTurns: 0, seen: { ...seen, state: 'running', orders: [...seen.orders, order] } };
}

const sum = (one: number, other: number): number => one + other;

function combined(
  left: readonly ErasurePlace[],
  right: readonly ErasurePlace[],
  add: (left: number, right: number) => number,
): ErasurePlace[] {
  const entries = new Map(left.map((one) => [one.place, one.entries]));
  for (const one of right) entries.set(one.place, add(entries.get(one.place) ?? 0, one.entries));
  return [...entries].map(([place, count]) => ({ place, entries: count }));
}
