/** Source versions as a feed orders them: instants, as text or as a number since 1970, other numbers, or else text. */
import { compareInstants, type Instant, instantIn, type Notation, writeInstant } from '../core/instants.ts';

/** How far behind ours the clock of a store may be, ms, where its own versions do not say what time it is there. */
export const clockBehindMs = 60_000;
/** How far behind UTC the clocks of a store may be that name no zone, ms. */
const zoneBehindMs = 12 * 3_600_000;
/** How far ahead of ours, ms, where the date of a change says since when its copy is owed. */
const clockAheadMs = 5_000;
/** A number is taken for an instant when it is one within so many ms of now. */
const epochsWithinMs = 10 * 365 * 86_400_000;

const whole = /^-?\d+$/;
const numeric = /^-?\d+(\.\d+)?$/;

function instantOf(version: string, nowMs: number): Instant | undefined {
  const instant = instantIn(version);
  const isFar = instant !== undefined && Math.abs(instant.ms - nowMs) > epochsWithinMs;
  return isFar && numeric.test(version) ? undefined : instant;
}

/** Negative when `left` is older, positive when it is newer. */
export function compareVersions(left: string, right: string): number {
  if (whole.test(left) && whole.test(right)) {
    const difference = BigInt(left) - BigInt(right);
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }
  if (numeric.test(left) && numeric.test(right)) return Number(left) - Number(right);
  const [a, b] = [instantIn(left), instantIn(right)];
  const order = a !== undefined && b !== undefined ? compareInstants(a, b) : 0;
  if (order !== 0) return order;
  return left < right ? -1 : left > right ? 1 : 0;
}

/**
 * The newer one of two places in a feed. What is dated after `nowMs` is none: everything that changes until then would
 * lie before it. Beside instants, other versions do not count either: 2999 as a number may be one of these.
 */
export function newest(
  left: string | undefined,
  right: string | undefined,
  nowMs: number,
): string | undefined {
  const [a, b] = [placeOf(left, nowMs), placeOf(right, nowMs)];
  if (a === undefined || b === undefined) return (a ?? b)?.version;
  if (a.isInstant !== b.isInstant) return a.isInstant ? a.version : b.version;
  return compareVersions(a.version, b.version) >= 0 ? a.version : b.version;
}

function placeOf(version: string | undefined, nowMs: number) {
  if (version === undefined) return undefined;
  const instant = instantOf(version, nowMs);
  return instant !== undefined && instant.ms > nowMs
    ? undefined
    : { version, isInstant: instant !== undefined };
}

/** Of many versions, the newest place. */
export class NewestVersion {
  readonly #nowMs: number;
  #newest: string | undefined;
  #written: { readonly notation: Notation; readonly zoned: boolean } | undefined;

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  readonly see = (version: string | undefined): void => {
    if (version === undefined) return;
    this.#newest = newest(this.#newest, version, this.#nowMs);
    this.#written ??= instantOf(version, this.#nowMs);
  };

  /** One of the store's own versions, not after now. */
  get version(): string | undefined {
    return this.#newest;
  }

  /**
   * Where a feed of instants stood a minute ago, or before that where they name no zone; undefined for other versions,
   * of which nobody can tell.
   */
  get minuteAgo(): string | undefined {
    if (this.#written === undefined) return undefined;
    const { notation, zoned } = this.#written;
    return writeInstant(this.#nowMs - clockBehindMs - (zoned ? 0 : zoneBehindMs), notation);
  }
}

/**
 * Does a feed from here on, less an overlap of time, show every change since? Not where versions have no time: then a
 * change can show up late with any version, and nobody knows how far to go back for it.
 */
export function isInstant(version: string, nowMs: number): boolean {
  return instantOf(version, nowMs) !== undefined;
}

/**
 * Where the next poll starts, so that nothing is lost by equal versions, by a bound that leaves out its own
 * value, or by writes that show up late: instants go back by `overlapMs`, other whole numbers by one.
 */
export function lessOverlap(version: string, overlapMs: number, nowMs: number): string {
  const instant = instantOf(version, nowMs);
  if (instant !== undefined) return writeInstant(instant.ms - overlapMs, instant.notation);
  if (!whole.test(version)) return version;
  const before = BigInt(version) - 1n;
  return String(before < 0n ? 0n : before);
}

/**
 * When the oldest of the changes was made, as far as the store's clock can be believed, and not before what was seen
 * already; 0: nobody can tell.
 */
export function owedSince(
  versions: readonly (string | undefined)[],
  unseenSinceMs: number,
  nowMs: number,
): number {
  if (unseenSinceMs === 0) return 0;
  const times = versions.map((version) => {
    const instant = version === undefined ? undefined : instantOf(version, nowMs);
    return instant?.zoned === true && instant.ms <= nowMs ? instant.ms - clockAheadMs : unseenSinceMs;
  });
  return times.reduce((first, ms) => Math.min(first, Math.max(ms, unseenSinceMs)), Number.MAX_SAFE_INTEGER);
}
