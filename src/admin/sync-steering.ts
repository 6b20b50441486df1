/** Calls that stop the copying and let it go on. */
import { z } from 'zod';
import type { StoreName } from '../core/ownership.ts';
import { pausesAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { reason } from './terms.ts';

const pauseBody = z.strictObject({
  reason,
  to: z.enum(['legacy', 'app']).optional().describe('Copies to this store; left out: all.'),
});

export function syncSteeringOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'post',
      path: '/sync/pause',
      role: 'operator',
      summary:
        'Stops the copying, at all or to one store, within a second. No handoff that needs copies begins; one inside its fence goes on.',
      changes: true,
      body: pauseBody,
      answer: pausesAnswer,
      run: ({ body, actor }) => pause(parts, body.to ?? null, actor.name, body.reason),
    }),
    operation({
      method: 'post',
      path: '/sync/resume',
      role: 'operator',
      summary: 'Lifts the pause of copies to one store, or every pause.',
      changes: true,
      body: pauseBody,
      answer: pausesAnswer,
      run: ({ body }) => resume(parts, body.to ?? null, body.reason),
    }),
  ];
}

async function pause({ halts }: AdminParts, to: StoreName | null, by: string, why: string): Promise<Reply> {
  if (halts === undefined) return noSync();
  const before = (await halts.read()).pauses;
  await halts.pause(to, by, why);
  const { pauses } = await halts.read();
  const change = { action: 'sync.pause', target: targetOf(to), reason: why, before, after: pauses };
  return { answer: { pauses: [...pauses] }, change };
}

async function resume({ halts }: AdminParts, to: StoreName | null, why: string): Promise<Reply> {
  if (halts === undefined) return noSync();
  const before = (await halts.read()).pauses;
  if (!(await halts.resume(to))) {
    const all = before.length === 0 ? '' : ' All copies are: resume without naming a store.';
    const what = to === null ? 'No copies are' : `Copies to ${to} alone are not`;
    return { problem: { code: 'not-paused', detail: `${what} paused; nothing was changed.${all}` } };
  }
  const { pauses } = await halts.read();
  const change = { action: 'sync.resume', target: targetOf(to), reason: why, before, after: pauses };
  return { answer: { pauses: [...pauses] }, change };
}

function targetOf(to: StoreName | null): string {
  return to === null ? 'all copies' : `copies to ${to}`;
}

function noSync(): Reply {
  return { problem: { code: 'not-available-yet', detail: 'Nothing copies here; nothing was changed.' } };
}
