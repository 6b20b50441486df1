/** `ledger export` and `ledger restore`: a copy of the ledger for bad days, and the way back from one. */
import { readFile } from 'node:fs/promises';
import { restoreAnswer, type RestoreAnswer } from '../../admin/answers.ts';
import { sourceKinds } from '../../core/restore.ts';
import { NotALedgerDocument, parseDocument } from '../../ledger/document.ts';
import type { Command, Context, Given } from '../command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from '../exit.ts';
import { codeOf, writeWhole } from '../files.ts';
import { plain } from '../output.ts';
import { confirm, mayAsk } from './confirm.ts';

/** A large ledger and its guard take their time, and nothing is admitted meanwhile anyway. */
const restoreWithinMs = 1_800_000;
const exportWithinMs = 300_000;
const conflictsShown = 20;

const exportCommand: Command = {
  name: 'ledger export',
  summary: 'Write down who owns what, for a restore',
  positionals: [],
  options: { out: { type: 'string', value: 'FILE', summary: 'Into this file; else to standard output.' } },
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const got = await admin.value.getText('/ledger/export', exportWithinMs);
    if (!got.ok) return got.refusal;
    const lines = got.value.trimEnd().split('\n');
    const read = readDocument(lines, 'The export');
    if (!read.ok) return read.refusal;
    const out = given.text('out');
    if (out === undefined) {
      for (const line of lines) context.output.line(line);
    } else {
      const failed = await writeWhole(out, got.value);
      if (failed !== undefined) return failed;
      context.output.line(`Wrote ${read.value.partitions.size} partitions to ${out}.`);
    }
    const { partitions, position } = read.value;
    context.output.event('export', {
      partitions: partitions.size,
      version: position.version,
      file: out ?? null,
    });
    return exitCodes.done;
  },
};

const restore: Command = {
  name: 'ledger restore',
  summary: 'Restore a ledger that lost data: show the plan, ask, restore',
  positionals: [],
  options: {
    from: {
      type: 'string',
      value: 'member|empty|FILE',
      summary: 'What the members know; an export; or nothing, where it was emptied on purpose.',
    },
    plan: { type: 'boolean', summary: 'Only show what would be done.' },
    prefer: {
      type: 'string',
      value: 'SOURCE',
      summary: `Which source decides where two disagree: ${sourceKinds.join(', ')}.`,
    },
    'without-guard': {
      type: 'boolean',
      summary: 'Do not ask the guard of the app which epochs it has seen.',
    },
    'without-directory': {
      type: 'boolean',
      summary: 'Although nothing can bring back the entries of the directory.',
    },
    'even-though-healthy': { type: 'boolean', summary: 'Although nobody has noticed a loss.' },
  },
  changes: true,
  async run(context, given) {
    const order = await orderOf(context, given);
    if (!order.ok) return order.refusal;
    const planOnly = given.flag('plan');
    const unasked = planOnly ? undefined : mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const send = (more: object) =>
      admin.value.postLines(
        '/ledger/restore',
        [JSON.stringify({ ...order.value.body, ...more }), ...order.value.lines],
        restoreAnswer,
        restoreWithinMs,
      );
    const planned = await send({ plan: true });
    if (!planned.ok) return planned.refusal;
    context.output.event('plan', planned.value);
    show(context, planned.value);
    if (planOnly) return planned.value.conflictCount > 0 ? exitCodes.precheckFailed : exitCodes.planNotEmpty;
    const declined = await confirm(context, 'Make this the ledger?', 'restore');
    if (declined !== undefined) return declined;
    context.output.aside('Waiting until every lease from before the loss is over, then restoring.');
    const done = await send({ confirm: 'restore' });
    if (!done.ok) return done.refusal;
    context.output.event('restore', done.value);
    show(context, done.value);
    return exitCodes.done;
  },
};

interface Order {
  readonly body: Readonly<Record<string, unknown>>;
  /** Of the export. */
  readonly lines: readonly string[];
}

async function orderOf(context: Context, given: Given): Promise<Attempt<Order>> {
  const from = given.text('from');
  if (from === undefined) {
    return failedAttempt(
      refusal('usage', 'Say what to restore from: --from member, --from FILE, or --from empty.'),
    );
  }
  const prefer = given.text('prefer');
  if (prefer !== undefined && !sourceKinds.some((kind) => kind === prefer)) {
    return failedAttempt(refusal('usage', `--prefer takes one of ${sourceKinds.join(', ')}.`));
  }
  const body = {
    reason: context.reason,
    ...(prefer === undefined ? {} : { prefer }),
    withoutGuard: given.flag('without-guard'),
    evenThoughHealthy: given.flag('even-though-healthy'),
    withoutDirectory: given.flag('without-directory'),
  };
  if (from === 'member' || from === 'empty')
    return { ok: true, value: { body: { ...body, from }, lines: [] } };
  let text: string;
  try {
    text = await readFile(from, 'utf8');
  } catch (error) {
    return failedAttempt(
      refusal('cannot-read', `${from} cannot be read (${codeOf(error)}). Nothing was done.`),
    );
  }
  const lines = text.trimEnd().split('\n');
  const read = readDocument(lines, from);
  return read.ok ? { ok: true, value: { body: { ...body, from: 'export' }, lines } } : read;
}

function readDocument(lines: readonly string[], name: string): Attempt<ReturnType<typeof parseDocument>> {
  try {
    return { ok: true, value: parseDocument(lines) };
  } catch (error) {
    if (!(error instanceof NotALedgerDocument)) throw error;
    return failedAttempt(
      refusal('bad-file', `${name} is no export of a ledger: ${error.message}. Nothing was done.`),
    );
  }
}

/** Whole or not at all. It names customers, so it is for this user only. */
function show({ output }: Context, value: RestoreAnswer): void {
  const { partitions, sources, guard, conflicts, conflictCount } = value;
  output.table(
    sources.map(({ source, kind, version, partitions: all, decided }) => [
      kind,
      `version ${version}`,
      `${all} partitions`,
      `decides ${decided}`,
      plain(source),
    ]),
    '  ',
  );
  if (guard !== null)
    output.line(`  The guard was asked about ${guard.asked} partitions and knows ${guard.answered}.`);
  for (const { partition, detail } of conflicts.slice(0, conflictsShown)) {
    output.line(`  conflict  ${plain(partition)}: ${plain(detail)}`);
  }
  if (conflictCount > conflictsShown) output.line(`  and ${conflictCount - conflictsShown} more conflicts`);
  const { app, legacy, untouched } = partitions;
  const counts = `${app} to app, ${legacy} to legacy, ${untouched} as ever, ${conflictCount} in conflict`;
  if (!value.restored) output.line(`Plan: ${counts}`);
  else {
    output.line(`Restored: ${counts}; the ledger goes on at version ${value.version}.`);
    if (!value.durable)
      output.line('Too few replicas have confirmed it yet: writes are taken once they have.');
  }
  if (value.rollbackWindow === 'on' && app > 0) for (const line of windowLines(value)) output.line(line);
}

function windowLines({ restored, partitions: { app } }: RestoreAnswer): string[] {
  const what = restored ? 'are closed' : 'would be closed';
  return [
    `The rollback windows of the ${app} in the app ${what}, because nobody knows any more which of them you had closed:`,
    'nothing of them is copied back to legacy. Those that are to stay open need, for each cohort:',
    '  onewriter window open COHORT --reason TEXT',
  ];
}

export const ledgerCommands: readonly Command[] = [exportCommand, restore];
