/** A plan as people read it. */
import type { PlanAnswer } from '../../admin/answers.ts';
import { type Output, plain } from '../output.ts';

const namesShown = 10;
const blockedShown = 50;

/** Everything that stands in the way, not the first of it; the last line sums up. */
export function showPlan(output: Output, plan: PlanAnswer): void {
  output.event('plan', plan);
  output.line(`Cohort ${plain(plan.cohort)} → ${plan.to}   plan ${plan.id}`);
  output.table(
    [
      [labelOf(plan), String(plan.flip.length), firstNames(plan.flip)],
      ['unchanged', String(plan.unchanged.length), firstNames(plan.unchanged)],
      ['blocked', String(plan.blocked.length), firstNames(plan.blocked.map((entry) => entry.partition))],
    ],
    '  ',
  );
  if (plan.waveSizes.length > 0) output.line(`Waves: ${plan.waveSizes.join(', ')} partitions`);
  output.line(`Selection: ${plain(JSON.stringify(plan.selection))}`);
  output.line(`Membership: sha256 ${plan.membershipHash}`);
  const epochs = Object.values(plan.epochs);
  if (epochs.length > 0) output.line(`Epochs: ${span(epochs).join(' to ')}`);
  if (plan.pinnedRoutes.length > 0) {
    output.line(`Outside the promise (no partition): ${plan.pinnedRoutes.map(plain).join(', ')}`);
  }
  // Of what does not move, nothing comes back.
  if (plan.flip.length > 0) output.line(`Way back: ${plain(plan.wayBack.detail)}`);
  if (plan.blockers.length > 0) {
    output.line(output.paint('red', 'Nothing can move until this is mended:'));
    for (const { code, detail } of plan.blockers) output.line(`  ${code}: ${plain(detail)}`);
  }
  showBlocked(output, plan.blocked);
  output.line(summaryOf(plan));
}

export function showBlocked(output: Output, blocked: PlanAnswer['blocked']): void {
  if (blocked.length === 0) return;
  output.line(output.paint('yellow', 'Blocked:'));
  output.table(
    blocked
      .slice(0, blockedShown)
      .map(({ partition, code, detail }) => [plain(partition), code, plain(detail)]),
    '  ',
  );
  if (blocked.length > blockedShown) {
    output.line(`  and ${blocked.length - blockedShown} more (--json lists all)`);
  }
}

type Summed = Pick<PlanAnswer, 'to' | 'flip' | 'blocked' | 'blockers'>;

function labelOf({ to, blockers }: Summed): string {
  const what = to === 'app' ? 'flip' : 'reverse';
  return blockers.length > 0 ? `would ${what}` : `to ${what}`;
}

/** Moves back to legacy count as reversed. */
export function summaryOf(plan: Summed): string {
  const { to, flip, blocked, blockers } = plan;
  if (blockers.length > 0) {
    return `Plan: nothing can move; ${flip.length} ${labelOf(plan)} once that is mended, ${blocked.length} blocked`;
  }
  const [forward, back] = to === 'app' ? [flip.length, 0] : [0, flip.length];
  return `Plan: ${forward} to flip, ${blocked.length} blocked, ${back} to reverse`;
}

/** Smallest and largest, without spreading a long list over an argument list. */
function span(numbers: readonly number[]): [number, number] {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const number of numbers) {
    least = Math.min(least, number);
    most = Math.max(most, number);
  }
  return [least, most];
}

function firstNames(names: readonly string[]): string {
  const shown = names.slice(0, namesShown).map(plain).join(', ');
  return names.length > namesShown ? `${shown}, …` : shown;
}
