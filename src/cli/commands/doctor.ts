/** `doctor`: looks at everything a deployment needs, without one running. Changes nothing. */
import type { Command } from '../command.ts';
import type { Finding } from '../doctor/finding.ts';
import { exitCodes } from '../exit.ts';
import { type Output, plain } from '../output.ts';

export const doctor: Command = {
  name: 'doctor',
  summary: 'Check configuration, Redis, stores and ports; needs nothing running',
  positionals: [],
  options: {
    'probe-writes': {
      type: 'boolean',
      summary:
        'Ask the stores whether credentials meant for reading could write: one DELETE of an id that nobody has.',
    },
  },
  changes: false,
  async run({ configPath, env, output }, given) {
    // Loaded only here: it brings the clients of Redis and of the stores.
    const { examine } = await import('../doctor/examine.ts');
    const findings = await examine(configPath, env, { probeWrites: given.flag('probe-writes') });
    const count = (level: Finding['level']): number =>
      findings.filter((finding) => finding.level === level).length;
    for (const finding of findings) output.event('finding', finding);
    showFindings(output, findings);
    const summary = { ok: count('ok'), warn: count('warn'), fail: count('fail') };
    output.event('summary', summary);
    output.line(`${summary.ok} ok, ${summary.warn} warnings, ${summary.fail} failed`);
    return summary.fail > 0 ? exitCodes.error : exitCodes.done;
  },
};

function showFindings(output: Output, findings: readonly Finding[]): void {
  const colours = { ok: 'green', warn: 'yellow', fail: 'red' } as const;
  const width = Math.max(...findings.map((finding) => finding.check.length));
  for (const { level, check, detail, advice } of findings) {
    const mark = output.paint(colours[level], level.padEnd(4));
    output.line(`${mark}  ${check.padEnd(width)}  ${plain(detail)}`);
    if (advice !== undefined) output.line(`      ${' '.repeat(width)}  → ${advice}`);
  }
}
