/** Asking before something is changed. */
import { createInterface } from 'node:readline/promises';
import type { Context } from '../command.ts';
import { type CliRefusal, refusal } from '../exit.ts';

/** A refusal where nobody could be asked: no terminal and no --yes. */
export function mayAsk(context: Context): CliRefusal | undefined {
  if (context.yes || (context.stdin.isTTY === true && !context.output.json)) return undefined;
  return refusal(
    'not-confirmed',
    'There is no terminal to ask on, so nothing was done. Repeat the command with --yes if you are sure.',
  );
}

/** A refusal unless the expected word is typed, or --yes was given. */
export async function confirm(
  context: Context,
  question: string,
  expected: string,
): Promise<CliRefusal | undefined> {
  if (context.yes) return undefined;
  const lines = createInterface({ input: context.stdin, output: context.output.prompts });
  try {
    const answer = await lines.question(`${question} Type "${expected}" to go on: `, {
      signal: context.interrupted,
    });
    if (answer.trim() === expected) return undefined;
  } catch {
    // Interrupted, or the input ended: no confirmation.
  } finally {
    lines.close();
  }
  return refusal('not-confirmed', 'Not confirmed; nothing was done.');
}
