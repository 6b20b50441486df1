/** `window …`: whether what users write in the app is copied back to legacy, and the end of that. */
import { closedWindowAnswer, openedWindowAnswer, windowAnswer } from '../../admin/rollback-window.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';
import { confirm, mayAsk } from './confirm.ts';

const status: Command = {
  name: 'window status',
  summary: 'Of how many partitions changes are copied back to legacy',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const found = await admin.value.get('/rollback-window', windowAnswer);
    if (!found.ok) return found.refusal;
    const { rollbackWindow, open: still, closed, closedByRestore } = found.value;
    context.output.event('window', found.value);
    context.output.line(
      rollbackWindow === 'off'
        ? 'sync.rollbackWindow is off: nothing is copied back to legacy.'
        : `Changes of ${still} partitions are copied back to legacy. ${closedSentence(closed)}`,
    );
    if (closedByRestore > 0) {
      context.output.line(
        `${closedByRestore} of these were closed by a restore of the ledger, because nobody knew whether they were before. To open them again: onewriter window open COHORT --reason TEXT`,
      );
    }
    return exitCodes.done;
  },
};

function closedSentence(closed: number): string {
  if (closed === 0) return 'No partition in the app has its window closed.';
  return `The windows of ${closed} partitions in the app are closed: nothing of them is copied back any more.`;
}

const close: Command = {
  name: 'window close',
  summary: 'End the copying back to legacy for a cohort; from then on there is no way back',
  positionals: ['<COHORT>'],
  options: {},
  changes: true,
  async run(context, given) {
    const [cohort = ''] = given.positionals;
    const unasked = mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const question = `Nothing of ${plain(cohort)} is copied back to legacy any more, and it cannot go back.`;
    const unsure = await confirm(context, question, cohort);
    if (unsure !== undefined) return unsure;
    const order = { cohort, confirm: cohort, reason: context.reason };
    const done = await admin.value.post('/rollback-window/close', order, closedWindowAnswer);
    if (!done.ok) return done.refusal;
    const { closed, closedBefore, notInApp } = done.value;
    context.output.event('closed', done.value);
    context.output.line(
      `Closed for ${closed} partitions; ${closedBefore} were closed before, ${notInApp} live in legacy.`,
    );
    return exitCodes.done;
  },
};

const open: Command = {
  name: 'window open',
  summary: 'Copy changes of a cohort back to legacy again, where a restore of the ledger has ended that',
  positionals: ['<COHORT>'],
  options: {},
  changes: true,
  async run(context, given) {
    const [cohort = ''] = given.positionals;
    const unasked = mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const question = `What the app holds of ${plain(cohort)} is written to legacy, also what was written since the restore. Leave closed what you had closed before.`;
    const unsure = await confirm(context, question, cohort);
    if (unsure !== undefined) return unsure;
    const order = { cohort, confirm: cohort, reason: context.reason };
    const done = await admin.value.post('/rollback-window/open', order, openedWindowAnswer);
    if (!done.ok) return done.refusal;
    const { opened, others, notInApp } = done.value;
    context.output.event('opened', done.value);
    context.output.line(
      `Opened for ${opened} partitions; of ${others} no restore had closed it, so they are as before; ${notInApp} live in legacy.`,
    );
    return exitCodes.done;
  },
};

export const windowCommands: readonly Command[] = [status, close, open];
