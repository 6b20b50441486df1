/** `status`: where writes go, how far the flips are, and what to do next. */
import { statusAnswer, type FlipAnswer, type StatusAnswer } from '../../admin/answers.ts';
import { hasEnded } from '../../core/flip.ts';
import type { AdminClient } from '../client.ts';
import type { Command, Context } from '../command.ts';
import { exitCodes, exitOfFlip, refusal, type Attempt } from '../exit.ts';
import { type Output, plain } from '../output.ts';
import { deadlineOf, poll } from '../wait.ts';
import { showFlipPartitions } from './show-flip-partitions.ts';
import { copiesLine, haltRows, lossLines, strayRows, troubleRows } from './troubles.ts';

const watchEveryMs = 1_000;

export const status: Command = {
  name: 'status',
  summary: 'Show where writes go, of all or of one cohort',
  positionals: ['[COHORT|FLIP]'],
  options: {
    watch: { type: 'boolean', summary: 'Go on until the flip under way has ended.' },
    partitions: {
      type: 'boolean',
      summary: 'Show what each partition of a flip went through; the flip is named by its id.',
    },
  },
  changes: false,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const [cohort] = given.positionals;
    if (given.flag('partitions')) {
      if (cohort !== undefined) return showFlipPartitions(context, admin.value, cohort);
      return refusal('no-flip', 'Name the flip by its id: onewriter status ID --partitions.');
    }
    if (given.flag('watch')) return watch(context, admin.value, cohort, untilMs);
    const asked = await ask(admin.value, cohort);
    if (!asked.ok) return asked.refusal;
    show(context.output, asked.value, cohort);
    return exitCodes.done;
  },
};

function ask(admin: AdminClient, cohort: string | undefined): Promise<Attempt<StatusAnswer>> {
  const query = cohort === undefined ? '' : `?cohort=${encodeURIComponent(cohort)}`;
  return admin.get(`/status${query}`, statusAnswer);
}

async function watch(context: Context, admin: AdminClient, cohort: string | undefined, untilMs: number) {
  let shown = '';
  let following: string | undefined;
  let last: FlipAnswer | undefined;
  const watched = await poll(context, {
    ask: () => ask(admin, cohort),
    seen: (value) => {
      following ??= currentFlip(value)?.id;
      last = value.flips.find((flip) => flip.id === following);
      const line = firstLine(value);
      if (line === shown) return;
      shown = line;
      if (context.output.json) show(context.output, value, cohort);
      else context.output.line(line);
    },
    ended: () => last !== undefined && hasEnded(last.state),
    untilMs,
    goesOn: 'Nothing was changed by watching.',
    everyMs: watchEveryMs,
  });
  if (!watched.ok) return context.interrupted.aborted ? exitCodes.done : watched.refusal;
  context.output.line();
  if (!context.output.json) show(context.output, watched.value, cohort);
  return last === undefined ? exitCodes.done : exitOfFlip(last);
}

/** For example `Writes: 40/120 app, 2 fenced (longest 310 ms), 78 legacy — PAUSED (gate: approval)`. */
export function firstLine(value: Pick<StatusAnswer, 'counts' | 'flips' | 'regression'>): string {
  const { total, writes, longestFenceMs } = value.counts;
  const longest = writes.fenced > 0 ? ` (longest ${Math.round(longestFenceMs)} ms)` : '';
  const where = `${writes.app}/${total} app, ${writes.fenced} fenced${longest}, ${writes.legacy} legacy`;
  if (value.regression !== null) return `Writes: refused. Do not trust what the ledger says now: ${where}`;
  const counts = `Writes: ${where}`;
  const flip = currentFlip(value);
  if (flip === undefined) return counts;
  switch (flip.state) {
    case 'running':
      return `${counts} — RUNNING`;
    case 'awaiting-approval':
      return `${counts} — PAUSED (gate: approval)`;
    case 'paused':
      return `${counts} — PAUSED (${plain(flip.detail)})`;
    case 'planned':
    case 'scheduled':
    case 'completed':
    case 'aborted':
    case 'failed':
      return `${counts} — ${flip.state.toUpperCase()}`;
  }
}

function currentFlip({ flips }: Pick<StatusAnswer, 'flips'>): FlipAnswer | undefined {
  return flips.find((flip) => !hasEnded(flip.state));
}

