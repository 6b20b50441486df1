/** Calls about the rollback window: how many partitions it is open for, and its end. */
import { z } from 'zod';
import { leftStore } from '../sync/rollback-window.ts';
import { count } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

export const windowAnswer = z.object({
  rollbackWindow: z.enum(['on', 'off']).describe('As configured (sync.rollbackWindow).'),
  open: count.describe('Partitions in the app of which changes are copied back to legacy.'),
  closed: count.describe('Partitions in the app of which nothing is copied back any more.'),
});
export type WindowAnswer = z.output<typeof windowAnswer>;

export const closedWindowAnswer = z.object({
  cohort: z.string(),
  closed: count.describe('Partitions whose window this call has closed.'),
  closedBefore: count,
  notInApp: count.describe('Partitions that live in legacy: there was nothing to close.'),
});
export type ClosedWindowAnswer = z.output<typeof closedWindowAnswer>;

export function rollbackWindowOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/rollback-window',
      role: 'viewer',
      summary: 'Of how many partitions changes are copied back to legacy.',
      answer: windowAnswer,
      run: async () => ({ answer: await stateOf(parts) }),
    }),
    operation({
      method: 'post',
      path: '/rollback-window/close',
      role: 'operator',
      summary:
        'Ends the copying back to legacy for the partitions of the cohort that live in the app. From then on there is no way back for them.',
      changes: true,
      body: z.strictObject({
        cohort: z.string(),
        reason,
        confirm: z.string().describe("The cohort's name once more: this cannot be undone."),
      }),
      answer: closedWindowAnswer,
      run: ({ body, actor }) => close(parts, body, actor.name),
    }),
  ];
}

async function stateOf({ window, ledger }: AdminParts): Promise<WindowAnswer> {
  if (window === undefined) return { rollbackWindow: 'off', open: 0, closed: 0 };
  const closed = await window.closed();
  const answer = { rollbackWindow: 'on' as const, open: 0, closed: 0 };
  for (const [partition, { ownership }] of await ledger.touched()) {
    if (ownership.owner === leftStore) continue;
    if (closed.has(partition)) answer.closed += 1;
    else answer.open += 1;
  }
  return answer;
}

async function close(
  { window, flips, ledger }: AdminParts,
  order: { readonly cohort: string; readonly reason: string; readonly confirm: string },
  by: string,
): Promise<Reply> {
  const { cohort } = order;
  if (window === undefined) {
    const detail =
      'sync.rollbackWindow is off: nothing is copied back, so there is nothing to close. Nothing was changed.';
    return { problem: { code: 'no-window', detail } };
  }
  if (order.confirm !== cohort) {
    const detail = `confirm must be the name of the cohort, ${cohort}: afterwards there is no way back for it. Nothing was changed.`;
    return { problem: { code: 'not-confirmed', detail } };
  }
  const partitions = await flips.partitionsOf(cohort);
  if (partitions === undefined) {
    return {
      problem: { code: 'no-such-cohort', detail: `There is no cohort ${cohort}. Nothing was changed.` },
    };
  }
  const records = await ledger.readMany(partitions);
  const inApp = partitions.filter((_, at) => records[at]?.ownership.owner !== leftStore);
  const closed = await window.close(inApp, by, order.reason);
  const answer: ClosedWindowAnswer = {
    ...{ cohort, closed, closedBefore: inApp.length - closed },
    notInApp: partitions.length - inApp.length,
  };
  const change = {
    action: 'window.close',
    target: cohort,
    reason: order.reason,
    before: null,
    after: answer,
  };
  return { answer, change };
}
