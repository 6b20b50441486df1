/** `directory show` and `directory set`: which partition a user belongs to. */
import { directoryAnswer, directorySetAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

const show: Command = {
  name: 'directory show',
  summary: 'Say which partition a user belongs to',
  positionals: ['<USER>'],
  options: {},
  changes: false,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const asked = await admin.value.get(pathOf(given.positionals[0]), directoryAnswer);
    if (!asked.ok) return asked.refusal;
    const { user, partition } = asked.value;
    context.output.event('directory', asked.value);
    context.output.line(`${plain(user)} belongs to ${plain(partition)}.`);
    return exitCodes.done;
  },
};

const set: Command = {
  name: 'directory set',
  summary: 'Make a user belong to a partition; from another one only within one store',
  positionals: ['<USER>', '<PARTITION>'],
  options: {},
  changes: true,
  async run(context, given) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const [user, partition] = given.positionals;
    const order = { partition, reason: context.reason };
    const done = await admin.value.put(pathOf(user), order, directorySetAnswer);
    if (!done.ok) return done.refusal;
    const { before, pauseMs } = done.value;
    context.output.event('directory', done.value);
    const from = before === undefined || before === partition ? '' : `, and not to ${plain(before)} any more`;
    const pause = pauseMs > 0 ? ` Writes waited ${Math.round(pauseMs)} ms.` : '';
    context.output.line(`${plain(user ?? '')} belongs to ${plain(partition ?? '')}${from}.${pause}`);
    return exitCodes.done;
  },
};

export const directoryCommands: readonly Command[] = [show, set];

function pathOf(user: string | undefined): string {
  return `/directory/${encodeURIComponent(user ?? '')}`;
}
