/**
 * The workers on the queues: one job at a time per record, polls by one worker at a time. What a queue
 * holds can be lost; what must not be lost is in the ledger and in the stores.
 */
import { DelayedError, type Job, Queue, Worker } from 'bullmq';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import { otherStore, type StoreName } from '../core/ownership.ts';
import { type Ledger, type RecordKey, StoreFailure, type StoreReader } from '../core/ports.ts';
import { keyPrefix } from '../ledger/connection.ts';
import { type Backfills, targetOf } from './backfill.ts';
import {
  type Backlog,
  controlQueueName,
  type CopyJob,
  jobSchema,
  recordQueueName,
  scanQueueName,
} from './backlog.ts';
import { type CopierParts, lookAt } from './copier.ts';
import { type DeadLetters, letterOf } from './dead-letters.ts';
import { isOurFault } from './blame.ts';
import { Breaker } from './breaker.ts';
import type { FailingStores } from './failing-stores.ts';
import type { HaltBook, Halts } from './halts.ts';
import { HaltWatch } from './halt-watch.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import type { Poller } from './poll.ts';
import type { Progress } from './progress.ts';

export interface WorkerParts {
  /** For workers: blocks, and waits for Redis as long as it takes. */
  readonly connection: Redis;
  readonly control: Queue;
  readonly scan: Queue;
  readonly backfills: Pick<Backfills, 'segment' | 'underWay'>;
  readonly copier: CopierParts;
  readonly poller: Poller;
  readonly progress: Pick<Progress, 'pollFailed' | 'pollSucceeded'>;
  readonly backlog: Backlog;
  readonly letters: DeadLetters;
  readonly halts: Pick<HaltBook, 'read'>;
  /** Stores that copies can go to. */
  readonly targets: readonly StoreName[];
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly failing: FailingStores;
  readonly ledger: Pick<Ledger, 'nowMs' | 'read'>;
  readonly log: Log;
  readonly pollMs: number;
  readonly attempts: number;
}

const recordConcurrency = 32;
/** While a store that failed is on trial. */
const trialConcurrency = 2;
/** First copies that one process works on at a time: at most one for each kind is under way. */
const scanConcurrency = 4;
const longWaitMs = 1_000;
const scanQuicklyMs = { lockDuration: 6_000, stalledInterval: 2_000 } as const;
const outagePauseMs = 2_000;
const closeWithinMs = 5_000;
const longestRestMs = 30_000;
const haltedWaitMs = 1_000;

const scanSchema = z.object({ name: z.string() });

/** Options that queues and workers of one prefix share. */
export const queueOptions = { prefix: keyPrefix, streams: { events: { maxLen: 100 } } } as const;

export class SyncWorkers {
  readonly #parts: WorkerParts;
  readonly #stopping = new AbortController();
  readonly #workers: Worker[] = [];
  readonly #halts: HaltWatch;
  readonly #breaker: Breaker;
  #timer: NodeJS.Timeout | undefined;
  /** Workers that take no jobs while nothing may be copied. */
  #resting: readonly Worker[] = [];
  #restUntilMs = 0;
  #pollFailure = '';

  constructor(parts: WorkerParts) {
    this.#parts = parts;
    const { halts: book, targets, log } = parts;
    const onLook = (halts: Halts, allHalted: boolean): void => this.#looked(halts, allHalted);
    this.#halts = new HaltWatch({ book, targets, log, onLook, stopping: this.#stopping.signal });
    const { failing: stores, readers } = parts;
    this.#breaker = new Breaker({ stores, readers, log, onChange: () => this.#halts.look() });
  }

  async start(): Promise<void> {
    const { connection, pollMs, log } = this.#parts;
    await this.#halts.start();
    // A worker that was killed in the middle of a job only delays it; the job is never given up for that.
    const options = {
      connection,
      prefix: keyPrefix,
      lockDuration: 15_000,
      stalledInterval: 5_000,
      maxStalledCount: 1_000,
    };
    const records = new Worker(recordQueueName, (job, token) => this.#process(job, token), {
      ...options,
      concurrency: recordConcurrency,
    });
    const control = new Worker(controlQueueName, () => this.#poll(), options);
    // Two hands on one segment do no harm: only the one that took it last may write. So a dead one is not waited for.
    const scan = new Worker(scanQueueName, (job, token) => this.#scan(job, token), {
      ...{ ...options, ...scanQuicklyMs },
      concurrency: scanConcurrency,
    });
    this.#resting = [records, scan];
    for (const worker of [records, control, scan]) {
      worker.on('error', (error) => log('warn', 'sync.worker-error', { detail: error.message }));
      this.#workers.push(worker);
    }
    await Promise.all(this.#workers.map((worker) => worker.waitUntilReady()));
    // From a timer of this process, not a scheduler in Redis: it survives that Redis loses everything.
    this.#timer = setInterval(() => void this.askForPoll(), pollMs);
    await this.askForPoll();
  }

