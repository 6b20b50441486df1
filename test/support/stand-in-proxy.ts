/**
 * Stands in for a proxy process where a test decides what it answers to a change of its rules: the first one of a
 * directory says that it did not change, all others that they did. It serves nothing.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessOrder, Report } from '../../src/processes/messages.ts';

const tell = (report: Report): void => void process.send?.(report);
let isFirst = false;

process.on('message', (order: ProcessOrder) => {
  if (order.order === 'start') {
    const { configHash, config } = order.rules;
    try {
      writeFileSync(join(config.dataDir, 'first'), '', { flag: 'wx' });
      isFirst = true;
    } catch {
      isFirst = false;
    }
    tell({ report: 'ready', url: configHash, warnings: [] });
  } else if (order.order === 'name-obstacle') tell({ report: 'obstacle', detail: undefined });
  else if (order.order === 'change') tell({ report: 'changed', changed: !isFirst });
  else if (order.order === 'stop') process.exit(0);
});
process.on('disconnect', () => process.exit(0));
