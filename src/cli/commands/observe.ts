/** `observe report`: what observing proxies have seen, and what enforcing would have made of it. */
import { join } from 'node:path';
import type { ObservedRow } from '../../core/observation.ts';
import { lineFilesIn } from '../../proxy/observe/files.ts';
import { readConfig } from '../address.ts';
import type { Command, Context } from '../command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from '../exit.ts';
import { type ReadRecords, RecordReader } from '../observe/read-records.ts';
import { type Output, plain } from '../output.ts';

const report: Command = {
  name: 'observe report',
  summary: 'Add up what observing proxies have recorded: per route, and paths without one',
  positionals: ['[FILE…]'],
  options: { all: { type: 'boolean', summary: 'Also what older rules have judged.' } },
  changes: false,
  async run(context, { positionals, flag }) {
    const files =
      positionals.length > 0 ? { ok: true as const, value: positionals } : await ownFiles(context);
    if (!files.ok) return files.refusal;
    const reader = new RecordReader({ all: flag('all') });
    for (const file of files.value) {
      try {
        await reader.read(file);
      } catch (error) {
        const code = String((error as NodeJS.ErrnoException).code ?? error);
        return refusal('cannot-read', `${file} cannot be read (${code}).`);
      }
    }
    const read = reader.result();
    const rows = read.tally.rows();
    const { output } = context;
    for (const row of rows) output.event('row', row);
    const { rules, earlier, from, to, seen, dropped, notHttp, unreadable } = read;
    const requests = read.tally.requests;
    output.event('summary', {
      ...{ files: files.value.length, from: from ?? null, to: to ?? null, requests, seen, dropped },
      ...{ rules: rules ?? null, earlier, notHttp, unreadable },
    });
    show(output, read, rows, files.value.length);
    return exitCodes.done;
  },
};

export const observeCommands: readonly Command[] = [report];

/** Those below the data directory of the configuration. */
async function ownFiles({ configPath, env }: Context): Promise<Attempt<string[]>> {
  const loaded = readConfig(configPath, env);
  if (!loaded.ok) return failedAttempt(loaded.refusal);
  const directory = join(loaded.value.config.dataDir, 'observe');
  const files = await lineFilesIn(directory).catch(() => []);
  if (files.length > 0) return { ok: true, value: files.map(({ path }) => path) };
  const detail = `There are no records in ${directory}. Run a proxy with proxy.mode observe, or name the files.`;
  return failedAttempt(refusal('no-records', detail));
}

function show(output: Output, read: ReadRecords, rows: readonly ObservedRow[], files: number): void {
  const {
    rules,
    earlier,
    from = '',
    to = '',
    seen,
    dropped,
    notHttp,
    unreadable,
    users,
    hosts,
    tally,
  } = read;
  output.line(`${tally.requests} requests in ${files} files, from ${from} to ${to}`);
  if (earlier > 0) {
    const those = rules === undefined ? '' : ` (${rules})`;
    output.line(
      `Judged by the newest rules${those}; ${earlier} requests that older rules judged are left out, --all adds them`,
    );
  }
  if (seen > tally.requests + earlier) {
    const lost = seen - tally.requests - earlier;
    const taken = Math.min(lost, dropped);
    output.line(
      `${lost} more were seen: the disk did not take ${taken} of their lines, ${lost - taken} made room or stand in other files`,
    );
  }
  if (unreadable > 0) output.line(`${unreadable} lines could not be read`);
  if (notHttp > 0) output.line(`${notHttp} times something came that is no HTTP, and was answered here`);
  if (users.has('hash') && hosts > 1) {
    output.line('Hashes of several hosts differ: a partition that was seen by two of them counts twice');
  }
  table(
    output,
    'Routes',
    rows.filter(({ route }) => route !== null),
  );
  table(
    output,
    'No route matches',
    rows.filter(({ route }) => route === null),
  );
  const refused = rows.reduce((all, row) => all + refusedOf(row), 0);
  output.line();
  output.line(
    refused === 0
      ? 'Enforcing would refuse none of them.'
      : `Enforcing would refuse ${refused} of them (${percent(refused, tally.requests)}): ${codesOf(rows)}`,
  );
}

const heads = [
  ...['requests', 'reads', 'writes', 'no identity', 'no partition', 'partitions', 'several'],
  ...['to app', 'too slow', 'unanswered', 'refused'],
];

function table(output: Output, title: string, rows: readonly ObservedRow[]): void {
  if (rows.length === 0) return;
  output.line();
  const cells = rows.map((row) => [
    plain(nameOf(row)),
    ...[row.requests, row.reads, row.writes, row.withoutIdentity, row.withoutPartition].map(String),
    row.lookUps > 0 ? 'directory' : String(row.partitions),
    ...[row.severalPartitions, row.toApp, row.tooSlow, row.unanswered].map(String),
    codesOf([row]),
  ]);
  output.table([[title, ...heads], ...cells]);
}

function nameOf({ route, method, path }: ObservedRow): string {
  if (route !== null) return `routes[${route.index}] ${route.path}`;
  return path === null ? 'all others' : `${method ?? ''} ${path}`;
}

function refusedOf({ refused }: ObservedRow): number {
  return Object.values(refused).reduce((sum, count) => sum + count, 0);
}

/** Most frequent first. */
function codesOf(rows: readonly ObservedRow[]): string {
  const sums = new Map<string, number>();
  for (const { refused } of rows) {
    for (const [code, count] of Object.entries(refused)) sums.set(code, (sums.get(code) ?? 0) + count);
  }
  return [...sums]
    .toSorted(([, a], [, b]) => b - a)
    .map(([code, count]) => `${code} ${count}`)
    .join(', ');
}

function percent(part: number, whole: number): string {
  const share = (part / whole) * 100;
  return `${share >= 10 ? share.toFixed(0) : share.toFixed(2)} %`;
}
