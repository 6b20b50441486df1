/** Source versions as a feed orders them: instants, numbers, or else text. */
import { compareInstants, instantIn, writeInstant } from '../core/instants.ts';

const numeric = /^-?\d+(\.\d+)?$/;

/** Negative when `left` is older, positive when it is newer. */
export function compareVersions(left: string, right: string): number {
  const [a, b] = [instantIn(left), instantIn(right)];
  if (a !== undefined && b !== undefined) {
    const order = compareInstants(a, b);
    if (order !== 0) return order;
  }
  if (numeric.test(left) && numeric.test(right)) return compareNumbers(left, right);
  return left < right ? -1 : left > right ? 1 : 0;
}

/** Counters can be longer than what a number holds exactly. */
function compareNumbers(left: string, right: string): number {
  if (/^\d+$/.test(left) && /^\d+$/.test(right)) {
    const [a, b] = [BigInt(left), BigInt(right)];
    return a < b ? -1 : a > b ? 1 : 0;
  }
  return Number(left) - Number(right);
}

export function newest(left: string | undefined, right: string | undefined): string | undefined {
  if (left === undefined || right === undefined) return left ?? right;
  return compareVersions(left, right) >= 0 ? left : right;
}

/** The instant of a version, where it is one, not later than `ms`: a date in the far future would hide all that follows. */
export function noLaterThan(version: string | undefined, ms: number): string | undefined {
  const instant = version === undefined ? undefined : instantIn(version);
  return instant !== undefined && instant.ms > ms ? writeInstant(ms, instant.notation) : version;
}

/** When the record changed by its store's clock, ms; undefined where versions are no instants. */
export function changedAtMs(version: string | undefined): number | undefined {
  return version === undefined ? undefined : instantIn(version)?.ms;
}

/** The same instant as `ms`, as this store writes its versions; undefined where those are no instants. */
export function versionAt(ms: number, version: string | undefined): string | undefined {
  const instant = version === undefined ? undefined : instantIn(version);
  return instant === undefined ? undefined : writeInstant(ms, instant.notation);
}

/**
 * Where the next poll starts, so that nothing is lost by equal versions, by a bound that leaves out its own
 * value, or by writes that show up late: instants go back by `overlapMs`, whole numbers by one.
 */
export function lessOverlap(version: string, overlapMs: number): string {
  const instant = instantIn(version);
  if (instant !== undefined) return writeInstant(instant.ms - overlapMs, instant.notation);
  if (!/^\d+$/.test(version)) return version;
  return version === '0' ? version : String(BigInt(version) - 1n);
}

/**
 * When the oldest of the changes was made, as far as the store's clock can be believed, and not before what was seen
 * already; 0: nobody can tell.
 */
export function owedSince(versions: readonly (string | undefined)[], unseenSinceMs: number): number {
  if (unseenSinceMs === 0) return 0;
  const times = versions.map((version) => changedAtMs(version) ?? unseenSinceMs);
  return times.reduce((first, ms) => Math.min(first, Math.max(ms, unseenSinceMs)), Number.MAX_SAFE_INTEGER);
}
