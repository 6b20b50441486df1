/**
 * Reads the evidence of a run from the outside (the users' journal, both stores' own logs and contents, the
 * ledger's stream of transitions) and prints it as a table.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { AcceptedWrite, Appointment } from './appointment.ts';
import { checkJournal, type Evidence, type OwnerSpan, parseJournal } from './check.ts';
import type { Scene } from './demo-scene.ts';
import type { Ended, JournalEntry } from './journal.ts';

export interface RunEvidence extends Evidence {
  /** Failed requests on connections to processes that nobody killed, by code. */
  readonly failedElsewhere: Readonly<Record<string, number>>;
  readonly failedOnKilled: number;
  readonly handoffs: { readonly committed: number; readonly aborted: number };
  /** Time from fence to release of every handoff that committed, Redis's clock. */
  readonly pausesMs: readonly number[];
}

interface LedgerEntry {
  readonly partition: string;
  readonly before: { readonly phase: string; readonly owner: 'legacy' | 'app'; readonly changedAtMs: number };
  readonly after: { readonly phase: string; readonly owner: 'legacy' | 'app'; readonly changedAtMs: number };
}

export async function checkRun(scene: Scene): Promise<RunEvidence> {
  const transitions = await readTransitions(scene.redisUrl);
  const ownership: Record<string, OwnerSpan[]> = {};
  for (const { partition, before, after } of transitions) {
    if (before.owner === after.owner) continue;
    (ownership[partition] ??= []).push({ owner: after.owner, fromMs: after.changedAtMs });
  }
  const journal = parseJournal(await readFile(scene.journal, 'utf8'));
  const [legacyDump, appDump, legacyLog, appLog] = await Promise.all([
    ask<Appointment[]>(scene.witnesses.legacy, '/_dump'),
    ask<Appointment[]>(scene.witnesses.app, '/_dump'),
    ask<AcceptedWrite[]>(scene.witnesses.legacy, '/_log'),
    ask<AcceptedWrite[]>(scene.witnesses.app, '/_log'),
  ]);
  // Kept beside the journal, so that a broken promise can be traced after everything has ended.
  for (const [name, content] of Object.entries({ legacyDump, appDump, legacyLog, appLog, transitions })) {
    await writeFile(join(scene.directory, `${name}.json`), JSON.stringify(content));
  }
  const evidence = checkJournal({ journal, ownership, legacyDump, appDump, legacyLog, appLog });
  return { ...evidence, ...failuresByProxy(journal, scene.killedProxy()), ...handoffsOf(transitions) };
}

function failuresByProxy(
  journal: readonly JournalEntry[],
  killed: string | undefined,
): Pick<RunEvidence, 'failedElsewhere' | 'failedOnKilled'> {
  const failed = journal.filter((entry): entry is Ended => entry.step === 'fail' || entry.step === 'unknown');
  const failedElsewhere: Record<string, number> = {};
  for (const { proxy, code = 'none' } of failed.filter((entry) => entry.proxy !== killed)) {
    failedElsewhere[`${code} at ${proxy}`] = (failedElsewhere[`${code} at ${proxy}`] ?? 0) + 1;
  }
  return { failedElsewhere, failedOnKilled: failed.filter((entry) => entry.proxy === killed).length };
}

function handoffsOf(transitions: readonly LedgerEntry[]): Pick<RunEvidence, 'handoffs' | 'pausesMs'> {
  const fencedAtMs = new Map<string, number>();
  const pausesMs: number[] = [];
  let aborted = 0;
  for (const { partition, before, after } of transitions) {
    if (after.phase === 'fenced') fencedAtMs.set(partition, after.changedAtMs);
    if (before.phase === 'fenced' && after.phase === 'open') aborted += 1;
    if (before.phase === 'committed' && after.phase === 'open') {
      pausesMs.push(after.changedAtMs - (fencedAtMs.get(partition) ?? after.changedAtMs));
    }
  }
  return { handoffs: { committed: pausesMs.length, aborted }, pausesMs };
}

