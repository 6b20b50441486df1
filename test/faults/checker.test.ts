/** The checker must be able to fail: made-up histories, one for each kind of violation, and clean ones. */
import { describe, expect, test } from '@jest/globals';
import { check, type CheckInput, type Verdict, type ViolationKind, violationKinds } from './checker.ts';
import type { Accepted, Ended, HistoryEntry, Invoked, RawTransition, Store } from './words.ts';

const settings: CheckInput['settings'] = {
  ...{ leaseMs: 2_000, writeTimeoutMs: 2_000, settleMs: 1_000, drainMs: 1_000 },
  ...{ defaultOwner: 'legacy', guarded: { legacy: false, app: true } },
};

interface State {
  readonly owner: Store;
  readonly phase: 'open' | 'fenced' | 'committed';
  readonly epoch: number;
  readonly changedAtMs: number;
}

const untouched: State = { owner: 'legacy', phase: 'open', epoch: 1, changedAtMs: 0 };

function transition(version: number, before: State, after: State, name = `change-${version}`): RawTransition {
  const fields = { kind: 'ownership', partition: 'p1', id: name, by: 'test', reason: 'test' };
  const states = { before: JSON.stringify(before), after: JSON.stringify(after) };
  return { id: `${version}-0`, fields: Object.entries({ ...fields, ...states }).flat() };
}

/** Each state follows from the one before. */
function stream(...states: State[]): RawTransition[] {
  return states.map((after, at) => transition(at + 1, states[at - 1] ?? untouched, after));
}

const fencedAt1000: State = { owner: 'legacy', phase: 'fenced', epoch: 2, changedAtMs: 1_000 };
const committedAt1200: State = { owner: 'app', phase: 'committed', epoch: 3, changedAtMs: 1_200 };
const openAt1300: State = { owner: 'app', phase: 'open', epoch: 4, changedAtMs: 1_300 };
const moved = stream(fencedAt1000, committedAt1200, openAt1300);

function invoked(request: number, given: Partial<Invoked> = {}): Invoked {
  const whole = {
    step: 'invoke',
    atMs: request,
    request,
    user: 'u1',
    partition: 'p1',
    proxy: 'proxy-1',
  } as const;
  return { ...whole, operation: 'change', record: 'r1', token: `t${request}`, ...given };
}

function ended(request: number, given: Partial<Ended> = {}): Ended {
  return { step: 'ok', atMs: request, request, ...given };
}

function wrote(
  request: number,
  given: Partial<Invoked> & Pick<Ended, 'store' | 'epoch'> & { outcome?: Ended['step'] } = {},
): HistoryEntry[] {
  const { outcome = 'ok', store, epoch, ...asked } = given;
  const said = { ...(store === undefined ? {} : { store }), ...(epoch === undefined ? {} : { epoch }) };
  return [invoked(request, asked), ended(request, { step: outcome, ...said })];
}

function saw(request: number, seen: string | null, given: Partial<Invoked> = {}): HistoryEntry[] {
  const { token: _, ...asked } = invoked(request, { operation: 'read', ...given });
  return [asked, ended(request, { seen })];
}

function took(token: string, atMs: number, given: Partial<Accepted> = {}): Accepted {
  return { atMs, partition: 'p1', record: 'r1', token, access: 'user', deleted: false, ...given };
}

function copy(token: string, atMs: number, given: Partial<Accepted> = {}): Accepted {
  return took(token, atMs, { access: 'copy', epoch: 1, ...given });
}

function judge(
  given: Partial<Omit<CheckInput, 'accepted'>> & { legacy?: Accepted[]; app?: Accepted[] },
): Verdict {
  const { legacy = [], app = [], ...rest } = given;
  return check({ history: [], transitions: [], frozen: [], settings, accepted: { legacy, app }, ...rest });
}

function kindsOf(verdict: Verdict): ViolationKind[] {
  return [...new Set(verdict.violations.map(({ kind }) => kind))];
}

