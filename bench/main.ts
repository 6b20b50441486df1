/**
 * `scripts/bench`: every benchmark of this folder, one after the other, as processes of their own.
 *
 *   scripts/bench [--json FILE] [--only forwarders|handoff]
 *
 * Absolute times mean little on a shared machine; quote the ratios and the medians.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const root = resolve(import.meta.dirname, '..');
const all = ['forwarders', 'handoff'];
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
  const script = join(root, 'bench', `${name}.ts`);
  const { status } = spawnSync(process.execPath, [script, '--json', part], { cwd: root, stdio: 'inherit' });
  if (status !== 0) failed = true;
  results[name] = existsSync(part) ? (JSON.parse(readFileSync(part, 'utf8')) as unknown) : 'not measured';
}
rmSync(directory, { recursive: true, force: true });
if (jsonPath !== undefined) writeFileSync(jsonPath, `${JSON.stringify(results, undefined, 2)}\n`);
process.exit(failed ? 1 : 0);
