/**
 * Writes that their client named by an `Idempotency-Key`: sent at most once for each key, also when the
 * client repeats them, also over a handoff. A keyed write takes its key after its admission and before
 * anything is sent; how it ended is stored before the client learns of it, so that a repetition finds it.
 *
 * Redis may delay a keyed write, within bounds, but never lose its answer: what could not be stored in time
 * is stored in the background, and a record whose ending got lost counts as in doubt.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/schema.ts';
import type { Failure } from '../core/failure.ts';
import type {
  FirstWrite,
  IdempotencyKeys,
  KeptAnswer,
  KeyedAttempt,
  KeyEnding,
  KeyVerdict,
} from '../core/idempotency.ts';
import { type PartitionEpoch, touchedBy, type WriteTicket } from '../core/ticket.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause, within } from '../pause.ts';
import type { Passage } from './admit.ts';
import { ByteBudget } from './byte-budget.ts';
import type { MatchedRequest } from './classify.ts';
import { AnswerCopy } from './idempotency-answer.ts';
import {
  type BodyBeginning,
  credentialOf,
  fingerprintBytesMax,
  fingerprintOf,
  keyOf,
} from './idempotency-key.ts';
import { invalidKey, refusalOf, unavailable } from './idempotency-trouble.ts';
import type { Identity } from './identify.ts';
import { bodyKindOf, readBeginning } from './upload.ts';

/** The write's ticket is in flight meanwhile, and a drain waits for it: well under flip.drainMs. */
const claimWaitMs = 1_000;
/** How long an answer waits for being stored. */
const endWaitMs = 500;
const endAgainMs = { first: 100, longest: 5_000 };
const endForMs = 60_000;
/** Endings that may go on being stored in the background; their bytes are in the budget. */
const lateEndingsMax = 2_000;

export interface KeyedWritesParts {
  readonly keys: IdempotencyKeys;
  readonly stores: Config['stores'];
  readonly log: Log;
  /** Of bodies that wait for their key and answers that wait for being stored, all together. */
  readonly bytesMax: number;
}