  /** Ends within a few seconds; jobs under way are cut off and come again. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#halts.stop();
    this.#stopping.abort(new Error('the sync is stopping'));
    await Promise.all(
      this.#workers.map(async (worker) => {
        const deadline = new AbortController();
        const late = pause(closeWithinMs, deadline.signal).catch(() => undefined);
        await Promise.race([worker.pause().catch(() => undefined), late]);
        deadline.abort();
        // The first call decides: a forced close after one that waits does nothing (BullMQ 6.7).
        await worker.close(true);
      }),
    );
  }

  /** Of this process only: who is told by a queue to rest would have to be told to wake, too, by somebody who lives. */
  #looked(halts: Halts, rest: boolean): void {
    this.#breaker.tryAgain(halts, this.#stopping.signal).catch((error: unknown) => {
      this.#parts.log('warn', 'sync.not-tried-again', { detail: sentenceOf(error) });
    });
    const [records] = this.#resting;
    const onTrial = halts.failing.some(({ phase }) => phase === 'trial');
    if (records) records.concurrency = onTrial ? trialConcurrency : recordConcurrency;
    for (const worker of this.#resting) {
      if (rest && !worker.isPaused()) void worker.pause(true);
      else if (!rest && worker.isPaused()) void worker.resume();
    }
  }

  async #mayNotCopy(partition: string): Promise<boolean> {
    if (!this.#halts.anyHalted) return false;
    if (this.#halts.allHalted) return true;
    const { ownership } = await this.#parts.ledger.read(partition);
    return this.#halts.isHalted(otherStore(ownership.owner));
  }

  /** At most one poll waits or runs. Never rejects. */
  readonly askForPoll = async (): Promise<void> => {
    try {
      // At most one poll waits or runs, whichever process asked for it.
      await this.#parts.control.add(
        'poll',
        {},
        { deduplication: { id: 'poll' }, removeOnComplete: true, removeOnFail: 10 },
      );
    } catch (error) {
      this.#parts.log('warn', 'sync.poll-not-queued', { detail: sentenceOf(error) });
    }
  };

  async #poll(): Promise<void> {
    const { poller, log } = this.#parts;
    if (this.#halts.allHalted || performance.now() < this.#restUntilMs) return;
    const { signal } = this.#halts;
    const startedMs = performance.now();
    try {
      await poller.poll(signal, (to) => !this.#halts.isHalted(to));
      await this.#parts.progress.pollSucceeded();
      await this.#breaker.succeeded(this.#halts.now, 'poll');
      await this.#askForSegments();
      if (this.#pollFailure !== '') log('info', 'sync.poll-recovered', {});
      this.#pollFailure = '';
    } catch (error) {
      if (signal.aborted) return;
      await this.#notePollFailure(error);
      if (error instanceof StoreFailure && (await this.#breaker.doubt(error, signal))) return;
      if (sentenceOf(error) !== this.#pollFailure) {
        this.#pollFailure = sentenceOf(error);
        log('warn', 'sync.poll-failed', { detail: this.#pollFailure });
      }
    } finally {
      // A pass over a large store must leave it at least as much rest as it took.
      const endedMs = performance.now();
      this.#restUntilMs = endedMs + Math.min(longestRestMs, endedMs - startedMs);
    }
  }

  /** For whoever asks how the copies are; without Redis nobody can ask. */
  async #notePollFailure(error: unknown): Promise<void> {
    const { ledger, progress } = this.#parts;
    try {
      await progress.pollFailed(await ledger.nowMs(), sentenceOf(error));
    } catch {
      // The log says what is wrong with Redis.
    }
  }

  /** Also for those whose job was lost. */
  async #askForSegments(): Promise<void> {
    const { backfills, scan } = this.#parts;
    for (const name of await backfills.underWay()) {
      await scan.add(
        'segment',
        { name },
        { deduplication: { id: name.replaceAll(':', ' ') }, removeOnComplete: true, removeOnFail: 10 },
      );
    }
  }

  async #scan(job: Job, token: string | undefined): Promise<void> {
    const { name } = scanSchema.parse(job.data);
    // One segment after the other under one job: a job that comes again at once can lose its lock in BullMQ (6.7),
    // whose slots stop renewing by the job's id.
    for (;;) {
      const waitMs = await this.#segment(name);
      if (waitMs === undefined) break;
      if (waitMs >= longWaitMs || this.#stopping.signal.aborted) await later(job, token, waitMs);
      else await pause(waitMs, this.#stopping.signal).catch(() => undefined);
    }
    await this.askForPoll();
  }

  /** How long to wait before the next segment, ms; undefined where there is none. */
  async #segment(name: string): Promise<number | undefined> {
    const { backfills, log } = this.#parts;
    if (this.#halts.isHalted(targetOf(name))) return haltedWaitMs;
    const { signal } = this.#halts;
    try {
      const outcome = await backfills.segment(name, signal);
      return outcome.segment === 'ended' ? undefined : outcome.waitMs;
    } catch (error) {
      if (signal.aborted) return longWaitMs;
      if (error instanceof StoreFailure && error.kind === 'rate-limited') {
        return Math.max(50, error.retryAfterMs ?? 1_000);
      }
      if (error instanceof StoreFailure && (await this.#breaker.doubt(error, signal))) return haltedWaitMs;
      log('warn', 'sync.backfill-interrupted', { backfill: name, detail: sentenceOf(error) });
      return outagePauseMs;
    }
  }

  async #process(job: Job, token: string | undefined): Promise<void> {
    const { backlog, copier, ledger, log } = this.#parts;
    const parsed = jobSchema.safeParse(job.data);
    if (!parsed.success) {
      log('error', 'sync.bad-job', { job: job.id, detail: parsed.error.message });
      return;
    }
    const { data } = parsed;
    if (await this.#mayNotCopy(data.partition)) await later(job, token, haltedWaitMs);
    const { signal } = this.#halts;
    const startedMs = await ledger.nowMs();
    let laterMs: number | undefined;
    try {
      const outcome = await lookAt(copier, data, signal);
      if (!outcome.done) laterMs = outcome.laterMs;
      else if (outcome.failed !== true) await this.#breaker.succeeded(this.#halts.now, 'job');
    } catch (error) {
      // Cut off, by the end of the process or by a halt: that is no fault of the record.
      laterMs = signal.aborted ? 0 : await this.#waitAfter(error, job, data, startedMs, signal);
    }
    if (laterMs !== undefined) await later(job, token, laterMs);
    await backlog.settle(data, startedMs);
  }

  /**
   * How long to wait where the failure is no fault of the record, ms, without using up an attempt. Else
   * throws, so that the queue counts the attempt; the last one leaves a dead letter.
   */
  async #waitAfter(
    error: unknown,
    job: Job,
    data: CopyJob,
    startedMs: number,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    if (!(error instanceof StoreFailure)) return this.#afterFault(error, job, data, startedMs);
    if (error.kind === 'rate-limited') return Math.max(50, error.retryAfterMs ?? 1_000);
    if (await this.#breaker.failed(letterOf(data), error, this.#halts.now)) return haltedWaitMs;
    if (job.attemptsMade + 1 < this.#parts.attempts) throw error;
    // When a store does not answer its cheapest read either, no record is to blame.
    if (error.kind === 'unavailable' && (await this.#breaker.doubt(error, signal))) return haltedWaitMs;
    await this.#bury(data, error, startedMs);
    throw error;
  }

  /** No store has failed: it is Redis, which comes back, or a fault of ours that this record brings to light each time. */
  async #afterFault(error: unknown, job: Job, data: CopyJob, startedMs: number): Promise<never> {
    if (job.attemptsMade + 1 < this.#parts.attempts) throw error;
    const { partition, kind, id } = data;
    if (isOurFault(error)) await this.#bury(data, error, startedMs);
    else this.#parts.log('error', 'sync.not-copied', { partition, kind, id, detail: sentenceOf(error) });
    throw error;
  }

  async #bury(data: CopyJob, error: Error, startedMs: number): Promise<void> {
    const { partition, kind, id } = data;
    const key: RecordKey = { partition, kind, id };
    await this.#parts.letters.add(key, error.message, error instanceof StoreFailure ? error.said : undefined);
    await this.#parts.backlog.settle(key, startedMs);
    this.#parts.log('error', 'sync.dead-letter', { partition, kind, id, reason: error.message });
  }
}

/** Puts the job back, to come again without an attempt counted. Always throws. */
async function later(job: Job, token: string | undefined, waitMs: number): Promise<never> {
  await job.moveToDelayed(Date.now() + waitMs, token);
  throw new DelayedError();
}
