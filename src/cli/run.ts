/** One command from its words to its exit code. Nothing of the process is touched here, so tests can call it. */
import type { Readable, Writable } from 'node:stream';
import { findAdmin } from './address.ts';
import { AdminClient } from './client.ts';
import type { Command, Context, Environment, Given } from './command.ts';
import { commands } from './commands.ts';
import { showCommand, showUsage, usageOf } from './commands/about.ts';
import type { Composition } from './composition.ts';
import { type CliRefusal, exitCodes, type ExitCode, refusal } from './exit.ts';
import { Output } from './output.ts';
import { parseCommandLine, parseDurationMs } from './parse.ts';

export interface Surroundings {
  readonly argv: readonly string[];
  readonly env: Environment;
  readonly stdin: Readable & { readonly isTTY?: boolean };
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable;
  readonly interrupted: AbortSignal;
  readonly onHangup?: Context['onHangup'];
  readonly composition: () => Promise<Composition>;
}

const defaultConfig = 'config/onewriter.yaml';

export async function runCommandLine(surroundings: Surroundings): Promise<ExitCode> {
  const { argv, env, stdout, stderr } = surroundings;
  const json = argv.includes('--json');
  const plainText = argv.includes('--no-color') || (env['NO_COLOR'] ?? '') !== '';
  const output = new Output({ stdout, stderr, json, colour: stdout.isTTY === true && !plainText && !json });
  const parsed = parseCommandLine(argv, commands);
  if (!parsed.ok) {
    output.begin('');
    const hint = parsed.refusal.code === 'usage' ? 'onewriter help lists commands and options.' : undefined;
    return report(output, parsed.refusal, hint);
  }
  const { command, given } = parsed.value;
  output.begin(command?.name ?? '');
  if (command === undefined) {
    showUsage(output, commands);
    return given.flag('help') ? exitCodes.done : exitCodes.error;
  }
  if (given.flag('help')) {
    showCommand(output, command);
    return exitCodes.done;
  }
  const context = contextOf(surroundings, output, command, given);
  if ('code' in context) return report(output, context, `Usage: ${usageOf(command)}`);
  const outcome = await command.run(context, given);
  if (typeof outcome === 'number') return outcome;
  return report(output, outcome, outcome.code === 'usage' ? `Usage: ${usageOf(command)}` : undefined);
}

function contextOf(
  { env, stdin, interrupted, onHangup = () => () => undefined, composition }: Surroundings,
  output: Output,
  command: Command,
  given: Given,
): Context | CliRefusal {
  const reason = given.text('reason')?.trim() ?? '';
  if (command.changes && reason === '') {
    return refusal('usage', `"${command.name}" changes state, so it needs --reason TEXT; nothing was done.`);
  }
  const timeout = given.text('timeout');
  const timeoutMs = timeout === undefined ? undefined : parseDurationMs(timeout);
  if (timeout !== undefined && timeoutMs === undefined) {
    return refusal('usage', `--timeout: "${timeout}" is no time; write 10, 10s, 500ms or 2m.`);
  }
  const configPath = given.text('config') ?? (env['ONEWRITER_CONFIG'] || defaultConfig);
  return {
    env,
    output,
    stdin,
    configPath,
    reason,
    yes: given.flag('yes'),
    timeoutMs,
    interrupted,
    onHangup,
    composition,
    admin: () => {
      const found = findAdmin({ url: given.text('admin'), token: given.text('token'), configPath, env });
      return found.ok ? { ok: true, value: new AdminClient(found.value, interrupted) } : found;
    },
  };
}

function report(output: Output, why: CliRefusal, hint: string | undefined): ExitCode {
  output.event('error', { exit: why.exit, code: why.code, detail: why.detail, lines: why.lines ?? [] });
  output.aside(output.paint('red', `onewriter: ${why.detail}`));
  for (const line of why.lines ?? []) output.aside(`  ${line}`);
  if (hint !== undefined) output.aside(hint);
  return why.exit;
}
