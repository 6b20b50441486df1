import { describe, expect, test } from '@jest/globals';
import { commands } from '../../../src/cli/commands.ts';
import { nearest } from '../../../src/cli/nearest.ts';
import { commandsNotAvailableYet, parseCommandLine, parseDurationMs } from '../../../src/cli/parse.ts';

function parsed(...argv: string[]) {
  const result = parseCommandLine(argv, commands);
  if (!result.ok) throw new Error(result.refusal.detail);
  const { command, given } = result.value;
  return { name: command?.name, positionals: given.positionals, given };
}

function refused(...argv: string[]): string {
  const result = parseCommandLine(argv, commands);
  if (result.ok) throw new Error('was not refused');
  expect(result.refusal.exit).toBe(1);
  return result.refusal.detail;
}

describe('what was typed', () => {
  test('global options stand before or after the command', () => {
    expect(parsed('--json', 'status', 'pilot', '--watch')).toMatchObject({
      name: 'status',
      positionals: ['pilot'],
    });
    const after = parsed('flip', '--reason', 'a good one', '--cohort=pilot', '--to', 'app', '--yes');
    expect(after.name).toBe('flip');
    expect(after.given.text('reason')).toBe('a good one');
    expect(after.given.text('cohort')).toBe('pilot');
    expect(after.given.flag('yes')).toBe(true);
    expect(after.given.flag('json')).toBe(false);
  });

  test('a command of two words takes the rest as its arguments', () => {
    expect(parsed('partitions', 'import', 'file.json')).toMatchObject({
      name: 'partitions import',
      positionals: ['file.json'],
    });
  });

  test('an unknown command is refused with the nearest one', () => {
    expect(refused('fliip')).toBe('There is no command "fliip". Did you mean "flip"?');
    expect(refused('partitons', 'import')).toContain('Did you mean "partitions import"?');
    expect(refused('partitions')).toContain('needs a second word');
    expect(refused('xyzzy')).toBe('There is no command "xyzzy".');
  });

  test('an unknown option is refused with the nearest one', () => {
    expect(refused('plan', '--cohrt', 'pilot')).toBe('"plan" has no option --cohrt. Did you mean --cohort?');
    expect(refused('status', '--sample', '3')).toContain('"status" has no option --sample');
    expect(refused('status', '--__proto__')).toContain('has no option');
  });

  test('a missing value, a value too many and an argument too many are refused', () => {
    expect(refused('plan', '--cohort')).toBe('--cohort needs a value: --cohort NAME.');
    expect(refused('plan', '--cohort', '--to', 'app')).toBe('--cohort needs a value: --cohort NAME.');
    expect(refused('status', '--json=yes')).toBe('--json takes no value.');
    expect(refused('status', 'pilot', 'tenth')).toBe('"status" does not take "tenth".');
    expect(refused('partitions', 'import')).toBe('"partitions import" needs <FILE>.');
  });

  test.each(commandsNotAvailableYet)('%s is not available yet, and says so', (name) => {
    expect(refused(...name.split(' '))).toContain('not available yet');
  });

  test('help of a command asks for no argument', () => {
    expect(parsed('partitions', 'import', '--help').given.flag('help')).toBe(true);
    expect(parsed('-h').given.flag('help')).toBe(true);
  });
});

describe('times', () => {
  test.each([
    ['10', 10_000],
    ['10s', 10_000],
    ['500ms', 500],
    ['1.5m', 90_000],
    ['1h', 3_600_000],
  ])('%s is %d ms', (text, expected) => expect(parseDurationMs(text)).toBe(expected));

  test.each(['', '0', '-1', '10 s', 'ten', '1d', '99999h'])('"%s" is no time', (text) => {
    expect(parseDurationMs(text)).toBeUndefined();
  });
});

test('a name too far away is not suggested', () => {
  expect(nearest('statsu', ['status', 'verify'])).toBe('status');
  expect(nearest('banana', ['status', 'verify'])).toBeUndefined();
});
