/** `sync …`: how late the copies are, what could not be copied, and which deletes are held back. */
import {
  type BackfillAnswer,
  brakeAnswer,
  brakesAnswer,
  deadLetterAnswer,
  deadLettersAnswer,
  type SyncAnswer,
  syncAnswer,
} from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes, refusal } from '../exit.ts';
import { plain } from '../output.ts';
import { troubleRows } from './troubles.ts';

const lettersShown = 50;

const status: Command = {
  name: 'sync status',
  summary: 'How late the copies are, how far first copies are, and which records could not be copied',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const sync = await admin.value.get('/sync', syncAnswer);
    if (!sync.ok) return sync.refusal;
    const listed = await admin.value.get('/dead-letters', deadLettersAnswer);
    if (!listed.ok) return listed.refusal;
    const { deadLetters } = listed.value;
    const { output } = context;
    const { backfills, lagMs, unreachable, pollFailure, webhooks } = sync.value;
    output.event('sync', { lagMs, unreachable, pollFailure, deadLetters, backfills, webhooks });
    output.table([
      ['copies', lagMs === null ? 'no complete poll yet' : `${Math.round(lagMs)} ms behind`],
      ...troubleRows(sync.value),
      ...backfills.map((backfill) => [`first copy of ${plain(backfill.kind)}`, sentenceOf(backfill)]),
      ['dead letters', String(sync.value.deadLetters)],
      ...(sync.value.deleteBrakes === 0
        ? []
        : [['deletes held back', `${sync.value.deleteBrakes} partitions: onewriter sync brakes`]]),
      ...(webhooks.deliveries.length === 0 ? [] : [['webhooks', sentenceOfWebhooks(webhooks)]]),
    ]);
    output.table(
      deadLetters
        .slice(0, lettersShown)
        .map(({ letter, partition, kind, id, reason }) => [
          letter,
          plain(partition),
          plain(`${kind} ${id}`),
          plain(reason),
        ]),
      '  ',
    );
    if (deadLetters.length > 0) {
      output.line('Mend what the reasons name, then: onewriter sync retry --all --reason TEXT');
    }
    return exitCodes.done;
  },
};

function sentenceOf({ phase, records, total, perSecond, startedMs, endsMs }: BackfillAnswer): string {
  if (phase === 'looking') return 'looking what is there already';
  const of = total === null ? `${records} records` : `${records} of ${total} records`;
  if (phase === 'given-up') return `${of}; given up, full passes do the rest`;
  if (phase === 'done') return `${of}, done in ${Math.round(((endsMs ?? startedMs) - startedMs) / 1_000)} s`;
  const rate = perSecond === null ? '' : `, ${Math.round(perSecond)}/s`;
  const end = endsMs === null ? '' : `, expected to end at ${new Date(endsMs).toISOString()}`;
  return `${of}${rate}${end}`;
}

function sentenceOfWebhooks({ waiting, deliveries }: SyncAnswer['webhooks']): string {
  const counts = deliveries.map((one) => `${one.deliveries} ${plain(one.outcome)} (${plain(one.store)})`);
  return `${waiting} records wait; deliveries: ${counts.join(', ')}`;
}

const retry: Command = {
  name: 'sync retry',
  summary: 'Look again at records that could not be copied',
  positionals: ['[LETTER]'],
  options: { all: { type: 'boolean', summary: 'All dead letters.' } },
  changes: true,
  async run(context, given) {
    const [named] = given.positionals;
    if ((named === undefined) !== given.flag('all')) {
      return refusal('usage', 'Name one dead letter (onewriter sync status lists them), or --all.');
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    let letters = named === undefined ? [] : [named];
    if (named === undefined) {
      const listed = await admin.value.get('/dead-letters', deadLettersAnswer);
      if (!listed.ok) return listed.refusal;
      letters = listed.value.deadLetters.map(({ letter }) => letter);
    }
    let rung = 0;
    for (const letter of letters) {
      const path = `/dead-letters/${encodeURIComponent(letter)}/retry`;
      const done = await admin.value.post(path, { reason: context.reason }, deadLetterAnswer);
      // Of all: one that is gone by now was copied in the meantime, and stops none of the others.
      if (!done.ok && named === undefined && done.refusal.code === 'no-such-dead-letter') continue;
      if (!done.ok) return done.refusal;
      rung += 1;
      context.output.event('retry', done.value);
    }
    context.output.line(`${rung} records are looked at again; onewriter sync status shows what remains.`);
    return exitCodes.done;
  },
};

const brakes: Command = {
  name: 'sync brakes',
  summary: 'Partitions of which many copies would be deleted at once, and are not',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const listed = await admin.value.get('/sync/brakes', brakesAnswer);
    if (!listed.ok) return listed.refusal;
    const { output } = context;
    for (const brake of listed.value.brakes) output.event('brake', brake);
    output.table(
      listed.value.brakes.map(({ partition, deletes, records, first, atMs }) => [
        plain(partition),
        `${deletes} of ${records} copies`,
        `since ${new Date(atMs).toISOString()}`,
        plain(`first: ${first.join(', ')}`),
      ]),
    );
    output.line(
      listed.value.brakes.length === 0
        ? 'No deletes are held back.'
        : 'Look whether the owner has really deleted them, then: onewriter sync release PARTITION --reason TEXT',
    );
    return exitCodes.done;
  },
};

const release: Command = {
  name: 'sync release',
  summary: 'Agree to the deletes of a partition that are held back',
  positionals: ['PARTITION'],
  options: {},
  changes: true,
  async run(context, given) {
    const [partition = ''] = given.positionals;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/sync/brakes/${encodeURIComponent(partition)}/release`;
    const done = await admin.value.post(path, { reason: context.reason }, brakeAnswer);
    if (!done.ok) return done.refusal;
    context.output.event('released', done.value);
    context.output.line(
      `Up to ${done.value.deletes} copies of ${plain(partition)} are deleted now; each only after the owner has said that the record is gone.`,
    );
    return exitCodes.done;
  },
};

export const syncCommands: readonly Command[] = [status, retry, brakes, release];
