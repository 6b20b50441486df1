/** Calls about deletes that are held back until an operator agrees. */
import { z } from 'zod';
import { type BrakeAnswer, brakeAnswer, brakesAnswer } from './answers.ts';
import { type Operation, operation } from './operation.ts';
import type { AdminParts, BrakeEntry } from './parts.ts';
import { reason } from './terms.ts';

export function brakeOperations({ brakes }: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/sync/brakes',
      role: 'viewer',
      summary: 'Partitions of which many copies would be deleted at once; nothing of them is deleted.',
      answer: brakesAnswer,
      run: async () => ({ answer: { brakes: ((await brakes?.list()) ?? []).map(answerOf) } }),
    }),
    operation({
      method: 'post',
      path: '/sync/brakes/:partition/release',
      role: 'operator',
      summary: 'Agrees to the deletes that are held back, for an hour, and looks at the partition again.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: brakeAnswer,
      run: async ({ parameters, body }) => {
        const partition = parameters['partition'] ?? '';
        const released = await brakes?.release(partition);
        if (released === undefined) {
          const detail = `No deletes of ${partition} are held back; GET /v1/sync/brakes lists those that are. Nothing was done.`;
          return { problem: { code: 'no-such-brake', detail } };
        }
        const answer = answerOf(released);
        const change = {
          ...{ action: 'sync.release', target: partition, reason: body.reason },
          ...{ before: answer, after: 'released' },
        };
        return { answer, change };
      },
    }),
  ];
}

function answerOf({ partition, deletes, limit, records, first, atMs }: BrakeEntry): BrakeAnswer {
  return { partition, deletes, limit, records, first: [...first], atMs };
}
