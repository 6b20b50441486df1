/** The core modules under exploration, from the source tree or from a mutated copy of it. */
import { pathToFileURL } from 'node:url';
import { join, resolve } from 'node:path';
import type * as guard from '../../src/core/guard.ts';
import type * as handoff from '../../src/core/handoff.ts';
import type * as member from '../../src/core/member.ts';
import type * as ownership from '../../src/core/ownership.ts';
import type * as records from '../../src/core/records.ts';

export type Core = Pick<typeof member, 'Member'> &
  Pick<typeof handoff, 'startHandoff' | 'stepHandoff' | 'isOver'> &
  Pick<typeof ownership, 'applyOrder' | 'isRefusal' | 'attemptOf' | 'untouched'> &
  Pick<typeof guard, 'guardVerdict' | 'guardAdvance' | 'guardSeal' | 'unknownToGuard'> &
  Pick<typeof records, 'decideCopy'>;

export const coreDirectory = resolve(import.meta.dirname, '../../src/core');

export async function loadCore(directory: string = coreDirectory): Promise<Core> {
  const load = async (name: string): Promise<unknown> =>
    import(pathToFileURL(join(resolve(directory), `${name}.ts`)).href);
  const modules = await Promise.all(['member', 'handoff', 'ownership', 'guard', 'records'].map(load));
  return Object.assign({}, ...modules) as Core;
}
