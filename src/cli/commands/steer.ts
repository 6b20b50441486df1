/** `pause`, `resume` and `abort` of a flip, named by its id or by its cohort. */
import { flipAnswer, flipsAnswer } from '../../admin/answers.ts';
import { hasEnded } from '../../core/flip.ts';
import type { AdminClient } from '../client.ts';
import type { Command, Given } from '../command.ts';
import { type Attempt, exitCodes, failedAttempt, refusal } from '../exit.ts';
import { showFlip } from './follow-flip.ts';

const summaries = {
  pause: 'Start no further handoff of a flip',
  resume: 'Go on with a paused flip',
  abort: 'End a flip; what has committed stays',
} as const;

export const steering: readonly Command[] = (['pause', 'resume', 'abort'] as const).map((action) => ({
  name: action,
  summary: summaries[action],
  positionals: ['[FLIP_ID]'],
  options: { cohort: { type: 'string', value: 'NAME', summary: 'The cohort whose flip is under way.' } },
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const id = await flipIdOf(admin.value, given);
    if (!id.ok) return id.refusal;
    const path = `/flips/${encodeURIComponent(id.value)}/${action}`;
    const steered = await admin.value.post(path, { reason: context.reason }, flipAnswer);
    if (!steered.ok) return steered.refusal;
    context.output.event('flip', steered.value);
    showFlip(context.output, steered.value);
    return exitCodes.done;
  },
}));

async function flipIdOf(admin: AdminClient, given: Given): Promise<Attempt<string>> {
  const [id] = given.positionals;
  const cohort = given.text('cohort');
  if ((id === undefined) === (cohort === undefined)) {
    return failedAttempt(refusal('usage', 'Name the flip by its id, or by --cohort NAME; one of the two.'));
  }
  if (id !== undefined) return { ok: true, value: id };
  const flips = await admin.get('/flips', flipsAnswer);
  if (!flips.ok) return flips;
  const current = flips.value.flips.find((flip) => flip.cohort === cohort && !hasEnded(flip.state));
  if (current !== undefined) return { ok: true, value: current.id };
  return failedAttempt(refusal('no-such-flip', `No flip of the cohort ${cohort ?? ''} is under way.`));
}
