/**
 * One turn of an erasure: the partition is fenced, every member has ended what it had under way, both stores are
 * emptied, onewriter forgets what it keeps, and the partition is reopened where it was. Whatever fails on the way, it
 * is reopened, and another turn begins from the start: what is deleted already needs no second time.
 */
import { randomUUID } from 'node:crypto';
import type { DoubtfulWrite } from '../core/doubt.ts';
import { erasureAttempt, type ErasureLook, isBeingErased, type PartitionEraser } from '../core/erasure.ts';
import { otherStore, type StoreName, storeNames } from '../core/ownership.ts';
import {
  type GuardCalls,
  type Ledger,
  type LedgerFeed,
  type LedgerRecord,
  StoreFailure,
} from '../core/ports.ts';
import type { ErasedRecord } from '../core/erasure.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { awaitDrained } from './drain.ts';
import type { MemberWatch } from './members.ts';

export interface EraseTurnParts {
  readonly ledger: Ledger;
  readonly feed: LedgerFeed;
  readonly members: Pick<MemberWatch, 'health' | 'listedSince'>;
  readonly guards: Pick<GuardCalls, 'advance' | 'seal'>;
  readonly guarded: Readonly<Record<StoreName, boolean>>;
  readonly doubts: { unsettled(): Promise<readonly DoubtfulWrite[]> };
  readonly eraser: PartitionEraser;
  readonly settings: {
    /** How long members may take to end what they have under way, ms. */
    readonly drainMs: number;
    /** How long a fence stands at most beyond what reading the partition four times takes, ms. */
    readonly fenceMs: number;
    readonly feedDelayMs: number;
  };
  readonly log: Log;
}

export interface EraseTurn {
  readonly erasure: string;
  readonly partition: string;
  readonly by: string;
  /** Of the turn before, whose fence may still stand. */
  readonly lastAttempt: string | undefined;
  /** How long it takes to read the partition in both stores, ms. */
  readonly lookMs: number;
  /** Called before the fence is ordered. False: somebody else goes on with the erasure. */
  readonly begin: (attempt: string) => Promise<boolean>;
  readonly note: (records: readonly ErasedRecord[]) => Promise<void>;
  /** Both stores are empty, and nobody can write: what onewriter keeps goes now. */
  readonly forget: () => Promise<void>;
}

export type TurnEnd =
  | { readonly end: 'erased'; readonly look: ErasureLook }
  | { readonly end: 'taken-over' }
  /** `afterMs`: how long to wait before the next turn; undefined where nobody can say. */
  | { readonly end: 'again'; readonly code: string; readonly detail: string; readonly afterMs?: number };

const fenceMsMax = 3_600_000;
const looksPerTurn = 4;
/** Part of a fence after which nothing more is begun under it. */
const workWithin = 0.9;
const reopenTries = 3;
const reopenAgainMs = 100;

class GivenUp extends Error {
  readonly code: string;
  readonly afterMs: number | undefined;
  constructor(code: string, detail: string, afterMs?: number) {
    super(detail);
    this.code = code;
    this.afterMs = afterMs;
  }
}

export async function eraseUnderFence(
  parts: EraseTurnParts,
  turn: EraseTurn,
  stop: AbortSignal,
): Promise<TurnEnd> {
  try {
    const record = await reopenOld(parts, turn);
    const { phase } = record.ownership;
    if (phase !== 'open') throw new GivenUp('partition-busy', `the partition is ${phase}: it is being moved`);
    // Looked at now: nobody is to be paused for a member that will not acknowledge.
    await parts.members.listedSince(performance.now());
    const { stale } = parts.members.health();
    if (stale.length > 0) {
      const silent = stale.map(({ id, pid, host }) => `${id} (pid ${pid} on ${host})`).join(', ');
      throw new GivenUp(
        'member-silent',
        `no heartbeat from ${silent}, so nobody can tell whether its writes have ended`,
      );
    }
    return await new Fence(parts, turn).run(record, stop);
  } catch (error) {
    if (stop.aborted) throw stop.reason;
    return againAfter(error);
  }
}

/** A process that died under the fence of this erasure has left it standing. */
async function reopenOld({ ledger }: EraseTurnParts, turn: EraseTurn): Promise<LedgerRecord> {
  const { partition, lastAttempt } = turn;
  const record = await ledger.read(partition);
  const { ownership } = record;
  if (ownership.phase !== 'fenced' || lastAttempt === undefined || ownership.attempt !== lastAttempt)
    return record;
  await ledger.order({ partition, order: { kind: 'abort', attempt: lastAttempt }, ...saying(turn) });
  return ledger.read(partition);
}

function againAfter(error: unknown): TurnEnd {
  const detail = sentenceOf(error);
  if (error instanceof GivenUp) {
    return {
      end: 'again',
      code: error.code,
      detail,
      ...(error.afterMs === undefined ? {} : { afterMs: error.afterMs }),
    };
  }
  if (error instanceof StoreFailure) {
    const { retryAfterMs } = error;
    const code = `store-${error.kind}`;
    return { end: 'again', code, detail, ...(retryAfterMs === undefined ? {} : { afterMs: retryAfterMs }) };
  }
  return { end: 'again', code: 'not-carried-out', detail };
}

class Fence {
  readonly #parts: EraseTurnParts;
  readonly #turn: EraseTurn;
  readonly #attempt = erasureAttempt(randomUUID());

