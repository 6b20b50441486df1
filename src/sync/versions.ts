/** Source versions as a feed orders them: instants, numbers, or else text. */

const numeric = /^-?\d+(\.\d+)?$/;

function instantOf(version: string): number | undefined {
  if (!/^\d{4}-\d\d-\d\d/.test(version)) return undefined;
  const ms = Date.parse(version);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Negative when `left` is older, positive when it is newer. */
export function compareVersions(left: string, right: string): number {
  const [a, b] = [instantOf(left), instantOf(right)];
  if (a !== undefined && b !== undefined && a !== b) return a - b;
  if (numeric.test(left) && numeric.test(right)) return Number(left) - Number(right);
  return left < right ? -1 : left > right ? 1 : 0;
}

export function newest(left: string | undefined, right: string | undefined): string | undefined {
  if (left === undefined || right === undefined) return left ?? right;
  return compareVersions(left, right) >= 0 ? left : right;
}

/** The instant of a version, where it is one, not later than `ms`: a date in the far future would hide all that follows. */
export function noLaterThan(version: string | undefined, ms: number): string | undefined {
  const instant = version === undefined ? undefined : instantOf(version);
  return instant !== undefined && instant > ms ? new Date(ms).toISOString() : version;
}

/** When the record changed by its store's clock, ms; undefined where versions are no instants. */
export function changedAtMs(version: string | undefined): number | undefined {
  return version === undefined ? undefined : instantOf(version);
}

/**
 * Where the next poll starts, so that nothing is lost by equal versions, by a bound that leaves out its own
 * value, or by writes that show up late: instants go back by `overlapMs`, whole numbers by one.
 */
export function lessOverlap(version: string, overlapMs: number): string {
  if (/^\d+$/.test(version)) return String(Math.max(0, Number(version) - 1));
  const ms = instantOf(version);
  return ms === undefined ? version : new Date(ms - overlapMs).toISOString();
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
