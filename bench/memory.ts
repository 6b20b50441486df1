/**
 * The memory of a proxy process: while 1 GiB goes through in each direction, with 10,000 idle connections and 1,000 writes
 * that wait at fenced partitions, and for each partition that the ledger lists. The proxy runs as operators run it.
 *
 *   node bench/memory.ts [--quick] [--only bodies|connections|partitions] [--json FILE]
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { clientsWithinFiles } from '../src/proxy/crowd.ts';
import { figure, type Judgement, judge, sayJudgement } from './asked.ts';
import { openCrowd } from './crowd.ts';
import { type Deployment, partitionName } from './deployment.ts';
import { fence } from './fences.ts';
import { machine } from './machine.ts';
import { canSeeMemory, forgetPeak, peakMiB, residentMiB } from './resident.ts';
import { withProxy } from './rig.ts';
import { download, upload } from './streams.ts';
import { left, right, table } from './table.ts';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    json: { type: 'string' },
  },
});
const { quick } = values;
const gibibyte = 1_024;
const idleWanted = 10_000;
const heldWrites = 1_000;
/** Only so many writes of one partition are held. */
const heldPerPartition = 50;
/** For health checks and such. */
const spareConnections = 50;
const answeredWithinMs = 20_000;

interface Row {
  readonly what: string;
  readonly unit: string;
  readonly value: number;
  readonly judgement?: Judgement;
}

/** The names of users of legacy. */
function userName(number: number): string {
  return partitionName(2 * number + 1);
}

/** Before anything large went through, and once more: what a process took the first time, it keeps. */
async function bodies(): Promise<Row[]> {
  return withProxy({ partitions: 1_000 }, async ({ port, pid }) => {
    const way = { port, headers: { 'x-user': userName(0) } };
    await download(way, 1);
    const start = residentMiB(pid);
    const growthOf = async (work: Promise<void>, before: number): Promise<number> => {
      forgetPeak(pid);
      await work;
      return peakMiB(pid) - before;
    };
    const up = await growthOf(upload(way, gibibyte), start);
    const down = await growthOf(download(way, gibibyte), start);
    const then = residentMiB(pid);
    const upAgain = await growthOf(upload(way, gibibyte), then);
    const downAgain = await growthOf(download(way, gibibyte), then);
    return [
      { what: 'idle, just started', unit: 'MiB', value: start },
      { what: 'growth while 1 GiB goes up', unit: 'MiB', value: up, judgement: judge('upload-memory', up) },
      {
        what: 'growth while 1 GiB comes down',
        ...{ unit: 'MiB', value: down, judgement: judge('download-memory', down) },
      },
      { what: 'further growth while another goes up', unit: 'MiB', value: upAgain },
      { what: 'further growth while another comes down', unit: 'MiB', value: downAgain },
    ];
  });
}

/** As many idle connections as asked, or as the files allow that a process may open here. */
function idleConnections(): number {
  const room = clientsWithinFiles(20_000, () => undefined) - heldWrites - spareConnections;
  return Math.max(0, Math.min(idleWanted, room));
}

async function connections(): Promise<Row[]> {
  const flip = { holdMs: 120_000, fenceMs: 100_000 };
  const count = idleConnections();
  if (count < idleWanted) {
    const detail = `a process may open too few files here for ${said(idleWanted)} connections (ulimit -n)`;
    process.stdout.write(`note: ${detail}; ${said(count)} are opened.\n`);
  }
  return withProxy({ partitions: 2 * idleWanted, config: { flip } }, async ({ deployment, port, pid }) => {
    const before = residentMiB(pid);
    const get = (number: number): string =>
      `GET /r1 HTTP/1.1\r\nHost: bench\r\nx-user: ${userName(number)}\r\n\r\n`;
    const idle = await openCrowd(port, count, get);
    await until('every connection was answered', () => idle.counts().waiting === 0);
    const withIdle = residentMiB(pid);
    const held = await holdWrites(deployment, port);
    const withHeld = peakMiB(pid);
    await held.release();
    const { good } = idle.counts();
    idle.close();
    if (good !== count) throw new Error(`${count - good} of ${count} connections were not open and idle`);
    const all = withHeld + ((withIdle - before) / count) * (idleWanted - count);
    const computed = count < idleWanted ? `, computed for ${said(idleWanted)}` : '';
    return [
      { what: 'before the connections', unit: 'MiB', value: before },
      { what: `with ${said(count)} idle connections`, unit: 'MiB', value: withIdle },
      {
        what: `with ${said(heldWrites)} held writes beside them${computed}`,
        ...{ unit: 'MiB', value: all, judgement: judge('connections-memory', all) },
      },
    ];
  });
}

