/**
 * Who owned which partition when, rebuilt by the checker from the raw stream of transitions. It believes
 * nothing that the stream says twice: each transition must follow from the one before.
 */
import type { RawTransition, Store } from './words.ts';

export type Phase = 'open' | 'fenced' | 'committed';

/** From `fromMs` (Redis's clock) until the next span. */
export interface Span {
  readonly owner: Store;
  readonly phase: Phase;
  readonly epoch: number;
  readonly fromMs: number;
  readonly deadlineMs?: number;
}

export interface Break {
  readonly partition: string;
  readonly detail: string;
}

export interface Timelines {
  readonly of: (partition: string) => readonly Span[];
  readonly partitions: readonly string[];
  /** Where the stream contradicts itself or the protocol. */
  readonly breaks: readonly Break[];
  readonly committed: number;
  readonly aborted: number;
  /** From each fence to its end, where it moved the partition. */
  readonly pausesMs: readonly number[];
  /** How long after its deadline each fence ended that outlasted it. */
  readonly overrunsMs: readonly number[];
}

const firstEpoch = 1;

export function readTimelines(transitions: readonly RawTransition[], defaultOwner: Store): Timelines {
  const spans = new Map<string, Span[]>();
  const breaks: Break[] = [];
  const ids = new Set<string>();
  let lastVersion = 0;
  let committed = 0;
  let aborted = 0;
  const pausesMs: number[] = [];
  const overrunsMs: number[] = [];
  const of = (partition: string): Span[] => {
    const known = spans.get(partition);
    if (known !== undefined) return known;
    const fresh: Span[] = [{ owner: defaultOwner, phase: 'open', epoch: firstEpoch, fromMs: 0 }];
    spans.set(partition, fresh);
    return fresh;
  };
  for (const { id, fields } of transitions) {
    const values = fieldsOf(fields);
    const partition = values.get('partition') ?? '';
    const told = (detail: string): void =>
      void breaks.push({ partition, detail: `transition ${id}: ${detail}` });
    const version = Number(id.split('-', 1)[0]);
    if (version !== lastVersion + 1) told(`follows version ${lastVersion}`);
    lastVersion = version;
    const name = values.get('id') ?? '';
    if (ids.has(name)) told(`its random id ${name} has been used before`);
    ids.add(name);
    // The stream also holds changes of other things, in the same order.
    if (values.get('kind') !== 'ownership') continue;
    const after = JSON.parse(values.get('after') ?? '{}') as Told;
    const before = JSON.parse(values.get('before') ?? '{}') as Told;
    const line = of(partition);
    const last = line.at(-1);
    if (last === undefined) throw new Error('a timeline begins with a span');
    if (before.epoch !== last.epoch || before.owner !== last.owner || before.phase !== last.phase) {
      told(`says it follows ${describe(before)}, but the one before left ${describe(last)}`);
    }
    if (after.epoch !== last.epoch + 1) told(`epoch ${after.epoch} follows epoch ${last.epoch}`);
    if (!mayFollow(last, after)) told(`${describe(after)} cannot follow ${describe(last)}`);
    if (after.changedAtMs < last.fromMs) told('the clock of Redis went backwards');
    if (last.phase === 'fenced' && after.phase === 'open') aborted += 1;
    if (last.deadlineMs !== undefined && after.changedAtMs > last.deadlineMs) {
      overrunsMs.push(after.changedAtMs - last.deadlineMs);
    }
    if (last.phase === 'committed' && after.phase === 'open') {
      committed += 1;
      pausesMs.push(after.changedAtMs - (line.at(-2)?.fromMs ?? after.changedAtMs));
    }
    line.push({
      ...{ owner: after.owner, phase: after.phase, epoch: after.epoch, fromMs: after.changedAtMs },
      ...(after.deadlineMs === undefined ? {} : { deadlineMs: after.deadlineMs }),
    });
  }
  return { of, partitions: [...spans.keys()], breaks, committed, aborted, pausesMs, overrunsMs };
}

/** The last span that had begun at that time. */
export function spanAt(spans: readonly Span[], atMs: number): Span {
  const found = spans.findLast((span) => span.fromMs <= atMs) ?? spans[0];
  if (found === undefined) throw new Error('a timeline begins with a span');
  return found;
}

interface Told {
  readonly owner: Store;
  readonly phase: Phase;
  readonly epoch: number;
  readonly changedAtMs: number;
  readonly deadlineMs?: number;
}

/** open(A) → fenced(A) → committed(B) → open(B), or back from the fence to open(A). */
function mayFollow(before: Pick<Told, 'owner' | 'phase'>, after: Pick<Told, 'owner' | 'phase'>): boolean {
  const sameOwner = before.owner === after.owner;
  switch (before.phase) {
    case 'open':
      return after.phase === 'fenced' && sameOwner;
    case 'fenced':
      return (after.phase === 'open' && sameOwner) || (after.phase === 'committed' && !sameOwner);
    case 'committed':
      return after.phase === 'open' && sameOwner;
  }
}

function describe({ owner, phase, epoch }: Pick<Told, 'owner' | 'phase' | 'epoch'>): string {
  return `${phase}(${owner}, ${epoch})`;
}

function fieldsOf(fields: readonly string[]): Map<string, string> {
  const values = new Map<string, string>();
  for (let at = 0; at + 1 < fields.length; at += 2) values.set(fields[at] ?? '', fields[at + 1] ?? '');
  return values;
}
