/** Calls about the registry as a whole: the import, and whether it names everybody who lives in legacy. */
import { z } from 'zod';
import { sayCompleteness } from '../core/homes.ts';
import { importAnswer } from './answers.ts';
import { problemOfDirectory, unlikeNames, usableName } from './directory.ts';
import { type Operation, operation, type Reply } from './operation.ts';
import type { AdminParts } from './parts.ts';
import { name, reason } from './terms.ts';

const attribute = z.union([z.string().max(1_000), z.number(), z.boolean(), z.null()]);
const imported = z.array(
  z.strictObject({
    partition: name,
    attributes: z
      .record(z.string().min(1).max(200), attribute)
      .refine((given) => Object.keys(given).length <= 100, { error: 'at most 100 attributes' })
      .optional(),
    users: z.array(usableName).optional().describe('Who belongs to it, where they belong nowhere yet.'),
  }),
);
const importBody = z.union([
  imported,
  z.strictObject({
    reason,
    partitions: imported,
    complete: z.literal(true).optional().describe('The registry names everybody who lives in legacy now.'),
  }),
]);
const importQuery = z.strictObject({ reason: reason.optional(), complete: z.literal('true').optional() });

export function registryOperations(parts: AdminParts): Operation[] {
  return [
    operation({
      method: 'post',
      path: '/partitions/import',
      role: 'operator',
      summary:
        'Adds partitions and attributes to the registry; given attributes replace those of the same name. With `complete`, it names everybody who lives in legacy from now on.',
      changes: true,
      query: importQuery,
      body: importBody,
      ndjson: true,
      answer: importAnswer,
      run: async ({ query, body, actor }) => {
        const order = Array.isArray(body)
          ? { reason: query.reason, partitions: body, complete: query.complete === 'true' }
          : { ...body, complete: body.complete === true || query.complete === 'true' };
        if (order.reason === undefined) return missingReason();
        const { partitions, complete } = order;
        const names = partitions.map(({ partition }) => partition);
        const unlike = unlikeNames(parts, names);
        if (unlike !== undefined) return unlike;
        const before = await registryState(parts);
        await parts.registry.note(
          partitions.map(({ partition, attributes }) => ({ partition, ...(attributes && { attributes }) })),
        );
        const users = await fillDirectory(parts, partitions, actor.name, order.reason);
        if (users !== undefined && 'refused' in users) return { problem: problemOfDirectory(users) };
        // Last, so that it is never said of a registry that lacks some of them.
        if (complete) await parts.registry.declareComplete(actor.name);
        const after = await registryState(parts);
        const change = {
          action: 'partitions.import',
          target: `${partitions.length} partitions`,
          reason: order.reason,
          before: { known: before.known, complete: before.complete },
          after: { known: after.known, complete: after.complete, ...(users && { usersAdded: users.added }) },
        };
        const answer = {
          ...{ imported: partitions.length, known: after.known, complete: after.complete },
          ...(users && { users }),
        };
        return { answer, change };
      },
    }),
  ];
}

/** Undefined where the import names no users. */
async function fillDirectory(
  { directory }: AdminParts,
  partitions: z.output<typeof imported>,
  by: string,
  why: string,
) {
  const entries = partitions.flatMap(({ partition, users = [] }) =>
    users.map((user) => ({ user, partition })),
  );
  return entries.length === 0 ? undefined : directory?.fill(entries, by, why);
}

/** How many it knows, and whether anybody else can be known to be new. */
export async function registryState({ registry, config, rules }: AdminParts) {
  const [known, completeness] = await Promise.all([registry.count(), registry.completeness()]);
  const { complete } = completeness;
  const { newPartitions } = rules?.() ?? config;
  return { known, complete, newPartitions, detail: sayCompleteness(completeness) };
}

function missingReason(): Reply {
  const message = 'must say why; it goes to the audit log (an array or NDJSON gives it as ?reason=)';
  return {
    problem: {
      code: 'invalid-request',
      detail: `Nothing was changed. reason: ${message}.`,
      members: { problems: [{ path: 'reason', message }] },
    },
  };
}
