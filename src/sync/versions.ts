/** Source versions as a feed orders them: instants, as text or as a number since 1970, other numbers, or else text. */

/** How far behind ours the clock of a store may be, ms, where its own versions do not say what time it is there. */
export const clockBehindMs = 60_000;
/** How far ahead of ours, ms, where the date of a change says since when its copy is owed. */
const clockAheadMs = 5_000;
/** A number is taken for an instant when it is one within so many ms of now. */
const epochsWithinMs = 10 * 365 * 86_400_000;

interface Instant {
  readonly ms: number;
  readonly notation: 'text' | 'ms' | 's';
  /** A text without a zone can mean another time to the store. */
  readonly isExact: boolean;
}

const dated = /^\d{4}-\d\d-\d\d/;
const zoned = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$/i;
const whole = /^-?\d+$/;
const numeric = /^-?\d+(\.\d+)?$/;

function textInstantMs(version: string): number | undefined {
  if (!dated.test(version)) return undefined;
  // Whatever zone the store means, its digits come back to it as they were.
  const inUtc = zoned.test(version) ? Number.NaN : Date.parse(`${version}Z`);
  const ms = Number.isNaN(inUtc) ? Date.parse(version) : inUtc;
  return Number.isNaN(ms) ? undefined : ms;
}

function instantOf(version: string, nowMs: number): Instant | undefined {
  const textMs = textInstantMs(version);
  if (textMs !== undefined) return { ms: textMs, notation: 'text', isExact: zoned.test(version) };
  if (!numeric.test(version)) return undefined;
  const number = Number(version);
  const isNear = (ms: number): boolean => Math.abs(ms - nowMs) <= epochsWithinMs;
  if (isNear(number)) return { ms: number, notation: 'ms', isExact: true };
  return isNear(number * 1_000) ? { ms: number * 1_000, notation: 's', isExact: true } : undefined;
}

function written(ms: number, notation: Instant['notation']): string {
  if (notation === 'text') return new Date(ms).toISOString();
  return String(Math.max(0, Math.floor(notation === 'ms' ? ms : ms / 1_000)));
}

/** Negative when `left` is older, positive when it is newer. */
export function compareVersions(left: string, right: string): number {
  const [a, b] = [textInstantMs(left), textInstantMs(right)];
  if (a !== undefined && b !== undefined && a !== b) return a - b;
  if (whole.test(left) && whole.test(right)) {
    const difference = BigInt(left) - BigInt(right);
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }
  if (numeric.test(left) && numeric.test(right)) return Number(left) - Number(right);
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
  #notation: Instant['notation'] | undefined;

  constructor(nowMs: number) {
    this.#nowMs = nowMs;
  }

  readonly see = (version: string | undefined): void => {
    if (version === undefined) return;
    this.#newest = newest(this.#newest, version, this.#nowMs);
    this.#notation ??= instantOf(version, this.#nowMs)?.notation;
  };

  /** One of the store's own versions, not after now. */
  get version(): string | undefined {
    return this.#newest;
  }

  /** Where a feed of instants stood a minute ago; undefined for other versions, of which nobody can tell. */
  get minuteAgo(): string | undefined {
    return this.#notation && written(this.#nowMs - clockBehindMs, this.#notation);
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
  if (instant !== undefined) return written(instant.ms - overlapMs, instant.notation);
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
    return instant?.isExact === true && instant.ms <= nowMs ? instant.ms - clockAheadMs : unseenSinceMs;
  });
  return times.reduce((first, ms) => Math.min(first, Math.max(ms, unseenSinceMs)), Number.MAX_SAFE_INTEGER);
}
