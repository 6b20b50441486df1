/**
 * Chaos with real processes; scripts/chaos calls this.
 *
 *   node test/faults/main.ts [--minutes N] [--seed S] [--window] [--json FILE]
 *
 * Exits with 0 only when no promise was broken; else it keeps the directory with all logs.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { runChaos } from './chaos.ts';
import { evidenceLines, isClean } from './evidence.ts';

const usage = 'usage: scripts/chaos [--minutes N] [--seed S] [--window] [--json FILE] [--keep]';

function optionsOf(args: string[]): {
  minutes: number;
  seed: number;
  json: string | undefined;
  keep: boolean;
  window: boolean;
} {
  const { values } = parseArgs({
    args,
    options: {
      minutes: { type: 'string', default: '2' },
      seed: { type: 'string' },
      json: { type: 'string' },
      keep: { type: 'boolean', default: false },
      window: { type: 'boolean', default: false },
    },
  });
  const minutes = Number(values.minutes);
  const seed = values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : Number(values.seed);
  if (!(minutes > 0) || !Number.isInteger(seed))
    throw new Error('--minutes must be above 0, --seed a whole number');
  return { minutes, seed, json: values.json, keep: values.keep, window: values.window };
}

const say = (line: string): void => void process.stdout.write(`${line}\n`);

let options: ReturnType<typeof optionsOf>;
try {
  options = optionsOf(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`);
  process.exit(1);
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const result = await runChaos({ ...options, say });
for (const line of evidenceLines(result)) say(line);
if (options.json !== undefined) writeFileSync(options.json, JSON.stringify(result, undefined, 2));
const clean = isClean(result);
say(clean ? '\nEvery promise was kept.' : `\nA promise was broken; all logs are in ${result.directory}`);
if (clean && !options.keep) rmSync(result.directory, { recursive: true, force: true });
process.exit(clean ? 0 : 1);
