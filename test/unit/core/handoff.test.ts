import { describe, expect, test } from '@jest/globals';
import {
  startHandoff,
  stepHandoff,
  type HandoffEvent,
  type HandoffMove,
  type HandoffSettings,
} from '../../../src/core/handoff.ts';
import type { StoreName } from '../../../src/core/ownership.ts';

const settings: HandoffSettings = {
  drainMs: 200,
  fenceMs: 1_000,
  feedDelayMs: 0,
  guarded: { legacy: false, app: true },
};
const proof = { recordsCompared: 3, recordsCopied: 1, passes: 2 };
const fenced: HandoffEvent = { event: 'fenced', epoch: 2, members: ['m1', 'm2'], lastDepartureAgeMs: 60_000 };
const ack = (member: string, lastWriteAgeMs = 1_000): HandoffEvent => ({
  event: 'acknowledged',
  member,
  answer: 'drained',
  lastWriteAgeMs,
  settlesInMs: 0,
});
const caughtUp: HandoffEvent = { event: 'caught-up', proof };
const advanced = (written?: boolean): HandoffEvent => ({ event: 'guard-advanced', written });

/** Runs events at given times; returns every move. */
function run(
  events: (HandoffEvent | [number, HandoffEvent])[],
  over: Partial<HandoffSettings> = {},
  from: StoreName = 'legacy',
): HandoffMove[] {
  const moves = [startHandoff(from, 0)];
  for (const entry of events) {
    const [nowMs, event] = Array.isArray(entry) ? entry : [10, entry];
    const { state } = moves.at(-1) ?? startHandoff(from, 0);
    moves.push(stepHandoff(state, event, nowMs, { ...settings, ...over }));
  }
  return moves;
}

const ordersOf = (moves: HandoffMove[]): string[] =>
  moves.flatMap((move) => move.orders.map((order) => order.order));
const last = (moves: HandoffMove[]): HandoffMove['state'] | undefined => moves.at(-1)?.state;

describe('the coordinator', () => {
  test('goes from fence to release in one order only', () => {
    const moves = run([
      fenced,
      ack('m1'),
      ack('m2'),
      advanced(),
      caughtUp,
      { event: 'guard-sealed' },
      { event: 'committed' },
      { event: 'released' },
    ]);
    expect(ordersOf(moves)).toEqual([
      'fence',
      'advance-guard',
      'catch-up',
      'seal-guard',
      'commit',
      'release',
    ]);
    // Copies from before the fence are over; the handoff's own come under epoch 2.
    expect(moves[3]?.orders).toEqual([{ order: 'advance-guard', store: 'app', epoch: 1 }]);
    expect(last(moves)).toMatchObject({ step: 'done', proof });
  });

  test('waits for every member that is listed', () => {
    expect(ordersOf(run([fenced, ack('m1'), ack('m1'), ack('stranger')]))).toEqual(['fence']);
  });

  test('waits for no member that is proven gone', () => {
    expect(ordersOf(run([fenced, ack('m1'), { event: 'member-gone', member: 'm2' }]))).toEqual([
      'fence',
      'advance-guard',
    ]);
  });

  test('takes the last write of a member that is gone for as young as its departure', () => {
    const gone: HandoffEvent = { event: 'member-gone', member: 'm2' };
    const moves = run([fenced, [20, ack('m1')], [30, gone], [30, advanced()]], { feedDelayMs: 100 });
    expect(moves.at(-1)?.orders).toEqual([{ order: 'catch-up', epoch: 2, notBeforeMs: 130 }]);
    // Who has acknowledged has said how young its last write was.
    const after = run([fenced, [20, ack('m2')], [30, gone], [40, ack('m1')], [40, advanced()]], {
      feedDelayMs: 100,
    });
    expect(after.at(-1)?.orders).toEqual([{ order: 'catch-up', epoch: 2, notBeforeMs: 40 }]);
  });

  test('aborts on the first nack', () => {
    const moves = run([
      fenced,
      { event: 'acknowledged', member: 'm1', answer: 'in-doubt', lastWriteAgeMs: 0, settlesInMs: 700 },
    ]);
    expect(ordersOf(moves)).toEqual(['fence', 'abort']);
    expect(last(moves)?.failure).toMatchObject({ code: 'write-in-doubt', retryAfterMs: 700 });
  });

  test('aborts when the drain takes too long, and names who is missing', () => {
    const moves = run([fenced, ack('m1'), [199, { event: 'tick' }], [200, { event: 'tick' }]]);
    expect(ordersOf(moves)).toEqual(['fence', 'abort']);
    expect(last(moves)?.failure).toEqual({ code: 'drain-timeout', detail: 'no acknowledgement from m2' });
  });

  test.each([
    ['advancing the guard', [fenced, ack('m1'), ack('m2')]],
    ['catching up', [fenced, ack('m1'), ack('m2'), advanced()]],
    ['sealing', [fenced, ack('m1'), ack('m2'), advanced(), caughtUp]],
  ])('aborts in good time when %s reaches the fence deadline', (_, events) => {
    const moves = run([...events, [900, { event: 'tick' }]]);
    expect(ordersOf(moves).at(-1)).toBe('abort');
    expect(last(moves)?.failure?.code).toBe('fence-deadline');
  });

  test('never aborts what it has ordered to commit: only the ledger knows', () => {
    const committing: HandoffEvent[] = [
      fenced,
      ack('m1'),
      ack('m2'),
      advanced(),
      caughtUp,
      { event: 'guard-sealed' },
    ];
    expect(
      ordersOf(run([...committing, [5_000, { event: 'tick' }], { event: 'stop', detail: '' }])),
    ).not.toContain('abort');
    expect(ordersOf(run([...committing, { event: 'transition-unknown' }])).at(-1)).toBe('reread');
  });

  test('aborts when the ledger refused the commit, and goes forward if it had gone through after all', () => {
    const refused: HandoffEvent = { event: 'failed', failure: 'commit-refused', detail: 'x' };
    const moves = run([
      fenced,
      ack('m1'),
      ack('m2'),
      advanced(),
      caughtUp,
      { event: 'guard-sealed' },
      refused,
      { event: 'committed' },
    ]);
    expect(ordersOf(moves).slice(-3)).toEqual(['commit', 'abort', 'release']);
  });

  test('reads the position no earlier than the feed shows the last write of any member', () => {
    const moves = run([fenced, [20, ack('m1', 15)], [30, ack('m2', 500)], [30, advanced()]], {
      feedDelayMs: 100,
    });
    expect(moves.at(-1)?.orders).toEqual([{ order: 'catch-up', epoch: 2, notBeforeMs: 105 }]);
  });

  test('takes a member that left for one that wrote until it left', () => {
    const left: HandoffEvent = { event: 'fenced', epoch: 2, members: ['m1'], lastDepartureAgeMs: 5 };
    const moves = run(
      [
        [10, left],
        [20, ack('m1', 5_000)],
        [20, advanced()],
      ],
      { feedDelayMs: 100 },
    );
    expect(moves.at(-1)?.orders).toEqual([{ order: 'catch-up', epoch: 2, notBeforeMs: 105 }]);
  });

  test('aborts when the feed is slower than the fence', () => {
    expect(
      last(run([fenced, ack('m1', 0), ack('m2', 0), advanced()], { feedDelayMs: 2_000 }))?.failure?.code,
    ).toBe('feed-delay-exceeds-fence');
  });

  test('advances the guards of both stores, one after the other, before it reads the position', () => {
    const moves = run([fenced, ack('m1'), ack('m2'), advanced(), advanced()], {
      guarded: { legacy: true, app: true },
    });
    expect(moves.slice(3).flatMap((move) => move.orders)).toEqual([
      { order: 'advance-guard', store: 'legacy', epoch: 2 },
      { order: 'advance-guard', store: 'app', epoch: 1 },
      { order: 'catch-up', epoch: 2, notBeforeMs: 10 },
    ]);
  });

  test('reads the position at once where no store has a guard', () => {
    const moves = run([fenced, ack('m1'), ack('m2')], { guarded: { legacy: false, app: false } });
    expect(ordersOf(moves)).toEqual(['fence', 'catch-up']);
  });

  test('stopped while the fence is being ordered, aborts only once the fence stands', () => {
    const moves = run([{ event: 'stop', detail: 'x' }, fenced]);
    expect(moves.map((move) => move.orders.map((order) => order.order))).toEqual([['fence'], [], ['abort']]);
  });

  test('does not abort what was never fenced', () => {
    const moves = run([{ event: 'failed', failure: 'fence-refused', detail: 'x' }]);
    expect(ordersOf(moves)).toEqual(['fence']);
    expect(last(moves)?.step).toBe('aborted');
  });
});

