/** Following a flip to its end, and what is printed of it. */
import { flipAnswer, type FlipAnswer, flipPartitionsAnswer } from '../../admin/answers.ts';
import { hasEnded } from '../../core/flip.ts';
import type { AdminClient } from '../client.ts';
import type { Context } from '../command.ts';
import type { Attempt } from '../exit.ts';
import { type Output, plain } from '../output.ts';
import { poll } from '../wait.ts';
import { showBlocked } from './show-plan.ts';

/** A pause that ends by itself, as for a stale member, is waited out so long. */
const patienceMs = 20_000;

/** Ends with the flip, or when it will not go on without somebody. */
export function followFlip(
  context: Context,
  admin: AdminClient,
  id: string,
  untilMs: number,
): Promise<Attempt<FlipAnswer>> {
  let shown = '';
  const waits = new Waits(context.output, admin, id);
  let pausedSinceMs: number | undefined;
  return poll(context, {
    ask: async () => {
      const asked = await admin.get(`/flips/${encodeURIComponent(id)}`, flipAnswer);
      if (asked.ok && asked.value.state === 'running' && progressOf(asked.value) === shown)
        await waits.look();
      return asked;
    },
    seen: (flip) => {
      const line = progressOf(flip);
      if (line === shown) return;
      shown = line;
      context.output.event('flip', flip);
      context.output.line(line);
    },
    ended: (flip) => {
      if (hasEnded(flip.state)) return true;
      if (flip.state === 'running') pausedSinceMs = undefined;
      if (flip.state === 'running' || flip.state === 'planned') return false;
      pausedSinceMs ??= performance.now();
      const endsByItself =
        flip.state === 'paused' &&
        /^(stale-member|no-members|ledger-unreachable|lead-lapsed)\b/.test(flip.detail);
      return !endsByItself || performance.now() - pausedSinceMs > patienceMs;
    },
    untilMs,
    goesOn: `The flip ${id} goes on: onewriter status --watch.`,
  });
}

const waitLookMs = 1_000;
const waitsTold = 20;

/** Says, while nothing moves on, which partitions are tried again and why; each reason once. */
class Waits {
  readonly #output: Output;
  readonly #admin: AdminClient;
  readonly #path: string;
  readonly #told = new Set<string>();
  #lookedMs = performance.now();

  constructor(output: Output, admin: AdminClient, id: string) {
    this.#output = output;
    this.#admin = admin;
    this.#path = `/flips/${encodeURIComponent(id)}/partitions?limit=100`;
  }

  async look(): Promise<void> {
    if (performance.now() - this.#lookedMs < waitLookMs || this.#told.size >= waitsTold) return;
    this.#lookedMs = performance.now();
    const page = await this.#admin.get(this.#path, flipPartitionsAnswer);
    if (!page.ok) return;
    for (const { partition, outcome, lastFailure } of page.value.partitions) {
      if (outcome !== 'pending' || lastFailure === undefined) continue;
      const line = `${plain(partition)} waits, and is tried again: ${lastFailure.code}: ${plain(lastFailure.detail)}`;
      if (this.#told.has(line) || this.#told.size >= waitsTold) continue;
      this.#told.add(line);
      this.#output.event('waiting', { partition, ...lastFailure });
      this.#output.line(`  ${line}`);
    }
  }
}

export function showFlip(output: Output, flip: FlipAnswer): void {
  const colour = flip.state === 'completed' && flip.aborted === 0 ? 'green' : 'yellow';
  const detail = flip.detail === '' ? '' : ` (${plain(flip.detail)})`;
  output.line();
  output.line(`Flip ${flip.id} is ${output.paint(colour, flip.state)}${detail}`);
  const refused = flip.blocked.length - flip.aborted;
  const rows = [
    ['committed', String(flip.committed)],
    ['aborted', String(flip.aborted)],
    ['pending', String(flip.pending)],
    ['blocked', String(Math.max(0, refused))],
  ];
  const { pauseMs } = flip;
  if (pauseMs !== undefined) {
    const [p50, p99, most] = [pauseMs.p50, pauseMs.p99, pauseMs.max].map((value) => Math.round(value));
    rows.push(['write pause', `p50 ${p50} ms, p99 ${p99} ms, max ${most} ms`]);
  }
  output.table(rows, '  ');
  showBlocked(output, flip.blocked);
}

function progressOf({ state, detail, committed, total, aborted, pending }: FlipAnswer): string {
  const counts = `${committed}/${total} committed, ${aborted} aborted, ${pending} pending`;
  if (state === 'running') return counts;
  return `${counts} — ${state.toUpperCase()}${detail === '' ? '' : ` (${plain(detail)})`}`;
}
