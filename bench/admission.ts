/**
 * What one decision costs while the ledger lists a million partitions, and what knowing one of them costs in memory.
 * The member and its view are those of a proxy, filled as one fills them: from the texts that Redis holds.
 *
 *   node --expose-gc bench/admission.ts [--partitions 1000000] [--quick] [--json FILE]
 */
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Instant, Member } from '../src/core/member.ts';
import type { Ownership } from '../src/core/ownership.ts';
import { parseRecord } from '../src/ledger/records.ts';
import { figure, type Judgement, judge, sayJudgement } from './asked.ts';
import { partitionName, recordOf } from './deployment.ts';
import { machine } from './machine.ts';
import { median } from './statistics.ts';
import { left, right, table } from './table.ts';

const { values } = parseArgs({
  options: {
    partitions: { type: 'string', default: '1000000' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});
const partitions = Number(values.partitions);
const rounds = values.quick ? 5 : 15;
const perRound = 200_000;
const usersAtWork = 1_000;

type NameOf = (number: number) => string;

const names: Readonly<Record<string, NameOf>> = {
  'user-123456': partitionName,
  'UUIDs, 36 characters': () => randomUUID(),
};

function now(): Instant {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

/** Of objects that are still needed, also outside of the heap, bytes. */
function liveBytes(collect: () => void): number {
  for (let times = 0; times < 4; times += 1) collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** As Redis answers a snapshot: names and texts, each a string of its own. */
function* snapshot(nameOf: NameOf): Generator<readonly [string, Ownership]> {
  for (let number = 0; number < partitions; number += 1) {
    const text = JSON.stringify(recordOf(number));
    yield [Buffer.from(nameOf(number)).toString(), parseRecord(text).ownership];
  }
}

function newMember(): Member {
  const settings = { leaseMs: 3_600_000, marginMs: 0, settleMs: { legacy: 30_000, app: 0 } };
  return new Member({ ...settings, defaultOwner: 'legacy' }, now());
}

function fill(member: Member, nameOf: NameOf): void {
  const position = { version: partitions, id: 'last' };
  member.load({ position, partitions: snapshot(nameOf) }, now());
  member.heartbeatConfirmed(member.heartbeat(now()), partitions);
}

/**
 * Median of the rounds, us of processor time for one step, its share of garbage collection included: what other
 * processes take away does not count. Of partitions in any order, each named by a text of its own, as requests come.
 */
function stepMicroseconds(known: readonly string[], step: (partition: string) => void): number {
  const times: number[] = [];
  for (let round = -2; round < rounds; round += 1) {
    const chosen = Array.from({ length: perRound }, () =>
      Buffer.from(known[Math.floor(Math.random() * known.length)] ?? '').toString(),
    );
    const before = process.cpuUsage();
    for (const partition of chosen) step(partition);
    const { user, system } = process.cpuUsage(before);
    // The first rounds compile.
    if (round >= 0) times.push((user + system) / perRound);
  }
  return median(times);
}

interface Row {
  readonly names: string;
  readonly bytesPerPartition: number;
  readonly lookUpUs: number;
  /** Where every partition is as likely as any other: hardly anything is in the processor's caches. */
  readonly admitAndEndUs: number;
  /** Where only so many users are at work. */
  readonly ofFewUsersUs: number;
}

function measure(title: string, nameOf: NameOf, collect: () => void): Row {
  const member = newMember();
  const before = liveBytes(collect);
  fill(member, nameOf);
  const bytesPerPartition = (liveBytes(collect) - before) / partitions;
  const known = [...member.view.entries()].map(([partition]) => partition);
  const admitAndEnd = (partition: string): void => {
    const admission = member.admit(partition, now());
    if (admission.verdict !== 'admit') throw new Error(`${partition} was not admitted`);
    member.end(admission.ticket, 'ended', now());
  };
  return {
    ...{ names: title, bytesPerPartition },
    lookUpUs: stepMicroseconds(known, (partition) => void member.ownershipOf(partition)),
    ofFewUsersUs: stepMicroseconds(known.slice(0, usersAtWork), admitAndEnd),
    admitAndEndUs: stepMicroseconds(known, admitAndEnd),
  };
}

const collect = globalThis.gc;
if (collect === undefined) {
  process.stderr.write('Nothing was measured: memory shows only with node --expose-gc.\n');
  process.exit(1);
}
const rows = Object.entries(names).map(([title, nameOf]) => measure(title, nameOf, collect));
const columns = [
  ...[right('view, B/partition'), right('look-up, us'), right('with admit and end, us')],
  right(`of ${usersAtWork.toLocaleString('en-US')} users, us`),
];
const cells = rows.map((row) => [
  row.names,
  ...[row.bytesPerPartition, row.lookUpUs, row.admitAndEndUs, row.ofFewUsersUs].map((value) => figure(value)),
]);
process.stdout.write(table([left(`${partitions.toLocaleString('en-US')} partitions`), ...columns], cells));
const worst = (of: (row: Row) => number): number => Math.max(...rows.map(of));
const judgements: readonly Judgement[] = [
  judge(
    'admission-time',
    worst(({ ofFewUsersUs }) => ofFewUsersUs),
  ),
  judge(
    'view-memory',
    worst(({ bytesPerPartition }) => bytesPerPartition),
  ),
];
for (const judgement of judgements) process.stdout.write(`${judgement.what}: ${sayJudgement(judgement)}\n`);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine, partitions, rows, judgements }, undefined, 2)}\n`);
}
