/** `rollback COHORT`: hands back to legacy what is copied there or took no write at the app, with the steps of a flip. */
import type { Command } from '../command.ts';
import { deadlineOf } from '../wait.ts';
import { carryOut } from './carry-out.ts';
import { mayAsk } from './confirm.ts';
import { askForPlan } from './plan.ts';

export const rollback: Command = {
  name: 'rollback',
  summary: 'Hand a cohort back to legacy, as far as nothing would be lost',
  positionals: ['<COHORT>'],
  options: { 'no-wait': { type: 'boolean', summary: 'Return once the flip has started.' } },
  changes: true,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const cohort = given.positionals[0] ?? '';
    const unasked = mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const planned = await askForPlan(admin.value, { cohort, to: 'legacy' });
    if (!planned.ok) return planned.refusal;
    return carryOut(context, admin.value, planned.value, {
      path: '/rollbacks',
      body: { cohort, confirm: cohort },
      question: `Hand ${planned.value.flip.length} partitions back to legacy?`,
      expected: cohort,
      wait: !given.flag('no-wait'),
      untilMs,
    });
  },
};
