/**
 * Verifications: both sides of a cohort compared in the background, without changing anything. They live in
 * this process only; after a restart one starts them again.
 */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { CopyDesk, PartitionComparison } from '../core/ports.ts';
import type { Difference } from '../core/records.ts';
import { type Log, sentenceOf } from '../log.ts';
import { pause } from '../pause.ts';
import { verificationAnswer, type VerificationAnswer } from './answers.ts';
import { noSuchCohort } from './cohorts.ts';
import { type Operation, operation } from './operation.ts';
import type { AdminParts } from './parts.ts';

const concurrency = 4;
const runningAtOnce = 4;
const remembered = 100;
const examplesKept = 50;
const problemsKept = 100;
const recheckRounds = 2;

type Running = { -readonly [Key in keyof VerificationAnswer]: VerificationAnswer[Key] };

interface VerificationSettings {
  readonly copies: CopyDesk;
  readonly log: Log;
  /** A difference counts only if it is still there this long after it was seen, ms: copies lag. */
  readonly recheckMs: number;
}

export class Verifications {
  readonly #settings: VerificationSettings;
  readonly #all = new Map<string, Running>();
  readonly #stopping = new AbortController();
  readonly #ends = new Set<Promise<void>>();

  constructor(settings: VerificationSettings) {
    this.#settings = settings;
  }

  get full(): boolean {
    return this.#ends.size >= runningAtOnce;
  }

  get(id: string): VerificationAnswer | undefined {
    return this.#all.get(id);
  }

  start(
    cohort: string,
    partitions: readonly string[],
    sample: number | undefined,
    by: string,
  ): VerificationAnswer {
    const chosen = sample === undefined ? [...partitions] : sampleOf(partitions, sample);
    const verification: Running = {
      id: `v-${randomUUID()}`,
      state: 'running',
      cohort,
      by,
      startedAtMs: Date.now(),
      partitions: chosen.length,
      sampledFrom: partitions.length,
      compared: 0,
      notCopied: 0,
      records: 0,
      differences: { missing: 0, extra: 0, changed: 0, examples: [] },
      problems: [],
    };
    this.#all.set(verification.id, verification);
    this.#forgetOldest();
    const end = this.#run(verification, chosen).finally(() => this.#ends.delete(end));
    this.#ends.add(end);
    return structuredClone(verification);
  }

  /** Breaks off what is running; resolves when nothing of it runs any more. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('onewriter is stopping'));
    await Promise.all(this.#ends);
  }

  #forgetOldest(): void {
    for (const [id, { state }] of this.#all) {
      if (this.#all.size <= remembered) return;
      if (state !== 'running') this.#all.delete(id);
    }
  }

  async #run(verification: Running, partitions: readonly string[]): Promise<void> {
    const queue = partitions.values();
    const worker = async (): Promise<void> => {
      for (const partition of queue) await this.#compareOne(verification, partition);
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    verification.state = verification.problems.length === 0 ? 'done' : 'failed';
    verification.endedAtMs = Date.now();
    const { id, cohort, compared, records, state } = verification;
    this.#settings.log('info', 'verification-ended', { id, cohort, compared, records, state });
  }

  async #compareOne(verification: Running, partition: string): Promise<void> {
    try {
      const { comparison, differences } = await this.#settled(partition);
      if (comparison.notCopied === undefined) verification.compared += 1;
      else verification.notCopied += 1;
      verification.records += comparison.ownerRecords;
      for (const difference of differences) note(verification, partition, difference);
      for (const { kind, detail } of comparison.problems) {
        noteProblem(verification, partition, `${kind}: ${detail}`);
      }
    } catch (error) {
      const detail = sentenceOf(error);
      noteProblem(verification, partition, `could not be compared: ${detail}`);
    }
  }

  /** Compares until the differences are gone or have outlasted the lag. */
  async #settled(
    partition: string,
  ): Promise<{ comparison: PartitionComparison; differences: readonly Difference[] }> {
    const { copies, recheckMs } = this.#settings;
    const signal = this.#stopping.signal;
    let comparison = await copies.compare(partition, signal);
    let differences = comparison.differences;
    for (let round = 0; round < recheckRounds && differences.length > 0; round += 1) {
      await pause(recheckMs, signal);
      comparison = await copies.compare(partition, signal);
      const before = new Set(differences.map(keyOf));
      differences = comparison.differences.filter((difference) => before.has(keyOf(difference)));
    }
    return { comparison, differences };
  }
}

export function verificationOperations(parts: AdminParts, verifications: Verifications): Operation[] {
  return [
    operation({
      method: 'post',
      path: '/verifications',
      role: 'operator',
      summary: 'Compares both sides of a cohort in the background. Changes nothing.',
      body: z.strictObject({
        cohort: z.string().min(1).max(100),
        sample: z.int().min(1).optional().describe('Compare only so many partitions, picked at random.'),
      }),
      status: 202,
      answer: verificationAnswer,
      run: async ({ actor, body }) => {
        const partitions = await parts.flips.partitionsOf(body.cohort);
        if (partitions === undefined) return noSuchCohort(parts, body.cohort);
        if (verifications.full) {
          const detail = `${runningAtOnce} verifications are running; wait until one has ended.`;
          return { problem: { code: 'too-many-verifications', detail } };
        }
        return { answer: verifications.start(body.cohort, partitions, body.sample, actor.name) };
      },
    }),
    operation({
      method: 'get',
      path: '/verifications/:id',
      role: 'viewer',
      summary: 'How far a verification is, and what it found.',
      answer: verificationAnswer,
      run: async ({ parameters }) => {
        const verification = verifications.get(parameters['id'] ?? '');
        if (verification !== undefined) return { answer: verification };
        const detail =
          'No verification has this id; a restart of the admin process forgets them. Start it again.';
        return { problem: { code: 'no-such-verification', detail } };
      },
    }),
  ];
}

function note({ differences }: Running, partition: string, found: Difference): void {
  const { difference } = found;
  differences[difference] += 1;
  if (differences.examples.length >= examplesKept) return;
  const { kind, id } = found.difference === 'extra' ? found : found.copy;
  const fields = found.difference === 'changed' ? { fields: found.fields.map(({ field }) => field) } : {};
  differences.examples.push({ partition, difference, kind, id, ...fields });
}

function noteProblem({ problems }: Running, partition: string, detail: string): void {
  if (problems.length < problemsKept) problems.push({ partition, detail });
}

function keyOf(difference: Difference): string {
  const { kind, id } = difference.difference === 'extra' ? difference : difference.copy;
  return `${difference.difference}\n${kind}\n${id}`;
}

/** `size` of the names, each choice equally likely (Fisher-Yates, broken off). */
function sampleOf(names: readonly string[], size: number): string[] {
  const pool = [...names];
  const chosen = Math.min(size, pool.length);
  for (let at = 0; at < chosen; at += 1) {
    const other = at + Math.floor(Math.random() * (pool.length - at));
    [pool[at], pool[other]] = [pool[other] ?? '', pool[at] ?? ''];
  }
  return pool.slice(0, chosen).toSorted();
}