describe('a clean history is accepted', () => {
  test('writes at legacy, a handoff with its copies, writes at the app', () => {
    const verdict = judge({
      transitions: moved,
      history: [
        ...wrote(1, { operation: 'create', store: 'legacy', epoch: 1 }),
        ...wrote(2, { store: 'legacy', epoch: 1 }),
        ...wrote(3, { outcome: 'fail' }),
        ...wrote(4, { store: 'app', epoch: 4 }),
        ...saw(5, 't4'),
        ...wrote(6, { operation: 'remove', store: 'app', epoch: 4 }),
        ...saw(7, null),
      ],
      legacy: [took('t1', 100), took('t2', 1_050)],
      app: [
        copy('t1', 200),
        copy('t2', 1_100, { epoch: 2 }),
        took('t4', 1_400, { epoch: 4 }),
        took('t6', 1_500, { epoch: 4, deleted: true }),
      ],
    });
    expect(verdict.violations).toEqual([]);
    expect(verdict).toMatchObject({
      handoffs: { committed: 1, aborted: 0 },
      ended: { ok: 6, fail: 1 },
      copiesTaken: 2,
    });
  });

  test('a write of unknown outcome may have been taken once, or not at all', () => {
    const history = wrote(1, { outcome: 'unknown' });
    expect(judge({ history }).violations).toEqual([]);
    expect(judge({ history, legacy: [took('t1', 100)] }).violations).toEqual([]);
  });

  test('in a fence that is aborted, a write of unknown outcome may land late', () => {
    const transitions = stream(fencedAt1000, { ...untouched, epoch: 3, changedAtMs: 3_500 });
    const verdict = judge({
      transitions,
      history: wrote(1, { outcome: 'unknown' }),
      legacy: [took('t1', 2_900)],
    });
    expect(verdict.violations).toEqual([]);
    expect(verdict.handoffs).toEqual({ committed: 0, aborted: 1 });
  });

  test('a slow write that was answered in the end may land late in a fence: its member waited for it', () => {
    const transitions = stream(
      ...[fencedAt1000, { ...committedAt1200, changedAtMs: 3_000 }, { ...openAt1300, changedAtMs: 3_100 }],
    );
    const app = [copy('t1', 2_600, { epoch: 2 })];
    expect(judge({ transitions, history: wrote(1), legacy: [took('t1', 2_500)], app }).violations).toEqual(
      [],
    );
  });

  test('a partition that nobody wrote to may go back, and its copies flow as before', () => {
    const back = stream(
      ...[fencedAt1000, committedAt1200, openAt1300],
      { owner: 'app', phase: 'fenced', epoch: 5, changedAtMs: 2_000 },
      { owner: 'legacy', phase: 'committed', epoch: 6, changedAtMs: 2_100 },
      { owner: 'legacy', phase: 'open', epoch: 7, changedAtMs: 2_200 },
    );
    const verdict = judge({
      transitions: back,
      history: [...wrote(1, { store: 'legacy', epoch: 1 }), ...wrote(2, { store: 'legacy', epoch: 7 })],
      legacy: [took('t1', 100), took('t2', 2_300)],
      app: [copy('t1', 200), copy('t2', 2_400, { epoch: 7 })],
    });
    expect(verdict.violations).toEqual([]);
  });
});

