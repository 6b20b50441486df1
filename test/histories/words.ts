/**
 * What can happen to a few records of two partitions that belong together, as a program: users' writes, what is told
 * of them and what gets lost, handoffs. And what happens meanwhile to whoever copies.
 */
import fc from 'fast-check';

/** How somebody hears of a write. Nobody: only the polls and the passes find it. */
export interface Told {
  /** The proxy rings for it. */
  readonly receipt: boolean;
  readonly deliveries: readonly Delivery[];
}

/** A webhook of the owner; none at all is a webhook that got lost. */
export interface Delivery {
  /** Rounds later than the write; those that are told in one round come in the order of `place`. */
  readonly late: number;
  readonly place: number;
  readonly times: number;
  /** Which partition it names: the record's, the one it had before, or none. */
  readonly names: 'new' | 'old' | 'none';
}

export type Step =
  | {
      readonly do: 'write';
      readonly record: number;
      /** Of a field that not every record has; the title stays where `title` says so. */
      readonly note: 'text' | 'null' | 'absent';
      readonly title: 'new' | 'same';
      readonly told: Told;
    }
  | { readonly do: 'delete' | 'move'; readonly record: number; readonly told: Told }
  /** To the other store; back only where copies go back. */
  | { readonly do: 'handoff'; readonly side: Side; readonly ends: 'commit' | 'abort' }
  | { readonly do: 'nothing' };

export type Side = 0 | 1;

/** What the stores hold of a record before anything is copied. */
export interface Before {
  readonly owner: 'none' | Side;
  readonly copy: 'none' | 'same' | 'older' | 'other-partition';
}

export interface History {
  readonly before: readonly Before[];
  readonly steps: readonly Step[];
}

/** To the processes that copy; `forget`: Redis loses queues, marks, inbox and positions. */
export type Trouble = 'none' | 'restart' | 'forget' | 'catch-up';

export interface Program {
  readonly histories: readonly History[];
  readonly troubles: readonly Trouble[];
  /** The list shows what is new; deleted records stay in it, marked; it comes in pages; many are written at once. */
  readonly since: boolean;
  readonly softDeletes: { readonly legacy: boolean; readonly app: boolean };
  readonly paging: 'none' | 'cursor' | 'page';
  readonly bulk: boolean;
  /** What is written in the app goes back to legacy. */
  readonly window: boolean;
  /** Calls of the sync that fail, of a hundred. */
  readonly faults: number;
  readonly seed: number;
}

export const recordsOfHistory = 4;
export const rounds = 14;

const told: fc.Arbitrary<Told> = fc.record({
  receipt: fc.boolean(),
  deliveries: fc.array(
    fc.record({
      late: fc.nat(6),
      place: fc.nat(1_000),
      times: fc.integer({ min: 1, max: 3 }),
      names: fc.constantFrom<Delivery['names']>('new', 'old', 'none'),
    }),
    { maxLength: 2 },
  ),
});

const record = fc.nat(recordsOfHistory - 1);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      ...{ do: fc.constant('write' as const), record, told },
      note: fc.constantFrom('text' as const, 'null' as const, 'absent' as const),
      title: fc.constantFrom('new' as const, 'same' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('delete' as const), record, told }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('move' as const), record, told }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('handoff' as const),
      side: fc.constantFrom<Side>(0, 1),
      ends: fc.constantFrom('commit' as const, 'commit' as const, 'commit' as const, 'abort' as const),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: 'nothing' as const }) },
);

const before: fc.Arbitrary<Before> = fc.record({
  owner: fc.constantFrom<Before['owner']>('none', 0, 0, 1),
  copy: fc.constantFrom<Before['copy']>('none', 'same', 'older', 'other-partition'),
});

const history: fc.Arbitrary<History> = fc.record({
  before: fc.array(before, { minLength: recordsOfHistory, maxLength: recordsOfHistory, size: 'max' }),
  steps: fc.array(step, { minLength: 1, maxLength: rounds, size: 'max' }),
});

export function programOf(histories: number): fc.Arbitrary<Program> {
  return fc.record({
    histories: fc.array(history, { minLength: histories, maxLength: histories, size: 'max' }),
    troubles: fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.constant<Trouble>('none') },
        { weight: 1, arbitrary: fc.constantFrom<Trouble>('restart', 'forget') },
        { weight: 2, arbitrary: fc.constant<Trouble>('catch-up') },
      ),
      { minLength: rounds, maxLength: rounds, size: 'max' },
    ),
    since: fc.boolean(),
    softDeletes: fc.record({ legacy: fc.boolean(), app: fc.boolean() }),
    paging: fc.constantFrom('none' as const, 'cursor' as const, 'page' as const),
    bulk: fc.boolean(),
    window: fc.boolean(),
    faults: fc.constantFrom(0, 1, 5),
    seed: fc.nat(),
  });
}
