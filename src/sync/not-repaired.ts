/** Why records that were rung for are not copied: nothing is copied at all, or they cannot be. */
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { RecordKey } from '../core/ports.ts';
import { type DeadLetters, letterOf } from './dead-letters.ts';
import type { HaltBook } from './halts.ts';

export interface Hindrances {
  readonly halts: Pick<HaltBook, 'read'>;
  readonly letters: Pick<DeadLetters, 'find'>;
}

type Problem = { readonly partition: string; readonly detail: string };
type Differing = RecordKey & { readonly owner: StoreName };

const lettersNamed = 20;

/** What keeps all copies of these from being made now, once for each cause; then waiting for them is in vain. */
export async function whyHalted(
  { halts }: Hindrances,
  differing: readonly Differing[],
): Promise<readonly Problem[]> {
  const now = await halts.read();
  const targets = [...new Set(differing.map(({ owner }) => otherStore(owner)))];
  const stopped = targets.map((to) => now.to(to));
  if (stopped.some((blockers) => blockers.length === 0)) return [];
  return [...new Set(stopped.flat().map(({ detail }) => detail))].map((detail) => ({
    partition: '',
    detail: `nothing can be repaired now: ${detail}. What differs is noted, and copied after that`,
  }));
}

/** Those that are dead letters by now, the first ones. */
export async function whyLeft(
  { letters }: Hindrances,
  differing: readonly Differing[],
): Promise<readonly Problem[]> {
  const found: Problem[] = [];
  for (const { partition, kind, id } of differing.slice(0, lettersNamed)) {
    const letter = await letters.find(letterOf({ partition, kind, id }));
    if (letter === undefined) continue;
    const what = `${kind} ${id} is a dead letter (${letter.reason})`;
    const next = `onewriter sync show ${letter.letter}, mend it, then: onewriter sync retry ${letter.letter} --reason TEXT`;
    found.push({ partition, detail: `${what}: ${next}` });
  }
  return found;
}
