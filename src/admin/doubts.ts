/** Writes in doubt as operators see them, and the order that says they were looked into. */
import { z } from 'zod';
import type { DoubtfulWrite } from '../core/doubt.ts';
import { resolveAnswer } from './answers.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import { reason } from './terms.ts';
import type { AdminParts } from './parts.ts';

export function doubtOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'post',
      path: '/partitions/:id/resolve',
      role: 'operator',
      summary:
        'Says that an operator has looked into the writes in doubt of the partition: they stop no flip any more, and their idempotency keys are free again.',
      changes: true,
      body: z.strictObject({ reason }),
      answer: resolveAnswer,
      run: async ({ parameters, body, actor }) => {
        const partition = parameters['id'] ?? '';
        if (!(await isKnown(parts, partition))) return noSuchPartition(partition);
        const before = await unsettledOf(parts, partition);
        // The members first: what they still hold in doubt is what stops a fence.
        await parts.ledger.resolveDoubt(partition, actor.name, body.reason);
        const resolved = (await parts.doubts?.resolve(partition, actor.name, body.reason)) ?? [];
        const keys = (await parts.idempotency?.resolve(partition))?.length ?? 0;
        const change = {
          action: 'partition.resolve',
          target: partition,
          reason: body.reason,
          before: before.map(({ id, method, path, store, atMs }) => ({ id, method, path, store, atMs })),
          after: { resolved: resolved.length, keysFreed: keys },
        };
        return { answer: { partition, resolved, keysFreed: keys }, change };
      },
    }),
  ];
}

/** A misspelled name must not be answered as if its writes were settled. */
async function isKnown({ registry, ledger, doubts }: AdminParts, partition: string): Promise<boolean> {
  if (await registry.knows(partition)) return true;
  if ((await ledger.read(partition)).version > 0) return true;
  return ((await doubts?.of(partition)) ?? []).length > 0;
}

function noSuchPartition(partition: string): Reply {
  const detail = `Nothing was changed: neither the registry, nor the ledger, nor the book of writes in doubt knows "${partition}". Check the name; onewriter status names the partitions with writes in doubt.`;
  return { problem: { code: 'no-such-partition', detail } };
}

/** What may still take effect in the partition, as far as members have told. */
export async function unsettledOf(parts: AdminParts, partition: string): Promise<DoubtfulWrite[]> {
  const all = (await parts.doubts?.unsettled()) ?? [];
  return all.filter((write) => write.partition === partition);
}
