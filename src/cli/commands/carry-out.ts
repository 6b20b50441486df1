/** From a plan to the end of its flip: show it, ask, start, follow. */
import { flipAnswer, type PlanAnswer } from '../../admin/answers.ts';
import type { AdminClient } from '../client.ts';
import type { Context } from '../command.ts';
import { type CliRefusal, type ExitCode, exitCodes, exitOfFlip, exitOfPlan, refusal } from '../exit.ts';
import { confirm } from './confirm.ts';
import { followFlip, showFlip } from './follow-flip.ts';
import { showPlan } from './show-plan.ts';

export interface CarryOut {
  /** Which call starts it, and what it is given beside reason and plan. */
  readonly path: '/flips' | '/rollbacks';
  readonly body: Readonly<Record<string, unknown>>;
  readonly question: string;
  /** What must be typed. */
  readonly expected: string;
  readonly wait: boolean;
  readonly untilMs: number;
}

export async function carryOut(
  context: Context,
  admin: AdminClient,
  plan: PlanAnswer,
  order: CarryOut,
): Promise<ExitCode | CliRefusal> {
  const { output } = context;
  showPlan(output, plan);
  const code = exitOfPlan(plan);
  if (code === exitCodes.done) {
    output.line('Nothing to change.');
    return code;
  }
  if (code === exitCodes.precheckFailed) {
    const noWayBack = plan.blockers.some((blocker) => blocker.code === 'no-clean-way-back');
    const name = noWayBack ? 'no-clean-way-back' : 'nothing-can-move';
    return refusal(name, 'Nothing can move, so nothing was started; the plan lists why.', code);
  }
  const declined = await confirm(context, order.question, order.expected);
  if (declined !== undefined) return declined;
  const body = { ...order.body, reason: context.reason, planId: plan.id };
  const started = await admin.post(order.path, body, flipAnswer);
  if (!started.ok) return started.refusal;
  output.line(`Started flip ${started.value.id}`);
  if (!order.wait) {
    output.event('flip', started.value);
    output.line(`Follow it with: onewriter status ${plan.cohort} --watch`);
    return exitCodes.done;
  }
  const ended = await followFlip(context, admin, started.value.id, order.untilMs);
  if (!ended.ok) return ended.refusal;
  showFlip(output, ended.value);
  const exit = exitOfFlip(ended.value);
  if (exit === exitCodes.paused)
    output.line(`Go on with: onewriter resume ${started.value.id} --reason TEXT`);
  return exit;
}
