/** `verify`: compares both sides of a cohort. Changes nothing. */
import { verificationAnswer, type VerificationAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes, type ExitCode, refusal } from '../exit.ts';
import { type Output, plain } from '../output.ts';
import { deadlineOf, poll } from '../wait.ts';

const linesShown = 20;

export const verify: Command = {
  name: 'verify',
  summary: 'Compare both sides of a cohort, record by record',
  positionals: ['[COHORT]'],
  options: {
    cohort: { type: 'string', value: 'NAME', summary: 'Which cohort; the same as COHORT.' },
    sample: { type: 'string', value: 'N', summary: 'Only so many partitions, picked at random.' },
  },
  changes: false,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const cohort = given.positionals[0] ?? given.text('cohort');
    if (cohort === undefined) return refusal('usage', 'Name the cohort: onewriter verify COHORT.');
    const sample = given.text('sample');
    if (sample !== undefined && !/^[1-9]\d{0,8}$/.test(sample)) {
      return refusal('usage', '--sample must be a number of partitions.');
    }
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const body = { cohort, ...(sample === undefined ? {} : { sample: Number(sample) }) };
    const started = await admin.value.post('/verifications', body, verificationAnswer);
    if (!started.ok) return started.refusal;
    const { id } = started.value;
    let shown = -1;
    const ended = await poll(context, {
      ask: () => admin.value.get(`/verifications/${id}`, verificationAnswer),
      ended: (verification) => verification.state !== 'running',
      seen: ({ compared, partitions, state }) => {
        if (compared === shown || state !== 'running') return;
        shown = compared;
        context.output.event('progress', { compared, partitions });
        context.output.line(`compared ${compared}/${partitions} partitions`);
      },
      untilMs,
      goesOn: `The verification ${id} goes on in the admin process.`,
    });
    if (!ended.ok) return ended.refusal;
    show(context.output, ended.value);
    return exitOf(ended.value);
  },
};

function exitOf({ state, differences }: VerificationAnswer): ExitCode {
  const found = differences.missing + differences.extra + differences.changed;
  if (found > 0) return exitCodes.precheckFailed;
  return state === 'done' ? exitCodes.done : exitCodes.error;
}

function show(output: Output, verification: VerificationAnswer): void {
  output.event('verification', verification);
  const { cohort, partitions, sampledFrom, compared, notCopied, records, differences, problems } =
    verification;
  const sampled = sampledFrom > partitions ? ` (a sample of ${sampledFrom})` : '';
  if (notCopied > 0 && notCopied === partitions && problems.length === 0) {
    output.line(
      'Nothing was compared: the app owns all of these, and legacy keeps what it had when they moved.',
    );
  }
  output.table([
    ['cohort', plain(cohort)],
    ['partitions', `${compared}/${partitions} compared${sampled}`],
    ...(notCopied === 0
      ? []
      : [
          [
            'not compared',
            `${notCopied}: the app owns them, and nothing is copied to legacy any more`,
          ] as const,
        ]),
    ['records', String(records)],
    ['missing in the copy', String(differences.missing)],
    ['only in the copy', String(differences.extra)],
    ['different', String(differences.changed)],
  ]);
  const { examples } = differences;
  if (examples.length > 0) output.line(output.paint('red', 'Differences:'));
  output.table(
    examples
      .slice(0, linesShown)
      .map(({ partition, difference, kind, id, fields = [] }) => [
        plain(partition),
        difference,
        plain(`${kind} ${id}`),
        plain(fields.join(', ')),
      ]),
    '  ',
  );
  if (problems.length > 0) output.line(output.paint('yellow', 'Problems:'));
  output.table(
    problems.slice(0, linesShown).map(({ partition, detail }) => [plain(partition), plain(detail)]),
    '  ',
  );
}
