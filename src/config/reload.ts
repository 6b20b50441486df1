/** What of the configuration can change while a process runs: the rules by which requests are judged. */
import type { Config } from './schema.ts';

/** A configuration, and the hash of what in it decides identity, partition and access. */
export interface RuleSet {
  readonly config: Config;
  readonly configHash: string;
}

const rules: ReadonlySet<string> = new Set<keyof Config>([
  'identity',
  'partition',
  'partitionNames',
  'routes',
  'pathEndings',
  'anonymousReads',
  'newPartitions',
]);

/** Names of the sections that differ and take effect only with a restart. */
export function needsRestart(before: Config, after: Config): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])] as (keyof Config)[];
  return names.filter((name) => !rules.has(name) && !same(before[name], after[name]));
}

/** Both were made by the same schema, but a record keeps the order of the file. */
function same(left: unknown, right: unknown): boolean {
  if (typeof left !== 'object' || left === null || typeof right !== 'object' || right === null) {
    return left === right;
  }
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  if (Array.isArray(left) !== Array.isArray(right)) return false;
  return [...names].every((name) =>
    same((left as Record<string, unknown>)[name], (right as Record<string, unknown>)[name]),
  );
}
