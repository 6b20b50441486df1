/** `status FLIP --partitions`: what each partition of a flip went through, page by page. */
import { type FlipPartitionAnswer, flipPartitionsAnswer } from '../../admin/answers.ts';
import type { AdminClient } from '../client.ts';
import type { Context } from '../command.ts';
import { type CliRefusal, type ExitCode, exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

const perPage = 500;

export async function showFlipPartitions(
  { output }: Context,
  admin: AdminClient,
  flip: string,
): Promise<ExitCode | CliRefusal> {
  let cursor = '';
  do {
    const page = await admin.get(
      `/flips/${encodeURIComponent(flip)}/partitions?limit=${perPage}${cursor === '' ? '' : `&cursor=${cursor}`}`,
      flipPartitionsAnswer,
    );
    if (!page.ok) return page.refusal;
    for (const partition of page.value.partitions) output.event('partition', partition);
    output.table(page.value.partitions.map(rowOf));
    cursor = page.value.next ?? '';
  } while (cursor !== '' && !output.broken.aborted);
  return exitCodes.done;
}

function rowOf({ partition, outcome, attempts, pauseMs, proof, lastFailure }: FlipPartitionAnswer): string[] {
  const tried = attempts === 1 ? '1 attempt' : `${attempts} attempts`;
  const paused = pauseMs === undefined ? '-' : `${Math.round(pauseMs)} ms`;
  const proven = proof === undefined ? '-' : `${proof.recordsCompared} compared`;
  const failure = lastFailure === undefined ? '' : plain(`${lastFailure.code}: ${lastFailure.detail}`);
  return [plain(partition), outcome, tried, paused, proven, failure];
}
