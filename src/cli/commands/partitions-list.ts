/** `partitions list`: all partitions with their owners, and whether anybody else can be new. */
import { partitionsAnswer } from '../../admin/answers.ts';
import type { Command } from '../command.ts';
import { exitCodes } from '../exit.ts';
import { plain } from '../output.ts';

const atOnce = 500;

export const partitionsList: Command = {
  name: 'partitions list',
  summary: 'List all known partitions with their owners',
  positionals: [],
  options: {},
  changes: false,
  async run(context) {
    const admin = context.admin();
    if (!admin.ok) return admin.refusal;
    const { output } = context;
    let cursor = '';
    for (;;) {
      const query = new URLSearchParams({ limit: String(atOnce), ...(cursor === '' ? {} : { cursor }) });
      const page = await admin.value.get(`/partitions?${query.toString()}`, partitionsAnswer);
      if (!page.ok) return page.refusal;
      const { partitions, registry, next } = page.value;
      for (const partition of partitions) output.event('partition', partition);
      output.table(
        partitions.map(({ partition, owner, phase, epoch }) => [
          ...[plain(partition), owner, phase, `epoch ${epoch}`],
        ]),
        '',
      );
      if (next === undefined) {
        output.event('registry', registry);
        output.line(plain(registry.detail));
        return exitCodes.done;
      }
      cursor = next;
    }
  },
};
