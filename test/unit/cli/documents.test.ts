import { readdirSync, readFileSync } from 'node:fs';
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

test('the alarms in docs/sync.md are events, metrics and commands that there are', () => {
  const [, alarms = ''] =
    /\n## Alarms[^\n]*\n([\s\S]*?)\n## /.exec(readFileSync('docs/sync.md', 'utf8')) ?? [];
  const rows = alarms.split('\n').filter((line) => line.startsWith('| `sync.'));
  expect(rows.length).toBeGreaterThan(8);
  const source = ['admin', 'sync', 'sync/webhooks']
    .flatMap((folder) => readdirSync(`src/${folder}`).map((file) => `src/${folder}/${file}`))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => readFileSync(file, 'utf8'))
    .join('\n');
  for (const row of rows) {
    for (const [, event = ''] of row.matchAll(/`(sync\.[a-z-]+)`/g)) expect(source).toContain(`'${event}'`);
    for (const [, metric = ''] of row.matchAll(/`onewriter_([a-z_]+)`/g)) {
      expect(source).toContain(`'${metric}'`);
    }
    for (const [, name = ''] of row.matchAll(/`((?:sync|strays) [a-z]+)/g)) {
      expect(commands.map((command) => command.name)).toContain(name);
    }
  }
});
