/**
 * Runs verifications step by step. What was found is saved after each step, so a process that ends, or is killed,
 * is followed by one that goes on behind the last step saved.
 */
import { randomInt, randomUUID } from 'node:crypto';
import {
  confidenceOf,
  sampleOf,
  type Verification,
  type VerificationDesk,
  type VerificationOrder,
} from '../core/verification.ts';
import { type Log, sentenceOf } from '../log.ts';
import type { StoredVerification, VerificationBook } from './verification-book.ts';
import { type RangeOrder, type Step, type StepPlan, type StepReport, stepsLeft } from './verify-range.ts';

const runningAtOnce = 4;
const examplesKept = 50;
const problemsKept = 100;
const lookEveryMs = 5_000;
const renewEveryMs = 4_000;

export interface VerificationSettings {
  readonly book: VerificationBook;
  readonly plan: (partitions: readonly string[]) => Promise<StepPlan>;
  readonly run: (step: Step, order: RangeOrder, signal: AbortSignal) => Promise<StepReport>;
  readonly log: Log;
}

export class Verifications implements VerificationDesk {
  readonly #settings: VerificationSettings;
  readonly #stopping = new AbortController();
  readonly #runs = new Map<string, { readonly stop: AbortController; readonly end: Promise<void> }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(settings: VerificationSettings) {
    this.#settings = settings;
  }

  /** From now on this process works on what nobody else works on. */
  startWorking(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setInterval(() => void this.#lookForWork(), lookEveryMs);
    void this.#lookForWork();
  }

  async start(order: VerificationOrder): Promise<Verification | 'too-many'> {
    const { book } = this.#settings;
    const running = (await book.all()).filter(({ seen }) => seen.state === 'running');
    if (running.length >= runningAtOnce) return 'too-many';
    const { partitions, sample } = order;
    const seed = sample === undefined ? undefined : (order.seed ?? randomInt(2 ** 32));
    const chosen =
      sample === undefined || seed === undefined ? partitions.toSorted() : sampleOf(partitions, sample, seed);
    const seen: Verification = {
      id: `v-${randomUUID()}`,
      state: 'running',
      cohort: order.cohort,
      by: order.by,
      startedAtMs: Date.now(),
      partitions: chosen.length,
      sampledFrom: partitions.length,
      ...(seed === undefined ? {} : { seed }),
      ...{ compared: 0, notCopied: 0, records: 0, progress: { done: 0, total: 1 } },
      differences: { missing: 0, extra: 0, changed: 0, unconfirmed: 0, examples: [] },
      ...(order.repair === true ? { repair: { rung: 0, repaired: 0 } } : {}),
      problems: [],
    };
    await book.add({ seen, repair: order.repair === true, values: order.values === true }, chosen);
    await this.#lookForWork();
    return seen;
  }

  async get(id: string): Promise<Verification | undefined> {
    return (await this.#settings.book.get(id))?.seen;
  }

  async list(): Promise<readonly Verification[]> {
    return (await this.#settings.book.all()).map(({ seen }) => seen);
  }

  async cancel(id: string): Promise<Verification | undefined> {
    const ended = await this.#settings.book.end(id, ({ seen, ...rest }) =>
      seen.state === 'running'
        ? { ...rest, seen: { ...seen, state: 'cancelled', endedAtMs: Date.now() } }
        : undefined,
    );
    this.#runs.get(id)?.stop.abort(new Error('the verification was cancelled'));
    return ended?.seen;
  }

  /** What runs here is left to other processes; resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopping.abort(new Error('onewriter is stopping'));
    await Promise.all([...this.#runs.values()].map(({ end }) => end));
  }

  async #lookForWork(): Promise<void> {
    const { book, log } = this.#settings;
    try {
      for (const { seen } of await book.all()) {
        const { id, state } = seen;
        if (state !== 'running' || this.#runs.has(id) || this.#stopping.signal.aborted) continue;
        // Before the question, so that two looks at once do not both begin.
        const stop = new AbortController();
        const end = this.#workOn(id, AbortSignal.any([stop.signal, this.#stopping.signal])).finally(() =>
          this.#runs.delete(id),
        );
        this.#runs.set(id, { stop, end });
      }
    } catch (error) {
      log('warn', 'verification.not-looked', { detail: sentenceOf(error) });
    }
  }

  /** Never rejects: what cannot be gone on with here is tried again later, by whoever comes first. */
  async #workOn(id: string, signal: AbortSignal): Promise<void> {
    const { book, log } = this.#settings;
    let renewing: NodeJS.Timeout | undefined;
    try {
      if (!(await book.take(id))) return;
      renewing = setInterval(() => void book.save(id).catch(() => undefined), renewEveryMs);
      await this.#run(id, signal);
    } catch (error) {
      if (!signal.aborted) log('warn', 'verification.interrupted', { id, detail: sentenceOf(error) });
    } finally {
      clearInterval(renewing);
      await book.release(id).catch(() => undefined);
    }
  }

  async #run(id: string, signal: AbortSignal): Promise<void> {
    const { book, log } = this.#settings;
    const found = await book.get(id);
    if (found === undefined || found.seen.state !== 'running') return;
    const partitions = await book.names(id);
    let now = found.steps === undefined ? await this.#planned(found, partitions) : found;
    const { repair, values } = now;
    for (;;) {
      const [step, ...rest] = now.steps ?? [];
      if (step === undefined) break;
      const report = await this.#settings.run(step, { partitions, repair, values }, signal);
      await book.differing(id, report.differing);
      now = withReport(now, report, [...report.next, ...rest]);
      if (!(await book.save(id, now))) return;
    }
    const seen = ended(now, await book.differing(id, []));
    if (!(await book.save(id, { ...now, seen }))) return;
    await book.forgetWork(id);
    const { cohort, compared, records, state } = seen;
    log('info', 'verification-ended', { id, cohort, compared, records, state });
  }

  async #planned(
    { seen, ...rest }: StoredVerification,
    partitions: readonly string[],
  ): Promise<StoredVerification> {
    const { steps, problems, notCopied } = await this.#settings.plan(partitions);
    const progress = { done: 0, total: stepsLeft(steps) };
    const whole = steps.every(({ read }) => read === 'whole');
    return { ...rest, whole, steps, seen: { ...seen, problems, notCopied, progress } };
  }
}

