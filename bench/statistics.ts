/** The few figures that every benchmark of this folder reports. */

/** Of values in ascending order, by nearest rank; 0 where there are none. `share` from 0 to 1. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1))] ?? 0;
}

/** NaN where there are none. The middle two are averaged. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const upper = sorted[Math.floor(half)] ?? Number.NaN;
  const lower = sorted[Math.ceil(half) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

/**
 * Median of what a value is to the one that it is compared with, round by round: what slows a whole round down, such as
 * another process, does not count. NaN where no round has both.
 */
export function pairedMedian(
  values: readonly number[],
  compared: readonly number[],
  relation: (value: number, other: number) => number,
): number {
  const rounds = Math.min(values.length, compared.length);
  return median(
    Array.from({ length: rounds }, (_, round) => relation(values[round] ?? 0, compared[round] ?? 0)),
  );
}

/** Change of y for each 1 of x, by least squares; 0 where x does not vary. */
export function slope(points: readonly { readonly x: number; readonly y: number }[]): number {
  const count = points.length;
  const meanX = points.reduce((sum, { x }) => sum + x, 0) / count;
  const meanY = points.reduce((sum, { y }) => sum + y, 0) / count;
  const spread = points.reduce((sum, { x }) => sum + (x - meanX) ** 2, 0);
  const together = points.reduce((sum, { x, y }) => sum + (x - meanX) * (y - meanY), 0);
  return spread > 0 ? together / spread : 0;
}
