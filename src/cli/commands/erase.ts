/** `erase`, `erase show` and `erase list`: removes one partition everywhere, and shows the receipt. */
import {
  type ErasureAnswer,
  erasureAnswer,
  type ErasurePlanAnswer,
  erasurePlanAnswer,
  erasuresAnswer,
} from '../../admin/erasures.ts';
import type { AdminClient } from '../client.ts';
import type { Command, Context, Given } from '../command.ts';
import { type CliRefusal, exitCodes, type ExitCode, refusal } from '../exit.ts';
import { writeWhole } from '../files.ts';
import { type Output, plain } from '../output.ts';
import { deadlineOf, poll } from '../wait.ts';
import { confirm, mayAsk } from './confirm.ts';

/** Lists over all partitions can be long. */
const planWithinMs = 600_000;
const out = {
  type: 'string',
  value: 'FILE',
  summary: 'Write the receipt as JSON into this file.',
} as const;

const run: Command = {
  name: 'erase',
  summary: 'Remove a partition from both stores and from what onewriter keeps',
  positionals: ['[PARTITION]'],
  options: {
    partition: { type: 'string', value: 'NAME', summary: 'Which one; the same as PARTITION.' },
    plan: { type: 'boolean', summary: 'Only count what would be removed.' },
    'no-wait': { type: 'boolean', summary: 'Return once it has begun.' },
    out,
  },
  changes: false,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const partition = given.positionals[0] ?? given.text('partition');
    if (partition === undefined) return refusal('usage', 'Name the partition: onewriter erase PARTITION.');
    if (!given.flag('plan') && context.reason === '') {
      return refusal('usage', '"erase" changes state, so it needs --reason TEXT; nothing was done.');
    }
    const unasked = given.flag('plan') ? undefined : mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const planned = await admin.value.post('/erasures/plan', { partition }, erasurePlanAnswer, planWithinMs);
    if (!planned.ok) return planned.refusal;
    showPlan(context.output, planned.value);
    if (given.flag('plan')) return exitOfPlan(planned.value);
    const question = 'Remove all of this? It cannot be undone.';
    const unconfirmed = await confirm(context, question, partition);
    if (unconfirmed !== undefined) return unconfirmed;
    const order = { partition, confirm: partition, reason: context.reason };
    const begun = await admin.value.post('/erasures', order, erasureAnswer);
    if (!begun.ok) return begun.refusal;
    const { id } = begun.value;
    if (given.flag('no-wait')) {
      context.output.event('erasure', begun.value);
      context.output.line(`${id} has begun; onewriter erase show ${id} says how far it is.`);
      return exitCodes.done;
    }
    return follow(context, admin.value, id, untilMs, given);
  },
};