const broken: readonly [kind: ViolationKind, what: string, verdict: () => Verdict][] = [
  [
    'ledger',
    'an epoch is left out',
    () => judge({ transitions: stream(fencedAt1000, { ...untouched, epoch: 4, changedAtMs: 2_000 }) }),
  ],
  [
    'ledger',
    'two transitions follow the same state',
    () =>
      judge({
        transitions: [...moved, transition(4, fencedAt1000, { ...untouched, epoch: 3, changedAtMs: 2_000 })],
      }),
  ],
  [
    'ledger',
    'an owner changes without a commit',
    () => judge({ transitions: stream(fencedAt1000, { ...openAt1300, epoch: 3 }) }),
  ],
  [
    'ledger',
    'a version is missing',
    () =>
      judge({ transitions: moved.map((entry, at) => (at === 0 ? entry : { ...entry, id: `${at + 2}-0` })) }),
  ],
  [
    'ledger',
    'a random id comes twice',
    () =>
      judge({
        transitions: [
          transition(1, untouched, fencedAt1000, 'same'),
          transition(2, fencedAt1000, committedAt1200, 'same'),
          transition(3, committedAt1200, openAt1300),
        ],
      }),
  ],
  [
    'ledger',
    'a transition follows a state that never was',
    () =>
      judge({
        transitions: [
          transition(1, untouched, fencedAt1000),
          transition(2, { ...fencedAt1000, epoch: 9 }, committedAt1200),
          transition(3, committedAt1200, openAt1300),
        ],
      }),
  ],
  [
    'two-owners',
    'both stores answered under one epoch',
    () =>
      judge({
        history: [...wrote(1, { store: 'legacy', epoch: 1 }), ...wrote(2, { store: 'app', epoch: 1 })],
        legacy: [took('t1', 100), took('t2', 150)],
      }),
  ],
  [
    'two-owners',
    'an answer names a store that did not own the partition in the epoch it names',
    () =>
      judge({
        transitions: moved,
        history: wrote(1, { store: 'legacy', epoch: 4 }),
        legacy: [took('t1', 900)],
        app: [copy('t1', 950)],
      }),
  ],
  [
    'two-owners',
    'the app took a write under an epoch of legacy',
    () =>
      judge({
        transitions: moved,
        history: wrote(1, { store: 'app', epoch: 4 }),
        app: [took('t1', 1_400, { epoch: 1 })],
      }),
  ],
  [
    'wrong-store',
    'the app took a write before it owned the partition',
    () => judge({ history: wrote(1), app: [took('t1', 500)] }),
  ],
  [
    'wrong-store',
    'the app took a write between commit and release',
    () => judge({ transitions: moved, history: wrote(1), app: [took('t1', 1_250, { epoch: 4 })] }),
  ],
  [
    'wrong-store',
    'legacy took a write after the commit',
    () => judge({ transitions: moved, history: wrote(1), legacy: [took('t1', 1_250)], app: [] }),
  ],
  [
    'wrong-store',
    'legacy took a write after the commit, though a proxy was frozen: another one',
    () =>
      judge({
        transitions: moved,
        history: wrote(1),
        legacy: [took('t1', 4_100)],
        frozen: [{ process: 'proxy-2', fromMs: 900, toMs: 4_000 }],
      }),
  ],
  [
    'wrong-store',
    'legacy took a write after the commit, through a proxy that froze only then',
    () =>
      judge({
        transitions: moved,
        history: wrote(1),
        legacy: [took('t1', 5_100)],
        frozen: [{ process: 'proxy-1', fromMs: 1_250, toMs: 5_000 }],
      }),
  ],
  [
    'late',
    'a write in doubt landed in a fence that committed, after the settle time',
    () =>
      judge({
        transitions: stream(
          fencedAt1000,
          { ...committedAt1200, changedAtMs: 3_000 },
          { ...openAt1300, changedAtMs: 3_100 },
        ),
        history: wrote(1, { outcome: 'unknown' }),
        legacy: [took('t1', 2_500)],
        app: [copy('t1', 2_600, { epoch: 2 })],
      }),
  ],
  ['lost', 'an acknowledged write that no store took', () => judge({ history: wrote(1) })],
  [
    'lost',
    'the new owner holds an older write than the last that the old one took',
    () =>
      judge({
        transitions: moved,
        history: [...wrote(1), ...wrote(2)],
        legacy: [took('t1', 100), took('t2', 1_050)],
        app: [copy('t1', 200)],
      }),
  ],
  [
    'lost',
    'the old owner took a write that nobody heard of, and the new one does not have it',
    () =>
      judge({
        transitions: moved,
        history: wrote(1, { outcome: 'unknown' }),
        legacy: [took('t1', 1_100)],
      }),
  ],
  [
    'lost',
    'a removed record is still there at the new owner',
    () =>
      judge({
        transitions: moved,
        history: [...wrote(1), ...wrote(2, { operation: 'remove' })],
        legacy: [took('t1', 100), took('t2', 900, { deleted: true })],
        app: [copy('t1', 200)],
      }),
  ],
  [
    'lost',
    'a copy of something older overwrote it',
    () =>
      judge({
        transitions: moved,
        history: [...wrote(1), ...wrote(2)],
        legacy: [took('t1', 100), took('t2', 300)],
        app: [copy('t2', 400), copy('t1', 1_150)],
      }),
  ],
  [
    'doubled',
    'one write was taken twice',
    () => judge({ history: wrote(1), legacy: [took('t1', 100), took('t1', 200)] }),
  ],
  [
    'doubled',
    'one write was taken by both stores',
    () =>
      judge({
        transitions: moved,
        history: wrote(1, { outcome: 'unknown' }),
        legacy: [took('t1', 900)],
        app: [took('t1', 1_400, { epoch: 4 })],
      }),
  ],
  [
    'doubled',
    'one write lives in two records of the owner',
    () =>
      judge({
        transitions: moved,
        history: wrote(1),
        legacy: [took('t1', 100)],
        app: [copy('t1', 200), copy('t1', 250, { record: 'r2' })],
      }),
  ],
  [
    'refused-but-done',
    'a refused write was taken',
    () => judge({ history: wrote(1, { outcome: 'fail' }), legacy: [took('t1', 100)] }),
  ],
  ['unasked', 'a write that no client sent', () => judge({ legacy: [took('t9', 100)] })],
  [
    'copy-against-owner',
    'a copy was taken by the owner',
    () =>
      judge({
        transitions: moved,
        history: wrote(1),
        legacy: [took('t1', 100)],
        app: [copy('t1', 200), copy('t1', 1_400, { epoch: 2 })],
      }),
  ],
  [
    'copy-against-owner',
    'a copy was taken between commit and release',
    () =>
      judge({
        transitions: moved,
        history: wrote(1),
        legacy: [took('t1', 100)],
        app: [copy('t1', 200), copy('t1', 1_250)],
      }),
  ],
  [
    'copy-against-owner',
    'a copy flowed back to legacy',
    () =>
      judge({
        history: wrote(1),
        legacy: [took('t1', 100), took('t1', 300, { access: 'copy' })],
        app: [copy('t1', 200)],
      }),
  ],
  [
    'copy-from-nowhere',
    'a copy of what the owner never held',
    () => judge({ history: wrote(1, { outcome: 'unknown' }), app: [copy('t1', 200)] }),
  ],
  [
    'copy-from-nowhere',
    'a copy of what the owner held only later',
    () => judge({ history: wrote(1), legacy: [took('t1', 300)], app: [copy('t1', 200)] }),
  ],
  [
    'stale-read',
    'a client does not see its own write through the same proxy',
    () =>
      judge({
        history: [...wrote(1), ...wrote(2), ...saw(3, 't1')],
        legacy: [took('t1', 100), took('t2', 200)],
      }),
  ],
  [
    'stale-read',
    'a created record is not found',
    () => judge({ history: [...wrote(1), ...saw(2, null)], legacy: [took('t1', 100)] }),
  ],
  ['stuck', 'a partition stays fenced', () => judge({ transitions: stream(fencedAt1000) })],
];

