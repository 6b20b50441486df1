import { describe, expect, test } from '@jest/globals';
import {
  applyOrder,
  isRefusal,
  untouched,
  type Ownership,
  type TransitionOrder,
} from '../../../src/core/ownership.ts';

const open: Ownership = untouched('legacy');
const fenced: Ownership = {
  phase: 'fenced',
  owner: 'legacy',
  to: 'app',
  epoch: 2,
  attempt: 'a',
  deadlineMs: 1_000,
};
const committed: Ownership = { phase: 'committed', owner: 'app', epoch: 3, attempt: 'a' };

const orders: TransitionOrder[] = [
  { kind: 'fence', to: 'app', attempt: 'b', fenceMs: 100 },
  { kind: 'fence', to: 'legacy', attempt: 'b', fenceMs: 100 },
  { kind: 'commit', attempt: 'a' },
  { kind: 'commit', attempt: 'b' },
  { kind: 'release', attempt: 'a' },
  { kind: 'release', attempt: 'b' },
  { kind: 'abort', attempt: 'a' },
  { kind: 'abort', attempt: 'b' },
  { kind: 'expire' },
];

/** The whole table: what every order does to every state, before and after the deadline (1,000). */
const table: Record<string, string> = {
  'open fence>app': 'fenced legacy→app 2',
  'open fence>legacy': 'already-owner',
  'open commit a': 'wrong-phase',
  'open commit b': 'wrong-phase',
  'open release a': 'wrong-phase',
  'open release b': 'wrong-phase',
  'open abort a': 'wrong-phase',
  'open abort b': 'wrong-phase',
  'open expire': 'wrong-phase',
  'fenced fence>app': 'wrong-phase',
  'fenced fence>legacy': 'wrong-phase',
  'fenced commit a': 'committed app 3',
  'fenced commit b': 'other-attempt',
  'fenced release a': 'wrong-phase',
  'fenced release b': 'wrong-phase',
  'fenced abort a': 'open legacy 3',
  'fenced abort b': 'other-attempt',
  'fenced expire': 'deadline-not-passed',
  'late fenced fence>app': 'wrong-phase',
  'late fenced fence>legacy': 'wrong-phase',
  'late fenced commit a': 'deadline-passed',
  'late fenced commit b': 'other-attempt',
  'late fenced release a': 'wrong-phase',
  'late fenced release b': 'wrong-phase',
  'late fenced abort a': 'open legacy 3',
  'late fenced abort b': 'other-attempt',
  'late fenced expire': 'open legacy 3',
  'committed fence>app': 'wrong-phase',
  'committed fence>legacy': 'wrong-phase',
  'committed commit a': 'wrong-phase',
  'committed commit b': 'wrong-phase',
  'committed release a': 'open app 4',
  'committed release b': 'other-attempt',
  'committed abort a': 'wrong-phase',
  'committed abort b': 'wrong-phase',
  'committed expire': 'wrong-phase',
};

function words(result: ReturnType<typeof applyOrder>): string {
  if (isRefusal(result)) return result.refused;
  const where = result.phase === 'fenced' ? `${result.owner}→${result.to}` : result.owner;
  return `${result.phase} ${where} ${result.epoch}`;
}

function name(order: TransitionOrder): string {
  if (order.kind === 'fence') return `fence>${order.to}`;
  return order.kind === 'expire' ? 'expire' : `${order.kind} ${order.attempt}`;
}

describe('a transition', () => {
  const cases: [string, Ownership, number][] = [
    ['open', open, 0],
    ['fenced', fenced, 999],
    ['late fenced', fenced, 1_000],
    ['committed', committed, 0],
  ];
  test('does what the table says, for every state and order', () => {
    const found: Record<string, string> = {};
    for (const [state, ownership, nowMs] of cases) {
      for (const order of orders) {
        found[`${state} ${name(order)}`] = words(applyOrder(ownership, order, nowMs));
      }
    }
    expect(found).toEqual(table);
  });

  test('raises the epoch by exactly one, always (I5)', () => {
    for (const [, ownership, nowMs] of cases) {
      for (const order of orders) {
        const next = applyOrder(ownership, order, nowMs);
        if (!isRefusal(next)) expect(next.epoch).toBe(ownership.epoch + 1);
      }
    }
  });
});