  constructor(parts: EraseTurnParts, turn: EraseTurn) {
    this.#parts = parts;
    this.#turn = turn;
  }

  async run({ ownership }: LedgerRecord, stop: AbortSignal): Promise<TurnEnd> {
    const { ledger, feed, members: watch, settings } = this.#parts;
    const { partition, lookMs, begin } = this.#turn;
    if (!(await begin(this.#attempt))) return { end: 'taken-over' };
    const fenceMs = Math.min(fenceMsMax, Math.round(settings.fenceMs + looksPerTurn * lookMs));
    const drained = awaitDrained(feed, watch, this.#attempt);
    try {
      const signal = AbortSignal.any([stop, AbortSignal.timeout(Math.round(fenceMs * workWithin))]);
      const fenced = await this.#fence(otherStore(ownership.owner), fenceMs);
      const listed = (await ledger.members()).map(({ id }) => id);
      const failure = await drained.all(listed, [partition], settings.drainMs);
      if (failure?.because === 'write-in-doubt')
        await this.#settled(failure.settlesInMs ?? 0, failure.detail, signal);
      if (failure !== undefined) throw new GivenUp(failure.because, failure.detail);
      await this.#untilSettled(signal);
      const look = await this.#empty(fenced, signal);
      await this.#turn.forget();
      return { end: 'erased', look };
    } finally {
      drained.stop();
      await this.#reopen();
    }
  }

  async #fence(to: StoreName, fenceMs: number): Promise<LedgerRecord> {
    const { ledger } = this.#parts;
    const { partition } = this.#turn;
    const order = { kind: 'fence', to, attempt: this.#attempt, fenceMs } as const;
    const result = await ledger.order({ partition, order, ...saying(this.#turn) });
    if (result.result === 'unknown') throw new GivenUp('ledger-unreachable', result.detail);
    if (result.result === 'refused') throw new GivenUp(result.refusal.refused, result.refusal.detail);
    // A guard must not be told of an epoch that a failover can still take back: it would refuse its own users.
    if (!result.durable && !(await ledger.confirmDurable())) {
      throw new GivenUp(
        'fence-not-durable',
        'the fence is not confirmed by as many replicas of Redis as must have it',
      );
    }
    return result.record;
  }

  /** Under the fence, so that no new write in doubt begins: whoever asks again is drained. */
  async #settled(settlesInMs: number, detail: string, signal: AbortSignal): Promise<never> {
    await pause(settlesInMs, signal).catch(() => undefined);
    throw new GivenUp('write-in-doubt', detail, 0);
  }

  /** Members that have left or died can have left writes in doubt, too. */
  async #untilSettled(signal: AbortSignal): Promise<void> {
    const { doubts, ledger, settings } = this.#parts;
    const ours = (await doubts.unsettled()).filter(
      ({ partition, resolved }) => partition === this.#turn.partition && resolved === undefined,
    );
    const settlesAtMs = Math.max(0, ...ours.map((write) => write.settlesAtMs));
    const waitMs = ours.length === 0 ? 0 : Math.max(0, settlesAtMs - (await ledger.nowMs()));
    // What was finished last must be in the lists.
    await pause(Math.max(waitMs, settings.feedDelayMs), signal);
  }

  /**
   * The app's guard takes deletes as copies of the fence's epoch. Where the app owns the partition, the first of them
   * makes legacy the owner in its row, so users' writes are refused there until the seal, which is ordered only
   * once both stores are empty: it says that no user has written since, and that must be true of everything in the app.
   */
  async #empty(fenced: LedgerRecord, signal: AbortSignal): Promise<ErasureLook> {
    const { guards, guarded, eraser } = this.#parts;
    const { partition, note } = this.#turn;
    const { owner, epoch } = fenced.ownership;
    const stores = storeNames.filter((store) => guarded[store]);
    for (const store of stores) await guards.advance(store, { partition, epoch: epoch - 1 }, signal);
    const look = await eraser.erase({ partition, attempt: this.#attempt, note }, signal);
    for (const store of stores) {
      // A delete that comes late must meet a closed epoch.
      if (store === 'app' && owner === 'app') await guards.seal(store, { partition, epoch }, signal);
      else await guards.advance(store, { partition, epoch }, signal);
    }
    return look;
  }

  /** Where it cannot be said, any member reopens the partition after the deadline (I7). */
  async #reopen(): Promise<void> {
    const { ledger, log } = this.#parts;
    const { partition, erasure } = this.#turn;
    for (let tries = 1; tries <= reopenTries; tries += 1) {
      try {
        const { ownership } = await ledger.read(partition);
        if (!isBeingErased(ownership) || ownership.phase !== 'fenced' || ownership.attempt !== this.#attempt)
          return;
        const order = { kind: 'abort', attempt: this.#attempt } as const;
        await ledger.order({ partition, order, ...saying(this.#turn) });
      } catch (error) {
        log('warn', 'erasure.reopen', { erasure, error: sentenceOf(error) });
        await pause(reopenAgainMs);
      }
    }
  }
}

/** The operator's own words stay out of the ledger's stream: they may tell who was erased. */
function saying({ erasure, by }: EraseTurn): { readonly by: string; readonly reason: string } {
  return { by, reason: `erasure ${erasure}` };
}