async function readTransitions(redisUrl: string): Promise<LedgerEntry[]> {
  const redis = new Redis(redisUrl);
  try {
    const entries = await redis.xrange('{onewriter}:changes', '-', '+');
    const ownership = entries.filter(([, fields]) => fields.includes('ownership'));
    return ownership.map(([, fields]) => {
      const value = (name: string): string => fields[fields.indexOf(name) + 1] ?? '';
      const [before, after] = [value('before'), value('after')].map((json) => JSON.parse(json) as unknown);
      return { partition: value('partition'), before, after } as LedgerEntry;
    });
  } finally {
    redis.disconnect();
  }
}

async function ask<Answer>(base: string, path: string): Promise<Answer> {
  const answer = await fetch(base + path);
  if (!answer.ok) throw new Error(`${base}${path} answered ${answer.status}`);
  return (await answer.json()) as Answer;
}

function idlePause(pause: { p50: number; p99: number; max: number } | undefined): string {
  return pause === undefined ? 'none moved' : `${pause.p50} / ${pause.p99} / ${pause.max} ms`;
}

/** Prints the table; true when a promise was broken. */
export function printEvidence(run: {
  readonly evidence: RunEvidence;
  readonly flips: readonly { readonly state: string; readonly committed: number }[];
  /** Write pauses of the users who were away. */
  readonly idle: { readonly p50: number; readonly p99: number; readonly max: number } | undefined;
  readonly verified: number;
  readonly seconds: number;
  readonly platform: string;
}): boolean {
  const { evidence } = run;
  const { count } = evidence;
  const elsewhere = Object.values(evidence.failedElsewhere).reduce((sum, times) => sum + times, 0);
  const found = evidence.acknowledgedWrites - count.lost - count.doubled;
  const sorted = evidence.pausesMs.toSorted((a, b) => a - b);
  const quantile = (share: number): number => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? 0;
  const rows: [what: string, value: string, kept: boolean | undefined][] = [
    ['writes acknowledged to users', String(evidence.acknowledgedWrites), evidence.acknowledgedWrites > 0],
    ['  found exactly once at the owner', String(found), found === evidence.acknowledgedWrites],
    ['  lost / doubled', `${count.lost} / ${count.doubled}`, count.lost + count.doubled === 0],
    ['  refused, but done', String(count['refused-but-done']), count['refused-but-done'] === 0],
    ['writes at a store that did not own them', String(count['wrong-store']), count['wrong-store'] === 0],
    ['overlapping appointments', String(count.overlap), count.overlap === 0],
    ['requests failed', String(elsewhere), elsewhere === 0],
    ['  on connections to the killed proxy', String(evidence.failedOnKilled), undefined],
    ['writes with unknown outcome', String(evidence.unknownWrites), undefined],
    ['write pause p50 / p99 / max', `${quantile(0.5)} / ${quantile(0.99)} / ${quantile(1)} ms`, undefined],
    ['  of users who are away', idlePause(run.idle), undefined],
    [
      'handoffs committed / aborted',
      `${evidence.handoffs.committed} / ${evidence.handoffs.aborted}`,
      sorted.length > 0,
    ],
    ['flips', run.flips.map((flip) => flip.state).join(', '), undefined],
    ['differences between legacy and its copy', run.verified === 0 ? 'none' : 'some', run.verified === 0],
    ['time', `${run.seconds.toFixed(1)} s`, undefined],
  ];
  const width = Math.max(...rows.map(([what]) => what.length));
  process.stdout.write(`\nEvidence (platform: ${run.platform})\n`);
  for (const [what, value, kept] of rows) {
    const mark = kept === undefined ? ' ' : kept ? '✓' : '✗';
    process.stdout.write(`  ${mark} ${what.padEnd(width)}  ${value}\n`);
  }
  for (const { finding, user, detail } of evidence.findings.slice(0, 20)) {
    process.stdout.write(`    ${finding} (${user}): ${detail}\n`);
  }
  for (const [code, times] of Object.entries(evidence.failedElsewhere)) {
    process.stdout.write(`    failed: ${code}, ${times} times\n`);
  }
  const broken = rows.some(([, , kept]) => kept === false);
  process.stdout.write(broken ? '\nA promise was broken.\n' : '\nEvery promise was kept.\n');
  return broken;
}
