/**
 * Load on one port: as much as it takes (wrk, or where that is missing our own generator), or at a constant rate (always
 * our own).
 */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { GeneratorOrder, GeneratorReport } from './generator.ts';

export interface Load {
  readonly port: number;
  /** Whole requests, sent in turn. */
  readonly requests: readonly string[];
  readonly connections: number;
  readonly seconds: number;
}

export interface LoadReport {
  readonly perSecond: number;
  /** Answers other than 2xx, broken connections, time-outs. */
  readonly errors: number;
}

const run = promisify(execFile);

export function hasWrk(): boolean {
  return spawnSync('wrk', ['--version']).error === undefined;
}

/** Every connection sends again as soon as it was answered. */
export async function fullLoad(load: Load, wrk: boolean): Promise<LoadReport> {
  return wrk ? loadByWrk(load) : generate({ ...load, warmSeconds: 0 });
}

/** So many a second, whatever the answers do; latencies count from when a request was due. */
export async function ratedLoad(load: Load, perSecond: number): Promise<GeneratorReport> {
  return generate({ ...load, perSecond, warmSeconds: Math.min(1, load.seconds / 4) });
}

async function generate(order: GeneratorOrder): Promise<GeneratorReport> {
  const script = fileURLToPath(new URL('generator.ts', import.meta.url));
  const running = run(process.execPath, ['--disable-warning=ExperimentalWarning', script]);
  running.child.stdin?.end(JSON.stringify(order));
  return JSON.parse((await running).stdout) as GeneratorReport;
}

/** Longer than any answer takes: what wrk counts as timed out must be one. */
const wrkTimeout = '30s';

/** The requests stand in a file, each after its length: as text in the script they would have to be quoted. */
const luaScript = (file: string): string => `
local file = assert(io.open("${file}", "rb"))
local requests = {}
while true do
  local length = file:read("*n")
  if not length then break end
  file:read(1)
  requests[#requests + 1] = file:read(length)
end
file:close()
local at = 0
request = function()
  at = at % #requests + 1
  return requests[at]
end
`;

async function loadByWrk({ port, requests, connections, seconds }: Load): Promise<LoadReport> {
  const directory = mkdtempSync(join(tmpdir(), 'onewriter-wrk-'));
  try {
    const file = join(directory, 'requests');
    writeFileSync(file, requests.map((text) => `${text.length} ${text}`).join('\n'), 'latin1');
    writeFileSync(join(directory, 'load.lua'), luaScript(file));
    const { stdout } = await run('wrk', [
      ...['-t1', `-c${connections}`, `-d${Math.ceil(seconds)}s`, '--timeout', wrkTimeout],
      ...['-s', join(directory, 'load.lua'), `http://127.0.0.1:${port}/`],
    ]);
    return reportOfWrk(stdout);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Exported for its test. Throws where the text is not what wrk prints. */
export function reportOfWrk(text: string): LoadReport {
  const perSecond = Number(/Requests\/sec: *([\d.]+)/.exec(text)?.[1] ?? Number.NaN);
  if (Number.isNaN(perSecond)) throw new Error(`wrk reported no rate:\n${text}`);
  const broken = /Socket errors: (.*)/.exec(text)?.[1] ?? '';
  const counts = [...broken.matchAll(/\d+/g)].map(([digits]) => Number(digits));
  const others = Number(/Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1] ?? 0);
  const errors = counts.reduce((sum, count) => sum + count, others);
  // A proxy that answers nothing at all breaks no connection either.
  return { perSecond, errors: perSecond === 0 ? errors + 1 : errors };
}
