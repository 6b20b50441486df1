/**
 * `scripts/bench`: every benchmark of this folder, one after the other, as processes of their own.
 *
 *   scripts/bench [--json FILE] [--only forwarders|handoff|cohort|dead-coordinator]
 *
 * Absolute times mean little on a shared machine; quote the ratios and the medians.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const root = resolve(import.meta.dirname, '..');
/** Name → script and arguments. */
const benchmarks: Readonly<Record<string, readonly string[]>> = {
  forwarders: ['forwarders.ts'],
  handoff: ['handoff.ts'],
  cohort: ['handoff.ts', '--partitions', '10000', '--batch', '100', '--writes', '500'],
  'dead-coordinator': ['dead-coordinator.ts'],
};
const all = Object.keys(benchmarks);
const { values } = parseArgs({ options: { json: { type: 'string' }, only: { type: 'string' } } });
if (values.only !== undefined && !all.includes(values.only)) {
  process.stderr.write(`--only must be one of ${all.join(', ')}, not ${values.only}\n`);
  process.exit(1);
}
const jsonPath = values.json === undefined ? undefined : resolve(values.json);
const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
const results: Record<string, unknown> = {};
let failed = false;
for (const name of values.only === undefined ? all : [values.only]) {
  process.stdout.write(`== ${name}\n`);
  const part = join(directory, `${name}.json`);
  const [script = '', ...given] = benchmarks[name] ?? [];
  const command = [join(root, 'bench', script), ...given, '--json', part];
  const { status } = spawnSync(process.execPath, command, { cwd: root, stdio: 'inherit' });
  if (status !== 0) failed = true;
  results[name] = existsSync(part) ? (JSON.parse(readFileSync(part, 'utf8')) as unknown) : 'not measured';
}
rmSync(directory, { recursive: true, force: true });
if (jsonPath !== undefined) writeFileSync(jsonPath, `${JSON.stringify(results, undefined, 2)}\n`);
process.exit(failed ? 1 : 0);
