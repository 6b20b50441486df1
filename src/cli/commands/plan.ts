/** `plan`: what a flip would do. Changes nothing. */
import { writeFileSync } from 'node:fs';
import { planAnswer, type PlanAnswer } from '../../admin/answers.ts';
import type { AdminClient } from '../client.ts';
import type { Command, Given, Option } from '../command.ts';
import { type Attempt, exitOfPlan, failedAttempt, refusal } from '../exit.ts';
import { showPlan } from './show-plan.ts';

export interface FlipOrder {
  readonly cohort: string;
  readonly to: 'legacy' | 'app';
  readonly waves?: readonly string[];
}

export const orderOptions: Readonly<Record<string, Option>> = {
  cohort: { type: 'string', value: 'NAME', summary: 'Which cohort.' },
  to: { type: 'string', value: 'STORE', summary: 'Where to: app or legacy.' },
  waves: { type: 'string', value: 'SIZES', summary: 'Cumulative sizes, like 1,10%,100%.' },
};

export const plan: Command = {
  name: 'plan',
  summary: 'Show what a flip would do, and everything in its way',
  positionals: [],
  options: {
    ...orderOptions,
    out: { type: 'string', value: 'FILE', summary: 'Also write the plan to this file, as JSON.' },
  },
  changes: false,
  async run(context, given) {
    const order = orderOf(given);
    if (!order.ok) return order.refusal;
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const planned = await askForPlan(admin.value, order.value);
    if (!planned.ok) return planned.refusal;
    const file = given.text('out');
    if (file !== undefined) {
      try {
        writeFileSync(file, `${JSON.stringify(planned.value, null, 2)}\n`);
      } catch (error) {
        return refusal('cannot-write', `The plan could not be written to ${file}: ${String(error)}.`);
      }
    }
    showPlan(context.output, planned.value);
    return exitOfPlan(planned.value);
  },
};

export function askForPlan(admin: AdminClient, order: FlipOrder): Promise<Attempt<PlanAnswer>> {
  return admin.post('/plans', order, planAnswer);
}

export function orderOf(given: Given): Attempt<FlipOrder> {
  const cohort = given.text('cohort');
  const to = given.text('to');
  const waves = given
    .text('waves')
    ?.split(',')
    .map((wave) => wave.trim());
  if (cohort === undefined) return failedAttempt(refusal('usage', 'Name the cohort: --cohort NAME.'));
  if (to !== 'app' && to !== 'legacy') {
    return failedAttempt(refusal('usage', 'Say where to: --to app or --to legacy.'));
  }
  const bad = waves?.find((wave) => !/^([1-9]\d*|(100|[1-9]\d?)%)$/.test(wave));
  if (bad !== undefined) {
    return failedAttempt(
      refusal('usage', `--waves: "${bad}" is neither a number nor a percentage, like 1,10%,100%.`),
    );
  }
  return { ok: true, value: { cohort, to, ...(waves === undefined ? {} : { waves }) } };
}
