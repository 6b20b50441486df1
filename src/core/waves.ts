/** A cohort moves in waves: `"1"` is one partition in all, `"10%"` a tenth of the cohort in all. */

/** Number of partitions in each wave; the entries of `waves` are cumulative, the last takes the rest. */
export function waveSizes(total: number, waves: readonly string[]): number[] {
  const sizes: number[] = [];
  let done = 0;
  for (const wave of waves) {
    const upTo = wave.endsWith('%') ? Math.ceil((total * Number(wave.slice(0, -1))) / 100) : Number(wave);
    const size = Math.min(total, upTo) - done;
    if (size <= 0) continue;
    sizes.push(size);
    done += size;
  }
  if (done < total) sizes.push(total - done);
  return sizes;
}
