/**
 * What has been rung and not been looked at yet. The queue only wakes the workers; the marks here say what
 * is owed, so that a lost job is rung again and the lag can be told from the oldest mark.
 */
import type { JobsOptions, Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { z } from 'zod';
import type { RecordKey } from '../core/ports.ts';
import { letterOf } from './dead-letters.ts';
import { syncKeys } from './keys.ts';

/**
 * One job: look at this record, or at the whole partition. It says neither what changed nor which way to
 * copy; the worker asks the ledger and reads the stores. `epoch` is the newest that the ringer knew.
 */
export const jobSchema = z.object({
  partition: z.string().min(1),
  /** Both empty: the whole partition. */
  kind: z.string(),
  id: z.string(),
  epoch: z.int().min(0),
});
export type CopyJob = z.output<typeof jobSchema>;

export const recordQueueName = 'record';
export const controlQueueName = 'control';
export const scanQueueName = 'scan';

/** More records of one partition than these are rung as the partition: one pass instead of many jobs. */
const recordsPerPartitionMax = 5;
/** With more marks than these nothing new is discovered until the workers have caught up. */
const marksMax = 20_000;
/** With more than these, writes of users are not rung for either: a mark and its job take about 1 KB of Redis. */
const rungMax = 40_000;

// KEYS: 1 marks, 2 since when each is owed. ARGV: 1 ms or '', then members. Sets each mark to Redis's time; what is owed
// already stays owed since then, however often it is rung for.
const markScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = math.min(now, tonumber(ARGV[1]) or now)
for at = 2, #ARGV do
  redis.call('ZADD', KEYS[1], now, ARGV[at])
  redis.call('ZADD', KEYS[2], 'LT', since, ARGV[at])
end
return 0`;

// KEYS: as above. ARGV: 1 member, 2 ms, 3 ms. Removes the mark unless it was renewed after the first time; then it is owed
// since the second: of what was changed later, nobody knows whether it was copied.
const settleScript = `
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if at and tonumber(at) > tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])`;

const markKeys = [syncKeys.dirty, syncKeys.owedSince] as const;

export interface BacklogSettings {
  /** Tries before a record becomes a dead letter. */
  readonly attempts: number;
  /** The newest epoch of a partition that this process knows. */
  readonly epochOf: (partition: string) => number;
  /** How late lists show a change, ms. */
  readonly listDelayMs?: number;
  readonly rungMax?: number;
}

export class Backlog {
  readonly #redis: Redis;
  readonly #queue: Queue;
  readonly #settings: BacklogSettings;

  constructor(redis: Redis, queue: Queue, settings: BacklogSettings) {
    this.#redis = redis;
    this.#queue = queue;
    this.#settings = settings;
  }

  /**
   * Resolves when every record is marked and in the queue. `sinceMs`: since when their copies may be old, Redis's
   * clock; left out: since now; 0: nobody can tell.
   */
  ring(records: readonly RecordKey[], sinceMs?: number): Promise<void> {
    return this.ringEach(grouped(records), sinceMs);
  }

  /**
   * As ring, for what users have written. Throws where too much waits already: polls rest meanwhile, so the first one
   * afterwards shows what was not rung for, and until then the lag says how old it can be.
   */
  async ringWritten(records: readonly RecordKey[]): Promise<void> {
    const most = this.#settings.rungMax ?? rungMax;
    if ((await this.count()) >= most)
      throw new Error(`${most} records wait already; the polls will find these`);
    await this.ring(records);
  }

  /**
   * As ring, but never takes a partition for its records: for those that a whole pass could not copy. `since`: or as
   * long as another one that is owed, because they are what is left of it.
   */
  async ringEach(keys: readonly RecordKey[], since?: number | RecordKey): Promise<void> {
    if (keys.length === 0) return;
    const known =
      typeof since === 'object' ? await this.#redis.zscore(syncKeys.owedSince, memberOf(since)) : since;
    await this.#redis.eval(markScript, 2, ...markKeys, known ?? '', ...keys.map(memberOf));
    await this.#queue.addBulk(keys.map((key) => this.#jobFor(key)));
  }

  /** Rings again what has been marked for longer than `olderThanMs`: its job may have been lost. */
  async ringForgotten(nowMs: number, olderThanMs: number): Promise<void> {
    const members = await this.#redis.zrange(
      syncKeys.dirty,
      '-inf',
      nowMs - olderThanMs,
      'BYSCORE',
      'LIMIT',
      0,
      200,
    );
    if (members.length === 0) return;
    // Not marked anew: the mark's age is the age of what is owed.
    await this.#queue.addBulk(members.map((member) => this.#jobFor(keyOf(member))));
  }

  /** The record was looked at by somebody who began at `startedMs` (Redis's clock). */
  async settle(record: RecordKey, startedMs: number): Promise<void> {
    const { listDelayMs = 0 } = this.#settings;
    // A whole partition is looked at by its lists.
    const copiedMs = record.kind === '' ? startedMs - listDelayMs : startedMs;
    await this.#redis.eval(settleScript, 2, ...markKeys, memberOf(record), startedMs, copiedMs);
  }

  /** Marks and jobs of the partition; with `remove` they are gone afterwards. Jobs under way end by themselves. */
  async owedOf(
    partition: string,
    remove: boolean,
  ): Promise<{ readonly marks: number; readonly jobs: number }> {
    const members: string[] = [];
    let cursor = '0';
    do {
      const [next, found] = await this.#redis.zscan(syncKeys.owedSince, cursor, 'COUNT', 1_000);
      cursor = next;
      members.push(...found.filter((text, at) => at % 2 === 0 && keyOf(text).partition === partition));
    } while (cursor !== '0');
    const all = await this.#queue.getJobs(['waiting', 'delayed', 'failed', 'active']);
    const jobs = all.filter((job) => jobSchema.safeParse(job.data).data?.partition === partition);
    if (remove) {
      if (members.length > 0) for (const key of markKeys) await this.#redis.zrem(key, ...members);
      // One that a worker holds is refused here.
      for (const job of jobs) await job.remove().catch(() => undefined);
      // Nobody reads them, and they hold why jobs failed: a store's own words.
      await this.#queue.trimEvents(0);
    }
    return { marks: members.length, jobs: jobs.length };
  }

  /** Jobs that have used up their attempts; answers how many there were. What failed under way is forgotten with them. */
  async forgetFailed(concerns: (key: RecordKey) => boolean): Promise<number> {
    const ours = (await this.#queue.getJobs(['failed'])).filter((job) => {
      const { data } = jobSchema.safeParse(job.data);
      return data !== undefined && concerns(data);
    });
    for (const job of ours) await job.remove().catch(() => undefined);
    await this.#queue.trimEvents(0);
    return ours.length;
  }

  async isFull(): Promise<boolean> {
    return (await this.#redis.zcard(syncKeys.dirty)) >= marksMax;
  }

  count(): Promise<number> {
    return this.#redis.zcard(syncKeys.dirty);
  }

  /** Since when the oldest of what is owed is owed, Redis's clock; undefined when nothing is. */
  async oldestMs(): Promise<number | undefined> {
    const [, score] = await this.#redis.zrange(syncKeys.owedSince, 0, 0, 'WITHSCORES');
    return score === undefined ? undefined : Number(score);
  }

  #jobFor(key: RecordKey) {
    const data: CopyJob = { ...key, epoch: this.#settings.epochOf(key.partition) };
    const opts: JobsOptions = {
      // Not a job id: that would drop a ring that comes while the job runs.
      deduplication: { id: letterOf(key), keepLastIfActive: true },
      attempts: this.#settings.attempts,
      backoff: { type: 'exponential', delay: 200 },
      removeOnComplete: true,
      removeOnFail: 100,
      stackTraceLimit: 1,
    };
    return { name: key.kind === '' ? 'partition' : 'record', data, opts };
  }
}

export function wholePartition(partition: string): RecordKey {
  return { partition, kind: '', id: '' };
}

function grouped(records: readonly RecordKey[]): RecordKey[] {
  const byPartition = Map.groupBy(records, ({ partition }) => partition);
  return [...byPartition].flatMap(([partition, keys]) => {
    const unique = new Map(keys.map((key) => [memberOf(key), key]));
    return unique.size > recordsPerPartitionMax ? [wholePartition(partition)] : [...unique.values()];
  });
}

function memberOf({ partition, kind, id }: RecordKey): string {
  return JSON.stringify([partition, kind, id]);
}

const memberSchema = z.tuple([z.string(), z.string(), z.string()]);

function keyOf(member: string): RecordKey {
  const [partition, kind, id] = memberSchema.parse(JSON.parse(member));
  return { partition, kind, id };
}
