/**
 * One flip: the plan's partitions in waves, a bounded number at a time. Between two waves stands a gate: it lets
 * nothing through when a partition of the wave was given up, until an operator resumes.
 */
import type { FlipStatus } from '../core/flip.ts';
import type { FlipOrder, FlipToRun } from '../ledger/flips.ts';
import { sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import type { FlipLead } from './lead.ts';
import type { MemberWatch } from './members.ts';
import { type Course, movePartition, type MoverParts, pauseOrHalt } from './move-partition.ts';
import { FlipRecord } from './flip-record.ts';
import type { SharedQuestions } from './shared-questions.ts';

export interface FlipParts extends MoverParts {
  readonly members: MemberWatch;
  readonly shared: SharedQuestions;
}

const lookAgainMs = 50;
const savesTried = 60;
const saveAgainMs = 500;
const failuresNamed = 3;

export class FlipRun {
  readonly #parts: FlipParts;
  readonly #lead: FlipLead;
  readonly #record: FlipRecord;
  /** The operator ends the flip, or this coordinator leaves: attempts under way are aborted. */
  readonly #stop = new AbortController();
  /** No attempt begins any more; also when another coordinator has taken over. */
  readonly #halt: AbortSignal;
  #done: Promise<void> = Promise.resolve();
  #left = false;

  constructor(parts: FlipParts, flip: FlipToRun, lead: FlipLead) {
    this.#parts = parts;
    this.#lead = lead;
    this.#record = new FlipRecord(flip, lead, parts.log);
    this.#halt = AbortSignal.any([this.#stop.signal, lead.lost]);
    if (flip.order !== undefined) this.heed(flip.order);
  }

  get id(): string {
    return this.#record.head.id;
  }

  /** What this coordinator knows of it is what there is: it runs it, and goes on doing so. */
  get current(): boolean {
    return !this.#left && !this.#lead.lost.aborted;
  }

  get over(): boolean {
    return this.#record.over;
  }

  status(): FlipStatus {
    return this.#record.status();
  }

  start(): void {
    this.#done = this.#run().catch(async (error: unknown) => {
      // Its other workers must not go on moving partitions of a flip that is reported as over.
      this.#stop.abort();
      this.#parts.log('error', 'flip.broke', { flip: this.id, error: sentenceOf(error) });
      const detail = `the flip broke off (${sentenceOf(error)}); order it again, what has moved stays moved`;
      await this.#end('failed', detail);
    });
  }

  /** Carries out an operator's order, each once; they come through the ledger, whichever admin took them. */
  heed({ number, kind, by, reason }: FlipOrder): void {
    if (this.over) return;
    // An abort counts as heeded only with the end of the flip: whoever takes over until then must still heed it.
    if (kind !== 'abort' && !this.#record.heed(number)) return;
    switch (kind) {
      case 'pause':
        this.#record.standUntilResumed(by);
        void this.#record.set('paused', `paused by ${by}: ${reason}`);
        void this.#record.save();
        return;
      case 'resume':
        this.#record.resume();
        void this.#record.set('running', '');
        void this.#record.save();
        return;
      case 'abort':
        if (this.#stop.signal.aborted) return;
        this.#stop.abort();
        void this.#done.then(async () => {
          if (this.over || this.#left) return;
          this.#record.heed(number);
          await this.#end('aborted', `aborted by ${by}: ${reason}`);
        });
        return;
    }
  }

  /**
   * Stops working without ending the flip: another coordinator, or this one later, goes on. Waits at most
   * `withinMs` for handoffs under way; members finish what is left.
   */
  async leave(withinMs: number): Promise<void> {
    this.#left = true;
    this.#stop.abort();
    const waited = new AbortController();
    await Promise.race([this.#done, pauseOrHalt(withinMs, waited.signal)]);
    waited.abort();
    if (!this.over) await this.#record.save();
    await this.#lead.leave().catch(() => undefined);
  }

  async #run(): Promise<void> {
    const { partitions } = this.#record;
    const { waveSizes: sizes } = this.#record.head;
    let from = 0;
    for (const [at, size] of sizes.entries()) {
      const wave = partitions.slice(from, from + size);
      from += size;
      await this.#runWave(wave.filter((partition) => this.#record.isPending(partition)));
      if (this.#halt.aborted) return;
      if (at + 1 < sizes.length) await this.#gate(wave, at + 1, sizes.length);
    }
    const failures = this.#record.progress.aborted;
    if (failures === 0) await this.#end('completed', '');
    else await this.#end('failed', `${failures} partitions stayed where they were; the report names them`);
  }

  async #runWave(wave: readonly string[]): Promise<void> {
    const queue = wave.values();
    const course: Course = {
      head: this.#record.head,
      halt: this.#halt,
      stop: this.#stop.signal,
      untilClear: () => this.#untilClear(),
      goesAlong: (partition) => this.#record.goesAlong(partition),
      reportOf: (partition) => this.#record.reportOf(partition),
      report: (partition, report) => this.#record.report(partition, report),
    };
    const worker = async (): Promise<void> => {
      for (const partition of queue) {
        if (this.#halt.aborted) return;
        await movePartition(this.#parts, course, partition);
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#parts.settings.batch, wave.length) }, worker));
    await this.#record.save();
  }

  /** What made handoffs of this wave fail may fail the next, larger one, too: somebody should look first. */
  async #gate(wave: readonly string[], number: number, waves: number): Promise<void> {
    const failures = this.#record.failuresAmong(wave);
    if (failures.length === 0 || this.#record.progress.gatesPassed >= number) return;
    const named = failures
      .slice(0, failuresNamed)
      .map(({ partition, code, detail }) => `${partition}: ${code}: ${detail}`);
    const more = failures.length > failuresNamed ? ` and ${failures.length - failuresNamed} more` : '';
    this.#record.standUntilResumed('wave gate', number);
    await this.#record.set(
      'paused',
      `wave-failed: in wave ${number} of ${waves}, ${failures.length} of ${wave.length} partitions stayed where they were ` +
        `(${named.join('; ')}${more}). Resume to go on with the next wave without them, or abort`,
    );
    while (this.#record.progress.gatesPassed < number && !this.#halt.aborted) {
      await pauseOrHalt(lookAgainMs, this.#halt);
    }
  }

  /** Waits while the operator has paused, a member is stale, or the ledger is away: no attempt is spent. */
  async #untilClear(): Promise<void> {
    while (!this.#halt.aborted) {
      const obstacle = await this.#obstacleNow();
      const standing = this.#record.progress.pausedBy !== undefined;
      const unproven = this.#parts.members.health().unproven.length > 0;
      if (obstacle === undefined && !standing && !unproven) break;
      if (obstacle !== undefined && !standing) await this.#record.set('paused', obstacle);
      await pauseOrHalt(lookAgainMs, this.#halt);
    }
    if (!this.#halt.aborted) await this.#record.set('running', '');
  }

  async #obstacleNow(): Promise<string | undefined> {
    try {
      const lost = await this.#parts.shared.regression.answer();
      if (lost !== undefined)
        return `ledger-regressed: ${lost.detail}; goes on by itself once it is restored`;
    } catch (error) {
      return `ledger-unreachable: ${sentenceOf(error)}; goes on by itself when Redis answers`;
    }
    const { fresh, unproven, stale } = this.#parts.members.health();
    if (stale.length > 0 || fresh.length + unproven.length === 0) return staleSentence(stale);
    if (this.#lead.held) return undefined;
    return 'lead-lapsed: the ledger did not confirm this coordinator in time; it, or another one, goes on by itself';
  }

  async #end(state: 'completed' | 'aborted' | 'failed', detail: string): Promise<void> {
    const endedAtMs = await this.#parts.ledger.nowMs().catch(() => Date.now());
    this.#record.end(state, detail, endedAtMs);
    this.#parts.log('info', 'flip.ended', { flip: this.id, state, detail });
    // The report must not be lost because Redis is away for a moment; what moved is in the ledger anyway.
    for (let tries = 1; tries <= savesTried && !(await this.#record.save()); tries += 1) {
      await pause(saveAgainMs);
    }
    await this.#lead.leave().catch(() => undefined);
  }
}

function staleSentence(stale: readonly { id: string; host: string; pid: number }[]): string {
  if (stale.length === 0) return 'no-members: no proxy is registered; start one';
  const names = stale.map((member) => `${member.id} (pid ${member.pid} on ${member.host})`).join(', ');
  return `stale-member: no heartbeat from ${names}; goes on by itself when it answers or is proven gone`;
}