const show: Command = {
  name: 'erase show',
  summary: 'Show how far an erasure is, or its receipt',
  positionals: ['<ERASURE>'],
  options: { out },
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/erasures/${encodeURIComponent(given.positionals[0] ?? '')}`;
    const found = await admin.value.get(path, erasureAnswer);
    return found.ok ? ended(context, found.value, given) : found.refusal;
  },
};

const list: Command = {
  name: 'erase list',
  summary: 'List the erasures; of one partition where it is named',
  positionals: ['[PARTITION]'],
  options: {},
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const [partition] = given.positionals;
    const query = partition === undefined ? '' : `?partition=${encodeURIComponent(partition)}`;
    const listed = await admin.value.get(`/erasures${query}`, erasuresAnswer);
    if (!listed.ok) return listed.refusal;
    const { output } = context;
    const { erasures } = listed.value;
    for (const erasure of erasures) output.event('erasure', erasure);
    if (erasures.length === 0) output.line('There are no erasures.');
    output.table(
      erasures.map(({ id, state, orders, partition: hash }) => [
        ...[id, state, hash],
        plain(`${dateOf(orders[0]?.atMs)} by ${orders[0]?.by ?? ''}: ${orders[0]?.reason ?? ''}`),
      ]),
    );
    return exitCodes.done;
  },
};

export const eraseCommands: readonly Command[] = [run, show, list];

async function follow(
  context: Context,
  admin: AdminClient,
  id: string,
  untilMs: number,
  given: Given,
): Promise<ExitCode | CliRefusal> {
  let shown = '';
  const done = await poll(context, {
    ask: () => admin.get(`/erasures/${id}`, erasureAnswer),
    ended: ({ state }) => state !== 'running',
    seen: ({ state, step, turns, removed, trouble }) => {
      const now = `${step}: ${sum(removed)} records deleted${trouble === undefined ? '' : `; waits: ${trouble.detail}`}`;
      if (now === shown || state !== 'running') return;
      shown = now;
      context.output.event('progress', { step, turns, removed, ...(trouble && { trouble }) });
      context.output.line(plain(now));
    },
    untilMs,
    goesOn: `The erasure ${id} goes on; onewriter erase show ${id} says how far it is.`,
  });
  return done.ok ? ended(context, done.value, given) : done.refusal;
}

async function ended(
  { output }: Context,
  erasure: ErasureAnswer,
  given: Given,
): Promise<ExitCode | CliRefusal> {
  output.event('erasure', erasure);
  showErasure(output, erasure);
  const { receipt, state } = erasure;
  const file = given.text('out');
  if (file !== undefined && receipt === undefined) {
    return refusal('no-receipt', `There is no receipt before the erasure is done; ${file} was not written.`);
  }
  if (file !== undefined) {
    const failed = await writeWhole(file, `${JSON.stringify(receipt, undefined, 2)}\n`);
    if (failed !== undefined) return failed;
  }
  return state === 'failed' ? exitCodes.error : exitCodes.done;
}

function showPlan(output: Output, { look, forgets }: ErasurePlanAnswer): void {
  output.event('plan', { look, forgets });
  output.table([
    ...look.records.map(({ store, kind, records }) => [store, plain(kind), `${records} to delete`]),
    ...look.tombstones.map(({ store, kind, records }) => [store, plain(kind), `${records} deleted already`]),
    ...look.unreadable.map(({ store, kind, records }) => [store, plain(kind), `${records} without an id`]),
    ...forgets.map(({ place, entries }) => ['onewriter', place, `${entries} to forget`]),
  ]);
  for (const store of look.unseen) {
    output.line(output.paint('yellow', `${store} is not looked at: it has no connector with records.`));
  }
  for (const { store, kind } of look.undeletable) {
    output.line(output.paint('red', plain(`The connector of ${store} has no "delete" for ${kind}.`)));
  }
  const places = forgets.reduce((all, { entries }) => all + entries, 0);
  output.line(`Plan: ${sum(look.records)} records to delete, ${places} entries to forget`);
}

function exitOfPlan({ look, forgets }: ErasurePlanAnswer): ExitCode {
  if (look.undeletable.length > 0) return exitCodes.precheckFailed;
  return look.records.length + forgets.length > 0 ? exitCodes.planNotEmpty : exitCodes.done;
}

function showErasure(output: Output, erasure: ErasureAnswer): void {
  const { id, state, step, partition, orders, removed, forgotten, trouble, receipt } = erasure;
  output.table([
    ['erasure', id],
    ['partition', partition],
    ['state', state === 'running' ? `${state}, ${step}` : state],
    ...orders.map(({ by, reason, atMs }) => ['ordered', plain(`${dateOf(atMs)} by ${by}: ${reason}`)]),
    ...(trouble === undefined ? [] : [['trouble', plain(`${trouble.code}: ${trouble.detail}`)]]),
    ...removed.map(({ store, kind, records }) => ['deleted', plain(`${records} ${kind} in ${store}`)]),
    ...forgotten.map(({ place, entries }) => ['forgotten', `${entries} in ${place}`]),
    ...(receipt?.kept ?? []).map(({ place, what }) => ['kept', `${place}: ${what}`]),
    ...(receipt === undefined ? [] : [['sha256', receipt.sha256]]),
  ]);
  for (const warning of receipt?.warnings ?? []) output.line(output.paint('yellow', plain(warning)));
  if (state === 'failed') output.line('Order it again to go on: onewriter erase PARTITION --reason TEXT');
}

function sum(all: readonly { readonly records: number }[]): number {
  return all.reduce((total, { records }) => total + records, 0);
}

function dateOf(ms = 0): string {
  return new Date(ms).toISOString();
}
