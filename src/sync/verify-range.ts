/**
 * One step of a verification: a share of the partitions read on both sides and compared by content hash, then each
 * record that differs read again, because copies lag. Nothing is written; a repair only rings.
 */
import { otherStore, type StoreName, storeNames } from '../core/ownership.ts';
import { type Ledger, type RecordKey, type StoreReader } from '../core/ports.ts';
import type { DifferenceExample } from '../core/verification.ts';
import { sentenceOf } from '../log.ts';
import { sidesOf } from './copy-form.ts';
import type { Hindrances } from './not-repaired.ts';
import { eachOf } from './passes.ts';
import { readPatiently } from './patience.ts';
import { surveyKind, type SurveyHooks, surveySlice } from './survey.ts';
import { ownersOf, settle, type Suspect } from './verify-again.ts';

/** What is left to do, in the order in which it is done. */
export type Step =
  | {
      readonly read: 'whole';
      readonly owner: StoreName;
      readonly kind: string;
      readonly slice: number;
      readonly slices: number;
    }
  /** The partitions from one place in the list up to another, in all kinds that have such lists. */
  | {
      readonly read: 'by-partition';
      readonly kinds: readonly { readonly owner: StoreName; readonly kind: string }[];
      readonly from: number;
      readonly to: number;
    };

export interface StepReport {
  readonly records: number;
  readonly compared: number;
  readonly missing: number;
  readonly extra: number;
  readonly changed: number;
  readonly unconfirmed: number;
  readonly rung: number;
  readonly repaired: number;
  readonly examples: readonly DifferenceExample[];
  readonly problems: readonly { readonly partition: string; readonly detail: string }[];
  /** Before any repair. */
  readonly differing: ReadonlySet<string>;
  /** A list over all could not be read, so nobody knows of any partition. */
  readonly failed: boolean;
  /** What is left of the step, or what it must be cut into. */
  readonly next: readonly Step[];
}

export interface RangeParts {
  readonly ledger: Pick<Ledger, 'readMany'>;
  readonly readers: Readonly<Record<StoreName, StoreReader>>;
  readonly targets: readonly StoreName[];
  /** Partitions of which nothing is copied to the store that they have left. */
  readonly closedWindows: () => Promise<ReadonlySet<string>>;
  readonly registry: { count(): Promise<number> };
  readonly lagMs: () => Promise<number | undefined>;
  /** Rings for records that may differ. */
  readonly ring: (records: readonly RecordKey[]) => Promise<void>;
  /** A difference counts only if it outlasts this and what the copies lag, ms. */
  readonly recheckMs: number;
  /** Left out: a repair does not say what is in its way. */
  readonly hindrances?: Hindrances;
  /** Hashes kept at a time; the survey's own limit where absent. */
  readonly keptMax?: number | undefined;
}

export interface RangeOrder {
  readonly partitions: readonly string[];
  readonly repair: boolean;
  readonly values: boolean;
}

const partitionsAtOnce = 50;
const partitionsSideBySide = 4;
/** With more differences in one step than these, the lists' word is taken for the others. */
const confirmedMax = 2_000;
const problemsMax = 100;

interface Survey {
  failed: boolean;
  records: number;
  compared: number;
  readonly suspects: Suspect[];
  unconfirmed: number;
  readonly problems: { readonly partition: string; readonly detail: string }[];
  readonly differing: Set<string>;
}

/** How the partitions are best read, what cannot be compared at all, and how many nobody copies. */
export interface StepPlan {
  readonly steps: readonly Step[];
  readonly problems: StepReport['problems'];
  readonly notCopied: number;
}

export async function planSteps(parts: RangeParts, partitions: readonly string[]): Promise<StepPlan> {
  const steps: Step[] = [];
  const single: { owner: StoreName; kind: string }[] = [];
  const problems: { partition: string; detail: string }[] = [];
  const owners = await ownersOf(parts, partitions);
  const most = 2 * partitions.length >= (await parts.registry.count());
  for (const owner of storeNames.filter((store) => parts.targets.includes(otherStore(store)))) {
    if (!owners.some((name) => name === owner)) continue;
    const sides = sidesOf(owner, parts.readers);
    if (sides.owner.capabilities.length === 0) {
      problems.push({ partition: '', detail: `${owner} has no connector with records` });
    }
    for (const { kind, byPartition, needsPartition } of sides.owner.capabilities) {
      const copy = sides.copy.capabilities.find((capability) => capability.kind === kind);
      if (copy === undefined) {
        problems.push({ partition: '', detail: `${kind}: ${sides.copy.store} has no records of this kind` });
        continue;
      }
      const needed = needsPartition === true || copy.needsPartition === true;
      // A list over all costs its pages, lists by partition cost at least one call for each.
      const whole = !needed && (most || !(byPartition && copy.byPartition));
      if (whole) steps.push({ read: 'whole', owner, kind, slice: 0, slices: 1 });
      else single.push({ owner, kind });
    }
  }
  if (single.length > 0 && partitions.length > 0) {
    steps.push({ read: 'by-partition', kinds: single, from: 0, to: partitions.length });
  }
  const isCopied = (owner: StoreName | 'nobody'): boolean =>
    owner !== 'nobody' && parts.targets.includes(otherStore(owner));
  const notCopied = owners.filter((owner) => !isCopied(owner)).length;
  return { steps, problems, notCopied };
}

