/** Verifications: both sides of a cohort, or of a sample of it, compared without a word to the users. */
import type { Json } from './records.ts';

export type VerificationState = 'running' | 'done' | 'failed' | 'cancelled';

export interface DifferenceExample {
  readonly partition: string;
  readonly difference: 'missing' | 'extra' | 'changed';
  readonly kind: string;
  readonly id: string;
  readonly fields?: readonly string[] | undefined;
  /** Only where they were asked for, each cut to `valueLengthMax`: they can be personal. */
  readonly values?: readonly { readonly field: string; readonly owner: string; readonly copy: string }[];
  /** It was there, and a copy made it good. */
  readonly repaired?: boolean | undefined;
}

export interface Verification {
  readonly id: string;
  readonly state: VerificationState;
  readonly cohort: string;
  readonly by: string;
  readonly startedAtMs: number;
  readonly endedAtMs?: number | undefined;
  /** To compare; of `sampledFrom`, drawn by `seed` where a sample was asked for. */
  readonly partitions: number;
  readonly sampledFrom: number;
  readonly seed?: number | undefined;
  readonly compared: number;
  /** Partitions whose owner is not copied from. */
  readonly notCopied: number;
  /** Of the owner, counted once for each kind. */
  readonly records: number;
  /** Steps of it; a large store is cut into more on the way. */
  readonly progress: { readonly done: number; readonly total: number };
  readonly differences: {
    readonly missing: number;
    readonly extra: number;
    readonly changed: number;
    /** Beside the three: told by the lists alone, because they are too many to read each of them again. */
    readonly unconfirmed: number;
    readonly examples: readonly DifferenceExample[];
  };
  /** Where it was to repair: doorbells rung for differences, and how many of them are none any more. */
  readonly repair?: { readonly rung: number; readonly repaired: number } | undefined;
  readonly problems: readonly { readonly partition: string; readonly detail: string }[];
  /** Of a sample that has ended. */
  readonly confidence?: Confidence | undefined;
}

export interface Confidence {
  readonly level: number;
  readonly compared: number;
  readonly differing: number;
  /** With that confidence, no larger share of all partitions differs. */
  readonly atMost: number;
}

export interface VerificationOrder {
  readonly cohort: string;
  readonly partitions: readonly string[];
  readonly by: string;
  readonly sample?: number | undefined;
  readonly seed?: number | undefined;
  readonly repair?: boolean | undefined;
  readonly values?: boolean | undefined;
}

export interface VerificationDesk {
  /** `too-many`: so many run that another would only slow them down. */
  start(order: VerificationOrder): Promise<Verification | 'too-many'>;
  get(id: string): Promise<Verification | undefined>;
  /** Newest first. */
  list(): Promise<readonly Verification[]>;
  /** Undefined where there is none; one that has ended stays as it is. */
  cancel(id: string): Promise<Verification | undefined>;
}

/** `size` of the names, each choice equally likely (Fisher-Yates, broken off), and the same for the same seed. */
export function sampleOf(names: readonly string[], size: number, seed: number): string[] {
  const pool = names.toSorted();
  const random = seeded(seed);
  const chosen = Math.min(size, pool.length);
  for (let at = 0; at < chosen; at += 1) {
    const other = at + Math.floor(random() * (pool.length - at));
    [pool[at], pool[other]] = [pool[other] ?? '', pool[at] ?? ''];
  }
  return pool.slice(0, chosen).toSorted();
}

/** mulberry32 (Tommy Ettinger, public domain): from 0 up to 1. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const level = 0.95;
const halvings = 50;

/**
 * The one-sided upper bound of Clopper and Pearson (Biometrika 26, 1934): the largest share of differing
 * partitions under which so few would show up in the sample with a probability of 5 % or more. With none it is
 * near 3 / compared (the rule of three). It takes every draw for independent; a sample is drawn without putting
 * back, so the bound is rather too high than too low.
 */
export function confidenceOf(compared: number, differing: number): Confidence {
  const found = { level, compared, differing };
  if (compared === 0 || differing >= compared) return { ...found, atMost: 1 };
  let [low, high] = [differing / compared, 1];
  for (let step = 0; step < halvings; step += 1) {
    const middle = (low + high) / 2;
    if (atMostSo(differing, compared, middle) > 1 - level) low = middle;
    else high = middle;
  }
  return { ...found, atMost: high };
}

/** Probability that at most `count` of `draws` hit, each with the given share: 0 < share < 1. */
function atMostSo(count: number, draws: number, share: number): number {
  const [hit, miss] = [Math.log(share), Math.log1p(-share)];
  let ways = 0;
  let sum = 0;
  for (let hits = 0; hits <= count; hits += 1) {
    sum += Math.exp(ways + hits * hit + (draws - hits) * miss);
    ways += Math.log(draws - hits) - Math.log(hits + 1);
  }
  return sum;
}

export const valueLengthMax = 200;

/** A value as an example shows it. */
export function shownValue(value: Json | undefined): string {
  const text = value === undefined ? '(none)' : JSON.stringify(value);
  return text.length <= valueLengthMax ? text : `${text.slice(0, valueLengthMax)}…`;
}
