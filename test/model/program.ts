/** The exploration as a program of its own, so that two run side by side, with a heap of their own. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { coreDirectory } from './core.ts';
import type { Exploration } from './explore.ts';
import type { Rules } from './types.ts';

export interface ExploreOrder {
  readonly scenario: string;
  readonly states: number;
  readonly core?: string | undefined;
  readonly off?: keyof Rules | undefined;
}

const node = ['--disable-warning=ExperimentalWarning', '--max-old-space-size=4096'];

export async function exploreApart(order: ExploreOrder): Promise<Exploration> {
  const program = join(import.meta.dirname, 'explore.ts');
  const parts = ['--json', '--scenario', order.scenario, '--states', String(order.states)];
  parts.push('--core', order.core ?? coreDirectory);
  if (order.off !== undefined) parts.push('--off', order.off);
  const { stdout } = await promisify(execFile)(process.execPath, [...node, program, ...parts], {
    maxBuffer: 16 * 1024 * 1024,
  });
  return JSON.parse(stdout) as Exploration;
}