export function stepsLeft(steps: readonly Step[]): number {
  return steps.reduce(
    (sum, step) => sum + (step.read === 'whole' ? 1 : Math.ceil((step.to - step.from) / partitionsAtOnce)),
    0,
  );
}

/** Throws only what ends the signal; a store that fails is a problem of the report. */
export async function runStep(
  parts: RangeParts,
  step: Step,
  order: RangeOrder,
  signal: AbortSignal,
): Promise<StepReport> {
  const survey: Survey = {
    ...{ failed: false, records: 0, compared: 0, unconfirmed: 0 },
    ...{ suspects: [], problems: [], differing: new Set() },
  };
  const next = await (step.read === 'whole'
    ? surveyWhole(parts, step, order, survey, signal)
    : surveyByPartition(parts, step, order, survey, signal));
  const settled = await settle(parts, survey, order, signal);
  for (const { partition, detail } of settled.problems) note(survey, partition, detail);
  const { problems: _, ...counts } = settled;
  const { failed, records, compared, unconfirmed, problems, differing } = survey;
  return { failed, records, compared, unconfirmed, problems, differing, next, ...counts };
}

async function surveyWhole(
  parts: RangeParts,
  step: Extract<Step, { read: 'whole' }>,
  { partitions, repair }: RangeOrder,
  survey: Survey,
  signal: AbortSignal,
): Promise<readonly Step[]> {
  const { owner, kind, slice, slices } = step;
  const owners = await ownersOf(parts, partitions);
  const ours = new Set(partitions.filter((_, at) => owners[at] === owner));
  const isOurs = (partition: string): boolean => ours.has(partition);
  try {
    const sides = sidesOf(owner, parts.readers);
    const result = await collect(parts, { owner, repair, signal }, survey, isOurs, (hooks) =>
      surveySlice(kind, sides, hooks, { slice, slices }, signal),
    );
    if (result === 'too-many') {
      // The remainder by twice as many is the old one, or that and as many more.
      const cut = { ...step, slices: 2 * slices };
      return [cut, { ...cut, slice: slice + slices }];
    }
    survey.records += result.records;
    for (const { detail } of result.problems) note(survey, '', `${kind}: ${detail}`);
  } catch (error) {
    signal.throwIfAborted();
    survey.failed = true;
    note(survey, '', `${kind} could not be compared: ${sentenceOf(error)}`);
  }
  return [];
}

async function surveyByPartition(
  parts: RangeParts,
  step: Extract<Step, { read: 'by-partition' }>,
  { partitions, repair }: RangeOrder,
  survey: Survey,
  signal: AbortSignal,
): Promise<readonly Step[]> {
  const until = Math.min(step.to, step.from + partitionsAtOnce);
  const names = partitions.slice(step.from, until);
  const owners = new Map((await ownersOf(parts, names)).map((owner, at) => [names[at] ?? '', owner]));
  const compareOne = async (partition: string): Promise<void> => {
    const kinds = step.kinds.filter(({ owner }) => owner === owners.get(partition));
    try {
      for (const { owner, kind } of kinds) {
        const sides = sidesOf(owner, parts.readers);
        const isOurs = (name: string): boolean => name === partition;
        const result = await collect(parts, { owner, repair, signal }, survey, isOurs, (hooks) =>
          surveyKind(kind, sides, { ...hooks, partition }, signal),
        );
        survey.records += result.records;
        for (const { detail } of result.problems) note(survey, partition, `${kind}: ${detail}`);
      }
      if (kinds.length > 0) survey.compared += 1;
    } catch (error) {
      signal.throwIfAborted();
      note(survey, partition, `could not be compared: ${sentenceOf(error)}`);
    }
  };
  await eachOf(names, compareOne, partitionsSideBySide);
  return until < step.to ? [{ ...step, from: until }] : [];
}

/** Tries again where a store is away for a moment; what a broken try has found does not count. */
async function collect<Result>(
  { ring, keptMax }: RangeParts,
  ask: { readonly owner: StoreName; readonly repair: boolean; readonly signal: AbortSignal },
  survey: Survey,
  includes: (partition: string) => boolean,
  read: (hooks: SurveyHooks) => Promise<Result>,
): Promise<Result> {
  return readPatiently('background', ask.signal, async () => {
    const suspects: Suspect[] = [];
    const differing = new Set<string>();
    let unconfirmed = 0;
    const result = await read({
      includes,
      ...(keptMax === undefined ? {} : { keptMax }),
      onPartitions: () => Promise.resolve(),
      onDifferent: async (keys) => {
        for (const key of keys) differing.add(key.partition);
        const room = Math.max(0, confirmedMax - survey.suspects.length - suspects.length);
        suspects.push(...keys.slice(0, room).map((key) => ({ ...key, owner: ask.owner })));
        const others = keys.slice(room);
        unconfirmed += others.length;
        if (ask.repair) await ring(others.map(({ partition, kind, id }) => ({ partition, kind, id })));
        return true;
      },
    });
    survey.suspects.push(...suspects);
    survey.unconfirmed += unconfirmed;
    for (const partition of differing) survey.differing.add(partition);
    return result;
  });
}

function note({ problems }: Survey, partition: string, detail: string): void {
  if (problems.length < problemsMax) problems.push({ partition, detail });
}
