/** `flip`: plans, shows, asks, starts, and follows to the end. */
import type { Command } from '../command.ts';
import { deadlineOf } from '../wait.ts';
import { carryOut } from './carry-out.ts';
import { mayAsk } from './confirm.ts';
import { askForPlan, orderOf, orderOptions } from './plan.ts';

export const flip: Command = {
  name: 'flip',
  summary: 'Move a cohort: plan, confirm, start, and wait for the end',
  positionals: [],
  options: {
    ...orderOptions,
    'no-wait': { type: 'boolean', summary: 'Return once the flip has started.' },
  },
  changes: true,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const order = orderOf(given);
    if (!order.ok) return order.refusal;
    const unasked = mayAsk(context);
    if (unasked !== undefined) return unasked;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const planned = await askForPlan(admin.value, order.value);
    if (!planned.ok) return planned.refusal;
    const { cohort, to } = order.value;
    return carryOut(context, admin.value, planned.value, {
      path: '/flips',
      body: { ...order.value },
      question: `Move ${planned.value.flip.length} partitions to ${to}?`,
      expected: to === 'legacy' ? cohort : 'yes',
      wait: !given.flag('no-wait'),
      untilMs,
    });
  },
};
