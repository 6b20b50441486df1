/** What one member has under way: the writes of each partition that are in flight, in doubt, or just finished. */
import type { StoreName } from './ownership.ts';
import { inOrder } from './view.ts';

/** How a forwarded write ended: `ended` is any complete answer, `in-doubt` an unknown outcome. */
export type WriteOutcome = 'ended' | 'not-sent' | 'in-doubt';

interface PartitionActivity {
  inFlight: number;
  /** Monotonic times at which in-doubt writes settle. */
  inDoubtUntilMs: readonly number[];
  lastFinishedMs: number;
}

const none: readonly number[] = [];

export class WriteActivity {
  readonly #settleMs: Readonly<Record<StoreName, number>>;
  readonly #startedMs: number;
  #partitions = new Map<string, PartitionActivity>();

  constructor(settleMs: Readonly<Record<StoreName, number>>, startedMs: number) {
    this.#settleMs = settleMs;
    this.#startedMs = startedMs;
  }

  begin(partition: string): void {
    const known = this.#partitions.get(partition);
    if (known !== undefined) known.inFlight += 1;
    else
      this.#partitions.set(partition, { inFlight: 1, inDoubtUntilMs: none, lastFinishedMs: this.#startedMs });
  }

  end(partition: string, owner: StoreName, outcome: WriteOutcome, nowMs: number): void {
    const activity = this.#partitions.get(partition);
    if (activity === undefined || activity.inFlight < 1) throw new Error(`write of ${partition} ended twice`);
    activity.inFlight -= 1;
    switch (outcome) {
      case 'not-sent':
        return;
      case 'ended':
        activity.lastFinishedMs = Math.max(activity.lastFinishedMs, nowMs);
        return;
      case 'in-doubt': {
        const settledMs = nowMs + this.#settleMs[owner];
        activity.inDoubtUntilMs = [...activity.inDoubtUntilMs, settledMs];
        // It may take effect until then, and lists show that later still.
        activity.lastFinishedMs = Math.max(activity.lastFinishedMs, settledMs);
      }
    }
  }

  inFlight(partition: string): number {
    return this.#partitions.get(partition)?.inFlight ?? 0;
  }

  /** When the writes in doubt settle that have not yet, monotonic ms. */
  unsettled(partition: string, nowMs: number): readonly number[] {
    return unsettledOf(this.#partitions.get(partition), nowMs);
  }

  /** For how long no write of the partition has finished, as far as this member knows, ms. */
  lastFinishedAgeMs(partition: string, nowMs: number): number {
    const lastFinishedMs = this.#partitions.get(partition)?.lastFinishedMs ?? this.#startedMs;
    return Math.max(0, nowMs - lastFinishedMs);
  }

  /** What was in doubt has been looked into: nothing of it takes effect any more. */
  resolve(partition: string, nowMs: number): void {
    const activity = this.#partitions.get(partition);
    if (activity === undefined) return;
    activity.inDoubtUntilMs = none;
    activity.lastFinishedMs = Math.min(activity.lastFinishedMs, nowMs);
  }

  /** Over all partitions. */
  totals(nowMs: number): { inFlight: number; inDoubt: number } {
    let inFlight = 0;
    let inDoubt = 0;
    for (const activity of this.#partitions.values()) {
      inFlight += activity.inFlight;
      inDoubt += unsettledOf(activity, nowMs).length;
    }
    return { inFlight, inDoubt };
  }

  busy(): string[] {
    return [...this.#partitions].filter(([, { inFlight }]) => inFlight > 0).map(([partition]) => partition);
  }

  /** Forgets what has been idle for longer than `rememberMs`, so that memory stays bounded. */
  forgetIdle(nowMs: number, rememberMs: number): void {
    for (const [partition, activity] of this.#partitions) {
      const idle = activity.inFlight === 0 && unsettledOf(activity, nowMs).length === 0;
      if (idle && nowMs - activity.lastFinishedMs > rememberMs) this.#partitions.delete(partition);
    }
  }

  fork(): WriteActivity {
    const twin = new WriteActivity(this.#settleMs, this.#startedMs);
    twin.#partitions = new Map([...this.#partitions].map(([name, activity]) => [name, { ...activity }]));
    return twin;
  }

  /** Plain state, with times relative to `nowMs`. */
  describe(nowMs: number): unknown {
    return inOrder(this.#partitions).map(([partition, activity]) => ({
      partition,
      inFlight: activity.inFlight,
      settlesInMs: unsettledOf(activity, nowMs).map((untilMs) => untilMs - nowMs),
      lastFinishedMs: activity.lastFinishedMs - nowMs,
    }));
  }
}

function unsettledOf(activity: PartitionActivity | undefined, nowMs: number): readonly number[] {
  if (activity === undefined || activity.inDoubtUntilMs.length === 0) return none;
  activity.inDoubtUntilMs = activity.inDoubtUntilMs.filter((untilMs) => untilMs > nowMs);
  return activity.inDoubtUntilMs;
}