/** Writes that wait at real fences; `release` lifts the fences, and every write must be answered then. */
async function holdWrites(deployment: Deployment, port: number): Promise<{ release: () => Promise<void> }> {
  const partitions = Array.from({ length: heldWrites / heldPerPartition }, (_, at) => userName(at));
  const fences = await fence(deployment.redis, partitions);
  const body = 'x'.repeat(1_024);
  const held = await openCrowd(port, heldWrites, (number) =>
    [
      ...['POST /sink HTTP/1.1', 'Host: bench', `x-user: ${partitions[number % partitions.length]}`],
      ...[`Content-Length: ${body.length}`, '', body],
    ].join('\r\n'),
  );
  // What was sent before a health check of later has been read when that is answered.
  for (let times = 0; times < 3; times += 1) await healthOf(port);
  const { waiting } = held.counts();
  return {
    release: async () => {
      await fences.abort();
      await until('every held write was answered', () => held.counts().waiting === 0);
      const { good } = held.counts();
      held.close();
      if (waiting === heldWrites && good === heldWrites) return;
      throw new Error(`of ${heldWrites} writes ${waiting} were held, and ${good} taken afterwards`);
    },
  };
}

async function partitions(): Promise<Row[]> {
  const known = quick ? 100_000 : 1_000_000;
  const measureAt = (count: number): Promise<{ mebibytes: number; seconds: number }> => {
    const startedMs = performance.now();
    return withProxy({ partitions: count }, async ({ pid }) => ({
      mebibytes: residentMiB(pid),
      seconds: (performance.now() - startedMs) / 1_000,
    }));
  };
  const none = await measureAt(0);
  const all = await measureAt(known);
  const bytes = ((all.mebibytes - none.mebibytes) * 1_048_576) / known;
  return [
    { what: 'with no partition in the ledger', unit: 'MiB', value: none.mebibytes },
    { what: `with ${said(known)} partitions, just started`, unit: 'MiB', value: all.mebibytes },
    { what: 'growth per partition, garbage of the start included', unit: 'B', value: bytes },
  ];
}

function said(count: number): string {
  return count.toLocaleString('en-US');
}

async function healthOf(port: number): Promise<void> {
  const answer = await fetch(`http://127.0.0.1:${port}/.well-known/onewriter/health`);
  await answer.arrayBuffer();
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const untilMs = performance.now() + answeredWithinMs;
  while (!condition()) {
    if (performance.now() > untilMs) throw new Error(`not in time: ${what}`);
    await new Promise((wait) => setTimeout(wait, 10));
  }
}

const measurements: Readonly<Record<string, () => Promise<Row[]>>> = { bodies, connections, partitions };
const rows: Row[] = [];
if (!canSeeMemory()) {
  process.stdout.write('note: without /proc the memory of a process cannot be seen; nothing was measured.\n');
} else {
  for (const [name, measurement] of Object.entries(measurements)) {
    if (values.only === undefined || values.only === name) rows.push(...(await measurement()));
  }
  const cells = rows.map(({ what, unit, value, judgement }) => [
    ...[what, `${figure(value)} ${unit}`, judgement === undefined ? '' : sayJudgement(judgement)],
  ]);
  process.stdout.write(table([left('resident memory of a proxy process'), right(''), left('')], cells));
}
if (values.json !== undefined) {
  const judgements = rows.flatMap(({ judgement }) => judgement ?? []);
  writeFileSync(values.json, `${JSON.stringify({ machine, rows, judgements }, undefined, 2)}\n`);
}
