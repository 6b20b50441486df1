/** `sync …`: how late the copies are, pausing them, what could not be copied, and which deletes are held back. */
import {
  type BackfillAnswer,
  deadLetterAnswer,
  deadLettersAnswer,
  pausesAnswer,
  type SyncAnswer,
  syncAnswer,
} from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { whyRefused } from '../../sync/webhooks/refusals.ts';
import { exitCodes, refusal } from '../exit.ts';
import { plain } from '../output.ts';
import { brakeCommands } from './sync-brakes.ts';
import { copiesLine, haltRows, lossLines, pauseRows, strayRows, troubleRows } from './troubles.ts';

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
    const { backfills, failing, lagMs, pauses, regression, unreachable, pollFailure, webhooks, openStrays } =
      sync.value;
    const troubles = { unreachable, pollFailure, failing };
    output.event('sync', {
      regression,
      lagMs,
      pauses,
      ...troubles,
      deadLetters,
      openStrays,
      backfills,
      webhooks,
    });
    if (regression !== null) for (const line of lossLines(regression)) output.line(line);
    output.table([
      ['copies', copiesLine(sync.value)],
      ...haltRows({ pauses, failing }),
      ...troubleRows(sync.value),
      ...backfills.map((backfill) => [`first copy of ${plain(backfill.kind)}`, sentenceOf(backfill)]),
      ['dead letters', String(sync.value.deadLetters)],
      ...strayRows(openStrays),
      ...(sync.value.deleteBrakes === 0
        ? []
        : [['deletes held back', `${sync.value.deleteBrakes} partitions: onewriter sync brakes`]]),
      ...(sync.value.deletesHeld
        ? [['NOTHING IS DELETED', 'too many copies were to be: onewriter sync brakes']]
        : []),
      ...(webhooks.deliveries.length === 0 ? [] : [['webhooks', sentenceOfWebhooks(webhooks)]]),
      ...refusedRows(webhooks),
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
      output.line(
        'Mend what the reasons name ("onewriter sync show LETTER" has what the store said), then: onewriter sync retry --all --reason TEXT',
      );
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

function refusedRows({ deliveries: all }: SyncAnswer['webhooks']): string[][] {
  return all.flatMap(({ store, outcome, deliveries }) => {
    const why = whyRefused(plain(store), outcome);
    return why === undefined ? [] : [[`REFUSED from ${plain(store)}`, `${deliveries} webhooks: ${why}`]];
  });
}

const retry: Command = {
  name: 'sync retry',
  summary: 'Look again at records that could not be copied',
  positionals: ['[LETTER]'],
  options: {
    all: { type: 'boolean', summary: 'All dead letters.' },
    partition: { type: 'string', value: 'NAME', summary: 'All dead letters of this partition.' },
  },
  changes: true,
  async run(context, given) {
    const [named] = given.positionals;
    const partition = given.text('partition');
    if ([named !== undefined, given.flag('all'), partition !== undefined].filter(Boolean).length !== 1) {
      const detail =
        'Name one dead letter (onewriter sync status lists them), or --partition NAME, or --all.';
      return refusal('usage', detail);
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    let letters = named === undefined ? [] : [named];
    if (named === undefined) {
      const query = partition === undefined ? '' : `?partition=${encodeURIComponent(partition)}`;
      const listed = await admin.value.get(`/dead-letters${query}`, deadLettersAnswer);
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

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

const summaries = {
  pause: 'Stop the copying, at all or to one store',
  resume: 'Go on with copying that was paused; without a store, lifts every pause',
} as const;

const steering: readonly Command[] = (['pause', 'resume'] as const).map((action) => ({
  name: `sync ${action}`,
  summary: summaries[action],
  positionals: ['[STORE]'],
  options: {},
  changes: true,
  async run(context, given) {
    const [to] = given.positionals;
    if (to !== undefined && to !== 'legacy' && to !== 'app') {
      return refusal('usage', `There is no store "${to}"; it is legacy or app, or left out for both.`);
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const order = { reason: context.reason, ...(to === undefined ? {} : { to }) };
    const done = await admin.value.post(`/sync/${action}`, order, pausesAnswer);
    if (!done.ok) return done.refusal;
    const { pauses } = done.value;
    context.output.event('sync', { pauses });
    if (pauses.length === 0)
      context.output.line('Copies are made again; what has changed meanwhile is found.');
    else context.output.table(pauseRows(pauses));
    return exitCodes.done;
  },
}));

const show: Command = {
  name: 'sync show',
  summary: 'Show one record that could not be copied',
  positionals: ['<LETTER>'],
  options: {},
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const listed = await admin.value.get('/dead-letters', deadLettersAnswer);
    if (!listed.ok) return listed.refusal;
    const [named = ''] = given.positionals;
    const found = listed.value.deadLetters.find(({ letter }) => letter === named);
    if (found === undefined)
      return refusal('no-such-dead-letter', `There is no dead letter ${plain(named)}.`);
    context.output.event('letter', found);
    context.output.table([
      ['record', plain(`${found.kind} ${found.id}`)],
      ['partition', plain(found.partition)],
      ['reason', plain(found.reason)],
      ...(found.said === undefined ? [] : [['the store said', plain(found.said)] as const]),
      ['given up', `${found.times} times, last at ${isoOf(found.atMs)}`],
      ['first at', isoOf(found.firstMs ?? found.atMs)],
    ]);
    return exitCodes.done;
  },
};

const discard: Command = {
  name: 'sync discard',
  summary: 'Forget that a record could not be copied, without copying it',
  positionals: ['<LETTER>'],
  options: {},
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const [named = ''] = given.positionals;
    const path = `/dead-letters/${encodeURIComponent(named)}/discard`;
    const done = await admin.value.post(path, { reason: context.reason }, deadLetterAnswer);
    if (!done.ok) return done.refusal;
    const { kind, id, partition } = done.value;
    context.output.event('letter', done.value);
    context.output.line(plain(`${kind} ${id} of ${partition} is forgotten; its copy was not changed.`));
    return exitCodes.done;
  },
};

export const syncCommands: readonly Command[] = [status, ...steering, retry, show, discard, ...brakeCommands];
