import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { adminProblems } from '../../../src/admin/problems.ts';
import { globalOptions } from '../../../src/cli/command.ts';
import { commands } from '../../../src/cli/commands.ts';
import { commandsNotAvailableYet } from '../../../src/cli/parse.ts';

const cli = readFileSync('docs/cli.md', 'utf8');
const api = readFileSync('docs/admin-api.md', 'utf8');

test('docs/cli.md names every command and every option', () => {
  for (const { name, options } of commands) {
    expect(cli).toContain(`\`${name}`);
    for (const option of Object.keys(options)) expect(cli).toContain(`--${option}`);
  }
  for (const option of Object.keys(globalOptions)) {
    if (option !== 'help') expect(cli).toContain(`\`--${option}`);
  }
  for (const name of commandsNotAvailableYet) expect(cli).toContain(`\`${name}\``);
});

test('docs/admin-api.md names every problem code with its status', () => {
  for (const [code, { status }] of Object.entries(adminProblems)) {
    const row = api.split('\n').find((line) => line.startsWith('|') && line.includes(`\`${code}\``));
    expect(`${code}: ${row ?? ''}`).toContain(String(status));
  }
});
