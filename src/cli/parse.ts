/** From the words on the command line to a command and what was given to it, or to what is wrong with them. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { type Command, type Given, globalOptions, type Option } from './command.ts';
import { type Attempt, failedAttempt, refusal } from './exit.ts';
import { nearest } from './nearest.ts';

export interface Parsed {
  /** Undefined where none was named. */
  readonly command: Command | undefined;
  readonly given: Given;
}

type Token = NonNullable<ReturnType<typeof parseArgs>['tokens']>[number];

/** Named for later versions; they are refused with a sentence, not taken for typing errors. */
export const commandsNotAvailableYet = [
  'show',
  'apply',
  'approve',
  'reject',
  'freeze',
  'unfreeze',
  'cohort',
  'partitions show',
  'partitions merge',
  'audit',
  'completion',
];

/**
 * Global options may stand before or after the command. Every option is checked against those of the command;
 * a text option never takes a following word that begins with "--" for its value.
 */
export function parseCommandLine(argv: readonly string[], commands: readonly Command[]): Attempt<Parsed> {
  const tokens = tokensOf(argv, commands);
  const words = tokens.filter((token) => token.kind === 'positional').map((token) => token.value);
  const found = commandOf(words, commands);
  if (!found.ok) return found;
  const { command, taken } = found.value;
  const positionals = words.slice(taken);
  const values = new Map<string, string | true>();
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const wrong = checkOption(token, command);
    if (wrong !== undefined) return failedAttempt(refusal('usage', wrong));
    values.set(token.name, token.value ?? true);
  }
  const given: Given = {
    positionals,
    text: (option) => {
      const value = values.get(option);
      return typeof value === 'string' ? value : undefined;
    },
    flag: (option) => values.has(option),
  };
  if (command !== undefined && !given.flag('help')) {
    const wrong = checkPositionals(command, positionals);
    if (wrong !== undefined) return failedAttempt(refusal('usage', wrong));
  }
  return { ok: true, value: { command, given } };
}

/** Milliseconds of `10`, `10s`, `500ms`, `2m` or `1h`; undefined for anything else. */
export function parseDurationMs(text: string): number | undefined {
  const [, number, unit = 's'] = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text) ?? [];
  if (number === undefined) return undefined;
  const factors: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };
  const durationMs = Number(number) * (factors[unit] ?? 1_000);
  return durationMs > 0 && durationMs <= 2_147_483_647 ? durationMs : undefined;
}

/** What everybody tries first. */
const shorthands: Readonly<Record<string, string>> = {
  '-h': '--help',
  '-v': 'version',
  '--version': 'version',
};

function tokensOf(argv: readonly string[], commands: readonly Command[]): Token[] {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const known of [...commands.map((command) => command.options), globalOptions]) {
    for (const [name, { type }] of Object.entries(known)) options[name] = { type };
  }
  const { tokens } = parseArgs({
    args: argv.map((word) => shorthands[word] ?? word),
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  return tokens;
}

function commandOf(
  words: readonly string[],
  commands: readonly Command[],
): Attempt<{ command: Command | undefined; taken: number }> {
  const [first, second] = words;
  if (first === undefined) return { ok: true, value: { command: undefined, taken: 0 } };
  const two = second === undefined ? first : `${first} ${second}`;
  for (const [name, taken] of [
    [two, 2],
    [first, 1],
  ] as const) {
    const command = commands.find((candidate) => candidate.name === name);
    if (command !== undefined) return { ok: true, value: { command, taken } };
  }
  if (commandsNotAvailableYet.includes(first) || commandsNotAvailableYet.includes(two)) {
    const name = commandsNotAvailableYet.includes(two) ? two : first;
    const detail = `"${name}" is not available yet in this version; nothing was done.`;
    return failedAttempt(refusal('not-available-yet', detail));
  }
  const names = commands.map((command) => command.name);
  const group = names.filter((name) => name.startsWith(`${first} `));
  if (group.length > 0) {
    return failedAttempt(refusal('usage', `"${first}" needs a second word: ${group.join(', ')}.`));
  }
  const meant = nearest(two, names) ?? nearest(first, names);
  const hint = meant === undefined ? '' : ` Did you mean "${meant}"?`;
  return failedAttempt(refusal('usage', `There is no command "${first}".${hint}`));
}

function checkOption(
  token: Extract<Token, { kind: 'option' }>,
  command: Command | undefined,
): string | undefined {
  const known: Readonly<Record<string, Option>> = { ...globalOptions, ...command?.options };
  const name = token.name;
  const option = Object.hasOwn(known, name) ? known[name] : undefined;
  if (option === undefined) {
    const meant = nearest(name, Object.keys(known));
    const hint = meant === undefined ? '' : ` Did you mean --${meant}?`;
    const where = command === undefined ? 'There is no option' : `"${command.name}" has no option`;
    return `${where} ${token.rawName}.${hint}`;
  }
  const inline = token.inlineValue === true;
  if (option.type === 'boolean') return inline ? `--${name} takes no value.` : undefined;
  const missing =
    token.value === undefined || token.value === '' || (!inline && token.value.startsWith('--'));
  return missing ? `--${name} needs a value: --${name} ${option.value ?? 'VALUE'}.` : undefined;
}

function checkPositionals(command: Command, positionals: readonly string[]): string | undefined {
  const needed = command.positionals.filter((name) => name.startsWith('<')).length;
  if (positionals.length < needed) {
    return `"${command.name}" needs ${command.positionals[positionals.length] ?? 'an argument'}.`;
  }
  if (command.positionals.at(-1)?.endsWith('…]') === true) return undefined;
  const extra = positionals[command.positionals.length];
  return extra === undefined ? undefined : `"${command.name}" does not take "${extra}".`;
}
