/** `help` and `version`, and the usage texts. */
import { type Command, globalOptions, type Option } from '../command.ts';
import { exitCodes, refusal } from '../exit.ts';
import { nearest } from '../nearest.ts';
import type { Output } from '../output.ts';
import { version as ours } from '../version.ts';

export const version: Command = {
  name: 'version',
  summary: 'Print the version',
  positionals: [],
  options: {},
  changes: false,
  run({ output }) {
    output.line(`onewriter ${ours} (Node ${process.versions.node})`);
    return Promise.resolve(exitCodes.done);
  },
};

export function helpFor(commands: () => readonly Command[]): Command {
  return {
    name: 'help',
    summary: 'Explain a command',
    positionals: ['[COMMAND]', '[WORD]'],
    options: {},
    changes: false,
    run({ output }, { positionals }) {
      const name = positionals.join(' ');
      if (name === '') {
        showUsage(output, commands());
        return Promise.resolve(exitCodes.done);
      }
      const command = commands().find((candidate) => candidate.name === name);
      if (command !== undefined) {
        showCommand(output, command);
        return Promise.resolve(exitCodes.done);
      }
      const group = commands().filter((candidate) => candidate.name.startsWith(`${name} `));
      if (group.length > 0) {
        for (const one of group) showCommand(output, one);
        return Promise.resolve(exitCodes.done);
      }
      const meant = nearest(
        name,
        commands().map((candidate) => candidate.name),
      );
      const hint = meant === undefined ? 'See "onewriter help".' : `Did you mean "${meant}"?`;
      return Promise.resolve(refusal('usage', `There is no command "${name}". ${hint}`));
    },
  };
}

export function showUsage(output: Output, commands: readonly Command[]): void {
  output.line('onewriter COMMAND [OPTIONS]');
  output.line();
  output.table(
    commands.map((command) => [[command.name, ...command.positionals].join(' '), command.summary]),
    '  ',
  );
  output.line();
  output.line('Options of every command:');
  output.table(rowsOf(globalOptions), '  ');
  output.line();
  output.line('docs/cli.md explains commands and exit codes.');
}

export function showCommand(output: Output, command: Command): void {
  output.line(usageOf(command));
  output.line();
  output.line(`${command.summary}.${command.changes ? ' Changes state: --reason is mandatory.' : ''}`);
  const rows = rowsOf(command.options);
  if (rows.length > 0) output.line();
  output.table(rows, '  ');
  output.line();
  output.line('Options of every command: onewriter help');
}

export function usageOf({ name, positionals, options, changes }: Command): string {
  const own = Object.keys(options).length > 0 ? ['[OPTIONS]'] : [];
  return ['onewriter', name, ...positionals, ...own, ...(changes ? ['--reason TEXT'] : [])].join(' ');
}

function rowsOf(options: Readonly<Record<string, Option>>): string[][] {
  return Object.entries(options).map(([name, { value, summary }]) => [
    value === undefined ? `--${name}` : `--${name} ${value}`,
    summary,
  ]);
}
