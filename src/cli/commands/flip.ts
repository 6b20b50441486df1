/** `flip`: plans, shows, asks, starts, and follows to the end. */
import { flipAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes, exitOfFlip, exitOfPlan, refusal } from '../exit.ts';
import { deadlineOf } from '../wait.ts';
import { confirm, mayAsk } from './confirm.ts';
import { followFlip, showFlip } from './follow-flip.ts';
import { askForPlan, orderOf, orderOptions } from './plan.ts';
import { showPlan } from './show-plan.ts';

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
    const { output } = context;
    showPlan(output, planned.value);
    const code = exitOfPlan(planned.value);
    if (code === exitCodes.done) {
      output.line('Nothing to change.');
      return code;
    }
    if (code === exitCodes.precheckFailed) {
      return refusal(
        'nothing-can-move',
        'Nothing can move, so nothing was started; the plan lists why.',
        code,
      );
    }
    const back = order.value.to === 'legacy';
    const question = `Move ${planned.value.flip.length} partitions to ${order.value.to}?`;
    const declined = await confirm(context, question, back ? order.value.cohort : 'yes');
    if (declined !== undefined) return declined;
    const started = await admin.value.post(
      '/flips',
      { ...order.value, reason: context.reason, planId: planned.value.id },
      flipAnswer,
    );
    if (!started.ok) return started.refusal;
    output.line(`Started flip ${started.value.id}`);
    if (given.flag('no-wait')) {
      output.event('flip', started.value);
      output.line(`Follow it with: onewriter status ${order.value.cohort} --watch`);
      return exitCodes.done;
    }
    const ended = await followFlip(context, admin.value, started.value.id, untilMs);
    if (!ended.ok) return ended.refusal;
    showFlip(output, ended.value);
    const exit = exitOfFlip(ended.value);
    if (exit === exitCodes.paused)
      output.line(`Go on with: onewriter resume ${started.value.id} --reason TEXT`);
    return exit;
  },
};