function show(output: Output, value: StatusAnswer, cohort: string | undefined): void {
  const next = nextSteps(value, cohort);
  output.event('status', { line: firstLine(value), ...value, next });
  if (value.regression !== null) for (const line of lossLines(value.regression)) output.line(line);
  output.line(firstLine(value));
  const { byPhase } = value.counts;
  const rows = [
    ['phases', `${byPhase.open} open, ${byPhase.fenced} fenced, ${byPhase.committed} committed`],
    ['copies', copiesLine(value)],
    ...haltRows(value),
    ...troubleRows(value),
    ['dead letters', String(value.deadLetters)],
    ...strayRows(value.openStrays),
    ['in doubt', inDoubtLine(value)],
    ['members', String(value.members)],
  ];
  const flip = currentFlip(value) ?? value.flips[0];
  if (flip !== undefined) {
    const counts = `${flip.committed}/${flip.total} committed, ${flip.aborted} aborted, ${flip.pending} pending, ${flip.blocked.length - flip.aborted} blocked`;
    rows.push(['flip', `${flip.id} of ${plain(flip.cohort)} to ${flip.to}: ${flip.state}, ${counts}`]);
    if (flip.pauseMs !== undefined) {
      rows.push([
        'write pause',
        `p99 ${Math.round(flip.pauseMs.p99)} ms, max ${Math.round(flip.pauseMs.max)} ms`,
      ]);
    }
    const failure = flip.blocked.at(-1);
    const lastError =
      failure === undefined ? flip.detail : `${failure.partition}: ${failure.code}: ${failure.detail}`;
    if (lastError !== '') rows.push(['last error', plain(lastError)]);
  }
  if (value.registry.newPartitions === 'app') rows.push(['new ones', plain(value.registry.detail)]);
  if (value.newcomers !== undefined && value.newcomers.count > 0) {
    rows.push(['newcomers', newcomersLine(value.newcomers)]);
  }
  if (value.windowsClosedByRestore > 0) {
    const closed = `closed by a restore for ${value.windowsClosedByRestore} partitions in the app, nothing of them is copied back: onewriter window status`;
    rows.push(['rollback window', closed]);
  }
  for (const gap of value.durabilityGaps) rows.push(['ledger', plain(gap)]);
  output.table(rows, '  ');
  if (next.length > 0) output.line('Next:');
  for (const step of next) output.line(`  ${step}`);
}

function inDoubtLine({ inDoubt }: StatusAnswer): string {
  if (inDoubt.writes === 0) return '0';
  return `${inDoubt.writes} ${inDoubt.writes === 1 ? 'write' : 'writes'}, of ${inDoubt.partitions.map(plain).join(', ')}: not moved until they settle`;
}

function newcomersLine({ count, partitions, to }: NonNullable<StatusAnswer['newcomers']>): string {
  const more = count > partitions.length ? ` and ${count - partitions.length} more` : '';
  return `${count} partitions that the cohort selects now are not in ${to}: ${partitions.map(plain).join(', ')}${more}`;
}

/** Commands that fit the situation; never one that reverses, discards or aborts. */
export function nextSteps(
  value: Pick<StatusAnswer, 'counts' | 'flips' | 'newcomers' | 'regression'>,
  cohort: string | undefined,
): string[] {
  // The lines on the loss say what is next.
  if (value.regression !== null) return [];
  const current = currentFlip(value);
  if (current !== undefined) {
    const watching = `onewriter status ${current.cohort} --watch`;
    return current.state === 'paused'
      ? [`onewriter resume ${current.id} --reason TEXT`, watching]
      : [watching];
  }
  const ended = value.flips[0];
  const name = cohort ?? ended?.cohort;
  const named = name ?? 'NAME';
  const steps: string[] = [];
  // Of what the app owns there is nothing to compare: nothing is copied back from it.
  const copied = ended !== undefined && (ended.to === 'legacy' || ended.committed < ended.total);
  if (copied && ended.committed > 0) steps.push(`onewriter verify ${named}`);
  const unfinished = cohort === undefined || value.counts.writes.legacy > 0;
  if (unfinished && (ended === undefined || ended.committed < ended.total || ended.blocked.length > 0)) {
    steps.push(`onewriter plan --cohort ${named} --to app`);
  }
  const forNewcomers = value.newcomers?.command;
  if (forNewcomers !== undefined && !steps.includes(forNewcomers)) steps.push(forNewcomers);
  return steps;
}
