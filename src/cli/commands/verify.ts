/** `verify`: compares both sides of a cohort, and with --repair has copied again what differs. */
import { verificationAnswer, type VerificationAnswer } from '../../admin/findings.ts';
import type { Command, Given } from '../command.ts';
import { exitCodes, type ExitCode, refusal } from '../exit.ts';
import { type Output, plain } from '../output.ts';
import { deadlineOf, poll } from '../wait.ts';

const linesShown = 20;

const run: Command = {
  name: 'verify',
  summary: 'Compare both sides of a cohort, record by record',
  positionals: ['[COHORT]'],
  options: {
    cohort: { type: 'string', value: 'NAME', summary: 'Which cohort; the same as COHORT.' },
    sample: { type: 'string', value: 'N', summary: 'Only so many partitions, picked at random.' },
    seed: { type: 'string', value: 'N', summary: 'With --sample: draws the same partitions again.' },
    values: { type: 'boolean', summary: 'Show the values that differ, too; they can be personal.' },
    repair: { type: 'boolean', summary: 'Have what differs copied again, and look again; needs --reason.' },
  },
  changes: false,
  async run(context, given) {
    const untilMs = deadlineOf(context);
    const body = bodyOf(given, context.reason);
    if (typeof body === 'string') return refusal('usage', body);
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const started = await admin.value.post('/verifications', body, verificationAnswer);
    if (!started.ok) return started.refusal;
    const { id } = started.value;
    let shown = -1;
    const ended = await poll(context, {
      ask: () => admin.value.get(`/verifications/${id}`, verificationAnswer),
      ended: (verification) => verification.state !== 'running',
      seen: ({ compared, partitions, progress, state }) => {
        if (progress.done === shown || state !== 'running') return;
        shown = progress.done;
        context.output.event('progress', { compared, partitions, ...progress });
        context.output.line(`step ${progress.done} of ${progress.total}`);
      },
      untilMs,
      goesOn: `The verification ${id} goes on in the admin process; verify cancel ${id} ends it.`,
    });
    if (!ended.ok) return ended.refusal;
    show(context.output, ended.value);
    return exitOf(ended.value);
  },
};

/** A sentence where the command was not used as it can be. */
function bodyOf(given: Given, reason: string): Record<string, unknown> | string {
  const cohort = given.positionals[0] ?? given.text('cohort');
  if (cohort === undefined) return 'Name the cohort: onewriter verify COHORT.';
  const [sample, seed] = [given.text('sample'), given.text('seed')];
  if (sample !== undefined && !/^[1-9]\d{0,8}$/.test(sample))
    return '--sample must be a number of partitions.';
  if (seed !== undefined && !/^\d{1,10}$/.test(seed))
    return '--seed must be the number that a verification named.';
  const repair = given.flag('repair');
  if (repair && reason === '') return '--repair needs --reason TEXT; it goes to the audit log.';
  return {
    cohort,
    ...(sample === undefined ? {} : { sample: Number(sample) }),
    ...(seed === undefined ? {} : { seed: Number(seed) }),
    ...(given.flag('values') ? { values: true } : {}),
    ...(repair ? { repair: true, reason } : {}),
  };
}

const cancel: Command = {
  name: 'verify cancel',
  summary: 'End a verification that is running',
  positionals: ['<VERIFICATION>'],
  options: {},
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/verifications/${encodeURIComponent(given.positionals[0] ?? '')}/cancel`;
    const ended = await admin.value.post(path, { reason: context.reason }, verificationAnswer);
    if (!ended.ok) return ended.refusal;
    show(context.output, ended.value);
    return exitCodes.done;
  },
};

export const verifyCommands: readonly Command[] = [run, cancel];

function exitOf({ state, differences }: VerificationAnswer): ExitCode {
  const { missing, extra, changed, unconfirmed } = differences;
  const found = missing + extra + changed + unconfirmed;
  if (found > 0) return exitCodes.precheckFailed;
  return state === 'done' ? exitCodes.done : exitCodes.error;
}

function show(output: Output, verification: VerificationAnswer): void {
  output.event('verification', verification);
  const {
    cohort,
    partitions,
    sampledFrom,
    compared,
    notCopied,
    records,
    differences,
    problems,
    repair,
    confidence,
  } = verification;
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
    ...(differences.unconfirmed === 0
      ? []
      : [['also different by the lists', String(differences.unconfirmed)] as const]),
    ...(repair === undefined
      ? []
      : [['repaired', `${repair.repaired} of ${repair.rung} that differed`] as const]),
  ]);
  if (confidence !== undefined) output.line(sentenceOf(verification));
  const { examples } = differences;
  if (examples.length > 0) output.line(output.paint('red', 'Differences:'));
  output.table(
    examples
      .slice(0, linesShown)
      .map(({ partition, difference, kind, id, fields = [], values, repaired }) => [
        plain(partition),
        repaired === true ? `${difference}, repaired` : difference,
        plain(`${kind} ${id}`),
        plain(
          values?.map(({ field, owner, copy }) => `${field}: ${owner} ≠ ${copy}`).join(', ') ??
            fields.join(', '),
        ),
      ]),
    '  ',
  );
  if (problems.length > 0) output.line(output.paint('yellow', 'Problems:'));
  output.table(
    problems.slice(0, linesShown).map(({ partition, detail }) => [plain(partition), plain(detail)]),
    '  ',
  );
}

function sentenceOf({ confidence, seed = 0 }: VerificationAnswer): string {
  if (confidence === undefined) return '';
  const { compared, differing, atMost, level } = confidence;
  const share = (100 * atMost).toPrecision(2);
  return `${differing} of ${compared} partitions differed: with ${100 * level} % confidence at most ${share} % of all do. The sample was drawn with --seed ${seed}.`;
}
