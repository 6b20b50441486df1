/**
 * `scripts/bench`: every benchmark of this folder, one after the other, as processes of their own, and at the end what was
 * asked of the program beside what was measured.
 *
 *   scripts/bench [--quick] [--only PART[,PART]] [--minutes N] [--json FILE]
 *
 * Takes 10 to 15 minutes, with --quick 2 to 3. `--minutes`: how long the soak takes. Each part can be called alone; its
 * file says how. Absolute figures mean little on a shared machine: quote the ratios and the medians.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { figure, type Judgement, sayJudgement } from './asked.ts';
import { machine, sayMachine } from './machine.ts';
import { left, right, table } from './table.ts';

interface Part {
  readonly script: string;
  readonly given: readonly string[];
  /** In place of `given`; undefined: left out of a quick run. */
  readonly quick: readonly string[] | undefined;
}

const underLoad = ['--batch', '100', '--writes', '500'];
const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    minutes: { type: 'string' },
    json: { type: 'string' },
  },
});
const minutes = (usual: string): string[] => ['--minutes', values.minutes ?? usual];
const parts: Readonly<Record<string, Part>> = {
  forwarders: { script: 'forwarders.ts', given: [], quick: ['--quick'] },
  processes: { script: 'processes.ts', given: [], quick: undefined },
  admission: { script: 'admission.ts', given: [], quick: ['--quick'] },
  memory: { script: 'memory.ts', given: [], quick: ['--quick'] },
  soak: { script: 'soak.ts', given: minutes('1'), quick: minutes('0.2') },
  handoff: { script: 'handoff.ts', given: [], quick: ['--partitions', '50'] },
  cohort: {
    ...{ script: 'handoff.ts', given: ['--partitions', '10000', ...underLoad] },
    quick: undefined,
  },
  'dead-coordinator': { script: 'dead-coordinator.ts', given: [], quick: undefined },
  backfill: { script: 'backfill.ts', given: [], quick: ['--records', '100000'] },
  lag: { script: 'lag.ts', given: [], quick: ['--seconds', '10'] },
};

const root = resolve(import.meta.dirname, '..');
const chosen =
  values.only?.split(',') ?? Object.keys(parts).filter((name) => !values.quick || parts[name]?.quick);
const unknown = chosen.filter((name) => parts[name] === undefined);
if (unknown.length > 0) {
  process.stderr.write(`--only takes some of ${Object.keys(parts).join(', ')}, not ${unknown.join(', ')}\n`);
  process.exit(1);
}
const jsonPath = values.json === undefined ? undefined : resolve(values.json);
const directory = mkdtempSync(join(tmpdir(), 'onewriter-bench-'));
const results: Record<string, { readonly judgements?: readonly Judgement[] } | 'not measured'> = {};
process.stdout.write(sayMachine(machine));
const failed: string[] = [];
for (const name of chosen) if (!(await run(name))) failed.push(name);
rmSync(directory, { recursive: true, force: true });

const judgements = Object.values(results).flatMap((result) =>
  result === 'not measured' ? [] : (result.judgements ?? []),
);
const rows = judgements.map((judgement) => [
  ...[judgement.what, `${figure(judgement.value)} ${judgement.unit}`, sayJudgement(judgement)],
]);
process.stdout.write(`\n${table([left('what was asked'), right('measured'), left('')], rows)}`);
if (failed.length > 0) process.stdout.write(`failed: ${failed.join(', ')}\n`);
if (jsonPath !== undefined) {
  writeFileSync(jsonPath, `${JSON.stringify({ machine, judgements, parts: results }, undefined, 2)}\n`);
}
process.exit(failed.length > 0 ? 1 : 0);

/** False where the part failed; what it measured until then counts all the same. */
async function run(name: string): Promise<boolean> {
  const { script = '', given = [], quick } = parts[name] ?? {};
  process.stdout.write(`\n== ${name}\n`);
  const part = join(directory, `${name}.json`);
  const more = values.quick ? (quick ?? given) : given;
  const flags = ['--expose-gc', '--disable-warning=ExperimentalWarning'];
  const command = [...flags, join(root, 'bench', script), ...more, '--json', part];
  const child = spawn(process.execPath, command, { cwd: root, stdio: 'inherit' });
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, forward);
  const [status] = (await once(child, 'exit')) as [number | null];
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, forward);
  results[name] = existsSync(part)
    ? (JSON.parse(readFileSync(part, 'utf8')) as { judgements?: Judgement[] })
    : 'not measured';
  return status === 0;
}
