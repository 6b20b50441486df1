/** Calls about the rollback window: how many partitions it is open for, and its end. */
import { z } from 'zod';
import { leftStore } from '../sync/rollback-window.ts';
import { count } from './answers.ts';
import { type Change, type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

export const windowAnswer = z.object({
  rollbackWindow: z.enum(['on', 'off']).describe('As configured (sync.rollbackWindow).'),
  open: count.describe('Partitions in the app of which changes are copied back to legacy.'),
  closed: count.describe('Partitions in the app of which nothing is copied back any more.'),
  closedByRestore: count.describe('Of the closed ones, those that a restore of the ledger has closed.'),
});
export type WindowAnswer = z.output<typeof windowAnswer>;

export const closedWindowAnswer = z.object({
  cohort: z.string(),
  closed: count.describe('Partitions whose window this call has closed.'),
  closedBefore: count,
  notInApp: count.describe('Partitions that live in legacy: there was nothing to close.'),
});
export type ClosedWindowAnswer = z.output<typeof closedWindowAnswer>;

export const openedWindowAnswer = z.object({
  cohort: z.string(),
  opened: count.describe('Partitions whose window this call has opened again.'),
  others: count.describe('Partitions in the app whose window no restore had closed; they are as before.'),
  notInApp: count,
});
export type OpenedWindowAnswer = z.output<typeof openedWindowAnswer>;

const body = z.strictObject({
  cohort: z.string(),
  reason,
  confirm: z.string().describe("The cohort's name once more."),
});
type Order = z.output<typeof body>;

export function rollbackWindowOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/rollback-window',
      role: 'viewer',
      summary: 'Of how many partitions changes are copied back to legacy.',
      answer: windowAnswer,
      run: async () => (await whyNot(parts)) ?? { answer: await windowState(parts) },
    }),
    operation({
      method: 'post',
      path: '/rollback-window/close',
      role: 'operator',
      summary:
        'Ends the copying back to legacy for the partitions of the cohort that live in the app. From then on there is no way back for them.',
      changes: true,
      body,
      answer: closedWindowAnswer,
      run: ({ body: order, actor }) => close(parts, order, actor.name),
    }),
    operation({
      method: 'post',
      path: '/rollback-window/open',
      role: 'operator',
      summary:
        'Opens what a restore of the ledger has closed: changes of these partitions are copied back to legacy again, those of the meantime, too. What an operator has closed stays closed.',
      changes: true,
      body,
      answer: openedWindowAnswer,
      run: ({ body: order }) => open(parts, order),
    }),
  ];
}

/** With a ledger that lost data nobody knows who lives in the app, and every window would be counted wrongly. */
async function whyNot({ ledger }: AdminParts): Promise<Reply | undefined> {
  const lost = await ledger.regression();
  if (lost === undefined) return undefined;
  const detail = `The ledger lost data (${lost.detail}), so nobody knows who lives in the app. Nothing is copied meanwhile, and nothing was changed. Restore it first: onewriter ledger restore --from member --plan --reason TEXT`;
  return { problem: { code: 'ledger-regressed', detail } };
}

export async function windowState({ window, ledger }: AdminParts): Promise<WindowAnswer> {
  if (window === undefined) return { rollbackWindow: 'off', open: 0, closed: 0, closedByRestore: 0 };
  const [closed, byRestore] = [await window.closed(), await window.closedByRestore()];
  const answer = { rollbackWindow: 'on' as const, open: 0, closed: 0, closedByRestore: 0 };
  for (const [partition, { ownership }] of await ledger.touched()) {
    if (ownership.owner === leftStore) continue;
    if (closed.has(partition)) answer.closed += 1;
    else answer.open += 1;
    if (byRestore.has(partition)) answer.closedByRestore += 1;
  }
  return answer;
}

interface Chosen {
  readonly window: NonNullable<AdminParts['window']>;
  /** Of the cohort. */
  readonly inApp: readonly string[];
  readonly notInApp: number;
}

async function choose(parts: AdminParts, { cohort, confirm }: Order, what: string): Promise<Chosen | Reply> {
  const { window, flips, ledger } = parts;
  if (window === undefined) {
    const detail = `sync.rollbackWindow is off: nothing is copied back, so there is nothing to ${what}. Nothing was changed.`;
    return { problem: { code: 'no-window', detail } };
  }
  if (confirm !== cohort) {
    const detail = `confirm must be the name of the cohort, ${cohort}. Nothing was changed.`;
    return { problem: { code: 'not-confirmed', detail } };
  }
  const lost = await whyNot(parts);
  if (lost !== undefined) return lost;
  const partitions = await flips.partitionsOf(cohort);
  if (partitions === undefined) {
    const detail = `There is no cohort ${cohort}. Nothing was changed.`;
    return { problem: { code: 'no-such-cohort', detail } };
  }
  const records = await ledger.readMany(partitions);
  const inApp = partitions.filter((_, at) => records[at]?.ownership.owner !== leftStore);
  return { window, inApp, notInApp: partitions.length - inApp.length };
}

async function close(parts: AdminParts, order: Order, by: string): Promise<Reply> {
  const chosen = await choose(parts, order, 'close');
  if (!('window' in chosen)) return chosen;
  const { window, inApp, notInApp } = chosen;
  const closed = await window.close(inApp, by, order.reason);
  const { cohort } = order;
  const answer: ClosedWindowAnswer = { cohort, closed, closedBefore: inApp.length - closed, notInApp };
  return { answer, change: changeOf('window.close', order, answer) };
}

async function open(parts: AdminParts, order: Order): Promise<Reply> {
  const chosen = await choose(parts, order, 'open');
  if (!('window' in chosen)) return chosen;
  const { window, inApp, notInApp } = chosen;
  const opened = await window.open(inApp);
  const answer: OpenedWindowAnswer = {
    ...{ cohort: order.cohort, opened, others: inApp.length - opened, notInApp },
  };
  return { answer, change: changeOf('window.open', order, answer) };
}

function changeOf(action: string, { cohort: target, reason: why }: Order, after: unknown): Change {
  return { action, target, reason: why, before: null, after };
}
