/** Calls about deletes that are held back until an operator agrees. */
import { z } from 'zod';
import {
  type BrakeAnswer,
  brakeAnswer,
  type BrakeOnAllAnswer,
  brakeOnAllAnswer,
  brakesAnswer,
} from './brake-answers.ts';
import { type Operation, operation } from './operation.ts';
import { storesOf } from '../sync/brake-on-all.ts';
import type { AdminParts, BrakeEntry, BrakeOnAllEntry } from './parts.ts';
import { reason } from './terms.ts';

export function brakeOperations({ brakes }: AdminParts): Operation[] {
  return [
    operation({
      method: 'get',
      path: '/sync/brakes',
      role: 'viewer',
      summary: 'Partitions of which many copies would be deleted at once; nothing of them is deleted.',
      answer: brakesAnswer,
      run: async () => {
        const [list = [], onAll] = await Promise.all([brakes?.list(), brakes?.onAll()]);
        return {
          answer: { brakes: list.map(answerOf), onAll: onAll === undefined ? null : answerOfAll(onAll) },
        };
      },
    }),
    operation({
      method: 'post',
      path: '/sync/brakes/release',
      role: 'operator',
      summary: 'Agrees to the deletes that are held back over all partitions, for an hour.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: brakeOnAllAnswer,
      run: async ({ body }) => {
        const released = await brakes?.releaseAll();
        if (released === undefined) {
          const detail =
            'Nothing is held back over all partitions; "onewriter sync brakes" (GET /v1/sync/brakes) lists single partitions that are. Nothing was done.';
          return { problem: { code: 'no-such-brake', detail } };
        }
        const answer = answerOfAll(released);
        const change = {
          ...{ action: 'sync.release', target: 'all partitions', reason: body.reason },
          ...{ before: answer, after: 'released' },
        };
        return { answer, change };
      },
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
          const onAll = await brakes?.onAll();
          return { problem: { code: 'no-such-brake', detail: notHeld(partition, onAll !== undefined) } };
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

function notHeld(partition: string, allAreHeld: boolean): string {
  const lists = '"onewriter sync brakes" (GET /v1/sync/brakes) lists what is';
  if (!allAreHeld) return `No deletes of ${partition} are held back; ${lists}. Nothing was done.`;
  return (
    `${partition} has no brake of its own, but the brake on all partitions holds every delete back; ${lists}. ` +
    'Nothing was done. To agree to those of all partitions: onewriter sync release --all --reason TEXT'
  );
}

function answerOf({ partition, deletes, limit, records, store, first, atMs }: BrakeEntry): BrakeAnswer {
  return { partition, deletes, limit, records, ...(store && { store }), first: [...first], atMs };
}

function answerOfAll(brake: BrakeOnAllEntry): BrakeOnAllAnswer {
  const { deletes, lately, limit, copies, first, atMs } = brake;
  return { deletes, lately, limit, copies, stores: storesOf(brake), first: [...first], atMs };
}