/** All keyed writes of one proxy. */
export class KeyedWrites {
  readonly #parts: KeyedWritesParts;
  readonly #budget: ByteBudget;
  readonly #settling = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(parts: KeyedWritesParts) {
    this.#parts = parts;
    this.#budget = new ByteBudget(parts.bytesMax);
  }

  /** Undefined where the key, if there is one, is only passed on: no write of a known user in a partition. */
  of(
    request: IncomingMessage,
    matched: MatchedRequest,
    { ticket }: Passage,
    identity: Identity | undefined,
  ): KeyedWrite | undefined {
    if (ticket === undefined || identity === undefined) return undefined;
    const found = keyOf(request);
    if (found.found === 'none') return undefined;
    const { owner } = ticket;
    const { partition, epoch } = scopeOf(ticket);
    const { writeTimeoutMs, settleMs, guard } = this.#parts.stores[owner];
    const named = {
      ...{ partition, owner, epoch, method: matched.method, attempt: randomUUID() },
      credential: credentialOf(identity),
      key: found.found === 'key' ? found.key : '',
      doubtAfterMs: writeTimeoutMs + settleMs,
    };
    return new KeyedWrite(request, matched, named, {
      budget: this.#budget,
      answer: new AnswerCopy(this.#budget, guard),
      refusal: found.found === 'invalid' ? invalidKey(found.why) : undefined,
      claim: async (attempt) => this.#claim(attempt),
      settle: async (steps) => this.#settle(steps),
      end: async (attempt, ending) => this.#end(attempt, ending),
    });
  }

  /** Waits, within the bound, for endings that are being stored; what is later than that is given up. */
  async close(): Promise<void> {
    await within(Promise.all(this.#settling), endWaitMs);
    this.#closing.abort();
    await within(Promise.all(this.#settling), endWaitMs);
  }

  /** Undefined: nobody knows whether the key was taken. Never rejects. */
  async #claim(attempt: KeyedAttempt): Promise<KeyVerdict | undefined> {
    try {
      return await within(this.#parts.keys.claim(attempt), claimWaitMs);
    } catch {
      return undefined;
    }
  }

  /** Resolves when the steps are done, or after the bound; then they go on. Never rejects. */
  async #settle(steps: () => Promise<void>): Promise<void> {
    const settling = steps()
      .catch((error: unknown) => this.#parts.log('error', 'proxy.bug', { error: String(error) }))
      .then(() => void this.#settling.delete(settling));
    this.#settling.add(settling);
    await within(settling, endWaitMs);
  }

  /** Repeating it is safe: an ending takes effect once. */
  async #end(attempt: KeyedAttempt, ending: KeyEnding): Promise<void> {
    const untilMs = performance.now() + endForMs;
    const { signal } = this.#closing;
    for (let waitMs = endAgainMs.first; ; waitMs = Math.min(2 * waitMs, endAgainMs.longest)) {
      try {
        await this.#parts.keys.end(attempt, ending);
        return;
      } catch (error) {
        if (performance.now() > untilMs || this.#settling.size > lateEndingsMax || signal.aborted) {
          const { partition, owner: store } = attempt;
          const fields = { partition, store, ending: ending.ending, error: sentenceOf(error) };
          this.#parts.log('warn', 'idempotency.ending-lost', fields);
          return;
        }
      }
      await pause(waitMs, signal).catch(() => undefined);
    }
  }
}

/** Of several partitions the one whose name comes first, in whatever order the write named them. */
function scopeOf(ticket: WriteTicket): PartitionEpoch {
  return touchedBy(ticket).reduce((first, one) => (one.partition < first.partition ? one : first));
}

export type KeyDecision =
  | { readonly decision: 'send'; readonly body: BodyBeginning }
  | { readonly decision: 'replay'; readonly first: FirstWrite; readonly answer: KeptAnswer }
  | { readonly decision: 'refuse'; readonly failure: Failure };

interface Shared {
  readonly budget: ByteBudget;
  readonly answer: AnswerCopy;
  readonly refusal: Failure | undefined;
  readonly claim: (attempt: KeyedAttempt) => Promise<KeyVerdict | undefined>;
  readonly settle: (steps: () => Promise<void>) => Promise<void>;
  readonly end: (attempt: KeyedAttempt, ending: KeyEnding) => Promise<void>;
}

/** One admitted write with a key. */
export class KeyedWrite {
  /** Sees the store's answer on its way. */
  readonly answer: AnswerCopy;
  /** Why the key cannot be used, known before anything is read. */
  readonly refusal: Failure | undefined;
  readonly #request: IncomingMessage;
  readonly #matched: MatchedRequest;
  readonly #named: Omit<KeyedAttempt, 'fingerprint'>;
  readonly #shared: Shared;
  #stopReading = (): void => {};
  #bodyBytes = 0;
  #claimed: { readonly attempt: KeyedAttempt; readonly verdict: Promise<KeyVerdict | undefined> } | undefined;

  constructor(
    request: IncomingMessage,
    matched: MatchedRequest,
    named: Omit<KeyedAttempt, 'fingerprint'>,
    shared: Shared,
  ) {
    this.#request = request;
    this.#matched = matched;
    this.#named = named;
    this.#shared = shared;
    this.answer = shared.answer;
    this.refusal = shared.refusal;
  }

  /** What to say where the write's time passes before it is sent; undefined while its body is awaited. */
  get waitsFor(): Failure | undefined {
    return this.#claimed === undefined ? undefined : refusalOf({ verdict: 'unavailable' });
  }

  /** Reads the body, or its beginning, and takes the key. Calls back once, or not at all after `end`. */
  begin(decided: (decision: KeyDecision) => void, bug: (error: unknown) => void): void {
    const claim = (body: BodyBeginning): void => {
      this.#claim(body).then(decided).catch(bug);
    };
    if (bodyKindOf(this.#request) === 'none') {
      claim({ bytes: Buffer.alloc(0), whole: true });
      return;
    }
    this.#stopReading = readBeginning(this.#request, fingerprintBytesMax, this.#take, (body) => {
      if (body !== undefined) claim(body);
      else {
        const failure = unavailable('Too many bytes of writes with a key wait on this proxy');
        decided({ decision: 'refuse', failure });
      }
    });
  }

  /**
   * The write is over; resolves when the key says so, or after a bounded wait. `answered`: completely, by the
   * store.
   */
  async end(how: 'answered' | 'in-doubt' | 'not-sent'): Promise<void> {
    this.#stopReading();
    this.#shared.budget.give(this.#bodyBytes);
    this.#bodyBytes = 0;
    const claimed = this.#claimed;
    if (claimed === undefined) {
      this.answer.drop();
      return;
    }
    await this.#shared.settle(async () => {
      const verdict = await claimed.verdict;
      // Where nobody knows whether it took the key, it must not keep it.
      if (verdict === undefined || verdict.verdict === 'claimed') {
        await this.#shared.end(claimed.attempt, this.#endingOf(how));
      }
      this.answer.drop();
    });
  }

  async #claim(body: BodyBeginning): Promise<KeyDecision> {
    const { headers } = this.#request;
    const { method, target } = this.#matched;
    const fingerprint = fingerprintOf({
      ...{ method, target, body },
      contentType: headers['content-type'],
      declaredLength: headers['content-length'],
    });
    const attempt = { ...this.#named, fingerprint };
    this.#claimed = { attempt, verdict: this.#shared.claim(attempt) };
    const verdict = await this.#claimed.verdict;
    if (verdict === undefined) return { decision: 'refuse', failure: refusalOf({ verdict: 'unavailable' }) };
    switch (verdict.verdict) {
      case 'claimed':
        return { decision: 'send', body };
      case 'answered':
        return { decision: 'replay', first: verdict.first, answer: verdict.answer };
      case 'pending':
      case 'in-doubt':
      case 'not-kept':
      case 'reused':
      case 'too-many-keys':
      case 'unavailable':
        return { decision: 'refuse', failure: refusalOf(verdict) };
    }
  }

  #endingOf(how: 'answered' | 'in-doubt' | 'not-sent'): KeyEnding {
    switch (how) {
      case 'answered':
        return this.answer.ending();
      case 'in-doubt':
        return { ending: 'in-doubt' };
      case 'not-sent':
        return { ending: 'not-done' };
    }
  }

  readonly #take = (bytes: number): boolean => {
    if (!this.#shared.budget.take(bytes)) return false;
    this.#bodyBytes += bytes;
    return true;
  };
}