function withReport(
  { seen, ...rest }: StoredVerification,
  report: StepReport,
  steps: readonly Step[],
): StoredVerification {
  const { differences, problems, repair, progress } = seen;
  const done = progress.done + 1;
  return {
    ...rest,
    ...(report.failed ? { failed: true } : {}),
    steps,
    seen: {
      ...seen,
      compared: seen.compared + report.compared,
      records: seen.records + report.records,
      progress: { done, total: done + stepsLeft(steps) },
      differences: {
        missing: differences.missing + report.missing,
        extra: differences.extra + report.extra,
        changed: differences.changed + report.changed,
        unconfirmed: differences.unconfirmed + report.unconfirmed,
        examples: [...differences.examples, ...report.examples].slice(0, examplesKept),
      },
      ...(repair && {
        repair: { rung: repair.rung + report.rung, repaired: repair.repaired + report.repaired },
      }),
      problems: [...problems, ...report.problems].slice(0, problemsKept),
    },
  };
}

function ended({ seen, whole, failed }: StoredVerification, differing: number): Verification {
  const { partitions, notCopied, sampledFrom, problems } = seen;
  const all = whole === true ? partitions - notCopied : seen.compared;
  const compared = failed === true ? 0 : all;
  return {
    ...seen,
    compared,
    state: problems.length === 0 ? 'done' : 'failed',
    endedAtMs: Date.now(),
    ...(partitions < sampledFrom
      ? { confidence: confidenceOf(compared, Math.min(differing, compared)) }
      : {}),
  };
}
