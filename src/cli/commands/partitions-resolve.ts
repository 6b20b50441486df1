/** `partitions resolve NAME`: says that somebody has looked into the writes in doubt of a partition. */
import { resolveAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

export const partitionsResolve: Command = {
  name: 'partitions resolve',
  summary: 'Say that the writes in doubt of a partition were looked into',
  positionals: ['<PARTITION>'],
  options: {},
  changes: true,
  async run(context, given) {
    const partition = given.positionals[0] ?? '';
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const path = `/partitions/${encodeURIComponent(partition)}/resolve`;
    const done = await admin.value.post(path, { reason: context.reason }, resolveAnswer);
    if (!done.ok) return done.refusal;
    const { resolved, keysFreed } = done.value;
    context.output.event('resolve', done.value);
    context.output.line(
      `${plain(partition)}: ${resolved.length} writes in doubt are resolved, ${keysFreed} idempotency keys are free again. They stop no flip any more.`,
    );
    for (const { method, path: target, store, atMs } of resolved) {
      context.output.line(`  ${method} ${plain(target)} to ${store} at ${new Date(atMs).toISOString()}`);
    }
    return exitCodes.done;
  },
};
