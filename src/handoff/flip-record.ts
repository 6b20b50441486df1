/**
 * What a coordinator knows of the flip that it runs, and saves: state, and a report for each partition. Only what
 * has changed is saved; what could not be is saved with the next.
 */
import { type FlipStateName, type FlipStatus, hasEnded, type PartitionReport } from '../core/flip.ts';
import type { FlipHead, FlipProgress, FlipToRun } from '../ledger/flips.ts';
import { type Log, sentenceOf } from '../log.ts';
import type { FlipLead } from './lead.ts';
import { PauseCounts, statusOf } from './status.ts';

const detailLengthMax = 1_000;
/** How old what other admins see can get, ms. */
const saveWithinMs = 250;

export class FlipRecord {
  readonly head: FlipHead;
  readonly partitions: readonly string[];
  readonly #all: ReadonlySet<string>;
  readonly #progress: FlipProgress;
  readonly #reports: Map<string, PartitionReport>;
  readonly #failed: Map<string, { code: string; detail: string }>;
  readonly #pauses = new PauseCounts();
  readonly #lead: FlipLead;
  readonly #log: Log;
  #changed = new Set<string>();
  #saver: NodeJS.Timeout | undefined;
  #saving: Promise<boolean> = Promise.resolve(true);

  constructor(flip: FlipToRun, lead: FlipLead, log: Log) {
    this.head = flip.head;
    this.partitions = flip.partitions;
    this.#all = new Set(flip.partitions);
    this.#progress = { ...flip.progress };
    this.#reports = new Map(flip.reports);
    this.#failed = new Map(flip.failed);
    for (const { outcome, pauseMs } of flip.reports.values()) {
      if (outcome === 'moved' && pauseMs !== undefined) this.#pauses.add(pauseMs);
    }
    this.#lead = lead;
    this.#log = log;
  }

  get progress(): Readonly<FlipProgress> {
    return this.#progress;
  }

  get over(): boolean {
    return hasEnded(this.#progress.state);
  }

  status(): FlipStatus {
    const order = undefined;
    return statusOf({ head: this.head, progress: this.#counted(), failed: this.#failed, order });
  }

  reportOf(partition: string): PartitionReport {
    return this.#reports.get(partition) ?? { outcome: 'pending', attempts: 0 };
  }

  /** The flip may still fence it. */
  isPending(partition: string): boolean {
    return this.reportOf(partition).outcome === 'pending';
  }

  /** It is one of the flip's, and was not given up. */
  goesAlong(partition: string): boolean {
    return this.#all.has(partition) && this.reportOf(partition).outcome !== 'stayed';
  }

  failuresAmong(partitions: readonly string[]): { partition: string; code: string; detail: string }[] {
    return partitions.flatMap((partition) => {
      const why = this.#failed.get(partition);
      return why === undefined ? [] : { partition, ...why };
    });
  }

  report(partition: string, report: PartitionReport): void {
    const { lastFailure } = report;
    const cut = lastFailure && { ...lastFailure, detail: lastFailure.detail.slice(0, detailLengthMax) };
    const before = this.reportOf(partition);
    this.#reports.set(partition, cut === undefined ? report : { ...report, lastFailure: cut });
    this.#changed.add(partition);
    this.#saver ??= setTimeout(() => void this.save(), saveWithinMs);
    if (before.outcome !== 'pending') return;
    if (report.outcome === 'moved') this.#progress.committed += 1;
    if (report.outcome === 'moved' && report.pauseMs !== undefined) this.#pauses.add(report.pauseMs);
    if (report.outcome === 'stayed') {
      this.#progress.aborted += 1;
      this.#failed.set(partition, cut ?? { code: 'stopped', detail: 'it was not tried' });
    }
  }

  /** Notes that the operators' order with this number was taken up; false when it had been before. */
  heed(number: number): boolean {
    if (number <= this.#progress.heeded) return false;
    this.#progress.heeded = number;
    return true;
  }

  /** `gate`: the number of the wave behind which the flip stands. */
  standUntilResumed(by: string, gate?: number): void {
    this.#progress.pausedBy = by;
    if (gate !== undefined) this.#progress.gate = gate;
  }

  resume(): void {
    this.#progress.gatesPassed = Math.max(this.#progress.gatesPassed, this.#progress.gate ?? 0);
    delete this.#progress.pausedBy;
    delete this.#progress.gate;
  }

  set(state: FlipStateName, detail: string): Promise<boolean> {
    const { progress } = this;
    if (progress.state === state && progress.detail === detail) return Promise.resolve(true);
    this.#progress.state = state;
    this.#progress.detail = detail;
    return this.save();
  }

  end(state: FlipStateName, detail: string, endedAtMs: number): void {
    this.#progress.endedAtMs = endedAtMs;
    this.#progress.state = state;
    this.#progress.detail = detail;
  }

  /** One save at a time. False when the ledger was away: the next save carries what this one could not. */
  save(): Promise<boolean> {
    this.#saving = this.#saving.then(() => this.#saveNow());
    return this.#saving;
  }

  async #saveNow(): Promise<boolean> {
    clearTimeout(this.#saver);
    this.#saver = undefined;
    const changed = this.#changed;
    this.#changed = new Set();
    try {
      await this.#lead.save({
        progress: this.#counted(),
        reports: [...changed].map((partition) => [partition, this.reportOf(partition)] as const),
        free: this.over ? this.partitions : [...changed].filter((partition) => !this.isPending(partition)),
      });
      return true;
    } catch (error) {
      for (const partition of changed) this.#changed.add(partition);
      this.#log('warn', 'flip.not-saved', { flip: this.head.id, error: sentenceOf(error) });
      return false;
    }
  }

  #counted(): FlipProgress {
    const pauseMs = this.#pauses.quantiles();
    return { ...this.#progress, ...(pauseMs === undefined ? {} : { pauseMs }) };
  }
}
