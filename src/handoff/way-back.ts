/**
 * The way back to a store that nothing is copied to. It is clean where the guard of the store that is left
 * proves that no user's write was accepted there since it became the owner; then nothing can be lost. Asked
 * here before anything is fenced, so that no user is paused in vain; what counts is asked again in the fence.
 */
import { inBatches } from '../batches.ts';
import type { Blocker, OrderRefusal, Plan, WayBack } from '../core/flip.ts';
import { writtenSinceSeal } from '../core/guard.ts';
import type { HandoffSettings } from '../core/handoff.ts';
import { otherStore, type StoreName } from '../core/ownership.ts';
import type { GuardCalls } from '../core/ports.ts';
import { sentenceOf } from '../log.ts';

const askedAtOnce = 20;
const askedWithinMs = 5_000;

const waysOut =
  'Ways out: correct it forward, in the store that owns it now; or have what was written there copied back ' +
  '(sync.rollbackWindow, docs/sync.md). Discarding it is not available yet.';

export function isProvenByGuard({ proof }: Pick<HandoffSettings, 'proof'>, from: StoreName): boolean {
  return proof?.[from] === 'unwritten';
}

/** What an operator must know before a move: whether there is a way back from `to`, and until when. */
export function wayBackFrom(
  to: StoreName,
  {
    settings,
    guarded,
    writable,
  }: {
    readonly settings: Pick<HandoffSettings, 'proof'>;
    readonly guarded: Readonly<Record<StoreName, boolean>>;
    readonly writable: readonly StoreName[];
  },
): WayBack {
  const back = otherStore(to);
  if (!isProvenByGuard(settings, to) && writable.includes(back)) {
    const copied = `flip to ${back} again; what is written in ${to} is copied to it`;
    if (back === 'app') return { until: 'always', detail: copied };
    return {
      until: 'window-closed',
      detail: `${copied} until you end that ("window close COHORT"); from then on there is none`,
    };
  }
  const notCopied = `nothing is copied from ${to} to ${back}`;
  if (isProvenByGuard(settings, to) && guarded[to]) {
    return {
      until: 'first-write',
      detail: `of each partition until its users first write in ${to}; from then on there is none, because ${notCopied}`,
    };
  }
  const detail = `NONE: what moves stays in ${to}, because ${notCopied} and ${to} has no guard (stores.${to}.guard) that could prove that nothing would be lost`;
  return { until: 'never', detail };
}

/** Why this partition cannot leave `from` without a copy; undefined while its guard says that nothing is lost. */
export async function whyWritten(
  guards: Pick<GuardCalls, 'verdict'>,
  from: StoreName,
  stamp: { readonly partition: string; readonly epoch: number },
): Promise<Blocker | undefined> {
  try {
    const answer = await guards.verdict(from, stamp, 'read', AbortSignal.timeout(askedWithinMs));
    const written = writtenSinceSeal(answer);
    if (written === false) return undefined;
    if (written === true) {
      return {
        code: 'app-was-written',
        detail: `${from} has accepted a user's write since it became the owner; going back would lose it. ${waysOut}`,
      };
    }
    return {
      code: 'no-clean-way-back',
      detail: `the guard of ${from} cannot say that no user's write was accepted since it became the owner. ${waysOut}`,
    };
  } catch (error) {
    return { code: 'guard-unreachable', detail: `the guard of ${from} did not answer: ${sentenceOf(error)}` };
  }
}

/** Blockers by partition. A guard that leaves a whole group unanswered is not asked for the others. */
export async function askAllWritten(
  guards: Pick<GuardCalls, 'verdict'>,
  from: StoreName,
  epochs: ReadonlyMap<string, number>,
): Promise<Map<string, Blocker>> {
  const blocked = new Map<string, Blocker>();
  const stamps = [...epochs].map(([partition, epoch]) => ({ partition, epoch }));
  let silent: Blocker | undefined;
  for (const group of inBatches(stamps, askedAtOnce)) {
    const known = silent;
    const answers =
      known === undefined
        ? await Promise.all(group.map((stamp) => whyWritten(guards, from, stamp)))
        : group.map(() => known);
    for (const [index, { partition }] of group.entries()) {
      const blocker = answers[index];
      if (blocker !== undefined) blocked.set(partition, blocker);
    }
    if (answers.every((answer) => answer?.code === 'guard-unreachable')) silent ??= answers[0];
  }
  return blocked;
}

/** Stands in the way of all partitions alike where the store that is left has no guard to ask. */
export function withoutGuard(from: StoreName, to: StoreName): Blocker {
  return {
    code: 'no-clean-way-back',
    detail:
      `nothing is copied to ${to}, and ${from} has no guard (stores.${from}.guard) that could prove that it took no ` +
      `user's write since it became the owner; what was written there would be lost. ${waysOut}`,
  };
}

/** A plan of which nothing can be carried out, as the refusal of the order. */
export function nothingCanMove({ blockers, blocked }: Plan): OrderRefusal {
  const found = [...blockers, ...blocked].map(({ code }) => code);
  const nothingDone = 'so nothing was fenced and nothing was changed.';
  if (blockers.some(({ code }) => code === 'no-clean-way-back')) {
    const detail = `There is no clean way back, ${nothingDone} ${waysOut}`;
    return { refused: 'no-clean-way-back', detail, blockers, blocked };
  }
  const mend = found.includes('app-was-written')
    ? `Users have written since the move, ${nothingDone} ${waysOut}`
    : `A check failed, ${nothingDone} Mend what is listed and order the flip again.`;
  return { refused: 'nothing-can-move', detail: mend, blockers, blocked };
}