describe('each violation is found', () => {
  test.each(broken)('%s: %s', (kind, _, verdict) => {
    expect(kindsOf(verdict())).toContain(kind);
  });

  test('every kind has its history here', () => {
    expect([...new Set(broken.map(([kind]) => kind))].toSorted()).toEqual([...violationKinds].toSorted());
  });
});

describe('the documented gap', () => {
  const frozen = [{ process: 'proxy-1', fromMs: 900, toMs: 4_000 }];

  test('a frozen process whose write lands at the platform when it wakes is counted and named, no violation', () => {
    const verdict = judge({ transitions: moved, history: wrote(1), legacy: [took('t1', 4_050)], frozen });
    expect(verdict.violations).toEqual([]);
    expect(verdict.gap).toHaveLength(1);
    expect(verdict.gap[0]).toContain('legacy took the write t1');
  });

  test('one write for each freeze, and no more', () => {
    const legacy = [took('t1', 4_050), took('t2', 4_050, { record: 'r2' })];
    const history = [...wrote(1), ...wrote(2, { record: 'r2' })];
    const verdict = judge({ transitions: moved, history, legacy, frozen });
    expect(verdict.gap).toHaveLength(1);
    expect(kindsOf(verdict)).toContain('wrong-store');
  });

  test('that such a write is not seen afterwards is part of it', () => {
    const history = [...wrote(1), ...saw(2, null)];
    expect(judge({ transitions: moved, history, legacy: [took('t1', 4_050)], frozen }).violations).toEqual(
      [],
    );
  });

  test('never at a store with a guard', () => {
    const toLegacy = stream(
      ...[fencedAt1000, committedAt1200, openAt1300],
      { owner: 'app', phase: 'fenced', epoch: 5, changedAtMs: 5_000 },
      { owner: 'legacy', phase: 'committed', epoch: 6, changedAtMs: 5_100 },
      { owner: 'legacy', phase: 'open', epoch: 7, changedAtMs: 5_200 },
    );
    const verdict = judge({
      transitions: toLegacy,
      history: wrote(1, { atMs: 4_500 }),
      app: [took('t1', 9_050, { epoch: 4 })],
      frozen: [{ process: 'proxy-1', fromMs: 4_600, toMs: 9_000 }],
    });
    expect(kindsOf(verdict)).toContain('wrong-store');
  });

  test('not after a freeze that was shorter than the lease', () => {
    const verdict = judge({
      transitions: moved,
      history: wrote(1),
      legacy: [took('t1', 2_050)],
      frozen: [{ process: 'proxy-1', fromMs: 900, toMs: 2_000 }],
    });
    expect(kindsOf(verdict)).toContain('wrong-store');
  });

  test.each([
    ['not after a freeze that was over before the commit', 1, 1_250, -1_500, 1_150],
    ['not while it stood still', 1, 2_000, 900, 4_000],
    ['not for a write that was asked for while it stood still', 950, 4_050, 900, 4_000],
  ])('%s', (_, askedMs, tookMs, fromMs, toMs) => {
    const verdict = judge({
      transitions: moved,
      history: wrote(1, { atMs: askedMs }),
      legacy: [took('t1', tookMs)],
      frozen: [{ process: 'proxy-1', fromMs, toMs }],
    });
    expect(kindsOf(verdict)).toContain('wrong-store');
  });

  test('not long after it woke', () => {
    const verdict = judge({ transitions: moved, history: wrote(1), legacy: [took('t1', 9_000)], frozen });
    expect(kindsOf(verdict)).toContain('wrong-store');
  });
});

test('a read through another proxy may be behind', () => {
  const history = [...wrote(1), ...wrote(2), ...saw(3, 't1', { proxy: 'proxy-2' })];
  expect(judge({ history, legacy: [took('t1', 100), took('t2', 200)] }).violations).toEqual([]);
});

test('the checker imports nothing of the program', async () => {
  const { readFile } = await import('node:fs/promises');
  for (const file of ['checker.ts', 'timeline.ts', 'words.ts']) {
    const source = await readFile(`test/faults/${file}`, 'utf8');
    const imports = [...source.matchAll(/from '([^']+)'/g)].map((match) => match[1]);
    expect(imports.filter((name) => !/^\.\/(checker|timeline|words)\.ts$|^node:/.test(name ?? ''))).toEqual(
      [],
    );
  }
});