describe('a way back that is proven by the guard', () => {
  const unwritten: Partial<HandoffSettings> = { proof: { app: 'unwritten' }, feedDelayMs: 60_000 };
  const drained: HandoffEvent[] = [fenced, ack('m1', 0), ack('m2', 0)];
  const back = (events: HandoffEvent[], over = unwritten): HandoffMove[] => run(events, over, 'app');

  test('advances the guard after the drain, copies nothing, and commits', () => {
    expect(ordersOf(back([fenced, ack('m1')]))).toEqual(['fence']);
    const moves = back([...drained, advanced(false), { event: 'committed' }, { event: 'released' }]);
    expect(ordersOf(moves)).toEqual(['fence', 'advance-guard', 'commit', 'release']);
    expect(moves[3]?.orders).toEqual([{ order: 'advance-guard', store: 'app', epoch: 2 }]);
    expect(last(moves)).toMatchObject({ step: 'done', proof: { unwritten: true } });
  });

  test('aborts when the app was written, and when its guard does not say', () => {
    for (const written of [true, undefined]) {
      const moves = back([...drained, advanced(written)]);
      expect(ordersOf(moves)).toEqual(['fence', 'advance-guard', 'abort']);
      expect(last(moves)?.failure?.code).toBe('app-was-written');
    }
  });

  test('asks for the advance even where no guard is known: only an answer is a proof', () => {
    const unguarded = { ...unwritten, guarded: { legacy: false, app: false } };
    expect(ordersOf(back(drained, unguarded))).toEqual(['fence', 'advance-guard']);
  });

  test('ends before the fence deadline, like any other handoff', () => {
    const moves = run([...drained, [900, { event: 'tick' }]], unwritten, 'app');
    expect(last(moves)?.failure?.code).toBe('fence-deadline');
  });

  test('seals the guard of the new owner where it has one', () => {
    const guarded = { ...unwritten, guarded: { legacy: true, app: true } };
    expect(ordersOf(back([...drained, advanced(false)], guarded)).at(-1)).toBe('seal-guard');
  });

  test('is proven so only in its own direction: forward, everything is compared', () => {
    const moves = run([...drained, advanced(false)], { ...unwritten, feedDelayMs: 0 });
    expect(ordersOf(moves)).toEqual(['fence', 'advance-guard', 'catch-up']);
  });
});
